#define AVAT3R_KERNELS kSplatKernelsAvx2
#define AVAT3R_KERNELS_NAME "avx2"
#include "splat_kernels.h"
