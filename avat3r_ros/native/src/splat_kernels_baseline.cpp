// What every processor of the family has: SSE2 on x86-64, NEON on 64-bit Arm.
#define AVAT3R_KERNELS kSplatKernelsBaseline
#if defined(__SSE2__)
#define AVAT3R_KERNELS_NAME "sse2"
#elif defined(__ARM_NEON)
#define AVAT3R_KERNELS_NAME "neon"
#else
#define AVAT3R_KERNELS_NAME "generic"
#endif
#include "splat_kernels.h"
