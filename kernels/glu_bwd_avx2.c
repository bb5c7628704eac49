/* The gradient of the gated activation, 8 gates at a time. */
#include "cpu_bodies.h"
#include "cpu_vec.h"
#include "ops_bwd.h"

enum { HALF = NT_PANEL / 2 };

/* The value and the slope of the portable body. */
static inline __m256 activate(__m256 x, bool gelu, __m256 *slope) {
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    /* of min and max, the second operand is taken when one is a NaN */
    const __m256 l = _mm256_max_ps(_mm256_set1_ps(-64.0f), _mm256_min_ps(_mm256_set1_ps(64.0f), x));
    __m256 v = x, lv = l;
    if (gelu) {
        const __m256 c = _mm256_set1_ps(1.5957691216f);
        const __m256 x3 = _mm256_mul_ps(_mm256_mul_ps(x, x), x), l3 = _mm256_mul_ps(_mm256_mul_ps(l, l), l);
        v = _mm256_mul_ps(_mm256_fmadd_ps(x3, _mm256_set1_ps(0.044715f), x), c);
        lv = _mm256_mul_ps(_mm256_fmadd_ps(l3, _mm256_set1_ps(0.134145f), l), c);
    }
    const __m256 t = nt_v8_exp2_neg(_mm256_mul_ps(_mm256_or_ps(v, sign), _mm256_set1_ps(NT_LOG2E)));
    const __m256 large = _mm256_div_ps(one, _mm256_add_ps(one, t)), small = _mm256_mul_ps(t, large);
    const __m256 g = _mm256_blendv_ps(large, small, _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_LT_OQ));
    *slope = _mm256_fmadd_ps(lv, _mm256_mul_ps(large, small), g);
    return _mm256_mul_ps(x, g);
}

static inline void row(const struct nt_glu_bwd_args *a, int64_t t, bool gelu) {
    const nt_bf16 *pre = a->pre + t * a->ldpre;
    for (int32_t j = 0; j < a->n; j += 8) {
        const int32_t at = j / HALF * NT_PANEL + j % HALF;
        const __m256 gate = nt_v8_load_bf16(pre + at), up = nt_v8_load_bf16(pre + at + HALF);
        __m256 slope;
        const __m256 value = activate(gate, gelu, &slope);
        if (a->y) nt_v8_store_bf16(a->y + t * a->ldy + j, 8, _mm256_mul_ps(value, up));
        if (!a->dy) continue;
        const __m256 dy = _mm256_loadu_ps(a->dy + t * a->lddy + j);
        nt_bf16 *dpre = a->dpre + t * a->ldpre + at;
        nt_v8_store_bf16(dpre, 8, _mm256_mul_ps(_mm256_mul_ps(dy, up), slope));
        nt_v8_store_bf16(dpre + HALF, 8, _mm256_mul_ps(dy, value));
    }
}

static void glu_thread(void *arg, int thread, int n_threads) {
    const struct nt_glu_bwd_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_tok, 1, thread, n_threads, &begin, &end);
    for (int64_t t = begin; t < end; t++) {
        if (a->gelu)
            row(a, t, true);
        else
            row(a, t, false);
    }
}

nt_status nt_glu_bwd_avx2(struct nt_backend *be, const struct nt_glu_bwd_args *args) {
    NT_CHECK(args->n % HALF == 0 && !args->dy == !args->dpre);
    struct nt_glu_bwd_args a = *args;
    nt_pool_run(be->pool, glu_thread, &a);
    return NT_OK;
}
