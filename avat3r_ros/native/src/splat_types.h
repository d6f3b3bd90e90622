// What the stages of the Gaussian rasterizer hand to each other; plain data, shared by the host
// code and by the kernels of every instruction set.
//
//   project   16 Gaussians at a time -> one Splat for each visible one, counted into its tiles
//   bin       Splats -> one list of (depth, splat) for each 16x16 tile
//   blend     each tile: sort its list, then blend front to back, 4x4 pixels at a time
//   backward  each tile's list back to front -> one row of sums for each (splat, tile) pair;
//             each splat adds up its rows and carries them back to the Gaussian
//
// No two threads write the same number and every sum has one order: results do not depend on the
// number of threads.
//
// The image is gsplat 1.5's: a blur of eps2d is added to the screen covariance, the mean is clamped
// to 15 % outside the image where the projection is linearised, alpha = min(0.999, opacity
// exp(-sigma)), contributions below 1/255 are dropped, and blending stops before the splat that
// would bring the transmittance to 1e-4 or less.
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
constexpr float kMaxExtent = 3.33f;      // standard deviations
constexpr float kFrustumMargin = 0.15f;  // of the image size

// A Gaussian on the screen, one cache line. At offset d = pixel - mean its alpha is
//   2^(log2_opacity + a dx^2 + b dx dy + c dy^2).
struct alignas(64) Splat {
  float x, y;
  float a, b, c;
  float log2_opacity;
  float depth;
  uint32_t gaussian;
  float channels[kMaxChannels];
  uint16_t block_x0, block_y0, block_x1, block_y1;  // 4x4-pixel blocks it can reach, inclusive
  uint32_t first_pair;  // number of pairs of the splats before it in its chunk
  uint32_t unused;
};
static_assert(sizeof(Splat) == 64, "one cache line");

// One camera, with the limits inside which the projection is linearised at the mean itself.
struct CameraModel {
  float rotation[9], translation[3];  // camera_from_world
  float fx, fy, cx, cy;
  float x_min, x_max, y_min, y_max;  // of x / z and y / z
};

struct TileBox {
  uint16_t x0, y0, x1, y1;  // inclusive
};

// Sums over the pixels of one (splat, tile) pair, written by blend_tile_backward. With s = alpha
// dL/dalpha: s, s dx, s dy, s dx^2, s dx dy, s dy^2, then the channels' gradients.
constexpr int kPairMoments = 6;
constexpr int kPairUsed = 11;  // 1 where the row was written
constexpr int kPairRow = 12;

// The lists of one camera. Splats are compacted within each chunk of Gaussians: those of chunk k
// are splats[k * kGaussianChunk + 0 .. chunk_visible[k]).
struct CameraLists {
  CameraModel camera;
  Splat* splats;
  uint32_t* depth_keys;  // bits of the depth, which sort like the depth
  TileBox* tile_boxes;
  int64_t* chunk_visible;
  uint32_t* chunk_pairs;
  uint64_t* chunk_first_pair;  // filled for the backward pass
  uint64_t* entries;           // depth key << 32 | splat
  int64_t* tile_begin;         // num_tiles + 1
  float* transmittance;  // (H,W) after the last splat taken; only when kept for the backward pass
  int32_t* last_entry;   // (H,W) entry of the last splat taken, -1 if none; likewise
  float* pair_rows;      // backward pass
};

struct BlendTask {
  const Avat3rSplatScene* scene;
  const CameraLists* lists;
  int32_t camera, tile;
};

// The entry points of one instruction set.
struct SplatKernels {
  const char* name;
  // Project Gaussians [begin, end) for every camera; `tile_counts[camera]` is the calling thread's
  // difference array of (tiles_y + 1) x (tiles_x + 1). Returns how many Gaussians had a NaN or an
  // infinity.
  int64_t (*project)(const Avat3rSplatScene& scene, const CameraLists* lists, int64_t begin,
                     int64_t end, uint32_t* const* tile_counts);
  // `sort_scratch` has room for the tile's entries.
  void (*blend_tile)(const BlendTask& task, const Avat3rSplatOptions& options,
                     const Avat3rSplatImages& images, uint64_t* sort_scratch);
  void (*blend_tile_backward)(const BlendTask& task, const Avat3rSplatGradients& gradients);
  // Carry the pair rows of splats [begin, end) back to their Gaussians, adding to the gradients.
  // `viewmat_gradient` (12 numbers, row-major 3x4) is added to unless null.
  void (*project_backward)(const Avat3rSplatScene& scene, const CameraLists& lists, int64_t begin,
                           int64_t end, const Avat3rSplatGradients& gradients,
                           double* viewmat_gradient);
};

}  // namespace avat3r
