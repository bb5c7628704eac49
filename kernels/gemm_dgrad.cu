/* dx = dy w (+ dy2 w2) on tensor cores, w bf16 as the forward has it: the gradient of a product's input. Spec: ops_bwd.h.
 *
 * A block computes a tile of dx (gemm_bwd_tile.cuh); one kernel per row of NT_GEMM_DGRAD_TILES. The sum runs over w's
 * rows, which are the lines of B, so no second packing of weights exists; an adapter's rows follow in the same ring.
 * The sum is not split, as in gemm.cu; blocks of NT_GEMM_GROUP row tiles run together and share w in L2.
 * Layout: w row-major [n, k_pad] (NT_WEIGHT_BF16_ROWS), dy row-major; stages [rows, depth] of dy, [depth, cols] of w.
 * Roofline: 2 n k bytes of weights, 2 n_tok n of dy, 4 or 2 n_tok k of dx; 2 n_tok n k FLOP. Bytes bound it up to about
 * 295 rows on H100 (160 on A100), expected 75-80 % of copy bandwidth there; beyond, with 128 x 128 tiles, 8 ldmatrix feed
 * 32 mma of a warp: expected 70-75 % of the matrix rate on A100; mma.sync being slower than wgmma, 43 % on an H200, where
 * gemm_dgrad_sm90.cu takes what is aligned for it.
 * An adapter's own (8 to 64 columns of dx): 2 n_tok n bytes bound it, half of the 32 columns of a tile idle. */
#include "gemm_bwd_tile.cuh"
#include "gemm_epilogue.cuh"

extern __shared__ __align__(256) char nt_gemm_dgrad_stages[];

template <class T> NT_DEVICE void dgrad(const struct nt_gemm_dgrad_cuda *d) {
    struct nt_bwd_loop<T> l;
    int32_t m0, n0;
    nt_gemm_place(&d->g, &m0, &n0);
    m0 *= T::ROWS;
    n0 *= T::COLS;
    l.stages = nt_gemm_dgrad_stages;
    l.a = nt_bwd_copier_of<typename T::A>(d->g.x, d->g.ldx, m0, d->g.n_tok, 0, d->g.k);
    l.b = nt_bwd_copier_of<typename T::B>(d->g.w, d->g.n_pad, 0, d->g.k, n0, d->g.n_pad);
    l.second.args = d;
    l.second.from = (d->g.k + T::DEPTH - 1) / T::DEPTH;
    l.second.m0 = m0;
    l.second.n0 = n0;
    l.n_stage = l.second.from + (d->second.k + T::DEPTH - 1) / T::DEPTH;
    float acc[T::M][T::N][4] = {};
    nt_bwd_begin<T>(&l);
    nt_bwd_advance<T>(&l, l.n_stage, true, acc);
    nt_gemm_store_tile<T>(&d->g, NULL, nt_gemm_dgrad_stages, acc, m0, n0);
}

#define NT_GEMM_DGRAD_KERNEL(rows, cols, depth, stages, warps_m, warps_n)                                              \
    extern "C" __global__ void __launch_bounds__(NT_WARP *warps_m *warps_n)                                            \
        nt_gemm_dgrad_##rows##x##cols(const struct nt_gemm_dgrad_cuda a) {                                             \
        nt_launch_begin();                                                                                             \
        dgrad<nt_bwd_tile<rows, cols, depth, stages, warps_m, warps_n, false>>(&a);                                    \
    }
NT_GEMM_DGRAD_TILES(NT_GEMM_DGRAD_KERNEL)
