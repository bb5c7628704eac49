/* A block of gemm and of its gradient dgrad on compute capability 9.0: a tile's product, stored.
 *
 * The two differ in how w lies (SUM_LINES of the tile) and in what their launchers put into `g` and the operands. Shape
 * and order of sums: gemm_sm90_tile.cuh; epilogues: gemm_epilogue.cuh. No state. */
#ifndef NT_GEMM_SM90_BLOCK_CUH
#define NT_GEMM_SM90_BLOCK_CUH

#include "gemm_epilogue.cuh"
#include "gemm_sm90_tile.cuh"
#include "gemm_tile.cuh"

/* behind: operands of k2 more terms, or NULL; second: where pre-activations go, or NULL; stages: all of the dynamic
 * shared memory, 1024-byte aligned. All threads. */
template <class T>
NT_DEVICE void nt_sm90_block(const struct nt_gemm_cuda *g, const struct nt_sm90_operands *own,
                             const struct nt_sm90_operands *behind, int32_t k2, const struct nt_gemm_adapter *second,
                             char *stages) {
    enum { LINES = 16 * NT_LINE(T::COLS) }; /* floats of a warp */
    static_assert(T::MULTIPLIERS * LINES * 4 <= T::STAGES * T::STAGE_BYTES, "the lines find room where the stages were");
    int32_t m0, n0;
    nt_gemm_place(g, &m0, &n0);
    m0 *= T::ROWS;
    n0 *= T::COLS;
    float acc[T::COLS / 2];
    if (!nt_sm90_product<T>(own, behind, stages, m0, n0, g->k, k2, acc)) return;
    nt_gemm_store_rows<T::COLS / 8>(g, second, (float *)stages + nt_warp() * LINES, acc, m0 + 16 * nt_warp(), n0);
}

#endif
