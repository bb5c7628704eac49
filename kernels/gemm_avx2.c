/* The packed-weight product on AVX2: bf16 widened to float, fused multiply-adds.
 *
 * x is converted once per block of rows into the thread's scratch. A tile is up to 6 rows by half a panel, or up to 3
 * rows by a panel: 12 accumulators, the even and then the odd elements of the weight pairs, one broadcast. Each output
 * is one chain of fused multiply-adds over k ascending, whatever tile it falls into, hence batch invariance. */
#include "cpu_vec.h"
#include "gemm_plan.h"

enum { TILE_ROWS = 6, WHOLE_ROWS = 3, VECS = NT_PANEL / 8 };

struct tile {
    const char *x; // [rows, k + k2] float
    int64_t ldx;   /* bytes */
    const char *w, *w2;
    const char
        *ahead; /* prefetched into L2: this line and, by whole-panel tiles, the next, then ahead_step on per pair */
    int64_t ahead_step;
    int32_t n_pair, n_pair2;
    const float *begin;     // [rows, NT_PANEL] or NULL
    float (*out)[NT_PANEL]; // [rows]
};

#define INLINE inline __attribute__((always_inline))

/* Written out, because the compiler otherwise overwrites the broadcast and spills accumulators. */
static INLINE void fma_into(__m256 *acc, __m256 a, __m256 b) {
    __asm__("vfmadd231ps %2, %1, %0" : "+x"(*acc) : "x"(a), "x"(b));
}

/* acc[r][v] += x[r] w[v]; rows 0..2 are reached from x, rows 3..5 from x + 3 ldx. */
static INLINE void outer(const int rows, const int vecs, __m256 acc[TILE_ROWS][VECS], const char *const x[2],
                         int64_t ldx, const __m256 w[VECS]) {
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        const __m256 xr = _mm256_broadcast_ss((const float *)(x[r / 3] + r % 3 * ldx));
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++) fma_into(&acc[r][v], xr, w[v]);
    }
}

/* vecs registers of outputs from column 8 * first on. */
static INLINE void tile_run(const int rows, const int vecs, const int first, const struct tile *t) {
    const __m256i upper = _mm256_set1_epi32((int32_t)0xffff0000u);
    __m256 acc[TILE_ROWS][VECS], w[VECS];
    const char *x[2] = {t->x, t->x + 3 * t->ldx};
    const __m256i *line = (const __m256i *)t->w + first;
    const int64_t ldx = t->ldx, step = t->ahead_step;
    const char *ahead = t->ahead + 32 * first; /* the second half's lines are the odd ones */
    int32_t p = t->n_pair, next = t->n_pair2;
    __asm__("" : "+r"(x[1])); /* not derived from x[0] in the loop */
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++)
            acc[r][v] = t->begin ? _mm256_loadu_ps(t->begin + r * NT_PANEL + 8 * (first + v)) : _mm256_setzero_ps();
again:
    for (; p > 0; p--, line += VECS, ahead += step) {
        _mm_prefetch(ahead, _MM_HINT_T1);
        if (vecs == VECS) _mm_prefetch(ahead + 64, _MM_HINT_T1);
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++) w[v] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_load_si256(line + v), 16));
        outer(rows, vecs, acc, x, ldx, w);
        x[0] += sizeof(float);
        x[1] += sizeof(float);
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++) w[v] = _mm256_castsi256_ps(_mm256_and_si256(upper, _mm256_load_si256(line + v)));
        outer(rows, vecs, acc, x, ldx, w);
        x[0] += sizeof(float);
        x[1] += sizeof(float);
    }
    if (next > 0) { /* the second product, in the same loop: its rows follow those of the first */
        line = (const __m256i *)t->w2 + first;
        p = next;
        next = 0;
        goto again;
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++) _mm256_storeu_ps(t->out[r] + 8 * (first + v), acc[r][v]);
}

static INLINE void tile_halves(const int rows, const struct tile *t) {
    tile_run(rows, VECS / 2, 0, t);
    tile_run(rows, VECS / 2, VECS / 2, t);
}

typedef void tile_fn(const struct tile *t);
static void tile_1(const struct tile *t) {
    tile_run(1, VECS, 0, t);
}
static void tile_2(const struct tile *t) {
    tile_run(2, VECS, 0, t);
}
static void tile_3(const struct tile *t) {
    tile_run(3, VECS, 0, t);
}
static void tile_4(const struct tile *t) {
    tile_halves(4, t);
}
static void tile_5(const struct tile *t) {
    tile_halves(5, t);
}
static void tile_6(const struct tile *t) {
    tile_halves(6, t);
}
static tile_fn *const tiles[TILE_ROWS + 1] = {NULL, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};

/* As in gemm_avx512.c: x / (1 + exp(-v)) with t = exp(-|v|) is x / (1 + t) or x t / (1 + t). */
static inline __m256 activate(__m256 x, enum nt_gemm_out out) {
    __m256 v = _mm256_mul_ps(x, _mm256_set1_ps(NT_LOG2E));
    if (out == NT_GEMM_GEGLU_BF16) {
        const __m256 cube = _mm256_mul_ps(_mm256_mul_ps(x, x), x);
        const __m256 u = _mm256_fmadd_ps(cube, _mm256_set1_ps(0.044715f), x);
        v = _mm256_mul_ps(u, _mm256_set1_ps(1.5957691216f * NT_LOG2E));
    }
    const __m256 t = nt_v8_exp2_neg(_mm256_or_ps(v, _mm256_set1_ps(-0.0f)));
    const __m256 top = _mm256_blendv_ps(x, _mm256_mul_ps(x, t), v); /* by the sign of v */
    return _mm256_div_ps(top, _mm256_add_ps(_mm256_set1_ps(1.0f), t));
}

static void store_gated(nt_bf16 *y, nt_bf16 *pre, const float acc[NT_PANEL], enum nt_gemm_out out) {
    for (int j = 0; pre && j < NT_PANEL; j += 8)
        _mm_storeu_si128((__m128i *)(pre + j), nt_v8_to_bf16(_mm256_loadu_ps(acc + j)));
    for (int j = 0; j < NT_PANEL / 2; j += 8) {
        const __m256 gate = activate(_mm256_loadu_ps(acc + j), out);
        const __m256 v = _mm256_mul_ps(gate, _mm256_loadu_ps(acc + NT_PANEL / 2 + j));
        _mm_storeu_si128((__m128i *)(y + j), nt_v8_to_bf16(v));
    }
}

static void finish_row(const struct nt_gemm_panel *p, float acc[NT_PANEL], int64_t r) {
    const int32_t n = p->n_valid;
    float *y = (float *)(void *)(p->y + r * p->ldy);
    nt_bf16 *h = (nt_bf16 *)(void *)y, *pre = p->pre ? (nt_bf16 *)(void *)(p->pre + r * p->ldpre) : NULL;
    if (p->bias)
        for (int32_t j = 0; j < n; j++) acc[j] += p->bias[j];
    switch (p->out) {
    case NT_GEMM_STORE_F32:
        memcpy(y, acc, (size_t)n * sizeof *y);
        break;
    case NT_GEMM_ADD_F32:
        for (int32_t j = 0; j < n; j++) y[j] += p->scale * acc[j];
        break;
    case NT_GEMM_STORE_BF16:
        for (int32_t j = 0; j < n; j++) h[j] = nt_f32_to_bf16(acc[j]);
        break;
    default:
        store_gated(h, pre, acc, p->out);
    }
}

static void panel_avx2(const struct nt_gemm_panel *p) {
    float out[TILE_ROWS][NT_PANEL];
    const int32_t n_tile = (p->rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int32_t i = 0; i < n_tile; i++) {
        int64_t begin, end;
        nt_split(p->rows, 1, i, n_tile, &begin, &end);
        struct tile t = {
            .ldx = p->ldx, .w = p->w, .w2 = p->w2, .n_pair = p->n_pair, .n_pair2 = p->second[0].n, .out = out};
        if (p->begin) t.begin = p->begin + begin * NT_PANEL;
        t.x = p->x + begin * p->ldx;
        const bool prefetch = p->w_next && i == n_tile - 1;
        t.ahead = prefetch ? p->w_next : p->w;
        t.ahead_step = prefetch ? 4 * NT_PANEL : 0;
        nt_gemm_fetch_ahead(&p->ahead, i, n_tile);
        tiles[end - begin](&t);
        for (int64_t r = begin; r < end; r++) finish_row(p, out[r - begin], r);
    }
}

static void widen_rows(const nt_bf16 *from, int64_t ld, int32_t rows, int32_t count, char *to, int64_t ld_to) {
    for (int32_t r = 0; r < rows; r++) {
        float *x = (float *)(void *)(to + r * ld_to);
        for (int32_t i = 0; i < count; i++) x[i] = nt_bf16_to_f32(from[r * ld + i]);
    }
}

const struct nt_gemm_traits *nt_gemm_traits_avx2(void) {
    static const struct nt_gemm_traits traits = {.panel = panel_avx2,
                                                 .copy = widen_rows,
                                                 .unpack = nt_gemm_unpack_avx2,
                                                 .tile_rows = TILE_ROWS,
                                                 .row_bytes = sizeof(float),
                                                 .lookahead_rows = WHOLE_ROWS + 1};
    return &traits;
}

nt_status nt_gemm_avx2(struct nt_backend *be, const struct nt_gemm_args *args) {
    return nt_gemm_run(be, args, nt_gemm_traits_avx2());
}
