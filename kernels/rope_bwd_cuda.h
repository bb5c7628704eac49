/* What rope_bwd.cu and rope_bwd_cuda.c agree on: the args of ops_bwd.h and where a launch's part lies.
 *
 * parts: the sums of dq_norm and dk_norm over one block of NT_ROPE_BLOCK tokens and one head, in the workspace; every
 * block of the launch has its place, and nt_rope_bwd_join adds them up. Pointers are device memory. No state; errors
 * are the launcher's. */
#ifndef NT_ROPE_BWD_CUDA_H
#define NT_ROPE_BWD_CUDA_H

#include "ops_bwd.h"
#include "rope_cuda.h"

enum { NT_ROPE_JOIN_WARPS = 8 };

struct nt_rope_bwd_cuda {
    struct nt_rope_bwd_args args;
    float *parts;                 // [n_block, n_head + n_kv, d_head]; NULL: nobody wants the norms' gradients
    int32_t first_block, n_block; /* of NT_ROPE_BLOCK tokens, of the launch */
};

#endif
