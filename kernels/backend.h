/* A backend: the op table, what its bodies need (threads, scratch), and the memory its tensors live in.
 *
 * Chosen once per job; there is no fallback in the middle of a forward. Ops of one backend are called from one thread
 * at a time, and run in the order of the calls together with uploads, downloads and zeroing. Scratch (e.g. per-thread
 * tiles) is owned by the backend and sized at open, so ops never allocate.
 * Memory: a CPU backend works in host memory, where upload and download are copies that may be skipped by using one
 * buffer for both (nt_backend_is_host). A CUDA backend has its own: take, give, upload and download go through it.
 * Lifetime: from open to close; the pool must outlive it. Open of the CPU backend fails only for want of memory, that
 * of CUDA with NT_E_UNSUPPORTED and the reason when no usable driver, device or kernel image is there. */
#ifndef NT_BACKEND_H
#define NT_BACKEND_H

#include "cpu_isa.h"
#include "ops.h"
#include "pool.h"

struct nt_cuda; /* the CUDA backend's own state (cuda_backend.h) */
struct nt_allreduce_p2p_args;
struct nt_allreduce_norm_p2p_args;
struct nt_best_pairs_args;
struct nt_draw_pairs_args;

/* Places of split downloads, and the most bytes of one. */
enum { NT_DOWNLOAD_SLOTS = 2, NT_DOWNLOAD_SLOT_BYTES = 1 << 20 };

/* One row per kind of memory. Sizes in bytes; pointers 256-byte aligned; taken memory is zeroed. */
struct nt_memory {
    nt_status (*take)(struct nt_backend *be, size_t bytes, const char *what, void **out);
    void (*give)(struct nt_backend *be, void *memory, size_t bytes);
    size_t (*available)(const struct nt_backend *be); /* free bytes of the device or of the host */
    /* Ordered with the ops. `from` of an upload may be reused at once; a download has arrived when it returns. */
    nt_status (*upload)(struct nt_backend *be, void *to, const void *from, size_t bytes);
    nt_status (*download)(struct nt_backend *be, void *to, const void *from, size_t bytes);
    /* The same in two halves: start queues it into place `slot`, finish waits for that alone, while later ops run. */
    nt_status (*start_download)(struct nt_backend *be, int slot, const void *from, size_t bytes);
    nt_status (*finish_download)(struct nt_backend *be, int slot, void *to, size_t bytes);
    nt_status (*zero)(struct nt_backend *be, void *to, size_t bytes);
    nt_status (*wait)(struct nt_backend *be);              /* until all that was called has run; reports its errors */
    nt_status (*query)(struct nt_backend *be, bool *done); /* has all that was called run; does not wait */
};

/* Sums over ranks that read each other's memory, plain and as the delta of rmsnorm, their best pairs
 * (allreduce_p2p_cuda.h), and the draw from lists of pairs (draw_pairs_cuda.h). */
struct nt_peer_ops {
    nt_status (*sum)(struct nt_backend *be, const struct nt_allreduce_p2p_args *args);
    nt_status (*norm)(struct nt_backend *be, const struct nt_allreduce_norm_p2p_args *args);
    nt_status (*best)(struct nt_backend *be, const struct nt_best_pairs_args *args);
    nt_status (*draw)(struct nt_backend *be, const struct nt_draw_pairs_args *args);
};

struct nt_backend {
    const char *name; /* "cpu", "cuda" */
    char level[16];   /* what its bodies were made for: "avx512", "sm_90" */
    const struct nt_memory *memory;
    enum nt_weight_format weight_format; /* what gemm reads */
    enum nt_weight_format
        block_format;            /* of the blocks' matrices: that, or a quantized one from before a model opens */
    enum nt_kv_format kv_format; /* of the cache; a CUDA backend may be told ROWS_INT8 before the layout */
    struct nt_cuda *cuda;        /* NULL: a CPU backend */
    /* NULL, or what comes before each wait for the device: it returns when passed(point) says so, or all has run where
     * passed is NULL, and sees when a peer is lost. */
    nt_status (*watch)(void *arg, nt_status (*passed)(void *point, bool *done), void *point);
    void *watch_arg;
    enum nt_isa isa;
    struct nt_ops ops;
    const struct nt_peer_ops *peer_ops; /* NULL: a backend without them */
    enum nt_isa body_isa[NT_OP_COUNT];  /* the level each body was written for */
    struct nt_pool *pool;               /* borrowed */
    void *scratch;                      /* [n_threads] of scratch_per_thread bytes */
    size_t scratch_per_thread;
};

NT_MUST nt_status nt_backend_open_cpu(struct nt_backend *be, enum nt_isa isa, struct nt_pool *pool);
/* device: index among the visible ones. The pool is for host work beside the device (packing of weights). */
NT_MUST nt_status nt_backend_open_cuda(struct nt_backend *be, int32_t device, struct nt_pool *pool);
void nt_backend_close(struct nt_backend *be);

/* True when host code may read and write the backend's memory. */
static inline bool nt_backend_is_host(const struct nt_backend *be) {
    return be->cuda == NULL;
}

#endif
