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
    nt_bf16 *dout;                                                         // [ROWS, d_pad]
    nt_bf16 *q2, *dout2;                                                   // [ROWS / 2, d_pad, 2]
    nt_bf16 *k2; // [PAGE / 2, d_pad, 2] as V lies in the cache
    nt_bf16 *v2; // [d_pad / 2, PAGE, 2] as K lies in the cache
    float *sums; // [2, PAGE, d_pad]
};

static nt_bf16 *take(char **at, int64_t elems, size_t size) {
    void *p = *at;
    *at += ((size_t)elems * size + 63) / 64 * 64;
    return p;
}

static struct work *work_init(void *scratch, int32_t d_pad) {
    char *at = (char *)scratch + (sizeof(struct work) + 63) / 64 * 64;
    struct work *w = scratch;
    w->dout = take(&at, ROWS * d_pad, sizeof(nt_bf16));
    w->q2 = take(&at, ROWS * d_pad, sizeof(nt_bf16));
    w->dout2 = take(&at, ROWS * d_pad, sizeof(nt_bf16));
    w->k2 = take(&at, PAGE * d_pad, sizeof(nt_bf16));
    w->v2 = take(&at, PAGE * d_pad, sizeof(nt_bf16));
    w->sums = (float *)(void *)take(&at, 2 * PAGE * d_pad, sizeof(float));
    NT_CHECK(at - (char *)scratch <= NT_CPU_SCRATCH_BYTES - NT_ATTN_BWD_COUNTERS);
    return w;
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
        __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(even + i)));
        if (odd) {
            const __m512i y = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(odd + i)));
            x = _mm512_or_si512(x, _mm512_slli_epi32(y, 16));
        }
        _mm512_storeu_si512(to + 2 * i, x);
    }
}

static const uint32_t *pairs_of(const nt_bf16 *row) {
    return (const uint32_t *)(const void *)row;
}

static inline __mmask16 visible(const struct nt_attn_bwd_rows *rows, int32_t r, int32_t slot) {
    return (__mmask16)(nt_v16_mask(rows->hi[r] - slot) & ~nt_v16_mask(rows->lo[r] - slot));
}

/* c[n, 16 nv] of A rows times a page in the layout of K. */
static void page_product(int n, int nv, const struct nt_dp *p) {
    nt_dp_product(n, nv, NT_DP_ZERO, 1, p);
}

static void scores(const struct nt_attention_bwd_args *a, const struct nt_attn_bwd_rows *rows, int32_t r0, int n,
                   int nv, const nt_bf16 *k, float s[TILE][PAGE]) {
    struct nt_dp p = {.b = k, .b_step = 2 * PAGE, .pair1 = a->kv->d_head / 2, .c = s[0], .ldc = PAGE};
    for (int i = 0; i < n; i++) p.a[i] = pairs_of(rows->q[r0 + i]);
    page_product(n, nv, &p);
}

static float delta(const nt_bf16 *out, const float *dout, int32_t d_head) {
    __m512 sum = _mm512_setzero_ps();
    for (int32_t i = 0; i < d_head; i += 16) {
        const __mmask16 mask = nt_v16_mask(d_head - i);
        const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, dout + i));
        sum = _mm512_fmadd_ps(nt_v16_load_bf16(out + i, mask), nt_v16_from_bf16(rounded), sum);
    }
    return nt_v16_sum_lanes(sum);
}

static void begin(const struct nt_attention_bwd_args *a, const nt_bf16 *k, const nt_bf16 *v, int32_t n_key,
                  void *scratch) {
    const int32_t d_pad = nt_d_pad(a->kv->d_head);
    struct work *w = work_init(scratch, d_pad);
    turn(k, d_pad / 2, PAGE / 2, w->k2);
    if (n_key < PAGE && n_key % 2) /* dq adds keys in pairs: the last one's partner is whatever was there */
        for (int32_t i = 0; i < d_pad; i++) w->k2[(n_key / 2 * d_pad + i) * 2 + 1] = 0;
    turn(v, PAGE / 2, d_pad / 2, w->v2);
    memset(w->sums, 0, 2 * PAGE * (size_t)d_pad * sizeof *w->sums);
}

/* q and dout as the products want them. */
static void pack_rows(const struct nt_attention_bwd_args *a, const struct nt_attn_bwd_rows *rows, struct work *w) {
    const int32_t d = a->kv->d_head, d_pad = nt_d_pad(d);
    for (int32_t r = 0; r < rows->n; r++)
        for (int32_t i = 0; i < d_pad; i += 16) {
            const __m512 x = _mm512_maskz_loadu_ps(nt_v16_mask(d - i), rows->dout[r] + i);
            nt_v16_store_bf16(w->dout + r * d_pad + i, 0xffff, x);
        }
    for (int32_t r = 0; r < rows->n; r += 2) {
        const bool two = r + 1 < rows->n;
        interleave(rows->q[r], two ? rows->q[r + 1] : NULL, d_pad, w->q2 + r * d_pad);
        interleave(w->dout + r * d_pad, two ? w->dout + (r + 1) * d_pad : NULL, d_pad, w->dout2 + r * d_pad);
    }
}

/* P and dS of 16 slots of one row, from its scores and dP; invisible slots are 0. */
static inline void gradients(const struct nt_attention_bwd_args *a, const struct nt_attn_bwd_rows *rows, int32_t r,
                             int32_t slot, const float *s, const float *dp, __m512 *p, __m512 *ds) {
    const __mmask16 seen = visible(rows, r, slot);
    const __m512 x =
        _mm512_fmsub_ps(_mm512_loadu_ps(s), _mm512_set1_ps(a->scale * NT_LOG2E), _mm512_set1_ps(rows->lse[r]));
    const __m512 d = _mm512_sub_ps(_mm512_loadu_ps(dp), _mm512_set1_ps(rows->delta[r]));
    *p = _mm512_maskz_mov_ps(seen, nt_v16_exp2_neg(x));
    *ds = _mm512_maskz_mul_ps(seen, _mm512_mul_ps(*p, _mm512_set1_ps(a->scale)), d);
}

/* Row r and the next one (two), which are rows i and i + 1 of the tile: P in pairs, dS in pairs and by row. */
static void gradient_rows(const struct nt_attention_bwd_args *a, const struct nt_attn_bwd_rows *rows, int32_t r, int i,
                          bool two, int nv, struct work *w) {
    const __m512i mix = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (int j = 0; j < PAGE / 16; j++) {
        __m512 p[2], ds[2];
        for (int k = 0; k < 2; k++) {
            p[k] = ds[k] = _mm512_setzero_ps();
            if (j < nv && k <= two)
                gradients(a, rows, r + k, 16 * j, w->s[i + k] + 16 * j, w->dp[i + k] + 16 * j, &p[k], &ds[k]);
        }
        const __m512i p16 = (__m512i)_mm512_cvtne2ps_pbh(p[1], p[0]), ds16 = (__m512i)_mm512_cvtne2ps_pbh(ds[1], ds[0]);
        _mm512_storeu_si512(w->p2[r / 2][16 * j], _mm512_permutexvar_epi16(mix, p16));
        _mm512_storeu_si512(w->ds2[r / 2][16 * j], _mm512_permutexvar_epi16(mix, ds16));
        _mm256_storeu_si256((__m256i *)(void *)(w->ds[r] + 16 * j), _mm512_castsi512_si256(ds16));
        if (two) _mm256_storeu_si256((__m256i *)(void *)(w->ds[r + 1] + 16 * j), _mm512_extracti64x4_epi64(ds16, 1));
    }
}

/* dq += dS K */
static void add_dq(const struct nt_attention_bwd_args *a, const struct nt_attn_bwd_rows *rows, int32_t r0, int n,
                   struct work *w) {
    const int32_t d = a->kv->d_head, d_pad = nt_d_pad(d);
    struct nt_dp p = {.b_step = 2 * d_pad, .pair0 = rows->lo[r0] / 2, .pair1 = (rows->hi[r0 + n - 1] + 1) / 2};
    p.c = w->s[0];
    p.ldc = PAGE;
    for (int i = 0; i < n; i++) p.a[i] = pairs_of(w->ds[r0 + i]);
    for (int32_t col = 0; col < d_pad; col += 64) {
        const int nv = d_pad - col < 64 ? (d_pad - col) / 16 : 4;
        p.b = w->k2 + 2 * col;
        page_product(n, nv, &p);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < nv; j++) {
                const __mmask16 mask = nt_v16_mask(d - col - 16 * j);
                float *dq = rows->dq[r0 + i] + col + 16 * j;
                const __m512 old = rows->first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask, dq);
                _mm512_mask_storeu_ps(dq, mask, _mm512_add_ps(old, _mm512_loadu_ps(w->s[i] + 16 * j)));
            }
    }
}

/* sums[keys, d] += A^T B for the keys that rows see: A [rows, PAGE] and B [rows, d] in pairs of rows. */
static void add_keys(const struct nt_attn_bwd_rows *rows, int32_t d_pad, const nt_bf16 *a2, const nt_bf16 *b2,
                     float *sums) {
    const int32_t keys = rows->hi[rows->n - 1], n_tile = (keys + TILE - 1) / TILE;
    int32_t first = 0; /* row that sees the tile's first key */
    for (int32_t t = 0; t < n_tile; t++) {
        const int32_t k0 = t * keys / n_tile, n = (t + 1) * keys / n_tile - k0;
        struct nt_dp p = {.a_step = PAGE, .b_step = 2 * d_pad, .pair1 = (rows->n + 1) / 2, .ldc = d_pad};
        while (rows->hi[first] <= k0) first++;
        p.pair0 = first / 2;
        for (int i = 0; i < n; i++) p.a[i] = pairs_of(a2) + k0 + i;
        for (int32_t col = 0; col < d_pad; col += 64) {
            p.b = b2 + 2 * col;
            p.c = sums + k0 * d_pad + col;
            nt_dp_product(n, d_pad - col < 64 ? (d_pad - col) / 16 : 4, NT_DP_ADD, PAGE, &p);
        }
    }
}

static void rows_part(const struct nt_attention_bwd_args *a, const struct nt_attn_bwd_rows *rows, const nt_bf16 *k,
                      void *scratch) {
    const int32_t d_pad = nt_d_pad(a->kv->d_head);
    struct work *w = scratch;
    pack_rows(a, rows, w);
    for (int32_t r0 = 0; r0 < rows->n; r0 += TILE) {
        const int32_t n = rows->n - r0 < TILE ? rows->n - r0 : TILE, nv = (rows->hi[r0 + n - 1] + 15) / 16;
        struct nt_dp p = {.b = w->v2, .b_step = 2 * PAGE, .pair1 = a->kv->d_head / 2, .c = w->dp[0], .ldc = PAGE};
        nt_attn_bwd_fetch_ahead(rows, r0, n, a->kv->d_head);
        scores(a, rows, r0, n, nv, k, w->s);
        for (int i = 0; i < n; i++) p.a[i] = pairs_of(w->dout + (r0 + i) * d_pad);
        page_product(n, nv, &p);
        for (int i = 0; i < n; i += 2) gradient_rows(a, rows, r0 + i, i, i + 1 < n, nv, w);
        add_dq(a, rows, r0, n, w);
    }
    add_keys(rows, d_pad, w->ds2[0][0], w->q2, w->sums);
    add_keys(rows, d_pad, w->p2[0][0], w->dout2, w->sums + PAGE * d_pad);
}

static const float *sums(void *scratch) {
    return ((struct work *)scratch)->sums;
}

nt_status nt_attention_bwd_avx512(struct nt_backend *be, const struct nt_attention_bwd_args *args) {
    static const struct nt_attn_bwd_body body = {
        .max_rows = ROWS, .delta = delta, .begin = begin, .rows = rows_part, .sums = sums};
    return nt_attn_bwd_run(be, args, &body) ? NT_OK : nt_attention_bwd_portable(be, args);
}
