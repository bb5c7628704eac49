/* What rows_bwd.cu and rows_bwd_cuda.c agree on: block sizes and the piece of a row that a block or a warp takes.
 *
 * The kernels take the args structs of ops_bwd.h by value; scatter has the pieces of gather (embed_cuda.h). Nothing
 * here decides on bits: elements are sums of their own. No state; any thread; errors are the launcher's
 * (kernels/rows_bwd_cuda.c). */
#ifndef NT_ROWS_BWD_CUDA_H
#define NT_ROWS_BWD_CUDA_H

#include "embed_cuda.h"
#include "ops_bwd.h"

enum {
    NT_EMBED_BWD_THREADS = 256,
    NT_EMBED_BWD_QUADS = 4, /* float4 of a table row that a thread holds */
    NT_EMBED_BWD_PIECE = 4 * NT_EMBED_BWD_QUADS * NT_EMBED_BWD_THREADS,
    NT_DROPOUT_WARPS = 8,
    NT_DROPOUT_PIECE = 32 * 4, /* columns of a warp, 4 a lane: one draw of random words */
};

#endif
