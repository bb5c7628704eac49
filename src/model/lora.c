#include "lora.h"

/* ---- which rows and columns a linear has ----------------------------------------------------------------------- */

static void rows_of_heads(struct nt_linear_place *l, int32_t head0, int32_t n, int32_t all, int32_t before,
                          int32_t d_head) {
    l->row0 = before * d_head;
    l->n = l->n_valid = n * d_head;
    l->out0 = head0 * d_head;
    l->out_size = all * d_head;
}

static void of_model(struct nt_linear_place *l, const struct nt_spec *spec, bool in) {
    if (in) {
        l->k = l->k_valid = l->in_size = spec->d_model;
        return;
    }
    l->n = l->n_valid = l->out_size = spec->d_model;
}

static void half_of_ff(struct nt_linear_place *l, const struct nt_spec *spec, const struct nt_shard *s, bool up) {
    l->row0 = up ? nt_packed_up_row(0) : nt_packed_gate_row(0);
    l->run = NT_PANEL / 2;
    l->n = s->ff_pad;
    l->n_valid = s->n_ff;
    l->out0 = s->ff0;
    l->out_size = spec->d_ff;
}

void nt_linear_places(const struct nt_spec *spec, const struct nt_shard *s, uint32_t targets,
                      struct nt_linear_place out[NT_LINEAR_COUNT]) {
    static const enum nt_lora_group groups[NT_LINEAR_COUNT] = {
        [NT_LINEAR_Q] = NT_LORA_QKV,    [NT_LINEAR_K] = NT_LORA_QKV,        [NT_LINEAR_V] = NT_LORA_QKV,
        [NT_LINEAR_O] = NT_LORA_O,      [NT_LINEAR_GATE] = NT_LORA_GATE_UP, [NT_LINEAR_UP] = NT_LORA_GATE_UP,
        [NT_LINEAR_DOWN] = NT_LORA_DOWN};
    int32_t used[NT_LORA_GROUPS] = {0};
    for (int i = 0; i < NT_LINEAR_COUNT; i++) {
        struct nt_linear_place *l = &out[i];
        *l = (struct nt_linear_place){.slot = nt_linear_slot((enum nt_linear)i), .group = groups[i], .index = -1};
        if (targets >> i & 1) l->index = used[l->group]++;
        of_model(l, spec, l->group == NT_LORA_QKV || l->group == NT_LORA_GATE_UP);
    }
    rows_of_heads(&out[NT_LINEAR_Q], s->head0, s->n_head, spec->n_head, 0, spec->d_head);
    rows_of_heads(&out[NT_LINEAR_K], s->kv0, s->n_kv, spec->n_kv, s->n_head, spec->d_head);
    rows_of_heads(&out[NT_LINEAR_V], s->kv0, s->n_kv, spec->n_kv, s->n_head + s->n_kv, spec->d_head);
    struct nt_linear_place *o = &out[NT_LINEAR_O], *down = &out[NT_LINEAR_DOWN];
    o->k = o->k_valid = s->n_head * spec->d_head;
    o->in0 = s->head0 * spec->d_head;
    o->in_size = spec->n_head * spec->d_head;
    half_of_ff(&out[NT_LINEAR_GATE], spec, s, false);
    half_of_ff(&out[NT_LINEAR_UP], spec, s, true);
    down->k = s->ff_pad;
    down->k_valid = s->n_ff;
    down->in0 = s->ff0;
    down->in_size = spec->d_ff;
}

int32_t nt_linear_widest(const struct nt_linear_place linears[NT_LINEAR_COUNT]) {
    int32_t widest = 0;
    for (int i = 0; i < NT_LINEAR_COUNT; i++)
        if (linears[i].k > widest) widest = linears[i].k;
    return widest;
}

int32_t nt_lora_rank(const struct nt_linear_place linears[NT_LINEAR_COUNT], enum nt_lora_group group, int32_t r) {
    int32_t n = 0;
    for (int i = 0; i < NT_LINEAR_COUNT; i++) n += linears[i].group == group && linears[i].index >= 0;
    return (n * r + 1) / 2 * 2;
}

/* ---- layout ---------------------------------------------------------------------------------------------------- */

static struct nt_packed packed_take(struct nt_arena *a, enum nt_weight_format format, int32_t n, int32_t k) {
    return (struct nt_packed){
        .format = format, .n = n, .k = k, .data = nt_arena_take(a, nt_packed_bytes(format, n, k), 1)};
}

/* The rows of b that each linear of a group has, and its columns; not stated with an odd rank: parts are whole pairs.
 */
static void state_parts(struct nt_packed *b, const struct nt_linear_place linears[NT_LINEAR_COUNT],
                        enum nt_lora_group group, int32_t r) {
    _Static_assert(NT_PACKED_PARTS >= 3, "q, k and v");
    for (int i = 0; i < NT_LINEAR_COUNT && r % 2 == 0; i++) {
        const struct nt_linear_place *lin = &linears[i];
        if (lin->group != group || lin->index < 0) continue;
        NT_CHECK(lin->index == b->n_part);
        b->part[b->n_part++] = (struct nt_packed_part){.row0 = lin->row0, .n = lin->n, .run = lin->run, .k = r};
    }
}

void nt_lora_layout(struct nt_lora_weights *l, struct nt_arena *a, const struct nt_spec *spec, const struct nt_shard *s,
                    const struct nt_lora_shape *shape, enum nt_weight_format format) {
    l->shape = *shape;
    l->n_layer = spec->n_layer;
    nt_linear_places(spec, s, shape->targets, l->linears);
    const int32_t n[NT_LORA_GROUPS] = {(s->n_head + 2 * s->n_kv) * spec->d_head, spec->d_model, 2 * s->ff_pad,
                                       spec->d_model};
    const int32_t k[NT_LORA_GROUPS] = {spec->d_model, s->n_head * spec->d_head, spec->d_model, s->ff_pad};
    for (int32_t layer = 0; layer < spec->n_layer; layer++)
        for (int g = 0; g < NT_LORA_GROUPS; g++) {
            const int32_t rank = nt_lora_rank(l->linears, (enum nt_lora_group)g, shape->r);
            struct nt_lora_pair *p = &l->layers[layer][g];
            *p = (struct nt_lora_pair){0};
            if (rank == 0) continue;
            p->a = packed_take(a, format, rank, k[g]);
            p->b = packed_take(a, format, n[g], rank);
            state_parts(&p->b, l->linears, (enum nt_lora_group)g, shape->r);
        }
}
