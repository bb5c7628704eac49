/* The parts of the binary interfaces of cuBLASLt, NCCL and NVML that the program calls, in our own words.
 *
 * These libraries are opened at run time (gpu_api.h) and their headers are not needed to build; gpu_abi.c asserts every
 * size and number here against NVIDIA's headers where those are installed. Handles are opaque pointers, status codes
 * are ints with 0 for success, streams are the driver's struct CUstream_st *.
 * No state, no errors, any thread. Sources: cublasLt.h of CUDA 12 and 13 (cuBLAS library guide, "Using the cuBLASLt
 * API"), nccl.h of 2.14 to 2.28 (NCCL user guide, "API"), NVML API reference. */
#ifndef NT_GPU_ABI_H
#define NT_GPU_ABI_H

#include <stddef.h>
#include <stdint.h>

struct CUstream_st;

/* ---- cuBLASLt ---- */

enum {
    NT_BLASLT_COMPUTE_32F = 68,
    NT_BLASLT_R_32F = 0,
    NT_BLASLT_R_16BF = 14,
    NT_BLASLT_OP_N = 0,
    NT_BLASLT_OP_T = 1,
    /* matmul descriptor */
    NT_BLASLT_DESC_TRANSA = 3,
    NT_BLASLT_DESC_TRANSB = 4,
    NT_BLASLT_DESC_EPILOGUE = 7,
    NT_BLASLT_DESC_BIAS_POINTER = 8,
    NT_BLASLT_DESC_BIAS_DATA_TYPE = 26,
    NT_BLASLT_EPILOGUE_DEFAULT = 1,
    NT_BLASLT_EPILOGUE_BIAS = 4,
    /* preference */
    NT_BLASLT_PREF_MAX_WORKSPACE_BYTES = 1,
    NT_BLASLT_PREF_REDUCTION_SCHEME_MASK = 3,
    NT_BLASLT_PREF_MIN_ALIGNMENT_A_BYTES = 5,
    NT_BLASLT_PREF_MIN_ALIGNMENT_D_BYTES = 8, /* B and C between them */
    NT_BLASLT_REDUCTION_SCHEME_NONE = 0,
    /* algorithm */
    NT_BLASLT_ALGO_ID = 0,
    NT_BLASLT_ALGO_TILE_ID = 1,
    NT_BLASLT_ALGO_SPLITK_NUM = 2,
    NT_BLASLT_ALGO_REDUCTION_SCHEME = 3,
    NT_BLASLT_ALGO_STAGES_ID = 6,
};

struct nt_blaslt_algo {
    uint64_t data[8];
};
struct nt_blaslt_result {
    struct nt_blaslt_algo algo;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

/* X(return type, name, parameters) */
#define NT_BLASLT_LIST(X)                                                                                              \
    X(int, cublasLtCreate, (void **handle))                                                                            \
    X(int, cublasLtDestroy, (void *handle))                                                                            \
    X(size_t, cublasLtGetVersion, (void))                                                                              \
    X(const char *, cublasLtGetStatusString, (int status))                                                             \
    X(int, cublasLtMatmulDescCreate, (void **desc, int compute, int scale_type))                                       \
    X(int, cublasLtMatmulDescDestroy, (void *desc))                                                                    \
    X(int, cublasLtMatmulDescSetAttribute, (void *desc, int attr, const void *value, size_t bytes))                    \
    X(int, cublasLtMatrixLayoutCreate, (void **layout, int type, uint64_t rows, uint64_t cols, int64_t ld))            \
    X(int, cublasLtMatrixLayoutDestroy, (void *layout))                                                                \
    X(int, cublasLtMatmulPreferenceCreate, (void **pref))                                                              \
    X(int, cublasLtMatmulPreferenceDestroy, (void *pref))                                                              \
    X(int, cublasLtMatmulPreferenceSetAttribute, (void *pref, int attr, const void *value, size_t bytes))              \
    X(int, cublasLtMatmulAlgoGetHeuristic,                                                                             \
      (void *handle, void *desc, void *a, void *b, void *c, void *d, void *pref, int wanted,                           \
       struct nt_blaslt_result results[], int *found))                                                                 \
    X(int, cublasLtMatmulAlgoConfigGetAttribute,                                                                       \
      (const struct nt_blaslt_algo *algo, int attr, void *value, size_t bytes, size_t *written))                       \
    X(int, cublasLtMatmul,                                                                                             \
      (void *handle, void *desc, const void *alpha, const void *a, void *a_layout, const void *b, void *b_layout,      \
       const void *beta, const void *c, void *c_layout, void *d, void *d_layout, const struct nt_blaslt_algo *algo,    \
       void *workspace, size_t workspace_bytes, struct CUstream_st *stream))

/* ---- NCCL ---- */

enum {
    NT_NCCL_OK = 0,
    NT_NCCL_IN_PROGRESS = 7,
    NT_NCCL_INT8 = 0,
    NT_NCCL_INT32 = 2,
    NT_NCCL_INT64 = 4,
    NT_NCCL_FLOAT32 = 7,
    NT_NCCL_BFLOAT16 = 9,
    NT_NCCL_SUM = 0,
    NT_NCCL_MAX = 2,
    NT_NCCL_MIN = 3,
};
enum { NT_NCCL_UNIQUE_ID_BYTES = 128 };

struct nt_nccl_unique_id {
    char internal[NT_NCCL_UNIQUE_ID_BYTES];
};

/* The configuration of NCCL 2.14, which every later 2.x accepts by size and version. */
#define NT_NCCL_CONFIG_MAGIC   0xcafebeefu
#define NT_NCCL_CONFIG_VERSION 21400u
struct nt_nccl_config {
    size_t size;
    unsigned int magic, version;
    int blocking; /* 0: calls return ncclInProgress, so that a dead peer cannot hold them */
};

#define NT_NCCL_LIST(X)                                                                                                \
    X(int, ncclGetVersion, (int *version))                                                                             \
    X(int, ncclGetUniqueId, (struct nt_nccl_unique_id * id))                                                           \
    X(int, ncclCommInitRankConfig,                                                                                     \
      (void **comm, int n_ranks, struct nt_nccl_unique_id id, int rank, struct nt_nccl_config *config))                \
    X(int, ncclCommDestroy, (void *comm))                                                                              \
    X(int, ncclCommAbort, (void *comm))                                                                                \
    X(int, ncclCommGetAsyncError, (void *comm, int *error))                                                            \
    X(const char *, ncclGetErrorString, (int error))                                                                   \
    X(const char *, ncclGetLastError, (void *comm))                                                                    \
    X(int, ncclAllReduce,                                                                                              \
      (const void *from, void *to, size_t count, int type, int op, void *comm, struct CUstream_st *stream))            \
    X(int, ncclAllGather,                                                                                              \
      (const void *from, void *to, size_t from_count, int type, void *comm, struct CUstream_st *stream))               \
    X(int, ncclBroadcast,                                                                                              \
      (const void *from, void *to, size_t count, int type, int root, void *comm, struct CUstream_st *stream))          \
    X(int, ncclSend, (const void *from, size_t count, int type, int peer, void *comm, struct CUstream_st *stream))     \
    X(int, ncclRecv, (void *to, size_t count, int type, int peer, void *comm, struct CUstream_st *stream))             \
    X(int, ncclGroupStart, (void))                                                                                     \
    X(int, ncclGroupEnd, (void))

/* ---- NVML ---- */

enum { NT_NVML_CLOCK_SM = 1, NT_NVML_CLOCK_MEM = 2, NT_NVML_TEMPERATURE_GPU = 0 };

#define NT_NVML_LIST(X)                                                                                                \
    X(int, nvmlInit_v2, (void))                                                                                        \
    X(int, nvmlShutdown, (void))                                                                                       \
    X(const char *, nvmlErrorString, (int error))                                                                      \
    X(int, nvmlSystemGetDriverVersion, (char *version, unsigned int bytes))                                            \
    X(int, nvmlDeviceGetHandleByPciBusId_v2, (const char *bus, void **device))                                         \
    X(int, nvmlDeviceGetClockInfo, (void *device, int type, unsigned int *mhz))                                        \
    X(int, nvmlDeviceGetMaxClockInfo, (void *device, int type, unsigned int *mhz))                                     \
    X(int, nvmlDeviceGetTemperature, (void *device, int sensor, unsigned int *celsius))                                \
    X(int, nvmlDeviceGetPowerUsage, (void *device, unsigned int *milliwatt))                                           \
    X(int, nvmlDeviceGetCurrentClocksThrottleReasons, (void *device, unsigned long long *reasons))

#endif
