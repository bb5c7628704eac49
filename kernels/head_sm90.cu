/* The vocabulary head fused with the choice of a token on compute capability 9.0: the tiles of gemm_sm90.cu, whose bits
 * its sums have, with the epilogue of head.cu. Spec: ops.h; the joining kernel: head.cu.
 *
 * A warp of a multiplying warpgroup has 16 rows by all columns of the tile, so the best of a quad of lanes is the tile's.
 * Layout: as head.cu, operands by tensor maps.
 * Roofline: as head.cu: 2 n k bytes of weights once, 2 n_row n k FLOP; expected 80-85 % of copy bandwidth up to some
 * 256 rows, beyond wgmma at 60-65 % of the dense rate: 64 x 128 tiles read 96 bytes of shared memory a cycle of 128. */
#include "gemm_sm90_tile.cuh"
#include "gemm_tile.cuh"
#include "head_epilogue.cuh"

extern __shared__ __align__(1024) char nt_head_sm90_stages[];

template <class T> NT_DEVICE void head_sm90(const struct nt_head_sm90 *a) {
    static_assert(T::COLS == NT_HEAD_COLS, "the parts of a row do not depend on the tile");
    int32_t m0, col_tile;
    nt_gemm_place(&a->h.g, &m0, &col_tile);
    m0 *= T::ROWS;
    const int32_t n0 = col_tile * T::COLS;
    float acc[T::COLS / 2];
    const uint32_t base = nt_shared_address(nt_head_sm90_stages);
    if (!nt_sm90_product<T>(&a->operands, NULL, base, m0, n0, a->h.g.k, 0, acc)) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int32_t row = m0 + 16 * nt_warp() + 8 * half + nt_lane() / 4;
        float v[T::COLS / 4];
#pragma unroll
        for (int i = 0; i < T::COLS / 4; i++) v[i] = acc[i / 2 * 4 + 2 * half + i % 2];
        const struct nt_best best = nt_head_of_quad<T::COLS / 8>(&a->h, v, row, n0);
        if ((nt_lane() & 3) == 0 && row < a->h.g.n_tok) nt_head_put(&a->h, row, col_tile, best);
    }
}

#define NT_HEAD_SM90_KERNEL(rows, cols, stages, blocks)                                                                \
    extern "C" __global__ void __launch_bounds__(NT_GEMM_SM90_THREADS(rows, cols), blocks)                             \
        nt_head_sm90_##rows##x##cols(const __grid_constant__ struct nt_head_sm90 a) {                                  \
        head_sm90<nt_sm90_tile<rows, cols, stages>>(&a);                                                               \
    }
NT_HEAD_SM90_TILES(NT_HEAD_SM90_KERNEL)
