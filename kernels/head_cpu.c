/* The specification of the vocabulary head fused with the choice of a token, in portable C. */
#include "cpu_bodies.h"
#include "cpu_logits.h"
#include <math.h>

/* The best of a panel's logits, by the rules of the ops on rows. */
static void best_of_panel(const struct nt_head_argmax_args *a, int64_t r, const float *logit, int32_t n0, int32_t count,
                          float *value, int32_t *index) {
    if (a->inv_temp && a->inv_temp[r] != 0.0f) {
        const struct nt_logit_gumbel_args g = {.logits = logit,
                                               .ld = NT_PANEL,
                                               .inv_temp = a->inv_temp + r,
                                               .seed = a->seed + r,
                                               .stream = a->stream + r,
                                               .value = value,
                                               .index = index,
                                               .n_row = 1,
                                               .n_vocab = count,
                                               .first = a->first + n0};
        nt_logit_gumbel_row(&g, 0);
    } else {
        const struct nt_logit_stats_args s = {
            .logits = logit, .ld = NT_PANEL, .max = value, .argmax = index, .n_row = 1, .n_vocab = count};
        nt_logit_stats_row(&s, 0);
    }
    *index += n0;
}

static void head_thread(void *arg, int thread, int n_threads) {
    const struct nt_head_argmax_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        a->value[r] = -INFINITY;
        for (int32_t n0 = 0; n0 < a->n_vocab; n0 += NT_PANEL) {
            float logit[NT_PANEL] = {0}, value;
            int32_t index;
            nt_panel_product(a->x + r * a->ldx, (const nt_bf16 *)a->w->data + (int64_t)n0 * a->w->k, a->w->k, logit);
            best_of_panel(a, r, logit, n0, a->n_vocab - n0 < NT_PANEL ? a->n_vocab - n0 : NT_PANEL, &value, &index);
            if (n0 > 0 && !nt_logit_better(value, index, a->value[r], a->index[r])) continue;
            a->value[r] = value;
            a->index[r] = index;
        }
        a->index[r] = isfinite(a->value[r]) ? a->first + a->index[r] : -1;
    }
}

nt_status nt_head_argmax_portable(struct nt_backend *be, const struct nt_head_argmax_args *args) {
    NT_CHECK(args->w->format == NT_WEIGHT_BF16 && args->n_vocab >= 0 && args->n_vocab <= args->w->n);
    struct nt_head_argmax_args a = *args;
    nt_pool_run(be->pool, head_thread, &a);
    return NT_OK;
}
