#define AVAT3R_REPROJECT_KERNELS kReprojectKernelsAvx2
#define AVAT3R_REPROJECT_KERNELS_NAME "avx2"
#include "reproject_kernels.h"
