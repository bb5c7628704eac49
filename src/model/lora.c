#include "lora.h"
#include "pool.h"
#include <stdlib.h>
#include <string.h>

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
        }
}

/* ---- packing --------------------------------------------------------------------------------------------------- */

struct pack {
    const struct nt_lora_weights *l;
    const struct nt_lora_numbers *numbers;
    int32_t widest;
    struct nt_pool *pool;
    nt_bf16 *rows;    // [n_threads][widest]
    uintptr_t memory; /* of the adapter, which is one block of its arena */
    size_t bytes;
    char *host; /* where it is packed: there, or of a device's in host memory first */
};

static void *data_of(const struct pack *p, const struct nt_packed *w) {
    return p->host + ((uintptr_t)w->data - p->memory);
}

static void find_memory(struct pack *p) {
    uintptr_t end = 0;
    p->memory = UINTPTR_MAX;
    for (int32_t i = 0; i < p->l->n_layer * NT_LORA_GROUPS; i++) {
        const struct nt_lora_pair *pair = &p->l->layers[i / NT_LORA_GROUPS][i % NT_LORA_GROUPS];
        if (pair->a.n == 0) continue;
        const uintptr_t last = (uintptr_t)pair->b.data + nt_packed_bytes(pair->b.format, pair->b.n, pair->b.k);
        if ((uintptr_t)pair->a.data < p->memory) p->memory = (uintptr_t)pair->a.data; /* a lies before b */
        if (last > end) end = last;
    }
    p->bytes = end > 0 ? end - p->memory : 0;
}

static void pack_a(const struct pack *p, int32_t layer, const struct nt_linear_place *lin, nt_bf16 *row) {
    const struct nt_packed *a = &p->l->layers[layer][lin->group].a;
    const float *from = p->numbers[layer * NT_LINEAR_COUNT + (lin - p->l->linears)].a;
    for (int32_t i = 0; i < p->l->shape.r; i++, from += lin->k) {
        for (int32_t c = 0; c < lin->k; c++) row[c] = nt_f32_to_bf16(from[c]);
        nt_pack_row(a, data_of(p, a), lin->index * p->l->shape.r + i, row);
    }
}

static void pack_b(const struct pack *p, int32_t layer, const struct nt_linear_place *lin, nt_bf16 *row) {
    const struct nt_packed *b = &p->l->layers[layer][lin->group].b;
    const float *from = p->numbers[layer * NT_LINEAR_COUNT + (lin - p->l->linears)].b;
    const int32_t r = p->l->shape.r;
    memset(row, 0, (size_t)b->k * sizeof *row);
    for (int32_t j = 0; j < lin->n; j++) {
        for (int32_t i = 0; i < r; i++)
            row[lin->index * r + i] = nt_f32_to_bf16(p->l->shape.scale * from[(int64_t)i * lin->n + j]);
        nt_pack_row(b, data_of(p, b), nt_linear_row(lin, j), row);
    }
}

/* Two linears may share a panel, so a thread has whole products of a layer. */
static void pack_thread(void *arg, int thread, int n_threads) {
    (void)n_threads;
    const struct pack *p = arg;
    nt_bf16 *row = p->rows + (int64_t)thread * p->widest;
    const int64_t n = (int64_t)p->l->n_layer * NT_LORA_GROUPS;
    for (int64_t i = nt_pool_next(p->pool, n); i >= 0; i = nt_pool_next(p->pool, n))
        for (int j = 0; j < NT_LINEAR_COUNT; j++) {
            const struct nt_linear_place *lin = &p->l->linears[j];
            if (lin->group != (enum nt_lora_group)(i % NT_LORA_GROUPS) || lin->index < 0) continue;
            pack_a(p, (int32_t)(i / NT_LORA_GROUPS), lin, row);
            pack_b(p, (int32_t)(i / NT_LORA_GROUPS), lin, row);
        }
}

/* On the device p->memory is only an address. */
static nt_status pack_all(struct pack *p, struct nt_backend *be) {
    const bool is_host = nt_backend_is_host(be);
    p->host = is_host ? (char *)p->memory : calloc(1, p->bytes);
    p->rows = malloc((size_t)nt_pool_size(be->pool) * (size_t)p->widest * sizeof *p->rows);
    nt_status st = NT_OK;
    if (!p->rows || !p->host) {
        st = NT_FAIL(NT_E_NOMEM, "no memory to pack %zu bytes of an adapter", p->bytes);
    } else {
        nt_pool_run(be->pool, pack_thread, p);
        if (!is_host) st = be->memory->upload(be, (void *)p->memory, p->host, p->bytes);
    }
    free(p->rows);
    if (!is_host) free(p->host);
    return st;
}

nt_status nt_lora_pack(struct nt_lora_weights *l, struct nt_backend *be, const struct nt_lora_numbers *numbers) {
    struct pack p = {.l = l, .numbers = numbers, .pool = be->pool};
    for (int i = 0; i < NT_LINEAR_COUNT; i++) {
        const int32_t rank = nt_lora_rank(l->linears, l->linears[i].group, l->shape.r);
        if (l->linears[i].k > p.widest) p.widest = l->linears[i].k;
        if (rank > p.widest) p.widest = rank;
    }
    find_memory(&p);
    return p.bytes > 0 ? pack_all(&p, be) : NT_OK;
}
