// What the stages of the Gaussian rasterizer hand to each other; plain data, shared by the host
// code and by the kernels of every instruction set.
//
//   project   16 Gaussians at a time -> one Splat each; the visible ones are counted into their
//             tiles
//   bin       splats -> one list of (depth, splat) for each 16x16 tile
//   blend     each tile: sort its list, then blend front to back, one block (16 lanes) at a time
//   backward  each tile's list back to front -> one row of sums for each (splat, tile) pair;
//             each splat adds up its rows and carries them back to the Gaussian
//
// No two threads write the same number and every sum has one order: results do not depend on the
// number of threads.
//
// The image is gsplat 1.5's: a blur of eps2d is added to the screen covariance, the mean is clamped
// to 15 % outside the image where the projection is linearised, alpha = min(0.999, opacity
// exp(-sigma)), contributions below 1/255 are dropped, and blending stops before the splat that
// would bring the transmittance to 1e-4 or less. Where nothing but bytes leaves, a block of pixels
// ends once all of them let less than 1/1024 through.
#pragma once
#include <cstdint>

#include "avat3r_native.h"

namespace avat3r {

constexpr int kTileSize = 16;                        // pixels
constexpr int kBlockSize = 4;                        // pixels; one lane each
constexpr int kTileBlocks = kTileSize / kBlockSize;  // along one side
constexpr int kNumBlocks = kTileBlocks * kTileBlocks;
constexpr int kMaxChannels = 4;
constexpr int64_t kGaussianChunk = 4096;  // Gaussians of one projection task

constexpr float kMaxAlpha = 0.999f;
constexpr float kMinAlpha = 1.f / 255.f;
constexpr float kLog2MinAlpha = -7.994353437f;
constexpr float kMinTransmittance = 1e-4f;
constexpr float kMinShown = 1.f / 1024;  // what lies behind changes a byte by a quarter at most
constexpr float kMaxExtent = 3.33f;      // standard deviations
constexpr float kFrustumMargin = 0.15f;  // of the image size

// A Gaussian on the screen. At offset d = pixel - mean its alpha is
//   2^(log2_opacity - (p dx + q dy)^2 - (r dy)^2).
struct alignas(32) Splat {
  float x, y;
  float p, q, r;  // Cholesky factor of the inverse screen covariance, times sqrt(log2(e) / 2)
  float log2_opacity;
  float reach_x, reach_y;  // pixels from the mean where alpha falls to 1/255
};
static_assert(sizeof(Splat) == 32, "half a cache line");

// The tiles that a splat can reach, inclusive; x0 > x1 where it is not visible.
struct TileBox {
  uint16_t x0, y0, x1, y1;
  bool visible() const { return x0 <= x1; }
  int num_tiles() const { return (x1 - x0 + 1) * (y1 - y0 + 1); }
};

// One element of a tile's list: depth << 32 | splat. As a number it sorts by depth (the bits of a
// positive float sort like the float), then by splat, as gsplat does.
using Entry = uint64_t;
inline uint32_t splat_of(Entry entry) { return (uint32_t)entry; }
inline uint32_t depth_bits_of(Entry entry) { return (uint32_t)(entry >> 32); }

// One camera, with the limits inside which the projection is linearised at the mean itself.
struct CameraModel {
  float rotation[9], translation[3];  // camera_from_world
  float fx, fy, cx, cy;
  float x_min, x_max, y_min, y_max;  // of x / z and y / z
};

// Sums over the pixels of one (splat, tile) pair, written by blend_tile_backward. With s = alpha
// dL/dalpha: s, s dx, s dy, s dx^2, s dx dy, s dy^2, then the channels' gradients.
constexpr int kPairMoments = 6;
constexpr int kPairUsed = 11;  // 1 where the row was written
constexpr int kPairRow = 12;

// The lists of one camera. Splat i is Gaussian i.
struct CameraLists {
  CameraModel camera;
  Splat* splats;
  TileBox* boxes;
  float* depths;        // z in the camera frame
  Entry* entries;       // the tiles' lists
  int64_t* tile_begin;     // num_tiles + 1
  float* transmittance;  // (H,W) after the last splat taken; only when kept for the backward pass
  int32_t* last_entry;   // (H,W) entry of the last splat taken, -1 if none; likewise
  uint32_t* first_pair;  // backward pass: where each splat's rows begin
  float* pair_rows;      // backward pass
};

struct BlendTask {
  const Avat3rSplatScene* scene;
  const CameraLists* lists;
  int32_t camera, tile;
};

struct ProjectCounts {
  int64_t visible;  // summed over the cameras
  int64_t invalid;  // Gaussians with a NaN or an infinity
};

// The entry points of one instruction set.
struct SplatKernels {
  const char* name;
  // Project Gaussians [begin, end) for every camera; `tile_counts[camera]` is the calling thread's
  // difference array of (tiles_y + 1) x (tiles_x + 1).
  ProjectCounts (*project)(const Avat3rSplatScene& scene, const CameraLists* lists, int64_t begin,
                           int64_t end, uint32_t* const* tile_counts);
  // `sort_scratch` has room for the tile's entries.
  void (*blend_tile)(const BlendTask& task, const Avat3rSplatOptions& options,
                     const Avat3rSplatImages& images, Entry* sort_scratch);
  void (*blend_tile_backward)(const BlendTask& task, const Avat3rSplatGradients& gradients);
  // Carry the pair rows of splats [begin, end) back to their Gaussians, adding to the gradients.
  // `viewmat_gradient` (12 numbers, row-major 3x4) is added to unless null.
  void (*project_backward)(const Avat3rSplatScene& scene, const CameraLists& lists, int64_t begin,
                           int64_t end, const Avat3rSplatGradients& gradients,
                           double* viewmat_gradient);
};

}  // namespace avat3r
