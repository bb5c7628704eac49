#include "model_state.h"
#include <string.h>

static struct nt_kv_layer kv_layer(const struct nt_model *m, const struct nt_kv_pool *kv, int32_t layer) {
    const int64_t stride = m->shard.n_kv * nt_kv_head_elems(m->backend->kv_format, m->spec.d_head);
    return (struct nt_kv_layer){.base = kv->base + layer * stride * kv->n_page,
                                .page_stride = stride,
                                .n_kv = m->shard.n_kv,
                                .d_head = m->spec.d_head,
                                .format = m->backend->kv_format};
}

static nt_status product(struct nt_model *m, const nt_bf16 *x, const struct nt_packed *w, const float *bias, void *y,
                         int64_t ldy, int32_t n_tok, enum nt_gemm_out out) {
    const struct nt_gemm_args args = {
        .x = x, .ldx = w->k, .w = w, .bias = bias, .y = y, .ldy = ldy, .n_tok = n_tok, .out = out};
    return m->backend->ops.gemm(m->backend, &args);
}

/* The end of a branch: x += w h, or with tp > 1 the sum over ranks of w h is left to the next norm. */
static nt_status branch_out(struct nt_model *m, struct nt_step *s, const nt_bf16 *h, const struct nt_packed *w,
                            const float *bias, int32_t n_tok, bool block_norm) {
    const int64_t d_model = m->spec.d_model;
    if (m->shard.size == 1) return product(m, h, w, bias, s->x, d_model, n_tok, NT_GEMM_ADD_F32);
    float *partial = nt_model_partial(m, m->acts.delta, n_tok * d_model);
    NT_TRY(product(m, h, w, bias, partial, d_model, n_tok, NT_GEMM_STORE_F32));
    return nt_model_branch_sum(m, s, partial, n_tok, block_norm);
}

/* After the last layer's attention only rows with wanted logits matter: they move to the front. Row results do not
 * depend on their neighbours, so nothing else changes. */
static nt_status keep_out_rows(struct nt_model *m, struct nt_step *s) {
    const struct nt_acts *a = &m->acts;
    struct nt_gather_args rows = {.from = a->x,
                                  .to = a->x_out,
                                  .rows = s->batch.out_rows,
                                  .bytes = m->spec.d_model * (int64_t)sizeof(float),
                                  .n_rows = s->batch.n_out};
    NT_TRY(m->backend->ops.gather(m->backend, &rows));
    rows.from = a->heads;
    rows.to = a->heads_out;
    rows.bytes = (int64_t)m->shard.n_head * m->spec.d_head * (int64_t)sizeof(nt_bf16);
    s->x = a->x_out;
    return m->backend->ops.gather(m->backend, &rows);
}

nt_status nt_block_forward(struct nt_model *m, int32_t layer, struct nt_step *s) {
    const struct nt_spec *spec = &m->spec;
    const struct nt_shard *shard = &m->shard;
    const struct nt_layer *l = &m->weights.layers[layer];
    const struct nt_acts *a = &m->acts;
    const struct nt_batch *b = &s->batch;
    const struct nt_ops *ops = &m->backend->ops;
    const struct nt_kv_layer kv = kv_layer(m, s->kv, layer);

    NT_TRY(nt_model_norm(m, s, l->attn_norm, b->n_tok));
    NT_TRY(product(m, a->h, &l->qkv, l->qkv_bias, a->qkv, l->qkv.n, b->n_tok, NT_GEMM_STORE_F32));
    NT_TRY(ops->rope_kv(m->backend, &(struct nt_rope_kv_args){.qkv = a->qkv,
                                                              .q = a->q,
                                                              .kv = &kv,
                                                              .seqs = b->seqs,
                                                              .cos = a->cos,
                                                              .sin = a->sin,
                                                              .q_norm = l->q_norm,
                                                              .k_norm = l->k_norm,
                                                              .eps = spec->norm_eps,
                                                              .n_seq = b->n_seq,
                                                              .n_tok = b->n_tok,
                                                              .n_head = shard->n_head,
                                                              .max_q = s->max_q}));
    const bool last = layer == spec->n_layer - 1;
    const int32_t n_tok = last ? b->n_out : b->n_tok;
    if (n_tok == 0) return NT_OK; /* a chunk without logits: the cache is all that was wanted */
    NT_TRY(
        ops->attention(m->backend, &(struct nt_attention_args){.q = a->q,
                                                               .kv = &kv,
                                                               .seqs = b->seqs,
                                                               .kv_of_head = m->inputs.kv_of_head.device,
                                                               .out = a->heads,
                                                               .ldo = l->o.k,
                                                               .scale = spec->attn_scale,
                                                               .window = spec->layer_window[layer] ? spec->window : 0,
                                                               .n_seq = b->n_seq,
                                                               .n_tok = b->n_tok,
                                                               .n_head = shard->n_head,
                                                               .max_q = s->max_q,
                                                               .max_pos = s->max_pos}));
    if (last) NT_TRY(keep_out_rows(m, s));
    NT_TRY(branch_out(m, s, last ? a->heads_out : a->heads, &l->o, l->o_bias, n_tok, true));

    NT_TRY(nt_model_norm(m, s, l->mlp_norm, n_tok));
    NT_TRY(product(m, a->h, &l->gate_up, l->gate_up_bias, a->mlp, shard->ff_pad, n_tok,
                   spec->act == NT_ACT_SILU ? NT_GEMM_SWIGLU_BF16 : NT_GEMM_GEGLU_BF16));
    return branch_out(m, s, a->mlp, &l->down, l->down_bias, n_tok, !last);
}
