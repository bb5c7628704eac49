/* Between the trained f32 numbers and the weights the ops read: rounding to bf16 and packing, and the way back. */
#include "lora_adapter.h"
#include "pool.h"
#include "training_state.h"
#include <stdlib.h>
#include <string.h>

/* ---- all weights ----------------------------------------------------------------------------------------------- */

/* A stored tensor and the weights it is rounded into: rows of a packed matrix, a table, or a vector. */
struct place {
    const struct nt_param *param;
    const struct nt_linear_place *lin; /* NULL: a table or a vector */
    const struct nt_packed *packed;
    nt_bf16 *table;
    float *vector;
};

/* Numbers and weights as host code reads and writes them: in place, or copies of a device's. */
struct places {
    struct nt_training *t;
    struct place *rows;
    int32_t n;
    struct nt_params_view numbers;
};

static void add(struct places *p, int32_t layer, enum nt_slot slot, struct place place) {
    place.param = nt_params_find(&p->t->params, layer, slot, NT_PARAM_W);
    if (place.param && (place.packed || place.table || place.vector)) p->rows[p->n++] = place;
}

static void *on_host(const struct places *p, const void *weight) {
    const struct nt_training *t = p->t;
    if (!t->host_weights) return (void *)(uintptr_t)weight;
    return t->host_weights + ((uintptr_t)weight - (uintptr_t)t->m->weight_arena.base);
}

static void add_linears(struct places *p, int32_t layer) {
    const struct nt_layer *l = &p->t->m->weights.layers[layer];
    const struct nt_packed *w[NT_LORA_GROUPS] = {&l->qkv, &l->o, &l->gate_up, &l->down};
    float *const bias[NT_LORA_GROUPS] = {l->qkv_bias, l->o_bias, l->gate_up_bias, l->down_bias};
    static const enum nt_slot bias_slot[NT_LINEAR_COUNT] = {NT_SLOT_Q_BIAS,   NT_SLOT_K_BIAS,    NT_SLOT_V_BIAS,
                                                            NT_SLOT_O_BIAS,   NT_SLOT_GATE_BIAS, NT_SLOT_UP_BIAS,
                                                            NT_SLOT_DOWN_BIAS};
    for (int i = 0; i < NT_LINEAR_COUNT; i++) {
        const struct nt_linear_place *lin = &p->t->linears[i];
        add(p, layer, lin->slot, (struct place){.lin = lin, .packed = w[lin->group]});
        add(p, layer, bias_slot[i], (struct place){.lin = lin, .vector = bias[lin->group]});
    }
}

static void list_places(struct places *p) {
    const struct nt_training *t = p->t;
    const struct nt_weights *w = &t->m->weights;
    add(p, 0, NT_SLOT_EMBED, (struct place){.table = w->embed, .packed = t->m->spec.tied ? &w->head : NULL});
    add(p, 0, NT_SLOT_HEAD, (struct place){.packed = &w->head});
    add(p, 0, NT_SLOT_FINAL_NORM, (struct place){.vector = w->final_norm});
    for (int32_t i = 0; i < t->m->spec.n_layer; i++) {
        const struct nt_layer *l = &w->layers[i];
        add(p, i, NT_SLOT_ATTN_NORM, (struct place){.vector = l->attn_norm});
        add(p, i, NT_SLOT_MLP_NORM, (struct place){.vector = l->mlp_norm});
        add(p, i, NT_SLOT_Q_NORM, (struct place){.vector = l->q_norm});
        add(p, i, NT_SLOT_K_NORM, (struct place){.vector = l->k_norm});
        add_linears(p, i);
    }
}

/* Where output j of the tensor stands: a row of the packed matrix, or a number of the vector. */
static int32_t output_at(const struct place *p, int32_t j) {
    return p->lin ? nt_linear_row(p->lin, j) : j;
}

static void pack_place(const struct places *p, const struct place *to, nt_bf16 *row) {
    const struct nt_param *param = to->param;
    const float *w = p->numbers.host + param->at;
    const int32_t n_out = param->transposed ? param->cols : param->rows;
    const int32_t k = param->transposed ? param->rows : param->cols;
    if (to->vector) {
        float *vector = on_host(p, to->vector);
        for (int32_t j = 0; j < param->cols; j++) vector[output_at(to, j)] = w[j];
        return;
    }
    nt_bf16 *table = to->table ? on_host(p, to->table) : NULL;
    for (int32_t j = 0; j < n_out; j++) {
        for (int32_t i = 0; i < k; i++)
            row[i] = nt_f32_to_bf16(param->transposed ? w[(int64_t)i * param->cols + j] : w[(int64_t)j * k + i]);
        if (table) memcpy(table + (int64_t)j * k, row, (size_t)k * sizeof *row);
        if (to->packed) nt_pack_row(to->packed, on_host(p, to->packed->data), output_at(to, j), row);
    }
}

static void unpack_place(const struct places *p, const struct place *from, nt_bf16 *row) {
    const struct nt_param *param = from->param;
    float *w = p->numbers.host + param->at;
    const int32_t n_out = param->transposed ? param->cols : param->rows;
    const int32_t k = param->transposed ? param->rows : param->cols;
    if (from->vector) {
        const float *vector = on_host(p, from->vector);
        for (int32_t j = 0; j < param->cols; j++) w[j] = vector[output_at(from, j)];
        return;
    }
    struct nt_packed packed = {0};
    if (from->packed) packed = *from->packed;
    if (from->packed) packed.data = on_host(p, from->packed->data);
    for (int32_t j = 0; j < n_out; j++) {
        if (from->table)
            memcpy(row, (nt_bf16 *)on_host(p, from->table) + (int64_t)j * k, (size_t)k * sizeof *row);
        else
            nt_unpack_row(&packed, output_at(from, j), row);
        for (int32_t i = 0; i < k; i++)
            w[param->transposed ? (int64_t)i * param->cols + j : (int64_t)j * k + i] = nt_bf16_to_f32(row[i]);
    }
}

/* Half panels of gate and up are whole cache lines of k pairs, so threads may have tensors of one product. */
struct run {
    const struct places *places;
    nt_bf16 *rows; // [n_threads][widest]
    int32_t widest;
    void (*each)(const struct places *p, const struct place *place, nt_bf16 *row);
};

static void run_thread(void *arg, int thread, int n_threads) {
    (void)n_threads;
    const struct run *r = arg;
    const struct places *p = r->places;
    struct nt_pool *pool = p->t->m->backend->pool;
    for (int64_t i = nt_pool_next(pool, p->n); i >= 0; i = nt_pool_next(pool, p->n))
        r->each(p, &p->rows[i], r->rows + (int64_t)thread * r->widest);
}

static nt_status run_places(const struct places *p,
                            void (*each)(const struct places *p, const struct place *place, nt_bf16 *row)) {
    const struct nt_training *t = p->t;
    struct run r = {.places = p, .widest = t->m->spec.d_model, .each = each};
    struct nt_pool *pool = t->m->backend->pool;
    for (int i = 0; i < NT_LINEAR_COUNT; i++)
        if (t->linears[i].k > r.widest) r.widest = t->linears[i].k;
    r.rows = malloc((size_t)nt_pool_size(pool) * (size_t)r.widest * sizeof *r.rows);
    if (!r.rows) return NT_FAIL(NT_E_NOMEM, "no memory for rows of %d weights", r.widest);
    nt_pool_run(pool, run_thread, &r);
    free(r.rows);
    return NT_OK;
}

/* One way or the other over all tensors; what was written goes back to a device. */
static nt_status move(struct nt_training *t, bool to_weights) {
    struct nt_params *params = &t->params;
    struct nt_backend *be = t->m->backend;
    const struct nt_arena *weights = &t->m->weight_arena;
    struct places p = {.t = t, .rows = calloc((size_t)params->n, sizeof *p.rows)};
    if (!p.rows) return NT_FAIL(NT_E_NOMEM, "no memory for a table of %d tensors", params->n);
    list_places(&p);
    nt_status st = nt_params_view_open(params, params->w, 0, params->n_floats, &p.numbers);
    if (st == NT_OK) {
        st = run_places(&p, to_weights ? pack_place : unpack_place);
        const nt_status closed = nt_params_view_close(params, &p.numbers, !to_weights && st == NT_OK);
        if (st == NT_OK) st = closed;
    }
    if (st == NT_OK && to_weights && t->host_weights)
        st = be->memory->upload(be, weights->base, t->host_weights, weights->size);
    free(p.rows);
    return st;
}

nt_status nt_training_unpack(struct nt_training *t) {
    struct nt_backend *be = t->m->backend;
    const struct nt_arena *weights = &t->m->weight_arena;
    if (!nt_backend_is_host(be)) {
        t->host_weights = malloc(weights->size);
        if (!t->host_weights)
            return NT_FAIL(NT_E_NOMEM, "no memory for a host copy of %zu bytes of weights", weights->size);
        NT_TRY(be->memory->download(be, t->host_weights, weights->base, weights->size));
    }
    return move(t, false);
}

/* Model copies of one node share their weights: all have done with them before the leader writes, and none goes on
 * before it has. */
static nt_status pack_weights(struct nt_training *t) {
    struct nt_model *m = t->m;
    if (!m->shared.base) return move(t, true);
    NT_TRY(nt_comm_barrier(m->world->world));
    nt_status st = m->shared.leader ? move(t, true) : NT_OK;
    return nt_comm_agree(m->world->world, st);
}

nt_status nt_training_publish(struct nt_training *t) {
    return nt_trains_all(t) ? pack_weights(t) : nt_params_pack(&t->params, &t->lora, t->m->backend);
}
