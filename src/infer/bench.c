#include "bench.h"

#include "clock.h"
#include "memory_plan.h"
#include "pages.h"
#include "rng.h"

#include <math.h>

struct bench {
    struct nt_session *session;
    const struct nt_bench_test *test;
    struct nt_job_memory memory;
    struct nt_pages pages;
    int32_t step_tokens, per_seq;    /* pages of one sequence */
    int32_t *ids, *out_rows, *table; // [step_tokens], [n_seq], [n_seq, per_seq]
    struct nt_attn_seq *seqs;        // [n_seq]
    float *logits;                   // [n_seq, ld]
};

static nt_status layout(struct bench *b) {
    const struct nt_bench_test *t = b->test;
    struct nt_arena *a = &b->memory.host;
    const int32_t n_page = t->n_seq * b->per_seq;
    const struct nt_step_limits max = {.tok = b->step_tokens, .out = t->n_seq, .seq = t->n_seq, .pages = n_page};
    NT_TRY(nt_pages_layout(&b->pages, &b->memory, b->session->model, n_page));
    NT_TRY(nt_model_layout(b->session->model, &b->memory, &max));
    b->ids = NT_TAKE(a, int32_t, b->step_tokens);
    b->out_rows = NT_TAKE(a, int32_t, t->n_seq);
    b->table = NT_TAKE(a, int32_t, (int64_t)t->n_seq * b->per_seq);
    b->seqs = NT_TAKE(a, struct nt_attn_seq, t->n_seq);
    b->logits = NT_TAKE(&b->memory.device, float, (int64_t)t->n_seq *nt_model_logit_ld(b->session->model));
    return NT_OK;
}

static void random_ids(struct bench *b, int32_t n, uint64_t stream) {
    const uint32_t n_vocab = (uint32_t)nt_model_spec(b->session->model)->n_vocab;
    for (int32_t i = 0; i < n; i++) {
        uint32_t w[4];
        nt_philox(1, stream, (uint64_t)i, w);
        b->ids[i] = (int32_t)(w[0] % n_vocab);
    }
}

static nt_status forward(struct bench *b, const struct nt_batch *batch) {
    nt_comm_beat(b->session->world);
    return nt_model_forward(b->session->model, batch, &b->pages.pool, b->logits);
}

/* All prompts, packed into steps of step_tokens; chunk borders fall anywhere. */
static nt_status prefill(struct bench *b) {
    const struct nt_bench_test *t = b->test;
    int32_t seq = 0, at = 0;
    while (seq < t->n_seq) {
        struct nt_batch batch = {.ids = b->ids, .seqs = b->seqs, .out_rows = b->out_rows};
        while (seq < t->n_seq && batch.n_tok < b->step_tokens) {
            int32_t n = t->n_prompt - at;
            n = n < b->step_tokens - batch.n_tok ? n : b->step_tokens - batch.n_tok;
            b->seqs[batch.n_seq++] = (struct nt_attn_seq){
                .q_row = batch.n_tok, .n_q = n, .pos0 = at, .pages = b->table + (int64_t)seq * b->per_seq};
            batch.n_tok += n;
            at += n;
            if (at < t->n_prompt) break;
            b->out_rows[batch.n_out++] = batch.n_tok - 1;
            seq++;
            at = 0;
        }
        random_ids(b, batch.n_tok, (uint64_t)(seq * t->n_prompt + at));
        NT_TRY(forward(b, &batch));
    }
    return NT_OK;
}

static nt_status decode(struct bench *b, int32_t step) {
    const struct nt_bench_test *t = b->test;
    struct nt_batch batch = {.ids = b->ids,
                             .seqs = b->seqs,
                             .out_rows = b->out_rows,
                             .n_tok = t->n_seq,
                             .n_seq = t->n_seq,
                             .n_out = t->n_seq};
    for (int32_t i = 0; i < t->n_seq; i++) {
        b->seqs[i] = (struct nt_attn_seq){
            .q_row = i, .n_q = 1, .pos0 = t->n_prompt + step, .pages = b->table + (int64_t)i * b->per_seq};
        b->out_rows[i] = i;
    }
    random_ids(b, t->n_seq, (uint64_t)(1000000 + step));
    return forward(b, &batch);
}

static nt_status one_rep(struct bench *b, double *seconds) {
    const struct nt_bench_test *t = b->test;
    const int32_t n = t->n_seq * b->per_seq;
    if (!nt_pages_take(&b->pages, n, b->table)) nt_bug("the benchmark planned too few pages");
    const double start = nt_now();
    struct nt_backend *be = &b->session->backend;
    if (t->n_prompt > 0) NT_TRY(prefill(b));
    NT_TRY(be->memory->wait(be));
    const double prompted = nt_now();
    for (int32_t i = 0; i < t->n_gen; i++) NT_TRY(decode(b, i));
    NT_TRY(be->memory->wait(be));
    *seconds = t->timed_prompt ? prompted - start : nt_now() - prompted;
    nt_pages_give(&b->pages, b->table, n);
    return NT_OK;
}

static nt_status measure(struct bench *b, int32_t reps, struct nt_bench_result *out) {
    const struct nt_bench_test *t = b->test;
    const double tokens = (double)t->n_seq * (t->timed_prompt ? t->n_prompt : t->n_gen);
    double s = 0, s2 = 0, r = 0, r2 = 0;
    for (int32_t i = 0; i <= reps; i++) {
        double seconds;
        NT_TRY(one_rep(b, &seconds));
        if (i == 0) continue;
        s += seconds * 1e9;
        s2 += seconds * 1e9 * seconds * 1e9;
        r += tokens / seconds;
        r2 += tokens / seconds * (tokens / seconds);
    }
    out->avg_ns = s / reps;
    out->avg_ts = r / reps;
    out->stddev_ns = reps > 1 ? sqrt(fmax(0, (s2 - s * s / reps) / (reps - 1))) : 0;
    out->stddev_ts = reps > 1 ? sqrt(fmax(0, (r2 - r * r / reps) / (reps - 1))) : 0;
    return NT_OK;
}

nt_status nt_bench_model(struct nt_session *s, const struct nt_bench_test *test, int32_t step_tokens, int32_t reps,
                         struct nt_bench_result *out) {
    struct bench b = {.session = s, .test = test, .step_tokens = step_tokens > test->n_seq ? step_tokens : test->n_seq};
    if (test->n_prompt + test->n_gen > s->max_len)
        return NT_FAIL(NT_E_USAGE, "bench: %d + %d tokens exceed the model's longest sequence of %d", test->n_prompt,
                       test->n_gen, s->max_len);
    b.per_seq = nt_pages_for(test->n_prompt + test->n_gen);
    const struct nt_memory_plan plan = {.world = s->world,
                                        .model = s->model,
                                        .memory = &b.memory,
                                        .n_page = test->n_seq * b.per_seq,
                                        .remedy = "bench.batch or the lengths of the benchmark"};
    nt_job_memory_init(&b.memory, &s->backend);
    nt_status st = layout(&b);
    if (st == NT_OK) st = nt_memory_plan_take(&plan);
    if (st == NT_OK) st = layout(&b);
    if (st == NT_OK) st = measure(&b, reps, out);
    /* Not after one rank's error: giving memory back waits for the stream, and that may wait for the other. */
    if (st == NT_OK || s->world->size == 1) nt_job_memory_release(&b.memory);
    return st;
}
