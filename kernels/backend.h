/* A backend: the op table and what its bodies need (threads, scratch).
 *
 * Chosen once per job; there is no fallback in the middle of a forward. Ops of one backend are called from one thread
 * at a time. Scratch (e.g. per-thread tiles) is owned by the backend and sized at open, so ops never allocate.
 * Lifetime: from open to close; the pool must outlive it. Open fails only for want of memory. */
#ifndef NT_BACKEND_H
#define NT_BACKEND_H

#include "cpu_isa.h"
#include "ops.h"
#include "pool.h"

struct nt_backend {
    const char *name; /* "cpu" */
    enum nt_isa isa;
    struct nt_ops ops;
    enum nt_isa body_isa[NT_OP_COUNT]; /* the level each body was written for */
    struct nt_pool *pool;              /* borrowed */
    void *scratch;                     /* [n_threads] of scratch_per_thread bytes */
    size_t scratch_per_thread;
};

NT_MUST nt_status nt_backend_open_cpu(struct nt_backend *be, enum nt_isa isa, struct nt_pool *pool);
void nt_backend_close(struct nt_backend *be);

#endif
