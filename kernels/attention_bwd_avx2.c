/* The gradient of attention with float multiply-add; the structure is that of attention_bwd_avx512.c.
 *
 * Every operand becomes floats once (values of bf16): K and V of the page turned to [d, slots], K also [slots, d]; q
 * and dout of the rows. All five products are then C[i][col] += sum over k of A[i][k] B[k][col], k ascending: scores
 * and dP over d, dq over slots, dk and dv over rows. P and dS are rounded to bf16 as the contract says. */
#include "cpu_attention_bwd.h"
#include "cpu_vec.h"

enum { TILE = 6, COLS = 16, ROWS = 96, PAGE = NT_KV_PAGE };
_Static_assert((int)ROWS <= (int)NT_ATTN_BWD_ROWS && PAGE % COLS == 0 && NT_ATTN_LANES == 16, "rows and pages as here");

struct work {
    float s[TILE][PAGE], dp[TILE][PAGE], p[ROWS][PAGE], ds[ROWS][PAGE];
    float *q, *dout, *dq; // [rows, d_pad]
    float *kt, *vt, *kf;  // [d_pad, PAGE], [d_pad, PAGE], [PAGE, d_pad]
};

static void work_init(struct work *w, int32_t rows, int32_t d_pad) {
    float *at = (float *)(void *)w + (sizeof *w + 63) / 64 * 16;
    w->q = at;
    w->dout = w->q + rows * d_pad;
    w->dq = w->dout + rows * d_pad;
    w->kt = w->dq + rows * d_pad;
    w->vt = w->kt + PAGE * d_pad;
    w->kf = w->vt + PAGE * d_pad;
    NT_CHECK((size_t)((char *)(w->kf + PAGE * d_pad) - (char *)w) <= nt_attn_bwd_scratch(d_pad));
}

struct product {
    const float *a[TILE];
    const float *b;
    float *c;
    int64_t a_step, ldb, ldc;
    int32_t k0, k1;
};

/* 16 columns of n rows; n and add are constants after inlining. */
static inline __attribute__((always_inline)) void tile(int n, bool add, const struct product *p) {
    __m256 acc[TILE][2];
    const float *b = p->b + p->k0 * p->ldb;
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
        acc[i][0] = add ? _mm256_loadu_ps(p->c + i * p->ldc) : _mm256_setzero_ps();
        acc[i][1] = add ? _mm256_loadu_ps(p->c + i * p->ldc + 8) : _mm256_setzero_ps();
    }
    for (int64_t k = p->k0; k < p->k1; k++, b += p->ldb) {
        const __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) {
            const __m256 a = _mm256_broadcast_ss(p->a[i] + k * p->a_step);
            acc[i][0] = _mm256_fmadd_ps(a, b0, acc[i][0]);
            acc[i][1] = _mm256_fmadd_ps(a, b1, acc[i][1]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
        _mm256_storeu_ps(p->c + i * p->ldc, acc[i][0]);
        _mm256_storeu_ps(p->c + i * p->ldc + 8, acc[i][1]);
    }
}

static inline __attribute__((always_inline)) void tiles(int n, bool add, const struct product *p) {
    switch (n) {
    case 1:
        tile(1, add, p);
        break;
    case 2:
        tile(2, add, p);
        break;
    case 3:
        tile(3, add, p);
        break;
    case 4:
        tile(4, add, p);
        break;
    case 5:
        tile(5, add, p);
        break;
    default:
        tile(6, add, p);
    }
}

/* The first cols columns, a multiple of COLS. */
static void product_set(int n, int32_t cols, struct product p) {
    for (int32_t col = 0; col < cols; col += COLS, p.b += COLS, p.c += COLS) tiles(n, false, &p);
}
static void product_add(int n, int32_t cols, struct product p) {
    for (int32_t col = 0; col < cols; col += COLS, p.b += COLS, p.c += COLS) tiles(n, true, &p);
}

static inline __m256 visible(const struct nt_attn_bwd_rows *rows, int32_t r, int32_t slot) {
    const __m256i hidden = nt_v8_mask(rows->lo[r] - slot), below = nt_v8_mask(rows->hi[r] - slot);
    return _mm256_castsi256_ps(_mm256_andnot_si256(hidden, below));
}

/* K as [d, slots]: the even and odd element of each pair apart. */
static void turn_k(const nt_bf16 *k, int32_t d_pad, float *kt) {
    const __m256i high = _mm256_set1_epi32((int32_t)0xffff0000u);
    for (int32_t i = 0; i < d_pad; i += 2, k += 2 * PAGE)
        for (int32_t slot = 0; slot < PAGE; slot += 8) {
            const __m256i both = _mm256_loadu_si256((const __m256i *)(const void *)(k + 2 * slot));
            _mm256_storeu_ps(kt + i * PAGE + slot, _mm256_castsi256_ps(_mm256_slli_epi32(both, 16)));
            _mm256_storeu_ps(kt + (i + 1) * PAGE + slot, _mm256_castsi256_ps(_mm256_and_si256(both, high)));
        }
}

static inline __m256 rounded(__m256 x) {
    return nt_v8_from_bf16(nt_v8_to_bf16(x));
}

static float delta(const nt_bf16 *out, const float *dout, int32_t d_head) {
    __m256 sum = _mm256_setzero_ps();
    int32_t i = 0;
    for (; i + 8 <= d_head; i += 8)
        sum = _mm256_fmadd_ps(nt_v8_load_bf16(out + i), rounded(_mm256_loadu_ps(dout + i)), sum);
    float total = nt_v8_sum_lanes(sum);
    for (; i < d_head; i++) total += nt_bf16_to_f32(out[i]) * nt_bf16_to_f32(nt_f32_to_bf16(dout[i]));
    return total;
}

static void begin(const struct nt_attention_bwd_args *a, struct nt_attn_bwd_rows *rows, void *scratch) {
    const int32_t d = a->kv->d_head, d_pad = nt_d_pad(d);
    struct work *w = scratch;
    work_init(w, rows->n, d_pad);
    for (int32_t r = 0; r < rows->n; r++) {
        rows->delta[r] = delta(rows->out[r], rows->dout[r], d);
        for (int32_t i = 0; i < d_pad; i += 8) {
            _mm256_storeu_ps(w->q + r * d_pad + i, nt_v8_load_bf16(rows->q[r] + i));
            _mm256_storeu_ps(w->dout + r * d_pad + i, rounded(nt_v8_load(rows->dout[r] + i, d - i)));
        }
    }
}

static void end(const struct nt_attention_bwd_args *a, const struct nt_attn_bwd_rows *rows, void *scratch) {
    const int32_t d = a->kv->d_head, d_pad = nt_d_pad(d);
    const struct work *w = scratch;
    for (int32_t r = 0; r < rows->n; r++) memcpy(rows->dq[r], w->dq + r * d_pad, (size_t)d * sizeof *w->dq);
}

static void turn_page(const struct nt_attn_bwd_page *page, int32_t d_pad, struct work *w) {
    turn_k(page->k, d_pad, w->kt);
    for (int32_t slot = 0; slot < PAGE; slot++)
        for (int32_t i = 0; i < d_pad; i++) {
            w->kf[slot * d_pad + i] = w->kt[i * PAGE + slot];
            w->vt[i * PAGE + slot] = nt_bf16_to_f32(page->v[slot / 2 * 2 * d_pad + 2 * i + slot % 2]);
        }
}

/* s[n, slots] of A rows [r0, r0 + n) times a page as [d, slots], up to the last slot that one of them sees. */
static void page_product(const struct nt_attn_bwd_rows *rows, int32_t r0, int n, const float *a, int32_t d_pad,
                         const float *page, float s[TILE][PAGE]) {
    struct product p = {.b = page, .c = s[0], .a_step = 1, .ldb = PAGE, .ldc = PAGE, .k1 = d_pad};
    for (int i = 0; i < n; i++) p.a[i] = a + (r0 + i) * d_pad;
    product_set(n, (rows->hi[r0 + n - 1] + COLS - 1) / COLS * COLS, p);
}

/* P and dS of one row, from its scores and dP; invisible slots are 0. */
static void gradient_row(const struct nt_attention_bwd_args *a, const struct nt_attn_bwd_rows *rows, int32_t r,
                         const float s[PAGE], const float dp[PAGE], struct work *w) {
    const __m256 factor = _mm256_set1_ps(a->scale * NT_LOG2E), lse = _mm256_set1_ps(rows->lse[r]);
    const __m256 scale = _mm256_set1_ps(a->scale), delta = _mm256_set1_ps(rows->delta[r]);
    for (int32_t j = 0; j < PAGE; j += 8) {
        __m256 p = _mm256_setzero_ps(), ds = p;
        if (j < rows->hi[r]) {
            const __m256 seen = visible(rows, r, j), x = _mm256_fmsub_ps(_mm256_loadu_ps(s + j), factor, lse);
            p = _mm256_and_ps(seen, nt_v8_exp2_neg(x));
            ds = _mm256_mul_ps(_mm256_mul_ps(p, scale), _mm256_sub_ps(_mm256_loadu_ps(dp + j), delta));
            ds = _mm256_and_ps(seen, ds);
        }
        _mm256_storeu_ps(w->p[r] + j, rounded(p));
        _mm256_storeu_ps(w->ds[r] + j, rounded(ds));
    }
}

/* dq += dS K */
static void add_dq(const struct nt_attn_bwd_rows *rows, int32_t r0, int n, int32_t d_pad, struct work *w) {
    struct product p = {.b = w->kf,
                        .c = w->dq + r0 * d_pad,
                        .a_step = 1,
                        .ldb = d_pad,
                        .ldc = d_pad,
                        .k0 = rows->lo[r0],
                        .k1 = rows->hi[r0 + n - 1]};
    for (int i = 0; i < n; i++) p.a[i] = w->ds[r0 + i];
    if (rows->first)
        product_set(n, d_pad, p);
    else
        product_add(n, d_pad, p);
}

/* sums[keys, ld] += A^T B for the keys that rows see: A [rows, PAGE], B [rows, d_pad]. */
static void add_keys(const struct nt_attn_bwd_rows *rows, int32_t d_pad, const float *a, const float *b, float *sums,
                     int64_t ld) {
    const int32_t keys = rows->hi[rows->n - 1];
    struct product p = {.b = b, .a_step = PAGE, .ldb = d_pad, .ldc = ld, .k1 = rows->n};
    for (int32_t key = 0; key < keys; key += TILE) {
        const int n = keys - key < TILE ? keys - key : TILE;
        while (rows->hi[p.k0] <= key) p.k0++; /* rows before the first that sees the tile */
        for (int i = 0; i < n; i++) p.a[i] = a + key + i;
        p.c = sums + key * ld;
        product_add(n, d_pad, p);
    }
}

static void page(const struct nt_attention_bwd_args *a, const struct nt_attn_bwd_rows *rows,
                 const struct nt_attn_bwd_page *page, void *scratch) {
    const int32_t d = a->kv->d_head, d_pad = nt_d_pad(d);
    struct work *w = scratch;
    turn_page(page, d_pad, w);
    for (int32_t r0 = 0; r0 < rows->n; r0 += TILE) {
        const int32_t n = rows->n - r0 < TILE ? rows->n - r0 : TILE;
        nt_attn_bwd_fetch_ahead(rows, r0, n, d);
        page_product(rows, r0, n, w->q, d_pad, w->kt, w->s);
        page_product(rows, r0, n, w->dout, d_pad, w->vt, w->dp);
        for (int32_t i = 0; i < n; i++) gradient_row(a, rows, r0 + i, w->s[i], w->dp[i], w);
        add_dq(rows, r0, n, d_pad, w);
    }
    add_keys(rows, d_pad, w->ds[0], w->q, page->dk, page->ld);
    add_keys(rows, d_pad, w->p[0], w->dout, page->dv, page->ld);
}

nt_status nt_attention_bwd_avx2(struct nt_backend *be, const struct nt_attention_bwd_args *args) {
    static const struct nt_attn_bwd_body body = {.max_rows = ROWS, .begin = begin, .page = page, .end = end};
    return nt_attn_bwd_run(be, args, &body) ? NT_OK : nt_attention_bwd_portable(be, args);
}
