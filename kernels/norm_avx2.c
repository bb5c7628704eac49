/* Residual add + RMS norm, 8 columns at a time; the sum of squares has four registers of partial sums. */
#include "cpu_rows.h"
#include "cpu_vec.h"
#include <math.h>

static float add_and_square(float *x, const float *delta, int32_t n) {
    __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int32_t i = 0; i < n; i += 32) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const int32_t at = i + 8 * j;
            if (at >= n) break;
            __m256 v = nt_v8_load(x + at, n - at);
            if (delta) {
                v = _mm256_add_ps(v, nt_v8_load(delta + at, n - at));
                nt_v8_store(x + at, n - at, v);
            }
            sum[j] = _mm256_fmadd_ps(v, v, sum[j]);
        }
    }
    return nt_v8_sum_lanes(_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3])));
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
        const __m256 s = _mm256_set1_ps(1.0f / sqrtf(sum / (float)n + a->eps));
        for (int32_t i = 0; i < n; i += 8) {
            const __m256 v = _mm256_mul_ps(nt_v8_load(x + i, n - i), s);
            nt_v8_store_bf16(y + i, n - i, _mm256_mul_ps(v, nt_v8_load(a->w + i, n - i)));
        }
        if (a->keep) memcpy(a->keep + r * n, x, (size_t)n * sizeof *x);
    }
}

nt_status nt_rmsnorm_avx2(struct nt_backend *be, const struct nt_rmsnorm_args *args) {
    NT_CHECK(!(args->rows && args->delta));
    struct nt_rmsnorm_args a = *args;
    nt_rows_run(be, norm_thread, &a, args->n_rows, args->d_model);
    return NT_OK;
}
