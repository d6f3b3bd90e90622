#define AVAT3R_KERNELS kSplatKernelsAvx512
#define AVAT3R_KERNELS_NAME "avx512"
#include "splat_kernels.h"
