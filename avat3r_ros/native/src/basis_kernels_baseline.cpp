// What every processor of the family has: SSE2 on x86-64, NEON on 64-bit Arm.
#define AVAT3R_BASIS_KERNELS kBasisKernelsBaseline
#define AVAT3R_BASIS_KERNELS_NAME "baseline"
#include "basis_kernels.h"
