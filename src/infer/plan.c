#include "plan.h"
#include "comm_count.h"
#include "model_shape.h"
#include "pages.h"
#include "pool.h"
#include "sampler.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double memory_used = 0.92, memory_reserve = 2e9;
enum { MAX_SEQS = 65535, MAX_STEP_TOKENS = 16384, PREFILL_TOKENS = 8192, F32 = 4 };

/* ---- rows ---- */

static const struct nt_plan_precision precisions[] = {
    {"bf16",     "bf16 weights, bf16 cache",             NT_WEIGHT_BF16_ROWS, NT_KV_ROWS,      NT_WEIGHT_BF16_ROWS},
    {"bf16-kv8", "bf16 weights, int8 cache",             NT_WEIGHT_BF16_ROWS, NT_KV_ROWS_INT8, NT_WEIGHT_BF16_ROWS},
    {"int8-kv8", "int8 weights (group 128), int8 cache", NT_WEIGHT_BF16_ROWS, NT_KV_ROWS_INT8, NT_WEIGHT_INT8     },
    {"int4-kv8", "int4 weights (group 128), int8 cache", NT_WEIGHT_BF16_ROWS, NT_KV_ROWS_INT8, NT_WEIGHT_INT4     },
};

const struct nt_plan_precision *nt_plan_precisions(int32_t *n) {
    *n = (int32_t)(sizeof precisions / sizeof precisions[0]);
    return precisions;
}

const char *nt_plan_row_name(int32_t row) {
    if (row == NT_PLAN_PREFILL_ATTENTION) return "attention, prefill";
    if (row == NT_PLAN_DECODE_ATTENTION) return "attention, decode";
    if (row == NT_PLAN_ALLREDUCE) return "allreduce";
    return nt_op_name((enum nt_op)row);
}

/* ---- one rank that only counts ---- */

struct rank {
    const struct nt_plan_job *job;
    struct nt_comm_tally tally;
    struct nt_world world;
    struct nt_ledger_backend ledger;
    struct nt_pool *pool;
    struct nt_model *model;
    struct nt_job_memory memory;
    struct nt_kv_pool kv;
    size_t kv_bytes;
    float *logits;
    struct nt_step_limits max;
    int32_t *ids, *out_rows, *pages; // [max.tok], [max.out], [pages of the longest sequence]: all zero but out_rows
    struct nt_attn_seq *seqs;        // [max.seq]
};

static size_t logit_bytes(const struct rank *r) {
    return (size_t)r->max.out * (size_t)nt_model_logit_ld(r->model) * sizeof(float);
}

static nt_status rank_open(struct rank *r, const struct nt_plan_job *job) {
    *r = (struct rank){.job = job};
    NT_TRY(nt_world_open_counted(&r->world, job->tp, &r->tally));
    NT_TRY(nt_pool_new(&r->pool, 1, false, 0, 1));
    nt_ledger_open(&r->ledger, job->precision->weights, job->precision->kv, (size_t)job->gpu->memory, r->pool);
    r->ledger.be.block_format = job->precision->blocks;
    NT_TRY(nt_model_open_shape(&r->model, job->spec, &r->world, &r->ledger.be));
    nt_model_limit_len(r->model, job->in + job->out);
    nt_job_memory_init(&r->memory, &r->ledger.be);
    return NT_OK;
}

static void rank_close(struct rank *r) {
    struct nt_backend *be = &r->ledger.be;
    if (r->kv.base) be->memory->give(be, r->kv.base, r->kv_bytes);
    if (r->logits) be->memory->give(be, r->logits, logit_bytes(r));
    nt_job_memory_release(&r->memory);
    nt_model_close(r->model);
    nt_ledger_close(&r->ledger);
    nt_pool_free(r->pool);
    nt_world_close(&r->world);
}

static nt_status layout(struct rank *r) {
    struct nt_arena *a = &r->memory.host;
    NT_TRY(nt_model_layout(r->model, &r->memory, &r->max));
    r->ids = NT_TAKE(a, int32_t, r->max.tok);
    r->out_rows = NT_TAKE(a, int32_t, r->max.out);
    r->pages = NT_TAKE(a, int32_t, nt_pages_for(r->job->in + r->job->out));
    r->seqs = NT_TAKE(a, struct nt_attn_seq, r->max.seq);
    return NT_OK;
}

/* Room for the largest step, r->max. The cache and the logits have addresses only. */
static nt_status bind(struct rank *r) {
    struct nt_backend *be = &r->ledger.be;
    NT_TRY(layout(r));
    NT_TRY(nt_job_memory_bind(&r->memory));
    NT_TRY(layout(r));
    for (int32_t i = 0; i < r->max.out; i++) r->out_rows[i] = i;
    void *memory = NULL;
    r->kv.n_page = 1; /* all sequences share the one page: only their lengths matter */
    r->kv_bytes = nt_model_kv_page_bytes(r->model);
    NT_TRY(be->memory->take(be, r->kv_bytes, "the KV cache", &memory));
    r->kv.base = memory;
    NT_TRY(be->memory->take(be, logit_bytes(r), "logits", &memory));
    r->logits = memory;
    return NT_OK;
}

/* ---- a step ---- */

static void add_seq(const struct rank *r, struct nt_batch *b, int32_t n_q, int32_t pos0) {
    NT_CHECK(b->n_seq < r->max.seq && b->n_tok + n_q <= r->max.tok);
    r->seqs[b->n_seq++] = (struct nt_attn_seq){.q_row = b->n_tok, .n_q = n_q, .pos0 = pos0, .pages = r->pages};
    b->n_tok += n_q;
}

/* Whole prompts, and one chunk from the middle of a prompt, where a token sees the mean of what prompt tokens see. */
static int32_t add_prompts(const struct rank *r, struct nt_batch *b, int32_t tokens) {
    const int32_t in = r->job->in, whole = tokens / in, rest = tokens % in;
    for (int32_t i = 0; i < whole; i++) add_seq(r, b, in, 0);
    if (rest > 0) add_seq(r, b, rest, (in - rest) / 2);
    return whole;
}

/* Over the communicator and over the memory of a peer. */
static int64_t sums(const struct rank *r) {
    return r->tally.calls + r->ledger.sums.peer.sums;
}

static double wire_bytes(const struct rank *r) {
    return (r->tally.elements + r->ledger.sums.peer.elements) * r->job->wire_bytes;
}

static double allreduce_s(const struct rank *r, double factor) {
    const struct nt_gpu *gpu = r->job->gpu;
    const double n = r->job->tp;
    if (r->job->tp == 1) return 0;
    return fmax((double)sums(r) * gpu->link_delay, 2 * (n - 1) / n * wire_bytes(r) / (gpu->link * factor));
}

static void time_row(const struct nt_gpu *gpu, enum nt_op_kind kind, struct nt_plan_row *row) {
    const struct nt_cost *c = &row->cost;
    row->ideal_s = c->stored_bytes / gpu->bandwidth;
    row->practical_s = (c->read_bytes + c->write_bytes) / (gpu->bandwidth * gpu->memory_factor);
    if (kind == NT_OP_KIND_PASS) return;
    row->ideal_s = fmax(row->ideal_s, c->flops / gpu->flops);
    row->practical_s = fmax(row->practical_s, c->flops / (gpu->flops * gpu->compute_factor));
}

static void subtract(struct nt_cost *from, const struct nt_cost *c) {
    from->flops -= c->flops;
    from->read_bytes -= c->read_bytes;
    from->write_bytes -= c->write_bytes;
    from->stored_bytes -= c->stored_bytes;
    from->launches -= c->launches;
}

/* The ledger's sums as rows with times. */
static void settle(const struct rank *r, struct nt_plan_step *step) {
    const struct nt_gpu *gpu = r->job->gpu;
    const struct nt_ledger *l = &r->ledger.sums;
    double matrix_flops = 0;
    for (int32_t i = 0; i < NT_OP_COUNT; i++) step->row[i].cost = l->op[i];
    subtract(&step->row[NT_PLAN_PREFILL_ATTENTION].cost, &l->decode_attention);
    step->row[NT_PLAN_DECODE_ATTENTION].cost = l->decode_attention;
    step->total = nt_ledger_total(l);
    for (int32_t i = 0; i <= NT_PLAN_DECODE_ATTENTION; i++) {
        struct nt_plan_row *row = &step->row[i];
        const enum nt_op_kind kind = i == NT_PLAN_DECODE_ATTENTION ? NT_OP_KIND_ATTENTION : nt_op_kind((enum nt_op)i);
        time_row(gpu, kind, row);
        if (kind != NT_OP_KIND_PASS) matrix_flops += row->cost.flops;
    }
    step->row[NT_PLAN_ALLREDUCE] = (struct nt_plan_row){
        .cost = {.launches = sums(r) - l->peer.fused + l->peer.local, .read_bytes = wire_bytes(r)},
        .ideal_s = allreduce_s(r, 1),
        .practical_s = allreduce_s(r, gpu->link_factor)
    };
    step->total.launches += step->row[NT_PLAN_ALLREDUCE].cost.launches;
    for (int32_t i = 0; i < NT_PLAN_ROWS; i++) {
        step->ideal_s += step->row[i].ideal_s;
        step->practical_s += step->row[i].practical_s;
    }
    step->overlapped_s = fmax(matrix_flops / gpu->flops, step->total.stored_bytes / gpu->bandwidth);
    step->overlapped_s = fmax(step->overlapped_s, step->row[NT_PLAN_ALLREDUCE].ideal_s);
}

static nt_status run_step(struct rank *r, int32_t n_decode, int32_t n_prefill, struct nt_plan_step *step) {
    const int32_t in = r->job->in, out = r->job->out;
    struct nt_batch b = {.ids = r->ids, .seqs = r->seqs, .out_rows = r->out_rows};
    *step = (struct nt_plan_step){.n_decode = n_decode, .n_prefill = n_prefill, .outputs = n_decode};
    for (int32_t i = 0; i < n_decode; i++) add_seq(r, &b, 1, in + out / 2 - 1);
    b.n_out = n_decode; /* a finished prompt's first token is one of the outputs already */
    const int32_t whole = add_prompts(r, &b, n_prefill);
    if (n_decode == 0) b.n_out = whole > 0 ? whole : 1;
    r->ledger.sums = (struct nt_ledger){0};
    r->tally = (struct nt_comm_tally){0};
    /* rows are drawn plainly, by the head; their parameters are not looked at */
    const struct nt_logit_sample_args sample = {.inv_temp = r->logits, .n_vocab = r->job->spec->n_vocab};
    b.sample = &sample;
    b.by_head = true;
    if (n_decode > 0) { /* steps follow each other on the device */
        b.prev = b.prev_row = r->ids;
        b.n_prev = n_decode;
    }
    NT_TRY(nt_model_forward(r->model, &b, &r->kv, r->logits));
    settle(r, step);
    return NT_OK;
}

/* ---- the plan ---- */

/* What is left to activations beside weights and cache. */
static double room(const struct rank *r, const struct nt_plan *p) {
    return r->job->gpu->memory - p->weight_bytes - p->kv_bytes;
}

static void plan_memory(const struct rank *r, struct nt_plan *p) {
    const struct nt_plan_job *job = r->job;
    const double page = (double)nt_model_kv_page_bytes(r->model), mean = job->in + job->out / 2.0;
    const int32_t whole = nt_pages_for(job->in + job->out);
    p->weight_bytes = (double)nt_model_weight_bytes(r->model);
    p->position_bytes = page / NT_KV_PAGE;
    p->kv_bytes = fmax(0, job->gpu->memory * memory_used - memory_reserve - p->weight_bytes);
    p->cached_seqs = p->kv_bytes / (mean * p->position_bytes);
    p->admitted = (int32_t)fmin(p->kv_bytes / page / whole, MAX_SEQS);
    p->kv_occupied = mean / ((double)whole * NT_KV_PAGE);
    p->seqs = job->seqs > 0 ? job->seqs : fmin(p->cached_seqs, MAX_SEQS);
    p->fits = p->seqs >= 1 && p->seqs <= p->cached_seqs;
}

/* The tokens of the three steps. */
struct sizes {
    int32_t decode, beside; /* steady: rows, and prompt tokens, of `wanted` */
    double wanted;
    int32_t all, prefill; /* rows of a decode step, tokens of a prefill step */
};

/* A step of a limited number of tokens stands for a part of the sequences. */
static struct sizes sizes_of(const struct nt_plan_job *job, double seqs) {
    const double in = job->in, out = job->out, most = fmax(1, floor(MAX_STEP_TOKENS * out / (in + out)));
    struct sizes s = {.decode = (int32_t)fmin(seqs, most), .all = (int32_t)fmin(seqs, MAX_STEP_TOKENS)};
    s.wanted = floor(s.decode * in / out + 0.5);
    s.beside = (int32_t)fmin(s.wanted, MAX_STEP_TOKENS);
    s.prefill = job->in < PREFILL_TOKENS ? PREFILL_TOKENS / job->in * job->in : PREFILL_TOKENS;
    return s;
}

static void set_limits(struct rank *r, const struct sizes *s) {
    int32_t tok = s->decode + s->beside > s->prefill ? s->decode + s->beside : s->prefill;
    if (s->all > tok) tok = s->all;
    const int32_t prompts = tok / r->job->in + 1, seqs = s->all + prompts;
    r->max = (struct nt_step_limits){.tok = tok, .out = s->all > prompts ? s->all : prompts, .seq = seqs};
    r->max.pages = (int64_t)seqs * nt_pages_for(r->job->in + r->job->out);
}

/* As a job on a device holds them: inputs beside the host's, logits, and what tokens are drawn with. */
static nt_status count_activations(struct rank *r, struct nt_plan *p) {
    const struct sizes s = sizes_of(r->job, p->seqs);
    struct nt_sampler sampler;
    set_limits(r, &s);
    r->memory.apart = true;
    NT_TRY(layout(r));
    NT_TRY(nt_sampler_layout_shape(&sampler, &r->memory, r->model, r->world.tp, r->max.out));
    p->activation_bytes = (double)(r->memory.device.used + logit_bytes(r));
    nt_job_memory_release(&r->memory);
    return NT_OK;
}

/* As many rows as there is room for, where their number is not given. */
static nt_status limit_seqs(struct rank *r, struct nt_plan *p) {
    NT_TRY(count_activations(r, p));
    while (r->job->seqs == 0 && p->activation_bytes > room(r, p) && p->seqs >= 2) {
        p->seqs = floor(p->seqs * 0.9);
        NT_TRY(count_activations(r, p));
    }
    p->fits = p->fits && p->activation_bytes <= room(r, p);
    p->kv_occupied *= fmin(1, p->seqs / p->admitted);
    return NT_OK;
}

static nt_status run_steps(struct rank *r, struct nt_plan *p) {
    const struct sizes s = sizes_of(r->job, p->seqs);
    set_limits(r, &s);
    NT_TRY(bind(r));
    NT_TRY(run_step(r, s.decode, s.beside, &p->mixed));
    if (s.wanted > s.beside) p->mixed.outputs = s.beside * (double)r->job->out / r->job->in;
    NT_TRY(run_step(r, s.all, 0, &p->decode));
    NT_TRY(run_step(r, 0, s.prefill, &p->prefill));
    const double per_gpu = p->mixed.outputs / r->job->tp;
    p->ideal = per_gpu / p->mixed.ideal_s;
    p->practical = per_gpu / p->mixed.practical_s;
    p->overlapped = per_gpu / p->mixed.overlapped_s;
    return NT_OK;
}

static nt_status plan_rank(struct rank *r, struct nt_plan *p) {
    NT_TRY(rank_open(r, r->job));
    plan_memory(r, p);
    if (p->seqs < 1) return NT_OK;
    NT_TRY(limit_seqs(r, p));
    return run_steps(r, p);
}

nt_status nt_plan_make(const struct nt_plan_job *job, struct nt_plan *plan) {
    struct rank *r = calloc(1, sizeof *r);
    if (!r) return NT_FAIL(NT_E_NOMEM, "no memory for a plan");
    *plan = (struct nt_plan){0};
    r->job = job;
    nt_status st = NT_OK;
    if (job->in < 1 || job->out < 1 || (int64_t)job->in + job->out > job->spec->max_len)
        st = NT_FAIL(NT_E_CONFIG, "plan: %d tokens in and %d out exceed the model's longest sequence of %d", job->in,
                     job->out, job->spec->max_len);
    if (st == NT_OK) st = plan_rank(r, plan);
    rank_close(r);
    free(r);
    return st;
}

double nt_plan_prefill_rate(const struct nt_plan_job *job, const struct nt_plan *plan) {
    return plan->prefill.ideal_s > 0 ? plan->prefill.n_prefill / plan->prefill.ideal_s / job->tp : 0;
}
