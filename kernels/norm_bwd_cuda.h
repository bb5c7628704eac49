/* What norm_bwd.cu and norm_bwd_cuda.c agree on: tokens of a block, and where the sums of a launch lie.
 *
 * Which kernel takes a width, and with how many threads, depends on d_model alone, as in the forward (norm_cuda.h).
 * With dw a block takes NT_NORM_BWD_TOKENS tokens and leaves their sum of every column in the workspace;
 * nt_rmsnorm_bwd_join adds blocks ascending. Pointers are device memory. No state; any thread; errors are the
 * launcher's (kernels/norm_bwd_cuda.c). */
#ifndef NT_NORM_BWD_CUDA_H
#define NT_NORM_BWD_CUDA_H

#include "norm_cuda.h"
#include "ops_bwd.h"

enum {
    NT_NORM_BWD_TOKENS = 16,       /* of a block, where their sum is wanted; a multiple of NT_NORM_WARP_ROWS */
    NT_NORM_BWD_JOIN_THREADS = 64, /* columns of a joining block */
    NT_NORM_BWD_NARROW_QUADS = 2,  /* of a thread of nt_rmsnorm_bwd_block where 4 does not divide the width */
    NT_NORM_BWD_NARROW_MAX = 1024 * 4 * NT_NORM_BWD_NARROW_QUADS,
    NT_NORM_BWD_SCRATCH = 2 * 32, /* floats of the block's sums, before those of the columns */
};

struct nt_rmsnorm_bwd_cuda {
    struct nt_rmsnorm_bwd_args op; /* its tokens are the launch's */
    float *part;                   // [n_block, d_model]; NULL: nobody wants dw
    int32_t n_block, each;         /* each: tokens of a block */
};

#endif
