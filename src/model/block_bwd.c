/* The block read upwards: block_fwd.c from its last line to its first. */
#include "ops_bwd.h"
#include "training_state.h"

float *nt_training_grad(struct nt_training *t, int32_t layer, enum nt_slot slot, enum nt_param_part part) {
    const struct nt_param *row = nt_params_find(&t->params, layer, slot, part);
    return row ? t->params.grad + row->at : NULL;
}

/* ---- one product ----------------------------------------------------------------------------------------------- */

/* y = W x (+ s B A x) of n_tok rows, and where its gradients come from and go to. */
struct product {
    int32_t layer, n_tok;
    enum nt_lora_group group;
    const struct nt_packed *w;
    const nt_bf16 *x;  // [n_tok, w->k]
    const nt_bf16 *dy; // [n_tok, lddy]
    int64_t lddy;
    float *dx; // [n_tok, w->k], NULL: not wanted
};

static nt_status dgrad(struct nt_training *t, const struct nt_gemm_dgrad_args *args) {
    return t->m->backend->ops.gemm_dgrad(t->m->backend, args);
}

static nt_status wgrad(struct nt_training *t, const struct nt_gemm_wgrad_args *args) {
    return t->m->backend->ops.gemm_wgrad(t->m->backend, args);
}

/* Columns of dy that belong to a linear. */
static struct nt_gemm_wgrad_args outputs(const struct product *p, const struct nt_linear_place *lin) {
    return (struct nt_gemm_wgrad_args){.b = p->dy + lin->row0,
                                       .ldb = p->lddy,
                                       .lddw = lin->n,
                                       .alpha = 1,
                                       .n_tok = p->n_tok,
                                       .n = lin->n,
                                       .b_run = lin->run};
}

/* dW = dy^T x and the sum of dy, of every linear of the product. */
static nt_status all_weights(struct nt_training *t, const struct product *p) {
    for (int i = 0; i < NT_LINEAR_COUNT; i++) {
        const struct nt_linear_place *lin = &t->linears[i];
        if (lin->group != p->group) continue;
        struct nt_gemm_wgrad_args args = outputs(p, lin);
        args.a = p->x;
        args.lda = args.m = p->w->k;
        args.dw = nt_training_grad(t, p->layer, lin->slot, NT_PARAM_W);
        NT_TRY(wgrad(t, &args));
        args.dw = nt_training_grad(t, p->layer, nt_linear_bias_slot((enum nt_linear)i), NT_PARAM_W);
        if (!args.dw) continue;
        args.a = t->back.ones.device;
        args.lda = args.m = 1;
        NT_TRY(wgrad(t, &args));
    }
    return NT_OK;
}

/* dB = s dy^T (A x), then through B to dlow = s dy B, then dA = dlow^T x. */
static nt_status adapter(struct nt_training *t, const struct product *p, const struct nt_lora_pair *pair) {
    const nt_bf16 *low = nt_step_acts(t->m, &t->step, p->layer)->low[p->group], *x = NULL;
    const int32_t r = t->config.lora.r;
    const struct nt_linear_place *first = NULL;
    int32_t n = 0;
    for (int i = 0; i < NT_LINEAR_COUNT; i++) {
        const struct nt_linear_place *lin = &t->linears[i];
        if (lin->group != p->group || lin->index < 0) continue;
        if (!first) first = lin;
        n++;
        struct nt_gemm_wgrad_args args = outputs(p, lin);
        args.a = low + lin->index * r;
        args.lda = pair->a.n;
        args.m = r;
        args.alpha = t->config.lora.scale;
        args.dw = nt_training_grad(t, p->layer, lin->slot, NT_PARAM_B);
        NT_TRY(wgrad(t, &args));
    }
    NT_TRY(dgrad(t, &(struct nt_gemm_dgrad_args){.dy = p->dy,
                                                 .lddy = p->lddy,
                                                 .w = &pair->b,
                                                 .dx = t->back.dlow,
                                                 .lddx = pair->a.n,
                                                 .n_tok = p->n_tok,
                                                 .out = NT_GEMM_STORE_BF16}));
    NT_TRY(nt_tape_drop(t->m, &t->step, p->layer, p->group, p->x, p->w->k, p->n_tok, &x));
    return wgrad(t, &(struct nt_gemm_wgrad_args){.a = t->back.dlow,
                                                 .lda = pair->a.n,
                                                 .b = x,
                                                 .ldb = p->w->k,
                                                 .dw = nt_training_grad(t, p->layer, first->slot, NT_PARAM_A),
                                                 .lddw = p->w->k,
                                                 .alpha = 1,
                                                 .n_tok = p->n_tok,
                                                 .m = n * r,
                                                 .n = p->w->k});
}

static nt_status product(struct nt_training *t, const struct product *p) {
    const struct nt_lora_pair *pair = nt_step_lora(t->m, p->layer, p->group);
    if (nt_trains_all(t)) NT_TRY(all_weights(t, p));
    if (pair) NT_TRY(adapter(t, p, pair));
    if (!p->dx) return NT_OK;
    struct nt_gemm_dgrad_args args = {.dy = p->dy,
                                      .lddy = p->lddy,
                                      .w = p->w,
                                      .dx = p->dx,
                                      .lddx = p->w->k,
                                      .n_tok = p->n_tok,
                                      .out = NT_GEMM_STORE_F32};
    const struct nt_gemm_dgrad_args low = {.dy = t->back.dlow,
                                           .lddy = pair ? pair->a.n : 0,
                                           .w = pair ? &pair->a : NULL,
                                           .dx = t->back.dropped,
                                           .lddx = p->w->k,
                                           .n_tok = p->n_tok,
                                           .out = NT_GEMM_STORE_F32};
    const bool thinned = pair && t->tape.drop_p > 0;
    if (pair && !thinned) {
        args.dy2 = low.dy;
        args.lddy2 = low.lddy;
        args.w2 = low.w;
    }
    NT_TRY(dgrad(t, &args));
    if (!thinned) return NT_OK;
    NT_TRY(dgrad(t, &low));
    return nt_tape_drop_bwd(t->m, &t->step, p->layer, p->group, t->back.dropped, p->dx, p->w->k, p->n_tok, p->w->k);
}

/* ---- the parts of a block -------------------------------------------------------------------------------------- */

static nt_status sum_over_tp(struct nt_training *t, float *x, int64_t n) {
    return t->m->shard.size == 1 ? NT_OK : nt_model_allreduce(t->m, x, x, n);
}

/* dh, a branch's gradient at its norm, joins dx. */
static nt_status norm(struct nt_training *t, int32_t layer, enum nt_slot slot, const float *x, const float *w,
                      float *dx, int32_t n_tok) {
    const int32_t d_model = t->m->spec.d_model;
    NT_TRY(sum_over_tp(t, t->back.dh, (int64_t)n_tok * d_model));
    const struct nt_rmsnorm_bwd_args args = {.x = x,
                                             .w = w,
                                             .dy = t->back.dh,
                                             .dx = dx,
                                             .dx16 = t->back.dx16,
                                             .dw = nt_training_grad(t, layer, slot, NT_PARAM_W),
                                             .eps = t->m->spec.norm_eps,
                                             .n_tok = n_tok,
                                             .d_model = d_model};
    return t->m->backend->ops.rmsnorm_bwd(t->m->backend, &args);
}

static nt_status mlp(struct nt_training *t, int32_t layer, float *dx, int32_t n_tok) {
    struct nt_model *m = t->m;
    const struct nt_layer *l = &m->weights.layers[layer];
    const struct nt_block_acts *a = nt_step_acts(m, &t->step, layer);
    NT_TRY(product(t, &(struct product){.layer = layer,
                                        .n_tok = n_tok,
                                        .group = NT_LORA_DOWN,
                                        .w = &l->down,
                                        .x = a->mlp,
                                        .dy = t->back.dx16,
                                        .lddy = l->down.n,
                                        .dx = t->back.dmlp}));
    const struct nt_glu_bwd_args glu = {.pre = a->pre,
                                        .dy = t->back.dmlp,
                                        .dpre = a->pre,
                                        .ldpre = nt_row_ld(l->gate_up.n),
                                        .lddy = m->shard.ff_pad,
                                        .n_tok = n_tok,
                                        .n = m->shard.ff_pad,
                                        .gelu = m->spec.act != NT_ACT_SILU};
    NT_TRY(m->backend->ops.glu_bwd(m->backend, &glu));
    NT_TRY(product(t, &(struct product){.layer = layer,
                                        .n_tok = n_tok,
                                        .group = NT_LORA_GATE_UP,
                                        .w = &l->gate_up,
                                        .x = a->h_mlp,
                                        .dy = a->pre,
                                        .lddy = nt_row_ld(l->gate_up.n),
                                        .dx = t->back.dh}));
    return norm(t, layer, NT_SLOT_MLP_NORM, a->x_mid, l->mlp_norm, dx, n_tok);
}

/* From the gradient of the heads to that of the product that made q, k and v. */
static nt_status attention(struct nt_training *t, int32_t layer, const float *dheads) {
    struct nt_model *m = t->m;
    const struct nt_layer *l = &m->weights.layers[layer];
    const struct nt_block_acts *a = nt_step_acts(m, &t->step, layer);
    const struct nt_batch *b = &t->step.batch;
    const struct nt_kv_layer kv = nt_kv_layer_of(m, t->step.kv, layer);
    const struct nt_attention_bwd_args args = {.q = a->q,
                                               .kv = &kv,
                                               .seqs = b->seqs,
                                               .kv_of_head = m->inputs.kv_of_head.device,
                                               .out = a->heads,
                                               .lse = a->lse,
                                               .dout = dheads,
                                               .dqkv = t->back.dqkv,
                                               .ldo = l->o.k,
                                               .lddo = l->o.k,
                                               .scale = m->spec.attn_scale,
                                               .window = m->spec.layer_window[layer] ? m->spec.window : 0,
                                               .n_seq = b->n_seq,
                                               .n_tok = b->n_tok,
                                               .n_head = m->shard.n_head,
                                               .max_q = t->step.max_q,
                                               .max_group = m->spec.n_head / m->spec.n_kv};
    NT_TRY(m->backend->ops.attention_bwd(m->backend, &args));
    const struct nt_rope_bwd_args rope = {.dqkv = t->back.dqkv,
                                          .qkv = l->q_norm ? a->qkv : NULL,
                                          .dqkv16 = t->back.dqkv16,
                                          .seqs = b->seqs,
                                          .cos = m->acts.cos,
                                          .sin = m->acts.sin,
                                          .q_norm = l->q_norm,
                                          .k_norm = l->k_norm,
                                          .dq_norm = nt_training_grad(t, layer, NT_SLOT_Q_NORM, NT_PARAM_W),
                                          .dk_norm = nt_training_grad(t, layer, NT_SLOT_K_NORM, NT_PARAM_W),
                                          .eps = m->spec.norm_eps,
                                          .n_seq = b->n_seq,
                                          .n_tok = b->n_tok,
                                          .n_head = m->shard.n_head,
                                          .n_kv = m->shard.n_kv,
                                          .d_head = m->spec.d_head,
                                          .max_q = t->step.max_q};
    return m->backend->ops.rope_bwd(m->backend, &rope);
}

/* The rows that went on after the last layer's attention return to their places. */
static nt_status spread(struct nt_training *t, const float *from, float *to, int32_t n_col) {
    const struct nt_scatter_args args = {.from = from,
                                         .to = to,
                                         .rows = t->step.batch.out_rows,
                                         .bytes = n_col * (int64_t)sizeof(float),
                                         .n_rows = t->step.batch.n_out,
                                         .n_to = t->step.batch.n_tok};
    return t->m->backend->ops.scatter(t->m->backend, &args);
}

/* ---- recompute ------------------------------------------------------------------------------------------------- */

static nt_status norm_again(struct nt_training *t, const float *x, const float *w, nt_bf16 *h, int32_t n_tok) {
    struct nt_model *m = t->m;
    const struct nt_rmsnorm_args args = {.x = (float *)(uintptr_t)x, /* without delta x stays as it is */
                                         .w = w,
                                         .y = h,
                                         .eps = m->spec.norm_eps,
                                         .n_rows = n_tok,
                                         .d_model = m->spec.d_model,
                                         .ldy = m->spec.d_model};
    return m->backend->ops.rmsnorm(m->backend, &args);
}

static nt_status norms_again(struct nt_training *t, int32_t layer, int32_t n_tok) {
    struct nt_model *m = t->m;
    const struct nt_layer *l = &m->weights.layers[layer];
    const struct nt_block_acts *a = nt_step_acts(m, &t->step, layer);
    NT_TRY(norm_again(t, a->x_in, l->attn_norm, a->h_attn, t->step.batch.n_tok));
    return norm_again(t, a->x_mid, l->mlp_norm, a->h_mlp, n_tok);
}

static nt_status all_again(struct nt_training *t, int32_t layer) {
    struct nt_model *m = t->m;
    struct nt_step *s = &t->step;
    const struct nt_gather_args all = {.from = nt_step_acts(m, s, layer)->x_in,
                                       .to = m->acts.x,
                                       .rows = s->tape->row_ids.device,
                                       .bytes = m->spec.d_model * (int64_t)sizeof(float),
                                       .n_rows = s->batch.n_tok};
    NT_TRY(m->backend->ops.gather(m->backend, &all));
    s->x = m->acts.x;
    s->pending = s->apart = false;
    return nt_block_forward(m, layer, s);
}

static nt_status compute_again(struct nt_training *t, int32_t layer, int32_t n_tok) {
    switch (t->tape.recompute) {
    case NT_RECOMPUTE_NONE:
        return NT_OK;
    case NT_RECOMPUTE_SELECTIVE:
        return norms_again(t, layer, n_tok);
    case NT_RECOMPUTE_FULL:
        return all_again(t, layer);
    }
    return NT_OK;
}

nt_status nt_block_backward(struct nt_training *t, int32_t layer) {
    struct nt_model *m = t->m;
    struct nt_back *k = &t->back;
    const struct nt_layer *l = &m->weights.layers[layer];
    const struct nt_block_acts *a = nt_step_acts(m, &t->step, layer);
    const bool last = layer == m->spec.n_layer - 1, wanted = layer > 0 || nt_trains_all(t);
    const int32_t n_tok = last ? t->step.batch.n_out : t->step.batch.n_tok;

    NT_TRY(compute_again(t, layer, n_tok));
    NT_TRY(mlp(t, layer, last ? k->dx_out : k->dx, n_tok));
    NT_TRY(product(t, &(struct product){.layer = layer,
                                        .n_tok = n_tok,
                                        .group = NT_LORA_O,
                                        .w = &l->o,
                                        .x = last ? a->heads_out : a->heads,
                                        .dy = k->dx16,
                                        .lddy = l->o.n,
                                        .dx = last ? k->dheads_out : k->dheads}));
    if (last) NT_TRY(spread(t, k->dheads_out, k->dheads, l->o.k));
    if (last) NT_TRY(spread(t, k->dx_out, k->dx, m->spec.d_model));
    NT_TRY(attention(t, layer, k->dheads));
    NT_TRY(product(t, &(struct product){.layer = layer,
                                        .n_tok = t->step.batch.n_tok,
                                        .group = NT_LORA_QKV,
                                        .w = &l->qkv,
                                        .x = a->h_attn,
                                        .dy = k->dqkv16,
                                        .lddy = l->qkv.n,
                                        .dx = wanted ? k->dh : NULL}));
    return wanted ? norm(t, layer, NT_SLOT_ATTN_NORM, a->x_in, l->attn_norm, k->dx, t->step.batch.n_tok) : NT_OK;
}
