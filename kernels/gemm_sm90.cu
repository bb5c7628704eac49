/* y = x w^T on compute capability 9.0: TMA, mbarriers and wgmma, warp-specialised. Spec: ops.h; epilogues: gemm.cu's.
 *
 * A block computes a tile of y (gemm_sm90_tile.cuh); one kernel per row of NT_GEMM_SM90_TILES, and with an adapter's
 * product behind and pre-activations kept one per row of NT_GEMM_SM90_ADAPTER_TILES.
 * Registers (ptxas, no spills): 42, 58, 90 a thread at 32, 64, 128 columns; at 256 there are 128 accumulators: 168, and
 * the copying warpgroup gives its own away (240 and 24).
 * Small n_tok: 64 rows of an instruction are mostly zeros, but the weights pass at 64 bytes a cycle and multiprocessor,
 * four times what DRAM delivers; the zeros cost no traffic.
 * Layout: as gemm.cu; both operands come by tensor maps, so x and w must be 16-byte aligned.
 * Roofline: 2 n k bytes of weights, 2 n_tok n k FLOP; bandwidth up to about 295 rows, expected 80-85 % of copy
 * bandwidth from 16 MB of weights on. Beyond: 128 x 256 x 64 needs 1024 cycles of the tensor cores and reads 80 bytes
 * of shared memory a cycle of the 128 there are; expected 65-75 % of the dense rate, the rest being clocks, the
 * epilogue (not overlapped: one tile a block) and the last wave. */
#include "gemm_sm90_tile.cuh"
#include "gemm_tile.cuh"
#include "gemm_epilogue.cuh"

extern __shared__ __align__(1024) char nt_gemm_sm90_stages[];

template <class T>
NT_DEVICE void store_rows(const struct nt_gemm_cuda *g, const struct nt_gemm_adapter *second, const float *acc,
                          int32_t row0, int32_t n0) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int32_t row = row0 + nt_lane() / 4 + 8 * half;
#pragma unroll
        for (int p = 0; p < T::COLS / NT_PANEL; p++) {
            float v[8];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                v[2 * i] = acc[16 * p + 4 * i + 2 * half];
                v[2 * i + 1] = acc[16 * p + 4 * i + 2 * half + 1];
            }
            nt_gemm_store_panel(g, v, row, n0 + NT_PANEL * p, second);
        }
    }
}

template <class T>
NT_DEVICE void gemm_sm90(const struct nt_gemm_sm90 *a, const struct nt_sm90_operands *behind,
                         const struct nt_gemm_adapter *second) {
    int32_t m0, n0;
    nt_gemm_place(&a->g, &m0, &n0);
    m0 *= T::ROWS;
    n0 *= T::COLS;
    float acc[T::COLS / 2];
    const uint32_t base = nt_shared_address(nt_gemm_sm90_stages);
    if (!nt_sm90_product<T>(&a->operands, behind, base, m0, n0, a->g.k, second ? second->k : 0, acc)) return;
    store_rows<T>(&a->g, second, acc, m0 + 16 * nt_warp(), n0);
}

#define NT_GEMM_SM90_KERNEL(rows, cols, stages, blocks)                                                                \
    extern "C" __global__ void __launch_bounds__(NT_GEMM_SM90_THREADS(rows, cols), blocks)                             \
        nt_gemm_sm90_##rows##x##cols(const __grid_constant__ struct nt_gemm_sm90 a) {                                  \
        gemm_sm90<nt_sm90_tile<rows, cols, stages>>(&a, NULL, NULL);                                                   \
    }
NT_GEMM_SM90_TILES(NT_GEMM_SM90_KERNEL)

#define NT_GEMM_SM90_ADAPTER_KERNEL(rows, cols, stages, blocks)                                                        \
    extern "C" __global__ void __launch_bounds__(NT_GEMM_SM90_THREADS(rows, cols), blocks)                             \
        nt_gemm_sm90_adapter_##rows##x##cols(const __grid_constant__ struct nt_gemm_sm90_adapted a) {                  \
        gemm_sm90<nt_sm90_tile<rows, cols, stages>>(&a.own, &a.behind, &a.second);                                     \
    }
NT_GEMM_SM90_ADAPTER_TILES(NT_GEMM_SM90_ADAPTER_KERNEL)
