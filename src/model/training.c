#include "training.h"
#include "arch_table.h"
#include "lora_adapter.h"
#include "ops_bwd.h"
#include "training_state.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- open ------------------------------------------------------------------------------------------------------ */

static nt_status open_all(struct nt_training *t) {
    struct nt_model *m = t->m;
    const struct nt_lora_shape *shape = &t->config.lora;
    if (nt_trains_all(t) && nt_weight_is_quantized(m->backend->block_format))
        return NT_FAIL(NT_E_CONFIG,
                       "all weights are to be trained, but model.weight_dtype = %s keeps them as integers; "
                       "use bf16, or train an adapter",
                       nt_weight_format_name(m->backend->block_format));
    nt_linear_places(&m->spec, &m->shard, shape->targets, t->linears);
    NT_TRY(nt_params_init(&t->params, m->world, m->backend, &m->spec, &m->shard, t->linears, shape));
    NT_TRY(nt_params_train(&t->params));
    NT_TRY(nt_grad_sum_open(&t->sum, &t->params, m->spec.d_head, m->device_comm, m->copies_comm));
    if (nt_trains_all(t)) return nt_training_unpack(t);
    return nt_lora_open(&t->lora, &t->lora_arena, m, shape);
}

/* Of logits. On a GPU the product that leads back from them has k x rows results and the vocabulary as its sum: few
 * rows are too few tiles (H200, SmolLM2: a third of the step with 256). */
enum { ROWS_CPU = 256, ROWS_CUDA = 1024 };

nt_status nt_training_new(struct nt_training **out, struct nt_model *m, const struct nt_training_config *c) {
    NT_CHECK(c->chunk >= 0 && c->dropout >= 0 && c->dropout < 1);
    if (c->dropout > 0 && m->shard.size > 1 && m->spec.d_head % 4 != 0) /* random words come in fours */
        return NT_FAIL(NT_E_UNSUPPORTED, "dropout with tp %d needs heads of a multiple of 4, this model has %d",
                       m->shard.size, m->spec.d_head);
    struct nt_training *t = calloc(1, sizeof *t);
    if (!t) return NT_FAIL(NT_E_NOMEM, "no memory for training");
    t->m = m;
    t->config = *c;
    if (c->chunk == 0) t->config.chunk = m->backend->cuda ? ROWS_CUDA : ROWS_CPU;
    t->tape.recompute = c->recompute;
    t->tape.drop_p = nt_trains_all(t) ? 0 : c->dropout;
    const nt_status st = open_all(t);
    if (st != NT_OK) {
        nt_training_free(t);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    m->training = true;
    if (!nt_trains_all(t)) m->lora = &t->lora;
    *out = t;
    return NT_OK;
}

void nt_training_free(struct nt_training *t) {
    if (!t) return;
    t->m->training = false;
    t->m->lora = NULL;
    nt_arena_give(&t->lora_arena, t->m->backend);
    nt_arena_give(&t->reference_arena, t->m->backend);
    nt_grad_sum_close(&t->sum);
    nt_params_release(&t->params);
    free(t);
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

static int32_t widest_rank(const struct nt_training *t) {
    int32_t widest = 0;
    for (int g = 0; g < NT_LORA_GROUPS; g++) {
        const int32_t rank = nt_lora_rank(t->linears, (enum nt_lora_group)g, t->config.lora.r);
        if (rank > widest) widest = rank;
    }
    return widest;
}

/* What the chunks of the head are done in. */
static void take_head(const struct nt_training *t, struct nt_back *k, struct nt_arena *a) {
    const size_t chunk = (size_t)t->config.chunk, ld = (size_t)nt_logit_ld(&t->m->shard);
    k->logits = NT_TAKE(a, float, chunk *ld);
    k->dlogits = NT_TAKE(a, nt_bf16, chunk * (size_t)nt_row_ld(nt_logit_ld(&t->m->shard)));
}

/* What the blocks are done in, after the head. */
static void take_blocks(const struct nt_training *t, struct nt_back *k, struct nt_arena *a,
                        const struct nt_step_limits *max) {
    const struct nt_model *m = t->m;
    const size_t n = (size_t)max->tok, n_out = (size_t)max->out, d_head = (size_t)m->spec.d_head;
    const size_t heads = (size_t)m->shard.n_head * d_head, n_qkv = heads + 2 * (size_t)m->shard.n_kv * d_head;
    k->dx = NT_TAKE(a, float, n *(size_t)m->spec.d_model);
    k->dmlp = NT_TAKE(a, float, n *(size_t)m->shard.ff_pad);
    k->dheads = NT_TAKE(a, float, n *heads);
    k->dheads_out = NT_TAKE(a, float, n_out *heads);
    k->dqkv = NT_TAKE(a, float, n *n_qkv);
    k->dqkv16 = NT_TAKE(a, nt_bf16, n * n_qkv);
    k->dlow = NT_TAKE(a, nt_bf16, n * (size_t)widest_rank(t));
    if (t->tape.drop_p > 0) k->dropped = NT_TAKE(a, float, n *(size_t)nt_linear_widest(t->linears));
}

/* The reference's adapter may be wider than the trained one, and sit on other linears. */
static void take_reference(const struct nt_training *t, struct nt_arena *a, size_t n) {
    const struct nt_lora_weights *trained = t->m->lora;
    for (int g = 0; g < NT_LORA_GROUPS && t->reference.n_layer > 0; g++) {
        const int32_t rank = t->reference.layers[0][g].a.n;
        if (rank > (trained ? trained->layers[0][g].a.n : 0))
            t->m->acts.block.low[g] = NT_TAKE(a, nt_bf16, n * (size_t)rank);
    }
}

nt_status nt_training_layout(struct nt_training *t, struct nt_job_memory *mem, const struct nt_step_limits *max) {
    struct nt_model *m = t->m;
    struct nt_back *k = &t->back;
    struct nt_arena *a = &mem->device;
    const size_t n = (size_t)max->tok, d = (size_t)m->spec.d_model, chunk = (size_t)t->config.chunk;
    NT_TRY(nt_model_layout(m, mem, max));
    take_reference(t, a, n);
    NT_TRY(nt_tape_layout(&t->tape, m, mem));
    k->dx_out = NT_TAKE(a, float, (size_t)max->out *d);
    k->dx16 = NT_TAKE(a, nt_bf16, n * d);
    k->dh = NT_TAKE(a, float, n *d);
    const size_t before = a->used;
    take_head(t, k, a);
    const size_t after = a->used;
    nt_arena_back(a, before);
    take_blocks(t, k, a, max);
    nt_arena_raise(a, after);
    k->stats = nt_job_take_both(mem, 4 * chunk * sizeof(float));
    k->targets = nt_job_take_both(mem, chunk * sizeof(int32_t));
    if (nt_trains_all(t)) k->ones = nt_job_take_both(mem, n * sizeof(nt_bf16));
    if (!k->ones.host) return NT_OK; /* counting, or without */
    for (size_t i = 0; i < n; i++) ((nt_bf16 *)k->ones.host)[i] = nt_f32_to_bf16(1);
    return nt_both_push(m->backend, &k->ones, 0, n * sizeof(nt_bf16));
}

size_t nt_training_state_bytes(const struct nt_training *t) {
    return nt_params_bytes(&t->params) + nt_grad_sum_bytes(&t->sum) + t->lora_arena.size + t->reference_arena.size;
}

int64_t nt_training_count(const struct nt_training *t) {
    int64_t n = 0;
    for (int32_t i = 0; i < t->params.n; i++) n += nt_param_logical_count(&t->params.rows[i]);
    return n;
}

/* ---- a micro-batch --------------------------------------------------------------------------------------------- */

static nt_status name_tokens(struct nt_training *t, const struct nt_batch *b, const uint64_t *keys) {
    struct nt_tape *tape = &t->tape;
    uint64_t *out = tape->keys_out.host;
    memcpy(tape->keys.host, keys, (size_t)b->n_tok * sizeof *keys);
    for (int32_t i = 0; i < b->n_out; i++) out[i] = keys[b->out_rows[i]];
    return NT_OK;
}

/* The norm before the head; what the head reads stays until the next forward. */
static nt_status last_norm(struct nt_training *t) {
    struct nt_model *m = t->m;
    struct nt_step *s = &t->step;
    return nt_model_norm(m, s, m->weights.final_norm, t->tape.h_last, t->tape.x_last, s->batch.n_out);
}

nt_status nt_training_forward(struct nt_training *t, const struct nt_batch *b, const struct nt_kv_pool *kv,
                              const uint64_t *keys, uint64_t seed, enum nt_forward kind) {
    struct nt_model *m = t->m;
    const bool keep = kind == NT_FORWARD_TRAIN;
    NT_CHECK(b->n_out > 0 && (!keep || t->tape.drop_p <= 0 || keys));
    t->kept = false;
    t->step = (struct nt_step){.kv = kv, .x = m->acts.x, .tape = keep ? &t->tape : NULL};
    t->tape.drop_seed = seed;
    if (keep && t->tape.drop_p > 0) NT_TRY(name_tokens(t, b, keys));
    NT_TRY(nt_inputs_fill(m, b, &t->step, 0));
    const struct nt_lora_weights *trained = m->lora;
    if (kind == NT_FORWARD_REFERENCE) m->lora = t->reference.n_layer > 0 ? &t->reference : NULL;
    nt_status st = nt_step_blocks(m, &t->step);
    m->lora = trained;
    if (st == NT_OK) st = last_norm(t);
    t->kept = keep && st == NT_OK;
    return st;
}

nt_status nt_training_backward(struct nt_training *t, const int32_t *targets, const float *coef, float *logp) {
    struct nt_model *m = t->m;
    NT_CHECK(t->kept);
    t->kept = false; /* the backward works in place */
    NT_TRY(nt_head_backward(t, targets, coef, logp));
    for (int32_t layer = m->spec.n_layer - 1; layer >= 0; layer--) NT_TRY(nt_block_backward(t, layer));
    if (!nt_trains_all(t)) return NT_OK;
    const struct nt_embed_bwd_args embed = {.ids = t->step.batch.ids,
                                            .dx = t->back.dx,
                                            .dtable = nt_training_grad(t, 0, NT_SLOT_EMBED, NT_PARAM_W),
                                            .scale = 1,
                                            .n_tok = t->step.batch.n_tok,
                                            .d_model = m->spec.d_model,
                                            .first = m->shard.vocab0,
                                            .n_rows = m->shard.n_vocab};
    return m->backend->ops.embed_bwd(m->backend, &embed);
}

/* ---- a step ---------------------------------------------------------------------------------------------------- */

nt_status nt_training_zero_grads(struct nt_training *t) {
    return nt_params_zero(&t->params, t->params.grad);
}

nt_status nt_training_reduce(struct nt_training *t, double *norm) {
    NT_TRY(nt_grad_sum(&t->sum));
    NT_TRY(nt_params_grad_squares(&t->params, norm));
    *norm = sqrt(*norm);
    return NT_OK;
}

/* One pass over rows of equal decay: with an adapter all of it. */
static nt_status update_run(struct nt_training *t, const struct nt_adamw *o, int64_t step, double clip, int64_t begin,
                            int64_t end, bool decay) {
    struct nt_params *p = &t->params;
    const struct nt_adamw_args args = {.p = p->w + begin,
                                       .m = p->m + begin,
                                       .v = p->v + begin,
                                       .grad = p->grad + begin,
                                       .grad_scale = (float)clip,
                                       .lr = (float)o->lr,
                                       .beta1 = (float)o->beta1,
                                       .beta2 = (float)o->beta2,
                                       .eps = (float)o->eps,
                                       .decay = decay ? (float)o->weight_decay : 0,
                                       .bias1 = (float)(1 - pow(o->beta1, (double)step)),
                                       .bias2 = (float)(1 - pow(o->beta2, (double)step)),
                                       .n = end - begin};
    return t->m->backend->ops.adamw(t->m->backend, &args);
}

nt_status nt_training_update(struct nt_training *t, const struct nt_adamw *o, int64_t step, double norm) {
    const struct nt_params *p = &t->params;
    const double clip = o->max_grad_norm > 0 && norm > o->max_grad_norm ? o->max_grad_norm / (norm + 1e-6) : 1;
    int32_t first = 0;
    for (int32_t i = 1; i <= p->n; i++) {
        if (i < p->n && p->rows[i].decay == p->rows[first].decay) continue;
        const int64_t end = i < p->n ? p->rows[i].at : p->n_floats;
        NT_TRY(update_run(t, o, step, clip, p->rows[first].at, end, p->rows[first].decay));
        first = i;
    }
    return nt_training_publish(t);
}

/* ---- logical tensors ------------------------------------------------------------------------------------------- */

int32_t nt_training_tensors(const struct nt_training *t) {
    return t->params.n;
}

/* "....q_proj.weight", with the adapter's part before the last word. */
static void name_tensor(const struct nt_param *p, char *buf, size_t cap) {
    nt_slot_name(nt_decoder_slots[p->slot].hf, p->layer, buf, cap);
    if (p->part == NT_PARAM_W) return;
    char *end = strrchr(buf, '.');
    NT_CHECK(end && (size_t)(end - buf) + sizeof ".lora_A.weight" <= cap);
    strncpy(end, p->part == NT_PARAM_A ? ".lora_A.weight" : ".lora_B.weight", cap - (size_t)(end - buf));
}

void nt_training_tensor(const struct nt_training *t, int32_t i, struct nt_training_tensor *out) {
    NT_CHECK(i >= 0 && i < t->params.n);
    const struct nt_param *p = &t->params.rows[i];
    *out = (struct nt_training_tensor){
        .layer = p->layer, .slot = p->slot, .part = "WAB"[p->part], .n_row = p->out_size, .n_col = p->in_size};
    out->vector = nt_decoder_slots[p->slot].cols == NT_DIM_NONE;
    name_tensor(p, out->name, sizeof out->name);
}

static float *array_of(const struct nt_training *t, enum nt_training_array array) {
    const struct nt_params *p = &t->params;
    float *const arrays[] = {
        [NT_TRAINING_W] = p->w, [NT_TRAINING_M] = p->m, [NT_TRAINING_V] = p->v, [NT_TRAINING_GRAD] = p->grad};
    return arrays[array];
}

nt_status nt_training_get(const struct nt_training *t, int32_t i, enum nt_training_array array, float *data) {
    return nt_params_gather(&t->params, &t->params.rows[i], array_of(t, array), data);
}

nt_status nt_training_set(struct nt_training *t, int32_t i, enum nt_training_array array, const float *data) {
    return nt_params_scatter(&t->params, &t->params.rows[i], data, array_of(t, array));
}
