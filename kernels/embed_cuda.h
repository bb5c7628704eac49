/* What embed.cu and embed_cuda.c agree on: block sizes and the piece of a row one block copies.
 *
 * The kernels take the args structs of ops.h by value. Powers of two, so that a piece is whole 16-byte turns of a
 * block; a piece is large enough to hide its launch and small enough that a few long rows fill the device.
 * No state; any thread; errors are the launcher's (kernels/embed_cuda.c). */
#ifndef NT_EMBED_CUDA_H
#define NT_EMBED_CUDA_H

#include "ops.h"

enum { NT_EMBED_THREADS = 256, NT_GATHER_THREADS = 256, NT_GATHER_PIECE = 16384 };

#endif
