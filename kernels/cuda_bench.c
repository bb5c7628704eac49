#include "cuda_bench.h"

#include "cuda_bench_calls.h"
#include "cuda_copy.h"
#include "gemm_cublaslt.h"
#include "log.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_REPLAYS = 32, SAMPLES = 7, COPIES = 8, PRODUCTS = 5, INPUT_BYTES = 4 << 20 };

void nt_cuda_bench_sizes(bool small, struct nt_cuda_bench_sizes *out) {
    *out = small ? (struct nt_cuda_bench_sizes){.n_decode = 2,
                                                .decode = {1, 3},
                                                .context = 70,
                                                .prefill = 12,
                                                .launches = 2,
                                                .replays = 1,
                                                .matrix = 64,
                                                .in_bytes = (size_t)4 << 20,
                                                .out_bytes = (size_t)2 << 20}
                 : (struct nt_cuda_bench_sizes){.n_decode = 3,
                                                .decode = {1, 32, 256},
                                                .context = 1024,
                                                .prefill = 2048,
                                                .launches = 20,
                                                .replays = 9,
                                                .matrix = 8192,
                                                .in_bytes = (size_t)4 << 30,
                                                .out_bytes = (size_t)2 << 30};
}

struct nt_cuda_bench {
    struct nt_backend *be;
    struct nt_cuda_bench_sizes sizes;
    struct nt_cuda_pool in, out;
    struct nt_cuda_call_memory inputs;
    size_t flush_bytes; /* of the out pool, overwritten before each replay */
};

/* ---- memory ---- */

static nt_status open_pool(struct nt_backend *be, struct nt_cuda_pool *pool, size_t bytes) {
    void *p = NULL;
    NT_TRY(be->memory->take(be, bytes, "measurements", &p));
    pool->base = p;
    pool->bytes = bytes;
    return nt_cuda_fill(be, p, bytes, 1);
}

static nt_status open_memory(struct nt_cuda_bench *b) {
    struct nt_backend *be = b->be;
    const size_t room = be->memory->available(be) / 4 * 3, wanted = b->sizes.in_bytes + b->sizes.out_bytes;
    if (wanted > room) { /* both shrink alike */
        b->sizes.in_bytes = room / 3 * 2 / 4096 * 4096;
        b->sizes.out_bytes = room / 3 / 4096 * 4096;
    }
    NT_TRY(open_pool(be, &b->in, b->sizes.in_bytes));
    NT_TRY(open_pool(be, &b->out, b->sizes.out_bytes));
    b->flush_bytes = 2 * be->cuda->facts.l2 < b->out.bytes ? 2 * be->cuda->facts.l2 : b->out.bytes;
    void *p = NULL;
    b->inputs = (struct nt_cuda_call_memory){.host = malloc(INPUT_BYTES), .bytes = INPUT_BYTES};
    if (!b->inputs.host) return NT_FAIL(NT_E_NOMEM, "no memory for the inputs of measurements");
    NT_TRY(be->memory->take(be, INPUT_BYTES, "inputs of measurements", &p));
    b->inputs.device = p;
    return NT_OK;
}

nt_status nt_cuda_bench_open(struct nt_cuda_bench **out, struct nt_backend *be,
                             const struct nt_cuda_bench_sizes *sizes) {
    struct nt_cuda_bench *b = calloc(1, sizeof *b);
    *out = NULL;
    if (!b) return NT_FAIL(NT_E_NOMEM, "no memory for measurements");
    NT_CHECK(sizes->replays <= MAX_REPLAYS);
    *b = (struct nt_cuda_bench){.be = be, .sizes = *sizes};
    be->cuda->one_by_one = true; /* a kernel's time is its own */
    const nt_status st = open_memory(b);
    if (st != NT_OK) {
        nt_cuda_bench_close(b);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    *out = b;
    return NT_OK;
}

void nt_cuda_bench_close(struct nt_cuda_bench *b) {
    if (!b) return;
    const struct nt_memory *m = b->be->memory;
    b->be->cuda->one_by_one = false;
    m->give(b->be, b->inputs.device, INPUT_BYTES);
    m->give(b->be, b->out.base, b->out.bytes);
    m->give(b->be, b->in.base, b->in.bytes);
    free(b->inputs.host);
    free(b);
}

/* ---- time ---- */

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n) {
    qsort(values, (size_t)n, sizeof *values, ascending);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static nt_status launch_graph(struct nt_backend *be, void *graph) {
    return nt_cuda_graph_launch(be, graph);
}

/* L2 is filled with something else first; only the replay is timed. */
static nt_status replay(struct nt_cuda_bench *b, struct nt_cuda_graph *graph, double *seconds) {
    NT_TRY(b->be->memory->zero(b->be, b->out.base, b->flush_bytes));
    return nt_cuda_time(b->be, launch_graph, graph, 1, seconds);
}

/* A call as a graph. The call runs once before, so that nothing is loaded while it is recorded. */
static nt_status record(struct nt_cuda_bench *b, nt_cuda_call_fn *run, struct nt_cuda_call *c,
                        struct nt_cuda_graph **out) {
    NT_TRY(run(c));
    NT_TRY(b->be->memory->wait(b->be));
    NT_TRY(nt_cuda_capture_begin(b->be));
    nt_status st = NT_OK;
    for (int32_t i = 0; i < b->sizes.launches && st == NT_OK; i++) st = run(c);
    return nt_cuda_capture_end(b->be, st, out);
}

/* One or two graphs in turn; a NULL one gets 0. */
static nt_status time_graphs(struct nt_cuda_bench *b, struct nt_cuda_graph *const graphs[2], double seconds[2]) {
    double times[2][MAX_REPLAYS];
    const int n = b->sizes.replays;
    for (int i = -1; i < n; i++) {
        for (int g = 0; g < 2; g++) {
            double s = 0;
            if (graphs[g]) NT_TRY(replay(b, graphs[g], &s));
            if (i >= 0) times[g][i] = s;
        }
    }
    for (int g = 0; g < 2; g++) seconds[g] = graphs[g] ? median(times[g], n) / b->sizes.launches : 0;
    return NT_OK;
}

/* cuBLASLt on or off the op's way. */
static void use_blaslt(struct nt_backend *be, bool on) {
    if (nt_cublaslt_enable(be, on ? 1 : INT32_MAX) != NT_OK) nt_error_clear();
}

static bool has_blaslt(const struct nt_cuda_bench *b) {
    return b->be->cuda->blas != NULL;
}

/* Ours, and cuBLASLt's where there is one that takes it. */
static nt_status time_call(struct nt_cuda_bench *b, const struct nt_cuda_call_row *row, struct nt_cuda_call *c,
                           double seconds[2]) {
    struct nt_cuda_graph *graphs[2] = {NULL, NULL};
    if (has_blaslt(b)) use_blaslt(b->be, false);
    nt_status st = record(b, row->run, c, &graphs[0]);
    if (st == NT_OK && row->product && has_blaslt(b)) {
        use_blaslt(b->be, true);
        c->by_blaslt = true;
        st = record(b, row->run, c, &graphs[1]);
        c->by_blaslt = false;
        use_blaslt(b->be, false);
        if (st == NT_E_UNSUPPORTED) { /* no comparison */
            nt_error_clear();
            st = NT_OK;
        }
    }
    if (st == NT_OK) st = time_graphs(b, graphs, seconds);
    for (int g = 0; g < 2; g++) nt_cuda_graph_free(b->be, graphs[g]);
    return st;
}

/* ---- ceilings ---- */

struct copy {
    void *to;
    const void *from;
    size_t bytes;
};

static nt_status run_copy(struct nt_backend *be, void *ctx) {
    const struct copy *c = ctx;
    return nt_cuda_copy(be, c->to, c->from, c->bytes);
}

static nt_status run_product(struct nt_backend *be, void *ctx) {
    return be->ops.gemm(be, ctx);
}

static nt_status measure(struct nt_backend *be, nt_cuda_run_fn *run, void *ctx, int32_t n, int samples, double *out) {
    double times[SAMPLES];
    for (int i = -1; i < samples; i++) {
        double s = 0;
        NT_TRY(nt_cuda_time(be, run, ctx, i < 0 ? 1 : n, &s));
        if (i >= 0) times[i] = s / n;
    }
    *out = median(times, samples);
    return NT_OK;
}

static nt_status measure_matrix(struct nt_cuda_bench *b, struct nt_cuda_ceilings *out) {
    const int32_t n = b->sizes.matrix;
    const size_t bytes = (size_t)n * (size_t)n * sizeof(nt_bf16);
    if (2 * bytes > b->in.bytes || bytes > b->out.bytes) return NT_OK;
    const struct nt_packed w = {.format = NT_WEIGHT_BF16_ROWS, .n = n, .k = n, .data = b->in.base + bytes};
    struct nt_gemm_args a = {.x = (const nt_bf16 *)(void *)b->in.base,
                             .ldx = n,
                             .w = &w,
                             .y = b->out.base,
                             .ldy = n,
                             .n_tok = n,
                             .out = NT_GEMM_STORE_BF16};
    const double flops = nt_op_cost_gemm(&a).flops;
    const int samples = b->sizes.replays < SAMPLES ? b->sizes.replays : SAMPLES;
    double seconds = 0;
    out->matrix = n;
    NT_TRY(measure(b->be, run_product, &a, PRODUCTS, samples, &seconds));
    out->own_flop_s = flops / seconds;
    if (has_blaslt(b)) {
        use_blaslt(b->be, true);
        const nt_status st = measure(b->be, run_product, &a, PRODUCTS, samples, &seconds);
        use_blaslt(b->be, false);
        NT_TRY(st);
        out->blaslt_flop_s = flops / seconds;
    }
    out->matrix_flop_s = out->own_flop_s > out->blaslt_flop_s ? out->own_flop_s : out->blaslt_flop_s;
    return NT_OK;
}

nt_status nt_cuda_bench_ceilings(struct nt_cuda_bench *b, struct nt_cuda_ceilings *out) {
    *out = (struct nt_cuda_ceilings){.copy_bytes = b->in.bytes < b->out.bytes ? b->in.bytes : b->out.bytes};
    if (nt_cublaslt_enable(b->be, INT32_MAX) != NT_OK) {
        memcpy(out->no_blaslt, nt_error_last()->text, sizeof out->no_blaslt);
        nt_error_clear();
    }
    struct copy c = {.to = b->out.base, .from = b->in.base, .bytes = out->copy_bytes};
    double seconds = 0;
    const int samples = b->sizes.replays < SAMPLES ? b->sizes.replays : SAMPLES;
    NT_TRY(measure(b->be, run_copy, &c, COPIES, samples, &seconds));
    out->copy_bytes_s = 2 * (double)c.bytes / seconds;
    if (!b->sizes.skip[NT_OP_gemm]) NT_TRY(measure_matrix(b, out));
    /* The product left large values where outputs lie. */
    return nt_cuda_fill(b->be, b->out.base, b->out.bytes, 1);
}

nt_status nt_cuda_matrix_rate(struct nt_backend *be, double *flop_s) {
    enum { MATRIX = 4096 };
    const bool small = be->cuda->facts.emulated;
    struct nt_cuda_bench_sizes sizes;
    struct nt_cuda_ceilings found = {0};
    struct nt_cuda_bench *b;
    nt_cuda_bench_sizes(small, &sizes);
    if (!small) sizes.matrix = MATRIX;
    sizes.out_bytes = (size_t)sizes.matrix * (size_t)sizes.matrix * sizeof(nt_bf16);
    sizes.in_bytes = 2 * sizes.out_bytes;
    *flop_s = 0;
    NT_TRY(nt_cuda_bench_open(&b, be, &sizes));
    const nt_status st = measure_matrix(b, &found);
    *flop_s = found.own_flop_s;
    nt_cuda_bench_close(b);
    return st;
}

/* ---- ops ---- */

double nt_cuda_timing_ideal(const struct nt_cuda_timing *t, const struct nt_cuda_ceilings *c) {
    const double bytes = c->copy_bytes_s > 0 ? (t->cost.read_bytes + t->cost.write_bytes) / c->copy_bytes_s : 0;
    const bool matrix = nt_op_kind(t->op) != NT_OP_KIND_PASS && c->matrix_flop_s > 0;
    const double flops = matrix ? t->cost.flops / c->matrix_flop_s : 0;
    return flops > bytes ? flops : bytes;
}

static nt_status time_row(struct nt_cuda_bench *b, const struct nt_cuda_call_row *row, struct nt_cuda_call *c,
                          struct nt_cuda_timing *out) {
    c->counting = true;
    c->too_large = false;
    c->n = c->k = 0;
    NT_TRY(row->run(c));
    c->counting = false;
    out->cost = c->cost;
    out->n = c->n;
    out->k = c->k;
    if (c->too_large) {
        (void)snprintf(out->skipped, sizeof out->skipped, "its operands exceed the pools of %.1f and %.1f GB",
                       (double)b->in.bytes / 1e9, (double)b->out.bytes / 1e9);
        return NT_OK;
    }
    double seconds[2] = {0, 0};
    NT_TRY(time_call(b, row, c, seconds));
    out->seconds = seconds[0];
    out->blaslt_seconds = seconds[1];
    return NT_OK;
}

static nt_status time_rows(struct nt_cuda_bench *b, struct nt_cuda_call *c, bool prefill, int32_t n_tok,
                           struct nt_cuda_timings *out) {
    int32_t n = 0;
    const struct nt_cuda_call_row *rows = nt_cuda_call_rows(&n);
    NT_TRY(nt_cuda_calls_begin(c, &b->inputs, n_tok, prefill, b->sizes.context));
    for (int32_t i = 0; i < n; i++) {
        if (rows[i].when == (prefill ? NT_CALL_DECODE : NT_CALL_PROMPT) || b->sizes.skip[rows[i].op]) continue;
        NT_CHECK(out->n < NT_CUDA_TIMINGS_MAX);
        struct nt_cuda_timing *t = &out->row[out->n];
        *t = (struct nt_cuda_timing){.model = c->dims->name, .op = rows[i].op, .n_tok = n_tok, .prefill = prefill};
        (void)snprintf(t->what, sizeof t->what, "%s", rows[i].what);
        const nt_status st = time_row(b, &rows[i], c, t);
        if (st != NT_OK) {
            struct nt_error cause;
            nt_error_take(&cause);
            return NT_FAIL(st, "%s in the shape of %s, %d rows: %.600s; for the rest: --skip %s", t->what, t->model,
                           n_tok, cause.text, nt_op_name(t->op));
        }
        out->n++;
    }
    return NT_OK;
}

nt_status nt_cuda_bench_ops(struct nt_cuda_bench *b, const struct nt_cuda_dims *dims, struct nt_cuda_timings *out) {
    struct nt_cuda_call c = {.be = b->be, .dims = dims, .in = &b->in, .out = &b->out};
    for (int32_t i = 0; i < b->sizes.n_decode; i++) {
        nt_info("doctor", "kernels of %s, %d rows decoded", dims->name, b->sizes.decode[i]);
        NT_TRY(time_rows(b, &c, false, b->sizes.decode[i], out));
    }
    nt_info("doctor", "kernels of %s, a prompt of %d tokens", dims->name, b->sizes.prefill);
    return time_rows(b, &c, true, b->sizes.prefill, out);
}
