/* nocturne bench: llama-bench's columns for prefill and decode, batched decode, and the gemm op against the machine's
 * peak. */
#include "bench.h"
#include "bench_train.h"
#include "cmd.h"
#include "gemm_bench.h"
#include "log.h"
#include "peak.h"
#include "tensor_source.h"
#include "watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BATCHES = 16, STEP_TOKENS = 512 };

/* ---- tables in four formats ---- */

struct column {
    const char *name;
    bool md;   /* shown in the Markdown table */
    bool text; /* quoted in JSON */
};

struct table {
    const struct column *columns;
    int n_columns, n_rows;
    const char *format;
    bool silent; /* not rank 0 */
};

static bool is_format(const struct table *t, const char *name) {
    return strcmp(t->format, name) == 0;
}

static void add_cell(const struct table *t, int i, const char *value, struct nt_strbuf *out) {
    const struct column *c = &t->columns[i];
    if (is_format(t, "md")) {
        if (c->md) nt_strbuf_addf(out, " %s |", value);
    } else if (is_format(t, "csv")) {
        nt_strbuf_addf(out, "%s\"%s\"", i ? "," : "", value);
    } else {
        nt_strbuf_addf(out, "%s\"%s\": ", i ? ", " : "", c->name);
        if (c->text)
            nt_strbuf_add_json(out, value, strlen(value));
        else
            nt_strbuf_adds(out, *value ? value : "null");
    }
}

static void begin_table(struct table *t) {
    if (t->silent) return;
    if (is_format(t, "json")) printf("[\n");
    if (is_format(t, "csv"))
        for (int i = 0; i < t->n_columns; i++)
            printf("%s%s%s", i ? "," : "", t->columns[i].name, i + 1 == t->n_columns ? "\n" : "");
    if (!is_format(t, "md")) return;
    printf("|");
    for (int i = 0; i < t->n_columns; i++)
        if (t->columns[i].md) printf(" %s |", t->columns[i].name);
    printf("\n|");
    for (int i = 0; i < t->n_columns; i++)
        if (t->columns[i].md) printf(t->columns[i].text ? " --- |" : " ---: |");
    printf("\n");
}

static void print_row(struct table *t, const char *const *values) {
    if (t->silent) return;
    struct nt_strbuf s = NT_STRBUF_INIT;
    const bool object = is_format(t, "json") || is_format(t, "jsonl");
    if (is_format(t, "md")) nt_strbuf_addc(&s, '|');
    if (object) nt_strbuf_adds(&s, is_format(t, "json") && t->n_rows ? ",\n  {" : is_format(t, "json") ? "  {" : "{");
    for (int i = 0; i < t->n_columns; i++) add_cell(t, i, values[i], &s);
    nt_strbuf_adds(&s, object ? "}" : "");
    if (!is_format(t, "json")) nt_strbuf_addc(&s, '\n');
    fputs(nt_strbuf_cstr(&s), stdout);
    fflush(stdout);
    nt_strbuf_release(&s);
    t->n_rows++;
}

static void end_table(const struct table *t) {
    if (t->silent) return;
    if (is_format(t, "json")) printf("\n]\n");
}

/* ---- bench gemm ---- */

static const struct column gemm_columns[] = {
    {"product",         true, true },
    {"n_tok",           true, false},
    {"n",               true, false},
    {"k",               true, false},
    {"threads",         true, false},
    {"us",              true, false},
    {"gflops",          true, false},
    {"gb_s",            true, false},
    {"percent_of_peak", true, false}
};

static void gemm_row(void *arg, const struct nt_gemm_bench_row *r) {
    static const char *const products[] = {"forward", "dgrad", "wgrad"};
    char cells[8][32];
    const char *values[9] = {products[r->product]};
    snprintf(cells[0], sizeof cells[0], "%d", r->n_tok);
    snprintf(cells[1], sizeof cells[1], "%d", r->n);
    snprintf(cells[2], sizeof cells[2], "%d", r->k);
    snprintf(cells[3], sizeof cells[3], "%d", r->n_threads);
    snprintf(cells[4], sizeof cells[4], "%.1f", r->us);
    snprintf(cells[5], sizeof cells[5], "%.1f", r->gflops);
    snprintf(cells[6], sizeof cells[6], "%.1f", r->gb_s);
    snprintf(cells[7], sizeof cells[7], "%.1f", 100 * r->peak);
    for (int i = 0; i < 8; i++) values[i + 1] = cells[i];
    print_row(arg, values);
}

/* The shapes on a pool of n_threads (0: as configured) against the peak of as many cores. */
static nt_status gemm_pass(struct nt_cmd_context *ctx, int n_threads, struct table *t) {
    struct nt_pool *pool = NULL;
    struct nt_backend be;
    struct nt_peaks peaks;
    struct nt_config c = *ctx->config; /* strings stay the original's */
    if (n_threads > 0) c.run_threads = n_threads;
    NT_TRY(nt_backend_from_config(&c, ctx->world, NT_DEVICE_CPU, &pool, &be));
    nt_status st = nt_peak_measure(pool, be.isa, &peaks);
    if (st == NT_OK) {
        fprintf(stderr, "measured peak, isa %s, %d threads: bf16 %.1f GFLOP/s, read %.1f GB/s\n", nt_isa_name(be.isa),
                peaks.n_threads, peaks.gflops[NT_PEAK_BF16][1], peaks.read_gb_s[1]);
        st = nt_gemm_bench(&be, 0, 0, 0, gemm_row, t);
    }
    nt_backend_close(&be);
    nt_pool_free(pool);
    return st;
}

static nt_status bench_gemm(struct nt_cmd_context *ctx) {
    if (strcmp(ctx->config->run_device, "cuda") == 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "bench gemm measures the CPU; products of a GPU: nocturne doctor --gpu");
    if (ctx->world->rank != 0) return NT_OK;
    struct table t = {gemm_columns, (int)(sizeof gemm_columns / sizeof *gemm_columns), 0, ctx->config->bench_format,
                      false};
    begin_table(&t);
    nt_status st = gemm_pass(ctx, 1, &t);
    if (st == NT_OK && ctx->config->run_threads != 1) st = gemm_pass(ctx, 0, &t);
    end_table(&t);
    return st;
}

/* ---- bench of a model ---- */

static const struct column model_columns[] = {
    {"build_commit",   false, true },
    {"cpu_info",       false, true },
    {"model",          true,  true },
    {"size",           true,  true },
    {"params",         true,  true },
    {"backend",        true,  true },
    {"threads",        true,  false},
    {"test",           true,  true },
    {"t/s",            true,  true },
    {"model_filename", false, true },
    {"model_size",     false, false},
    {"model_n_params", false, false},
    {"n_batch",        false, false},
    {"n_seq",          false, false},
    {"n_prompt",       false, false},
    {"n_gen",          false, false},
    {"avg_ns",         false, false},
    {"stddev_ns",      false, false},
    {"avg_ts",         false, false},
    {"stddev_ts",      false, false},
};
enum { N_MODEL_COLUMNS = sizeof model_columns / sizeof *model_columns };

static int64_t parameter_count(const struct nt_spec *s) {
    const int64_t d = s->d_model, q = (int64_t)s->n_head * s->d_head, kv = (int64_t)s->n_kv * s->d_head;
    const int64_t layer = d * (2 * q + 2 * kv) + 3 * d * s->d_ff + 2 * d;
    return s->n_layer * layer + (s->tied ? 1 : 2) * (int64_t)s->n_vocab * d + d;
}

/* As llama-bench: "pp512", "tg128", "tg64 @ d128"; several sequences: "tg64 x 8 @ d128". */
static void test_name(const struct nt_bench_test *test, char *buf, size_t cap) {
    char many[32] = "", depth[32] = "";
    if (test->n_seq > 1) snprintf(many, sizeof many, " x %d", test->n_seq);
    if (!test->timed_prompt && test->n_prompt > 0) snprintf(depth, sizeof depth, " @ d%d", test->n_prompt);
    snprintf(buf, cap, "%s%d%s%s", test->timed_prompt ? "pp" : "tg", test->timed_prompt ? test->n_prompt : test->n_gen,
             many, depth);
}

static void model_row(struct table *t, const struct nt_session *s, const struct nt_bench_test *test,
                      const struct nt_bench_result *r) {
    const struct nt_spec *spec = nt_model_spec(s->model);
    const int64_t params = parameter_count(spec);
    const size_t bytes = nt_model_weight_bytes(s->model);
    char c[N_MODEL_COLUMNS][256];
    const char *values[N_MODEL_COLUMNS];
    int i = 0;
    snprintf(c[i++], 256, "%s", NT_COMMIT);
    nt_cpu_describe(c[i], 256);
    if (strchr(c[i], '\n')) *strchr(c[i], '\n') = 0;
    i++;
    snprintf(c[i++], 256, "%s %dL %s", spec->family, spec->n_layer, nt_weight_format_name(s->backend.block_format));
    snprintf(c[i++], 256, "%.2f MiB", (double)bytes / 1048576.0);
    snprintf(c[i++], 256, "%.2f M", (double)params / 1e6);
    snprintf(c[i++], 256, "%s %s", s->backend.cuda ? "CUDA" : "CPU", s->backend.level);
    snprintf(c[i++], 256, "%d", nt_pool_size(s->pool));
    test_name(test, c[i++], 256);
    snprintf(c[i++], 256, "%.2f \u00b1 %.2f", r->avg_ts, r->stddev_ts);
    snprintf(c[i++], 256, "%.200s", s->config->model_path);
    snprintf(c[i++], 256, "%zu", bytes);
    snprintf(c[i++], 256, "%lld", (long long)params);
    snprintf(c[i++], 256, "%d", STEP_TOKENS);
    snprintf(c[i++], 256, "%d", test->n_seq);
    snprintf(c[i++], 256, "%d", test->n_prompt);
    snprintf(c[i++], 256, "%d", test->n_gen);
    snprintf(c[i++], 256, "%.0f", r->avg_ns);
    snprintf(c[i++], 256, "%.0f", r->stddev_ns);
    snprintf(c[i++], 256, "%.6f", r->avg_ts);
    snprintf(c[i++], 256, "%.6f", r->stddev_ts);
    for (int k = 0; k < N_MODEL_COLUMNS; k++) values[k] = c[k];
    print_row(t, values);
}

static nt_status run_test(struct table *t, struct nt_session *s, struct nt_bench_test test) {
    struct nt_bench_result r;
    NT_TRY(nt_bench_model(s, &test, STEP_TOKENS, (int32_t)s->config->bench_reps, &r));
    model_row(t, s, &test, &r);
    return NT_OK;
}

/* "1,8,32,64" */
static nt_status parse_batches(const char *text, int32_t *out, int *n) {
    *n = 0;
    for (const char *at = text; *at;) {
        char *end;
        const long v = strtol(at, &end, 10);
        if (end == at || v < 1 || v > 65536 || *n == MAX_BATCHES || (*end && *end != ','))
            return NT_FAIL(NT_E_USAGE, "bench.batch: \"%s\" is not a list of at most %d batch sizes from 1 to 65536",
                           text, MAX_BATCHES);
        out[(*n)++] = (int32_t)v;
        at = *end ? end + 1 : end;
    }
    return NT_OK;
}

static nt_status all_tests(struct table *t, struct nt_session *s) {
    const struct nt_config *c = s->config;
    int32_t batches[MAX_BATCHES];
    int n;
    NT_TRY(parse_batches(c->bench_batch, batches, &n));
    if (c->bench_n_prompt > 0)
        NT_TRY(run_test(
            t, s, (struct nt_bench_test){.n_seq = 1, .n_prompt = (int32_t)c->bench_n_prompt, .timed_prompt = true}));
    if (c->bench_n_gen > 0)
        NT_TRY(run_test(t, s, (struct nt_bench_test){.n_seq = 1, .n_gen = (int32_t)c->bench_n_gen}));
    for (int i = 0; i < n && c->bench_batch_gen > 0; i++)
        NT_TRY(run_test(t, s,
                        (struct nt_bench_test){.n_seq = batches[i],
                                               .n_prompt = (int32_t)c->bench_batch_prompt,
                                               .n_gen = (int32_t)c->bench_batch_gen}));
    return NT_OK;
}

static nt_status bench_model(struct nt_cmd_context *ctx, struct nt_watchdog *watchdog) {
    struct nt_session s;
    NT_TRY(nt_session_open(&s, ctx->world, ctx->config));
    nt_watchdog_beat(watchdog, "measuring");
    struct table t = {model_columns, N_MODEL_COLUMNS, 0, ctx->config->bench_format, ctx->world->rank != 0};
    begin_table(&t);
    const nt_status st = all_tests(&t, &s);
    end_table(&t);
    nt_watchdog_beat(watchdog, "closing");
    if (st == NT_OK || ctx->world->size == 1) nt_session_close(&s); /* collective: not after one rank's error */
    return st;
}

/* ---- bench train ---- */

static const struct column train_columns[] = {
    {"model",       true, true },
    {"backend",     true, true },
    {"threads",     true, false},
    {"trained",     true, true },
    {"recompute",   true, true },
    {"rows",        true, false},
    {"length",      true, false},
    {"median_ts",   true, false},
    {"best_ts",     true, false},
    {"mfu_percent", true, false},
    {"peak_gflops", true, false},
    {"peak_source", true, true },
    {"memory_gb",   true, false},
    {"loss",        true, false},
};
enum { N_TRAIN_COLUMNS = sizeof train_columns / sizeof *train_columns };

static void train_row(struct table *t, const struct nt_session *s, const struct nt_train_bench *b,
                      const struct nt_train_bench_result *r) {
    char c[N_TRAIN_COLUMNS][64];
    const char *values[N_TRAIN_COLUMNS];
    const struct nt_lora_shape *lora = &b->config.lora;
    int i = 0;
    snprintf(c[i++], 64, "%s %dL", nt_model_spec(s->model)->family, nt_model_spec(s->model)->n_layer);
    snprintf(c[i++], 64, "%s %s", s->backend.cuda ? "CUDA" : "CPU", s->backend.level);
    snprintf(c[i++], 64, "%d", nt_pool_size(s->pool));
    if (lora->targets)
        snprintf(c[i++], 64, "LoRA r=%d", lora->r);
    else
        snprintf(c[i++], 64, "all weights");
    snprintf(c[i++], 64, "%s", s->config->train_recompute);
    snprintf(c[i++], 64, "%d", b->rows);
    snprintf(c[i++], 64, "%d", b->length);
    snprintf(c[i++], 64, "%.1f", r->median_ts);
    snprintf(c[i++], 64, "%.1f", r->best_ts);
    const bool measured = r->roof.flops > 0; // an emulated driver has no peak
    c[i][0] = c[i + 1][0] = '\0';
    if (measured) snprintf(c[i], 64, "%.1f", 100 * r->mfu);
    if (measured) snprintf(c[i + 1], 64, "%.0f", r->roof.flops / 1e9);
    i += 2;
    snprintf(c[i++], 64, "%s", nt_train_roof_source(&r->roof));
    snprintf(c[i++], 64, "%.2f", (double)r->resident / 1e9);
    snprintf(c[i++], 64, "%.3f", r->loss);
    for (int k = 0; k < N_TRAIN_COLUMNS; k++) values[k] = c[k];
    print_row(t, values);
}

/* What a job would train on does not count here: whoever gives it expects something of it. */
static void warn_of_unused(const struct nt_config *c, int rank) {
    const bool unused = c->train_batch_size != 16 || c->train_max_length != 1024 || strcmp(c->train_loss, "sft") != 0 ||
                        *c->train_input;
    if (unused && rank == 0)
        nt_warn("bench",
                "bench train measures sft on random tokens, %lld sequences of %lld (bench.train_rows, "
                "bench.train_length); train.input, batch_size, max_length and loss do not count",
                (long long)c->bench_train_rows, (long long)c->bench_train_length);
}

static nt_status bench_train(struct nt_cmd_context *ctx, struct nt_watchdog *watchdog) {
    const struct nt_config *c = ctx->config;
    struct nt_session s;
    struct nt_train_bench_result r;
    warn_of_unused(c, ctx->world->rank);
    NT_TRY(nt_session_open(&s, ctx->world, c));
    nt_watchdog_beat(watchdog, "measuring");
    struct nt_train_bench b = {
        .model = s.model,
        .backend = &s.backend,
        .world = ctx->world,
        .rows = (int32_t)c->bench_train_rows,
        .length = (int32_t)c->bench_train_length,
        .micro_tokens = (int32_t)c->train_micro_batch_tokens,
        .reps = (int32_t)c->bench_reps,
        .config = {.recompute = nt_recompute_of(c->train_recompute), .chunk = (int32_t)c->train_logit_rows}
    };
    if (b.micro_tokens == 0) b.micro_tokens = b.rows * b.length;
    nt_status st = NT_OK;
    if (strcmp(c->train_method, "lora") == 0) {
        b.config.lora.r = (int32_t)c->train_lora_r;
        b.config.lora.scale = (float)(c->train_lora_alpha / (double)c->train_lora_r);
        st = nt_adapter_targets(c->train_target_modules, &b.config.lora.targets);
    }
    if (st == NT_OK) st = nt_bench_train(&b, &r);
    if (st == NT_OK) {
        struct table t = {train_columns, N_TRAIN_COLUMNS, 0, c->bench_format, ctx->world->rank != 0};
        begin_table(&t);
        train_row(&t, &s, &b, &r);
        end_table(&t);
    }
    nt_watchdog_beat(watchdog, "closing");
    if (st == NT_OK || ctx->world->size == 1) nt_session_close(&s); /* collective: not after one rank's error */
    return st;
}

/* Of a model, whose ranks wait for each other. */
static nt_status watched(struct nt_cmd_context *ctx,
                         nt_status (*bench)(struct nt_cmd_context *, struct nt_watchdog *)) {
    struct nt_watch watch;
    NT_TRY(nt_watch_open(&watch, ctx->world, "", ctx->config->run_watchdog_s));
    const nt_status st = bench(ctx, watch.dog);
    nt_watch_close(&watch);
    return st;
}

nt_status nt_cmd_bench(struct nt_cmd_context *ctx) {
    if (ctx->n_args == 0) return watched(ctx, bench_model);
    if (strcmp(ctx->args[0], "gemm") == 0) return bench_gemm(ctx);
    if (strcmp(ctx->args[0], "train") == 0) return watched(ctx, bench_train);
    return NT_FAIL(NT_E_USAGE, "bench: unknown bench \"%s\"; there are gemm and train, or none for a model",
                   ctx->args[0]);
}
