/* y = x w^T with weights of integers in groups (NT_WEIGHT_INT4, NT_WEIGHT_INT8) on tensor cores, for few rows: as
 * gemm.cu, a quarter or half of the bytes.
 *
 * A block computes a tile of y. Each of 4 slots, one warp for a panel of 32 columns, takes every fourth group of 128 k;
 * a slot has a ring of stages of 64 k: lines of x in 128 bytes, swizzled as in gemm_tile.cuh, and half a block of
 * weights, which become registers of bf16 pairs as gemm_quant.cuh says. Only a slot's own warps copy for it, so slots
 * never wait for each other.
 * A group's sum is made of integer q in f32; scale * sum is added to the accumulators at its end, one fma for 128 k.
 * Order of sums: in a slot groups ascending, in a group k in steps of 16 ascending from zero; then slots 0 + 1 + 2 + 3.
 * nt_gemm_int?_adapter_*: each slot goes on with every fourth step of an adapter's product, of bf16, before that.
 * Registers (ptxas, no spills): up to 80, 128, 242 a thread at 16, 32, 64 rows; 97 to 161 KB of shared memory.
 * Layout: x and y as gemm.cu's; w in panels of 32 rows, each of blocks of 32 x 128 integers with their scales (ops.h).
 * Roofline: 4.125 or 8.125 bits a weight, 2 n_tok n k FLOP: bandwidth up to about 32 rows (int8: 64) on H100, expected
 * 75-80 % of copy bandwidth from 16 MB of packed weights on: 28 to 40 KB of weights a multiprocessor are under way, and
 * x comes from L2 once per 32 or 64 columns (at 64 rows more bytes than the weights, which then bounds small matrices).
 * Beyond that the rate of mma.sync bounds it; prefills are as fast as the 64 x 64 tile, at best half of gemm.cu. */
#include "gemm_epilogue.cuh"
#include "gemm_quant.cuh"

extern __shared__ __align__(128) char nt_gemm_quant_stages[];

template <class W_, int ROWS_, int COLS_, int STAGES_> struct nt_quant_tile {
    using W = W_;
    enum {
        ROWS = ROWS_,
        COLS = COLS_,
        STAGES = STAGES_,
        SLOTS = NT_GEMM_QUANT_SLOTS,
        DEPTH = NT_GEMM_QUANT_DEPTH,
        LINE = DEPTH * 2, /* bytes */
        CHUNKS = LINE / 16,
        STEPS = DEPTH / 16,
        M = ROWS / 16, /* mma tiles of a warp */
        N = NT_PANEL / 8,
        PANELS = COLS / NT_PANEL,
        SLOT_THREADS = NT_WARP * PANELS,
        THREADS = NT_GEMM_QUANT_THREADS(COLS),
        X_BYTES = ROWS * LINE,
        HALF = W::HALF, /* bytes of integers of half a group */
        W_BYTES = HALF + 2 * NT_PANEL,
        STAGE_BYTES = NT_GEMM_QUANT_SLOT_BYTES(HALF, ROWS, COLS),
        PASS_BYTES = 16 * NT_WARP,         /* of weights copied by one instruction of a warp */
        PASS_ROWS = SLOT_THREADS / CHUNKS, /* lines of x copied by one instruction of a slot */
        SUMS = M * N * 4,                  /* accumulators of a thread */
    };
    static_assert(LINE == 128, "the swizzle of lines");
    static_assert(HALF % PASS_BYTES == 0, "no lane is left out");
    static_assert(THREADS == SLOTS * SLOT_THREADS && ROWS % PASS_ROWS == 0, "no thread is left out");
    static_assert((SLOTS - 1) * SUMS * SLOT_THREADS * 4 <= SLOTS * STAGES * STAGE_BYTES,
                  "the sums of the slots fit where the stages were");
    static_assert(STAGE_BYTES == X_BYTES + PANELS * W_BYTES, "the launcher counts them all");
    static_assert(STAGE_BYTES % 16 == 0 && W::BLOCK % 16 == 0, "copies of 16 bytes");
};

/* What a thread copies, from stage to stage. */
struct nt_quant_copier {
    const nt_bf16 *x; /* its chunk of the slot's first line */
    const unsigned char *w;
    int32_t col; /* of x */
    int32_t lines;
    bool has_panel, x_aligned;
};

/* The slot's threads see each other's copies and are done with what they read. */
template <class T> NT_DEVICE void slot_barrier(int32_t slot) {
    if (T::PANELS == 1)
        __syncwarp();
    else
        nt_barrier(1 + slot, T::SLOT_THREADS);
}

/* Starts the copies of the stage with half h (0, 1) of a group; the next call is for the other half. */
template <class T>
NT_DEVICE void copy_stage(const struct nt_gemm_quant *a, struct nt_quant_copier *c, char *stage, int h) {
    const int32_t tid = (int32_t)threadIdx.x % T::SLOT_THREADS, line = tid / T::CHUNKS, chunk = tid % T::CHUNKS;
    const int left = nt_gemm_bytes_before(c->col, a->g.k);
#pragma unroll
    for (int i = 0; i < T::ROWS / T::PASS_ROWS; i++) {
        const int bytes = line + i * T::PASS_ROWS < c->lines ? left : 0;
        const nt_bf16 *from = bytes > 0 ? c->x + i * T::PASS_ROWS * a->g.ldx : a->g.x;
        const uint32_t at = nt_gemm_chunk_at<T>(line + i * T::PASS_ROWS, chunk);
        if (c->x_aligned) {
            nt_cp_async_16_zfill(nt_shared_address(stage) + at, from, bytes);
        } else {
            uint32_t pair[4];
#pragma unroll
            for (int j = 0; j < 4; j++) pair[j] = 4 * j < bytes ? ((const uint32_t *)from)[j] : 0;
            nt_store128(stage + at, make_uint4(pair[0], pair[1], pair[2], pair[3]));
        }
    }
    const uint32_t to = nt_shared_address(stage) + T::X_BYTES + (tid / NT_WARP) * T::W_BYTES;
    const int bytes = c->has_panel ? 16 : 0;
#pragma unroll
    for (int i = 0; i < T::HALF / T::PASS_BYTES; i++) {
        const int32_t w_chunk = i * NT_WARP + nt_lane();
        nt_cp_async_16_zfill(to + nt_quant_chunk_at<typename T::W>(w_chunk), c->w + 16 * w_chunk, bytes);
    }
    if (h == 1 && nt_lane() < 2 * NT_PANEL / 16)
        nt_cp_async_16_zfill(to + T::HALF + 16 * nt_lane(), c->w + T::HALF + 16 * nt_lane(), bytes);
    /* to the other half, or to the slot's next group */
    const int32_t cols = h == 0 ? T::DEPTH : T::DEPTH + (T::SLOTS - 1) * NT_INT4_GROUP;
    c->x += cols;
    c->col += cols;
    if (c->has_panel) c->w += h == 0 ? T::HALF : T::SLOTS * T::W::BLOCK - T::HALF;
}

/* sum += the product of a stage. */
template <class T> NT_DEVICE void multiply_stage(float sum[T::M][T::N][4], const char *stage, int32_t panel) {
    const char *from = stage + T::X_BYTES + panel * T::W_BYTES;
    const uint32_t x_tile = nt_shared_address(stage);
    typename T::W w;
#pragma unroll
    for (int s = 0; s < T::STEPS; s++) {
        uint32_t x[T::M][4];
        nt_quant_load_step(&w, from, s);
#pragma unroll
        for (int m = 0; m < T::M; m++)
            nt_ldmatrix_x4(x[m], x_tile + nt_gemm_chunk_at<T>(16 * m + (nt_lane() & 15), 2 * s + (nt_lane() >> 4)));
#pragma unroll
        for (int n = 0; n < T::N; n++) {
            const uint32_t b0 = nt_quant_step_pair(&w, n, s, 0), b1 = nt_quant_step_pair(&w, n, s, 1);
#pragma unroll
            for (int m = 0; m < T::M; m++) nt_mma_bf16(sum[m][n], x[m], b0, b1);
        }
    }
}

/* acc += scale * sum; sum = 0. */
template <class T>
NT_DEVICE void end_group(float acc[T::M][T::N][4], float sum[T::M][T::N][4], const char *stage, int32_t panel) {
    const char *scales = stage + T::X_BYTES + panel * T::W_BYTES + T::HALF + 4 * (nt_lane() & 3);
#pragma unroll
    for (int n = 0; n < T::N; n++) {
        const uint32_t pair = *(const uint32_t *)(scales + 16 * n);
        const float scale[2] = {nt_bf16_low(pair), nt_bf16_high(pair)};
#pragma unroll
        for (int m = 0; m < T::M; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                acc[m][n][i] = __fmaf_rn(scale[i & 1], sum[m][n][i], acc[m][n][i]);
                sum[m][n][i] = 0;
            }
    }
}

/* acc of slot 0 = the sums of all slots in their order. */
template <class T> NT_DEVICE void add_slots(float acc[T::M][T::N][4], int32_t slot) {
    float *parts = (float *)nt_gemm_quant_stages + (int32_t)threadIdx.x % T::SLOT_THREADS;
    float *flat = &acc[0][0][0];
    __syncthreads(); /* nobody reads stages any more */
    if (slot > 0) {
#pragma unroll
        for (int i = 0; i < T::SUMS; i++) parts[((slot - 1) * T::SUMS + i) * T::SLOT_THREADS] = flat[i];
    }
    __syncthreads();
    if (slot > 0) return;
    for (int s = 0; s < T::SLOTS - 1; s++) {
#pragma unroll
        for (int i = 0; i < T::SUMS; i++) flat[i] += parts[(s * T::SUMS + i) * T::SLOT_THREADS];
    }
}

template <class T> NT_DEVICE void sum_slot(const struct nt_gemm_quant *a, int32_t slot, int32_t m0, int32_t panel0,
                                           float acc[T::M][T::N][4]) {
    const int32_t tid = (int32_t)threadIdx.x % T::SLOT_THREADS, panel = tid / NT_WARP;
    const int32_t line = tid / T::CHUNKS, chunk = tid % T::CHUNKS, col = slot * NT_INT4_GROUP + 8 * chunk;
    const int32_t n_stage = 2 * ((a->n_group - slot + T::SLOTS - 1) / T::SLOTS);
    const bool has_panel = panel0 + panel < a->n_panel;
    struct nt_quant_copier c = {a->g.x + (m0 + line) * a->g.ldx + col,
                               has_panel ? a->data + ((int64_t)(panel0 + panel) * a->n_group + slot) * T::W::BLOCK
                                         : a->data,
                               col,
                               a->g.n_tok - m0,
                               has_panel,
                               a->g.ldx % 8 == 0 && nt_is_aligned16(a->g.x)};
    char *ring = nt_gemm_quant_stages + slot * T::STAGES * T::STAGE_BYTES;
    float sum[T::M][T::N][4] = {};
#pragma unroll
    for (int s = 0; s < T::STAGES - 1; s++) {
        if (s < n_stage) copy_stage<T>(a, &c, ring + s * T::STAGE_BYTES, s & 1);
        nt_cp_async_commit();
    }
    int32_t read = 0, fill = T::STAGES - 1;
    for (int32_t i = 0; i < n_stage; i++) {
        nt_cp_async_wait<T::STAGES - 2>();
        slot_barrier<T>(slot); /* stage i is there for the slot; it has read the one that is filled next */
        const int32_t next = i + T::STAGES - 1;
        if (next < n_stage) copy_stage<T>(a, &c, ring + fill * T::STAGE_BYTES, next & 1);
        nt_cp_async_commit();
        const char *stage = ring + read * T::STAGE_BYTES;
        multiply_stage<T>(sum, stage, panel);
        if (i & 1) end_group<T>(acc, sum, stage, panel);
        fill = read;
        read = read + 1 == T::STAGES ? 0 : read + 1;
    }
    nt_cp_async_wait<0>();
}

/* The pair of bf16 at an even column. */
NT_DEVICE uint32_t pair_at(const nt_bf16 *matrix, int64_t ld, int32_t row, int32_t rows, int32_t col, int32_t cols) {
    return row < rows && col < cols ? *(const uint32_t *)(matrix + row * ld + col) : 0;
}

/* acc += the slot's share of an adapter's product: every fourth step of 16. Ranks are small, so the fragments come
 * straight from memory. */
template <class T>
NT_DEVICE void add_adapter(const struct nt_gemm_adapter *b, int32_t n_tok, int32_t n_pad, int32_t slot,
                           int32_t m0, int32_t n0, float acc[T::M][T::N][4]) {
    const int32_t row = nt_lane() / 4, pair = 2 * (nt_lane() & 3);
    for (int32_t step = 16 * slot; step < b->k; step += 16 * T::SLOTS) {
        const int32_t k = step + pair;
        uint32_t w[T::N][2], x[T::M][4];
#pragma unroll
        for (int i = 0; i < 2 * T::N; i++)
            w[i / 2][i % 2] = pair_at(b->w, b->k_pad, n0 + i / 2 * 8 + row, n_pad, k + i % 2 * 8, b->k);
#pragma unroll
        for (int i = 0; i < 4 * T::M; i++)
            x[i / 4][i % 4] =
                pair_at(b->x, b->ldx, m0 + i / 4 * 16 + i % 2 * 8 + row, n_tok, k + i / 2 % 2 * 8, b->k);
#pragma unroll
        for (int m = 0; m < T::M; m++)
#pragma unroll
            for (int n = 0; n < T::N; n++) nt_mma_bf16(acc[m][n], x[m], w[n][0], w[n][1]);
    }
}

template <class T> NT_DEVICE void gemm_quant(const struct nt_gemm_quant *a, const struct nt_gemm_adapter *second) {
    int32_t m0, col_tile;
    nt_gemm_place(&a->g, &m0, &col_tile);
    m0 *= T::ROWS;
    const int32_t slot = nt_warp() / T::PANELS, panel0 = col_tile * T::PANELS;
    float acc[T::M][T::N][4] = {};
    sum_slot<T>(a, slot, m0, panel0, acc);
    if (second)
        add_adapter<T>(second, a->g.n_tok, NT_PANEL * a->n_panel, slot, m0,
                       NT_PANEL * (panel0 + nt_warp() % T::PANELS), acc);
    add_slots<T>(acc, slot);
    if (slot > 0) return;
    slot_barrier<T>(0); /* its warps have read the sums of the others */
    float *lines = (float *)nt_gemm_quant_stages + nt_warp() * 16 * NT_LINE(NT_PANEL);
#pragma unroll
    for (int m = 0; m < T::M; m++)
        nt_gemm_store_rows<T::N>(&a->g, second, lines, &acc[m][0][0], m0 + 16 * m, NT_PANEL * (panel0 + nt_warp()));
}

#define NT_GEMM_QUANT_KERNEL(type, rows, cols, stages)                                                                 \
    extern "C" __global__ void __launch_bounds__(NT_GEMM_QUANT_THREADS(cols))                                          \
        nt_gemm_##type##_##rows##x##cols(const struct nt_gemm_quant a) {                                               \
        gemm_quant<nt_quant_tile<nt_quant_##type, rows, cols, stages>>(&a, NULL);                                      \
    }
NT_GEMM_INT4_TILES(NT_GEMM_QUANT_KERNEL)
NT_GEMM_INT8_TILES(NT_GEMM_QUANT_KERNEL)

#define NT_GEMM_QUANT_ADAPTER_KERNEL(type, rows, cols, stages)                                                         \
    extern "C" __global__ void __launch_bounds__(NT_GEMM_QUANT_THREADS(cols), 1)                                       \
        nt_gemm_##type##_adapter_##rows##x##cols(const struct nt_gemm_quant_adapted a) {                               \
        gemm_quant<nt_quant_tile<nt_quant_##type, rows, cols, stages>>(&a.own, &a.second);                             \
    }
NT_GEMM_INT4_ADAPTER_TILES(NT_GEMM_QUANT_ADAPTER_KERNEL)
NT_GEMM_INT8_ADAPTER_TILES(NT_GEMM_QUANT_ADAPTER_KERNEL)
