#include "model.h"
#include "clock.h"
#include "cuda_backend.h"
#include "hash.h"
#include "log.h"
#include "model_digest.h"
#include "model_state.h"
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
    if (!nt_model_takes(&m->spec, m->backend->block_format))
        return NT_FAIL(
            NT_E_UNSUPPORTED,
            "%s: heads of %d values; model.weight_dtype = int4 packs 16 rows together and needs a multiple of 16", path,
            m->spec.d_head);
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

void nt_model_layout_weights(struct nt_model *m) {
    const struct nt_backend *be = m->backend;
    nt_weights_layout(&m->weights, &m->weight_arena, &m->spec, &m->shard, be->block_format, be->weight_format);
}

/* Ranks of other model copies on this node have the same weights: one copy for all. */
static nt_status bind_weights(struct nt_model *m, bool *leader) {
    nt_arena_init(&m->weight_arena, "weights");
    nt_model_layout_weights(m);
    *leader = true;
    if (m->world->dp_size == 1 || !nt_backend_is_host(m->backend)) {
        NT_TRY(nt_arena_bind(&m->weight_arena)); /* private, so it may have huge pages */
    } else {
        NT_TRY(nt_shared_open(m->world, m->weight_arena.used, &m->shared));
        NT_TRY(nt_arena_bind_to(&m->weight_arena, m->shared.base, m->shared.bytes));
        *leader = m->shared.leader;
    }
    nt_model_layout_weights(m);
    return NT_OK;
}

/* Weights packed in host memory move to the device, and the host's copy goes. */
static nt_status weights_to_device(struct nt_model *m) {
    struct nt_backend *be = m->backend;
    struct nt_arena packed = m->weight_arena;
    nt_arena_init(&m->weight_arena, "weights");
    nt_model_layout_weights(m);
    nt_status st = nt_arena_bind_backend(&m->weight_arena, be);
    if (st == NT_OK) {
        nt_model_layout_weights(m);
        st = be->memory->upload(be, m->weight_arena.base, packed.base, packed.size);
    }
    if (st == NT_OK) st = be->memory->wait(be);
    nt_arena_release(&packed);
    return st;
}

static nt_status load(struct nt_model *m, const struct nt_tensor_source *src, const struct nt_binding *bind) {
    bool leader = false;
    NT_TRY(nt_comm_agree(m->world->world, bind_weights(m, &leader)));
    nt_status st = NT_OK;
    if (leader) st = nt_weights_load(&m->weights, src, bind, &m->spec, &m->shard, m->world, m->backend->pool);
    NT_TRY(nt_comm_agree(m->world->world, st));
    if (m->shared.base) NT_TRY(nt_shared_ready(m->world, &m->shared));
    if (m->weights.rope_freqs) memcpy(m->rope_freqs, m->weights.rope_freqs, (size_t)m->spec.d_head / 2 * sizeof(float));
    if (nt_backend_is_host(m->backend)) return NT_OK;
    return nt_comm_agree(m->world->world, weights_to_device(m));
}

static struct CUstream_st *take_stream(void *arg) {
    struct nt_backend *be = arg;
    return nt_cuda_stream(be->cuda);
}

static nt_status stream_done(void *arg, bool *done) {
    struct nt_backend *be = arg;
    return be->memory->query(be, done);
}

/* Of both communicators, if there are two. */
static nt_status wait_for_peers(void *model, nt_status (*passed)(void *point, bool *done), void *point) {
    const struct nt_model *m = model;
    struct nt_device_comm *comm = m->device_comm ? m->device_comm : m->copies_comm;
    return passed ? nt_device_comm_wait_for(comm, passed, point) : nt_device_comm_wait(comm);
}

/* From now on whoever waits for the device watches the peers. */
static nt_status connect(struct nt_model *m, struct nt_comm *ranks, struct nt_device_comm **out) {
    struct nt_backend *be = m->backend;
    const struct nt_device_stream stream = {.arg = be, .take = take_stream, .query = stream_done};
    NT_TRY(nt_device_comm_open(ranks, &stream, out));
    if (!*out) return NT_OK;
    be->watch = wait_for_peers;
    be->watch_arg = m;
    return NT_OK;
}

static nt_status mark_passed(void *mark, bool *done) {
    return nt_cuda_mark_passed(mark, done);
}

nt_status nt_model_mark(struct nt_model *m, int slot) {
    return m->device_comm ? nt_cuda_mark_set(m->marks[slot]) : NT_OK;
}

nt_status nt_model_watch(struct nt_model *m, int slot) {
    return m->device_comm ? nt_device_comm_wait_for(m->device_comm, mark_passed, m->marks[slot]) : NT_OK;
}

/* Tensor-parallel ranks of a device sum on its stream. */
static nt_status open_device_comm(struct nt_model *m) {
    struct nt_backend *be = m->backend;
    if (nt_backend_is_host(be) || m->world->tp_size == 1 || be->cuda->crowded) return NT_OK;
    NT_TRY(connect(m, m->world->tp, &m->device_comm));
    if (!m->device_comm) return NT_OK;
    for (int i = 0; i < NT_DOWNLOAD_SLOTS; i++) NT_TRY(nt_cuda_mark_open(be, &m->marks[i]));
    return nt_peer_sum_open(be, m->world, m->device_comm, &m->peers);
}

nt_status nt_model_connect_copies(struct nt_model *m) {
    if (nt_backend_is_host(m->backend) || m->world->dp_size == 1 || m->copies_comm) return NT_OK;
    if (m->backend->cuda->crowded_copies) {
        if (m->world->dp_rank == 0)
            nt_warn("comm", "gradients of model copies go through host memory: NCCL wants a device for each rank");
        return NT_OK;
    }
    NT_TRY(connect(m, m->world->dp, &m->copies_comm));
    if (m->device_comm && m->copies_comm) nt_device_comm_pair(m->device_comm, m->copies_comm);
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
    NT_TRY(open_device_comm(m));
    const double loaded = nt_now();
    NT_TRY(nt_model_digest_compute(*src, m->world, m->backend->pool, m->digest));
    nt_info("model", "%.1f MB of packed weights per rank, loaded in %.2f s, hashed in %.2f s",
            (double)m->weight_arena.size / 1e6, loaded - start, nt_now() - loaded);
    return NT_OK;
}

static void release(struct nt_model *m) {
    nt_step_graphs_drop(m);
    nt_peer_sum_close(m->peers);
    if (m->device_comm || m->copies_comm) m->backend->watch = NULL;
    for (int i = 0; i < NT_DOWNLOAD_SLOTS && m->device_comm; i++) nt_cuda_mark_close(m->marks[i]);
    nt_device_comm_close(m->copies_comm);
    nt_device_comm_close(m->device_comm);
    nt_arena_give(&m->own_lora_arena, m->backend);
    nt_arena_give(&m->weight_arena, m->backend);
    if (m->shared.base) nt_shared_close(m->world, &m->shared);
    free(m);
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
        release(m);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    m->max_len = m->spec.max_len;
    *out = m;
    return NT_OK;
}

void nt_model_close(struct nt_model *m) {
    if (!m) return;
    if (m->peers && m->device_comm && nt_peer_sum_leave(m->peers, m->world->tp) != NT_OK) nt_error_clear();
    release(m);
}

/* ---- facts ----------------------------------------------------------------------------------------------------- */

bool nt_model_takes(const struct nt_spec *spec, enum nt_weight_format blocks) {
    return blocks != NT_WEIGHT_INT4 || spec->d_head % 16 == 0;
}
const struct nt_spec *nt_model_spec(const struct nt_model *m) {
    return &m->spec;
}
size_t nt_model_weight_bytes(const struct nt_model *m) {
    return m->weight_arena.size + m->own_lora_arena.size;
}
size_t nt_model_peer_bytes(const struct nt_model *m) {
    return nt_peer_sum_bytes(m->peers);
}
void nt_model_digest(const struct nt_model *m, uint8_t digest[32]) {
    memcpy(digest, m->digest, sizeof m->digest);
}
void nt_model_vocab_of(const struct nt_model *m, int32_t rank, int32_t *first, int32_t *count) {
    struct nt_shard of;
    NT_CHECK(nt_shard_plan(&m->spec, rank, m->shard.size, &of) == NT_OK); /* as this rank's own */
    *first = of.vocab0;
    *count = of.n_vocab;
}

int32_t nt_model_vocab_first(const struct nt_model *m) {
    return m->shard.vocab0;
}
int32_t nt_model_vocab_count(const struct nt_model *m) {
    return m->shard.n_vocab;
}
int64_t nt_model_logit_ld(const struct nt_model *m) {
    return nt_logit_ld(&m->shard);
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

nt_status nt_kv_pool_take(struct nt_job_memory *mem, const struct nt_model *m, int32_t n_page,
                          struct nt_kv_pool *pool) {
    size_t bytes = 0;
    if (n_page < 1 || __builtin_mul_overflow(nt_model_kv_page_bytes(m), (size_t)n_page, &bytes))
        return NT_FAIL(NT_E_CONFIG, "%d pages of KV cache, expected at least 1 and a size that fits the address space",
                       n_page);
    pool->base = nt_arena_take(&mem->device, bytes, 1);
    pool->n_page = n_page;
    return NT_OK;
}

void nt_kv_page_zero(const struct nt_model *m, const struct nt_kv_pool *pool, int32_t page) {
    NT_CHECK(page >= 0 && page < pool->n_page);
    if (m->backend->kv_format != NT_KV_PAIRED) return;
    const int64_t n = page_elems(m);
    for (int64_t layer = 0; layer < m->spec.n_layer; layer++)
        memset(pool->base + (layer * pool->n_page + page) * n, 0, (size_t)n * sizeof(nt_bf16));
}

/* ---- forward --------------------------------------------------------------------------------------------------- */

struct rope_fill {
    struct nt_model *m;
    float *cos, *sin;
    double inv_freq[NT_MAX_D_HEAD / 2];
    double scale;
};

static void rope_thread(void *arg, int thread, int n_threads) {
    const struct rope_fill *f = arg;
    int64_t begin = 0, end = 0;
    nt_split(f->m->acts.max_len, 1, thread, n_threads, &begin, &end);
    nt_rope_fill(f->inv_freq, f->scale, f->m->spec.d_head / 2, (int32_t)begin, (int32_t)end, f->cos, f->sin);
}

static nt_status fill_rope(struct nt_model *m) {
    struct nt_backend *be = m->backend;
    const size_t bytes = (size_t)m->acts.max_len * (size_t)(m->spec.d_head / 2) * sizeof(float);
    struct rope_fill fill = {.m = m, .cos = m->acts.cos, .sin = m->acts.sin};
    fill.scale = nt_rope_inv_freq(&m->spec, m->weights.rope_freqs ? m->rope_freqs : NULL, fill.inv_freq);
    float *staging = NULL;
    if (!nt_backend_is_host(be)) {
        staging = malloc(2 * bytes);
        if (!staging) return NT_FAIL(NT_E_NOMEM, "no memory for %zu bytes of rotary tables", 2 * bytes);
        fill.cos = staging;
        fill.sin = staging + bytes / sizeof(float);
    }
    nt_pool_run(be->pool, rope_thread, &fill);
    nt_status st = NT_OK;
    if (staging) st = be->memory->upload(be, m->acts.cos, fill.cos, bytes);
    if (staging && st == NT_OK) st = be->memory->upload(be, m->acts.sin, fill.sin, bytes);
    free(staging);
    return st;
}

void nt_model_limit_len(struct nt_model *m, int32_t max_len) {
    if (max_len > 0 && max_len < m->spec.max_len) m->max_len = max_len;
}

nt_status nt_model_layout(struct nt_model *m, struct nt_job_memory *mem, const struct nt_step_limits *max) {
    const struct nt_spec *spec = &m->spec;
    const struct nt_shard *s = &m->shard;
    struct nt_arena *a = &mem->device;
    const size_t n = (size_t)max->tok, n_out = (size_t)max->out, d = (size_t)spec->d_model;
    const size_t d_head = (size_t)spec->d_head, heads = (size_t)s->n_head * d_head;
    const bool in_place = !mem->apart && !m->training;
    struct nt_block_acts *b = &m->acts.block;
    struct nt_acts *t = &m->acts;
    nt_step_graphs_drop(m);
    *t = (struct nt_acts){.max = *max, .max_len = m->max_len};
    t->x = NT_TAKE(a, float, n *d);
    if (s->size > 1) t->delta = NT_TAKE(a, float, n *d);
    t->h = NT_TAKE(a, nt_bf16, n * d);
    b->h_attn = b->h_mlp = t->h;
    b->qkv = NT_TAKE(a, float, n *(heads + 2 * (size_t)s->n_kv * d_head));
    b->q = NT_TAKE(a, nt_bf16, n * (size_t)s->n_head * (size_t)nt_d_pad(spec->d_head));
    b->heads = NT_TAKE(a, nt_bf16, n * heads);
    b->mlp = NT_TAKE(a, nt_bf16, n * (size_t)s->ff_pad);
    t->x_out = in_place ? t->x : NT_TAKE(a, float, n_out *d);
    b->heads_out = in_place ? b->heads : NT_TAKE(a, nt_bf16, n_out * heads);
    for (int g = 0; g < NT_LORA_GROUPS && m->lora; g++)
        b->low[g] = NT_TAKE(a, nt_bf16, n * (size_t)m->lora->layers[0][g].a.n);
    t->cos = NT_TAKE(a, float, (size_t)t->max_len *(d_head / 2));
    t->sin = NT_TAKE(a, float, (size_t)t->max_len *(d_head / 2));
    nt_model_layout_draw(m, mem, max);
    NT_TRY(nt_inputs_layout(m, mem));
    return t->sin ? fill_rope(m) : NT_OK; /* NULL: counting */
}

nt_status nt_model_forward(struct nt_model *m, const struct nt_batch *b, const struct nt_kv_pool *kv, float *logits) {
    if (nt_step_graph_fits(m, b)) return nt_step_graph_forward(m, b, kv, logits);
    struct nt_step step = {.kv = kv, .x = m->acts.x};
    NT_TRY(nt_inputs_fill(m, b, &step, 0));
    return nt_step_run(m, &step, logits);
}
