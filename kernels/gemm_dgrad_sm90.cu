/* dx = dy w (+ dy2 w2) on compute capability 9.0: TMA, mbarriers and wgmma, warp-specialised. Spec: ops_bwd.h.
 *
 * A block computes a tile of dx (gemm_sm90_tile.cuh); one kernel per row of NT_GEMM_DGRAD_SM90_TILES. The sum runs over
 * w's rows, which TMA copies as they lie and wgmma turns (B MN-major), so no second packing of weights exists; an
 * adapter's rows follow in the same ring. Order of sums: gemm_dgrad.cu's, n in steps of 16 ascending, then dy2's.
 * Registers (ptxas, no spills): 102 and 160 a thread at 64 and 128 columns; at 256 as in gemm_sm90.cu 168, of which the
 * copying warpgroup gives its own away (240 and 24).
 * Layout: as gemm_dgrad.cu; operands come by tensor maps, so rows of dy and dy2 must be 16-byte aligned. A stage has
 * [rows, 64] of dy and a box [64, 64] of w for each 64 columns, all in lines of 128 bytes.
 * Roofline: 2 n k bytes of weights, 2 n_tok n of dy, 4 or 2 n_tok k of dx; 2 n_tok n k FLOP. Many rows: as many bytes of
 * shared memory and cycles of the tensor cores as gemm_sm90.cu, which reaches 78 % of the dense rate on an H200; f32 sums
 * that are added to are read too: expected 70-76 % (gemm_dgrad.cu there, measured: 43 %). An adapter's own (8 to 64
 * columns): bytes of dy bound it, but few multiprocessors have a tile and each fetches some 40 bytes a cycle: expected
 * 20-35 % of copy bandwidth at 2048 rows (gemm_dgrad.cu there, measured: 11 %). */
#include "gemm_dgrad_sm90_cuda.h"
#include "gemm_sm90_block.cuh"

extern __shared__ __align__(1024) char nt_gemm_dgrad_sm90_stages[];

#define NT_GEMM_DGRAD_SM90_KERNEL(rows, cols, stages, blocks)                                                          \
    extern "C" __global__ void __launch_bounds__(NT_GEMM_SM90_THREADS(rows, cols), blocks)                             \
        nt_gemm_dgrad_sm90_##rows##x##cols(const __grid_constant__ struct nt_gemm_dgrad_sm90 a) {                      \
        nt_sm90_block<nt_sm90_tile<rows, cols, stages, true>>(&a.g, &a.own, &a.behind, a.k2, NULL,                     \
                                                              nt_gemm_dgrad_sm90_stages);                              \
    }
NT_GEMM_DGRAD_SM90_TILES(NT_GEMM_DGRAD_SM90_KERNEL)
