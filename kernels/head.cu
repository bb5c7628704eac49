/* The vocabulary head fused with the choice of a token: y = x w^T on tensor cores, and of each row only the best
 * (value, index), plain or with Gumbel noise, leaves the multiprocessor. Spec: ops.h.
 *
 * nt_head_<rows>x<cols>: a block computes a tile of gemm (gemm_tile.cuh), and its epilogue keeps y in registers: the best
 * of a thread's tokens of each row, of the quad, of the warps side by side. Tiles run in the order of gemm's, so that
 * row tiles of the same tokens share the weights in L2; the sums have gemm's bits. nt_head_join, a block per row, takes
 * the best of the tiles, in any order with the same result.
 * Layout: x and w as gemm.cu's; value and index [n_row], parts of the tiles [n_row, tiles] in the workspace.
 * Roofline: 2 n k bytes of weights once, 2 n_row n k FLOP: bandwidth up to about 256 rows on H100 (295 FLOP per byte),
 * expected 80-85 % of copy bandwidth (1 GB of an 8B head: 0.37 ms); beyond, mma.sync at 55-60 % of the dense peak there
 * (head_sm90.cu is for that). Saved: the logits, 8 bytes per token and row (64 x 128k: 67 MB). The noise of a draw is some 80
 * instructions per token and row: for 64 rows of 128k tokens 23 us of issue on H100, beside the weights' 370. */
#include "gemm_tile.cuh"
#include "head_epilogue.cuh"

extern __shared__ __align__(128) char nt_head_stages[];

template <class T> NT_DEVICE void head(const struct nt_head_cuda *a) {
    __shared__ struct nt_best best_of_side[T::WARPS_N][T::ROWS];
    static_assert(T::COLS == NT_HEAD_COLS && T::ROWS <= T::THREADS, "a thread joins a row");
    int32_t m0, col_tile;
    nt_gemm_place(&a->g, &m0, &col_tile);
    m0 *= T::ROWS;
    float acc[T::M][T::N][4] = {};
    nt_gemm_main_loop<T>(&a->g, nt_head_stages, m0, col_tile * T::COLS, acc);
    const int32_t side = nt_warp() / T::WARPS_M, n0 = col_tile * T::COLS + side * T::WARP_COLS;
#pragma unroll
    for (int m = 0; m < T::M; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int32_t row = nt_warp() % T::WARPS_M * T::WARP_ROWS + 16 * m + 8 * half + nt_lane() / 4;
            float v[2 * T::N];
#pragma unroll
            for (int i = 0; i < 2 * T::N; i++) v[i] = acc[m][i / 2][2 * half + i % 2];
            const struct nt_best best = nt_head_of_quad<T::N>(a, v, m0 + row, n0);
            if ((nt_lane() & 3) == 0) best_of_side[side][row] = best;
        }
    }
    __syncthreads();
    const int32_t row = (int32_t)threadIdx.x;
    if (row >= T::ROWS || m0 + row >= a->g.n_tok) return;
    struct nt_best best = best_of_side[0][row];
#pragma unroll
    for (int s = 1; s < T::WARPS_N; s++) best = nt_best_of(best, best_of_side[s][row]);
    nt_head_put(a, m0 + row, col_tile, best);
}

#define NT_HEAD_KERNEL(rows, cols, depth, stages, warps_m, warps_n)                                                    \
    extern "C" __global__ void __launch_bounds__(NT_WARP *warps_m *warps_n, 2)                                         \
        nt_head_##rows##x##cols(const struct nt_head_cuda a) {                                                         \
        head<nt_gemm_tile<rows, cols, depth, stages, warps_m, warps_n>>(&a);                                           \
    }
NT_HEAD_TILES(NT_HEAD_KERNEL)

extern "C" __global__ void __launch_bounds__(NT_HEAD_JOIN_THREADS) nt_head_join(const struct nt_head_cuda a) {
    __shared__ struct nt_best best_of_warp[NT_MAX_WARPS];
    const struct nt_head_pair *part = a.part + (int64_t)blockIdx.x * a.g.col_tiles;
    struct nt_best best = nt_best_none();
    for (int32_t i = (int32_t)threadIdx.x; i < a.g.col_tiles; i += NT_HEAD_JOIN_THREADS) {
        const struct nt_best b = {part[i].value, part[i].index};
        best = nt_best_of(best, b);
    }
    best = nt_block_best(best, best_of_warp);
    if (threadIdx.x != 0) return;
    a.value[blockIdx.x] = best.value;
    a.index[blockIdx.x] = nt_dev_finite(best.value) ? a.first + best.index : -1;
}
