/* Between the trained f32 numbers and the weights the ops read: rounding to bf16 and packing by the backend, and the
 * way back, once, by the host. */
#include "lora_adapter.h"
#include "ops_bwd.h"
#include "pool.h"
#include "training_state.h"
#include <stdlib.h>

/* ---- all weights ----------------------------------------------------------------------------------------------- */

/* A stored tensor as pack takes it. */
typedef nt_status place_fn(struct nt_training *t, const struct nt_pack_args *place);

/* place says where to: nowhere, if the model has no such weights. */
static nt_status visit(struct nt_training *t, place_fn *fn, int32_t layer, enum nt_slot slot,
                       struct nt_pack_args place) {
    const struct nt_param *param = nt_params_find(&t->params, layer, slot, NT_PARAM_W);
    if (!param || !(place.w || place.table || place.vector)) return NT_OK;
    place.x = t->params.w + param->at;
    place.scale = 1;
    place.turned = param->transposed && !place.vector;
    place.n = place.turned || place.vector ? param->cols : param->rows;
    place.k = place.vector ? 1 : place.turned ? param->rows : param->cols;
    return fn(t, &place);
}

static nt_status visit_linears(struct nt_training *t, place_fn *fn, int32_t layer) {
    const struct nt_layer *l = &t->m->weights.layers[layer];
    const struct nt_packed *w[NT_LORA_GROUPS] = {&l->qkv, &l->o, &l->gate_up, &l->down};
    float *const bias[NT_LORA_GROUPS] = {l->qkv_bias, l->o_bias, l->gate_up_bias, l->down_bias};
    for (int i = 0; i < NT_LINEAR_COUNT; i++) {
        const struct nt_linear_place *lin = &t->linears[i];
        struct nt_pack_args place = {.w = w[lin->group], .row0 = lin->row0, .run = lin->run};
        NT_TRY(visit(t, fn, layer, lin->slot, place));
        place.w = NULL;
        place.vector = bias[lin->group];
        NT_TRY(visit(t, fn, layer, nt_linear_bias_slot((enum nt_linear)i), place));
    }
    return NT_OK;
}

static nt_status visit_all(struct nt_training *t, place_fn *fn) {
    const struct nt_weights *w = &t->m->weights;
    const struct nt_packed *tied = t->m->spec.tied ? &w->head : NULL;
    NT_TRY(visit(t, fn, 0, NT_SLOT_EMBED, (struct nt_pack_args){.table = w->embed, .w = tied}));
    NT_TRY(visit(t, fn, 0, NT_SLOT_HEAD, (struct nt_pack_args){.w = &w->head}));
    NT_TRY(visit(t, fn, 0, NT_SLOT_FINAL_NORM, (struct nt_pack_args){.vector = w->final_norm}));
    for (int32_t i = 0; i < t->m->spec.n_layer; i++) {
        const struct nt_layer *l = &w->layers[i];
        NT_TRY(visit(t, fn, i, NT_SLOT_ATTN_NORM, (struct nt_pack_args){.vector = l->attn_norm}));
        NT_TRY(visit(t, fn, i, NT_SLOT_MLP_NORM, (struct nt_pack_args){.vector = l->mlp_norm}));
        NT_TRY(visit(t, fn, i, NT_SLOT_Q_NORM, (struct nt_pack_args){.vector = l->q_norm}));
        NT_TRY(visit(t, fn, i, NT_SLOT_K_NORM, (struct nt_pack_args){.vector = l->k_norm}));
        NT_TRY(visit_linears(t, fn, i));
    }
    return NT_OK;
}

static nt_status pack(struct nt_training *t, const struct nt_pack_args *place) {
    return t->m->backend->ops.pack(t->m->backend, place);
}

/* Model copies of one node share their weights: all have done with them before the leader writes, and none goes on
 * before it has. */
static nt_status pack_weights(struct nt_training *t) {
    struct nt_model *m = t->m;
    if (!m->shared.base) return visit_all(t, pack);
    NT_TRY(nt_comm_barrier(m->world->world));
    nt_status st = m->shared.leader ? visit_all(t, pack) : NT_OK;
    return nt_comm_agree(m->world->world, st);
}

nt_status nt_training_publish(struct nt_training *t) {
    return nt_trains_all(t) ? pack_weights(t) : nt_params_pack(&t->params, &t->lora);
}

/* ---- and back -------------------------------------------------------------------------------------------------- */

/* A place with its weights and numbers where the host reads and writes them. */
struct back {
    const struct nt_pack_args *place;
    const void *weights;
    float *x;
    nt_bf16 *rows; // [n_threads][k]
};

static const void *weights_of(const struct nt_pack_args *a, size_t *bytes) {
    if (a->vector) {
        *bytes = (size_t)(nt_pack_place(a, a->n - 1) + 1) * sizeof *a->vector;
        return a->vector;
    }
    if (a->table) {
        *bytes = (size_t)a->n * (size_t)a->k * sizeof *a->table;
        return a->table;
    }
    *bytes = nt_packed_bytes(a->w->format, a->w->n, a->w->k);
    return a->w->data;
}

/* Output j's weights, where they lie or in buffer. */
static const nt_bf16 *row_of(const struct back *b, int32_t j, nt_bf16 *buffer) {
    const struct nt_pack_args *a = b->place;
    if (a->table) return (const nt_bf16 *)b->weights + (int64_t)j * a->k;
    struct nt_packed w = *a->w;
    w.data = b->weights;
    nt_unpack_row(&w, (int32_t)nt_pack_place(a, j), buffer);
    return buffer;
}

static void unpack_thread(void *arg, int thread, int n_threads) {
    const struct back *b = arg;
    const struct nt_pack_args *a = b->place;
    int64_t begin, end;
    nt_split(a->n, NT_PANEL, thread, n_threads, &begin, &end);
    for (int32_t j = (int32_t)begin; j < end; j++) {
        if (a->vector) {
            b->x[j] = ((const float *)b->weights)[nt_pack_place(a, j)];
            continue;
        }
        const nt_bf16 *row = row_of(b, j, b->rows + (int64_t)thread * a->k);
        for (int32_t i = 0; i < a->k; i++)
            b->x[a->turned ? (int64_t)i * a->n + j : (int64_t)j * a->k + i] = nt_bf16_to_f32(row[i]);
    }
}

static nt_status unpack_into(struct nt_training *t, struct back *b) {
    const struct nt_pack_args *a = b->place;
    struct nt_params_view v;
    NT_TRY(nt_params_view_open(&t->params, t->params.w, a->x - t->params.w, (int64_t)a->n * a->k, &v));
    b->x = v.host;
    nt_pool_run(t->m->backend->pool, unpack_thread, b);
    return nt_params_view_close(&t->params, &v, true);
}

static nt_status unpack(struct nt_training *t, const struct nt_pack_args *place) {
    struct nt_backend *be = t->m->backend;
    size_t bytes;
    struct back b = {.place = place, .weights = weights_of(place, &bytes)};
    const size_t copied = nt_backend_is_host(be) ? 0 : bytes;
    char *scratch = malloc(copied + (size_t)nt_pool_size(be->pool) * (size_t)place->k * sizeof *b.rows);
    if (!scratch) return NT_FAIL(NT_E_NOMEM, "no memory for a host copy of %zu bytes of weights", copied);
    nt_status st = copied > 0 ? be->memory->download(be, scratch, b.weights, copied) : NT_OK;
    if (copied > 0) b.weights = scratch;
    b.rows = (void *)(scratch + copied);
    if (st == NT_OK) st = unpack_into(t, &b);
    free(scratch);
    return st;
}

nt_status nt_training_unpack(struct nt_training *t) {
    return visit_all(t, unpack);
}
