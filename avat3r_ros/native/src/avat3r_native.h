// C interface of libavat3r_native: everything Python calls through ctypes (see ../__init__.py).
//
// Arrays are dense and row-major, poses are `a_from_b`, units are metres and pixels, pixel centres
// lie at +0.5. Nothing here throws: bad sizes come back as a non-zero status, bad numbers are
// skipped.
#pragma once
#include <cstdint>

#if defined(_WIN32)
#define AVAT3R_API __declspec(dllexport)
#else
#define AVAT3R_API __attribute__((visibility("default")))
#endif

extern "C" {

// Raised whenever a struct or a signature below changes; Python refuses a library of another
// number.
constexpr int32_t AVAT3R_ABI_VERSION = 4;
AVAT3R_API int32_t avat3r_abi_version();

// Nearest triangle of every pixel. `triangle_ids` is -1 and `depth_m` infinite where there is none;
// `barycentrics` (3 a pixel) are those of the surface point, not of its projection.
AVAT3R_API int32_t avat3r_rasterize_mesh(const float* vertices_head, int64_t num_vertices,
                                         const int32_t* triangles, int64_t num_triangles,
                                         const double* intrinsics, const double* camera_from_head,
                                         int32_t width, int32_t height, int32_t cull_backfaces,
                                         int32_t* triangle_ids, float* barycentrics,
                                         float* depth_m);

// ---- Gaussian splatting. Same equations and constants as gsplat 1.5's "classic" rasterizer: see
// splat_types.h.

struct Avat3rSplatScene {
  int64_t num_gaussians;
  int32_t num_cameras, width, height;
  int32_t num_colors;  // colour channels, 0..3
  int32_t with_depth;  // append z in the camera frame, weighted like a colour, as the last channel
  float eps2d, near_plane, far_plane;  // blur added to the screen variances (px^2); metres
  const float *means, *quats_wxyz, *scales, *opacities,
      *colors;                         // (N,3) (N,4) (N,3) (N) (N,num_colors)
  const float *viewmats, *intrinsics;  // camera_from_world (C,4,4), (C,3,3)
  const float* backgrounds;            // (C,num_colors) or null for black; depth has none
};

struct Avat3rSplatOptions {
  int32_t num_threads;
  int32_t instruction_set;    // index into avat3r_instruction_set_name, -1 for the best
  int32_t keep_for_backward;  // leave in the workspace what avat3r_splat_backward needs
  int32_t bgr;                // channel order of `bytes`
  int32_t bytes_alpha;        // Avat3rBytesAlpha
  float min_depth_alpha;      // pixels below it have no depth
};

enum Avat3rBytesAlpha : int32_t {
  AVAT3R_NO_ALPHA = 0,             // three bytes a pixel
  AVAT3R_PREMULTIPLIED_ALPHA = 1,  // four; for compositing
  AVAT3R_STRAIGHT_ALPHA = 2,       // four; colours divided by alpha, as in PNG
};

// Each may be null. channels: (C,H,W,num_colors + with_depth); alphas: (C,H,W); bytes: (C,H,W,3) or
// (C,H,W,4); depths: (C,H,W) expected z in the camera frame, 0 where there is none, needs
// with_depth.
struct Avat3rSplatImages {
  float *channels, *alphas;
  uint8_t* bytes;
  float* depths;
};

struct Avat3rSplatGradients {
  const float *channels, *alphas;                           // in; alphas may be null
  float *means, *quats_wxyz, *scales, *opacities, *colors;  // out, overwritten
  float* viewmats;                                          // out, overwritten; may be null
};

struct Avat3rSplatStats {
  int64_t num_visible;  // summed over the cameras
  int64_t num_pairs;    // (Gaussian, tile) pairs, summed over the cameras
  int64_t num_invalid;  // Gaussians with a NaN or an infinity, left out
  double project_ms, sort_ms, blend_ms;
};

enum Avat3rStatus : int32_t {
  AVAT3R_OK = 0,
  AVAT3R_BAD_ARGUMENT = 1,
  AVAT3R_OUT_OF_MEMORY = 2,
  AVAT3R_TOO_MANY_PAIRS = 3,  // the Gaussians cover too many tiles
  AVAT3R_NO_FORWARD = 4,      // backward without a forward that kept its lists
};

// Instruction sets this processor can run, best first; null past the last.
AVAT3R_API const char* avat3r_instruction_set_name(int32_t index);

// Grow-only memory of one forward and its backward. One thread at a time may use it; null if out of
// memory.
struct Avat3rSplatWorkspace;
AVAT3R_API Avat3rSplatWorkspace* avat3r_splat_workspace_create();
AVAT3R_API void avat3r_splat_workspace_destroy(Avat3rSplatWorkspace* workspace);

AVAT3R_API int32_t avat3r_splat_forward(Avat3rSplatWorkspace* workspace,
                                        const Avat3rSplatScene* scene,
                                        const Avat3rSplatOptions* options,
                                        const Avat3rSplatImages* images, Avat3rSplatStats* stats);

// Gradients of the scene of the last forward on this workspace; `scene` must hold the same values.
AVAT3R_API int32_t avat3r_splat_backward(Avat3rSplatWorkspace* workspace,
                                         const Avat3rSplatScene* scene,
                                         const Avat3rSplatOptions* options,
                                         const Avat3rSplatGradients* gradients);

// ---- Compiled animation: Gaussians as small linear bases, see basis_types.h.

// Neighbouring Gaussians that share their components. Every group of attributes has a rank, in the
// order of BasisGroup; a group whose rank is 0 is not written, for it does not move.
struct Avat3rBasisBlock {
  int64_t stream_begin;        // first number in `stream`
  int64_t position_begin;      // first number in `positions`
  int64_t coefficient_begin;   // first row of `map`
  int32_t first, count;        // Gaussians
  int32_t ranks[5];
  int32_t fades;  // opacity follows the area of the half axes
};

struct Avat3rBasis {
  int64_t num_blocks;
  const Avat3rBasisBlock* blocks;
  const uint16_t* stream;    // halves: resting values and components, 16 Gaussians at a time
  const float* positions;    // resting positions, metres, 16 Gaussians at a time
  const uint16_t* map;       // halves (coefficients, num_inputs): coefficients = map * inputs
  int32_t num_inputs;        // a multiple of 16, at most 256
  float fade_from, fade_to;  // area ratios between which opacity goes from whole to nothing
};

// Arrays of all Gaussians; only the rows of moving ones are written.
struct Avat3rBasisOutputs {
  float *means, *quats_wxyz, *scales, *opacities, *colors;  // (N,3) (N,4) (N,3) (N) (N,3)
};

// `inputs` are `num_inputs` numbers. `instruction_set` as in Avat3rSplatOptions. The result does not
// depend on the number of threads.
AVAT3R_API int32_t avat3r_basis_evaluate(const Avat3rBasis* basis, const float* inputs,
                                         const Avat3rBasisOutputs* outputs, int32_t num_threads,
                                         int32_t instruction_set);

// ---- Reprojection: a drawn layer as it looks from another place nearby, see reproject_types.h.

struct Avat3rReprojection {
  int32_t num_cameras, layer_width, layer_height, width, height;
  int32_t bgr;                            // channel order of `images`
  int32_t with_alpha;                     // four bytes a pixel, straight alpha, no background
  uint8_t background[4];                  // RGB behind the layer, and one unused
  const uint8_t* layer_rgba;              // (C,layer_height,layer_width,4), premultiplied
  const float* layer_depths;              // (C,layer_height,layer_width) z, 0 where there is none
  const double *layer_intrinsics, *intrinsics;  // (C,3,3), no skew
  const double* layer_from_target;        // (C,4,4)
  const uint8_t* background_images;       // (C,height,width,3) RGB behind the layer, or null
  uint8_t* images;                        // (C,height,width,3 or 4)
  float* depths;                          // (C,height,width) z, 0 where alpha < 1/2; may be null
};

// `num_uncovered` counts pixels near the drawn surface that lie beyond the layer's edge: they are
// transparent. The result does not depend on the number of threads.
AVAT3R_API int32_t avat3r_reproject(const Avat3rReprojection* job, int32_t num_threads,
                                    int32_t instruction_set, int64_t* num_uncovered);

}  // extern "C"
