/* What embed.cu and embed_cuda.c agree on: block sizes and the piece of a row one block copies.
 *
 * The kernels take the args structs of ops.h by value. Powers of two, so that a piece is whole 16-byte turns of a
 * block; a piece is large enough to hide its launch and small enough that a few long rows fill the device.
 * No state; any thread; errors are the launcher's (kernels/embed_cuda.c). */
#ifndef NT_EMBED_CUDA_H
#define NT_EMBED_CUDA_H

#include "ops.h"

enum { NT_EMBED_THREADS = 256, NT_GATHER_THREADS = 256, NT_GATHER_PIECE = 16384 };

/* Threads of a block that takes a row of n numbers by fours, `most` of them where it is long. */
static inline int32_t nt_embed_threads(int32_t n, int32_t most) {
    const int32_t turns = (n + 3) / 4;
    return turns >= most ? most : (turns + 31) / 32 * 32;
}

#ifndef __CUDACC__
/* Pieces of a row that gather or scatter copies from one buffer to another; NT_E_UNSUPPORTED with a sentence. */
NT_MUST nt_status nt_gather_cuda_pieces(const char *op, int64_t bytes, int64_t *pieces);
#endif

#endif
