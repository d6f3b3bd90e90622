// Reprojection: a drawn layer (colour, alpha, depth) as it looks from another place nearby.
//
//   forward    every few source pixels, with their depth ──► least depth of each 8x8 target cell
//   inverse    target pixel, depth guessed from its cell ──► source pixel ──► the depth found there
//              ──► better source pixel (twice) ──► colour and alpha, bilinear ──► over background
//
// A pixel p of the target at depth z lies at the source pixel of s = z * (ray * p) + offset. Where
// the layer is empty the last depth is kept, so that the outline moves with the surface beside it.
// What the layer does not show cannot be found: pixels beyond its edge are transparent, and a
// surface that comes out from behind another is filled with what was seen beside it.
#pragma once
#include <cstdint>

#include "avat3r_native.h"

namespace avat3r {

constexpr int kCellSize = 8;
constexpr float kNoDepth = 1e30f;

// Constants of one camera; matrices act on (x, y, 1) of pixels.
struct ReprojectCamera {
  float ray[3][3], offset[3];          // source pixel (homogeneous) from a target pixel and its z
  float depth_row[3], depth_offset;    // target z of a source pixel: its z * depth_row + offset
  float forward[3][3], shift[3];       // target pixel (homogeneous) from a source pixel and its z
};

struct ReprojectTask {
  const Avat3rReprojection* job;
  const ReprojectCamera* camera;
  int index;           // of the camera
  const float* cells;  // guessed z, kNoDepth where nothing is near
  int columns;         // of cells
};

struct ReprojectKernels {
  const char* name;  // as in avat3r_instruction_set_name
  // Fill target row y; returns how many pixels near the drawn surface the layer does not cover.
  int64_t (*row)(const ReprojectTask& task, int y);
};

}  // namespace avat3r
