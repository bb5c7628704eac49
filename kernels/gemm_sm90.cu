/* y = x w^T on compute capability 9.0: TMA, mbarriers and wgmma, warp-specialised. Spec: ops.h; epilogues: gemm.cu's.
 *
 * A block computes a tile of y, or one of 256 columns after the other (gemm_sm90_block.cuh, gemm_sm90_tile.cuh); one
 * kernel per row of NT_GEMM_SM90_TILES, and with an adapter's product behind and pre-activations kept one per row of
 * NT_GEMM_SM90_ADAPTER_TILES.
 * Registers (ptxas, no spills): 70, 102, 160 a thread at 32, 64, 128 columns, what y is added to among them; at 256
 * there are 128 accumulators: 168, and the copying warpgroup gives its own away (240 and 24).
 * Small n_tok: 64 rows of an instruction are mostly zeros, but the weights pass at 64 bytes a cycle and multiprocessor,
 * four times what DRAM delivers; the zeros are cleared in shared memory, once.
 * Layout: as gemm.cu; both operands come by tensor maps, so x and w must be 16-byte aligned.
 * Roofline: 2 n k bytes of weights, 2 n_tok n k FLOP; bandwidth up to about 295 rows: expected, as measured on an H200,
 * 60-68 % of copy bandwidth at 33 to 50 MB of weights, 85-94 % from 117 MB on. Beyond: 128 x 256 x 64 needs 1024 cycles
 * of the tensor cores and reads 80 bytes of shared memory a cycle of the 128 there are; 78 % of the dense rate at 8192 x
 * 8192 x 8192, measured when a block had one tile and its epilogue stood alone, the rest being clocks and the last wave.
 * Gates of a 128 x 256 tile: 2 ex2 or rcp for each of 16384, 16 a cycle: 2050 cycles, some 2400 with what goes before and
 * after, of 65536 at k 4096; as much as one warpgroup can be ahead of the other, three stages, is hidden. */
#include "gemm_sm90_block.cuh"

extern __shared__ __align__(1024) char nt_gemm_sm90_stages[];

#define NT_GEMM_SM90_KERNEL(rows, cols, stages, blocks)                                                                \
    extern "C" __global__ void __launch_bounds__(NT_GEMM_SM90_THREADS(rows, cols), blocks)                             \
        nt_gemm_sm90_##rows##x##cols(const __grid_constant__ struct nt_gemm_sm90 a) {                                  \
        nt_sm90_block<nt_sm90_tile<rows, cols, stages>>(&a.g, &a.operands, NULL, 0, NULL, nt_gemm_sm90_stages);        \
    }
NT_GEMM_SM90_TILES(NT_GEMM_SM90_KERNEL)

#define NT_GEMM_SM90_ADAPTER_KERNEL(rows, cols, stages, blocks)                                                        \
    extern "C" __global__ void __launch_bounds__(NT_GEMM_SM90_THREADS(rows, cols), blocks)                             \
        nt_gemm_sm90_adapter_##rows##x##cols(const __grid_constant__ struct nt_gemm_sm90_adapted a) {                  \
        nt_sm90_block<nt_sm90_tile<rows, cols, stages>>(&a.own.g, &a.own.operands, &a.behind, a.second.k, &a.second,   \
                                                        nt_gemm_sm90_stages);                                          \
    }
NT_GEMM_SM90_ADAPTER_TILES(NT_GEMM_SM90_ADAPTER_KERNEL)
