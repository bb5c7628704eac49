#include "lora_adapter.h"
#include "ops_bwd.h"

nt_status nt_lora_open(struct nt_lora_weights *l, struct nt_arena *a, const struct nt_model *m,
                       const struct nt_lora_shape *shape) {
    const enum nt_weight_format format = m->backend->weight_format;
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

/* A of all the group's linears: they lie one behind the other, as their rows do. */
static nt_status pack_a(const struct nt_params *p, const struct nt_lora_weights *l, int32_t layer, int group) {
    struct nt_pack_args a = {.w = &l->layers[layer][group].a, .scale = 1, .k = l->layers[layer][group].a.k};
    for (int i = 0; i < NT_LINEAR_COUNT; i++) {
        const struct nt_linear_place *lin = &l->linears[i];
        if ((int)lin->group != group || lin->index < 0) continue;
        const float *x = p->w + nt_params_find(p, layer, lin->slot, NT_PARAM_A)->at;
        if (lin->index == 0) a.x = x;
        NT_CHECK(x == a.x + (int64_t)a.n * a.k);
        a.n += l->shape.r;
    }
    return p->be->ops.pack(p->be, &a);
}

static nt_status pack_b(const struct nt_params *p, const struct nt_lora_weights *l, int32_t layer,
                        const struct nt_linear_place *lin) {
    const struct nt_pack_args b = {.x = p->w + nt_params_find(p, layer, lin->slot, NT_PARAM_B)->at,
                                   .w = &l->layers[layer][lin->group].b,
                                   .scale = l->shape.scale,
                                   .n = lin->n,
                                   .k = l->shape.r,
                                   .col0 = lin->index * l->shape.r,
                                   .row0 = lin->row0,
                                   .run = lin->run,
                                   .turned = true};
    return p->be->ops.pack(p->be, &b);
}

nt_status nt_params_pack(const struct nt_params *p, const struct nt_lora_weights *l) {
    for (int32_t layer = 0; layer < p->n_layer; layer++) {
        for (int g = 0; g < NT_LORA_GROUPS; g++)
            if (l->layers[layer][g].a.n > 0) NT_TRY(pack_a(p, l, layer, g));
        for (int i = 0; i < NT_LINEAR_COUNT; i++)
            if (l->linears[i].index >= 0) NT_TRY(pack_b(p, l, layer, &l->linears[i]));
    }
    return NT_OK;
}

nt_status nt_lora_load(struct nt_lora_weights *l, struct nt_arena *a, struct nt_model *m,
                       const struct nt_adapter *from) {
    const struct nt_lora_shape shape = nt_lora_shape_of(from);
    struct nt_params params;
    NT_TRY(nt_lora_open(l, a, m, &shape));
    nt_status st = nt_params_init(&params, m->world, m->backend, &m->spec, &m->shard, l->linears, &shape);
    if (st == NT_OK) st = nt_params_from_adapter(&params, from);
    if (st == NT_OK) st = nt_params_pack(&params, l);
    if (st == NT_OK) st = m->backend->memory->wait(m->backend);
    nt_params_release(&params);
    return st;
}

nt_status nt_model_adapt(struct nt_model *m, const struct nt_adapter *a) {
    NT_TRY(nt_lora_load(&m->own_lora, &m->own_lora_arena, m, a));
    m->lora = &m->own_lora;
    return NT_OK;
}
