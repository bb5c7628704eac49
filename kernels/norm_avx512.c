/* Residual add + RMS norm, 16 columns at a time; the sum of squares has four registers of partial sums. */
#include "cpu_rows.h"
#include "cpu_vec.h"
#include <math.h>

static float add_and_square(float *x, const float *delta, int32_t n) {
    __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int32_t i = 0; i < n; i += 64) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const int32_t at = i + 16 * j;
            const __mmask16 mask = nt_v16_mask(n - at);
            if (!mask) break;
            __m512 v = _mm512_maskz_loadu_ps(mask, x + at);
            if (delta) {
                v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, delta + at));
                _mm512_mask_storeu_ps(x + at, mask, v);
            }
            sum[j] = _mm512_fmadd_ps(v, v, sum[j]);
        }
    }
    return nt_v16_sum_lanes(_mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
}

/* Read again in the backward, when no cache has it any more: past the caches where lines are whole. */
static void keep_row(const float *x, int32_t n, float *to) {
    const bool lines = n % 16 == 0 && ((uintptr_t)to & 63) == 0;
    for (int32_t i = 0; i < n; i += 16) {
        const __mmask16 mask = nt_v16_mask(n - i);
        const __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        if (lines)
            _mm512_stream_ps(to + i, v);
        else
            _mm512_mask_storeu_ps(to + i, mask, v);
    }
}

static void norm_thread(void *arg, int thread, int n_threads) {
    const struct nt_rmsnorm_args *a = arg;
    const int32_t n = a->d_model;
    int64_t begin, end;
    nt_split(a->n_rows, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const int64_t t = a->rows ? a->rows[r] : r;
        float *x = a->x + t * n;
        nt_bf16 *y = a->y + r * a->ldy;
        const float sum = add_and_square(x, a->delta ? a->delta + t * n : NULL, n);
        const __m512 s = _mm512_set1_ps(1.0f / sqrtf(sum / (float)n + a->eps));
        for (int32_t i = 0; i < n; i += 16) {
            const __mmask16 mask = nt_v16_mask(n - i);
            const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), s);
            nt_v16_store_bf16(y + i, mask, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, a->w + i)));
        }
        if (a->keep) keep_row(x, n, a->keep + r * n);
    }
    if (a->keep) _mm_sfence();
}

nt_status nt_rmsnorm_avx512(struct nt_backend *be, const struct nt_rmsnorm_args *args) {
    NT_CHECK(!(args->rows && args->delta));
    struct nt_rmsnorm_args a = *args;
    nt_rows_run(be, norm_thread, &a, args->n_rows, args->d_model);
    return NT_OK;
}
