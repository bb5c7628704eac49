/* What optim.cu and optim_cuda.c agree on: the structs of the kernels and the elements of a block.
 *
 * adamw's scalars are the host's (adamw_factors.h), so that all bodies have the same. sum_squares takes a block of
 * NT_SUM_BLOCK values (ops_bwd.h) a thread block and leaves its sum in the workspace; nt_sum_squares_join adds them
 * ascending. sum_parts goes by quads. Pointers are device memory. No state; any thread; errors are the launcher's
 * (kernels/optim_cuda.c). */
#ifndef NT_OPTIM_CUDA_H
#define NT_OPTIM_CUDA_H

#include "adamw_factors.h"

enum {
    NT_ADAMW_THREADS = 256,
    NT_SQUARES_THREADS = 256,
    NT_SQUARES_JOIN_THREADS = 256,
    NT_PARTS_THREADS = 256,
    NT_PARTS_AHEAD = 4, /* parts that a thread has under way */
};

struct nt_adamw_cuda {
    float *p, *m, *v;  // [n]
    const float *grad; // [n]
    int64_t n;
    struct nt_adamw_factors f;
    int32_t lead; /* elements before the first address that 16 divides; -1: the arrays differ in that */
};

struct nt_sum_squares_cuda {
    const float *x; // [n]
    double *sum;
    double *part; // [n_block]
    int64_t n, n_block;
    int32_t add; /* to what *sum is: an earlier launch's */
};

struct nt_sum_parts_cuda {
    const float *x; // [n_part, n]
    float *y;       // [n]
    int64_t n;
    int32_t n_part;
    int32_t wide; /* quads are aligned in y and in every part */
};

#endif
