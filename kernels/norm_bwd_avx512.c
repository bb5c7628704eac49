/* The gradient of the RMS norm, 16 columns at a time; both sums of a row have four registers of partial sums. */
#include "cpu_norm_bwd.h"
#include "cpu_vec.h"
#include <math.h>

struct sums {
    float square, dot;
};

static struct sums row_sums(const float *x, const float *dy, const float *w, int32_t n) {
    __m512 square[4], dot[4];
    for (int j = 0; j < 4; j++) square[j] = dot[j] = _mm512_setzero_ps();
    for (int32_t i = 0; i < n; i += 64) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const int32_t at = i + 16 * j;
            const __mmask16 mask = nt_v16_mask(n - at);
            if (!mask) break;
            const __m512 v = _mm512_maskz_loadu_ps(mask, x + at);
            const __m512 g = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, dy + at), _mm512_maskz_loadu_ps(mask, w + at));
            square[j] = _mm512_fmadd_ps(v, v, square[j]);
            dot[j] = _mm512_fmadd_ps(g, v, dot[j]);
        }
    }
    const __m512 s = _mm512_add_ps(_mm512_add_ps(square[0], square[1]), _mm512_add_ps(square[2], square[3]));
    const __m512 d = _mm512_add_ps(_mm512_add_ps(dot[0], dot[1]), _mm512_add_ps(dot[2], dot[3]));
    return (struct sums){nt_v16_sum_lanes(s), nt_v16_sum_lanes(d)};
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
        const __m512 s = _mm512_set1_ps(scale), c = _mm512_set1_ps(scale * scale * (sum.dot / (float)n));
        block->scale[r] = scale;
        for (int32_t i = 0; i < n; i += 16) {
            const __mmask16 mask = nt_v16_mask(n - i);
            const __m512 g = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, dy + i), _mm512_maskz_loadu_ps(mask, a->w + i));
            const __m512 step = _mm512_fnmadd_ps(_mm512_maskz_loadu_ps(mask, x + i), c, g);
            const __m512 dx = _mm512_fmadd_ps(s, step, _mm512_maskz_loadu_ps(mask, a->dx + at + i));
            _mm512_mask_storeu_ps(a->dx + at + i, mask, dx);
            if (a->dx16) nt_v16_store_bf16(a->dx16 + at + i, mask, dx);
        }
    }
}

nt_status nt_rmsnorm_bwd_avx512(struct nt_backend *be, const struct nt_rmsnorm_bwd_args *args) {
    nt_norm_bwd_run(be, args, rows_thread);
    return NT_OK;
}
