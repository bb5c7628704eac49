/* What norm.cu and norm_cuda.c agree on: which kernel takes which width.
 *
 * The choice, the threads and with them the order of a row's sum depend on d_model alone. The kernels take
 * struct nt_rmsnorm_args (ops.h) by value. The all-reduce fused with the norm takes the same threads, so that its bits
 * are the same. No state; any thread; errors are the launcher's (kernels/norm_cuda.c). */
#ifndef NT_NORM_CUDA_H
#define NT_NORM_CUDA_H

#include "ops.h"

enum {
    NT_NORM_WARP_ROWS = 4,   /* rows of a block of nt_rmsnorm_warp */
    NT_NORM_WARP_QUADS = 8,  /* float4 a lane holds */
    NT_NORM_BLOCK_QUADS = 4, /* float4 a thread of nt_rmsnorm_block holds */
    NT_NORM_ANY_THREADS = 256,
    NT_NORM_WARP_MAX = 32 * 4 * NT_NORM_WARP_QUADS,     /* widest row of a warp: 1024 */
    NT_NORM_BLOCK_MAX = 1024 * 4 * NT_NORM_BLOCK_QUADS, /* of a block: 16384 */
};

/* Threads of a row, for the widths held in registers. */
static inline int32_t nt_norm_threads(int32_t d_model) {
    const int32_t per_warp = 32 * 4 * NT_NORM_BLOCK_QUADS;
    return d_model <= NT_NORM_WARP_MAX ? 32 : 32 * ((d_model + per_warp - 1) / per_warp);
}

#endif
