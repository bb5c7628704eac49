#include "bench_train.h"
#include "clock.h"
#include "cuda_bench.h"
#include "log.h"
#include "memory_plan.h"
#include "peak.h"
#include "rng.h"
#include "sysmem.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

double nt_train_peak(struct nt_backend *be) {
    double rate = 0;
    if (nt_backend_is_host(be)) return nt_peak_gflops(be->pool, be->isa, NT_PEAK_BF16, true) * 1e9;
    if (be->cuda->facts.emulated) return 0;
    if (nt_cuda_matrix_rate(be, &rate) == NT_OK) return rate;
    nt_warn("train", "the peak of the device is unknown: %s", nt_error_last()->text);
    nt_error_clear();
    return 0;
}

bool nt_train_roof_raise(struct nt_train_roof *r, double rate, double again) {
    const double before = r->flops;
    if (before > 0 && again > r->flops) *r = (struct nt_train_roof){.flops = again};
    if (before > 0 && rate > r->flops) *r = (struct nt_train_roof){.flops = rate, .reached = true};
    return r->flops > before;
}

const char *nt_train_roof_source(const struct nt_train_roof *r) {
    if (!(r->flops > 0)) return "unknown";
    return r->reached ? "reached by a step" : "measured";
}

double nt_train_mfu(const struct nt_train_roof *r, double flops, double seconds) {
    return r->flops > 0 && seconds > 0 ? flops / seconds / r->flops : NAN;
}

void nt_train_mfu_text(const struct nt_train_roof *r, double mfu, char text[NT_TRAIN_MFU_TEXT]) {
    if (isnan(mfu))
        snprintf(text, NT_TRAIN_MFU_TEXT, "unknown");
    else
        snprintf(text, NT_TRAIN_MFU_TEXT, "%.0f%%%s", 100 * mfu, r->reached ? " (of what was reached)" : "");
}

double nt_train_flops(const struct nt_model *m, int64_t adapter, int32_t n_tok, int32_t n_out) {
    const double products = nt_model_flops(m, 0, false), head = nt_model_flops(m, 0, true) - products;
    const double attention = nt_model_flops(m, (n_tok + 1) / 2.0, false) - products;
    const double passes = adapter > 0 ? 2 : 3;
    /* attention's backward: 2.5 forwards */
    return passes * (products * n_tok + head * n_out) + 6.0 * (double)adapter * n_tok + 3.5 * attention * n_tok;
}

/* One micro-batch of whole sequences, always the same. */
struct micro {
    int32_t n_seq;
    int32_t *ids, *out_rows, *targets, *pages; // [n_seq * length], [n_seq * (length - 1)], [n_page]
    float *coef, *logp;                        // [n_seq * (length - 1)]
    struct nt_attn_seq *seqs;
    struct nt_kv_pool kv;
};

static nt_status layout(const struct nt_train_bench *b, struct nt_training *t, struct nt_job_memory *mem,
                        struct micro *m) {
    struct nt_arena *a = &mem->host;
    const int32_t n_page = (b->length + NT_KV_PAGE - 1) / NT_KV_PAGE * m->n_seq;
    const int32_t n_tok = m->n_seq * b->length, n_out = m->n_seq * (b->length - 1);
    NT_TRY(nt_training_layout(t, mem,
                              &(struct nt_step_limits){.tok = n_tok, .out = n_out, .seq = m->n_seq, .pages = n_page}));
    NT_TRY(nt_kv_pool_take(mem, b->model, n_page, &m->kv));
    m->ids = NT_TAKE(a, int32_t, n_tok);
    m->out_rows = NT_TAKE(a, int32_t, n_out);
    m->targets = NT_TAKE(a, int32_t, n_out);
    m->pages = NT_TAKE(a, int32_t, n_page);
    m->coef = NT_TAKE(a, float, n_out);
    m->logp = NT_TAKE(a, float, n_out);
    m->seqs = NT_TAKE(a, struct nt_attn_seq, m->n_seq);
    return NT_OK;
}

/* The plan is told before memory is taken. */
static nt_status bind_memory(const struct nt_train_bench *b, struct nt_training *t, struct nt_job_memory *mem,
                             struct micro *m) {
    const struct nt_memory_plan plan = {.world = b->world,
                                        .model = b->model,
                                        .memory = mem,
                                        .n_page = (b->length + NT_KV_PAGE - 1) / NT_KV_PAGE * m->n_seq,
                                        .trained = nt_training_state_bytes(t),
                                        .remedy = "train.micro_batch_tokens, or set train.recompute = full"};
    NT_TRY(layout(b, t, mem, m));
    NT_TRY(nt_memory_plan_take(&plan));
    return layout(b, t, mem, m);
}

static void fill(const struct nt_train_bench *b, struct micro *m) {
    const int32_t per_seq = (b->length + NT_KV_PAGE - 1) / NT_KV_PAGE;
    const uint32_t n_vocab = (uint32_t)nt_model_spec(b->model)->n_vocab;
    int32_t n_out = 0;
    for (int32_t p = 0; p < per_seq * m->n_seq; p++) {
        m->pages[p] = p;
        nt_kv_page_zero(b->model, &m->kv, p);
    }
    for (int32_t s = 0; s < m->n_seq; s++) {
        m->seqs[s] = (struct nt_attn_seq){.q_row = s * b->length, .n_q = b->length, .pages = m->pages + s * per_seq};
        for (int32_t i = 0; i < b->length; i++) {
            uint32_t word[4];
            nt_philox(1, (uint64_t)s, (uint64_t)i, word);
            m->ids[s * b->length + i] = (int32_t)(word[0] % n_vocab);
            if (i == 0) continue;
            m->out_rows[n_out] = s * b->length + i - 1;
            m->targets[n_out] = m->ids[s * b->length + i];
            m->coef[n_out++] = -1.0f / (float)(b->rows * (b->length - 1));
        }
    }
}

/* The rows of a step, micro-batch by micro-batch (each has the same tokens), and the update. */
static nt_status step(const struct nt_train_bench *b, struct nt_training *t, struct micro *m, int64_t count,
                      double *loss) {
    static const struct nt_adamw adamw = {.lr = 1e-4, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .max_grad_norm = 1};
    double norm;
    *loss = 0;
    NT_TRY(nt_training_zero_grads(t));
    for (int32_t done = 0; done < b->rows; done += m->n_seq) {
        const int32_t n = b->rows - done < m->n_seq ? b->rows - done : m->n_seq;
        const struct nt_batch batch = {.ids = m->ids,
                                       .seqs = m->seqs,
                                       .out_rows = m->out_rows,
                                       .n_tok = n * b->length,
                                       .n_seq = n,
                                       .n_out = n * (b->length - 1)};
        nt_comm_beat(b->world);
        NT_TRY(nt_training_forward(t, &batch, &m->kv, NULL, 1, NT_FORWARD_TRAIN));
        nt_comm_beat(b->world);
        NT_TRY(nt_training_backward(t, m->targets, m->coef, m->logp));
        for (int32_t i = 0; i < batch.n_out; i++) *loss += (double)m->coef[i] * m->logp[i];
    }
    NT_TRY(nt_training_reduce(t, &norm));
    return nt_training_update(t, &adamw, count, norm);
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static nt_status run(const struct nt_train_bench *b, struct nt_training *t, struct micro *m,
                     struct nt_train_bench_result *out) {
    double *seconds = malloc((size_t)b->reps * sizeof *seconds);
    if (!seconds) return NT_FAIL(NT_E_NOMEM, "no memory for %d figures", b->reps);
    nt_status st = step(b, t, m, 1, &out->loss);
    for (int32_t i = 0; i < b->reps && st == NT_OK; i++) {
        const double peak = nt_train_peak(b->backend) * b->world->tp_size;
        if (peak > out->roof.flops) out->roof.flops = peak;
        const double start = nt_now();
        st = step(b, t, m, i + 2, &out->loss);
        seconds[i] = nt_now() - start;
    }
    if (st == NT_OK) {
        qsort(seconds, (size_t)b->reps, sizeof *seconds, ascending);
        const double n_tok = (double)b->rows * b->length, median = seconds[b->reps / 2];
        const int64_t adapter = b->config.lora.targets ? nt_training_count(t) : 0;
        const double flops = b->rows * nt_train_flops(b->model, adapter, b->length, b->length - 1);
        out->median_ts = n_tok / median;
        out->best_ts = n_tok / seconds[0];
        (void)nt_train_roof_raise(&out->roof, flops / seconds[0], 0);
        out->mfu = nt_train_mfu(&out->roof, flops, median);
        out->resident = nt_memory_resident();
    }
    free(seconds);
    return st;
}

nt_status nt_bench_train(const struct nt_train_bench *b, struct nt_train_bench_result *out) {
    struct nt_training *t = NULL;
    struct nt_job_memory mem;
    struct micro m = {.n_seq = b->micro_tokens / b->length > 0 ? b->micro_tokens / b->length : 1};
    if (m.n_seq > b->rows) m.n_seq = b->rows;
    *out = (struct nt_train_bench_result){0};
    nt_job_memory_init(&mem, b->backend);
    nt_status st = nt_model_connect_copies(b->model);
    if (st == NT_OK) st = nt_training_new(&t, b->model, &b->config);
    if (st == NT_OK) st = bind_memory(b, t, &mem, &m);
    if (st == NT_OK) {
        fill(b, &m);
        st = nt_training_publish(t);
    }
    if (st == NT_OK) st = run(b, t, &m, out);
    if (st == NT_OK || b->world->size == 1) { /* not after one rank's error: as nt_bench_model */
        nt_job_memory_release(&mem);
        nt_training_free(t);
    }
    return st;
}
