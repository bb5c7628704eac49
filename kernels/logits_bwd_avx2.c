/* The gradient of a log-probability, 8 logits at a time. */
#include "cpu_rows.h"
#include "cpu_vec.h"
#include "ops_bwd.h"

static inline __m256 powers(const float *x, int32_t left, __m256 max) {
    return nt_v8_exp2_neg(_mm256_mul_ps(_mm256_sub_ps(nt_v8_load(x, left), max), _mm256_set1_ps(NT_LOG2E)));
}

static void logit_thread(void *arg, int thread, int n_threads) {
    const struct nt_logit_bwd_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const float *x = a->logits + r * a->ld, sum = a->sum_exp[r], coef = a->coef[r];
        nt_bf16 *d = a->dlogits + r * a->lddl;
        const __m256 max = _mm256_set1_ps(a->max[r]), factor = _mm256_set1_ps(-coef / sum);
        for (int32_t v = 0; v < a->n_vocab; v += 8)
            nt_v8_store_bf16(d + v, a->n_vocab - v, _mm256_mul_ps(factor, powers(x + v, a->n_vocab - v, max)));
        const int32_t v = a->target[r];
        if (v < 0 || v >= a->n_vocab) continue;
        d[v] = nt_f32_to_bf16(coef * ((sum - _mm256_cvtss_f32(powers(x + v, 1, max))) / sum));
    }
}

nt_status nt_logit_bwd_avx2(struct nt_backend *be, const struct nt_logit_bwd_args *args) {
    struct nt_logit_bwd_args a = *args;
    nt_rows_run(be, logit_thread, &a, args->n_row, args->n_vocab);
    return NT_OK;
}
