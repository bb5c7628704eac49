/* The gradient of the gated activation, half a panel at a time. */
#include "cpu_bodies.h"
#include "cpu_vec.h"
#include "ops_bwd.h"

enum { HALF = NT_PANEL / 2 };
_Static_assert(HALF == 16, "a half panel is a register");

/* The value and the slope of the portable body. */
static inline __m512 activate(__m512 x, bool gelu, __m512 *slope) {
    const __m512 one = _mm512_set1_ps(1.0f), sign = _mm512_set1_ps(-0.0f);
    /* of min and max, the second operand is taken when one is a NaN */
    const __m512 l = _mm512_max_ps(_mm512_set1_ps(-64.0f), _mm512_min_ps(_mm512_set1_ps(64.0f), x));
    __m512 v = x, lv = l;
    if (gelu) {
        const __m512 c = _mm512_set1_ps(1.5957691216f);
        const __m512 x3 = _mm512_mul_ps(_mm512_mul_ps(x, x), x), l3 = _mm512_mul_ps(_mm512_mul_ps(l, l), l);
        v = _mm512_mul_ps(_mm512_fmadd_ps(x3, _mm512_set1_ps(0.044715f), x), c);
        lv = _mm512_mul_ps(_mm512_fmadd_ps(l3, _mm512_set1_ps(0.134145f), l), c);
    }
    const __m512 t = nt_v16_exp2_neg(_mm512_mul_ps(_mm512_or_ps(v, sign), _mm512_set1_ps(NT_LOG2E)));
    const __m512 large = _mm512_div_ps(one, _mm512_add_ps(one, t)), small = _mm512_mul_ps(t, large);
    const __m512 g = _mm512_mask_mov_ps(large, _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ), small);
    *slope = _mm512_fmadd_ps(lv, _mm512_mul_ps(large, small), g);
    return _mm512_mul_ps(x, g);
}

static inline void row(const struct nt_glu_bwd_args *a, int64_t t, bool gelu) {
    const nt_bf16 *pre = a->pre + t * a->ldpre;
    for (int32_t j = 0; j < a->n; j += HALF) {
        const __m512 gate = nt_v16_load_bf16(pre + 2 * j, 0xffff), up = nt_v16_load_bf16(pre + 2 * j + HALF, 0xffff);
        __m512 slope;
        const __m512 value = activate(gate, gelu, &slope);
        if (a->y) nt_v16_store_bf16(a->y + t * a->ldy + j, 0xffff, _mm512_mul_ps(value, up));
        if (!a->dy) continue;
        const __m512 dy = _mm512_loadu_ps(a->dy + t * a->lddy + j);
        nt_bf16 *dpre = a->dpre + t * a->ldpre + 2 * j;
        nt_v16_store_bf16(dpre, 0xffff, _mm512_mul_ps(_mm512_mul_ps(dy, up), slope));
        nt_v16_store_bf16(dpre + HALF, 0xffff, _mm512_mul_ps(dy, value));
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

nt_status nt_glu_bwd_avx512(struct nt_backend *be, const struct nt_glu_bwd_args *args) {
    NT_CHECK(args->n % HALF == 0 && !args->dy == !args->dpre);
    struct nt_glu_bwd_args a = *args;
    nt_pool_run(be->pool, glu_thread, &a);
    return NT_OK;
}
