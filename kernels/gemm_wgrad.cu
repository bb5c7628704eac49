/* dw += alpha a^T b on tensor cores: the gradient of weights, of an adapter's factors, of biases. Spec: ops_bwd.h.
 *
 * A block computes a tile of dw over all tokens (gemm_bwd_tile.cuh); one kernel per row of NT_GEMM_WGRAD_TILES. Lines of
 * both operands are tokens, turned by ldmatrix.trans. After each NT_WGRAD_TOKENS tokens the sums are scaled and added to
 * dw, by the thread that added before, and begin again from zero; the ring stays full meanwhile, and a row of mma tiles
 * is loaded before any of it is stored, so dw's latency is waited for M times a block of tokens.
 * Columns of b may be every second run of b_run (a multiple of 16: a chunk of 8 columns lies in one run).
 * Blocks of NT_GEMM_GROUP row tiles run together: the head's a is 100 MB a chunk of rows, and is read once.
 * Layout: a [n_tok, m], b [n_tok, n] row-major; stages [depth, rows] of a, [depth, cols] of b.
 * Roofline: 2 n_tok (m + n) bytes once each in an ideal tiling, 8 m n per block of tokens; 2 n_tok m n FLOP. Full
 * weights: 128 x 128 tiles, 6 ldmatrix per 16 mma of a warp, expected 60-65 % of the matrix rate on A100, 40-45 % on
 * H100 (mma.sync; dw comes from L2 or DRAM once per 1024 tokens). An adapter's rank of 8 to 64 is one row of tiles and
 * bytes of b bound it: expected 70 % of copy bandwidth where n / 64 blocks fill the device, less below: tokens are not
 * split among blocks, as the order of sums is. */
#include "gemm_bwd_tile.cuh"
#include "gemm_epilogue.cuh"

extern __shared__ __align__(256) char nt_gemm_wgrad_stages[];

/* dw += alpha acc, acc = 0: the warp's part of the tile at row m0, column n0. */
template <class T>
NT_DEVICE void add_tile(const struct nt_gemm_wgrad_cuda *w, float acc[T::M][T::N][4], int32_t m0, int32_t n0) {
    const int32_t row0 = m0 + nt_warp() % T::WARPS_M * T::WARP_ROWS + nt_lane() / 4;
    const int32_t col0 = n0 + nt_warp() / T::WARPS_M * T::WARP_COLS + 2 * (nt_lane() & 3);
#pragma unroll
    for (int i = 0; i < 2 * T::M; i++) {
        const int m = i / 2, half = i % 2;
        const int32_t row = row0 + 16 * m + 8 * half, end = row < w->m ? w->n : 0;
        float *to = w->dw + row * w->lddw;
        float2 old[T::N];
#pragma unroll
        for (int n = 0; n < T::N; n++) old[n] = nt_load_pair_f32(to, col0 + 8 * n, end);
#pragma unroll
        for (int n = 0; n < T::N; n++) {
            float *sum = &acc[m][n][2 * half];
            nt_store_pair_f32(to, col0 + 8 * n, end, __fadd_rn(old[n].x, __fmul_rn(w->alpha, sum[0])),
                              __fadd_rn(old[n].y, __fmul_rn(w->alpha, sum[1])), false);
            sum[0] = sum[1] = 0;
        }
    }
}

template <class T> NT_DEVICE void wgrad(const struct nt_gemm_wgrad_cuda *w) {
    enum { BLOCK = NT_WGRAD_TOKENS / T::DEPTH }; /* stages */
    static_assert(NT_WGRAD_TOKENS % T::DEPTH == 0, "a stage lies in one block of tokens");
    int32_t m0, n0;
    nt_gemm_place_in(w->row_tiles, w->col_tiles, &m0, &n0);
    m0 *= T::ROWS;
    n0 *= T::COLS;
    struct nt_bwd_loop<T> l;
    l.stages = nt_gemm_wgrad_stages;
    l.a = nt_bwd_copier_of<typename T::A>(w->a, w->lda, 0, w->n_tok, m0, w->m);
    l.b = nt_bwd_copier_of<typename T::B>(w->b, w->ldb, 0, w->n_tok, n0, w->n);
    if (w->b_run > 0) { /* further by the runs that are left out */
        const int32_t col = w->n - l.b.left;
        l.b.from += col / w->b_run * (int64_t)w->b_run;
    }
    l.second.args = NULL;
    l.n_stage = (w->n_tok + T::DEPTH - 1) / T::DEPTH;
    float acc[T::M][T::N][4] = {};
    nt_bwd_begin<T>(&l);
    for (int32_t done = 0; done < l.n_stage; done += BLOCK) {
        const int32_t left = l.n_stage - done;
        nt_bwd_advance<T>(&l, min(left, (int32_t)BLOCK), left <= BLOCK, acc);
        add_tile<T>(w, acc, m0, n0);
    }
}

#define NT_GEMM_WGRAD_KERNEL(rows, cols, depth, stages, warps_m, warps_n)                                              \
    extern "C" __global__ void __launch_bounds__(NT_WARP *warps_m *warps_n)                                            \
        nt_gemm_wgrad_##rows##x##cols(const struct nt_gemm_wgrad_cuda a) {                                             \
        wgrad<nt_bwd_tile<rows, cols, depth, stages, warps_m, warps_n, true>>(&a);                                     \
    }
NT_GEMM_WGRAD_TILES(NT_GEMM_WGRAD_KERNEL)
