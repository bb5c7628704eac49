#include "gpu_abi.h"

/* Our declarations against NVIDIA's, where those are installed. */

#if defined NT_HAVE_CUDA && __has_include(<cublasLt.h>)
#include <cublasLt.h>

#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #theirs)
SAME(NT_BLASLT_COMPUTE_32F, CUBLAS_COMPUTE_32F);
SAME(NT_BLASLT_R_32F, CUDA_R_32F);
SAME(NT_BLASLT_R_16BF, CUDA_R_16BF);
SAME(NT_BLASLT_OP_N, CUBLAS_OP_N);
SAME(NT_BLASLT_OP_T, CUBLAS_OP_T);
SAME(NT_BLASLT_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSA);
SAME(NT_BLASLT_DESC_TRANSB, CUBLASLT_MATMUL_DESC_TRANSB);
SAME(NT_BLASLT_DESC_EPILOGUE, CUBLASLT_MATMUL_DESC_EPILOGUE);
SAME(NT_BLASLT_DESC_BIAS_POINTER, CUBLASLT_MATMUL_DESC_BIAS_POINTER);
SAME(NT_BLASLT_DESC_BIAS_DATA_TYPE, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE);
SAME(NT_BLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_DEFAULT);
SAME(NT_BLASLT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_BIAS);
SAME(NT_BLASLT_PREF_MAX_WORKSPACE_BYTES, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
SAME(NT_BLASLT_PREF_REDUCTION_SCHEME_MASK, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
SAME(NT_BLASLT_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
SAME(NT_BLASLT_PREF_MIN_ALIGNMENT_D_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
SAME(NT_BLASLT_REDUCTION_SCHEME_NONE, CUBLASLT_REDUCTION_SCHEME_NONE);
SAME(NT_BLASLT_ALGO_ID, CUBLASLT_ALGO_CONFIG_ID);
SAME(NT_BLASLT_ALGO_TILE_ID, CUBLASLT_ALGO_CONFIG_TILE_ID);
SAME(NT_BLASLT_ALGO_SPLITK_NUM, CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
SAME(NT_BLASLT_ALGO_REDUCTION_SCHEME, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
SAME(NT_BLASLT_ALGO_STAGES_ID, CUBLASLT_ALGO_CONFIG_STAGES_ID);
SAME(0, CUBLAS_STATUS_SUCCESS);
SAME(sizeof(struct nt_blaslt_algo), sizeof(cublasLtMatmulAlgo_t));
SAME(sizeof(struct nt_blaslt_result), sizeof(cublasLtMatmulHeuristicResult_t));
SAME(offsetof(struct nt_blaslt_result, workspace), offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
SAME(offsetof(struct nt_blaslt_result, state), offsetof(cublasLtMatmulHeuristicResult_t, state));
SAME(sizeof(int), sizeof(cublasComputeType_t));
SAME(sizeof(int), sizeof(cudaDataType));
SAME(sizeof(int), sizeof(cublasLtMatmulDescAttributes_t));
#undef SAME
#endif

#if defined NT_HAVE_CUDA && __has_include(<nccl.h>)
#include <nccl.h>

#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #theirs)
SAME(NT_NCCL_OK, ncclSuccess);
SAME(NT_NCCL_IN_PROGRESS, ncclInProgress);
SAME(NT_NCCL_INT8, ncclInt8);
SAME(NT_NCCL_INT32, ncclInt32);
SAME(NT_NCCL_INT64, ncclInt64);
SAME(NT_NCCL_FLOAT32, ncclFloat32);
SAME(NT_NCCL_BFLOAT16, ncclBfloat16);
SAME(NT_NCCL_SUM, ncclSum);
SAME(NT_NCCL_MAX, ncclMax);
SAME(NT_NCCL_MIN, ncclMin);
SAME(sizeof(struct nt_nccl_unique_id), sizeof(ncclUniqueId));
SAME(offsetof(struct nt_nccl_config, magic), offsetof(ncclConfig_t, magic));
SAME(offsetof(struct nt_nccl_config, version), offsetof(ncclConfig_t, version));
SAME(offsetof(struct nt_nccl_config, blocking), offsetof(ncclConfig_t, blocking));
_Static_assert(NT_NCCL_CONFIG_VERSION <= NCCL_VERSION(NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH), "an older configuration");
#undef SAME
#endif

/* A unit with nothing else would be empty where no header is installed. */
_Static_assert(sizeof(struct nt_blaslt_algo) == 64, "cublasLtMatmulAlgo_t");
