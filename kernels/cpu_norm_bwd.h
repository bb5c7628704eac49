/* What the rmsnorm_bwd bodies of all instruction sets share: blocks of tokens, and the gradient of the weights.
 *
 * A body brings the pass over rows: dx, dx16 and the row's scale s for tokens [first, first + n) of a block, divided
 * among the threads. The pass over columns then adds the block's part of dw, every column summed over the block's
 * tokens in ascending order, so that it does not depend on the threads. Scales live in the scratch of thread 0, the
 * sums of a thread's columns behind them in its own. Errors: none, ops cannot fail. */
#ifndef NT_CPU_NORM_BWD_H
#define NT_CPU_NORM_BWD_H

#include "cpu_bodies.h"
#include "ops_bwd.h"

enum { NT_NORM_BWD_BLOCK = 4096 };

struct nt_norm_bwd_block {
    const struct nt_rmsnorm_bwd_args *args;
    struct nt_backend *be;
    float *scale; // [n], by token of the block
    int64_t first, n;
};

/* rows gets a struct nt_norm_bwd_block. */
void nt_norm_bwd_run(struct nt_backend *be, const struct nt_rmsnorm_bwd_args *args, nt_pool_fn *rows);

#endif
