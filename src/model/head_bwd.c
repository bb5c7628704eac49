/* The vocabulary head of training: log-probabilities of targets and their gradient, a chunk of rows at a time. */
#include "ops_bwd.h"
#include "training_state.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rows of stats. */
enum { MAX, SUM, CHOSEN, COEF, STATS };

static float *stat(const struct nt_training *t, const struct nt_both *b, int row, bool device) {
    return (float *)(device ? b->device : b->host) + (int64_t)row * t->config.chunk;
}

static nt_status logits(struct nt_training *t, int32_t row0, int32_t n) {
    struct nt_model *m = t->m;
    const int64_t ld = nt_logit_ld(&m->shard);
    const struct nt_both *s = &t->back.stats;
    struct nt_backend *be = m->backend;
    NT_TRY(be->ops.gemm(be, &(struct nt_gemm_args){.x = t->tape.h_last + (int64_t)row0 * m->spec.d_model,
                                                   .ldx = m->spec.d_model,
                                                   .w = &m->weights.head,
                                                   .y = t->back.logits,
                                                   .ldy = ld,
                                                   .n_tok = n,
                                                   .out = NT_GEMM_STORE_F32}));
    NT_TRY(be->ops.logit_stats(be, &(struct nt_logit_stats_args){.logits = t->back.logits,
                                                                 .ld = ld,
                                                                 .max = stat(t, s, MAX, true),
                                                                 .sum_exp = stat(t, s, SUM, true),
                                                                 .n_row = n,
                                                                 .n_vocab = m->shard.n_vocab}));
    NT_TRY(be->ops.logit_pick(be, &(struct nt_logit_pick_args){.logits = t->back.logits,
                                                               .ld = ld,
                                                               .id = t->back.targets.device,
                                                               .value = stat(t, s, CHOSEN, true),
                                                               .n_row = n,
                                                               .n_vocab = m->shard.n_vocab}));
    return nt_both_pull(be, s, 0, (size_t)COEF * (size_t)t->config.chunk * sizeof(float));
}

/* Maximum, sum and chosen logit of the whole vocabulary, from every rank's part, ranks in order. */
static nt_status join(struct nt_training *t, int32_t n) {
    const int32_t size = t->m->shard.size;
    if (size == 1) return NT_OK;
    const size_t bytes = (size_t)COEF * (size_t)t->config.chunk * sizeof(float);
    float *mine = t->back.stats.host, *all = malloc((size_t)size * bytes);
    NT_TRY(nt_comm_agree(t->m->world->tp, all ? NT_OK : NT_FAIL(NT_E_NOMEM, "no memory for %d parts", size)));
    const nt_status st = nt_comm_allgather(t->m->world->tp, mine, all, bytes);
    for (int32_t i = 0; i < n && st == NT_OK; i++) {
        float max = -INFINITY, sum = 0, chosen = -INFINITY;
        for (int32_t r = 0; r < size; r++) {
            const float *part = all + (int64_t)r * COEF * t->config.chunk + i;
            const float part_max = part[(int64_t)MAX * t->config.chunk];
            if (!(part_max <= max)) max = part_max; /* takes a NaN and keeps it */
            chosen = fmaxf(chosen, part[(int64_t)CHOSEN * t->config.chunk]);
        }
        for (int32_t r = 0; r < size; r++) {
            const float *part = all + (int64_t)r * COEF * t->config.chunk + i;
            sum += part[(int64_t)SUM * t->config.chunk] * expf(part[(int64_t)MAX * t->config.chunk] - max);
        }
        stat(t, &t->back.stats, MAX, false)[i] = max;
        stat(t, &t->back.stats, SUM, false)[i] = sum;
        stat(t, &t->back.stats, CHOSEN, false)[i] = chosen;
    }
    free(all);
    return st;
}

/* Logits of rows [row0, row0 + n) and their statistics, in host and backend memory. */
static nt_status chunk_forward(struct nt_training *t, const int32_t *targets, int32_t row0, int32_t n, float *logp) {
    struct nt_backend *be = t->m->backend;
    int32_t *local = t->back.targets.host;
    for (int32_t i = 0; i < n; i++) {
        NT_CHECK(targets[row0 + i] >= 0 && targets[row0 + i] < t->m->spec.n_vocab);
        local[i] = targets[row0 + i] - t->m->shard.vocab0;
    }
    NT_TRY(nt_both_push(be, &t->back.targets, 0, (size_t)n * sizeof *local));
    NT_TRY(logits(t, row0, n));
    NT_TRY(join(t, n));
    const float *max = stat(t, &t->back.stats, MAX, false), *sum = stat(t, &t->back.stats, SUM, false);
    const float *chosen = stat(t, &t->back.stats, CHOSEN, false);
    for (int32_t i = 0; i < n && logp; i++) logp[row0 + i] = chosen[i] - max[i] - logf(sum[i]);
    return NT_OK;
}

nt_status nt_training_logprobs(struct nt_training *t, const int32_t *targets, float *logp) {
    const int32_t n_out = t->step.batch.n_out;
    for (int32_t row0 = 0; row0 < n_out; row0 += t->config.chunk) {
        const int32_t n = n_out - row0 < t->config.chunk ? n_out - row0 : t->config.chunk;
        NT_TRY(chunk_forward(t, targets, row0, n, logp));
    }
    return NT_OK;
}

/* dlogits of the chunk, and through the head to dh. */
static nt_status chunk_backward(struct nt_training *t, const float *coef, int32_t row0, int32_t n) {
    struct nt_model *m = t->m;
    struct nt_backend *be = m->backend;
    const struct nt_both *s = &t->back.stats;
    const int64_t ld = nt_logit_ld(&m->shard), lddl = nt_row_ld(ld);
    memcpy(stat(t, s, COEF, false), coef + row0, (size_t)n * sizeof *coef);
    NT_TRY(nt_both_push(be, s, 0, (size_t)STATS * (size_t)t->config.chunk * sizeof(float)));
    NT_TRY(be->ops.logit_bwd(be, &(struct nt_logit_bwd_args){.logits = t->back.logits,
                                                             .ld = ld,
                                                             .target = t->back.targets.device,
                                                             .max = stat(t, s, MAX, true),
                                                             .sum_exp = stat(t, s, SUM, true),
                                                             .coef = stat(t, s, COEF, true),
                                                             .dlogits = t->back.dlogits,
                                                             .lddl = lddl,
                                                             .n_row = n,
                                                             .n_vocab = m->shard.n_vocab}));
    if (nt_trains_all(t)) {
        const struct nt_gemm_wgrad_args head = {
            .a = t->back.dlogits,
            .b = t->tape.h_last + (int64_t)row0 * m->spec.d_model,
            .lda = lddl,
            .ldb = m->spec.d_model,
            .dw = nt_training_grad(t, 0, m->spec.tied ? NT_SLOT_EMBED : NT_SLOT_HEAD, NT_PARAM_W),
            .lddw = m->spec.d_model,
            .alpha = 1,
            .n_tok = n,
            .m = m->shard.n_vocab,
            .n = m->spec.d_model};
        NT_TRY(be->ops.gemm_wgrad(be, &head));
    }
    return be->ops.gemm_dgrad(be, &(struct nt_gemm_dgrad_args){.dy = t->back.dlogits,
                                                               .lddy = lddl,
                                                               .w = &m->weights.head,
                                                               .dx = t->back.dh + (int64_t)row0 * m->spec.d_model,
                                                               .lddx = m->spec.d_model,
                                                               .n_tok = n,
                                                               .out = NT_GEMM_STORE_F32});
}

nt_status nt_head_backward(struct nt_training *t, const int32_t *targets, const float *coef, float *logp) {
    struct nt_model *m = t->m;
    const int32_t n_out = t->step.batch.n_out, d_model = m->spec.d_model;
    const int64_t count = (int64_t)n_out * d_model;
    for (int32_t row0 = 0; row0 < n_out; row0 += t->config.chunk) {
        const int32_t n = n_out - row0 < t->config.chunk ? n_out - row0 : t->config.chunk;
        NT_TRY(chunk_forward(t, targets, row0, n, logp));
        NT_TRY(chunk_backward(t, coef, row0, n));
    }
    if (m->shard.size > 1) NT_TRY(nt_model_allreduce(m, t->back.dh, t->back.dh, count));
    NT_TRY(m->backend->memory->zero(m->backend, t->back.dx_out, (size_t)count * sizeof(float)));
    const struct nt_rmsnorm_bwd_args norm = {.x = t->tape.x_last,
                                             .w = m->weights.final_norm,
                                             .dy = t->back.dh,
                                             .dx = t->back.dx_out,
                                             .dx16 = t->back.dx16,
                                             .dw = nt_training_grad(t, 0, NT_SLOT_FINAL_NORM, NT_PARAM_W),
                                             .eps = m->spec.norm_eps,
                                             .n_tok = n_out,
                                             .d_model = d_model};
    return m->backend->ops.rmsnorm_bwd(m->backend, &norm);
}
