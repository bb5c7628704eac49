/* The gradient of attention with vdpbf16ps.
 *
 * Five products per pair of query rows and key page, all by cpu_dpbf16.h: scores and dP with pairs along d (K as it
 * lies in the cache, V turned), dq with pairs of keys (K turned), dk and dv with pairs of query rows (q, dout, P and dS
 * interleaved two rows at a time). P = 2^(score scale log2(e) - lse). */
#include "cpu_attention_bwd.h"
#include "cpu_dpbf16.h"

enum { TILE = NT_DP_ROWS, ROWS = NT_ATTN_BWD_ROWS, PAGE = NT_KV_PAGE };
_Static_assert(TILE % 2 == 0 && PAGE == 64 && NT_ATTN_LANES == 16, "a page is four registers");

struct work {
    float s[TILE][PAGE], dp[TILE][PAGE];
    nt_bf16 ds[ROWS][PAGE], p2[ROWS / 2][PAGE][2], ds2[ROWS / 2][PAGE][2]; /* 2: in pairs of rows */
    nt_bf16 *dout;                                                         // [rows, d_pad]
    nt_bf16 *q2, *dout2;                                                   // [rows / 2, d_pad, 2]
    nt_bf16 *k2; // [PAGE / 2, d_pad, 2] as V lies in the cache
    nt_bf16 *v2; // [d_pad / 2, PAGE, 2] as K lies in the cache
    float *dq;   // [rows, d_pad]
};

static void work_init(struct work *w, int32_t rows, int32_t d_pad) {
    char *at = (char *)w;
    rows += rows % 2;
    (void)nt_attn_take(&at, sizeof *w);
    w->dout = nt_attn_take(&at, rows * d_pad * (int64_t)sizeof(nt_bf16));
    w->q2 = nt_attn_take(&at, rows * d_pad * (int64_t)sizeof(nt_bf16));
    w->dout2 = nt_attn_take(&at, rows * d_pad * (int64_t)sizeof(nt_bf16));
    w->k2 = nt_attn_take(&at, PAGE * d_pad * (int64_t)sizeof(nt_bf16));
    w->v2 = nt_attn_take(&at, PAGE * d_pad * (int64_t)sizeof(nt_bf16));
    w->dq = nt_attn_take(&at, rows * d_pad * (int64_t)sizeof(float));
    NT_CHECK((size_t)(at - (char *)w) <= nt_attn_bwd_scratch(d_pad));
}

/* rows x cols blocks of 2 x 2, multiples of 8. */
static void turn(const nt_bf16 *from, int32_t rows, int32_t cols, nt_bf16 *to) {
    for (int32_t r = 0; r < rows; r += 8)
        for (int32_t c = 0; c < cols; c += 8)
            nt_v16_turn(from + 4 * ((int64_t)r * cols + c), cols, 8, to + 4 * ((int64_t)c * rows + r), rows);
}

/* to[i] = (even[i], odd[i]); odd NULL: 0. n: a multiple of 16. */
static void interleave(const nt_bf16 *even, const nt_bf16 *odd, int32_t n, nt_bf16 *to) {
    for (int32_t i = 0; i < n; i += 16) {
        const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(even + i));
        const __m256i y = odd ? _mm256_loadu_si256((const __m256i *)(const void *)(odd + i)) : _mm256_setzero_si256();
        _mm512_storeu_si512(to + 2 * i, nt_v16_pair(x, y));
    }
}

static const uint32_t *pairs_of(const nt_bf16 *row) {
    return (const uint32_t *)(const void *)row;
}

static inline __mmask16 visible(const struct nt_attn_bwd_rows *rows, int32_t r, int32_t slot) {
    return (__mmask16)(nt_v16_mask(rows->hi[r] - slot) & ~nt_v16_mask(rows->lo[r] - slot));
}

/* dout of a row in bf16, and what it gives with out. */
static inline float round_row(const float *dout, const nt_bf16 *out, int32_t d, nt_bf16 *to) {
    __m512 sum = _mm512_setzero_ps();
    for (int32_t i = 0; i < d; i += 16) {
        const __mmask16 mask = nt_v16_mask(d - i);
        const __m256i x = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, dout + i));
        _mm256_storeu_si256((__m256i *)(void *)(to + i), x);
        sum = _mm512_fmadd_ps(nt_v16_load_bf16(out + i, mask), nt_v16_from_bf16(x), sum);
    }
    return nt_v16_sum_lanes(sum);
}

static void begin(const struct nt_attention_bwd_args *a, struct nt_attn_bwd_rows *rows, void *scratch) {
    const int32_t d = a->kv->d_head, d_pad = nt_d_pad(d);
    struct work *w = scratch;
    work_init(w, rows->n, d_pad);
    for (int32_t r = 0; r < rows->n; r++)
        rows->delta[r] = round_row(rows->dout[r], rows->out[r], d, w->dout + r * d_pad);
    for (int32_t r = 0; r < rows->n; r += 2) {
        const bool two = r + 1 < rows->n;
        interleave(rows->q[r], two ? rows->q[r + 1] : NULL, d_pad, w->q2 + r * d_pad);
        interleave(w->dout + r * d_pad, two ? w->dout + (r + 1) * d_pad : NULL, d_pad, w->dout2 + r * d_pad);
    }
}

static void end(const struct nt_attention_bwd_args *a, const struct nt_attn_bwd_rows *rows, void *scratch) {
    const int32_t d = a->kv->d_head, d_pad = nt_d_pad(d);
    const struct work *w = scratch;
    for (int32_t r = 0; r < rows->n; r++)
        for (int32_t i = 0; i < d; i += 16)
            _mm512_mask_storeu_ps(rows->dq[r] + i, nt_v16_mask(d - i), _mm512_loadu_ps(w->dq + r * d_pad + i));
}

static void turn_page(const struct nt_attn_bwd_page *page, int32_t d_pad, struct work *w) {
    turn(page->k, d_pad / 2, PAGE / 2, w->k2);
    if (page->n_key % 2) /* dq adds keys in pairs: the last one's partner is whatever was there */
        for (int32_t i = 0; i < d_pad; i++) w->k2[(page->n_key / 2 * d_pad + i) * 2 + 1] = 0;
    turn(page->v, PAGE / 2, d_pad / 2, w->v2);
}

/* P and dS of 16 slots of one row, from its scores and dP; invisible slots are 0. */
NT_DP_INLINE void gradients(const struct nt_attention_bwd_args *a, const struct nt_attn_bwd_rows *rows, bool full,
                            int32_t r, int32_t slot, const float *s, const float *dp, __m512 *p, __m512 *ds) {
    const __m512 x =
        _mm512_fmsub_ps(_mm512_loadu_ps(s), _mm512_set1_ps(a->scale * NT_LOG2E), _mm512_set1_ps(rows->lse[r]));
    const __m512 d = _mm512_sub_ps(_mm512_loadu_ps(dp), _mm512_set1_ps(rows->delta[r]));
    const __mmask16 seen = full ? 0xffff : visible(rows, r, slot);
    *p = _mm512_maskz_mov_ps(seen, nt_v16_exp2_neg(x));
    *ds = _mm512_maskz_mul_ps(seen, _mm512_mul_ps(*p, _mm512_set1_ps(a->scale)), d);
}

/* Row r and the next one (two), which are rows i and i + 1 of the tile: P in pairs, dS in pairs and by row. */
NT_DP_INLINE void gradient_rows(const struct nt_attention_bwd_args *a, const struct nt_attn_bwd_rows *rows, bool full,
                                int32_t r, int i, bool two, int nv, struct work *w) {
    const __m512i mix = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (int j = 0; j < PAGE / 16; j++) {
        __m512 p[2], ds[2];
        for (int k = 0; k < 2; k++) {
            p[k] = ds[k] = _mm512_setzero_ps();
            if (full || (j < nv && k <= two))
                gradients(a, rows, full, r + k, 16 * j, w->s[i + k] + 16 * j, w->dp[i + k] + 16 * j, &p[k], &ds[k]);
        }
        const __m512i p16 = (__m512i)_mm512_cvtne2ps_pbh(p[1], p[0]), ds16 = (__m512i)_mm512_cvtne2ps_pbh(ds[1], ds[0]);
        _mm512_storeu_si512(w->p2[r / 2][16 * j], _mm512_permutexvar_epi16(mix, p16));
        _mm512_storeu_si512(w->ds2[r / 2][16 * j], _mm512_permutexvar_epi16(mix, ds16));
        _mm256_storeu_si256((__m256i *)(void *)(w->ds[r] + 16 * j), _mm512_castsi512_si256(ds16));
        if (full || two)
            _mm256_storeu_si256((__m256i *)(void *)(w->ds[r + 1] + 16 * j), _mm512_extracti64x4_epi64(ds16, 1));
    }
}

static void tile_gradients(const struct nt_attention_bwd_args *a, const struct nt_attn_bwd_rows *rows, int32_t r0,
                           int n, int nv, struct work *w) {
    if (rows->full && n % 2 == 0)
        for (int i = 0; i < n; i += 2) gradient_rows(a, rows, true, r0 + i, i, true, PAGE / 16, w);
    else
        for (int i = 0; i < n; i += 2) gradient_rows(a, rows, false, r0 + i, i, i + 1 < n, nv, w);
}

/* dq += dS K */
static void add_dq(const struct nt_attn_bwd_rows *rows, int32_t r0, int n, int32_t d_pad, struct work *w) {
    struct nt_dp p = {
        .b_step = 2 * d_pad, .pair0 = rows->lo[r0] / 2, .pair1 = (rows->hi[r0 + n - 1] + 1) / 2, .ldc = d_pad};
    for (int i = 0; i < n; i++) p.a[i] = pairs_of(w->ds[r0 + i]);
    for (int32_t col = 0; col < d_pad; col += 64) {
        p.b = w->k2 + 2 * col;
        p.c = w->dq + r0 * d_pad + col;
        const int nv = d_pad - col < 64 ? (d_pad - col) / 16 : 4;
        if (rows->first)
            nt_dp_product(n, nv, NT_DP_ZERO, 1, &p);
        else
            nt_dp_product(n, nv, NT_DP_ADD, 1, &p);
    }
}

/* sums[keys, ld] += A^T B for the keys that rows see: A [rows, PAGE] and B [rows, d] in pairs of rows. */
static void add_keys(const struct nt_attn_bwd_rows *rows, int32_t d_pad, const nt_bf16 *a2, const nt_bf16 *b2,
                     float *sums, int64_t ld) {
    const int32_t keys = rows->hi[rows->n - 1], n_tile = (keys + TILE - 1) / TILE;
    int32_t first = 0; /* row that sees the tile's first key */
    for (int32_t t = 0; t < n_tile; t++) {
        const int32_t k0 = t * keys / n_tile, n = (t + 1) * keys / n_tile - k0;
        struct nt_dp p = {.a_step = PAGE, .b_step = 2 * d_pad, .pair1 = (rows->n + 1) / 2, .ldc = ld};
        while (rows->hi[first] <= k0) first++;
        p.pair0 = first / 2;
        for (int i = 0; i < n; i++) p.a[i] = pairs_of(a2) + k0 + i;
        for (int32_t col = 0; col < d_pad; col += 64) {
            p.b = b2 + 2 * col;
            p.c = sums + k0 * ld + col;
            nt_dp_product(n, d_pad - col < 64 ? (d_pad - col) / 16 : 4, NT_DP_ADD, PAGE, &p);
        }
    }
}

static void page(const struct nt_attention_bwd_args *a, const struct nt_attn_bwd_rows *rows,
                 const struct nt_attn_bwd_page *page, void *scratch) {
    const int32_t d_pad = nt_d_pad(a->kv->d_head);
    struct work *w = scratch;
    turn_page(page, d_pad, w);
    for (int32_t r0 = 0; r0 < rows->n; r0 += TILE) {
        const int32_t n = rows->n - r0 < TILE ? rows->n - r0 : TILE, nv = (rows->hi[r0 + n - 1] + 15) / 16;
        nt_attn_bwd_fetch_ahead(rows, r0, n, a->kv->d_head);
        const struct nt_dp s = {
            .b = page->k, .b_step = 2 * PAGE, .pair1 = a->kv->d_head / 2, .c = w->s[0], .ldc = PAGE};
        struct nt_dp p[2] = {s, s};
        p[1].b = w->v2;
        p[1].c = w->dp[0];
        for (int i = 0; i < n; i++) {
            p[0].a[i] = pairs_of(rows->q[r0 + i]);
            p[1].a[i] = pairs_of(w->dout + (r0 + i) * d_pad);
        }
        for (int i = 0; i < 2; i++) nt_dp_product(n, nv, NT_DP_ZERO, 1, &p[i]);
        tile_gradients(a, rows, r0, n, nv, w);
        add_dq(rows, r0, n, d_pad, w);
    }
    add_keys(rows, d_pad, w->ds2[0][0], w->q2, page->dk, page->ld);
    add_keys(rows, d_pad, w->p2[0][0], w->dout2, page->dv, page->ld);
}

nt_status nt_attention_bwd_avx512(struct nt_backend *be, const struct nt_attention_bwd_args *args) {
    static const struct nt_attn_bwd_body body = {.max_rows = ROWS, .begin = begin, .page = page, .end = end};
    return nt_attn_bwd_run(be, args, &body) ? NT_OK : nt_attention_bwd_portable(be, args);
}
