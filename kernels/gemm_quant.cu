/* y = x w^T with weights of integers in groups (NT_WEIGHT_INT4, NT_WEIGHT_INT8) on tensor cores, for few rows: as
 * gemm.cu, a quarter or half of the bytes.
 *
 * A block computes a tile of y. Its slots, one warp for a panel of 32 columns, share out the parts of k; a slot has a
 * ring of stages of 64 k: lines of x in 128 bytes, swizzled as in gemm_tile.cuh, and half a block of weights, which
 * become registers of bf16 pairs as gemm_quant.cuh says: the A operand, 16 weight rows of an mma, and 8 tokens are B.
 * Only a slot's own warps copy for it, so slots never wait for each other until their sums are joined: 16 slots once,
 * fewer once a round, with the next round's stages under way.
 * A group's sum is made of integer q in f32; scale * sum is added to the part at its end, one fma for 128 k.
 * Order of sums: gemm_quant_cuda.h; in a group k in steps of 16 ascending from zero.
 * nt_gemm_int?_adapter_*: an adapter's product, of bf16, is a part of its own, the last one, summed by a warp a panel.
 * Registers (ptxas, no spills): 64 a thread at 8 rows, so that two blocks share a multiprocessor: 32 warps, as unpacking
 * is a chain of dependent instructions (with 4 to 8 warps an H200 reached 17 to 51 % of the copy bandwidth); 96 to 110 at
 * 16 rows, 128 to 153 at 32, up to 255 at 64.
 * Layout: x and y as gemm.cu's; w in panels of 32 rows, each of blocks of 32 x 128 integers with their scales (ops.h).
 * Roofline: 4.125 or 8.125 bits a weight, 2 n_tok n k FLOP: bandwidth up to about 32 rows (int8: 64) on H100, expected
 * 60-75 % of copy bandwidth from 16 MB of packed weights on: 32 to 64 KB of weights a multiprocessor are under way, and
 * x comes from L2 once per 32 or 64 columns (at 64 rows more bytes than the weights, which then bounds small matrices).
 * Unpacking and multiplying 2048 weights is about 165 instructions of a warp: at most 25 bytes of int4 a clock.
 * Beyond that the rate of mma.sync bounds it; prefills are as fast as the 64 x 64 tile, at best half of gemm.cu. On
 * compute capability 9.0 gemm_quant_sm90.cu takes them, in the same order of sums. */
#include "gemm_epilogue.cuh"
#include "gemm_quant.cuh"

extern __shared__ __align__(128) char nt_gemm_quant_shared[];

template <class W_, int ROWS_, int COLS_, int SLOTS_, int STAGES_, int TOGETHER_> struct nt_quant_tile {
    using W = W_;
    enum {
        ROWS = ROWS_,
        COLS = COLS_,
        SLOTS = SLOTS_,
        STAGES = STAGES_,
        TOGETHER = TOGETHER_, /* slots whose sums lie in shared memory at a time */
        DEPTH = NT_GEMM_QUANT_DEPTH,
        LINE = DEPTH * 2, /* bytes */
        CHUNKS = LINE / 16,
        STEPS = DEPTH / 16,
        M = NT_PANEL / 16, /* mma tiles of a warp: of weight rows, */
        N = ROWS / 8,      /* of tokens */
        PANELS = COLS / NT_PANEL,
        SLOT_THREADS = NT_WARP * PANELS,
        THREADS = NT_GEMM_QUANT_THREADS(COLS, SLOTS),
        X_BYTES = ROWS * LINE,
        HALF = W::HALF, /* bytes of integers of half a group */
        W_BYTES = HALF + 2 * NT_PANEL,
        STAGE_BYTES = NT_GEMM_QUANT_STAGE(HALF, ROWS, COLS),
        SUMS_AT = NT_GEMM_QUANT_SUMS_AT(HALF, ROWS, COLS, SLOTS, STAGES),
        SUM = ROWS * NT_LINE(COLS), /* floats from the sums of a slot to those of the next */
        PASS_BYTES = 16 * NT_WARP,         /* of weights copied by one instruction of a warp */
        PASS_ROWS = SLOT_THREADS / CHUNKS, /* lines of x copied by one instruction of a slot */
        FOURS = (ROWS * COLS / 4 + THREADS - 1) / THREADS, /* of y's columns, of a thread that joins sums */
    };
    static_assert(LINE == 128, "the swizzle of lines");
    static_assert(HALF % PASS_BYTES == 0, "no lane is left out");
    static_assert(ROWS % PASS_ROWS == 0 && (PASS_ROWS % 8 == 0 || 8 % PASS_ROWS == 0), "no thread is left out");
    static_assert(STAGE_BYTES == X_BYTES + PANELS * W_BYTES && NT_GEMM_QUANT_SUMS(ROWS, COLS, TOGETHER) == TOGETHER * SUM * 4,
                  "the launcher counts them all");
    static_assert(STAGE_BYTES % 16 == 0 && W::BLOCK % 16 == 0 && SUMS_AT % 16 == 0, "copies of 16 bytes");
    static_assert(SLOTS % TOGETHER == 0 && NT_GEMM_QUANT_PARTS % SLOTS == 0, "whole turns, whole rounds");
};

/* What a thread copies, from group to group of its slot. */
struct nt_quant_copier {
    const nt_bf16 *x; /* its chunk of its first line */
    const unsigned char *w;
    int32_t lines;      /* of x, from its first one on */
    int32_t group, end; /* which comes next; where its part ends */
};

/* The slot's threads see each other's copies and are done with what they read. */
template <class T> NT_DEVICE void slot_barrier(int32_t slot) {
    if (T::PANELS == 1)
        __syncwarp();
    else
        nt_barrier(1 + slot, T::SLOT_THREADS);
}

/* Panels behind the last one are that one again: nobody stores their columns. */
template <class T>
NT_DEVICE struct nt_quant_copier copier_of(const struct nt_gemm_quant *a, int32_t slot, int32_t m0, int32_t panel0) {
    const int32_t tid = (int32_t)threadIdx.x % T::SLOT_THREADS, line = tid / T::CHUNKS;
    const int32_t panel = min(panel0 + tid / NT_WARP, a->n_panel - 1), group = slot * nt_quant_part_groups(a->n_group);
    struct nt_quant_copier c = {
        a->g.x + (m0 + line) * a->g.ldx + group * NT_INT4_GROUP + 8 * (tid % T::CHUNKS),
        a->data + ((int64_t)panel * a->n_group + group) * T::W::BLOCK + 16 * nt_lane(),
        a->g.n_tok - m0 - line, group, group + nt_quant_part_groups(a->n_group)};
    return c;
}

/* The same of rows that are not aligned, one pair at a time. */
NT_DEVICE void copy_pairs(char *to, const nt_bf16 *from, int bytes) {
    uint32_t pair[4];
#pragma unroll
    for (int j = 0; j < 4; j++) pair[j] = 4 * j < bytes ? ((const uint32_t *)from)[j] : 0;
    nt_store128(to, make_uint4(pair[0], pair[1], pair[2], pair[3]));
}

/* The thread's chunks of x of half h of a group. */
template <class T>
NT_DEVICE void copy_tokens(const struct nt_gemm_quant *a, const struct nt_quant_copier *c, int h, char *stage) {
    const int32_t tid = (int32_t)threadIdx.x % T::SLOT_THREADS, line = tid / T::CHUNKS, chunk = tid % T::CHUNKS;
    const int left = nt_gemm_bytes_before(c->group * NT_INT4_GROUP + h * T::DEPTH + 8 * chunk, a->g.k);
    const nt_bf16 *from = c->x + h * T::DEPTH;
    if (a->g.ldx % 8 == 0 && nt_is_aligned16(a->g.x)) {
#pragma unroll
        for (int i = 0; i < T::ROWS / T::PASS_ROWS; i++) {
            const int bytes = i * T::PASS_ROWS < c->lines ? left : 0;
            nt_cp_async_16_zfill(nt_shared_address(stage) + nt_gemm_chunk_at<T>(line + i * T::PASS_ROWS, chunk),
                                 bytes > 0 ? from + i * T::PASS_ROWS * a->g.ldx : a->g.x, bytes);
        }
        return;
    }
#pragma unroll 1
    for (int32_t i = 0; i < T::ROWS; i += T::PASS_ROWS)
        copy_pairs(stage + nt_gemm_chunk_at<T>(line + i, chunk), from + i * a->g.ldx, i < c->lines ? left : 0);
}

/* The warp's weights of half h of a group, and behind the second half the group's scales. */
template <class T> NT_DEVICE void copy_weights(const struct nt_quant_copier *c, int h, char *stage) {
    const int32_t warp = (int32_t)threadIdx.x % T::SLOT_THREADS / NT_WARP;
    const uint32_t to = nt_shared_address(stage) + T::X_BYTES + warp * T::W_BYTES;
#pragma unroll
    for (int i = 0; i < T::HALF / T::PASS_BYTES; i++)
        nt_cp_async_16(to + nt_quant_chunk_at<typename T::W>(i * NT_WARP + nt_lane()),
                       c->w + h * T::HALF + i * T::PASS_BYTES);
    if (h == 1 && nt_lane() < 2 * NT_PANEL / 16)
        nt_cp_async_16(to + T::HALF + 16 * nt_lane(), c->w + 2 * T::HALF);
}

template <class T> NT_DEVICE char *stage_at(int32_t slot, int32_t i) {
    return nt_gemm_quant_shared + (slot * T::STAGES + i) * T::STAGE_BYTES;
}

/* Starts the copies of the next stage, if there is one, half h of a group; a group of copies in any case. ahead: its
 * weights are on their way. */
template <class T>
NT_DEVICE void copy_stage(const struct nt_gemm_quant *a, struct nt_quant_copier *c, int h, char *stage,
                          bool ahead = false) {
    if (c->group < a->n_group) {
        copy_tokens<T>(a, c, h, stage);
        if (!ahead) copy_weights<T>(c, h, stage);
        if (h == 1) {
            const bool turns = c->group + 1 == c->end; /* on to the slot's next part */
            const int32_t groups = turns ? 1 + (T::SLOTS - 1) * nt_quant_part_groups(a->n_group) : 1;
            c->group += groups;
            c->x += groups * NT_INT4_GROUP;
            c->w += groups * T::W::BLOCK;
            if (turns) c->end += T::SLOTS * nt_quant_part_groups(a->n_group);
        }
    }
    nt_cp_async_commit();
}

/* The B fragments of 8 tokens by 2 steps, or of 16 tokens by one, of all tokens and step s (even, if there are 8). */
template <class T> NT_DEVICE void load_tokens(uint32_t x[T::N][2][2], uint32_t x_tile, int s) {
    uint32_t four[4];
    if constexpr (T::N == 1) {
        nt_ldmatrix_x4(four, x_tile + nt_gemm_chunk_at<T>(nt_lane() & 7, 2 * s + nt_lane() / 8));
        x[0][0][0] = four[0], x[0][0][1] = four[1], x[0][1][0] = four[2], x[0][1][1] = four[3];
    } else {
#pragma unroll
        for (int n = 0; n < T::N; n += 2) {
            const int32_t row = 8 * n + (nt_lane() & 7) + (nt_lane() / 16) * 8;
            nt_ldmatrix_x4(four, x_tile + nt_gemm_chunk_at<T>(row, 2 * s + (nt_lane() / 8 & 1)));
            x[n][0][0] = four[0], x[n][0][1] = four[1], x[n + 1][0][0] = four[2], x[n + 1][0][1] = four[3];
        }
    }
}

/* sum += the product of a stage. */
template <class T> NT_DEVICE void multiply_stage(float sum[T::M][T::N][4], const char *stage, int32_t panel) {
    const char *from = stage + T::X_BYTES + panel * T::W_BYTES;
    typename T::W w;
    uint32_t x[T::N][2][2]; /* [token / 8][step, if N is 1][register] */
#pragma unroll
    for (int s = 0; s < T::STEPS; s++) {
        const int odd = T::N == 1 ? s & 1 : 0;
        nt_quant_load_step(&w, from, s);
        if (odd == 0) load_tokens<T>(x, nt_shared_address(stage), s);
#pragma unroll
        for (int m = 0; m < T::M; m++) {
            const uint32_t rows[4] = {nt_quant_step_pair(&w, 2 * m, s, 0), nt_quant_step_pair(&w, 2 * m + 1, s, 0),
                                      nt_quant_step_pair(&w, 2 * m, s, 1), nt_quant_step_pair(&w, 2 * m + 1, s, 1)};
#pragma unroll
            for (int n = 0; n < T::N; n++) nt_mma_bf16(sum[m][n], rows, x[n][odd][0], x[n][odd][1]);
        }
    }
}

/* part += scale * sum; sum = 0. */
template <class T>
NT_DEVICE void end_group(float part[T::M][T::N][4], float sum[T::M][T::N][4], const char *stage, int32_t panel) {
    const char *scales = stage + T::X_BYTES + panel * T::W_BYTES + T::HALF;
#pragma unroll
    for (int m = 0; m < T::M; m++) {
        const int32_t row = 16 * m + nt_lane() / 4;
        const float scale[2] = {nt_quant_scale(scales, row), nt_quant_scale(scales, row + 8)};
#pragma unroll
        for (int n = 0; n < T::N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                part[m][n][i] = __fmaf_rn(scale[i / 2], sum[m][n][i], part[m][n][i]);
                sum[m][n][i] = 0;
            }
    }
}

/* part += the slot's next part, number `own`, from stage *read of its ring on; one that does not exist is nothing. */
template <class T>
NT_DEVICE void sum_part(const struct nt_gemm_quant *a, struct nt_quant_copier *c, int32_t *read, int32_t slot,
                        int32_t own, float part[T::M][T::N][4]) {
    const int32_t panel = (int32_t)threadIdx.x % T::SLOT_THREADS / NT_WARP, per_part = nt_quant_part_groups(a->n_group);
    const int32_t n_group = min(per_part, a->n_group - own * per_part);
    float sum[T::M][T::N][4] = {};
#pragma unroll 1
    for (int32_t i = 0; i < n_group; i++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const char *stage = stage_at<T>(slot, *read);
            nt_cp_async_wait<T::STAGES - 2>();
            slot_barrier<T>(slot); /* the stage is there for the slot; it has read the one that is filled next */
            copy_stage<T>(a, c, (h + T::STAGES - 1) & 1, stage_at<T>(slot, *read == 0 ? T::STAGES - 1 : *read - 1));
            multiply_stage<T>(sum, stage, panel);
            if (h == 1) end_group<T>(part, sum, stage, panel);
            *read = *read + 1 == T::STAGES ? 0 : *read + 1;
        }
    }
}

template <class T> NT_DEVICE float *sums(void) {
    return (float *)(nt_gemm_quant_shared + T::SUMS_AT);
}
/* Where the 4 columns lie, of a tile of sums or lines, that are this thread's i-th; negative: there are none. */
template <class T> NT_DEVICE int32_t four_at(int i) {
    const int32_t four = (int32_t)threadIdx.x + i * T::THREADS, per_row = T::COLS / 4;
    return four < T::ROWS * per_row ? four / per_row * NT_LINE(T::COLS) + four % per_row * 4 : -1;
}

/* A warp's part to place `at` of the sums, a row a token. */
template <class T> NT_DEVICE void put_part(const float part[T::M][T::N][4], int32_t at) {
    const int32_t panel = (int32_t)threadIdx.x % T::SLOT_THREADS / NT_WARP;
    float *to = sums<T>() + at * T::SUM + NT_PANEL * panel;
#pragma unroll
    for (int m = 0; m < T::M; m++) nt_lines_put_turned<T::N, T::COLS>(to + 16 * m, &part[m][0][0]);
}

/* total, of the tile shared out over the threads, += `count` sums in their order. */
template <class T> NT_DEVICE void add_parts(float4 total[T::FOURS], int32_t count) {
#pragma unroll
    for (int i = 0; i < T::FOURS; i++) {
        const int32_t at = four_at<T>(i);
        for (int32_t p = 0; p < count && at >= 0; p++) {
            const float4 part = nt_load_f4(sums<T>() + p * T::SUM + at);
            total[i] = make_float4(total[i].x + part.x, total[i].y + part.y, total[i].z + part.z, total[i].w + part.w);
        }
    }
}

/* total += the parts of a round, part0 that of slot 0; parts at or after n_part do not exist. */
template <class T>
NT_DEVICE void join_round(const float part[T::M][T::N][4], int32_t slot, int32_t part0, int32_t n_part,
                          float4 total[T::FOURS]) {
    for (int32_t from = 0; from < T::SLOTS && part0 + from < n_part; from += T::TOGETHER) {
        __syncthreads(); /* nobody reads sums any more, or the rings where they come */
        if (slot >= from && slot < from + T::TOGETHER && part0 + slot < n_part) put_part<T>(part, slot - from);
        __syncthreads();
        add_parts<T>(total, min((int32_t)T::TOGETHER, n_part - part0 - from));
    }
}

/* total += an adapter's product. */
template <class T>
NT_DEVICE void join_adapter(const struct nt_gemm_quant *a, const struct nt_gemm_adapter *second, int32_t m0,
                            int32_t panel0, float4 total[T::FOURS]) {
    __syncthreads();
    if (nt_warp() < T::PANELS) {
        float part[T::M][T::N][4];
        nt_quant_sum_adapter<T::M, T::N>(second, a->g.n_tok, NT_PANEL * a->n_panel, m0, NT_PANEL * (panel0 + nt_warp()),
                                         &part[0][0][0]);
        put_part<T>(part, 0);
    }
    __syncthreads();
    add_parts<T>(total, 1);
}

/* Fills the slot's ring but for a stage; the first group's weights are on their way when it waits for the launch before. */
template <class T>
NT_DEVICE void fill_ring(const struct nt_gemm_quant *a, struct nt_quant_copier *c, int32_t slot) {
    const int n_ahead = T::STAGES > 2 ? 2 : 1;
#pragma unroll
    for (int s = 0; s < n_ahead; s++)
        if (c->group < a->n_group) copy_weights<T>(c, s, stage_at<T>(slot, s));
    nt_launch_begin();
#pragma unroll
    for (int s = 0; s < T::STAGES - 1; s++) copy_stage<T>(a, c, s & 1, stage_at<T>(slot, s), s < n_ahead);
}

/* total = the tile; -0 is what changes no bit of the first part. */
template <class T>
NT_DEVICE void sum_parts(const struct nt_gemm_quant *a, int32_t m0, int32_t panel0, float4 total[T::FOURS]) {
    const int32_t per_part = nt_quant_part_groups(a->n_group), n_part = (a->n_group + per_part - 1) / per_part;
    const int32_t slot = nt_warp() / T::PANELS;
    struct nt_quant_copier c = copier_of<T>(a, slot, m0, panel0);
    int32_t read = 0;
#pragma unroll
    for (int i = 0; i < T::FOURS; i++) total[i] = make_float4(-0.0f, -0.0f, -0.0f, -0.0f);
    fill_ring<T>(a, &c, slot);
    for (int32_t part0 = 0; part0 < n_part; part0 += T::SLOTS) {
        float part[T::M][T::N][4] = {};
        sum_part<T>(a, &c, &read, slot, part0 + slot, part);
        join_round<T>(part, slot, part0, n_part, total);
        if (T::SLOTS == NT_GEMM_QUANT_PARTS) break; /* the compiler sees that there is one round */
    }
    nt_cp_async_wait<0>();
}

/* The tile leaves through lines, 8 rows of them a warp. */
template <class T>
NT_DEVICE void store_tile(const struct nt_gemm_quant *a, const struct nt_gemm_adapter *second, int32_t m0,
                          int32_t panel0, const float4 total[T::FOURS]) {
    float *lines = sums<T>();
    __syncthreads(); /* nobody reads sums any more */
#pragma unroll
    for (int i = 0; i < T::FOURS; i++)
        if (four_at<T>(i) >= 0) nt_store_f4(lines + four_at<T>(i), total[i]);
    __syncthreads();
    for (int32_t row = 8 * nt_warp(); row < T::ROWS; row += 8 * (T::THREADS / NT_WARP))
        nt_gemm_store_lines<8, T::COLS>(&a->g, second, lines + row * NT_LINE(T::COLS), m0 + row, NT_PANEL * panel0);
}

template <class T> NT_DEVICE void gemm_quant(const struct nt_gemm_quant *a, const struct nt_gemm_adapter *second) {
    int32_t row_tile, col_tile;
    float4 total[T::FOURS];
    nt_gemm_place(&a->g, &row_tile, &col_tile);
    sum_parts<T>(a, T::ROWS * row_tile, T::PANELS * col_tile, total);
    nt_gemm_place(&a->g, &row_tile, &col_tile); /* not kept in registers meanwhile */
    if (second) join_adapter<T>(a, second, T::ROWS * row_tile, T::PANELS * col_tile, total);
    store_tile<T>(a, second, T::ROWS * row_tile, T::PANELS * col_tile, total);
}

#define NT_GEMM_QUANT_KERNEL(type, rows, cols, slots, stages, together, blocks)                                        \
    extern "C" __global__ void __launch_bounds__(NT_GEMM_QUANT_THREADS(cols, slots), blocks)                           \
        nt_gemm_##type##_##rows##x##cols(const struct nt_gemm_quant a) {                                               \
        gemm_quant<nt_quant_tile<nt_quant_##type, rows, cols, slots, stages, together>>(&a, NULL);                     \
    }
NT_GEMM_INT4_TILES(NT_GEMM_QUANT_KERNEL)
NT_GEMM_INT8_TILES(NT_GEMM_QUANT_KERNEL)

#define NT_GEMM_QUANT_ADAPTER_KERNEL(type, rows, cols, slots, stages, together, blocks)                                \
    extern "C" __global__ void __launch_bounds__(NT_GEMM_QUANT_THREADS(cols, slots), blocks)                           \
        nt_gemm_##type##_adapter_##rows##x##cols(const struct nt_gemm_quant_adapted a) {                               \
        gemm_quant<nt_quant_tile<nt_quant_##type, rows, cols, slots, stages, together>>(&a.own, &a.second);            \
    }
NT_GEMM_INT4_ADAPTER_TILES(NT_GEMM_QUANT_ADAPTER_KERNEL)
NT_GEMM_INT8_ADAPTER_TILES(NT_GEMM_QUANT_ADAPTER_KERNEL)
