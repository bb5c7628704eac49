/* The sweep of cuda_check.h over products; internal to kernels/cuda_check*.
 *
 * Shapes are run on device memory; of each product some rows and columns are compared with sums in double, and the
 * first and last row with a product of that row alone, bit by bit (batch invariance, ops.h); integer weights go by
 * wgmma in one of the two and by mma.sync in the other on compute capability 9.0. Each kernel that was chosen gets a
 * row with the worst of its shapes. Buffers live for one sweep. Threading: as the backend. Errors: NT_E_NOMEM. */
#ifndef NT_CUDA_CHECK_GEMM_H
#define NT_CUDA_CHECK_GEMM_H

#include "cuda_check_rows.h"

NT_MUST nt_status nt_cuda_check_gemm(struct nt_backend *be, bool small, struct nt_cuda_check *out);

#endif
