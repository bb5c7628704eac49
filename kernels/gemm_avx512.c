/* The packed-weight product on AVX-512 BF16: outer products of rows and panels in registers.
 *
 * A tile is up to 14 rows by one panel: 28 accumulators, two registers of weights, one broadcast pair of x; a panel
 * with columns in its first half alone is done by half. Weights stream once from DRAM per block of rows; the tiles of a
 * panel find it in L2 because the tiles of the panel before have prefetched it. x is read in place, one broadcast per
 * row and pair; a tile prefetches the rows of the next. Each output is one chain of vdpbf16ps over
 * the k pairs, whatever tile it falls into, hence batch invariance. */
#include "cpu_bodies.h"
#include "cpu_vec.h"
#include "gemm_plan.h"

enum {
    TILE_ROWS = 14,
    OWN_PAIRS = 16,
    STREAM_ROWS = 6 /* up to here DRAM sets the pace and the hardware prefetcher alone does best (measured) */
};

/* The rows of one tile; with every k pair the line at `ahead` is prefetched into L2, which then moves by ahead_step,
 * and before every OWN_PAIRS of them by ahead_jump. */
struct tile {
    struct nt_gemm_panel p;
    const char *ahead;
    int64_t ahead_step, ahead_jump;
};

/* x / (1 + exp(-v)): v = x is silu, v = 2u with u = sqrt(2/pi) (x + 0.044715 x^3) is gelu_tanh (Hendrycks & Gimpel
 * 2016). Only exp of a negative number is taken: with t = exp(-|v|) it is x / (1 + t) or x t / (1 + t). */
static inline __m512 activate(__m512 x, enum nt_gemm_out out) {
    __m512 v = _mm512_mul_ps(x, _mm512_set1_ps(NT_LOG2E));
    if (out == NT_GEMM_GEGLU_BF16) {
        const __m512 cube = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
        const __m512 u = _mm512_fmadd_ps(cube, _mm512_set1_ps(0.044715f), x);
        v = _mm512_mul_ps(u, _mm512_set1_ps(1.5957691216f * NT_LOG2E));
    }
    const __m512 t = nt_v16_exp2_neg(_mm512_or_ps(v, _mm512_set1_ps(-0.0f)));
    const __mmask16 negative = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ);
    const __m512 top = _mm512_mask_mul_ps(x, negative, x, t);
    return _mm512_div_ps(top, _mm512_add_ps(_mm512_set1_ps(1.0f), t));
}

static inline void store_bf16(void *y, __m512 v) {
    _mm256_storeu_si256(y, (__m256i)_mm512_cvtneps_pbh(v));
}

static void store_gated(const struct nt_gemm_panel *t, int rows, const __m512 *acc) {
    for (int r = 0; r < rows; r++, acc += 2) {
        if (t->pre) {
            store_bf16(t->pre + r * t->ldpre, acc[0]);
            store_bf16(t->pre + r * t->ldpre + 32, acc[1]);
        }
        store_bf16(t->y + r * t->ldy, _mm512_mul_ps(activate(acc[0], t->out), acc[1]));
    }
}

/* A panel that is cut by n. */
static void store_cut(const struct nt_gemm_panel *t, int rows, __m512 *acc) {
    for (int r = 0; r < rows; r++) {
        for (int h = 0; h < 2; h++, acc++) {
            const int n = t->n_valid - 16 * h;
            const __mmask16 mask = nt_v16_mask(n);
            __m512 v = *acc;
            if (t->bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, t->bias + 16 * h));
            char *row = t->y + r * t->ldy;
            float *y = (float *)row + 16 * h;
            if (t->out == NT_GEMM_ADD_F32)
                v = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), _mm512_mul_ps(v, _mm512_set1_ps(t->scale)));
            if (t->out == NT_GEMM_STORE_BF16)
                nt_v16_store_bf16((nt_bf16 *)row + 16 * h, mask, v);
            else
                _mm512_mask_storeu_ps(y, mask, v);
        }
    }
}

#define INLINE inline __attribute__((always_inline))

static INLINE void finish(const int rows, const struct nt_gemm_panel *t, __m512 acc[TILE_ROWS][2]) {
    const bool gated = t->out == NT_GEMM_SWIGLU_BF16 || t->out == NT_GEMM_GEGLU_BF16;
    if (t->n_valid < NT_PANEL) {
        __m512 spill[TILE_ROWS][2];
        memcpy(spill, acc, sizeof spill[0] * (size_t)rows);
        store_cut(t, rows, spill[0]);
        return;
    }
    if (t->bias) {
        const __m512 b0 = _mm512_loadu_ps(t->bias), b1 = _mm512_loadu_ps(t->bias + 16);
#pragma GCC unroll 14
        for (int r = 0; r < rows; r++) {
            acc[r][0] = _mm512_add_ps(acc[r][0], b0);
            acc[r][1] = _mm512_add_ps(acc[r][1], b1);
        }
    }
    if (gated) {
        __m512 spill[TILE_ROWS][2];
        memcpy(spill, acc, sizeof spill[0] * (size_t)rows);
        store_gated(t, rows, spill[0]);
        return;
    }
    char *y = t->y;
    if (t->out == NT_GEMM_STORE_BF16) {
#pragma GCC unroll 14
        for (int r = 0; r < rows; r++, y += t->ldy) {
            store_bf16(y, acc[r][0]);
            store_bf16(y + 32, acc[r][1]);
        }
        return;
    }
    if (t->out == NT_GEMM_ADD_F32) {
        const __m512 scale = _mm512_set1_ps(t->scale);
#pragma GCC unroll 14
        for (int r = 0; r < rows; r++, y += t->ldy) {
            acc[r][0] = _mm512_add_ps(_mm512_loadu_ps(y), _mm512_mul_ps(acc[r][0], scale));
            acc[r][1] = _mm512_add_ps(_mm512_loadu_ps(y + 64), _mm512_mul_ps(acc[r][1], scale));
            _mm512_storeu_ps(y, acc[r][0]);
            _mm512_storeu_ps(y + 64, acc[r][1]);
        }
        return;
    }
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++, y += t->ldy) {
        _mm512_storeu_ps(y, acc[r][0]);
        _mm512_storeu_ps(y + 64, acc[r][1]);
    }
}

/* What the chains begin with. */
static INLINE void start(const int rows, const float *begin, __m512 acc[TILE_ROWS][2]) {
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++) {
        acc[r][0] = begin ? _mm512_loadu_ps(begin + r * NT_PANEL) : _mm512_setzero_ps();
        acc[r][1] = begin ? _mm512_loadu_ps(begin + r * NT_PANEL + 16) : _mm512_setzero_ps();
    }
}

/* The second product of half h. */
static INLINE void add_second(const int rows, const int h, const struct nt_gemm_panel *t, __m512 acc[TILE_ROWS][2]) {
    const struct nt_gemm_span s = t->second[h];
    const char *x[4], *w = t->w2 + s.first * (int64_t)128 + h * 64;
    const int64_t ldx = t->ldx2;
#pragma GCC unroll 4
    for (int i = 0; i < (rows + 3) / 4; i++) {
        x[i] = t->x2 + s.first * (int64_t)4 + 4 * i * ldx;
        __asm__("" : "+r"(x[i]));
    }
    for (int32_t p = s.n; p > 0; p--, w += 128) {
        const __m512bh w0 = (__m512bh)_mm512_load_si512(w);
#pragma GCC unroll 14
        for (int r = 0; r < rows; r++) {
            int32_t pair;
            memcpy(&pair, x[r / 4] + r % 4 * ldx, sizeof pair);
            acc[r][h] = _mm512_dpbf16_ps(acc[r][h], w0, (__m512bh)_mm512_set1_epi32(pair));
        }
#pragma GCC unroll 4
        for (int i = 0; i < (rows + 3) / 4; i++) x[i] += 4;
    }
}

/* lines: cache lines prefetched per k pair. Every fourth row has its own pointer, hidden from the compiler, which
 * otherwise runs out of address registers and reloads them in the loop. */
static INLINE void tile_run(const int rows, const int vecs, const int lines, const struct tile *t) {
    __m512 acc[TILE_ROWS][2];
    const char *x[4], *w = t->p.w, *ahead = t->ahead;
    const int64_t step = t->ahead_step, ldx = t->p.ldx, skip = t->p.runs ? NT_GEMM_RUN : 0;
    const char *y = t->p.y, *y2 = t->p.pre ? t->p.pre : t->p.y + 64, *y_last = y + (rows - 1) * t->p.ldy;
    if (t->p.begin)
        start(rows, t->p.begin, acc);
    else
        start(rows, NULL, acc);
#pragma GCC unroll 4
    for (int i = 0; i < (rows + 3) / 4; i++) {
        x[i] = t->p.x + 4 * i * ldx - 4 * skip;
        __asm__("" : "+r"(x[i]));
    }
    w -= 128 * skip;
    for (int32_t p = t->p.n_pair; p > 0; p--) {
        if (p % NT_GEMM_RUN == 0) {
            w += 128 * skip;
#pragma GCC unroll 4
            for (int i = 0; i < (rows + 3) / 4; i++) x[i] += 4 * skip;
        }
        const __m512bh w0 = (__m512bh)_mm512_load_si512(w);
        const __m512bh w1 = vecs > 1 ? (__m512bh)_mm512_load_si512(w + 64) : w0;
        if (p % OWN_PAIRS == 0) { /* so that the lines of y are ours, wherever they were, when they are stored */
            __asm__ volatile("prefetchw (%0)\n\tprefetchw (%1)" : : "r"(y), "r"(y2));
            if (y < y_last) {
                y += t->p.ldy;
                y2 += t->p.pre ? t->p.ldpre : t->p.ldy;
            }
            ahead += t->ahead_jump;
        }
        if (lines > 0) _mm_prefetch(ahead, _MM_HINT_T1);
        if (lines > 1) _mm_prefetch(ahead + 64, _MM_HINT_T1);
        ahead += step;
        w += 128;
#pragma GCC unroll 14
        for (int r = 0; r < rows; r++) {
            int32_t pair;
            memcpy(&pair, x[r / 4] + r % 4 * ldx, sizeof pair);
            const __m512bh xr = (__m512bh)_mm512_set1_epi32(pair);
            acc[r][0] = _mm512_dpbf16_ps(acc[r][0], w0, xr);
            if (vecs > 1) acc[r][1] = _mm512_dpbf16_ps(acc[r][1], w1, xr);
        }
#pragma GCC unroll 4
        for (int i = 0; i < (rows + 3) / 4; i++) x[i] += 4;
    }
    if (t->p.second[0].n > 0) add_second(rows, 0, &t->p, acc);
    if (vecs > 1 && t->p.second[1].n > 0) add_second(rows, 1, &t->p, acc);
    finish(rows, &t->p, acc);
}

typedef void tile_fn(const struct tile *t);
#define TILE(rows)                                                                                                     \
    static void tile_##rows(const struct tile *t) {                                                                    \
        tile_run(rows, 2, (rows) > STREAM_ROWS ? 1 : 0, t);                                                            \
    }                                                                                                                  \
    static void only_##rows(const struct tile *t) {                                                                    \
        tile_run(rows, 2, (rows) > STREAM_ROWS ? 2 : 0, t);                                                            \
    }                                                                                                                  \
    static void half_##rows(const struct tile *t) {                                                                    \
        tile_run(rows, 1, (rows) > STREAM_ROWS ? 2 : 0, t);                                                            \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)
TILE(7)
TILE(8)
TILE(9)
TILE(10)
TILE(11)
TILE(12)
TILE(13)
TILE(14)

/* ONLY: the panel has no other tile. HALF: its second half has no columns. */
enum kind { MANY, ONLY, HALF, KINDS };
#define ROW(kind)                                                                                                      \
    {                                                                                                                  \
        NULL, kind##_1, kind##_2, kind##_3, kind##_4, kind##_5, kind##_6, kind##_7, kind##_8, kind##_9, kind##_10,     \
            kind##_11, kind##_12, kind##_13, kind##_14                                                                 \
    }
static tile_fn *const tiles[KINDS][TILE_ROWS + 1] = {ROW(tile), ROW(only), ROW(half)};

static enum kind kind_of(const struct nt_gemm_panel *p, int32_t n_tile) {
    const bool gated = p->out == NT_GEMM_SWIGLU_BF16 || p->out == NT_GEMM_GEGLU_BF16;
    if (p->n_valid <= NT_PANEL / 2 && !gated) return HALF;
    return n_tile == 1 || p->runs ? ONLY : MANY;
}

/* The panel after this one is prefetched by the last tiles: by two of them one line per pair, by a single one two (of a
 * half panel, every other one). The others fetch the rows of the tile after them. */
static void set_ahead(struct tile *t, int32_t n_tile, int32_t n_left, int32_t n_row) {
    const struct nt_gemm_panel *p = &t->p;
    const bool next = p->w_next && n_left <= 2;
    t->ahead_step = t->ahead_jump = 0;
    if (next) {
        t->ahead = n_tile == 1 || n_left == 2 ? p->w_next : p->w_next + p->n_pair * (int64_t)64;
        t->ahead_step = n_tile == 1 ? 128 : 64;
    } else if (n_left > 1) {
        t->ahead_step = p->ldx;
        t->ahead_jump = (p->runs ? 128 : 64) - OWN_PAIRS * p->ldx;
        t->ahead = p->x + n_row * p->ldx - t->ahead_jump;
    } else {
        t->ahead = p->w;
    }
}

static void next_rows(struct nt_gemm_panel *p, int32_t n) {
    p->x += n * p->ldx;
    p->y += n * p->ldy;
    if (p->x2) p->x2 += n * p->ldx2;
    if (p->pre) p->pre += n * p->ldpre;
    if (p->begin) p->begin += n * NT_PANEL;
}

static void panel_avx512(const struct nt_gemm_panel *p) {
    struct tile t = {.p = *p};
    const int32_t n_tile = (p->rows + TILE_ROWS - 1) / TILE_ROWS, each = p->rows / n_tile, more = p->rows % n_tile;
    tile_fn *const *tile = tiles[kind_of(p, n_tile)];
    for (int32_t i = 0; i < n_tile; i++) {
        const int32_t n = each + (i < more);
        set_ahead(&t, n_tile, n_tile - i, n);
        nt_gemm_fetch_ahead(&p->ahead, i, n_tile);
        tile[n](&t);
        next_rows(&t.p, n);
    }
}

static void copy_rows(const nt_bf16 *from, int64_t ld, int32_t rows, int32_t count, char *to, int64_t ld_to) {
    for (int32_t r = 0; r < rows; r++) memcpy(to + r * ld_to, from + r * ld, (size_t)count * sizeof *from);
}

const struct nt_gemm_traits *nt_gemm_traits_avx512(void) {
    static const struct nt_gemm_traits traits = {.panel = panel_avx512,
                                                 .copy = copy_rows,
                                                 .unpack = nt_gemm_unpack_avx512,
                                                 .tile_rows = TILE_ROWS,
                                                 .row_bytes = sizeof(nt_bf16),
                                                 .lookahead_rows = STREAM_ROWS + 1,
                                                 .in_place = true,
                                                 .parts = true};
    return &traits;
}

nt_status nt_gemm_avx512(struct nt_backend *be, const struct nt_gemm_args *args) {
    return nt_gemm_run(be, args, nt_gemm_traits_avx512());
}
