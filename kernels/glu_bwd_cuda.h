/* What glu_bwd.cu and glu_bwd_cuda.c agree on: the columns of a warp.
 *
 * The kernel takes struct nt_glu_bwd_args (ops_bwd.h) by value.
 * Elements are independent, so nothing here decides on bits. No state; any thread; errors are the launcher's
 * (kernels/glu_bwd_cuda.c). */
#ifndef NT_GLU_BWD_CUDA_H
#define NT_GLU_BWD_CUDA_H

#include "ops_bwd.h"

enum {
    NT_GLU_BWD_WARPS = 8,
    NT_GLU_BWD_QUADS = 2, /* four columns each, of a lane */
    NT_GLU_BWD_PIECE = 32 * 4 * NT_GLU_BWD_QUADS,
};

#endif
