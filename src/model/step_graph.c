#include "step_graph.h"
#include "cuda_backend.h"
#include "log.h"
#include "model_state.h"

bool nt_step_graph_fits(const struct nt_model *m, const struct nt_batch *b) {
    if (nt_backend_is_host(m->backend) || b->n_out != b->n_seq || b->n_tok != b->n_seq) return false;
    if (b->prev && b->n_prev != b->n_tok) return false; /* a captured step takes all its ids from one place */
    return m->world->tp_size == 1 || m->device_comm;
}

/* 1, 2, 3, 4, 6, 8, 12, 16, 24 ...: at most a third of the rows is padding. */
static int32_t sequence_bucket(const struct nt_model *m, int32_t n_seq) {
    const struct nt_step_limits *max = &m->acts.max;
    int32_t cap = max->seq < max->out ? max->seq : max->out, size = 1;
    if (max->tok < cap) cap = max->tok;
    while (size < n_seq) size = size == 1 ? 2 : size % 3 == 0 ? size / 3 * 4 : size / 2 * 3;
    return size < cap ? size : cap;
}

/* Context lengths double: few graphs, and at most half of the splits have nothing to do. */
static int32_t position_bucket(const struct nt_model *m, int32_t max_pos) {
    int64_t size = 512;
    while (size < max_pos) size *= 2;
    return size < m->acts.max_len ? (int32_t)size : m->acts.max_len;
}

static struct nt_device_queued queued(const struct nt_model *m) {
    return m->device_comm ? nt_device_comm_queued(m->device_comm) : (struct nt_device_queued){0};
}

static void set_queued(struct nt_model *m, int64_t n, const char *newest) {
    if (m->device_comm) nt_device_comm_set_queued(m->device_comm, (struct nt_device_queued){n, newest});
}

static nt_status capture(struct nt_model *m, struct nt_step *s, float *logits, struct nt_step_graph *out) {
    const struct nt_device_queued before = queued(m);
    NT_TRY(nt_cuda_capture_begin(m->backend));
    NT_TRY(nt_cuda_capture_end(m->backend, nt_step_run(m, s, logits), &out->graph));
    out->collectives = queued(m);
    out->collectives.n -= before.n;
    set_queued(m, before.n, before.newest); /* none of them runs before a launch */
    nt_info("model", "captured a decode step of %d sequences up to position %d%s: %d nodes", s->batch.n_seq, s->max_pos,
            s->batch.by_head  ? ", tokens drawn by the head"
            : s->batch.sample ? ", tokens drawn from logits"
                              : "",
            nt_cuda_graph_nodes(out->graph));
    return NT_OK;
}

static void forget_oldest(struct nt_model *m) {
    struct nt_step_graphs *g = &m->graphs;
    nt_cuda_graph_free(m->backend, g->of[0].graph);
    for (int32_t i = 1; i < g->n; i++) g->of[i - 1] = g->of[i];
    g->n--;
}

static struct nt_step_graph key_of(const struct nt_step *s, const float *logits, bool one_by_one) {
    return (struct nt_step_graph){.n_seq = s->batch.n_seq,
                                  .max_pos = s->max_pos,
                                  .logits = logits,
                                  .kv = s->kv->base,
                                  .drawn = s->batch.sample ? s->batch.sample->index : NULL,
                                  .prev = s->batch.prev,
                                  .by_head = s->batch.by_head,
                                  .one_by_one = one_by_one};
}

static bool same_key(const struct nt_step_graph *a, const struct nt_step_graph *b) {
    return a->n_seq == b->n_seq && a->max_pos == b->max_pos && a->logits == b->logits && a->kv == b->kv &&
           a->drawn == b->drawn && a->prev == b->prev && a->by_head == b->by_head && a->one_by_one == b->one_by_one;
}

static nt_status find(struct nt_model *m, struct nt_step *s, float *logits, const struct nt_step_graph **out) {
    struct nt_step_graphs *g = &m->graphs;
    struct nt_step_graph fresh = key_of(s, logits, m->backend->cuda->one_by_one);
    for (int32_t i = 0; i < g->n; i++) {
        if (!same_key(&g->of[i], &fresh)) continue;
        *out = &g->of[i];
        return NT_OK;
    }
    if (g->n == NT_STEP_GRAPHS) forget_oldest(m);
    NT_TRY(capture(m, s, logits, &fresh));
    g->of[g->n] = fresh;
    *out = &g->of[g->n++];
    return NT_OK;
}

nt_status nt_step_graph_forward(struct nt_model *m, const struct nt_batch *b, const struct nt_kv_pool *kv,
                                float *logits) {
    struct nt_step step = {.kv = kv, .x = m->acts.x};
    NT_TRY(nt_inputs_fill(m, b, &step, sequence_bucket(m, b->n_seq)));
    step.max_pos = position_bucket(m, step.max_pos);
    const struct nt_step_graph *captured = NULL;
    NT_TRY(find(m, &step, logits, &captured));
    NT_TRY(nt_cuda_graph_launch(m->backend, captured->graph));
    set_queued(m, queued(m).n + captured->collectives.n, captured->collectives.newest);
    return NT_OK;
}

void nt_step_graphs_drop(struct nt_model *m) {
    for (int32_t i = 0; i < m->graphs.n; i++) nt_cuda_graph_free(m->backend, m->graphs.of[i].graph);
    m->graphs.n = 0;
}
