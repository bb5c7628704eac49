/* What pack.cu and pack_cuda.c agree on: the struct of the kernels, tiles and pieces.
 *
 * One struct for all three kernels. Pointers are device memory; w is moved to column col0 already, so that a kernel
 * knows rows and columns of the numbers alone. Nothing here decides on bits: elements are rounded one by one. No state;
 * any thread; errors are the launcher's (kernels/pack_cuda.c). */
#ifndef NT_PACK_CUDA_H
#define NT_PACK_CUDA_H

#include "dtype.h"

enum {
    NT_PACK_WARPS = 8,
    NT_PACK_THREADS = 32 * NT_PACK_WARPS,
    NT_PACK_QUADS = 4, /* of a row that a lane of pack_rows has: loads under way */
    NT_PACK_PIECE = 32 * 4 * NT_PACK_QUADS,
    NT_PACK_TILE = 64, /* outputs and inputs of a block of pack_turned */
};

struct nt_pack_cuda {
    const float *x;
    nt_bf16 *w;     // [rows, ld] from column col0 on, or NULL
    nt_bf16 *table; // [n, k] or NULL
    float *vector;  // or NULL
    int64_t ld;     /* of w */
    float scale;
    int32_t n, k, row0, run;
    int32_t across, width;  /* pack_rows: pieces of a row, and their columns but for the last */
    int32_t wide_x, wide_w; /* x is read by four numbers, w (pack_rows: and table) written by vectors */
};

#endif
