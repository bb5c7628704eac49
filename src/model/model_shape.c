#include "model_shape.h"
#include "model_state.h"
#include <stdlib.h>

static nt_status bind_weights(struct nt_model *m) {
    struct nt_backend *be = m->backend;
    void *memory = NULL;
    nt_arena_init(&m->weight_arena, "weights");
    nt_model_layout_weights(m);
    NT_TRY(be->memory->take(be, m->weight_arena.used, "weights", &memory));
    nt_arena_bind_device(&m->weight_arena, memory, m->weight_arena.used);
    nt_model_layout_weights(m);
    return NT_OK;
}

nt_status nt_model_open_shape(struct nt_model **out, const struct nt_spec *spec, struct nt_world *w,
                              struct nt_backend *be) {
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
    *out = m;
    return NT_OK;
}

void *nt_model_shape_weights(struct nt_model *m) {
    return m->weight_arena.base;
}
