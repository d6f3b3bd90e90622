#define AVAT3R_BASIS_KERNELS kBasisKernelsAvx2
#define AVAT3R_BASIS_KERNELS_NAME "avx2"
#include "basis_kernels.h"
