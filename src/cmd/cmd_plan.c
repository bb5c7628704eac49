/* nocturne plan: what a generate job would reach on GPUs that need not be there, from a ledger of the real forward. */
#include "cmd.h"
#include "model.h"
#include "plan.h"
#include "shard.h"
#include "spec_shape.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TP_TRIED = 8, MAX_OPTIONS = 32 };
/* A smaller format or more GPUs per copy must pay: quality and latency are not for nothing. */
static const double worth = 1.02;

struct option {
    const struct nt_plan_precision *precision;
    int32_t tp;
    struct nt_plan plan;
};

struct report {
    const struct nt_config *config;
    struct nt_spec spec;
    const struct nt_gpu *gpu;
    int32_t n, best; /* best: -1 when nothing fits */
    struct option option[MAX_OPTIONS];
};

/* ---- what is asked for ---- */

static nt_status find_gpu(const char *name, const struct nt_gpu **gpu) {
    *gpu = nt_gpu_find(name);
    if (*gpu) return NT_OK;
    int32_t n;
    const struct nt_gpu *table = nt_gpu_table(&n);
    const char *names[32];
    struct nt_strbuf list = NT_STRBUF_INIT;
    for (int32_t i = 0; i < n; i++) {
        names[i] = table[i].name;
        nt_strbuf_addf(&list, "%s%s", i ? ", " : "", names[i]);
    }
    const char *near = nt_nearest(name, names, n);
    const nt_status st = NT_FAIL(NT_E_USAGE, "plan: unknown GPU \"%s\"%s%s%s; expected one of %s", name,
                                 near ? " (maybe: " : "", near ? near : "", near ? "?)" : "", nt_strbuf_cstr(&list));
    nt_strbuf_release(&list);
    return st;
}

static struct nt_plan_job job_of(const struct report *r, const struct option *o) {
    const struct nt_config *c = r->config;
    return (struct nt_plan_job){.spec = &r->spec,
                                .gpu = r->gpu,
                                .precision = o->precision,
                                .tp = o->tp,
                                .in = (int32_t)c->plan_in,
                                .out = (int32_t)c->plan_out,
                                .seqs = (int32_t)c->plan_seqs,
                                .wire_bytes = strcmp(c->plan_wire, "bf16") == 0 ? 2 : 4};
}

/* A tp that does not divide the model is left out where many are tried. */
static bool can_divide(const struct report *r, int32_t tp) {
    const struct nt_spec *s = &r->spec;
    return tp <= nt_shard_most(s) && (tp <= s->n_kv || tp % s->n_kv == 0);
}

static nt_status try_option(struct report *r, const struct nt_plan_precision *precision, int32_t tp) {
    struct option *o = &r->option[r->n];
    *o = (struct option){.precision = precision, .tp = tp};
    const struct nt_plan_job job = job_of(r, o);
    NT_TRY(nt_plan_make(&job, &o->plan));
    const bool better = o->plan.fits && (r->best < 0 || o->plan.practical > worth * r->option[r->best].plan.practical);
    if (better) r->best = r->n;
    r->n++;
    return NT_OK;
}

static nt_status try_all(struct report *r) {
    const struct nt_config *c = r->config;
    const bool all = strcmp(c->plan_precision, "auto") == 0;
    int32_t n;
    const struct nt_plan_precision *rows = nt_plan_precisions(&n);
    r->best = -1;
    for (int32_t i = 0; i < n; i++) {
        const bool takes = nt_model_takes(&r->spec, rows[i].blocks);
        if (all ? !takes : strcmp(c->plan_precision, rows[i].name) != 0) continue;
        if (!takes)
            return NT_FAIL(NT_E_UNSUPPORTED, "plan: heads of %d values; int4 weights need a multiple of 16",
                           r->spec.d_head);
        if (c->plan_tp > 0) NT_TRY(try_option(r, &rows[i], (int32_t)c->plan_tp));
        for (int32_t tp = 1; c->plan_tp == 0 && tp <= MAX_TP_TRIED; tp *= 2)
            if (can_divide(r, tp)) NT_TRY(try_option(r, &rows[i], tp));
    }
    return NT_OK;
}

/* ---- Markdown ---- */

static double gemm_s(const struct nt_plan_step *s) {
    return s->row[NT_OP_gemm].ideal_s;
}

static double percent(double part, double whole) {
    return whole > 0 ? 100 * part / whole : 0;
}

/* Decimals that a rate is worth. */
static int places(double rate) {
    return rate >= 100 ? 0 : rate >= 1 ? 1 : 4;
}

static void print_head(const struct report *r) {
    const struct nt_spec *s = &r->spec;
    const struct nt_gpu *g = r->gpu;
    const struct nt_config *c = r->config;
    printf("model     %s: %s, %d layers, d_model %d, d_ff %d, %d heads, %d kv of %d, vocabulary %d\n", c->model_path,
           s->family, s->n_layer, s->d_model, s->d_ff, s->n_head, s->n_kv, s->d_head, s->n_vocab);
    printf("gpu       %s: %.0f TFLOP/s bf16, %.2f TB/s, %.0f GB, link %.0f GB/s; practical x %.2f, %.2f, %.2f\n",
           g->doc, g->flops / 1e12, g->bandwidth / 1e12, g->memory / 1e9, g->link / 1e9, g->compute_factor,
           g->memory_factor, g->link_factor);
    printf("workload  %lld tokens in, %lld out, endless rows\n\n", (long long)c->plan_in, (long long)c->plan_out);
}

static void print_options(const struct report *r) {
    printf("Answer tokens per second and GPU; seconds of an ideal step in per cent.\n\n");
    printf("|   | precision | tp | weights GB | cache GB | seqs | ideal | overlapped | practical | gemm | attention "
           "prefill | decode | allreduce | launches |\n");
    printf("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for (int32_t i = 0; i < r->n; i++) {
        const struct option *o = &r->option[i];
        const struct nt_plan *p = &o->plan;
        const struct nt_plan_step *s = &p->mixed;
        printf("| %s | %s | %d | %.1f | %.1f |", i == r->best ? "best" : "", o->precision->name, o->tp,
               p->weight_bytes / 1e9, p->kv_bytes / 1e9);
        if (!p->fits) {
            printf(" does not fit | | | | | | | | |\n");
            continue;
        }
        printf(" %.0f | %.*f | %.*f | %.*f | %.0f | %.0f | %.0f | %.0f | %lld |\n", p->seqs, places(p->ideal), p->ideal,
               places(p->overlapped), p->overlapped, places(p->practical), p->practical, percent(gemm_s(s), s->ideal_s),
               percent(s->row[NT_PLAN_PREFILL_ATTENTION].ideal_s, s->ideal_s),
               percent(s->row[NT_PLAN_DECODE_ATTENTION].ideal_s, s->ideal_s),
               percent(s->row[NT_PLAN_ALLREDUCE].ideal_s, s->ideal_s), (long long)p->decode.total.launches);
    }
}

static void print_memory(const struct report *r, const struct option *o) {
    const struct nt_plan *p = &o->plan;
    const double reserve = r->gpu->memory - p->weight_bytes - p->kv_bytes;
    printf(
        "memory    weights %.2f GB, cache %.2f GB, left for activations and the system %.2f GB (activations %.2f) of "
        "%.0f GB\n",
        p->weight_bytes / 1e9, p->kv_bytes / 1e9, reserve / 1e9, p->activation_bytes / 1e9, r->gpu->memory / 1e9);
    printf("cache     %.1f KiB per position; %.0f sequences of mean length fill it; %d when each reserves its whole\n"
           "          prompt and answer, as generate does: KV occupancy %.0f %%\n",
           p->position_bytes / 1024, p->cached_seqs, p->admitted, 100 * p->kv_occupied);
    if (floor(p->seqs) < floor(p->cached_seqs))
        printf("          %.0f are decoded together, as many as %s\n", p->seqs,
               r->config->plan_seqs > 0 ? "--seqs says" : "have room for their activations");
}

/* What generate has to be told to decode as many rows, and no longer steps than were counted. */
static void print_settings(const struct report *r, const struct option *o) {
    const struct nt_plan_precision *precision = o->precision;
    const double rows = fmax(1, floor(fmin(o->plan.seqs, o->plan.admitted)));
    const double all = rows * (1 + (double)r->config->plan_in / (double)r->config->plan_out);
    const double tokens = fmin(ceil(all), o->plan.mixed.n_decode + o->plan.mixed.n_prefill);
    printf("settings  generate --device cuda --tp %d", o->tp);
    if (nt_weight_is_quantized(precision->blocks))
        printf(" --weight-dtype %s", nt_weight_format_name(precision->blocks));
    if (precision->kv == NT_KV_ROWS_INT8) printf(" --kv-cache-dtype int8");
    printf(" --max-num-seqs %.0f --max-num-batched-tokens %.0f\n", rows, fmax(fmax(512, rows), tokens));
}

static void print_kernel(const struct nt_plan_step *s, int32_t i) {
    const struct nt_plan_row *row = &s->row[i];
    const struct nt_cost *c = &row->cost;
    printf("| %s | %lld | %.2f | %.3f | %.3f | %.3f | %.1f | %.3f | %.1f |\n", nt_plan_row_name(i),
           (long long)c->launches, c->flops / 1e9, c->stored_bytes / 1e9,
           (c->read_bytes + c->write_bytes - c->stored_bytes) / 1e9, row->ideal_s * 1e3,
           percent(row->ideal_s, s->ideal_s), row->practical_s * 1e3, percent(row->practical_s, s->practical_s));
}

/* The kernels that take longest first. */
static void print_step(const char *what, const struct nt_plan_step *s) {
    bool done[NT_PLAN_ROWS] = {false};
    printf("\n%s: %d rows decoded, %d prompt tokens; ideal %.3f ms, overlapped %.3f ms, practical %.3f ms, %lld "
           "launches\n\n",
           what, s->n_decode, s->n_prefill, s->ideal_s * 1e3, s->overlapped_s * 1e3, s->practical_s * 1e3,
           (long long)s->total.launches);
    printf(
        "| kernel | launches | GFLOP | weights+cache GB | activations GB | ideal ms | share %% | practical ms | share "
        "%% |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for (int32_t n = 0; n < NT_PLAN_ROWS; n++) {
        int32_t next = -1;
        for (int32_t i = 0; i < NT_PLAN_ROWS; i++)
            if (!done[i] && (next < 0 || s->row[i].practical_s > s->row[next].practical_s)) next = i;
        done[next] = true;
        if (s->row[next].cost.launches > 0) print_kernel(s, next);
    }
}

/* Rows from which an H200 measured less than plans say; compute capability 9.0 has got kernels for them since. */
enum { MANY_ROWS = 64 };

static void print_caution(const struct report *r, const struct option *o) {
    if (!nt_weight_is_quantized(o->precision->blocks) || o->plan.mixed.n_decode + o->plan.mixed.n_prefill < MANY_ROWS)
        return;
    const char *reach = r->gpu->cc == 90 ? "are expected to reach 45 to 55 % of the arithmetic (not yet measured)"
                                         : "go by mma.sync, which reached 15 to 20 % of the arithmetic of an H200";
    printf("caution   with hundreds of rows our products of int4 and int8 weights %s, less than these figures say: "
           "measure beside bf16 where that fits\n",
           reach);
}

static void print_report(const struct report *r) {
    print_head(r);
    print_options(r);
    if (r->best < 0) return;
    const struct option *o = &r->option[r->best];
    const struct nt_plan_job job = job_of(r, o);
    printf("\nbest      tp %d, %s: %.*f answer tokens/s per GPU ideal, %.*f practical; prefill alone %.0f prompt "
           "tokens/s ideal\n",
           o->tp, o->precision->doc, places(o->plan.ideal), o->plan.ideal, places(o->plan.practical), o->plan.practical,
           nt_plan_prefill_rate(&job, &o->plan));
    print_memory(r, o);
    print_settings(r, o);
    print_caution(r, o);
    print_step("Steady step", &o->plan.mixed);
    print_step("Decode step", &o->plan.decode);
    print_step("Prefill step", &o->plan.prefill);
}

/* ---- JSON ---- */

static void add_num(struct nt_strbuf *s, const char *name, double v) {
    nt_strbuf_addf(s, "\"%s\": ", name);
    nt_strbuf_add_json_num(s, v);
}

static void add_step(struct nt_strbuf *s, const char *name, const struct nt_plan_step *step) {
    nt_strbuf_addf(s, "\"%s\": {\"decode_rows\": %d, \"prefill_tokens\": %d, \"launches\": %lld, ", name,
                   step->n_decode, step->n_prefill, (long long)step->total.launches);
    add_num(s, "ideal_s", step->ideal_s);
    nt_strbuf_adds(s, ", ");
    add_num(s, "overlapped_s", step->overlapped_s);
    nt_strbuf_adds(s, ", ");
    add_num(s, "practical_s", step->practical_s);
    nt_strbuf_adds(s, ", \"kernels\": [");
    const char *comma = "";
    for (int32_t i = 0; i < NT_PLAN_ROWS; i++) {
        const struct nt_plan_row *row = &step->row[i];
        if (row->cost.launches == 0) continue;
        nt_strbuf_addf(s, "%s{\"name\": \"%s\", \"launches\": %lld, \"flops\": %.0f, \"read_bytes\": %.0f, ", comma,
                       nt_plan_row_name(i), (long long)row->cost.launches, row->cost.flops, row->cost.read_bytes);
        nt_strbuf_addf(s, "\"write_bytes\": %.0f, \"stored_bytes\": %.0f, ", row->cost.write_bytes,
                       row->cost.stored_bytes);
        add_num(s, "ideal_s", row->ideal_s);
        nt_strbuf_adds(s, ", ");
        add_num(s, "practical_s", row->practical_s);
        nt_strbuf_addc(s, '}');
        comma = ", ";
    }
    nt_strbuf_adds(s, "]}");
}

static void add_option(struct nt_strbuf *s, const struct option *o) {
    const struct nt_plan *p = &o->plan;
    nt_strbuf_addf(s, "{\"precision\": \"%s\", \"tp\": %d, \"fits\": %s, \"weight_bytes\": %.0f, \"kv_bytes\": %.0f, ",
                   o->precision->name, o->tp, p->fits ? "true" : "false", p->weight_bytes, p->kv_bytes);
    nt_strbuf_addf(s, "\"activation_bytes\": %.0f, \"position_bytes\": %.0f, \"admitted_seqs\": %d, ",
                   p->activation_bytes, p->position_bytes, p->admitted);
    add_num(s, "seqs", p->seqs);
    nt_strbuf_adds(s, ", ");
    add_num(s, "kv_occupied", p->kv_occupied);
    nt_strbuf_adds(s, ", ");
    add_num(s, "ideal", p->ideal);
    nt_strbuf_adds(s, ", ");
    add_num(s, "overlapped", p->overlapped);
    nt_strbuf_adds(s, ", ");
    add_num(s, "practical", p->practical);
    nt_strbuf_adds(s, ", ");
    add_step(s, "steady", &p->mixed);
    nt_strbuf_adds(s, ", ");
    add_step(s, "decode", &p->decode);
    nt_strbuf_adds(s, ", ");
    add_step(s, "prefill", &p->prefill);
    nt_strbuf_addc(s, '}');
}

static void print_json(const struct report *r) {
    const struct nt_config *c = r->config;
    struct nt_strbuf s = NT_STRBUF_INIT;
    nt_strbuf_adds(&s, "{\"model\": ");
    nt_strbuf_add_json(&s, c->model_path, strlen(c->model_path));
    nt_strbuf_addf(&s, ", \"gpu\": \"%s\", \"in\": %lld, \"out\": %lld, \"wire\": \"%s\", \"best\": ", r->gpu->name,
                   (long long)c->plan_in, (long long)c->plan_out, c->plan_wire);
    if (r->best < 0)
        nt_strbuf_adds(&s, "null");
    else
        nt_strbuf_addf(&s, "%d", r->best);
    nt_strbuf_adds(&s, ", \"options\": [");
    for (int32_t i = 0; i < r->n; i++) {
        if (i) nt_strbuf_adds(&s, ",\n");
        add_option(&s, &r->option[i]);
    }
    nt_strbuf_adds(&s, "]}\n");
    fputs(nt_strbuf_cstr(&s), stdout);
    nt_strbuf_release(&s);
}

/* ---- the command ---- */

static nt_status no_room(const struct report *r) {
    const struct option *o = &r->option[r->n - 1];
    return NT_FAIL(
        NT_E_NOMEM,
        "plan: nothing that was tried fits on %s: the weights take %.1f GB per GPU with tp %d and %s, the activations "
        "of "
        "a step %.1f GB; expected a larger --tp, a GPU with more memory, a smaller precision or fewer --seqs",
        r->gpu->doc, o->plan.weight_bytes / 1e9, o->tp, o->precision->doc, o->plan.activation_bytes / 1e9);
}

nt_status nt_cmd_plan(struct nt_cmd_context *ctx) {
    const struct nt_config *c = ctx->config;
    char names[256];
    if (c->model_adapter[0] || strcmp(c->model_weight_dtype, "auto") != 0)
        return NT_FAIL(NT_E_USAGE, "plan: counts no adapter (model.adapter), and takes the type of weights from "
                                   "--precision, not from model.weight_dtype");
    if (!c->model_path[0])
        return NT_FAIL(NT_E_USAGE,
                       "no model given; add --model PATH (a directory, a config.json or a GGUF file) or one of %s",
                       nt_spec_shape_list(names, sizeof names));
    struct report *r = calloc(1, sizeof *r);
    if (!r) return NT_FAIL(NT_E_NOMEM, "no memory for the plans");
    r->config = c;
    nt_status st = find_gpu(c->plan_gpu, &r->gpu);
    if (st == NT_OK) st = nt_spec_of(c->model_path, &r->spec);
    if (st == NT_OK) st = try_all(r);
    if (st == NT_OK) {
        if (strcmp(c->plan_format, "json") == 0)
            print_json(r);
        else
            print_report(r);
        if (r->best < 0) st = no_room(r);
    }
    free(r);
    return st;
}
