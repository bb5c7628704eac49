/* y = x w^T on tensor cores: bf16 x bf16 with f32 sums, bias, gate and residual fused into the store. Spec: ops.h.
 *
 * A block computes a tile of y (gemm_tile.cuh); one kernel per row of NT_GEMM_TILES, chosen by gemm_cuda.c from n_tok
 * and the number of blocks. k is not split: even a 16 x 32 tile, whose chain of dependent mma takes some 33 cycles per
 * 16 of k, stays below the time its weights take from DRAM when all multiprocessors stream (k 4096: 5 us against 11 us
 * for 4096 x 4096), so the bits need no second order of sums. Blocks of NT_GEMM_GROUP row tiles run together.
 * nt_gemm_adapter_*: the same with an adapter's product behind, 2 (n + n_tok) rank bytes more through the same stages,
 * and the pre-activations of gated outputs, 2 n_tok n bytes more; fewer tiles, as only time depends on them.
 * Layout: w row-major [n_pad, k_pad] (NT_WEIGHT_BF16_ROWS), x row-major.
 * Roofline: 2 n k bytes of weights, 2 n_tok k of x, 4 or 2 n_tok n of y; 2 n_tok n k FLOP. Bandwidth up to about 295
 * rows on H100 (160 on A100), expected 80-85 % of copy bandwidth from 16 MB of weights on, less for small ones (launch
 * and pipeline fill, 3 us). Beyond: 128 x 256 tiles read 6 KB of shared memory per 64 mma of a warp, expected 80 % of
 * the matrix rate on A100 and, mma.sync being slower than wgmma there, 55-60 % on H100 (gemm_sm90.cu is for that). */
#include "gemm_tile.cuh"
#include "gemm_epilogue.cuh"

extern __shared__ __align__(128) char nt_gemm_stages[];

template <class T> NT_DEVICE void gemm(const struct nt_gemm_cuda *a, const struct nt_gemm_adapter *second) {
    int32_t m0, n0;
    nt_gemm_place(a, &m0, &n0);
    m0 *= T::ROWS;
    n0 *= T::COLS;
    float acc[T::M][T::N][4] = {};
    nt_gemm_main_loop<T>(a, nt_gemm_stages, m0, n0, acc, second);
    nt_gemm_store_tile<T>(a, second, nt_gemm_stages, acc, m0, n0);
}

#define NT_GEMM_KERNEL(rows, cols, depth, stages, warps_m, warps_n)                                                    \
    extern "C" __global__ void __launch_bounds__(NT_WARP *warps_m *warps_n)                                            \
        nt_gemm_##rows##x##cols(const struct nt_gemm_cuda a) {                                                         \
        nt_launch_begin();                                                                                             \
        gemm<nt_gemm_tile<rows, cols, depth, stages, warps_m, warps_n>>(&a, NULL);                                     \
    }
NT_GEMM_TILES(NT_GEMM_KERNEL)

#define NT_GEMM_ADAPTER_KERNEL(rows, cols, depth, stages, warps_m, warps_n)                                            \
    extern "C" __global__ void __launch_bounds__(NT_WARP *warps_m *warps_n)                                            \
        nt_gemm_adapter_##rows##x##cols(const struct nt_gemm_adapted a) {                                              \
        nt_launch_begin();                                                                                             \
        gemm<nt_gemm_tile<rows, cols, depth, stages, warps_m, warps_n>>(&a.g, &a.second);                              \
    }
NT_GEMM_ADAPTER_TILES(NT_GEMM_ADAPTER_KERNEL)
