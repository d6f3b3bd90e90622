// What every processor of the family has: SSE2 on x86-64, NEON on 64-bit Arm.
#define AVAT3R_REPROJECT_KERNELS kReprojectKernelsBaseline
#define AVAT3R_REPROJECT_KERNELS_NAME "baseline"
#include "reproject_kernels.h"
