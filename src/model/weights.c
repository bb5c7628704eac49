#include "weights.h"
#include "pool.h"
#include "tensor_source.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static struct nt_packed packed_take(struct nt_arena *a, enum nt_weight_format format, int32_t n, int32_t k) {
    return (struct nt_packed){
        .format = format, .n = n, .k = k, .data = nt_arena_take(a, nt_packed_bytes(format, n, k), 1)};
}

void nt_weights_layout(struct nt_weights *w, struct nt_arena *a, const struct nt_spec *spec, const struct nt_shard *s,
                       enum nt_weight_format blocks, enum nt_weight_format head) {
    memset(w, 0, sizeof *w);
    const int32_t n_qkv = (s->n_head + 2 * s->n_kv) * spec->d_head;
    w->embed = NT_TAKE(a, nt_bf16, (size_t)s->n_vocab * (size_t)spec->d_model);
    for (int32_t i = 0; i < spec->n_layer; i++) {
        struct nt_layer *l = &w->layers[i];
        l->attn_norm = NT_TAKE(a, float, spec->d_model);
        l->qkv = packed_take(a, blocks, n_qkv, spec->d_model);
        if (spec->qkv_bias) l->qkv_bias = NT_TAKE(a, float, n_qkv);
        if (spec->qk_norm) l->q_norm = NT_TAKE(a, float, spec->d_head);
        if (spec->qk_norm) l->k_norm = NT_TAKE(a, float, spec->d_head);
        l->o = packed_take(a, blocks, spec->d_model, s->n_head * spec->d_head);
        if (spec->o_bias && s->rank == 0) l->o_bias = NT_TAKE(a, float, spec->d_model);
        l->mlp_norm = NT_TAKE(a, float, spec->d_model);
        l->gate_up = packed_take(a, blocks, 2 * s->ff_pad, spec->d_model);
        if (spec->mlp_bias) l->gate_up_bias = NT_TAKE(a, float, 2 * s->ff_pad);
        l->down = packed_take(a, blocks, spec->d_model, s->ff_pad);
        if (spec->mlp_bias && s->rank == 0) l->down_bias = NT_TAKE(a, float, spec->d_model);
    }
    w->final_norm = NT_TAKE(a, float, spec->d_model);
    w->head = packed_take(a, head, s->n_vocab, spec->d_model);
    if (spec->rope.scaling == NT_ROPE_FREQ_FACTORS) w->rope_freqs = NT_TAKE(a, float, spec->d_head / 2);
}

/* Where rows [row0, row1) of a tensor go. */
enum row_map { ROW_PLAIN, ROW_GATE, ROW_UP };
struct place {
    const struct nt_tensor_info *tensor;
    int64_t row0, row1;             /* of the tensor, in Hugging Face order */
    int32_t col0, n_cols;           /* the columns that are kept */
    int32_t perm_heads;             /* heads of a tensor in pair order, 0: plain order */
    const struct nt_packed *packed; /* matrix, or NULL */
    nt_bf16 *table;                 /* row-major matrix, or NULL; both for a tied embedding */
    float *vector;                  /* or a vector */
    int32_t dst0;                   /* first destination row */
    enum row_map map;
};

/* A block of rows of a place: the unit of work of one thread. */
struct block {
    int32_t place;
    int64_t row0, row1;
};

enum { SLOTS_MAX = NT_SLOT_COUNT + 1, BLOCK_BYTES = 1 << 20 };

struct loader {
    const struct nt_tensor_source *src;
    const struct nt_spec *spec;
    const struct nt_shard *shard;
    struct nt_world *world;
    struct nt_pool *pool;
    struct place *places;
    struct block *blocks;
    int32_t n_places;
    int64_t n_blocks;
    atomic_bool failed;
    struct nt_error error;
    atomic_flag error_set;
};

static int32_t dst_row(const struct place *p, int64_t j) {
    const int32_t row = (int32_t)j;
    return p->map == ROW_PLAIN ? p->dst0 + row : p->map == ROW_GATE ? nt_packed_gate_row(row) : nt_packed_up_row(row);
}

static void add_place(struct loader *ld, const struct nt_tensor_info *t, struct place p) {
    if (!t) return;
    p.tensor = t;
    if (p.row1 == 0) p.row1 = nt_tensor_n_rows(t);
    if (p.n_cols == 0) p.n_cols = (int32_t)nt_tensor_n_cols(t);
    ld->places[ld->n_places++] = p;
}

static void add_vector(struct loader *ld, const struct nt_tensor_info *t, float *vector) {
    if (vector) add_place(ld, t, (struct place){.vector = vector});
}

/* q, k or v: weight and bias take the same rows. */
static void add_heads(struct loader *ld, const struct nt_binding *b, int32_t layer, enum nt_slot slot,
                      const struct nt_layer *l, int32_t first, int32_t n, int32_t dst_head, int32_t perm) {
    const int32_t d = ld->spec->d_head;
    struct place p = {.row0 = (int64_t)first * d, .row1 = (int64_t)(first + n) * d, .dst0 = dst_head * d};
    p.perm_heads = perm;
    p.packed = &l->qkv;
    add_place(ld, nt_binding_get(b, layer, slot), p);
    p.packed = NULL;
    p.vector = l->qkv_bias;
    const enum nt_slot bias = slot == NT_SLOT_Q ? NT_SLOT_Q_BIAS : slot == NT_SLOT_K ? NT_SLOT_K_BIAS : NT_SLOT_V_BIAS;
    if (p.vector) add_place(ld, nt_binding_get(b, layer, bias), p);
}

static void add_ff(struct loader *ld, const struct nt_binding *b, int32_t layer, const struct nt_layer *l, bool up) {
    const struct nt_shard *s = ld->shard;
    struct place p = {.row0 = s->ff0, .row1 = s->ff0 + s->n_ff, .map = up ? ROW_UP : ROW_GATE};
    p.packed = &l->gate_up;
    add_place(ld, nt_binding_get(b, layer, up ? NT_SLOT_UP : NT_SLOT_GATE), p);
    p.packed = NULL;
    p.vector = l->gate_up_bias;
    if (p.vector) add_place(ld, nt_binding_get(b, layer, up ? NT_SLOT_UP_BIAS : NT_SLOT_GATE_BIAS), p);
}

static void add_layer(struct loader *ld, const struct nt_binding *b, int32_t layer, const struct nt_layer *l) {
    const struct nt_spec *spec = ld->spec;
    const struct nt_shard *s = ld->shard;
    const bool pairs = spec->qk_interleaved;
    add_vector(ld, nt_binding_get(b, layer, NT_SLOT_ATTN_NORM), l->attn_norm);
    add_vector(ld, nt_binding_get(b, layer, NT_SLOT_MLP_NORM), l->mlp_norm);
    add_vector(ld, nt_binding_get(b, layer, NT_SLOT_Q_NORM), l->q_norm);
    add_vector(ld, nt_binding_get(b, layer, NT_SLOT_K_NORM), l->k_norm);
    add_heads(ld, b, layer, NT_SLOT_Q, l, s->head0, s->n_head, 0, pairs ? spec->n_head : 0);
    add_heads(ld, b, layer, NT_SLOT_K, l, s->kv0, s->n_kv, s->n_head, pairs ? spec->n_kv : 0);
    add_heads(ld, b, layer, NT_SLOT_V, l, s->kv0, s->n_kv, s->n_head + s->n_kv, 0);
    add_place(ld, nt_binding_get(b, layer, NT_SLOT_O),
              (struct place){.packed = &l->o, .col0 = s->head0 * spec->d_head, .n_cols = s->n_head * spec->d_head});
    add_vector(ld, nt_binding_get(b, layer, NT_SLOT_O_BIAS), l->o_bias);
    add_ff(ld, b, layer, l, false);
    add_ff(ld, b, layer, l, true);
    add_place(ld, nt_binding_get(b, layer, NT_SLOT_DOWN),
              (struct place){.packed = &l->down, .col0 = s->ff0, .n_cols = s->n_ff});
    add_vector(ld, nt_binding_get(b, layer, NT_SLOT_DOWN_BIAS), l->down_bias);
}

static void add_model(struct loader *ld, const struct nt_binding *b, const struct nt_weights *w) {
    const struct nt_shard *s = ld->shard;
    struct place vocab = {.row0 = s->vocab0, .row1 = s->vocab0 + s->n_vocab, .table = w->embed};
    if (ld->spec->tied) vocab.packed = &w->head;
    add_place(ld, nt_binding_get(b, 0, NT_SLOT_EMBED), vocab);
    vocab.table = NULL;
    vocab.packed = &w->head;
    if (!ld->spec->tied) add_place(ld, nt_binding_get(b, 0, NT_SLOT_HEAD), vocab);
    add_vector(ld, nt_binding_get(b, 0, NT_SLOT_FINAL_NORM), w->final_norm);
    add_vector(ld, nt_binding_get(b, 0, NT_SLOT_ROPE_FREQS), w->rope_freqs);
    for (int32_t i = 0; i < ld->spec->n_layer; i++) add_layer(ld, b, i, &w->layers[i]);
}

static int place_order(const void *a, const void *b) {
    const struct nt_tensor_info *x = ((const struct place *)a)->tensor, *y = ((const struct place *)b)->tensor;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Rows per block: whole heads where rows are permuted, else whole panels; about BLOCK_BYTES as float. */
static int64_t block_rows(const struct loader *ld, const struct place *p) {
    const int64_t unit = p->perm_heads ? ld->spec->d_head : NT_PANEL;
    const int64_t row_bytes = nt_tensor_n_cols(p->tensor) * (int64_t)sizeof(float);
    const int64_t n = BLOCK_BYTES / (row_bytes * unit);
    return (n < 1 ? 1 : n) * unit;
}

static nt_status plan_blocks(struct loader *ld) {
    int64_t n = 0;
    for (int32_t i = 0; i < ld->n_places; i++) {
        const struct place *p = &ld->places[i];
        const int64_t step = block_rows(ld, p);
        n += (p->row1 - p->row0 + step - 1) / step;
    }
    ld->blocks = malloc((size_t)n * sizeof *ld->blocks);
    if (!ld->blocks) return NT_FAIL(NT_E_NOMEM, "%s: no memory for the load plan", ld->src->path);
    for (int32_t i = 0; i < ld->n_places; i++) {
        const struct place *p = &ld->places[i];
        const int64_t step = block_rows(ld, p);
        for (int64_t row = p->row0; row < p->row1; row += step)
            ld->blocks[ld->n_blocks++] =
                (struct block){.place = i, .row0 = row, .row1 = row + step < p->row1 ? row + step : p->row1};
    }
    NT_CHECK(ld->n_blocks == n);
    return NT_OK;
}

static nt_status load_vector(const struct loader *ld, const struct place *p, const struct block *b, float *buf) {
    NT_TRY(nt_tensor_source_read(ld->src, p->tensor, b->row0, b->row1, NT_READ_F32, buf));
    for (int64_t r = b->row0; r < b->row1; r++) {
        const int64_t from = p->perm_heads ? nt_unpermute_qk_row(r, p->perm_heads, ld->spec->d_head) : r;
        p->vector[dst_row(p, r - p->row0)] = buf[from - b->row0];
    }
    return NT_OK;
}

/* row: [k] zeros beyond n_cols, for places whose columns are cut or padded. */
static nt_status load_matrix(const struct loader *ld, const struct place *p, const struct block *b, nt_bf16 *buf,
                             nt_bf16 *row) {
    const int64_t cols = nt_tensor_n_cols(p->tensor);
    NT_TRY(nt_tensor_source_read(ld->src, p->tensor, b->row0, b->row1, NT_READ_BF16, buf));
    const bool cut = p->packed && (p->n_cols != cols || p->packed->k != cols);
    if (cut) memset(row, 0, (size_t)p->packed->k * sizeof *row);
    for (int64_t r = b->row0; r < b->row1; r++) {
        const int64_t from = p->perm_heads ? nt_unpermute_qk_row(r, p->perm_heads, ld->spec->d_head) : r;
        const nt_bf16 *values = buf + (from - b->row0) * cols;
        const int32_t dst = dst_row(p, r - p->row0);
        if (p->table) memcpy(p->table + dst * cols, values, (size_t)cols * sizeof *values);
        if (!p->packed) continue;
        if (cut) memcpy(row, values + p->col0, (size_t)p->n_cols * sizeof *row);
        /* the leader owns the memory until it is declared ready; const is for the ops */
        nt_pack_row(p->packed, (void *)(uintptr_t)p->packed->data, dst, cut ? row : values);
    }
    return NT_OK;
}

static nt_status load_block(const struct loader *ld, const struct block *b) {
    const struct place *p = &ld->places[b->place];
    const size_t elem = p->vector ? sizeof(float) : sizeof(nt_bf16);
    const size_t n = (size_t)(b->row1 - b->row0) * (size_t)nt_tensor_n_cols(p->tensor);
    const size_t k = p->packed ? (size_t)p->packed->k : 0;
    void *buf = malloc(n * elem + k * sizeof(nt_bf16));
    if (!buf) return NT_FAIL(NT_E_NOMEM, "%s: no memory for %zu bytes of %s", ld->src->path, n * elem, p->tensor->name);
    const nt_status st = p->vector ? load_vector(ld, p, b, buf) : load_matrix(ld, p, b, buf, (nt_bf16 *)buf + n);
    free(buf);
    return st;
}

static void load_fail(struct loader *ld) {
    if (!atomic_flag_test_and_set(&ld->error_set))
        nt_error_take(&ld->error);
    else
        nt_error_clear();
    atomic_store(&ld->failed, true);
}

/* Foreign memory may hold anything. The padding of a matrix is in its last panel: rows beyond n, and the gate and up
 * rows beyond n_ff (less than half a panel). k is even, so only formats that pad k further have more, and those are
 * loaded into fresh memory. */
static void zero_last_panel(const struct nt_packed *p) {
    const size_t bytes = nt_packed_bytes(p->format, p->n, p->k), panel = nt_packed_bytes(p->format, NT_PANEL, p->k);
    memset((uint8_t *)(uintptr_t)p->data + bytes - panel, 0, panel);
}

static void zero_padding(struct loader *ld, struct nt_weights *w) {
    for (int32_t i = 0; i < ld->spec->n_layer; i++) {
        const struct nt_layer *l = &w->layers[i];
        zero_last_panel(&l->qkv);
        zero_last_panel(&l->o);
        zero_last_panel(&l->gate_up);
        zero_last_panel(&l->down);
        if (l->gate_up_bias) memset(l->gate_up_bias, 0, 2 * (size_t)ld->shard->ff_pad * sizeof(float));
    }
    zero_last_panel(&w->head);
}

/* Packs block by block in file order. */
static void load_thread(void *arg, int thread, int n_threads) {
    (void)thread;
    (void)n_threads;
    struct loader *ld = arg;
    for (int64_t i = nt_pool_next(ld->pool, ld->n_blocks); i >= 0; i = nt_pool_next(ld->pool, ld->n_blocks)) {
        if (atomic_load(&ld->failed)) continue;
        nt_comm_beat(ld->world);
        if (load_block(ld, &ld->blocks[i]) != NT_OK) load_fail(ld);
    }
}

nt_status nt_weights_load(struct nt_weights *w, const struct nt_tensor_source *src, const struct nt_binding *b,
                          const struct nt_spec *spec, const struct nt_shard *s, struct nt_world *world,
                          struct nt_pool *pool) {
    struct loader ld = {
        .src = src, .spec = spec, .shard = s, .world = world, .pool = pool, .error_set = ATOMIC_FLAG_INIT};
    ld.places = calloc((size_t)(spec->n_layer + 1) * SLOTS_MAX, sizeof *ld.places);
    if (!ld.places) return NT_FAIL(NT_E_NOMEM, "%s: no memory for the load plan", src->path);
    add_model(&ld, b, w);
    qsort(ld.places, (size_t)ld.n_places, sizeof *ld.places, place_order);
    nt_status st = plan_blocks(&ld);
    if (st == NT_OK) {
        zero_padding(&ld, w);
        nt_pool_run(pool, load_thread, &ld);
        if (atomic_load(&ld.failed)) {
            nt_error_give(&ld.error);
            st = nt_trail_at(ld.error.code, __FILE__, __LINE__);
        }
    }
    free(ld.blocks);
    free(ld.places);
    return st;
}
