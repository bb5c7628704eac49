#include "gpu_steps.h"

#include "cuda_backend.h"
#include "cuda_copy.h"
#include "ledger_backend.h"
#include "log.h"
#include "model_shape.h"
#include "pages.h"
#include "rng.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_GROUPS = 9, SMALL_GROUPS = 1 };
static const float weight_scale = 0.05f; /* of random weights: activations stay finite in any number of layers */
static const size_t kept_free = (size_t)256 << 20;

/* One model on one backend: the device, or the ledger. */
struct rig {
    const struct nt_gpu_steps_job *job;
    struct nt_backend *be;
    struct nt_model *model;
    struct nt_job_memory memory;
    struct nt_kv_pool kv;
    float *logits;
    struct nt_step_limits max;
    int32_t *ids, *out_rows, *table; // [max.tok], [max.out], [max.pages]
    struct nt_attn_seq *seqs;        // [max.seq]
    struct nt_logit_sample_args draw;
    struct nt_batch batch;
};

static int32_t longest(const struct nt_cuda_bench_sizes *s) {
    return s->context > s->prefill ? s->context : s->prefill;
}

static nt_status rig_open(struct rig *r, const struct nt_gpu_steps_job *job, struct nt_backend *be) {
    *r = (struct rig){.job = job, .be = be};
    NT_TRY(nt_model_open_shape(&r->model, job->spec, job->world, be));
    nt_model_limit_len(r->model, longest(job->sizes));
    nt_job_memory_init(&r->memory, be);
    return NT_OK;
}

static size_t kv_bytes(const struct rig *r) {
    return (size_t)r->max.pages * nt_model_kv_page_bytes(r->model);
}
static size_t logit_bytes(const struct rig *r) {
    return (size_t)r->max.out * (size_t)nt_model_logit_ld(r->model) * sizeof(float);
}

/* Cache and logits are not in the arena: on the ledger they have addresses only. */
static void rig_unbind(struct rig *r) {
    const struct nt_memory *m = r->be->memory;
    if (r->kv.base) m->give(r->be, r->kv.base, kv_bytes(r));
    if (r->logits) m->give(r->be, r->logits, logit_bytes(r));
    r->kv.base = NULL;
    r->logits = NULL;
    nt_job_memory_release(&r->memory);
}

static void rig_close(struct rig *r) {
    rig_unbind(r);
    nt_model_close(r->model);
}

static nt_status layout(struct rig *r) {
    struct nt_arena *a = &r->memory.host;
    NT_TRY(nt_model_layout(r->model, &r->memory, &r->max));
    r->ids = NT_TAKE(a, int32_t, r->max.tok);
    r->out_rows = NT_TAKE(a, int32_t, r->max.out);
    r->table = NT_TAKE(a, int32_t, r->max.pages);
    r->seqs = NT_TAKE(a, struct nt_attn_seq, r->max.seq);
    return NT_OK;
}

/* A step of n_seq sequences with n_q tokens each, the last at position context - 1. */
static void fill_batch(struct rig *r, int32_t n_seq, int32_t n_q, int32_t context) {
    const int32_t each = nt_pages_for(context);
    r->batch = (struct nt_batch){
        .ids = r->ids, .seqs = r->seqs, .out_rows = r->out_rows, .n_tok = n_seq * n_q, .n_seq = n_seq, .n_out = n_seq};
    for (int32_t i = 0; i < r->batch.n_tok; i++) {
        uint32_t word[4];
        nt_philox(9, 0, (uint64_t)i, word);
        r->ids[i] = (int32_t)(word[0] % (uint32_t)r->job->spec->n_vocab);
    }
    for (int32_t i = 0; i < n_seq * each; i++)
        r->table[i] = (int32_t)((int64_t)i * 7919 % (n_seq * each)); /* a prime */
    for (int32_t i = 0; i < n_seq; i++) {
        r->seqs[i] = (struct nt_attn_seq){
            .q_row = i * n_q, .n_q = n_q, .pos0 = context - n_q, .pages = r->table + (int64_t)i * each};
        r->out_rows[i] = (i + 1) * n_q - 1;
    }
}

/* NT_OK with *fits false when the device has no room. */
static nt_status rig_bind(struct rig *r, const struct nt_gpu_step *step, bool *fits) {
    const int32_t n_seq = step->n_seq, n_q = step->n_tok / n_seq;
    r->max = (struct nt_step_limits){.tok = step->n_tok, .out = n_seq, .seq = n_seq};
    r->max.pages = (int64_t)n_seq * nt_pages_for(step->context);
    NT_TRY(layout(r));
    const size_t needed = r->memory.device.used + kv_bytes(r) + logit_bytes(r) + kept_free;
    *fits = nt_backend_is_host(r->be) || needed <= r->be->memory->available(r->be);
    if (!*fits) {
        nt_job_memory_release(&r->memory);
        return NT_OK;
    }
    NT_TRY(nt_job_memory_bind(&r->memory));
    NT_TRY(layout(r));
    void *p = NULL;
    NT_TRY(r->be->memory->take(r->be, kv_bytes(r), "the KV cache", &p));
    r->kv = (struct nt_kv_pool){.base = p, .n_page = (int32_t)r->max.pages};
    NT_TRY(r->be->memory->take(r->be, logit_bytes(r), "logits", &p));
    r->logits = p;
    fill_batch(r, n_seq, n_q, step->context);
    /* greedy rows, as a job ends their steps: nobody needs the logits, so their memory takes the tokens */
    r->draw = (struct nt_logit_sample_args){.index = p, .n_vocab = r->job->spec->n_vocab};
    r->batch.sample = &r->draw;
    r->batch.by_head = true;
    return NT_OK;
}

static nt_status forward(struct nt_backend *be, void *ctx) {
    struct rig *r = ctx;
    (void)be;
    return nt_model_forward(r->model, &r->batch, &r->kv, r->logits);
}

/* ---- the ideal ---- */

static double ideal_seconds(const struct nt_ledger *l, const struct nt_cuda_ceilings *c) {
    double sum = 0;
    if (!(c->copy_bytes_s > 0) || !(c->matrix_flop_s > 0)) return 0;
    for (int i = 0; i < NT_OP_COUNT; i++) {
        const double bytes = l->op[i].stored_bytes / c->copy_bytes_s, flops = l->op[i].flops / c->matrix_flop_s;
        sum += nt_op_kind((enum nt_op)i) == NT_OP_KIND_PASS ? bytes : fmax(bytes, flops);
    }
    return sum;
}

static nt_status count(struct rig *r, struct nt_ledger_backend *ledger, struct nt_gpu_step *step) {
    bool fits = false;
    NT_TRY(rig_bind(r, step, &fits));
    ledger->sums = (struct nt_ledger){0};
    NT_TRY(forward(r->be, r));
    step->cost = nt_ledger_total(&ledger->sums);
    step->ideal_s = ideal_seconds(&ledger->sums, r->job->ceilings);
    step->weight_bytes = (double)nt_model_weight_bytes(r->model);
    step->kv_bytes = (double)kv_bytes(r);
    rig_unbind(r);
    return NT_OK;
}

static nt_status count_all(const struct nt_gpu_steps_job *job, const struct nt_backend *be, struct nt_gpu_step *steps,
                           int32_t n) {
    struct nt_ledger_backend *ledger = calloc(1, sizeof *ledger);
    struct rig r = {0};
    if (!ledger) return NT_FAIL(NT_E_NOMEM, "no memory for the ledger");
    nt_ledger_open(ledger, be->weight_format, be->kv_format, SIZE_MAX, be->pool);
    nt_status st = rig_open(&r, job, &ledger->be);
    for (int32_t i = 0; i < n && st == NT_OK; i++) st = count(&r, ledger, &steps[i]);
    if (r.be) rig_close(&r);
    nt_ledger_close(ledger);
    free(ledger);
    return st;
}

/* ---- the device ---- */

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The first forward captures the step's graph and is not counted, nor is the next. */
static nt_status time_step(struct rig *r, double *seconds) {
    const struct nt_cuda_bench_sizes *s = r->job->sizes;
    const int32_t groups = s->replays < MAX_GROUPS ? s->replays : MAX_GROUPS, n = s->launches > 4 ? 5 : 1;
    double times[MAX_GROUPS];
    NT_TRY(forward(r->be, r));
    NT_TRY(r->be->memory->wait(r->be));
    if (s->launches > 4) NT_TRY(forward(r->be, r));
    for (int32_t g = 0; g < groups; g++) {
        NT_TRY(nt_cuda_time(r->be, forward, r, n, &times[g]));
        times[g] /= n;
    }
    qsort(times, (size_t)groups, sizeof *times, ascending);
    *seconds = times[groups / 2];
    return NT_OK;
}

/* The same step without early launches: they must not change what it draws. */
static nt_status time_one_by_one(struct rig *r, struct nt_gpu_step *step) {
    const size_t bytes = (size_t)step->n_seq * sizeof(int32_t);
    int32_t *drawn[2] = {malloc(bytes), malloc(bytes)};
    nt_status st = drawn[0] && drawn[1] ? NT_OK : NT_FAIL(NT_E_NOMEM, "no memory for the tokens of a step");
    for (int i = 0; i < 2 && st == NT_OK; i++) {
        r->be->cuda->one_by_one = i == 1;
        st = time_step(r, i == 0 ? &step->seconds : &step->one_by_one_s);
        if (st == NT_OK) st = r->be->memory->download(r->be, drawn[i], r->draw.index, bytes);
    }
    r->be->cuda->one_by_one = false;
    step->wrong = st == NT_OK && memcmp(drawn[0], drawn[1], bytes) != 0;
    for (int i = 0; i < 2; i++) free(drawn[i]);
    return st;
}

static nt_status run_step(struct rig *r, struct nt_gpu_step *step) {
    bool fits = false;
    nt_status st = rig_bind(r, step, &fits);
    if (st == NT_OK && !fits)
        (void)snprintf(step->skipped, sizeof step->skipped,
                       "%.1f GB of cache and activations do not fit the %.1f GB free", step->kv_bytes / 1e9,
                       (double)r->be->memory->available(r->be) / 1e9);
    if (st == NT_OK && fits) st = nt_cuda_fill(r->be, r->kv.base, kv_bytes(r), 1);
    if (st == NT_OK && fits) st = nt_cuda_begins_early(r->be) ? time_one_by_one(r, step) : time_step(r, &step->seconds);
    rig_unbind(r);
    return st;
}

static nt_status run_all(const struct nt_gpu_steps_job *job, struct nt_backend *be, struct nt_gpu_step *steps,
                         int32_t n) {
    struct rig r = {0};
    nt_status st = rig_open(&r, job, be);
    if (st == NT_OK)
        st = nt_cuda_fill(be, nt_model_shape_weights(r.model), nt_model_weight_bytes(r.model), weight_scale);
    for (int32_t i = 0; i < n && st == NT_OK; i++) {
        nt_info("doctor", "%s of %s, %d tokens", steps[i].prefill ? "prefill" : "decode step", job->model,
                steps[i].n_tok);
        st = run_step(&r, &steps[i]);
    }
    if (r.be) rig_close(&r);
    return st;
}

static bool leaves_out(const struct nt_cuda_bench_sizes *s) {
    static const enum nt_op forward_ops[] = {NT_OP_embed,     NT_OP_rmsnorm, NT_OP_gemm,       NT_OP_rope_kv,
                                             NT_OP_attention, NT_OP_gather,  NT_OP_head_argmax};
    for (size_t i = 0; i < sizeof forward_ops / sizeof forward_ops[0]; i++)
        if (s->skip[forward_ops[i]]) return true;
    return false;
}

nt_status nt_gpu_steps_run(const struct nt_gpu_steps_job *job, struct nt_backend *be, struct nt_gpu_steps *out) {
    const struct nt_cuda_bench_sizes *s = job->sizes;
    const int32_t n = s->n_decode + 1;
    NT_CHECK(out->n + n <= NT_GPU_STEPS_MAX && job->world->tp_size == 1);
    struct nt_gpu_step *steps = &out->row[out->n];
    for (int32_t i = 0; i < n; i++) {
        const bool prefill = i == s->n_decode;
        steps[i] = (struct nt_gpu_step){.model = job->model, .prefill = prefill};
        steps[i].n_seq = prefill ? 1 : s->decode[i];
        steps[i].n_tok = prefill ? s->prefill : s->decode[i];
        steps[i].context = prefill ? s->prefill : s->context;
    }
    NT_TRY(count_all(job, be, steps, n));
    out->n += n;
    if (leaves_out(s)) {
        for (int32_t i = 0; i < n; i++)
            (void)snprintf(steps[i].skipped, sizeof steps[i].skipped, "an op of the forward was left out");
        return NT_OK;
    }
    if (steps[0].weight_bytes + (double)kept_free > (double)be->memory->available(be)) {
        for (int32_t i = 0; i < n; i++)
            (void)snprintf(steps[i].skipped, sizeof steps[i].skipped, "%.1f GB of weights do not fit the %.1f GB free",
                           steps[i].weight_bytes / 1e9, (double)be->memory->available(be) / 1e9);
        return NT_OK;
    }
    return run_all(job, be, steps, n);
}
