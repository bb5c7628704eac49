/* The thread pool: the only threads of the program besides the watchdog.
 *
 * nt_pool_run calls fn(arg, thread, n_threads) once on every thread (the caller is thread 0) and returns when all are
 * done. Workers are pinned, spin for a bounded time between runs, then sleep. One run at a time; no nesting.
 * Work distribution is static (thread index) or by nt_pool_next, an atomic ticket reset at each run. Results must not
 * depend on which thread did what. */
#ifndef NT_POOL_H
#define NT_POOL_H

#include "status.h"
#include <stdbool.h>
#include <stdint.h>

struct nt_pool;
typedef void nt_pool_fn(void *arg, int thread, int n_threads);

/* n_threads 0: the CPUs this process may use, divided by ranks_on_node; pin: bind thread i to the i-th of them. */
NT_MUST nt_status nt_pool_new(struct nt_pool **out, int n_threads, bool pin, int rank_on_node, int ranks_on_node);
void nt_pool_free(struct nt_pool *p);
int nt_pool_size(const struct nt_pool *p);
void nt_pool_run(struct nt_pool *p, nt_pool_fn *fn, void *arg);
/* Inside a run: next index in [0, n), or -1; each index is handed out once. */
int64_t nt_pool_next(struct nt_pool *p, int64_t n);
/* Inside a run: waits for all threads (spins). */
void nt_pool_barrier(struct nt_pool *p);

/* [begin, end) of part i of n over count items in multiples of unit; the split is the same for all callers. */
void nt_split(int64_t count, int64_t unit, int i, int n, int64_t *begin, int64_t *end);

#endif
