/* The gradient of rotary embedding and q/k norm, 16 pairs at a time; a head's sums are those of its two halves. */
#include "cpu_rope_bwd.h"
#include "cpu_vec.h"
#include <math.h>

/* Columns j.. of a head's halves. */
struct halves {
    __m512 a, b;
};

static inline struct halves load(const float *x, int32_t half, int32_t j, __mmask16 mask) {
    return (struct halves){_mm512_maskz_loadu_ps(mask, x + j), _mm512_maskz_loadu_ps(mask, x + half + j)};
}

static inline void store(nt_bf16 *y, int32_t half, int32_t j, __mmask16 mask, struct halves v) {
    nt_v16_store_bf16(y + j, mask, v.a);
    nt_v16_store_bf16(y + half + j, mask, v.b);
}

/* The gradient rotated back. */
static inline struct halves turned(const struct nt_rope_bwd_head *h, int32_t j, __mmask16 mask) {
    const struct halves g = load(h->dy, h->d / 2, j, mask);
    if (!h->cos) return g;
    const __m512 c = _mm512_maskz_loadu_ps(mask, h->cos + j), s = _mm512_maskz_loadu_ps(mask, h->sin + j);
    return (struct halves){_mm512_fmadd_ps(g.a, c, _mm512_mul_ps(g.b, s)),
                           _mm512_fmsub_ps(g.b, c, _mm512_mul_ps(g.a, s))};
}

static void plain(const struct nt_rope_bwd_head *h) {
    for (int32_t half = h->d / 2, j = 0; j < half; j += 16) {
        const __mmask16 mask = nt_v16_mask(half - j);
        store(h->out, half, j, mask, turned(h, j, mask));
    }
}

/* 1 / rms of the head, and by how much of x the gradient is less. */
static void factors(const struct nt_rope_bwd_head *h, float *scale, float *less) {
    const int32_t half = h->d / 2;
    __m512 square = _mm512_setzero_ps(), dot = square;
    for (int32_t j = 0; j < half; j += 16) {
        const __mmask16 mask = nt_v16_mask(half - j);
        const struct halves g = turned(h, j, mask), x = load(h->x, half, j, mask), w = load(h->norm, half, j, mask);
        square = _mm512_fmadd_ps(x.a, x.a, _mm512_fmadd_ps(x.b, x.b, square));
        dot = _mm512_fmadd_ps(_mm512_mul_ps(g.a, w.a), x.a, _mm512_fmadd_ps(_mm512_mul_ps(g.b, w.b), x.b, dot));
    }
    const float d = (float)h->d, s = 1.0f / sqrtf(nt_v16_sum_lanes(square) / d + h->eps);
    *scale = s;
    *less = s * s * (nt_v16_sum_lanes(dot) / d);
}

static inline void add(float *to, __mmask16 mask, __m512 x) {
    _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), x));
}

static void normed(const struct nt_rope_bwd_head *h) {
    const int32_t half = h->d / 2;
    float scale, less;
    factors(h, &scale, &less);
    const __m512 s = _mm512_set1_ps(scale), c = _mm512_set1_ps(less);
    for (int32_t j = 0; j < half; j += 16) {
        const __mmask16 mask = nt_v16_mask(half - j);
        const struct halves g = turned(h, j, mask), x = load(h->x, half, j, mask), w = load(h->norm, half, j, mask);
        if (h->dnorm) {
            add(h->dnorm + j, mask, _mm512_mul_ps(g.a, _mm512_mul_ps(x.a, s)));
            add(h->dnorm + half + j, mask, _mm512_mul_ps(g.b, _mm512_mul_ps(x.b, s)));
        }
        const struct halves dx = {
            _mm512_mul_ps(s, _mm512_fmsub_ps(g.a, w.a, _mm512_mul_ps(x.a, c))),
            _mm512_mul_ps(s, _mm512_fmsub_ps(g.b, w.b, _mm512_mul_ps(x.b, c))),
        };
        store(h->out, half, j, mask, dx);
    }
}

static void head_bwd(const struct nt_rope_bwd_head *h) {
    if (h->norm)
        normed(h);
    else
        plain(h);
}

nt_status nt_rope_bwd_avx512(struct nt_backend *be, const struct nt_rope_bwd_args *args) {
    nt_rope_bwd_run(be, args, head_bwd);
    return NT_OK;
}
