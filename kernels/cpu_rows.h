/* Running an op whose rows are independent: on the pool, or on the calling thread alone when there is too little to do.
 *
 * Waking the pool and waiting for it costs a few microseconds, more than a handful of rows. The result is the same:
 * a row never depends on its thread. No state; called by the op's caller only.
 * Ownership: none; the op's arguments outlive the call. Errors: none, ops cannot fail. */
#ifndef NT_CPU_ROWS_H
#define NT_CPU_ROWS_H

#include "cpu_bodies.h"

/* About 2 us of streaming arithmetic. */
enum { NT_ROWS_ALONE_ELEMS = 8192 };

static inline void nt_rows_run(struct nt_backend *be, nt_pool_fn *fn, void *arg, int64_t n_rows, int64_t width) {
    if (n_rows <= 1 || n_rows * width <= NT_ROWS_ALONE_ELEMS) {
        fn(arg, 0, 1);
    } else {
        nt_pool_run(be->pool, fn, arg);
    }
}

#endif
