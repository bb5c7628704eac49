/* The gradient of the RMS norm, 8 columns at a time; both sums of a row have four registers of partial sums. */
#include "cpu_norm_bwd.h"
#include "cpu_vec.h"
#include <math.h>

struct sums {
    float square, dot;
};

static struct sums row_sums(const float *x, const float *dy, const float *w, int32_t n) {
    __m256 square[4], dot[4];
    for (int j = 0; j < 4; j++) square[j] = dot[j] = _mm256_setzero_ps();
    for (int32_t i = 0; i < n; i += 32) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const int32_t at = i + 8 * j, left = n - at;
            if (left <= 0) break;
            const __m256 v = nt_v8_load(x + at, left);
            const __m256 g = _mm256_mul_ps(nt_v8_load(dy + at, left), nt_v8_load(w + at, left));
            square[j] = _mm256_fmadd_ps(v, v, square[j]);
            dot[j] = _mm256_fmadd_ps(g, v, dot[j]);
        }
    }
    const __m256 s = _mm256_add_ps(_mm256_add_ps(square[0], square[1]), _mm256_add_ps(square[2], square[3]));
    const __m256 d = _mm256_add_ps(_mm256_add_ps(dot[0], dot[1]), _mm256_add_ps(dot[2], dot[3]));
    return (struct sums){nt_v8_sum_lanes(s), nt_v8_sum_lanes(d)};
}

static void rows_thread(void *arg, int thread, int n_threads) {
    const struct nt_norm_bwd_block *block = arg;
    const struct nt_rmsnorm_bwd_args *a = block->args;
    const int32_t n = a->d_model;
    int64_t begin, end;
    nt_split(block->n, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const int64_t at = (block->first + r) * n;
        const float *x = a->x + at, *dy = a->dy + at;
        const struct sums sum = row_sums(x, dy, a->w, n);
        const float scale = 1.0f / sqrtf(sum.square / (float)n + a->eps);
        const __m256 s = _mm256_set1_ps(scale), c = _mm256_set1_ps(scale * scale * (sum.dot / (float)n));
        block->scale[r] = scale;
        for (int32_t i = 0; i < n; i += 8) {
            const __m256 g = _mm256_mul_ps(nt_v8_load(dy + i, n - i), nt_v8_load(a->w + i, n - i));
            const __m256 step = _mm256_fnmadd_ps(nt_v8_load(x + i, n - i), c, g);
            const __m256 dx = _mm256_fmadd_ps(s, step, nt_v8_load(a->dx + at + i, n - i));
            nt_v8_store(a->dx + at + i, n - i, dx);
            if (a->dx16) nt_v8_store_bf16(a->dx16 + at + i, n - i, dx);
        }
    }
}

nt_status nt_rmsnorm_bwd_avx2(struct nt_backend *be, const struct nt_rmsnorm_bwd_args *args) {
    nt_norm_bwd_run(be, args, rows_thread);
    return NT_OK;
}
