/* dw += alpha a^T b on tensor cores: the gradient of weights, of an adapter's factors, of biases. Spec: ops_bwd.h.
 *
 * A block computes a tile of dw (gemm_bwd_tile.cuh); one kernel per row of NT_GEMM_WGRAD_TILES. Lines of both operands
 * are tokens, turned by ldmatrix.trans. Order of sums, whatever the tile and the grid: over NT_WGRAD_TOKENS tokens a
 * chain from zero, then dw + alpha chain, two roundings, chains ascending.
 * One block for all tokens of a tile: after each chain it is added to dw, by the thread that added before; the ring
 * stays full meanwhile, and a row of mma tiles is loaded before any of it is stored, so dw's latency is waited for M
 * times a chain.
 * Few tiles (nt_wgrad_cut): a block for each chain, blockIdx.y, which leaves its sums in the workspace, and
 * nt_gemm_wgrad_join adds them with the same operations in the same order, a thread for an element of dw: same bits.
 * Columns of b may be every second run of b_run (a multiple of 16: a chunk of 8 columns lies in one run).
 * Blocks of NT_GEMM_GROUP row tiles run together: the head's a is 100 MB a chunk of rows, and is read once.
 * Layout: a [n_tok, m], b [n_tok, n] row-major; stages [depth, rows] of a, [depth, cols] of b; part [n_block, m, n].
 * Roofline: 2 n_tok (m + n) bytes once each in an ideal tiling, 8 m n per chain (of dw, or of a part); 2 n_tok m n
 * FLOP. Full weights: 128 x 128 tiles, 6 ldmatrix per 16 mma of a warp, expected 60-65 % of the matrix rate on A100; 25 %
 * on an H200, where gemm_wgrad_sm90.cu takes 64 rows and more of what is aligned for it. An adapter's rank of 8 to 64 is one row of
 * tiles and bytes of b bound it: expected 50 % of copy bandwidth where n / 64 n_block blocks fill the device. Below that
 * the chain is the time, 12 us by estimate (25 us for two, one after the other, on H200 with a warp for 32 columns), and
 * no grid shortens it: its warps are small. */
#include "gemm_bwd_tile.cuh"

extern __shared__ __align__(256) char nt_gemm_wgrad_stages[];

/* Columns col, col + 1 (col even) of a row; those at and after n are not stored, and 0 when loaded. */
NT_DEVICE void store_pair(float *row, int32_t col, int32_t n, float v0, float v1) {
    if (col + 1 < n && ((uintptr_t)row & 7) == 0) {
        *(float2 *)(row + col) = make_float2(v0, v1);
        return;
    }
    if (col < n) row[col] = v0;
    if (col + 1 < n) row[col + 1] = v1;
}
NT_DEVICE float2 load_pair(const float *row, int32_t col, int32_t n) {
    if (col + 1 < n && ((uintptr_t)row & 7) == 0) return *(const float2 *)(row + col);
    return make_float2(col < n ? row[col] : 0.0f, col + 1 < n ? row[col + 1] : 0.0f);
}

/* dw += alpha acc, acc = 0: the warp's part of the tile at row m0, column n0. Or acc becomes its part of the sums of
 * this block's own tokens. */
template <class T>
NT_DEVICE void add_tile(const struct nt_gemm_wgrad_cuda *w, float acc[T::M][T::N][4], int32_t m0, int32_t n0) {
    const int32_t row0 = m0 + nt_warp() % T::WARPS_M * T::WARP_ROWS + nt_lane() / 4;
    const int32_t col0 = n0 + nt_warp() / T::WARPS_M * T::WARP_COLS + 2 * (nt_lane() & 3);
    const bool own = w->part;
    float *dw = own ? w->part + (int64_t)blockIdx.y * w->m * w->n : w->dw;
    const int64_t ld = own ? w->n : w->lddw;
#pragma unroll
    for (int i = 0; i < 2 * T::M; i++) {
        const int m = i / 2, half = i % 2;
        const int32_t row = row0 + 16 * m + 8 * half, end = row < w->m ? w->n : 0;
        float *to = dw + row * ld;
        float2 old[T::N];
#pragma unroll
        for (int n = 0; n < T::N; n++) old[n] = load_pair(to, col0 + 8 * n, own ? 0 : end);
#pragma unroll
        for (int n = 0; n < T::N; n++) {
            float *sum = &acc[m][n][2 * half];
            store_pair(to, col0 + 8 * n, end,
                              own ? sum[0] : __fadd_rn(old[n].x, __fmul_rn(w->alpha, sum[0])),
                              own ? sum[1] : __fadd_rn(old[n].y, __fmul_rn(w->alpha, sum[1])));
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
    const int32_t first = (int32_t)blockIdx.y * NT_WGRAD_TOKENS;
    const int32_t n_tok = w->part ? min(w->n_tok - first, (int32_t)NT_WGRAD_TOKENS) : w->n_tok;
    struct nt_bwd_loop<T> l;
    l.stages = nt_gemm_wgrad_stages;
    l.a = nt_bwd_copier_of<typename T::A>(w->a, w->lda, first, w->n_tok, m0, w->m);
    l.b = nt_bwd_copier_of<typename T::B>(w->b, w->ldb, first, w->n_tok, n0, w->n);
    if (w->b_run > 0) { /* further by the runs that are left out */
        const int32_t col = w->n - l.b.left;
        l.b.from += col / w->b_run * (int64_t)w->b_run;
    }
    l.second.args = NULL;
    l.n_stage = (n_tok + T::DEPTH - 1) / T::DEPTH;
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
        nt_launch_begin();                                                                                             \
        wgrad<nt_bwd_tile<rows, cols, depth, stages, warps_m, warps_n, true>>(&a);                                     \
    }
NT_GEMM_WGRAD_TILES(NT_GEMM_WGRAD_KERNEL)

/* dw += alpha part of each block of tokens, ascending. */
extern "C" __global__ void __launch_bounds__(NT_WGRAD_JOIN_THREADS)
    nt_gemm_wgrad_join(const struct nt_gemm_wgrad_cuda a) {
    nt_launch_begin();
    const int32_t per_row = (a.n + NT_WGRAD_JOIN_THREADS - 1) / NT_WGRAD_JOIN_THREADS;
    const int32_t row = (int32_t)blockIdx.x / per_row, block = (int32_t)blockIdx.x % per_row;
    const int32_t col = block * NT_WGRAD_JOIN_THREADS + (int32_t)threadIdx.x;
    if (col >= a.n) return;
    const int32_t n_block = (a.n_tok + NT_WGRAD_TOKENS - 1) / NT_WGRAD_TOKENS;
    const int64_t size = (int64_t)a.m * a.n;
    const float *from = a.part + (int64_t)row * a.n + col;
    float *at = a.dw + row * a.lddw + col, sum = *at;
    for (int32_t b = 0; b < n_block; b += NT_WGRAD_JOIN_AHEAD) {
        float part[NT_WGRAD_JOIN_AHEAD];
#pragma unroll
        for (int32_t k = 0; k < NT_WGRAD_JOIN_AHEAD; k++) part[k] = b + k < n_block ? from[(b + k) * size] : 0;
#pragma unroll
        for (int32_t k = 0; k < NT_WGRAD_JOIN_AHEAD; k++)
            if (b + k < n_block) sum = __fadd_rn(sum, __fmul_rn(a.alpha, part[k]));
    }
    *at = sum;
}
