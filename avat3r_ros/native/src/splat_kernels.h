// The Gaussian rasterizer's inner loops, compiled once for each instruction set:
// splat_kernels_*.cpp define AVAT3R_KERNELS, the name of their table, and include this file. See
// splat_types.h for the flow.
#include <cstring>

#include "splat_types.h"
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace avat3r {
namespace {

#include "simd.h"

#include "splat_project.h"
#include "splat_sort.h"
#include "splat_blend.h"
#include "splat_blend_backward.h"
#include "splat_project_backward.h"

}  // namespace

extern const SplatKernels AVAT3R_KERNELS;
const SplatKernels AVAT3R_KERNELS = {
    AVAT3R_KERNELS_NAME, project, blend_tile, blend_tile_backward, project_backward,
};

}  // namespace avat3r
