/* The stand-ins' own declarations against NVIDIA's headers, where those are installed. It is enough that this compiles;
 * run, it checks the conversions that both stand-ins share. */
#include <math.h>
#include <stdio.h>

#define EMU_ABI_VALUES_ONLY
#include "cublaslt_abi.h"
#include "half.h"
#include "nccl_abi.h"

#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #ours)

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
SAME(LT_SUCCESS, CUBLAS_STATUS_SUCCESS);
SAME(LT_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED);
SAME(LT_INVALID_VALUE, CUBLAS_STATUS_INVALID_VALUE);
SAME(LT_EXECUTION_FAILED, CUBLAS_STATUS_EXECUTION_FAILED);
SAME(LT_NOT_SUPPORTED, CUBLAS_STATUS_NOT_SUPPORTED);
SAME(LT_F32, CUDA_R_32F);
SAME(LT_F16, CUDA_R_16F);
SAME(LT_BF16, CUDA_R_16BF);
SAME(LT_COMPUTE_F32, CUBLAS_COMPUTE_32F);
SAME(LT_OP_N, CUBLAS_OP_N);
SAME(LT_OP_T, CUBLAS_OP_T);
SAME(LT_ORDER_COL, CUBLASLT_ORDER_COL);
SAME(LT_ORDER_ROW, CUBLASLT_ORDER_ROW);
SAME(LT_LAYOUT_TYPE, CUBLASLT_MATRIX_LAYOUT_TYPE);
SAME(LT_LAYOUT_ORDER, CUBLASLT_MATRIX_LAYOUT_ORDER);
SAME(LT_LAYOUT_ROWS, CUBLASLT_MATRIX_LAYOUT_ROWS);
SAME(LT_LAYOUT_COLS, CUBLASLT_MATRIX_LAYOUT_COLS);
SAME(LT_LAYOUT_LD, CUBLASLT_MATRIX_LAYOUT_LD);
SAME(LT_LAYOUT_BATCH_COUNT, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT);
SAME(LT_LAYOUT_BATCH_STRIDE, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET);
SAME(LT_DESC_COMPUTE, CUBLASLT_MATMUL_DESC_COMPUTE_TYPE);
SAME(LT_DESC_SCALE, CUBLASLT_MATMUL_DESC_SCALE_TYPE);
SAME(LT_DESC_POINTER_MODE, CUBLASLT_MATMUL_DESC_POINTER_MODE);
SAME(LT_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSA);
SAME(LT_DESC_TRANSB, CUBLASLT_MATMUL_DESC_TRANSB);
SAME(LT_DESC_EPILOGUE, CUBLASLT_MATMUL_DESC_EPILOGUE);
SAME(LT_DESC_BIAS_POINTER, CUBLASLT_MATMUL_DESC_BIAS_POINTER);
SAME(LT_DESC_BIAS_TYPE, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE);
SAME(LT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_DEFAULT);
SAME(LT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_BIAS);
SAME(LT_PREF_MAX_WORKSPACE, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
SAME(LT_PREF_ALIGNMENT_A, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
SAME(LT_PREF_ALIGNMENT_D, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
SAME(LT_PREF_LAST, CUBLASLT_MATMUL_PREF_IMPL_MASK);
SAME(LT_ALGO_ID, CUBLASLT_ALGO_CONFIG_ID);
SAME(LT_ALGO_TILE, CUBLASLT_ALGO_CONFIG_TILE_ID);
SAME(LT_ALGO_SPLITK, CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
SAME(LT_ALGO_REDUCTION, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
SAME(LT_ALGO_STAGES, CUBLASLT_ALGO_CONFIG_STAGES_ID);
SAME(sizeof(struct lt_algo), sizeof(cublasLtMatmulAlgo_t));
SAME(sizeof(struct lt_heuristic), sizeof(cublasLtMatmulHeuristicResult_t));
SAME(offsetof(struct lt_heuristic, state), offsetof(cublasLtMatmulHeuristicResult_t, state));
#endif

#if __has_include(<nccl.h>)
#include <nccl.h>
SAME(NC_SUCCESS, ncclSuccess);
SAME(NC_UNHANDLED_CUDA, ncclUnhandledCudaError);
SAME(NC_SYSTEM_ERROR, ncclSystemError);
SAME(NC_INTERNAL_ERROR, ncclInternalError);
SAME(NC_INVALID_ARGUMENT, ncclInvalidArgument);
SAME(NC_INVALID_USAGE, ncclInvalidUsage);
SAME(NC_REMOTE_ERROR, ncclRemoteError);
SAME(NC_IN_PROGRESS, ncclInProgress);
SAME(NC_INT8, ncclInt8);
SAME(NC_UINT8, ncclUint8);
SAME(NC_INT32, ncclInt32);
SAME(NC_UINT32, ncclUint32);
SAME(NC_INT64, ncclInt64);
SAME(NC_UINT64, ncclUint64);
SAME(NC_F16, ncclFloat16);
SAME(NC_F32, ncclFloat32);
SAME(NC_F64, ncclFloat64);
SAME(NC_BF16, ncclBfloat16);
SAME(NC_SUM, ncclSum);
SAME(NC_PROD, ncclProd);
SAME(NC_MAX, ncclMax);
SAME(NC_MIN, ncclMin);
SAME(NC_AVG, ncclAvg);
SAME(sizeof(struct nc_unique_id), sizeof(ncclUniqueId));
SAME(offsetof(struct nc_config, blocking), offsetof(ncclConfig_t, blocking));
#endif

/* Every 16-bit pattern survives the way to f32 and back; halfway cases go to the even neighbour. */
int main(void) {
    int n_bad = 0;
    for (uint32_t h = 0; h < 65536; h++) {
        const float b = half_from_bf16((uint16_t)h), f = half_from_f16((uint16_t)h);
        n_bad += isnan(b) ? !isnan(half_from_bf16(half_to_bf16(b))) : half_to_bf16(b) != h;
        n_bad += isnan(f) ? !isnan(half_from_f16(half_to_f16(f))) : half_to_f16(f) != h;
    }
    n_bad += half_to_f16(1.0f + 0x1p-11f) != 0x3c00 || half_to_f16(1.0f + 3 * 0x1p-11f) != 0x3c02;
    n_bad += half_to_f16(65519.0f) != 0x7bff || half_to_f16(65520.0f) != 0x7c00 || half_to_f16(0x1p-25f) != 0;
    n_bad += half_to_f16(0x1.8p-25f) != 1 || half_to_f16(0x1.8p-24f) != 2 || half_to_f16(0x1.4p-23f) != 2;
    n_bad += half_to_bf16(1.0f + 0x1p-8f) != 0x3f80 || half_to_bf16(1.0f + 3 * 0x1p-8f) != 0x3f82;
    if (n_bad > 0) fprintf(stderr, "%d conversions are wrong\n", n_bad);
    return n_bad > 0;
}
