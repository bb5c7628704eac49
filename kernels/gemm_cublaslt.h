/* Large products by NVIDIA's cuBLASLt, opened only when asked for: bf16 x bf16 to f32 or bf16.
 *
 * Batch invariance. cuBLASLt may choose another algorithm for another row count, and another algorithm sums in another
 * order. Here one algorithm is chosen for each kind of product (n, k, output, bias), at NT_BLASLT_ROWS rows, by the
 * library's fixed heuristic (never by timing), and kept for every row count: without split k and without a reduction
 * scheme each output is one chain over k inside one tile, whatever its row. So rows do not depend on their neighbours
 * or on n_tok as long as every call of a weight goes the same way. Between this and our own kernel the bits differ:
 * with min_rows above 1 the result of a token depends on whether its step had that many rows, which is why nothing
 * enables the library by itself (run.gemm_library). With 1 the choice is no longer the batch's, and what is left is
 * the library's word: its documentation promises the same bits for the same shape only.
 * Workspace is the backend's. Lifetime: closed with the backend. Threading: as the backend.
 * Errors: NT_E_UNSUPPORTED when the library is absent or has no such algorithm; NT_E_SYSTEM with its text otherwise. */
#ifndef NT_GEMM_CUBLASLT_H
#define NT_GEMM_CUBLASLT_H

#include "cuda_backend.h"

enum { NT_BLASLT_ROWS = 512 };

/* From now on nt_cublaslt_takes is true for products of at least min_rows rows that it can do. */
NT_MUST nt_status nt_cublaslt_enable(struct nt_backend *be, int32_t min_rows);
void nt_cublaslt_close(struct nt_cublaslt *blas);             /* NULL is fine */
size_t nt_cublaslt_version(const struct nt_backend *be);      /* 0: not enabled */
const char *nt_cublaslt_library(const struct nt_backend *be); /* the file that was opened; enabled */

/* Enabled, enough rows, a plain output (no gate), and the alignments its kernels want. */
bool nt_cublaslt_takes(const struct nt_backend *be, const struct nt_gemm_args *args);
/* Only what nt_cublaslt_takes. */
NT_MUST nt_status nt_cublaslt_gemm(struct nt_backend *be, const struct nt_gemm_args *args);

#endif
