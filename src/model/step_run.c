/* The forward proper: embedding, blocks, head, and on a device the drawing of tokens. */
#include "model_state.h"

static nt_status embed(struct nt_model *m, const struct nt_batch *b) {
    const int64_t n = (int64_t)b->n_tok * m->spec.d_model;
    float *x = m->shard.size == 1 ? m->acts.x : nt_model_partial(m, m->acts.x, n);
    const struct nt_embed_args args = {.ids = b->ids,
                                       .table = m->weights.embed,
                                       .x = x,
                                       .scale = 1,
                                       .n_tok = b->n_tok,
                                       .d_model = m->spec.d_model,
                                       .first = m->shard.vocab0,
                                       .n_rows = m->shard.n_vocab};
    NT_TRY(m->backend->ops.embed(m->backend, &args));
    if (m->shard.size == 1) return NT_OK;
    return nt_model_allreduce(m, x, m->acts.x, n);
}

static nt_status head(struct nt_model *m, const struct nt_step *s, float *logits) {
    const struct nt_gemm_args gemm = {.x = m->acts.h,
                                      .ldx = m->spec.d_model,
                                      .w = &m->weights.head,
                                      .y = logits,
                                      .ldy = nt_logit_ld(&m->shard),
                                      .n_tok = s->batch.n_out,
                                      .out = NT_GEMM_STORE_F32};
    return m->backend->ops.gemm(m->backend, &gemm);
}

/* Ids the device drew in the step before. */
static nt_status take_previous(struct nt_model *m, const struct nt_batch *b) {
    const struct nt_gather_args args = {.from = b->prev,
                                        .to = (void *)(uintptr_t)b->ids, /* the step's own buffer */
                                        .rows = b->prev_row,
                                        .bytes = sizeof *b->prev,
                                        .n_rows = b->n_prev};
    return m->backend->ops.gather(m->backend, &args);
}

static nt_status sample(struct nt_model *m, const struct nt_batch *b, const float *logits) {
    struct nt_logit_sample_args args = *b->sample;
    args.logits = logits;
    args.ld = nt_logit_ld(&m->shard);
    args.n_row = b->n_out;
    return m->backend->ops.logit_sample(m->backend, &args);
}

nt_status nt_step_blocks(struct nt_model *m, struct nt_step *s) {
    nt_peer_sum_step(m->peers);
    if (s->batch.prev) NT_TRY(take_previous(m, &s->batch));
    NT_TRY(embed(m, &s->batch));
    for (int32_t layer = 0; layer < m->spec.n_layer; layer++) NT_TRY(nt_block_forward(m, layer, s));
    return NT_OK;
}

/* The rows with wanted logits are s->x[0 .. n_out) by now. */
static nt_status finish(struct nt_model *m, struct nt_step *s, float *logits) {
    NT_TRY(nt_model_norm(m, s, m->weights.final_norm, m->acts.h, NULL, s->batch.n_out));
    if (s->batch.sample && s->batch.by_head) return nt_model_draw(m, s);
    NT_TRY(head(m, s, logits));
    return s->batch.sample ? sample(m, &s->batch, logits) : NT_OK;
}

nt_status nt_step_run(struct nt_model *m, struct nt_step *s, float *logits) {
    NT_TRY(nt_step_blocks(m, s));
    return s->batch.n_out > 0 ? finish(m, s, logits) : NT_OK;
}
