#include "model_shape.h"
#include "model_state.h"
#include "ops_cost.h"
#include <stdlib.h>

static nt_status bind_weights(struct nt_model *m) {
    struct nt_backend *be = m->backend;
    void *memory = NULL;
    nt_arena_init(&m->weight_arena, "weights");
    nt_weights_layout(&m->weights, &m->weight_arena, &m->spec, &m->shard, be->weight_format, be->weight_format);
    NT_TRY(be->memory->take(be, m->weight_arena.used, "weights", &memory));
    nt_arena_bind_device(&m->weight_arena, memory, m->weight_arena.used);
    nt_weights_layout(&m->weights, &m->weight_arena, &m->spec, &m->shard, be->weight_format, be->weight_format);
    return NT_OK;
}

static void set_group(struct nt_model *m, int32_t group) {
    for (int32_t i = 0; i < m->spec.n_layer; i++) {
        struct nt_layer *l = &m->weights.layers[i];
        l->qkv.group = l->o.group = l->gate_up.group = l->down.group = group;
    }
}

nt_status nt_model_open_shape(struct nt_model **out, const struct nt_spec *spec, struct nt_world *w,
                              struct nt_backend *be, int32_t int4_group) {
    struct nt_model *m = calloc(1, sizeof *m);
    if (!m) return NT_FAIL(NT_E_NOMEM, "no memory for the model");
    m->spec = *spec;
    m->world = w;
    m->backend = be;
    m->max_len = spec->max_len;
    for (int i = 0; i < NT_MAX_D_HEAD / 2; i++) m->rope_freqs[i] = 1; /* divisors */
    nt_status st = nt_shard_plan(spec, w->tp_rank, w->tp_size, &m->shard);
    if (st == NT_OK) st = bind_weights(m);
    if (st == NT_OK) st = nt_peer_sum_open_shape(be, w, &m->peers);
    if (st != NT_OK) {
        nt_model_close(m);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    set_group(m, int4_group);
    *out = m;
    return NT_OK;
}

void *nt_model_shape_weights(struct nt_model *m) {
    return m->weight_arena.base;
}

static double saved(const struct nt_packed *w) {
    struct nt_packed whole = *w;
    whole.group = 0;
    return nt_packed_cost_bytes(&whole) - nt_packed_cost_bytes(w);
}

double nt_model_shape_bytes(const struct nt_model *m) {
    double bytes = (double)nt_model_weight_bytes(m);
    for (int32_t i = 0; i < m->spec.n_layer; i++) {
        const struct nt_layer *l = &m->weights.layers[i];
        bytes -= saved(&l->qkv) + saved(&l->o) + saved(&l->gate_up) + saved(&l->down);
    }
    return bytes;
}
