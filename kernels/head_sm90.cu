/* The vocabulary head fused with the choice of a token on compute capability 9.0: the tiles of gemm_sm90.cu, whose bits
 * its sums have, with the epilogue of head.cu. Spec: ops.h; the joining kernel: head.cu.
 *
 * Layout: as head.cu, operands by tensor maps.
 * Roofline: as head.cu: 2 n k bytes of weights once, 2 n_row n k FLOP; expected 80-85 % of copy bandwidth up to some
 * 256 rows, beyond 128 x 256 tiles at gemm's rate. The noise of a draw is as in head.cu; in 128 x 256 tiles, one a
 * multiprocessor, nothing hides it. */
#include "gemm_sm90_tile.cuh"
#include "gemm_tile.cuh"
#include "head_epilogue.cuh"

extern __shared__ __align__(1024) char nt_head_sm90_stages[];

template <class T> NT_DEVICE void head_sm90(const struct nt_head_sm90 *a) {
    enum { WARP_ROWS = 16, LINE = NT_LINE(T::COLS) };
    static_assert(T::COLS % NT_HEAD_COLS == 0, "the parts of a row do not depend on the tile");
    static_assert(T::ROWS * LINE * 4 <= T::STAGES * T::STAGE_BYTES, "lines lie where the stages were");
    int32_t m0, col_tile;
    nt_gemm_place(&a->h.g, &m0, &col_tile);
    m0 *= T::ROWS;
    float acc[T::COLS / 2];
    if (!nt_sm90_product<T>(&a->operands, NULL, nt_head_sm90_stages, m0, col_tile * T::COLS, a->h.g.k, 0, acc)) return;
    float *lines = (float *)nt_head_sm90_stages + nt_warp() * WARP_ROWS * LINE;
    nt_lines_put<T::COLS / 8, T::COLS>(lines, acc);
    nt_lines_put<T::COLS / 8, T::COLS>(lines + 8 * LINE, acc + 2);
    __syncwarp();
    nt_head_join_lines<T::COLS>(&a->h, lines, 0, 1, WARP_ROWS, m0 + WARP_ROWS * nt_warp(), col_tile);
}

#define NT_HEAD_SM90_KERNEL(rows, cols, stages, blocks)                                                                \
    extern "C" __global__ void __launch_bounds__(NT_GEMM_SM90_THREADS(rows, cols), blocks)                             \
        nt_head_sm90_##rows##x##cols(const __grid_constant__ struct nt_head_sm90 a) {                                  \
        head_sm90<nt_sm90_tile<rows, cols, stages>>(&a);                                                               \
    }
NT_HEAD_SM90_TILES(NT_HEAD_SM90_KERNEL)
