// The compiled animation: an avatar's moving Gaussians as small linear bases.
//
//   inputs (a few dozen numbers of the expression) ── block's rows of `map` ──► coefficients
//   resting value + sum_k coefficient_k * component_k ──► position, half axes, thickness, ...
//   half axes ──► orientation, two scales, fading ──► the arrays that the rasterizer reads
//
// The rig is linear in the expression, and so are the half axes (p, q) of a disc that lies on it,
// while its principal axes, quaternion and scales are not: the basis holds what is linear and the
// rest is closed form. `stream` holds, for each block and each 16 Gaussians of it:
//
//   position      rank x 3 components, millimetres (the resting value is in `positions`)
//   half axes     least and greatest scale, millimetres; where the block fades 1 / area at which the
//                 Gaussian was placed, 1 / mm^2; then (1 + rank) x 6: resting value and components
//                 of p and q, millimetres
//   thickness     (1 + rank) x 1, millimetres
//   colour        (1 + rank) x 3
//   opacity       (1 + rank) x 1, before fading; also with rank 0 where the block fades
//
// of the groups that are present, each row 16 halves. The last 16 of a block may be partly unused.
#pragma once
#include <cstdint>

#include "avat3r_native.h"

namespace avat3r {

enum BasisGroup { kPosition, kHalfAxes, kThickness, kColor, kOpacity, kNumBasisGroups };

constexpr int kMaxBasisInputs = 256, kMaxRank = 64;

struct BasisKernels {
  const char* name;  // as in avat3r_instruction_set_name
  void (*evaluate_block)(const Avat3rBasis& basis, const Avat3rBasisBlock& block,
                         const float* aligned_inputs, const Avat3rBasisOutputs& outputs);
};

}  // namespace avat3r
