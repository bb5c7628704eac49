/* The vocabulary head fused with the choice of a token: y = x w^T on tensor cores, and of each row only the best
 * (value, index), plain or with Gumbel noise, leaves the multiprocessor. Spec: ops.h.
 *
 * nt_head_<rows>x<cols>: a block computes a tile of gemm (gemm_tile.cuh), whose sums go through shared memory; a warp
 * takes a row of them after the other and leaves its best. Tiles run in the order of gemm's, so that
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
    static_assert(T::COLS == NT_HEAD_COLS, "one part a tile");
    enum { LINE = NT_LINE(NT_HEAD_COLS) };
    static_assert(T::ROWS * LINE * 4 <= T::STAGES * T::STAGE_BYTES, "lines lie where the stages were");
    int32_t m0, col_tile;
    nt_gemm_place(&a->g, &m0, &col_tile);
    m0 *= T::ROWS;
    float acc[T::M][T::N][4] = {};
    float *lines = (float *)nt_head_stages;
    nt_gemm_main_loop<T>(&a->g, nt_head_stages, m0, col_tile * T::COLS, acc);
    __syncthreads(); /* all have read the stages */
    float *mine = lines + nt_warp() % T::WARPS_M * T::WARP_ROWS * LINE + nt_warp() / T::WARPS_M * T::WARP_COLS;
#pragma unroll
    for (int m = 0; m < 2 * T::M; m++)
        nt_lines_put<T::N, NT_HEAD_COLS>(mine + 8 * m * LINE, &acc[m / 2][0][2 * (m % 2)]);
    __syncthreads();
    nt_head_join_lines<T::COLS>(a, lines, nt_warp(), T::WARPS_M * T::WARPS_N, T::ROWS, m0, col_tile);
}

#define NT_HEAD_KERNEL(rows, cols, depth, stages, warps_m, warps_n)                                                    \
    extern "C" __global__ void __launch_bounds__(NT_WARP *warps_m *warps_n, 2)                                         \
        nt_head_##rows##x##cols(const struct nt_head_cuda a) {                                                         \
        nt_launch_begin();                                                                                             \
        head<nt_gemm_tile<rows, cols, depth, stages, warps_m, warps_n>>(&a);                                           \
    }
NT_HEAD_TILES(NT_HEAD_KERNEL)

extern "C" __global__ void __launch_bounds__(NT_HEAD_JOIN_THREADS) nt_head_join(const struct nt_head_cuda a) {
    nt_launch_begin();
    __shared__ struct nt_best best_of_warp[NT_MAX_WARPS];
    const struct nt_head_pair *part = a.part + (int64_t)blockIdx.x * a.n_part;
    struct nt_best best = nt_best_none();
    for (int32_t i = (int32_t)threadIdx.x; i < a.n_part; i += NT_HEAD_JOIN_THREADS) {
        const struct nt_best b = {part[i].value, part[i].index};
        best = nt_best_of(best, b);
    }
    best = nt_block_best(best, best_of_warp);
    if (threadIdx.x != 0) return;
    a.value[blockIdx.x] = best.value;
    a.index[blockIdx.x] = nt_dev_finite(best.value) ? a.first + best.index : -1;
}
