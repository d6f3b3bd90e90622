#define AVAT3R_REPROJECT_KERNELS kReprojectKernelsAvx512
#define AVAT3R_REPROJECT_KERNELS_NAME "avx512"
#include "reproject_kernels.h"
