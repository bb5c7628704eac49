/* y = x w^T on compute capability 9.0: TMA, mbarriers and wgmma, warp-specialised. Spec: ops.h; epilogues: gemm.cu's.
 *
 * A block computes a tile of y. One elected thread of the last warp(group) copies stages of x and w by TMA into a ring;
 * each of rows / 64 warpgroups multiplies 64 rows by all columns of the tile (m64nNk16, both operands from shared
 * memory) with one group of four wgmma under way while the next is issued. `full` of a stage ends when its bytes
 * are there, `empty` when every multiplying warp has seen its wgmma end. A line of a stage is 64 k = 128 bytes with the
 * 128-byte swizzle of TMA and wgmma: no bank conflicts. Rows beyond n_tok, n_pad and k arrive as zeros.
 * Registers (ptxas, no spills): 42, 58, 90 a thread at 32, 64, 128 columns; at 256 there are 128 accumulators: 168, and
 * the copying warpgroup gives its own away (240 and 24).
 * Small n_tok: 64 rows of an instruction are mostly zeros, but the weights pass at 64 bytes a cycle and multiprocessor,
 * four times what DRAM delivers; the zeros cost no traffic.
 * Roofline: 2 n k bytes of weights, 2 n_tok n k FLOP; bandwidth up to about 295 rows, expected 80-85 % of copy
 * bandwidth from 16 MB of weights on. Beyond: 128 x 256 x 64 needs 1024 cycles of the tensor cores and reads 80 bytes
 * of shared memory a cycle of the 128 there are; expected 65-75 % of the dense rate, the rest being clocks, the
 * epilogue (not overlapped: one tile a block) and the last wave. */
#include "gemm_sm90_cuda.h"
#include "gemm_tile.cuh"
#include "gemm_epilogue.cuh"

extern __shared__ __align__(1024) char nt_gemm_sm90_stages[];

template <int ROWS_, int COLS_, int STAGES_> struct nt_sm90_tile {
    enum {
        ROWS = ROWS_,
        COLS = COLS_,
        STAGES = STAGES_,
        GROUPS = ROWS / 64,
        LINE = NT_GEMM_SM90_DEPTH * 2, /* bytes */
        STAGE_BYTES = (ROWS + COLS) * LINE,
        MULTIPLIERS = 4 * GROUPS, /* warps */
        THREADS = NT_GEMM_SM90_THREADS(ROWS, COLS),
        GIVES_REGISTERS = COLS > 128, /* 128 accumulators: 2 x 128 x 240 + 128 x 24 registers */
    };
    static_assert(ROWS == 64 || ROWS == 128, "one or two warpgroups");
    static_assert(LINE == 128, "the swizzle of the tensor maps and descriptors");
    static_assert(STAGES >= 2 && 2 * STAGES * 8 <= NT_GEMM_SM90_BARRIERS, "two mbarriers a stage");
    static_assert(COLS % NT_PANEL == 0 && COLS <= 256, "one instruction spans the columns; gate and up in one thread");
};

/* The mbarriers lie behind the stages. */
template <class T> NT_DEVICE uint32_t full_at(uint32_t base, int32_t stage) {
    return base + T::STAGES * T::STAGE_BYTES + 8 * stage;
}
template <class T> NT_DEVICE uint32_t empty_at(uint32_t base, int32_t stage) {
    return full_at<T>(base, T::STAGES + stage);
}

template <class T> NT_DEVICE void init_barriers(const struct nt_gemm_sm90 *a, uint32_t base) {
    nt_tensor_map_prefetch(&a->x);
    nt_tensor_map_prefetch(&a->w);
    for (int32_t s = 0; s < T::STAGES; s++) {
        nt_mbarrier_init(full_at<T>(base, s), 1);
        nt_mbarrier_init(empty_at<T>(base, s), T::MULTIPLIERS);
    }
    nt_mbarrier_init_fence();
}

/* One thread. */
template <class T>
NT_DEVICE void copy_stages(const struct nt_gemm_sm90 *a, uint32_t base, int32_t m0, int32_t n0, int32_t n_k) {
    int32_t stage = 0;
    uint32_t phase = 0;
    for (int32_t kt = 0; kt < n_k; kt++) {
        const uint32_t to = base + (uint32_t)(stage * T::STAGE_BYTES), full = full_at<T>(base, stage);
        nt_mbarrier_wait(empty_at<T>(base, stage), phase ^ 1);
        nt_mbarrier_arrive_expect(full, T::STAGE_BYTES);
        nt_tensor_copy_2d(to, &a->x, kt * NT_GEMM_SM90_DEPTH, m0, full);
        nt_tensor_copy_2d(to + T::ROWS * T::LINE, &a->w, kt * NT_GEMM_SM90_DEPTH, n0, full);
        if (++stage == T::STAGES) {
            stage = 0;
            phase ^= 1;
        }
    }
}

/* A warpgroup: acc = its 64 rows by the tile's columns. */
template <class T> NT_DEVICE void multiply_stages(float *acc, uint32_t base, int32_t group, int32_t n_k) {
    int32_t stage = 0, before = T::STAGES - 1;
    uint32_t phase = 0;
    for (int32_t kt = 0; kt < n_k; kt++) {
        const uint32_t at = base + (uint32_t)(stage * T::STAGE_BYTES);
        const uint64_t x = nt_wgmma_tile(at + (uint32_t)(group * 64 * T::LINE));
        const uint64_t w = nt_wgmma_tile(at + T::ROWS * T::LINE);
        nt_mbarrier_wait(full_at<T>(base, stage), phase);
        nt_wgmma_fence();
#pragma unroll
        for (int s = 0; s < NT_GEMM_SM90_DEPTH / 16; s++)
            nt_wgmma_bf16<T::COLS>(acc, x + 2 * s, w + 2 * s, kt > 0 || s > 0);
        nt_wgmma_commit();
        nt_wgmma_wait<1>(); /* the stage before this one has been read */
        if (kt > 0 && nt_lane() == 0) nt_mbarrier_arrive(empty_at<T>(base, before));
        before = stage;
        if (++stage == T::STAGES) {
            stage = 0;
            phase ^= 1;
        }
    }
    nt_wgmma_wait<0>();
    nt_wgmma_settle<T::COLS / 2>(acc);
}

template <class T> NT_DEVICE void store_rows(const struct nt_gemm_cuda *g, const float *acc, int32_t row0, int32_t n0) {
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
            nt_gemm_store_panel(g, v, row, n0 + NT_PANEL * p);
        }
    }
}

template <class T> NT_DEVICE void gemm_sm90(const struct nt_gemm_sm90 *a) {
    const uint32_t base = nt_shared_address(nt_gemm_sm90_stages);
    const int32_t warp = __shfl_sync(NT_ALL_LANES, nt_warp(), 0); /* the compiler sees that a warp takes one way */
    const int32_t n_k = (a->g.k + NT_GEMM_SM90_DEPTH - 1) / NT_GEMM_SM90_DEPTH;
    int32_t m0, n0;
    nt_gemm_place(&a->g, &m0, &n0);
    m0 *= T::ROWS;
    n0 *= T::COLS;
    if (threadIdx.x == 0) init_barriers<T>(a, base);
    __syncthreads();
    if (warp >= T::MULTIPLIERS) {
        if (T::GIVES_REGISTERS) nt_registers_lower<24>();
        if (warp == T::MULTIPLIERS && nt_elect()) copy_stages<T>(a, base, m0, n0, n_k);
        return;
    }
    if (T::GIVES_REGISTERS) nt_registers_raise<240>();
    float acc[T::COLS / 2];
    multiply_stages<T>(acc, base, warp / 4, n_k);
    store_rows<T>(&a->g, acc, m0 + 16 * warp, n0);
}

#define NT_GEMM_SM90_KERNEL(rows, cols, stages, blocks)                                                                \
    extern "C" __global__ void __launch_bounds__(NT_GEMM_SM90_THREADS(rows, cols), blocks)                             \
        nt_gemm_sm90_##rows##x##cols(const __grid_constant__ struct nt_gemm_sm90 a) {                                  \
        gemm_sm90<nt_sm90_tile<rows, cols, stages>>(&a);                                                               \
    }
NT_GEMM_SM90_TILES(NT_GEMM_SM90_KERNEL)
