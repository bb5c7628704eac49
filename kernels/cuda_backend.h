/* The CUDA backend's own state: context, streams, kernel images, the facts of its device, workspace and staging.
 *
 * Reached through be->cuda. The types of cuda.h are named by their tags (CUstream is struct CUstream_st *), so a file
 * that only launches kernels needs no CUDA header, and everything compiles where there is none.
 * Streams: every op body launches on `stream` and nowhere else (what is no launch of ours takes it by nt_cuda_stream);
 * copies of `copy` run beside it and are ordered with events by whoever uses it. Nothing here uses the default stream,
 * and nothing but memory->wait and memory->download waits for the device.
 * Workspace: one block of device memory that each op may use as it likes between its own launches; the next op
 * overwrites it. Sized at open, so that ops never allocate.
 * Lifetime: nt_backend_open_cuda to nt_backend_close. Threading: one thread at a time, and the thread that opened it
 * (the driver's current context is a property of a thread; another one calls nt_cuda_enter first).
 * Errors: NT_E_UNSUPPORTED with a sentence when there is no driver, device or image; NT_E_SYSTEM with the driver's own
 * name and text of an error for a call that failed; an error of a kernel shows at the next wait or download. */
#ifndef NT_CUDA_BACKEND_H
#define NT_CUDA_BACKEND_H

#include "backend.h"
#include "cuda_launch.h"

struct CUctx_st;
struct CUstream_st;
struct CUmod_st;
struct CUfunc_st;
struct nt_gpu_driver; /* the driver's function table (gpu_api.h) */
struct nt_cublaslt;   /* gemm_cublaslt.h; NULL: not enabled */
struct nt_cuda_staging;

enum { NT_CUDA_NAME = 128, NT_CUDA_MAX_IMAGES = 32 };
#define NT_CUDA_WORKSPACE_BYTES ((size_t)64 << 20)

struct nt_cuda_facts {
    char name[NT_CUDA_NAME];
    char bus[16];               /* "0000:17:00.0" */
    unsigned char uuid[16];     /* of the device: two ranks with the same one share it */
    int32_t cc;                 /* compute capability, 10 * major + minor: 80, 90 */
    int32_t n_sm;               /* multiprocessors */
    int32_t driver;             /* highest CUDA version of the driver, 1000 * major + 10 * minor */
    int32_t toolkit;            /* CUDA version of the nvcc that made the kernels, likewise */
    int32_t max_shared;         /* bytes a block may be given when asked for (227 KiB on sm_90, 163 KiB on sm_80) */
    int32_t max_shared_sm;      /* bytes of one multiprocessor */
    int32_t clock_khz, mem_khz; /* 0: unknown */
    int32_t bus_bits;
    size_t memory, l2; /* bytes */
    bool emulated;     /* an emulator calls itself so; its times mean nothing */
    bool jit;          /* kernels came from PTX: no image for this architecture */
};

/* A kernel of the loaded images; function NULL: an optional one that this device cannot run. */
struct nt_cuda_function {
    struct CUfunc_st *function;
    int32_t max_threads, static_shared, max_dynamic_shared;
    size_t args_bytes; /* 0: the driver does not say */
    int64_t launches;  /* so far, captured ones counted once */
    bool begins;       /* its code has nt_launch_begin (ptx.cuh) */
};

struct nt_cuda {
    const struct nt_gpu_driver *driver;
    int device; /* CUdevice */
    struct CUctx_st *context;
    struct CUstream_st *stream, *copy;
    struct CUmod_st *modules[NT_CUDA_MAX_IMAGES];
    struct nt_cuda_function functions[NT_CUDA_KERNEL_COUNT];
    struct nt_cuda_facts facts;
    void *workspace;        /* device memory */
    size_t workspace_bytes; /* NT_CUDA_WORKSPACE_BYTES; tests take another one */
    struct nt_cuda_staging *staging;
    struct nt_cublaslt *blas;
    size_t taken; /* bytes given out by memory->take, workspace included */
    size_t quota; /* of taken, where several ranks have the device; 0: whatever there is */
    /* Two ranks have one device, so that NCCL does not connect them: tensor-parallel ranks of this model copy; ranks
     * that have this one's part of the other copies. */
    bool crowded, crowded_copies;
    bool capturing;
    bool behind_launch; /* what the stream was given last is a launch that the next may begin beside */
    bool one_by_one;    /* no launch begins before the one before it has ended: to compare */
};

/* As nt_backend_open_cuda, but an op without a body stays NULL: for tests of single ops. */
NT_MUST nt_status nt_cuda_open_partly(struct nt_backend *be, int32_t device, struct nt_pool *pool);
/* Called by nt_backend_close. */
void nt_cuda_close(struct nt_backend *be);
/* Makes the context current in the calling thread. */
NT_MUST nt_status nt_cuda_enter(struct nt_backend *be);
/* The first `bytes` of the workspace; NT_E_UNSUPPORTED naming `what` and `bytes` when it is smaller. */
NT_MUST nt_status nt_cuda_workspace(struct nt_backend *be, size_t bytes, const char *what, void **out);
/* For ops that go over what they have in launches that fit: nt_places (launch_places.h) of this backend's workspace. */
int64_t nt_cuda_places(const struct nt_backend *be, size_t bytes, int64_t n);

/* ---- devices (cuda_device.c) ---- */

/* The visible devices, without opening one. NT_E_UNSUPPORTED with the reason when there is no usable driver. */
NT_MUST nt_status nt_cuda_device_count(int32_t *count);
NT_MUST nt_status nt_cuda_device_facts(int32_t device, struct nt_cuda_facts *out);
/* The device of the rank with number local_rank on this node: the only visible one where the launcher gave each rank
 * its own, local_rank modulo their number otherwise. NT_E_UNSUPPORTED says that the device is too old for the kernels.
 */
NT_MUST nt_status nt_cuda_pick_device(int32_t local_rank, int32_t *out);
/* This rank is one of n_rank that opened the device: from here on its part of what is free now is available to it.
 * crowded, copies: as in struct nt_cuda. All of them have opened it, and none takes memory while one calls this. */
void nt_cuda_share(struct nt_backend *be, int32_t n_rank, bool crowded, bool copies);

/* ---- graphs (cuda_graph.c) ---- */

/* Everything called between begin and end is recorded, not run. Step inputs must lie in device buffers that are
 * uploaded before the launch, outside the graph: memory->upload and wait fail between begin and end. recorded: how that
 * went; if it failed, end returns it with its own sentence, and no graph. */
struct nt_cuda_graph;
NT_MUST nt_status nt_cuda_capture_begin(struct nt_backend *be);
NT_MUST nt_status nt_cuda_capture_end(struct nt_backend *be, nt_status recorded, struct nt_cuda_graph **out);
NT_MUST nt_status nt_cuda_graph_launch(struct nt_backend *be, const struct nt_cuda_graph *graph);
int32_t nt_cuda_graph_nodes(const struct nt_cuda_graph *graph); /* launches, copies and fills in it */
void nt_cuda_graph_free(struct nt_backend *be, struct nt_cuda_graph *graph);

/* A point of the stream: set puts it behind all that was called so far, passed asks without waiting. */
struct nt_cuda_mark;
NT_MUST nt_status nt_cuda_mark_open(struct nt_backend *be, struct nt_cuda_mark **out);
NT_MUST nt_status nt_cuda_mark_set(struct nt_cuda_mark *mark);
NT_MUST nt_status nt_cuda_mark_passed(const struct nt_cuda_mark *mark, bool *passed);
void nt_cuda_mark_close(struct nt_cuda_mark *mark); /* accepts NULL */

/* Seconds between events around n calls of run, which only queue work on be->cuda->stream; waits for them. */
typedef nt_status nt_cuda_run_fn(struct nt_backend *be, void *ctx);
NT_MUST nt_status nt_cuda_time(struct nt_backend *be, nt_cuda_run_fn *run, void *ctx, int32_t n, double *seconds);

#endif
