/* The body of gemm on CUDA: which of its ways a product takes. */
#include "cuda_bodies.h"
#include "gemm_cublaslt.h"
#include "gemm_cuda.h"
#include "gemm_quant_sm90_cuda.h"

nt_status nt_gemm_cuda(struct nt_backend *be, const struct nt_gemm_args *args) {
    if (args->n_tok == 0) return NT_OK;
    if (nt_cublaslt_takes(be, args)) return nt_cublaslt_gemm(be, args);
    NT_TRY(nt_gemm_cuda_check(args));
    if (nt_weight_is_quantized(args->w->format))
        return nt_gemm_quant_sm90_takes(be, args) ? nt_gemm_quant_sm90(be, args) : nt_gemm_quant(be, args);
    return nt_gemm_sm90_takes(be, args) ? nt_gemm_sm90(be, args) : nt_gemm_mma(be, args);
}
