/* What glu_bwd.cu and glu_bwd_cuda.c agree on: the octets of a warp.
 *
 * The kernel takes struct nt_glu_bwd_args (ops_bwd.h) by value. An octet is eight gates and their ups: half a half
 * panel. Elements are independent, so nothing here decides on bits. No state; any thread; errors are the launcher's
 * (kernels/glu_bwd_cuda.c). */
#ifndef NT_GLU_BWD_CUDA_H
#define NT_GLU_BWD_CUDA_H

#include "ops_bwd.h"

enum { NT_GLU_BWD_WARPS = 8, NT_GLU_BWD_PIECE = 32 * 8 /* columns of a warp */ };

#endif
