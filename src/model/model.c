#include "model.h"
#include "clock.h"
#include "hash.h"
#include "log.h"
#include "model_digest.h"
#include "model_impl.h"
#include "pool.h"
#include "rope_table.h"
#include "spec_bind.h"
#include "spec_read.h"
#include "tensor_source.h"
#include <stdlib.h>
#include <string.h>

/* ---- open ------------------------------------------------------------------------------------------------------ */

/* All that can be wrong with the files is found here, before memory for weights exists. */
static nt_status open_source(struct nt_model *m, const char *path, struct nt_tensor_source **src,
                             struct nt_binding *bind) {
    NT_TRY(nt_tensor_source_open(path, src));
    NT_TRY(nt_spec_read(*src, &m->spec));
    NT_TRY(nt_spec_bind(*src, &m->spec, bind));
    return nt_shard_plan(&m->spec, m->world->tp_rank, m->world->tp_size, &m->shard);
}

/* Ranks that read different files would compute nonsense together. The spec stands for config.json; it was zeroed
 * before it was filled, so its bytes can be compared. */
static nt_status same_source(const struct nt_model *m, const struct nt_tensor_source *src) {
    uint8_t mine[2 * NT_SHA256_BYTES], first[sizeof mine];
    memcpy(mine, src->digest, NT_SHA256_BYTES);
    nt_sha256(&m->spec, sizeof m->spec, mine + NT_SHA256_BYTES);
    memcpy(first, mine, sizeof first);
    NT_TRY(nt_comm_broadcast(m->world->world, first, sizeof first, 0));
    nt_status st = NT_OK;
    if (memcmp(first, mine, sizeof first) != 0)
        st =
            NT_FAIL(NT_E_DATA, "%s: rank %d on %s sees another model than rank 0, expected the same files on all nodes",
                    src->path, m->world->rank, m->world->host);
    return nt_comm_agree(m->world->world, st);
}

/* Ranks of other model copies on this node have the same weights: one copy for all. */
static nt_status bind_weights(struct nt_model *m, bool *leader) {
    nt_arena_init(&m->weight_arena, "weights");
    nt_weights_layout(&m->weights, &m->weight_arena, &m->spec, &m->shard);
    *leader = true;
    if (m->world->dp_size == 1) {
        NT_TRY(nt_arena_bind(&m->weight_arena)); /* private, so it may have huge pages */
    } else {
        NT_TRY(nt_shared_open(m->world, m->weight_arena.used, &m->shared));
        NT_TRY(nt_arena_bind_to(&m->weight_arena, m->shared.base, m->shared.bytes));
        *leader = m->shared.leader;
    }
    nt_weights_layout(&m->weights, &m->weight_arena, &m->spec, &m->shard);
    return NT_OK;
}

static nt_status load(struct nt_model *m, const struct nt_tensor_source *src, const struct nt_binding *bind) {
    bool leader = false;
    NT_TRY(nt_comm_agree(m->world->world, bind_weights(m, &leader)));
    nt_status st = NT_OK;
    if (leader) st = nt_weights_load(&m->weights, src, bind, &m->spec, &m->shard, m->world, m->backend->pool);
    NT_TRY(nt_comm_agree(m->world->world, st));
    if (m->shared.base) NT_TRY(nt_shared_ready(m->world, &m->shared));
    return NT_OK;
}

static nt_status open_all(struct nt_model *m, const char *path, struct nt_tensor_source **src,
                          struct nt_binding *bind) {
    const double start = nt_now();
    NT_TRY(nt_comm_agree(m->world->world, open_source(m, path, src, bind)));
    NT_TRY(same_source(m, *src));
    const struct nt_spec *s = &m->spec;
    nt_info("model", "%s: %s, %d layers, d_model %d, d_ff %d, %d heads, %d kv heads of %d, vocabulary %d, length %d",
            path, s->family, s->n_layer, s->d_model, s->d_ff, s->n_head, s->n_kv, s->d_head, s->n_vocab, s->max_len);
    NT_TRY(load(m, *src, bind));
    const double loaded = nt_now();
    NT_TRY(nt_model_digest_compute(*src, m->world, m->backend->pool, m->digest));
    nt_info("model", "%.1f MB of packed weights per rank, loaded in %.2f s, hashed in %.2f s",
            (double)m->weight_arena.size / 1e6, loaded - start, nt_now() - loaded);
    return NT_OK;
}

nt_status nt_model_open(struct nt_model **out, const char *path, struct nt_world *w, struct nt_backend *be) {
    struct nt_model *m = calloc(1, sizeof *m);
    if (!m) return NT_FAIL(NT_E_NOMEM, "%s: no memory for the model", path);
    m->world = w;
    m->backend = be;
    struct nt_tensor_source *src = NULL;
    struct nt_binding bind = {0};
    const nt_status st = open_all(m, path, &src, &bind);
    nt_binding_release(&bind);
    nt_tensor_source_close(src);
    if (st != NT_OK) {
        nt_model_close(m);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    m->max_len = m->spec.max_len;
    *out = m;
    return NT_OK;
}

void nt_model_close(struct nt_model *m) {
    if (!m) return;
    nt_arena_release(&m->weight_arena);
    if (m->shared.base) nt_shared_close(m->world, &m->shared);
    free(m);
}

/* ---- facts ----------------------------------------------------------------------------------------------------- */

const struct nt_spec *nt_model_spec(const struct nt_model *m) {
    return &m->spec;
}
size_t nt_model_weight_bytes(const struct nt_model *m) {
    return m->weight_arena.size;
}
void nt_model_digest(const struct nt_model *m, uint8_t digest[32]) {
    memcpy(digest, m->digest, sizeof m->digest);
}
int32_t nt_model_vocab_first(const struct nt_model *m) {
    return m->shard.vocab0;
}
int32_t nt_model_vocab_count(const struct nt_model *m) {
    return m->shard.n_vocab;
}
int64_t nt_model_logit_ld(const struct nt_model *m) {
    return ((int64_t)m->shard.n_vocab + 15) / 16 * 16; /* rows start on cache lines */
}

double nt_model_flops(const struct nt_model *m, double n_ctx, bool head) {
    const struct nt_spec *s = &m->spec;
    const double d = s->d_model, heads = (double)s->n_head * s->d_head, kv = (double)s->n_kv * s->d_head;
    double layers = 0;
    for (int32_t i = 0; i < s->n_layer; i++) {
        const double seen = s->layer_window[i] && s->window < n_ctx ? s->window : n_ctx;
        layers += 2 * d * (heads + 2 * kv) + 2 * heads * d + 6 * d * s->d_ff + 4 * seen * heads;
    }
    return layers + (head ? 2 * d * s->n_vocab : 0);
}

/* ---- cache ----------------------------------------------------------------------------------------------------- */

static int64_t page_elems(const struct nt_model *m) { /* of one layer */
    return m->shard.n_kv * nt_kv_head_elems(m->backend->kv_format, m->spec.d_head);
}

size_t nt_model_kv_page_bytes(const struct nt_model *m) {
    return (size_t)(m->spec.n_layer * page_elems(m)) * sizeof(nt_bf16);
}

nt_status nt_kv_pool_take(struct nt_arena *a, const struct nt_model *m, int32_t n_page, struct nt_kv_pool *pool) {
    size_t bytes = 0;
    if (n_page < 1 || __builtin_mul_overflow(nt_model_kv_page_bytes(m), (size_t)n_page, &bytes))
        return NT_FAIL(NT_E_CONFIG, "%d pages of KV cache, expected at least 1 and a size that fits the address space",
                       n_page);
    pool->base = nt_arena_take(a, bytes, 1);
    pool->n_page = n_page;
    return NT_OK;
}

void nt_kv_page_zero(const struct nt_model *m, const struct nt_kv_pool *pool, int32_t page) {
    NT_CHECK(page >= 0 && page < pool->n_page);
    const int64_t n = page_elems(m);
    for (int64_t layer = 0; layer < m->spec.n_layer; layer++)
        memset(pool->base + (layer * pool->n_page + page) * n, 0, (size_t)n * sizeof(nt_bf16));
}

/* ---- forward --------------------------------------------------------------------------------------------------- */

struct rope_fill {
    const struct nt_model *m;
    double inv_freq[NT_MAX_D_HEAD / 2];
    double scale;
};

static void rope_thread(void *arg, int thread, int n_threads) {
    const struct rope_fill *f = arg;
    const struct nt_acts *a = &f->m->acts;
    int64_t begin = 0, end = 0;
    nt_split(a->max_len, 1, thread, n_threads, &begin, &end);
    nt_rope_fill(f->inv_freq, f->scale, f->m->spec.d_head / 2, (int32_t)begin, (int32_t)end, a->cos, a->sin);
}

void nt_model_limit_len(struct nt_model *m, int32_t max_len) {
    if (max_len > 0 && max_len < m->spec.max_len) m->max_len = max_len;
}

void nt_model_layout(struct nt_model *m, struct nt_arena *a, int32_t max_tok, int32_t max_out) {
    const struct nt_spec *spec = &m->spec;
    const struct nt_shard *s = &m->shard;
    const size_t n = (size_t)max_tok, d = (size_t)spec->d_model, d_head = (size_t)spec->d_head;
    struct nt_acts *t = &m->acts;
    *t = (struct nt_acts){.max_tok = max_tok, .max_out = max_out, .max_len = m->max_len};
    t->x = NT_TAKE(a, float, n *d);
    if (s->size > 1) t->delta = NT_TAKE(a, float, n *d);
    t->h = NT_TAKE(a, nt_bf16, n * d);
    t->qkv = NT_TAKE(a, float, n *(size_t)(s->n_head + 2 * s->n_kv) * d_head);
    t->q = NT_TAKE(a, nt_bf16, n * (size_t)s->n_head * (size_t)nt_d_pad(spec->d_head));
    t->heads = NT_TAKE(a, nt_bf16, n * (size_t)s->n_head * d_head);
    t->mlp = NT_TAKE(a, nt_bf16, n * (size_t)s->ff_pad);
    t->cos = NT_TAKE(a, float, (size_t)t->max_len *(d_head / 2));
    t->sin = NT_TAKE(a, float, (size_t)t->max_len *(d_head / 2));
    if (!t->sin) return; /* counting */
    struct rope_fill fill = {.m = m};
    fill.scale = nt_rope_inv_freq(spec, m->weights.rope_freqs, fill.inv_freq);
    nt_pool_run(m->backend->pool, rope_thread, &fill);
}

static void check_batch(const struct nt_model *m, const struct nt_batch *b, const struct nt_kv_pool *kv) {
    NT_CHECK(m->acts.x && b->n_tok > 0 && b->n_tok <= m->acts.max_tok && b->n_out >= 0 && b->n_out <= m->acts.max_out);
    int32_t row = 0;
    for (int32_t i = 0; i < b->n_seq; i++) {
        const struct nt_attn_seq *q = &b->seqs[i];
        NT_CHECK(q->q_row == row && q->n_q > 0 && q->pos0 >= 0 && q->n_q <= m->acts.max_len - q->pos0);
        for (int32_t p = 0; p <= (q->pos0 + q->n_q - 1) / NT_KV_PAGE; p++)
            NT_CHECK(q->pages[p] >= 0 && q->pages[p] < kv->n_page);
        row += q->n_q;
    }
    NT_CHECK(row == b->n_tok);
    for (int32_t t = 0; t < b->n_tok; t++) NT_CHECK(b->ids[t] >= 0 && b->ids[t] < m->spec.n_vocab);
    for (int32_t i = 0; i < b->n_out; i++)
        NT_CHECK(b->out_rows[i] >= (i ? b->out_rows[i - 1] + 1 : 0) && b->out_rows[i] < b->n_tok);
}

static nt_status embed(struct nt_model *m, const struct nt_batch *b) {
    const struct nt_embed_args args = {.ids = b->ids,
                                       .table = m->weights.embed,
                                       .x = m->acts.x,
                                       .scale = 1,
                                       .n_tok = b->n_tok,
                                       .d_model = m->spec.d_model,
                                       .first = m->shard.vocab0,
                                       .n_rows = m->shard.n_vocab};
    NT_TRY(m->backend->ops.embed(m->backend, &args));
    if (m->shard.size == 1) return NT_OK;
    return nt_comm_allreduce_f32(m->world->tp, m->acts.x, (int64_t)b->n_tok * m->spec.d_model);
}

/* The rows with wanted logits are x[0 .. n_out) by now. */
static nt_status head(struct nt_model *m, const struct nt_step *s, float *logits) {
    const struct nt_rmsnorm_args norm = {.x = m->acts.x,
                                         .delta = s->pending ? m->acts.delta : NULL,
                                         .w = m->weights.final_norm,
                                         .y = m->acts.h,
                                         .eps = m->spec.norm_eps,
                                         .n_rows = s->batch->n_out,
                                         .d_model = m->spec.d_model,
                                         .ldy = m->spec.d_model};
    NT_TRY(m->backend->ops.rmsnorm(m->backend, &norm));
    const struct nt_gemm_args gemm = {.x = m->acts.h,
                                      .ldx = m->spec.d_model,
                                      .w = &m->weights.head,
                                      .y = logits,
                                      .ldy = nt_model_logit_ld(m),
                                      .n_tok = s->batch->n_out,
                                      .out = NT_GEMM_STORE_F32};
    return m->backend->ops.gemm(m->backend, &gemm);
}

nt_status nt_model_forward(struct nt_model *m, const struct nt_batch *b, const struct nt_kv_pool *kv, float *logits) {
    check_batch(m, b, kv);
    struct nt_step step = {.batch = b, .kv = kv};
    NT_TRY(embed(m, b));
    for (int32_t layer = 0; layer < m->spec.n_layer; layer++) NT_TRY(nt_block_forward(m, layer, &step));
    if (b->n_out > 0) NT_TRY(head(m, &step, logits));
    return NT_OK;
}
