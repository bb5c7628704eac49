/* Function tables of the CUDA driver, cuBLASLt, NCCL and NVML, filled by dlopen: the program links none of them.
 *
 * Each table is filled by its open function and is constant afterwards; the libraries stay loaded until the process
 * ends (they do not survive dlclose), so a second open is cheap. Tables may be used by any thread; the driver's
 * current context belongs to a thread.
 * Errors: opening fails with NT_E_UNSUPPORTED and a sentence that tells apart: built without CUDA, driver missing, too
 * old (CUDA 12.0 is needed), a stub library, no device. A call through NT_CU fails with the driver's own name and text
 * of the error and the call: NT_E_NOMEM when memory ran out, NT_E_SYSTEM otherwise.
 * Tests put other libraries in place through the environment (env.h): `overridden` is true then.
 * Sources: CUDA driver API reference; the _v2 names are those that cuda.h maps to. */
#ifndef NT_GPU_API_H
#define NT_GPU_API_H

#include "gpu_abi.h"
#include "status.h"
#include <stdbool.h>

/* ---- the driver ---- */

struct nt_gpu_driver; /* complete only in a build with cuda.h */

enum { NT_GPU_DRIVER_NEEDED = 12000 };

/* The table and an initialised driver with at least one device. Static memory is not used: *out is to be freed. */
NT_MUST nt_status nt_gpu_driver_open(struct nt_gpu_driver **out);
void nt_gpu_driver_free(struct nt_gpu_driver *driver);

#ifdef NT_HAVE_CUDA
#include <cuda.h>

/* Present since CUDA 12.0. */
#define NT_GPU_DRIVER_LIST(X)                                                                                          \
    X(cuInit)                                                                                                          \
    X(cuDriverGetVersion)                                                                                              \
    X(cuGetErrorName)                                                                                                  \
    X(cuGetErrorString)                                                                                                \
    X(cuDeviceGetCount)                                                                                                \
    X(cuDeviceGet)                                                                                                     \
    X(cuDeviceGetName)                                                                                                 \
    X(cuDeviceGetAttribute)                                                                                            \
    X(cuDeviceTotalMem)                                                                                                \
    X(cuDeviceGetUuid)                                                                                                 \
    X(cuDeviceGetPCIBusId)                                                                                             \
    X(cuDevicePrimaryCtxRetain)                                                                                        \
    X(cuDevicePrimaryCtxRelease)                                                                                       \
    X(cuCtxSetCurrent)                                                                                                 \
    X(cuModuleLoadDataEx)                                                                                              \
    X(cuModuleUnload)                                                                                                  \
    X(cuModuleGetFunction)                                                                                             \
    X(cuFuncGetAttribute)                                                                                              \
    X(cuFuncSetAttribute)                                                                                              \
    X(cuOccupancyMaxActiveBlocksPerMultiprocessor)                                                                     \
    X(cuLaunchKernel)                                                                                                  \
    X(cuLaunchKernelEx)                                                                                                \
    X(cuMemAlloc)                                                                                                      \
    X(cuMemFree)                                                                                                       \
    X(cuMemGetInfo)                                                                                                    \
    X(cuMemHostAlloc)                                                                                                  \
    X(cuMemFreeHost)                                                                                                   \
    X(cuMemcpyHtoDAsync)                                                                                               \
    X(cuMemcpyDtoHAsync)                                                                                               \
    X(cuMemcpyDtoDAsync)                                                                                               \
    X(cuMemsetD8Async)                                                                                                 \
    X(cuStreamCreate)                                                                                                  \
    X(cuStreamDestroy)                                                                                                 \
    X(cuStreamSynchronize)                                                                                             \
    X(cuStreamQuery)                                                                                                   \
    X(cuStreamWaitEvent)                                                                                               \
    X(cuEventCreate)                                                                                                   \
    X(cuEventDestroy)                                                                                                  \
    X(cuEventRecord)                                                                                                   \
    X(cuEventQuery)                                                                                                    \
    X(cuEventSynchronize)                                                                                              \
    X(cuStreamBeginCapture)                                                                                            \
    X(cuStreamEndCapture)                                                                                              \
    X(cuGraphInstantiate)                                                                                              \
    X(cuGraphLaunch)                                                                                                   \
    X(cuGraphExecDestroy)                                                                                              \
    X(cuGraphDestroy)                                                                                                  \
    X(cuGraphGetNodes)

/* NULL where the driver lacks them; whoever calls one asks first. */
#define NT_GPU_DRIVER_OPTIONAL_LIST(X)                                                                                 \
    X(cuTensorMapEncodeTiled)                                                                                          \
    X(cuFuncGetParamInfo)                                                                                              \
    X(cuLaunchHostFunc)                                                                                                \
    X(cuDeviceCanAccessPeer)                                                                                           \
    X(cuCtxEnablePeerAccess)                                                                                           \
    X(cuIpcGetMemHandle)                                                                                               \
    X(cuIpcOpenMemHandle)                                                                                              \
    X(cuIpcCloseMemHandle)                                                                                             \
    X(cuMemHostGetDevicePointer)

struct nt_gpu_driver {
    int version; /* the highest CUDA version of the driver, 1000 * major + 10 * minor */
    bool overridden;
    const char *library; /* the name it was opened by */
#define X(name) __typeof__(&name) name;
    NT_GPU_DRIVER_LIST(X)
    NT_GPU_DRIVER_OPTIONAL_LIST(X)
#undef X
    /* Both versions of cuEventElapsedTime do the same; the second exists since 12.8. */
    CUresult(CUDAAPI *event_ms)(float *ms, CUevent start, CUevent end);
};

/* Records the driver's sentence about a failed call. call: its text, of which the function's name is shown. */
nt_status nt_gpu_fail(const struct nt_gpu_driver *driver, CUresult result, const char *call, const char *file,
                      int line);
/* NT_TRY(NT_CU(driver, cuStreamSynchronize(stream))) */
#define NT_CU(driver, call)                                                                                            \
    ({                                                                                                                 \
        const CUresult nt_cu_ = (driver)->call;                                                                        \
        nt_cu_ == CUDA_SUCCESS ? NT_OK : nt_gpu_fail((driver), nt_cu_, #call, __FILE__, __LINE__);                     \
    })
#endif

/* ---- the libraries ---- */

#define NT_GPU_FIELD(type, name, params) type(*name) params;
struct nt_gpu_blaslt {
    const char *library;
    NT_BLASLT_LIST(NT_GPU_FIELD)
};
struct nt_gpu_nccl {
    const char *library;
    NT_NCCL_LIST(NT_GPU_FIELD)
};
struct nt_gpu_nvml {
    const char *library;
    NT_NVML_LIST(NT_GPU_FIELD)
};
#undef NT_GPU_FIELD

/* NT_E_UNSUPPORTED when absent. Beside an overridden driver only a library named by the environment is opened: the real
 * one would talk to a real driver. */
NT_MUST nt_status nt_gpu_blaslt_open(int driver_version, struct nt_gpu_blaslt *out); /* one that it can run */
NT_MUST nt_status nt_gpu_nccl_open(struct nt_gpu_nccl *out);
NT_MUST nt_status nt_gpu_nvml_open(struct nt_gpu_nvml *out);

#endif
