/* gemm_dgrad by TMA and wgmma on compute capability 9.0: what gemm_dgrad_sm90.cu and its launcher agree on.
 *
 * NT_GEMM_DGRAD_SM90_TILES has a row per kernel nt_gemm_dgrad_sm90_<rows>x<cols>. Weights are NT_WEIGHT_BF16_ROWS.
 * Batch invariance: as gemm_sm90_cuda.h has it. nt_gemm_dgrad_sm90_takes looks only at the device, the weights and the
 * alignment of dy and dy2 (an adapter whose ranks are no multiples of 8 goes the way of compute capability 8.0); in all
 * tiles an element is one chain of m64nNk16 over n, ascending from zero, then over the second product's n.
 * Errors: NT_E_UNSUPPORTED with the driver's word when it refuses a tensor map. */
#ifndef NT_GEMM_DGRAD_SM90_CUDA_H
#define NT_GEMM_DGRAD_SM90_CUDA_H

#include "gemm_bwd_cuda.h"
#include "gemm_sm90_cuda.h"

/* X(rows, cols, stages, blocks of a multiprocessor): n_tok x k. The first is for an adapter's own, whose few tiles wait
 * for bytes: all of the shared memory is under way. */
#define NT_GEMM_DGRAD_SM90_TILES(X)                                                                                    \
    X(64, 64, 12, 1)                                                                                                   \
    X(64, 128, 4, 2)                                                                                                   \
    X(128, 128, 6, 1)                                                                                                  \
    X(128, 256, 4, 1)

struct nt_gemm_dgrad_sm90 {
    struct nt_sm90_operands own, behind; /* x: dy, dy2; w: w, w2 in boxes of DEPTH columns by as many lines */
    struct nt_gemm_cuda g;               /* as in struct nt_gemm_dgrad_cuda; x and w unused */
    int32_t k2;                          /* w2->n; 0: no second product, `behind` is not there */
};

#ifndef __CUDACC__
bool nt_gemm_dgrad_sm90_takes(const struct nt_backend *be, const struct nt_gemm_dgrad_args *args);
const struct nt_sm90_tile_row *nt_gemm_dgrad_sm90_tile(const struct nt_gemm_dgrad_args *args, int32_t n_sm);
/* g: of a launch in that tile. Only what nt_gemm_dgrad_sm90_takes; shapes as nt_gemm_dgrad_cuda has checked them. */
NT_MUST nt_status nt_gemm_dgrad_sm90(struct nt_backend *be, const struct nt_gemm_dgrad_args *args,
                                     const struct nt_sm90_tile_row *tile, const struct nt_gemm_cuda *g);
#endif

#endif
