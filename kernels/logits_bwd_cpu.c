/* The specification of the gradient of a log-probability, in portable C. */
#include "cpu_bodies.h"
#include "cpu_math.h"
#include "ops_bwd.h"

static void logit_thread(void *arg, int thread, int n_threads) {
    const struct nt_logit_bwd_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const float *x = a->logits + r * a->ld;
        nt_bf16 *d = a->dlogits + r * a->lddl;
        const float max = a->max[r], sum = a->sum_exp[r], coef = a->coef[r], factor = -coef / sum;
        for (int32_t v = 0; v < a->n_vocab; v++) d[v] = nt_f32_to_bf16(factor * nt_exp2_neg((x[v] - max) * NT_LOG2E));
        const int32_t v = a->target[r];
        if (v < 0 || v >= a->n_vocab) continue;
        d[v] = nt_f32_to_bf16(coef * ((sum - nt_exp2_neg((x[v] - max) * NT_LOG2E)) / sum));
    }
}

nt_status nt_logit_bwd_portable(struct nt_backend *be, const struct nt_logit_bwd_args *args) {
    struct nt_logit_bwd_args a = *args;
    nt_pool_run(be->pool, logit_thread, &a);
    return NT_OK;
}
