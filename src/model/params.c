#include "params.h"
#include "ops_bwd.h"
#include <stdlib.h>
#include <string.h>

/* ---- the table ------------------------------------------------------------------------------------------------- */

enum { ALIGN = 16 }; /* floats: matrices begin on cache lines */

struct table {
    struct nt_params *p;
    const struct nt_spec *spec;
    const struct nt_shard *s;
    int32_t cap;
};

static int32_t *index_of(const struct nt_params *p, int32_t layer, enum nt_slot slot, enum nt_param_part part) {
    return &p->index[((int64_t)layer * NT_SLOT_COUNT + slot) * NT_PARAM_PARTS + part];
}

/* join: right behind the row before. */
static void add(struct table *t, struct nt_param row, bool join) {
    struct nt_params *p = t->p;
    NT_CHECK(p->n < t->cap);
    if (!join) p->n_floats = (p->n_floats + ALIGN - 1) / ALIGN * ALIGN;
    row.at = p->n_floats;
    p->n_floats += (int64_t)row.rows * row.cols;
    *index_of(p, row.layer, row.slot, row.part) = p->n;
    p->rows[p->n++] = row;
}

static void add_vector(struct table *t, int32_t layer, enum nt_slot slot, int32_t n, bool summed) {
    add(t,
        (struct nt_param){.slot = slot,
                          .layer = layer,
                          .rows = 1,
                          .cols = n,
                          .n_rows = 1,
                          .n_cols = n,
                          .out_size = 1,
                          .in_size = n,
                          .summed = summed && t->s->size > 1,
                          .owned = t->s->rank == 0},
        false);
}

/* The output side of a linear: B, or all of W, stored transposed; or the bias. */
static struct nt_param outputs(const struct table *t, const struct nt_linear_place *lin, int32_t layer) {
    const struct nt_shard *s = t->s;
    const bool column = lin->group == NT_LORA_QKV || lin->group == NT_LORA_GATE_UP; /* outputs are divided */
    const bool kv = lin->slot == NT_SLOT_K || lin->slot == NT_SLOT_V;
    const bool shared = kv && s->size > t->spec->n_kv;
    struct nt_param row = {.slot = lin->slot, .layer = layer, .cols = lin->n, .n_cols = lin->n_valid};
    row.out0 = lin->out0;
    row.out_size = lin->out_size;
    row.owned = column || s->rank == 0;
    row.summed = s->size > 1 && (!column || shared);
    if (shared && s->kv0 * (t->spec->n_head / t->spec->n_kv) < s->head0) row.own0 = t->spec->d_head;
    row.transposed = true;
    row.decay = true;
    return row;
}

static void add_pair(struct table *t, const struct nt_linear_place linears[NT_LINEAR_COUNT], enum nt_lora_group group,
                     int32_t layer, int32_t r) {
    bool join = false;
    for (int i = 0; i < NT_LINEAR_COUNT; i++) {
        const struct nt_linear_place *lin = &linears[i];
        if (lin->group != group || lin->index < 0) continue;
        const bool whole = group == NT_LORA_QKV || group == NT_LORA_GATE_UP;
        add(t,
            (struct nt_param){.slot = lin->slot,
                              .part = NT_PARAM_A,
                              .layer = layer,
                              .rows = r,
                              .cols = lin->k,
                              .n_rows = r,
                              .n_cols = lin->k_valid,
                              .in0 = lin->in0,
                              .out_size = r,
                              .in_size = lin->in_size,
                              .summed = whole && t->s->size > 1,
                              .owned = !whole || t->s->rank == 0,
                              .decay = true},
            join);
        join = true;
    }
    for (int i = 0; i < NT_LINEAR_COUNT; i++) {
        const struct nt_linear_place *lin = &linears[i];
        if (lin->group != group || lin->index < 0) continue;
        struct nt_param row = outputs(t, lin, layer);
        row.part = NT_PARAM_B;
        row.rows = row.n_rows = row.in_size = r;
        add(t, row, false);
    }
}

static bool has_bias(const struct nt_spec *spec, enum nt_lora_group group) {
    return group == NT_LORA_QKV ? spec->qkv_bias : group == NT_LORA_O ? spec->o_bias : spec->mlp_bias;
}

static void add_weights(struct table *t, const struct nt_linear_place linears[NT_LINEAR_COUNT], int32_t layer) {
    for (int i = 0; i < NT_LINEAR_COUNT; i++) {
        const struct nt_linear_place *lin = &linears[i];
        const bool column = lin->group == NT_LORA_QKV || lin->group == NT_LORA_GATE_UP;
        struct nt_param row = outputs(t, lin, layer);
        row.rows = lin->k;
        row.n_rows = lin->k_valid;
        row.in0 = lin->in0;
        row.in_size = lin->in_size;
        row.owned = true;
        row.summed = row.summed && column; /* o and down are divided by columns of W */
        add(t, row, false);
        if (!has_bias(t->spec, lin->group)) continue;
        row = outputs(t, lin, layer);
        row.slot = nt_linear_bias_slot((enum nt_linear)i);
        row.rows = row.n_rows = row.in_size = 1;
        row.decay = false;
        if (!column) row.summed = false; /* its gradient is the sum's, whole on every rank */
        add(t, row, false);
    }
}

static void add_table(struct table *t, enum nt_slot slot) {
    add(t,
        (struct nt_param){.slot = slot,
                          .rows = t->s->n_vocab,
                          .cols = t->spec->d_model,
                          .n_rows = t->s->n_vocab,
                          .n_cols = t->spec->d_model,
                          .out0 = t->s->vocab0,
                          .out_size = t->spec->n_vocab,
                          .in_size = t->spec->d_model,
                          .owned = true,
                          .decay = true},
        false);
}

static void add_model(struct table *t, const struct nt_linear_place linears[NT_LINEAR_COUNT]) {
    const int32_t d = t->spec->d_model;
    add_table(t, NT_SLOT_EMBED);
    if (!t->spec->tied) add_table(t, NT_SLOT_HEAD);
    add_vector(t, 0, NT_SLOT_FINAL_NORM, d, false);
    for (int32_t i = 0; i < t->spec->n_layer; i++) {
        add_vector(t, i, NT_SLOT_ATTN_NORM, d, false);
        add_vector(t, i, NT_SLOT_MLP_NORM, d, false);
        if (t->spec->qk_norm) add_vector(t, i, NT_SLOT_Q_NORM, t->spec->d_head, true);
        if (t->spec->qk_norm) add_vector(t, i, NT_SLOT_K_NORM, t->spec->d_head, true);
        add_weights(t, linears, i);
    }
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

static size_t array_bytes(const struct nt_params *p) {
    return ((size_t)p->n_floats * sizeof(float) + 63) / 64 * 64;
}

static size_t squares_bytes(const struct nt_params *p) {
    return (size_t)p->n * sizeof *p->squares;
}

size_t nt_params_bytes(const struct nt_params *p) {
    return 4 * array_bytes(p) + squares_bytes(p);
}

static nt_status take_array(const struct nt_params *p, const char *what, float **array) {
    return p->be->memory->take(p->be, array_bytes(p), what, (void **)array);
}

nt_status nt_params_train(struct nt_params *p) {
    float **const arrays[] = {&p->grad, &p->m, &p->v};
    for (int i = 0; i < 3; i++) NT_TRY(take_array(p, "trained numbers (one of four such arrays)", arrays[i]));
    return p->be->memory->take(p->be, squares_bytes(p), "sums of squares", (void **)&p->squares);
}

static void give(struct nt_params *p, void *memory, size_t bytes) {
    if (memory) p->be->memory->give(p->be, memory, bytes);
}

static void give_arrays(struct nt_params *p) {
    float *const arrays[] = {p->w, p->grad, p->m, p->v};
    for (int i = 0; i < 4; i++) give(p, arrays[i], array_bytes(p));
    give(p, p->squares, squares_bytes(p));
}

static bool is_host(const struct nt_params *p) {
    return nt_backend_is_host(p->be);
}

nt_status nt_params_view_open(const struct nt_params *p, float *array, int64_t at, int64_t n,
                              struct nt_params_view *v) {
    *v = (struct nt_params_view){.host = array + at, .array = array + at, .n = n};
    if (is_host(p) || n == 0) return NT_OK;
    const size_t bytes = (size_t)n * sizeof *v->copy;
    v->host = v->copy = malloc(bytes);
    if (!v->copy) return NT_FAIL(NT_E_NOMEM, "no memory for a copy of %zu bytes of trained numbers", bytes);
    const nt_status st = p->be->memory->download(p->be, v->copy, v->array, bytes);
    if (st == NT_OK) return NT_OK;
    free(v->copy);
    return nt_trail_at(st, __FILE__, __LINE__);
}

nt_status nt_params_view_close(const struct nt_params *p, struct nt_params_view *v, bool written) {
    nt_status st = NT_OK;
    if (v->copy && written) st = p->be->memory->upload(p->be, v->array, v->copy, (size_t)v->n * sizeof *v->copy);
    free(v->copy);
    *v = (struct nt_params_view){0};
    return st;
}

nt_status nt_params_zero(const struct nt_params *p, float *array) {
    return p->be->memory->zero(p->be, array, (size_t)p->n_floats * sizeof *array);
}

nt_status nt_params_init(struct nt_params *p, struct nt_world *world, struct nt_backend *be, const struct nt_spec *spec,
                         const struct nt_shard *s, const struct nt_linear_place linears[NT_LINEAR_COUNT],
                         const struct nt_lora_shape *shape) {
    *p = (struct nt_params){.world = world, .be = be, .n_layer = spec->n_layer};
    const size_t n_index = (size_t)spec->n_layer * NT_SLOT_COUNT * NT_PARAM_PARTS;
    struct table t = {.p = p, .spec = spec, .s = s, .cap = (spec->n_layer + 1) * NT_SLOT_COUNT};
    p->rows = calloc((size_t)t.cap, sizeof *p->rows);
    p->index = malloc(n_index * sizeof *p->index);
    if (!p->rows || !p->index) return NT_FAIL(NT_E_NOMEM, "no memory for the table of trained tensors");
    memset(p->index, 0xff, n_index * sizeof *p->index);
    if (shape->targets == 0) add_model(&t, linears);
    for (int32_t layer = 0; layer < spec->n_layer && shape->targets; layer++)
        for (int g = 0; g < NT_LORA_GROUPS; g++) add_pair(&t, linears, (enum nt_lora_group)g, layer, shape->r);
    return take_array(p, "trained numbers", &p->w);
}

void nt_params_release(struct nt_params *p) {
    give_arrays(p);
    free(p->rows);
    free(p->index);
    *p = (struct nt_params){0};
}

const struct nt_param *nt_params_find(const struct nt_params *p, int32_t layer, enum nt_slot slot,
                                      enum nt_param_part part) {
    const int32_t i = *index_of(p, layer, slot, part);
    return i < 0 ? NULL : &p->rows[i];
}

int64_t nt_param_logical_count(const struct nt_param *p) {
    return (int64_t)p->out_size * p->in_size;
}

/* ---- logical tensors ------------------------------------------------------------------------------------------- */

static int64_t logical_at(const struct nt_param *p, int32_t i, int32_t j) { /* of stored [i, j] */
    const int32_t row = p->transposed ? j : i, col = p->transposed ? i : j;
    return (int64_t)(p->out0 + row) * p->in_size + p->in0 + col;
}

int64_t nt_param_count(const struct nt_param *p) {
    return (int64_t)p->rows * p->cols;
}

void nt_param_place(const struct nt_param *p, const float *from, int32_t col0, float *logical) {
    for (int32_t i = 0; i < p->n_rows; i++)
        for (int32_t j = col0; j < p->n_cols; j++) logical[logical_at(p, i, j)] = from[(int64_t)i * p->cols + j];
}

void nt_param_take(const struct nt_param *p, const float *logical, float *to) {
    for (int32_t i = 0; i < p->n_rows; i++)
        for (int32_t j = 0; j < p->n_cols; j++) to[(int64_t)i * p->cols + j] = logical[logical_at(p, i, j)];
}

static nt_status place_own(const struct nt_params *p, const struct nt_param *row, float *from, float *logical) {
    struct nt_params_view v;
    NT_TRY(nt_params_view_open(p, from, row->at, nt_param_count(row), &v));
    nt_param_place(row, v.host, row->own0, logical);
    return nt_params_view_close(p, &v, false);
}

nt_status nt_params_scatter(const struct nt_params *p, const struct nt_param *row, const float *logical, float *to) {
    struct nt_params_view v;
    NT_TRY(nt_params_view_open(p, to, row->at, nt_param_count(row), &v));
    nt_param_take(row, logical, v.host);
    return nt_params_view_close(p, &v, true);
}

nt_status nt_params_gather(const struct nt_params *p, const struct nt_param *row, float *from, float *logical) {
    memset(logical, 0, (size_t)nt_param_logical_count(row) * sizeof *logical);
    const nt_status st = row->owned ? place_own(p, row, from, logical) : NT_OK;
    if (p->world->tp_size == 1) return st;
    NT_TRY(nt_comm_agree(p->world->tp, st));
    return nt_comm_allreduce_f32(p->world->tp, logical, nt_param_logical_count(row));
}

/* ---- gradients ------------------------------------------------------------------------------------------------- */

/* Of the columns that are this rank's alone. */
static nt_status part_squares(const struct nt_params *p, const struct nt_param *row, double *sum) {
    struct nt_params_view v;
    NT_TRY(nt_params_view_open(p, p->grad, row->at, nt_param_count(row), &v));
    for (int32_t i = 0; i < row->rows; i++)
        for (int32_t j = row->own0; j < row->cols; j++) {
            const double g = v.host[(int64_t)i * row->cols + j];
            *sum += g * g;
        }
    return nt_params_view_close(p, &v, false);
}

static bool counted(const struct nt_param *row) {
    return row->owned && row->own0 == 0;
}

static nt_status own_squares(const struct nt_params *p, double *sum) {
    const size_t bytes = (size_t)p->n * sizeof(double);
    for (int32_t i = 0; i < p->n; i++) {
        const struct nt_param *row = &p->rows[i];
        if (!counted(row)) continue;
        const struct nt_sum_squares_args args = {
            .x = p->grad + row->at, .sum = p->squares + i, .n = nt_param_count(row)};
        NT_TRY(p->be->ops.sum_squares(p->be, &args));
    }
    double *sums = malloc(bytes);
    if (!sums) return NT_FAIL(NT_E_NOMEM, "no memory for %d sums", p->n);
    nt_status st = p->be->memory->download(p->be, sums, p->squares, bytes);
    for (int32_t i = 0; i < p->n && st == NT_OK; i++) {
        const struct nt_param *row = &p->rows[i];
        if (counted(row)) *sum += sums[i];
        if (row->owned && row->own0 > 0) st = part_squares(p, row, sum);
    }
    free(sums);
    return st;
}

nt_status nt_params_grad_squares(const struct nt_params *p, double *out) {
    double mine = 0;
    *out = 0;
    const nt_status own = own_squares(p, &mine);
    const int32_t size = p->world->tp_size;
    *out = mine;
    if (size == 1) return own;
    NT_TRY(nt_comm_agree(p->world->tp, own));
    double *all = malloc((size_t)size * sizeof *all);
    NT_TRY(nt_comm_agree(p->world->tp, all ? NT_OK : NT_FAIL(NT_E_NOMEM, "no memory for %d sums", size)));
    const nt_status st = nt_comm_allgather(p->world->tp, &mine, all, sizeof mine);
    *out = 0;
    for (int32_t i = 0; i < size && st == NT_OK; i++) *out += all[i];
    free(all);
    return st;
}
