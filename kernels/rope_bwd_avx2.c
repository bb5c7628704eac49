/* The gradient of rotary embedding and q/k norm, 8 pairs at a time; the structure is that of rope_bwd_avx512.c. */
#include "cpu_rope_bwd.h"
#include "cpu_vec.h"
#include <math.h>

/* Columns j.. of a head's halves. */
struct halves {
    __m256 a, b;
};

static inline struct halves load(const float *x, int32_t half, int32_t j) {
    return (struct halves){nt_v8_load(x + j, half - j), nt_v8_load(x + half + j, half - j)};
}

static inline void store(nt_bf16 *y, int32_t half, int32_t j, struct halves v) {
    nt_v8_store_bf16(y + j, half - j, v.a);
    nt_v8_store_bf16(y + half + j, half - j, v.b);
}

/* The gradient rotated back. */
static inline struct halves turned(const struct nt_rope_bwd_head *h, int32_t j) {
    const int32_t half = h->d / 2;
    const struct halves g = load(h->dy, half, j);
    if (!h->cos) return g;
    const __m256 c = nt_v8_load(h->cos + j, half - j), s = nt_v8_load(h->sin + j, half - j);
    return (struct halves){_mm256_fmadd_ps(g.a, c, _mm256_mul_ps(g.b, s)),
                           _mm256_fmsub_ps(g.b, c, _mm256_mul_ps(g.a, s))};
}

/* 1 / rms of the head, and by how much of x the gradient is less. */
static void factors(const struct nt_rope_bwd_head *h, float *scale, float *less) {
    const int32_t half = h->d / 2;
    __m256 square = _mm256_setzero_ps(), dot = square;
    for (int32_t j = 0; j < half; j += 8) {
        const struct halves g = turned(h, j), x = load(h->x, half, j), w = load(h->norm, half, j);
        square = _mm256_fmadd_ps(x.a, x.a, _mm256_fmadd_ps(x.b, x.b, square));
        dot = _mm256_fmadd_ps(_mm256_mul_ps(g.a, w.a), x.a, _mm256_fmadd_ps(_mm256_mul_ps(g.b, w.b), x.b, dot));
    }
    const float d = (float)h->d, s = 1.0f / sqrtf(nt_v8_sum_lanes(square) / d + h->eps);
    *scale = s;
    *less = s * s * (nt_v8_sum_lanes(dot) / d);
}

static inline void add(float *to, int32_t left, __m256 x) {
    nt_v8_store(to, left, _mm256_add_ps(nt_v8_load(to, left), x));
}

static void normed(const struct nt_rope_bwd_head *h) {
    const int32_t half = h->d / 2;
    float scale, less;
    factors(h, &scale, &less);
    const __m256 s = _mm256_set1_ps(scale), c = _mm256_set1_ps(less);
    for (int32_t j = 0; j < half; j += 8) {
        const struct halves g = turned(h, j), x = load(h->x, half, j), w = load(h->norm, half, j);
        if (h->dnorm) {
            add(h->dnorm + j, half - j, _mm256_mul_ps(g.a, _mm256_mul_ps(x.a, s)));
            add(h->dnorm + half + j, half - j, _mm256_mul_ps(g.b, _mm256_mul_ps(x.b, s)));
        }
        const struct halves dx = {
            _mm256_mul_ps(s, _mm256_fmsub_ps(g.a, w.a, _mm256_mul_ps(x.a, c))),
            _mm256_mul_ps(s, _mm256_fmsub_ps(g.b, w.b, _mm256_mul_ps(x.b, c))),
        };
        store(h->out, half, j, dx);
    }
}

static void head_bwd(const struct nt_rope_bwd_head *h) {
    if (h->norm)
        normed(h);
    else
        for (int32_t j = 0; j < h->d / 2; j += 8) store(h->out, h->d / 2, j, turned(h, j));
}

nt_status nt_rope_bwd_avx2(struct nt_backend *be, const struct nt_rope_bwd_args *args) {
    nt_rope_bwd_run(be, args, head_bwd);
    return NT_OK;
}
