#include "fileio.h"
#include "gpu_report.h"
#include <limits.h>
#include <string.h>

static void key(struct nt_strbuf *s, const char *name) {
    const char last = s->len > 0 ? s->data[s->len - 1] : 0;
    nt_strbuf_addf(s, "%s\"%s\": ", last == '{' ? "" : ", ", name);
}

static void num(struct nt_strbuf *s, const char *name, double v) {
    key(s, name);
    nt_strbuf_add_json_num(s, v);
}

/* null where there is none. */
static void positive(struct nt_strbuf *s, const char *name, double v) {
    key(s, name);
    if (v > 0)
        nt_strbuf_add_json_num(s, v);
    else
        nt_strbuf_adds(s, "null");
}

static void text(struct nt_strbuf *s, const char *name, const char *v) {
    key(s, name);
    if (v && v[0])
        nt_strbuf_add_json(s, v, strlen(v));
    else
        nt_strbuf_adds(s, "null");
}

static void flag(struct nt_strbuf *s, const char *name, bool v) {
    key(s, name);
    nt_strbuf_adds(s, v ? "true" : "false");
}

/* null for a number that NVML did not give. */
static void known(struct nt_strbuf *s, const char *name, double v) {
    positive(s, name, v >= 0 ? v + (v == 0 ? 1e-300 : 0) : -1);
}

static void add_facts(struct nt_strbuf *s, const struct nt_gpu_report *r) {
    const struct nt_cuda_facts *f = &r->facts;
    key(s, "device");
    nt_strbuf_addc(s, '{');
    text(s, "name", f->name);
    text(s, "bus", f->bus);
    num(s, "compute_capability", f->cc / 10 + f->cc % 10 / 10.0);
    num(s, "multiprocessors", f->n_sm);
    num(s, "memory_bytes", (double)f->memory);
    num(s, "l2_bytes", (double)f->l2);
    num(s, "shared_bytes_per_block", f->max_shared);
    num(s, "sm_clock_khz", f->clock_khz);
    num(s, "memory_clock_khz", f->mem_khz);
    num(s, "memory_bus_bits", f->bus_bits);
    num(s, "driver_cuda_version", f->driver);
    num(s, "nvcc_cuda_version", f->toolkit);
    text(s, "driver_version", r->n_health > 0 ? r->health[0].driver : NULL);
    flag(s, "emulated", r->emulated);
    flag(s, "kernels_from_ptx", f->jit);
    positive(s, "cublaslt_version", (double)r->blaslt);
    text(s, "cublaslt_absent", r->ceilings.no_blaslt);
    positive(s, "nccl_version", r->nccl);
    text(s, "nccl_absent", r->no_nccl);
    nt_strbuf_addc(s, '}');
}

static void add_health(struct nt_strbuf *s, const struct nt_gpu_report *r) {
    static const char *const when[NT_GPU_REPORT_HEALTH] = {"start", "after ceilings", "end"};
    key(s, "health");
    nt_strbuf_addc(s, '[');
    for (int32_t i = 0; i < r->n_health; i++) {
        const struct nt_cuda_health *h = &r->health[i];
        struct nt_strbuf reasons = NT_STRBUF_INIT;
        nt_cuda_throttle_text(h->throttle, &reasons);
        nt_strbuf_adds(s, i ? ", {" : "{");
        text(s, "when", when[i]);
        known(s, "sm_mhz", h->sm_mhz);
        known(s, "sm_max_mhz", h->sm_max_mhz);
        known(s, "memory_mhz", h->mem_mhz);
        known(s, "memory_max_mhz", h->mem_max_mhz);
        known(s, "temperature_celsius", h->celsius);
        known(s, "power_watt", h->watt);
        text(s, "throttled_by", h->absent[0] ? NULL : nt_strbuf_cstr(&reasons));
        text(s, "absent", h->absent);
        nt_strbuf_addc(s, '}');
        nt_strbuf_release(&reasons);
    }
    nt_strbuf_addc(s, ']');
}

static void add_checks(struct nt_strbuf *s, const struct nt_gpu_report *r) {
    key(s, "checks");
    nt_strbuf_addc(s, '[');
    for (int32_t i = 0; i < r->check.n; i++) {
        const struct nt_cuda_check_row *row = &r->check.row[i];
        nt_strbuf_adds(s, i ? ",\n  {" : "\n  {");
        text(s, "name", row->name);
        text(s, "op", nt_op_name(row->op));
        flag(s, "ok", row->ok);
        num(s, "difference_nmse", row->difference);
        num(s, "limit_nmse", row->limit);
        text(s, "error", row->error);
        key(s, "kernels");
        const char *comma = "[";
        for (int k = 0; k < NT_CUDA_KERNEL_COUNT; k++) {
            if (!row->launched[k]) continue;
            nt_strbuf_addf(s, "%s\"%s\"", comma, nt_cuda_kernel_name((enum nt_cuda_kernel)k));
            comma = ", ";
        }
        nt_strbuf_adds(s, *comma == '[' ? "[]}" : "]}");
    }
    nt_strbuf_addc(s, ']');
}

static void add_kernels(struct nt_strbuf *s, const struct nt_gpu_report *r) {
    key(s, "kernels");
    const char *comma = "[";
    for (int k = 0; k < NT_CUDA_KERNEL_COUNT; k++) {
        const struct nt_cuda_kernel_facts *f = &r->kernel[k];
        nt_strbuf_addf(s, "%s\n  {", comma);
        text(s, "name", nt_cuda_kernel_name((enum nt_cuda_kernel)k));
        text(s, "image", nt_cuda_kernel_image((enum nt_cuda_kernel)k));
        flag(s, "on_this_device", r->has_kernel[k]);
        text(s, "checked", r->check.failed[k] ? "failed" : r->check.passed[k] ? "ok" : "not reached");
        num(s, "registers", f->registers);
        num(s, "local_bytes", f->local_bytes);
        num(s, "static_shared_bytes", f->static_shared);
        nt_strbuf_addc(s, '}');
        comma = ",";
    }
    nt_strbuf_addc(s, ']');
}

static void add_ceilings(struct nt_strbuf *s, const struct nt_gpu_report *r) {
    const struct nt_cuda_ceilings *c = &r->ceilings;
    key(s, "ceilings");
    nt_strbuf_addc(s, '{');
    positive(s, "copy_gb_s", c->copy_bytes_s / 1e9);
    num(s, "copy_bytes", (double)c->copy_bytes);
    num(s, "matrix_size", c->matrix);
    positive(s, "matrix_tflop_s", c->matrix_flop_s / 1e12);
    positive(s, "nocturne_tflop_s", c->own_flop_s / 1e12);
    positive(s, "cublaslt_tflop_s", c->blaslt_flop_s / 1e12);
    flag(s, "meaningful", !r->emulated);
    nt_strbuf_addc(s, '}');
}

static double percent(double part, double whole) {
    return whole > 0 ? 100 * part / whole : 0;
}

static void add_timings(struct nt_strbuf *s, const struct nt_gpu_report *r) {
    key(s, "timings");
    nt_strbuf_addc(s, '[');
    for (int32_t i = 0; i < r->timings.n; i++) {
        const struct nt_cuda_timing *t = &r->timings.row[i];
        const double bytes = t->cost.read_bytes + t->cost.write_bytes, ran = t->seconds > 0 ? 1 / t->seconds : 0;
        nt_strbuf_adds(s, i ? ",\n  {" : "\n  {");
        text(s, "model", t->model);
        text(s, "op", nt_op_name(t->op));
        text(s, "what", t->what);
        text(s, "phase", t->prefill ? "prefill" : "decode");
        num(s, "n_tok", t->n_tok);
        if (t->n > 0) num(s, "n", t->n);
        if (t->n > 0) num(s, "k", t->k);
        num(s, "bytes", bytes);
        num(s, "flop", t->cost.flops);
        positive(s, "time_us", t->seconds * 1e6);
        positive(s, "cublaslt_us", t->blaslt_seconds * 1e6);
        positive(s, "gb_s", bytes * ran / 1e9);
        positive(s, "tflop_s", t->cost.flops * ran / 1e12);
        positive(s, "percent_of_copy", percent(bytes * ran, r->ceilings.copy_bytes_s));
        positive(s, "percent_of_matrix", percent(t->cost.flops * ran, r->ceilings.matrix_flop_s));
        positive(s, "percent_of_ideal", percent(nt_cuda_timing_ideal(t, &r->ceilings), t->seconds));
        text(s, "skipped", t->skipped);
        flag(s, "meaningful", !r->emulated);
        nt_strbuf_addc(s, '}');
    }
    nt_strbuf_addc(s, ']');
}

static void add_steps(struct nt_strbuf *s, const struct nt_gpu_report *r) {
    key(s, "steps");
    nt_strbuf_addc(s, '[');
    for (int32_t i = 0; i < r->steps.n; i++) {
        const struct nt_gpu_step *t = &r->steps.row[i];
        nt_strbuf_adds(s, i ? ",\n  {" : "\n  {");
        text(s, "model", t->model);
        text(s, "phase", t->prefill ? "prefill" : "decode");
        num(s, "sequences", t->n_seq);
        num(s, "tokens", t->n_tok);
        num(s, "context_tokens", t->context);
        num(s, "launches", (double)t->cost.launches);
        num(s, "weight_bytes", t->weight_bytes);
        num(s, "cache_bytes", t->kv_bytes);
        positive(s, "time_ms", t->seconds * 1e3);
        positive(s, "one_by_one_ms", t->one_by_one_s * 1e3);
        flag(s, "wrong", t->wrong);
        positive(s, "ideal_ms", t->ideal_s * 1e3);
        positive(s, "tokens_s", t->seconds > 0 ? t->n_tok / t->seconds : 0);
        positive(s, "percent_of_ideal", percent(t->ideal_s, t->seconds));
        text(s, "skipped", t->skipped);
        flag(s, "meaningful", !r->emulated);
        nt_strbuf_addc(s, '}');
    }
    nt_strbuf_addc(s, ']');
}

void nt_gpu_report_json(const struct nt_gpu_report *r, struct nt_strbuf *out) {
    nt_strbuf_addc(out, '{');
    num(out, "format", 1);
    text(out, "program", "nocturne " NT_VERSION);
    text(out, "commit", NT_COMMIT);
    num(out, "unix_time_s", r->unix_time);
    num(out, "took_s", r->took_s);
    flag(out, "meaningful", !r->emulated);
    text(out, "note", r->emulated ? "emulated: not meaningful" : NULL);
    flag(out, "complete", r->complete);
    text(out, "error", r->error);
    num(out, "wrong", r->check.n_wrong);
    key(out, "skipped_ops");
    const char *comma = "[";
    for (int i = 0; i < NT_OP_COUNT; i++) {
        if (!r->skip[i]) continue;
        nt_strbuf_addf(out, "%s\"%s\"", comma, nt_op_name((enum nt_op)i));
        comma = ", ";
    }
    nt_strbuf_adds(out, *comma == '[' ? "[]" : "]");
    nt_strbuf_addc(out, '\n');
    void (*const parts[])(struct nt_strbuf *, const struct nt_gpu_report *) = {
        add_facts, add_health, add_checks, add_kernels, add_ceilings, add_timings, add_steps};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        parts[i](out, r);
        nt_strbuf_addc(out, '\n');
    }
    nt_strbuf_adds(out, "}\n");
}

static nt_status publish(const char *dir, const char *name, const struct nt_strbuf *bytes) {
    char path[PATH_MAX];
    NT_TRY(nt_path_join(path, sizeof path, dir, name));
    return nt_publish_bytes(path, bytes->data, bytes->len, NT_PUBLISH_REPLACE);
}

nt_status nt_gpu_report_publish(const struct nt_gpu_report *r, const char *dir) {
    struct nt_strbuf json = NT_STRBUF_INIT, md = NT_STRBUF_INIT;
    nt_gpu_report_json(r, &json);
    nt_gpu_report_md(r, &md);
    nt_status st = nt_mkdir_p(dir);
    if (st == NT_OK) st = publish(dir, "gpu-report.json", &json);
    if (st == NT_OK) st = publish(dir, "gpu-report.md", &md);
    nt_strbuf_release(&json);
    nt_strbuf_release(&md);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}
