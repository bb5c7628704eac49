#include "lora_adapter.h"
#include <stdlib.h>

nt_status nt_lora_open(struct nt_lora_weights *l, struct nt_arena *a, const struct nt_model *m,
                       const struct nt_lora_shape *shape) {
    const enum nt_weight_format format = m->backend->weight_format;
    nt_linear_places(&m->spec, &m->shard, shape->targets, l->linears);
    nt_arena_init(a, "adapter");
    nt_lora_layout(l, a, &m->spec, &m->shard, shape, format);
    NT_TRY(nt_arena_bind_backend(a, m->backend));
    nt_lora_layout(l, a, &m->spec, &m->shard, shape, format);
    return NT_OK;
}

struct nt_lora_shape nt_lora_shape_of(const struct nt_adapter *a) {
    return (struct nt_lora_shape){.r = a->r, .scale = (float)nt_adapter_scale(a), .targets = a->targets};
}

nt_status nt_params_from_adapter(const struct nt_params *p, const struct nt_adapter *from) {
    NT_TRY(nt_params_zero(p, p->w));
    for (int32_t layer = 0; layer < p->n_layer; layer++)
        for (int i = 0; i < NT_LINEAR_COUNT; i++) {
            const struct nt_lora *pair = nt_adapter_at(from, layer, (enum nt_linear)i);
            const enum nt_slot slot = nt_linear_slot((enum nt_linear)i);
            if (!pair->a) continue;
            NT_TRY(nt_params_scatter(p, nt_params_find(p, layer, slot, NT_PARAM_A), pair->a, p->w));
            NT_TRY(nt_params_scatter(p, nt_params_find(p, layer, slot, NT_PARAM_B), pair->b, p->w));
        }
    return NT_OK;
}

nt_status nt_params_pack(const struct nt_params *p, struct nt_lora_weights *l, struct nt_backend *be) {
    struct nt_lora_numbers *numbers = calloc((size_t)p->n_layer * NT_LINEAR_COUNT, sizeof *numbers);
    if (!numbers) return NT_FAIL(NT_E_NOMEM, "no memory for the adapter's table");
    struct nt_params_view v;
    nt_status st = nt_params_view_open(p, p->w, 0, p->n_floats, &v);
    for (int32_t i = 0; i < p->n_layer * NT_LINEAR_COUNT && st == NT_OK; i++) {
        const struct nt_linear_place *lin = &l->linears[i % NT_LINEAR_COUNT];
        if (lin->index < 0) continue;
        numbers[i].a = v.host + nt_params_find(p, i / NT_LINEAR_COUNT, lin->slot, NT_PARAM_A)->at;
        numbers[i].b = v.host + nt_params_find(p, i / NT_LINEAR_COUNT, lin->slot, NT_PARAM_B)->at;
    }
    if (st == NT_OK) {
        st = nt_lora_pack(l, be, numbers);
        const nt_status closed = nt_params_view_close(p, &v, false);
        if (st == NT_OK) st = closed;
    }
    free(numbers);
    return st;
}

nt_status nt_lora_load(struct nt_lora_weights *l, struct nt_arena *a, struct nt_model *m,
                       const struct nt_adapter *from) {
    const struct nt_lora_shape shape = nt_lora_shape_of(from);
    struct nt_params params;
    NT_TRY(nt_lora_open(l, a, m, &shape));
    nt_status st = nt_params_init(&params, m->world, NULL, &m->spec, &m->shard, l->linears, &shape);
    if (st == NT_OK) st = nt_params_from_adapter(&params, from);
    if (st == NT_OK) st = nt_params_pack(&params, l, m->backend);
    nt_params_release(&params);
    return st;
}

nt_status nt_model_adapt(struct nt_model *m, const struct nt_adapter *a) {
    NT_TRY(nt_lora_load(&m->own_lora, &m->own_lora_arena, m, a));
    m->lora = &m->own_lora;
    return NT_OK;
}
