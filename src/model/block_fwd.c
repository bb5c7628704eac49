#include "model_state.h"
#include "tape.h"

const struct nt_block_acts *nt_step_acts(const struct nt_model *m, const struct nt_step *s, int32_t layer) {
    return s->tape ? &s->tape->blocks[layer] : &m->acts.block;
}

const struct nt_lora_pair *nt_step_lora(const struct nt_model *m, int32_t layer, enum nt_lora_group group) {
    return m->lora && m->lora->layers[layer][group].a.n > 0 ? &m->lora->layers[layer][group] : NULL;
}

enum nt_gemm_out nt_block_act(const struct nt_model *m) {
    return m->spec.act == NT_ACT_SILU ? NT_GEMM_SWIGLU_BF16 : NT_GEMM_GEGLU_BF16;
}

struct nt_kv_layer nt_kv_layer_of(const struct nt_model *m, const struct nt_kv_pool *kv, int32_t layer) {
    const int64_t stride = m->shard.n_kv * nt_kv_head_elems(m->backend->kv_format, m->spec.d_head);
    return (struct nt_kv_layer){.base = kv->base + layer * stride * kv->n_page,
                                .page_stride = stride,
                                .n_kv = m->shard.n_kv,
                                .d_head = m->spec.d_head,
                                .format = m->backend->kv_format};
}

/* A product of the block, with the adapter's low-rank product behind it in the same sum. */
static nt_status product(struct nt_model *m, const struct nt_step *s, int32_t layer, enum nt_lora_group group,
                         struct nt_gemm_args args) {
    const struct nt_lora_pair *lora = nt_step_lora(m, layer, group);
    args.ldx = args.w->k;
    if (lora) {
        nt_bf16 *low = nt_step_acts(m, s, layer)->low[group];
        struct nt_gemm_args down = {
            .ldx = args.ldx, .w = &lora->a, .y = low, .ldy = lora->a.n, .n_tok = args.n_tok, .out = NT_GEMM_STORE_BF16};
        NT_TRY(nt_tape_drop(m, s, layer, group, args.x, args.ldx, args.n_tok, &down.x));
        NT_TRY(m->backend->ops.gemm(m->backend, &down));
        args.x2 = low;
        args.ldx2 = lora->a.n;
        args.w2 = &lora->b;
    }
    return m->backend->ops.gemm(m->backend, &args);
}

/* The end of a branch: x += w h, or with tp > 1 the sum over ranks of w h is left to the next norm. */
static nt_status branch_out(struct nt_model *m, struct nt_step *s, int32_t layer, enum nt_lora_group group,
                            struct nt_gemm_args args) {
    const bool whole = m->shard.size == 1;
    float *partial = whole ? s->x : nt_model_partial(m, m->acts.delta, args.n_tok * (int64_t)m->spec.d_model);
    args.y = partial;
    args.ldy = m->spec.d_model;
    args.out = whole ? NT_GEMM_ADD_F32 : NT_GEMM_STORE_F32;
    NT_TRY(product(m, s, layer, group, args));
    return whole ? NT_OK : nt_model_branch_sum(m, s, partial, args.n_tok);
}

/* After the last layer's attention only rows with wanted logits matter: they move to the front. Row results do not
 * depend on their neighbours, so nothing else changes. */
static nt_status keep_out_rows(struct nt_model *m, struct nt_step *s, const struct nt_block_acts *a) {
    struct nt_gather_args rows = {.from = m->acts.x,
                                  .to = m->acts.x_out,
                                  .rows = s->batch.out_rows,
                                  .bytes = m->spec.d_model * (int64_t)sizeof(float),
                                  .n_rows = s->batch.n_out};
    NT_TRY(m->backend->ops.gather(m->backend, &rows));
    rows.from = a->heads;
    rows.to = a->heads_out;
    rows.bytes = (int64_t)m->shard.n_head * m->spec.d_head * (int64_t)sizeof(nt_bf16);
    s->x = m->acts.x_out;
    return m->backend->ops.gather(m->backend, &rows);
}

static nt_status attention(struct nt_model *m, int32_t layer, const struct nt_step *s, const struct nt_block_acts *a) {
    const struct nt_spec *spec = &m->spec;
    const struct nt_layer *l = &m->weights.layers[layer];
    const struct nt_batch *b = &s->batch;
    const struct nt_kv_layer kv = nt_kv_layer_of(m, s->kv, layer);
    const struct nt_rope_kv_args rope = {.qkv = a->qkv,
                                         .q = a->q,
                                         .kv = &kv,
                                         .seqs = b->seqs,
                                         .cos = m->acts.cos,
                                         .sin = m->acts.sin,
                                         .q_norm = l->q_norm,
                                         .k_norm = l->k_norm,
                                         .eps = spec->norm_eps,
                                         .n_seq = b->n_seq,
                                         .n_tok = b->n_tok,
                                         .n_head = m->shard.n_head,
                                         .max_q = s->max_q};
    NT_TRY(m->backend->ops.rope_kv(m->backend, &rope));
    if (layer == spec->n_layer - 1 && b->n_out == 0)
        return NT_OK; /* a chunk without logits: the cache is all that was wanted */
    const struct nt_attention_args args = {.q = a->q,
                                           .kv = &kv,
                                           .seqs = b->seqs,
                                           .kv_of_head = m->inputs.kv_of_head.device,
                                           .out = a->heads,
                                           .lse = a->lse,
                                           .ldo = l->o.k,
                                           .scale = spec->attn_scale,
                                           .window = spec->layer_window[layer] ? spec->window : 0,
                                           .n_seq = b->n_seq,
                                           .n_tok = b->n_tok,
                                           .n_head = m->shard.n_head,
                                           .max_q = s->max_q,
                                           .max_pos = s->max_pos,
                                           .min_q = s->min_q,
                                           .max_group = spec->n_head / spec->n_kv};
    return m->backend->ops.attention(m->backend, &args);
}

nt_status nt_block_forward(struct nt_model *m, int32_t layer, struct nt_step *s) {
    const struct nt_layer *l = &m->weights.layers[layer];
    const struct nt_block_acts *a = nt_step_acts(m, s, layer);
    const bool last = layer == m->spec.n_layer - 1;
    const int32_t n_all = s->batch.n_tok, n_tok = last ? s->batch.n_out : n_all;

    NT_TRY(nt_model_norm(m, s, l->attn_norm, a->h_attn, a->x_in, n_all));
    NT_TRY(product(m, s, layer, NT_LORA_QKV,
                   (struct nt_gemm_args){.x = a->h_attn,
                                         .w = &l->qkv,
                                         .bias = l->qkv_bias,
                                         .y = a->qkv,
                                         .ldy = l->qkv.n,
                                         .n_tok = n_all,
                                         .out = NT_GEMM_STORE_F32}));
    NT_TRY(attention(m, layer, s, a));
    if (n_tok == 0) return NT_OK;
    if (last) NT_TRY(keep_out_rows(m, s, a));
    const struct nt_gemm_args o = {.x = last ? a->heads_out : a->heads, .w = &l->o, .bias = l->o_bias, .n_tok = n_tok};
    NT_TRY(branch_out(m, s, layer, NT_LORA_O, o));

    NT_TRY(nt_model_norm(m, s, l->mlp_norm, a->h_mlp, a->x_mid, n_tok));
    NT_TRY(product(m, s, layer, NT_LORA_GATE_UP,
                   (struct nt_gemm_args){.x = a->h_mlp,
                                         .w = &l->gate_up,
                                         .bias = l->gate_up_bias,
                                         .y = a->mlp,
                                         .ldy = m->shard.ff_pad,
                                         .n_tok = n_tok,
                                         .pre = a->pre,
                                         .ldpre = nt_row_ld(l->gate_up.n),
                                         .out = nt_block_act(m)}));
    const struct nt_gemm_args down = {.x = a->mlp, .w = &l->down, .bias = l->down_bias, .n_tok = n_tok};
    return branch_out(m, s, layer, NT_LORA_DOWN, down);
}
