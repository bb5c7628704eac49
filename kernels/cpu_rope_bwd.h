/* What the rope_bwd bodies of all instruction sets share: the walk over blocks of tokens and the sums of the norms.
 *
 * A body brings one function for one head of one token. Blocks of NT_ROPE_BLOCK tokens, counted in the order of the
 * sequences, are divided among the threads; each block sums its part of dq_norm and dk_norm, and the parts are added in
 * the order of the blocks, so that nothing depends on the threads. The parts lie in the scratch of thread 0; when there
 * are too many, blocks are done in several runs. Errors: none, ops cannot fail. */
#ifndef NT_CPU_ROPE_BWD_H
#define NT_CPU_ROPE_BWD_H

#include "cpu_rope.h"
#include "ops_bwd.h"

struct nt_rope_bwd_head {
    const float *dy;        // [d] gradient of the normed and rotated head
    const float *x, *norm;  // [d] the head before its norm, and the norm's weights; NULL: no norm
    const float *cos, *sin; // [d / 2] or NULL: no rotation
    nt_bf16 *out;           // [d]
    float *dnorm;           // [d], added to, or NULL
    float eps;
    int32_t d;
};
typedef void nt_rope_bwd_fn(const struct nt_rope_bwd_head *h);

void nt_rope_bwd_run(struct nt_backend *be, const struct nt_rope_bwd_args *args, nt_rope_bwd_fn *head);

#endif
