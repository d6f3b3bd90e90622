#define AVAT3R_BASIS_KERNELS kBasisKernelsAvx512
#define AVAT3R_BASIS_KERNELS_NAME "avx512"
#include "basis_kernels.h"
