#include "tape.h"
#include "ops_bwd.h"
#include <string.h>

enum nt_recompute nt_recompute_of(const char *name) {
    if (strcmp(name, "none") == 0) return NT_RECOMPUTE_NONE;
    return strcmp(name, "full") == 0 ? NT_RECOMPUTE_FULL : NT_RECOMPUTE_SELECTIVE;
}

/* A set of a layer's own for what the policy keeps; the rest is the set that generation uses. */
static void take_block(struct nt_block_acts *b, enum nt_recompute policy, const struct nt_model *m, struct nt_arena *a,
                       bool last) {
    const struct nt_spec *spec = &m->spec;
    const struct nt_shard *s = &m->shard;
    const size_t n = (size_t)m->acts.max.tok, n_mlp = last ? (size_t)m->acts.max.out : n, d = (size_t)spec->d_model;
    const size_t heads = (size_t)s->n_head * (size_t)spec->d_head;
    b->x_in = NT_TAKE(a, float, n *d);
    if (policy == NT_RECOMPUTE_FULL) return;
    b->x_mid = NT_TAKE(a, float, n_mlp *d);
    if (spec->qk_norm) b->qkv = NT_TAKE(a, float, n *(heads + 2 * (size_t)s->n_kv * (size_t)spec->d_head));
    b->q = NT_TAKE(a, nt_bf16, n * (size_t)s->n_head * (size_t)nt_d_pad(spec->d_head));
    b->heads = NT_TAKE(a, nt_bf16, n * heads);
    b->lse = NT_TAKE(a, float, n *(size_t)s->n_head);
    b->pre = NT_TAKE(a, nt_bf16, n_mlp * (size_t)nt_row_ld(2 * (int64_t)s->ff_pad));
    b->mlp = NT_TAKE(a, nt_bf16, n_mlp * (size_t)s->ff_pad); /* from f32 sums, which pre has lost */
    for (int g = 0; g < NT_LORA_GROUPS && m->lora; g++)
        b->low[g] = NT_TAKE(a, nt_bf16, (g == NT_LORA_QKV ? n : n_mlp) * (size_t)m->lora->layers[0][g].a.n);
    if (policy == NT_RECOMPUTE_SELECTIVE) return;
    b->h_attn = NT_TAKE(a, nt_bf16, n * d);
    b->h_mlp = NT_TAKE(a, nt_bf16, n_mlp * d);
}

nt_status nt_tape_layout(struct nt_tape *t, struct nt_model *m, struct nt_job_memory *mem) {
    struct nt_arena *a = &mem->device;
    const size_t n = (size_t)m->acts.max.tok, n_out = (size_t)m->acts.max.out, d = (size_t)m->spec.d_model;
    struct nt_block_acts shared = m->acts.block;
    if (t->recompute != NT_RECOMPUTE_NONE) shared.h_mlp = NT_TAKE(a, nt_bf16, n * d); /* h_attn is read beside it */
    if (t->recompute == NT_RECOMPUTE_FULL) {
        shared.x_mid = NT_TAKE(a, float, n *d);
        shared.lse = NT_TAKE(a, float, n *(size_t)m->shard.n_head);
        shared.pre = NT_TAKE(a, nt_bf16, n * (size_t)nt_row_ld(2 * (int64_t)m->shard.ff_pad));
    }
    for (int32_t i = 0; i < m->spec.n_layer; i++) {
        t->blocks[i] = shared;
        take_block(&t->blocks[i], t->recompute, m, a, i == m->spec.n_layer - 1);
    }
    t->x_last = NT_TAKE(a, float, n_out *d);
    t->h_last = NT_TAKE(a, nt_bf16, n_out * d);
    if (t->drop_p > 0) {
        t->keys = nt_job_take_both(mem, n * sizeof(uint64_t));
        t->keys_out = nt_job_take_both(mem, n_out * sizeof(uint64_t));
        t->streams = nt_job_take_both(mem, n * sizeof(uint64_t));
        t->dropped = NT_TAKE(a, nt_bf16, n * (size_t)nt_linear_widest(m->lora->linears));
    }
    if (t->recompute != NT_RECOMPUTE_FULL) return NT_OK;
    t->row_ids = nt_job_take_both(mem, n * sizeof(int32_t));
    if (!t->row_ids.host) return NT_OK; /* counting */
    for (size_t i = 0; i < n; i++) ((int32_t *)t->row_ids.host)[i] = (int32_t)i;
    return nt_both_push(m->backend, &t->row_ids, 0, n * sizeof(int32_t));
}

/* ---- dropout --------------------------------------------------------------------------------------------------- */

/* Every product of every layer has masks of its own. */
static uint64_t product_key(int32_t layer, enum nt_lora_group group) {
    return ((uint64_t)layer * NT_LORA_GROUPS + (uint64_t)group + 1) * 0x9E3779B97F4A7C15u;
}

/* Where this rank's columns of a product's input begin among all: a mask is the same however it is divided. */
static int32_t first_column(const struct nt_model *m, enum nt_lora_group group) {
    if (group == NT_LORA_O) return m->shard.head0 * m->spec.d_head;
    return group == NT_LORA_DOWN ? m->shard.ff0 : 0;
}

static nt_status streams(struct nt_model *m, const struct nt_step *s, int32_t layer, enum nt_lora_group group,
                         int32_t n_tok) {
    const struct nt_tape *t = s->tape;
    const bool out = layer == m->spec.n_layer - 1 && group != NT_LORA_QKV;
    const uint64_t *keys = out ? t->keys_out.host : t->keys.host, key = product_key(layer, group);
    for (int32_t i = 0; i < n_tok; i++) ((uint64_t *)t->streams.host)[i] = keys[i] ^ key;
    return nt_both_push(m->backend, &t->streams, 0, (size_t)n_tok * sizeof *keys);
}

nt_status nt_tape_drop(struct nt_model *m, const struct nt_step *s, int32_t layer, enum nt_lora_group group,
                       const nt_bf16 *x, int64_t ldx, int32_t n_tok, const nt_bf16 **out) {
    *out = x;
    if (!s->tape || s->tape->drop_p <= 0) return NT_OK;
    *out = s->tape->dropped;
    NT_TRY(streams(m, s, layer, group, n_tok));
    const struct nt_dropout_args args = {.x = x,
                                         .y = s->tape->dropped,
                                         .ldx = ldx,
                                         .ldy = ldx,
                                         .seed = s->tape->drop_seed,
                                         .stream = s->tape->streams.device,
                                         .p = s->tape->drop_p,
                                         .n_row = n_tok,
                                         .n_col = (int32_t)ldx,
                                         .first = first_column(m, group)};
    return m->backend->ops.dropout(m->backend, &args);
}

nt_status nt_tape_drop_bwd(struct nt_model *m, const struct nt_step *s, int32_t layer, enum nt_lora_group group,
                           const float *dy, float *dx, int64_t ld, int32_t n_tok, int32_t n_col) {
    NT_TRY(streams(m, s, layer, group, n_tok));
    const struct nt_dropout_args args = {.x = dy,
                                         .y = dx,
                                         .ldx = ld,
                                         .ldy = ld,
                                         .seed = s->tape->drop_seed,
                                         .stream = s->tape->streams.device,
                                         .p = s->tape->drop_p,
                                         .n_row = n_tok,
                                         .n_col = n_col,
                                         .first = first_column(m, group),
                                         .add = true};
    return m->backend->ops.dropout(m->backend, &args);
}
