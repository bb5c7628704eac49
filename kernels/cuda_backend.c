#include "cuda_backend.h"

#include "allreduce_p2p_cuda.h"
#include "cuda_bodies.h"
#include "cuda_parts.h"
#include "draw_pairs_cuda.h"
#include "gemm_cublaslt.h"
#include "launch_places.h"
#include "log.h"
#include <stdio.h>
#include <stdlib.h>

static const struct nt_peer_ops peer_ops = {.sum = nt_allreduce_p2p_cuda,
                                            .norm = nt_allreduce_norm_p2p_cuda,
                                            .best = nt_best_pairs_cuda,
                                            .draw = nt_draw_pairs_cuda};

static nt_status check_bodies(const struct nt_ops *bodies) {
#define NT_OP(name, doc)                                                                                               \
    if (!bodies->name) return NT_FAIL(NT_E_UNSUPPORTED, "op %s has no CUDA body", #name);
#include "ops.def"
#undef NT_OP
    return NT_OK;
}

/* In exclusive mode a device has one process, in prohibited mode none. */
static nt_status retain_context(struct nt_cuda *cuda, int32_t device) {
    const CUresult result = cuda->driver->cuDevicePrimaryCtxRetain(&cuda->context, cuda->device);
    if (result == CUDA_ERROR_DEVICE_UNAVAILABLE) {
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "CUDA device %d (%s, %s) takes no further process: its compute mode lets one alone have it "
                       "(nvidia-smi -q -d COMPUTE); start one rank for each GPU and see who else is on it (nvidia-smi)",
                       device, cuda->facts.name, cuda->facts.bus);
    }
    return result == CUDA_SUCCESS ? NT_OK
                                  : nt_gpu_fail(cuda->driver, result, "cuDevicePrimaryCtxRetain", __FILE__, __LINE__);
}

static nt_status open_context(struct nt_cuda *cuda, int32_t device) {
    const struct nt_gpu_driver *d = cuda->driver;
    int count = 0;
    NT_TRY(NT_CU(d, cuDeviceGetCount(&count)));
    if (device < 0 || device >= count) {
        return NT_FAIL(NT_E_UNSUPPORTED, "there is no CUDA device %d: the driver sees %d, counted from 0", device,
                       count);
    }
    NT_TRY(nt_cuda_read_facts(d, device, &cuda->facts));
    NT_TRY(nt_cuda_check_facts(&cuda->facts, device));
    NT_TRY(NT_CU(d, cuDeviceGet(&cuda->device, device)));
    NT_TRY(retain_context(cuda, device));
    NT_TRY(NT_CU(d, cuCtxSetCurrent(cuda->context)));
    NT_TRY(NT_CU(d, cuStreamCreate(&cuda->stream, CU_STREAM_NON_BLOCKING)));
    NT_TRY(NT_CU(d, cuStreamCreate(&cuda->copy, CU_STREAM_NON_BLOCKING)));
    return NT_OK;
}

static nt_status open_parts(struct nt_backend *be, int32_t device) {
    struct nt_cuda *cuda = be->cuda;
    struct nt_gpu_driver *driver = NULL;
    NT_TRY(nt_gpu_driver_open(&driver));
    cuda->driver = driver;
    if (driver->overridden) nt_warn("cuda", "driver library overridden: NOCTURNE_CUDA_DRIVER is %s", driver->library);
    NT_TRY(open_context(cuda, device));
    NT_TRY(nt_cuda_load_kernels(cuda));
    NT_TRY(nt_cuda_open_memory(cuda));
    be->ops = *nt_cuda_bodies();
    be->peer_ops = &peer_ops;
    snprintf(be->level, sizeof be->level, "sm_%d", cuda->facts.cc);
    if (cuda->facts.jit && !driver->overridden) {
        nt_warn("cuda", "no machine code for compute capability %d.%d in this build: the driver compiles the kernels",
                cuda->facts.cc / 10, cuda->facts.cc % 10);
    }
    return NT_OK;
}

static nt_status close_after(struct nt_backend *be, nt_status st) {
    struct nt_error error;
    nt_error_take(&error); /* closing must not replace the sentence */
    nt_backend_close(be);
    nt_error_give(&error);
    return st;
}

nt_status nt_cuda_open_partly(struct nt_backend *be, int32_t device, struct nt_pool *pool) {
    *be = (struct nt_backend){.name = "cuda",
                              .memory = nt_cuda_memory(),
                              .weight_format = NT_WEIGHT_BF16_ROWS,
                              .block_format = NT_WEIGHT_BF16_ROWS,
                              .kv_format = NT_KV_ROWS,
                              .pool = pool};
    be->cuda = calloc(1, sizeof *be->cuda);
    if (!be->cuda) return NT_FAIL(NT_E_NOMEM, "no memory for the CUDA backend's state");
    const nt_status st = open_parts(be, device);
    return st == NT_OK ? NT_OK : nt_trail_at(close_after(be, st), __FILE__, __LINE__);
}

nt_status nt_backend_open_cuda(struct nt_backend *be, int32_t device, struct nt_pool *pool) {
    NT_TRY(nt_cuda_open_partly(be, device, pool));
    const nt_status st = check_bodies(&be->ops);
    return st == NT_OK ? NT_OK : nt_trail_at(close_after(be, st), __FILE__, __LINE__);
}

void nt_cuda_close(struct nt_backend *be) {
    struct nt_cuda *cuda = be->cuda;
    const struct nt_gpu_driver *d = cuda->driver;
    if (cuda->context) { /* errors of closing have nobody to go to: whoever cares called memory->wait */
        (void)d->cuCtxSetCurrent(cuda->context);
        if (cuda->stream) (void)d->cuStreamSynchronize(cuda->stream);
        if (cuda->copy) (void)d->cuStreamSynchronize(cuda->copy);
        nt_cublaslt_close(cuda->blas);
        nt_cuda_close_memory(cuda);
        nt_cuda_unload_kernels(cuda);
        if (cuda->stream) (void)d->cuStreamDestroy(cuda->stream);
        if (cuda->copy) (void)d->cuStreamDestroy(cuda->copy);
        (void)d->cuDevicePrimaryCtxRelease(cuda->device);
    }
    nt_gpu_driver_free((struct nt_gpu_driver *)(uintptr_t)d);
    free(cuda);
    be->cuda = NULL;
}

nt_status nt_cuda_enter(struct nt_backend *be) {
    NT_TRY(NT_CU(be->cuda->driver, cuCtxSetCurrent(be->cuda->context)));
    return NT_OK;
}

nt_status nt_cuda_workspace(struct nt_backend *be, size_t bytes, const char *what, void **out) {
    *out = be->cuda->workspace;
    if (bytes <= be->cuda->workspace_bytes) return NT_OK;
    return NT_FAIL(NT_E_UNSUPPORTED, "%s needs %zu bytes of workspace; the CUDA backend has %zu: use a smaller batch",
                   what, bytes, be->cuda->workspace_bytes);
}

int64_t nt_cuda_places(const struct nt_backend *be, size_t bytes, int64_t n) {
    return nt_places(be->cuda->workspace_bytes, bytes, n);
}
