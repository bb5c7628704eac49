/* The gradient of a log-probability, 16 logits at a time. */
#include "cpu_rows.h"
#include "cpu_vec.h"
#include "ops_bwd.h"

static inline __m512 powers(const float *x, __mmask16 inside, __m512 max) {
    const __m512 d = _mm512_sub_ps(_mm512_maskz_loadu_ps(inside, x), max);
    return nt_v16_exp2_neg(_mm512_mul_ps(d, _mm512_set1_ps(NT_LOG2E)));
}

static void logit_thread(void *arg, int thread, int n_threads) {
    const struct nt_logit_bwd_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const float *x = a->logits + r * a->ld, sum = a->sum_exp[r], coef = a->coef[r];
        nt_bf16 *d = a->dlogits + r * a->lddl;
        const __m512 max = _mm512_set1_ps(a->max[r]), factor = _mm512_set1_ps(-coef / sum);
        for (int32_t v = 0; v < a->n_vocab; v += 16) {
            const __mmask16 inside = nt_v16_mask(a->n_vocab - v);
            nt_v16_store_bf16(d + v, inside, _mm512_mul_ps(factor, powers(x + v, inside, max)));
        }
        const int32_t v = a->target[r];
        if (v < 0 || v >= a->n_vocab) continue;
        d[v] = nt_f32_to_bf16(coef * ((sum - _mm512_cvtss_f32(powers(x + v, 1, max))) / sum));
    }
}

nt_status nt_logit_bwd_avx512(struct nt_backend *be, const struct nt_logit_bwd_args *args) {
    struct nt_logit_bwd_args a = *args;
    nt_rows_run(be, logit_thread, &a, args->n_row, args->n_vocab);
    return NT_OK;
}
