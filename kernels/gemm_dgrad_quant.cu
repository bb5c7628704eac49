/* dx = dy w (+ dy2 w2) on tensor cores with weights of integers in groups (NT_WEIGHT_INT4, NT_WEIGHT_INT8): as
 * gemm_dgrad.cu, a quarter or half of the bytes.
 *
 * The numbers are bf16(scale * q), and order of sums, tiles and store are gemm_dgrad.cu's: the bits are those of the same
 * product with the weights unpacked before. Rings hold dy and blocks as they are packed; while a stage is multiplied, the
 * next one is unpacked into one of two buffers that lie as a stage of bf16 weights does, one barrier a stage.
 * Integers become registers of bf16 pairs as gemm_quant.cuh says, one more multiplication scales a pair, rounded once; a
 * pair is two neighbouring k of one row, as it lies in the buffer, and a warp's stores touch all banks once.
 * An adapter's rows follow in gemm_dgrad.cu's own ring, when this one has run dry.
 * Layout: w in panels of 32 rows, each of blocks of 32 x 128 integers with their scales (ops.h, pack.c).
 * Roofline: 4.125 or 8.125 bits a weight, 2 n_tok n of dy, 4 or 2 n_tok k of dx; 2 n_tok n k FLOP. Of training's hundreds
 * of rows the matrix rate bounds it; unpacking takes 2 instructions a weight pair of a block, an eighth to a
 * fifth of the mma's issue slots at 128 rows: expected 60 % of the matrix rate on A100, 40 % on H100. Below about 75 rows
 * (int8: 150) on H100 the packed bytes bound it in theory; expected 50 % of copy bandwidth there, as unpacking does not
 * hide behind so few mma. */
#include "gemm_bwd_tile.cuh"
#include "gemm_epilogue.cuh"
#include "gemm_quant.cuh"

extern __shared__ __align__(256) char nt_gemm_dgrad_quant_stages[];

template <class T, class W> struct nt_dgrad_quant {
    enum {
        PANELS = T::DEPTH / NT_PANEL, /* of a stage */
        HALVES = T::COLS / 64,        /* of a block */
        HALF = W::HALF,
        SCALES = 2 * HALF,                          /* where in a block */
        PANEL_BYTES = HALVES * HALF + 2 * NT_PANEL, /* in a stage */
        CHUNKS = PANEL_BYTES / 16,
        RAW = NT_GEMM_DGRAD_QUANT_RAW(HALF, T::COLS, T::DEPTH),
        STAGE = T::A::BYTES + RAW,
        UNPACKED = T::STAGES * STAGE, /* where the two buffers are */
        UNITS = PANELS * HALVES * NT_PANEL / 8,
        WARPS = T::THREADS / NT_WARP,
    };
    static_assert(T::COLS == 64 || T::COLS == NT_INT4_GROUP, "columns of one group");
    static_assert(T::DEPTH % NT_PANEL == 0 && SCALES + 2 * NT_PANEL == W::BLOCK, "whole panels");
    static_assert(RAW >= PANELS * PANEL_BYTES, "the launcher counts them all");
    static_assert(T::A::BYTES % 128 == 0 && RAW % 128 == 0 && T::STAGES >= 3, "swizzled lines; two stages have arrived");
    static_assert(UNITS % WARPS == 0, "no warp is left out");
};

struct ring {
    struct nt_bwd_copier dy;
    const unsigned char *half; /* the next stage's weights: columns of its first panel */
    int32_t to_scales;         /* bytes from where its integers end to its scales */
    int32_t panel, n_panel, copied, n_stage;
    int64_t line; /* bytes from a panel to the next */
};

/* The next stage, if there is one, into the slot; a group of copies in any case. */
template <class T, class W> NT_DEVICE void copy_stage(struct ring *r, char *slot) {
    using I = nt_dgrad_quant<T, W>;
    if (r->copied < r->n_stage) {
        nt_bwd_copy_a<T>(&r->dy, slot);
        const uint32_t to = nt_shared_address(slot) + T::A::BYTES;
        for (int32_t i = (int32_t)threadIdx.x; i < I::PANELS * I::CHUNKS; i += T::THREADS) {
            const int32_t panel = i / I::CHUNKS, chunk = i % I::CHUNKS;
            const unsigned char *from = r->half + panel * r->line + 16 * chunk;
            if (16 * chunk >= I::HALVES * I::HALF) from += r->to_scales;
            nt_cp_async_16_zfill(to + panel * I::PANEL_BYTES + nt_quant_chunk_at<W>(chunk), from,
                                 r->panel + panel < r->n_panel ? 16 : 0);
        }
        r->half += I::PANELS * r->line;
        r->panel += I::PANELS;
    }
    r->copied++;
    nt_cp_async_commit();
}

/* A stage's weights as bf16, lines as nt_bwd_tile has them. A warp takes 8 rows of half a block at a time. */
template <class T, class W> NT_DEVICE void unpack(const char *raw, char *to) {
    using I = nt_dgrad_quant<T, W>;
#pragma unroll
    for (int i = 0; i < I::UNITS / I::WARPS; i++) {
        const int32_t unit = i * I::WARPS + nt_warp(), rows = unit % 4, half = unit / 4 % I::HALVES;
        const int32_t panel = unit / (4 * I::HALVES), row = 8 * rows + nt_lane() / 4;
        const char *from = raw + panel * I::PANEL_BYTES;
        W w;
        nt_quant_load_rows(&w, from + half * I::HALF, rows);
        const uint32_t scale = *(const nt_bf16 *)(from + I::HALVES * I::HALF + 2 * row) * 0x10001u; /* twice */
        const uint32_t scale_64 = nt_fma_bf16x2(scale, 0x42804280u, 0x80008000u); /* - 0: signs stay */
#pragma unroll
        for (int c = 0; c < 8; c++) {
            const uint32_t q = nt_quant_row_pair(&w, c);
            char *at = to + nt_gemm_chunk_at<typename T::B>(panel * NT_PANEL + row, 8 * half + c);
            *(uint32_t *)(at + 4 * (nt_lane() & 3)) = nt_fma_bf16x2(q, scale_64, 0x80008000u);
        }
    }
}

/* acc += the product with the packed weights. */
template <class T, class W>
NT_DEVICE void multiply(const struct nt_gemm_dgrad_quant_cuda *a, int32_t m0, int32_t n0, float acc[T::M][T::N][4]) {
    using I = nt_dgrad_quant<T, W>;
    char *stages = nt_gemm_dgrad_quant_stages, *unpacked = stages + I::UNPACKED;
    const int32_t n_stage = (a->d.g.k + T::DEPTH - 1) / T::DEPTH, half = n0 % NT_INT4_GROUP / 64;
    struct ring r = {nt_bwd_copier_of<typename T::A>(a->d.g.x, a->d.g.ldx, m0, a->d.g.n_tok, 0, a->d.g.k),
                     a->data + (int64_t)(n0 / NT_INT4_GROUP) * W::BLOCK + half * I::HALF,
                     I::SCALES - (half + I::HALVES) * I::HALF,
                     0,
                     a->n_panel,
                     0,
                     n_stage,
                     (int64_t)a->n_group * W::BLOCK};
    struct nt_gemm_fragments<T> f[2];
    const uint32_t a_at = nt_bwd_a_at<T>(), b_at = nt_bwd_b_at<T>();
#pragma unroll
    for (int s = 0; s < T::STAGES - 1; s++) copy_stage<T, W>(&r, stages + s * I::STAGE);
    nt_cp_async_wait<T::STAGES - 2>();
    __syncthreads();
    unpack<T, W>(stages + T::A::BYTES, unpacked);
    int32_t read = 0, fill = T::STAGES - 1; /* slots */
    for (int32_t i = 0; i < n_stage; i++) {
        const int32_t next = read + 1 == T::STAGES ? 0 : read + 1;
        nt_cp_async_wait<T::STAGES - 3>();
        __syncthreads(); /* stage i is unpacked and the next is there, for all; the one before is read */
        copy_stage<T, W>(&r, stages + fill * I::STAGE);
        if (i + 1 < n_stage)
            unpack<T, W>(stages + next * I::STAGE + T::A::BYTES, unpacked + ((i + 1) & 1) * T::B::BYTES);
        const uint32_t x = nt_shared_address(stages + read * I::STAGE);
        const uint32_t w = nt_shared_address(unpacked + (i & 1) * T::B::BYTES);
        nt_bwd_fragments_of<T>(&f[0], x, a_at, w, b_at, 0);
#pragma unroll
        for (int s = 0; s < T::STEPS; s++) {
            if (s + 1 < T::STEPS) nt_bwd_fragments_of<T>(&f[(s + 1) & 1], x, a_at, w, b_at, s + 1);
            nt_gemm_multiply<T>(acc, &f[s & 1]);
        }
        fill = read;
        read = next;
    }
    nt_cp_async_wait<0>();
}

/* acc += dy2 w2 */
template <class T>
NT_DEVICE void add_second(const struct nt_gemm_dgrad_cuda *d, int32_t m0, int32_t n0, float acc[T::M][T::N][4]) {
    struct nt_bwd_loop<T> l;
    l.stages = nt_gemm_dgrad_quant_stages;
    l.n_stage = (d->second.k + T::DEPTH - 1) / T::DEPTH;
    l.second.args = d;
    l.second.from = 0;
    l.second.m0 = m0;
    l.second.n0 = n0;
    __syncthreads(); /* nobody reads stages any more */
    nt_bwd_begin<T>(&l);
    nt_bwd_advance<T>(&l, l.n_stage, true, acc);
}

template <class T, class W> NT_DEVICE void dgrad_quant(const struct nt_gemm_dgrad_quant_cuda *a) {
    int32_t m0, n0;
    nt_gemm_place(&a->d.g, &m0, &n0);
    m0 *= T::ROWS;
    n0 *= T::COLS;
    float acc[T::M][T::N][4] = {};
    multiply<T, W>(a, m0, n0, acc);
    if (a->d.second.k > 0) add_second<T>(&a->d, m0, n0, acc);
    nt_gemm_store_tile<T>(&a->d.g, NULL, nt_gemm_dgrad_quant_stages, acc, m0, n0);
}

#define NT_GEMM_DGRAD_QUANT_KERNEL(type, rows, cols, depth, stages, warps_m, warps_n)                                  \
    extern "C" __global__ void __launch_bounds__(NT_WARP *warps_m *warps_n, 1)                                         \
        nt_gemm_dgrad_##type##_##rows##x##cols(const struct nt_gemm_dgrad_quant_cuda a) {                              \
        nt_launch_begin();                                                                                             \
        dgrad_quant<nt_bwd_tile<rows, cols, depth, stages, warps_m, warps_n, false>, nt_quant_##type>(&a);             \
    }
NT_GEMM_DGRAD_QUANT_TILES(NT_GEMM_DGRAD_QUANT_KERNEL, int4)
NT_GEMM_DGRAD_QUANT_TILES(NT_GEMM_DGRAD_QUANT_KERNEL, int8)
