#include "gpu_report.h"
#include <stdio.h>
#include <string.h>

static const char *const emulated_note = "emulated: not meaningful";

static void add_version(struct nt_strbuf *s, const char *name, const char *version, const char *why) {
    nt_strbuf_addf(s, "| %s | %s |\n", name, version[0] ? version : why);
}

static void add_facts(struct nt_strbuf *s, const struct nt_gpu_report *r) {
    const struct nt_cuda_facts *f = &r->facts;
    char blaslt[32] = "", nccl[32] = "";
    if (r->blaslt) (void)snprintf(blaslt, sizeof blaslt, "%zu", r->blaslt);
    if (r->nccl) (void)snprintf(nccl, sizeof nccl, "%d", r->nccl);
    nt_strbuf_addf(s, "| fact | value |\n| --- | --- |\n| device | %s, %s |\n", f->name, f->bus);
    nt_strbuf_addf(s, "| compute capability | %d.%d, %d multiprocessors |\n", f->cc / 10, f->cc % 10, f->n_sm);
    nt_strbuf_addf(s, "| memory | %.1f GB, L2 %.1f MB |\n", (double)f->memory / 1e9, (double)f->l2 / 1e6);
    if (f->mem_khz > 0 && f->bus_bits > 0)
        nt_strbuf_addf(s, "| memory bandwidth by its clock | %.0f GB/s (%d MHz, %d bits, double data rate) |\n",
                       2.0 * f->mem_khz * 1e3 * f->bus_bits / 8 / 1e9, f->mem_khz / 1000, f->bus_bits);
    nt_strbuf_addf(s, "| driver | CUDA %d.%d, %s |\n", f->driver / 1000, f->driver % 1000 / 10,
                   r->n_health > 0 && r->health[0].driver[0] ? r->health[0].driver : "version unknown");
    nt_strbuf_addf(s, "| kernels | %s (nvcc %d.%d) |\n",
                   f->jit ? "compiled from PTX by the driver" : "machine code of this build", f->toolkit / 1000,
                   f->toolkit % 1000 / 10);
    add_version(s, "cuBLASLt", blaslt, r->ceilings.no_blaslt[0] ? r->ceilings.no_blaslt : "not opened");
    add_version(s, "NCCL", nccl, r->no_nccl);
}

static void add_health(struct nt_strbuf *s, const struct nt_gpu_report *r) {
    static const char *const when[NT_GPU_REPORT_HEALTH] = {"start", "after ceilings", "end"};
    nt_strbuf_adds(s, "\n## Clocks\n\n");
    if (r->n_health > 0 && r->health[0].absent[0]) {
        nt_strbuf_addf(s, "%s\n", r->health[0].absent);
        return;
    }
    nt_strbuf_adds(s, "| when | SM MHz (max) | memory MHz (max) | temperature C | power W | throttled by |\n"
                      "| --- | ---: | ---: | ---: | ---: | --- |\n");
    for (int32_t i = 0; i < r->n_health; i++) {
        const struct nt_cuda_health *h = &r->health[i];
        nt_strbuf_addf(s, "| %s | %d (%d) | %d (%d) | %d | %.0f | ", when[i], h->sm_mhz, h->sm_max_mhz, h->mem_mhz,
                       h->mem_max_mhz, h->celsius, h->watt);
        nt_cuda_throttle_text(h->throttle, s);
        nt_strbuf_adds(s, " |\n");
    }
}

static void add_checks(struct nt_strbuf *s, const struct nt_gpu_report *r) {
    const struct nt_cuda_check *c = &r->check;
    nt_strbuf_addf(
        s,
        "\n## Correctness: %d of %d rows wrong\n\nDifferences are normalized mean squared errors against the "
        "CPU's portable bodies or sums in double; 0: the same bits.\n\n"
        "| op | result | difference | limit | kernels |\n| --- | --- | ---: | ---: | --- |\n",
        c->n_wrong, c->n);
    for (int32_t i = 0; i < c->n; i++) {
        const struct nt_cuda_check_row *row = &c->row[i];
        nt_strbuf_addf(s, "| %s | %s | %.1e | %.0e |", row->name, row->ok ? "ok" : "FAILED", row->difference,
                       row->limit);
        for (int k = 0; k < NT_CUDA_KERNEL_COUNT; k++)
            if (row->launched[k]) nt_strbuf_addf(s, " %s", nt_cuda_kernel_name((enum nt_cuda_kernel)k));
        if (row->error[0]) nt_strbuf_addf(s, " %s", row->error);
        nt_strbuf_adds(s, " |\n");
    }
    const char *comma = "\nNot reached by any row on this device: ";
    for (int k = 0; k < NT_CUDA_KERNEL_COUNT; k++) {
        if (c->passed[k] || c->failed[k]) continue;
        nt_strbuf_addf(s, "%s%s%s", comma, nt_cuda_kernel_name((enum nt_cuda_kernel)k),
                       r->has_kernel[k] ? "" : " (not for this compute capability)");
        comma = ", ";
    }
    if (comma[0] == ',') nt_strbuf_adds(s, ".\n");
}

static void add_ceilings(struct nt_strbuf *s, const struct nt_gpu_report *r) {
    const struct nt_cuda_ceilings *c = &r->ceilings;
    const char *note = r->emulated ? emulated_note : "";
    nt_strbuf_adds(s, "\n## Ceilings\n\n| what | measured | note |\n| --- | ---: | --- |\n");
    nt_strbuf_addf(s, "| copy in device memory, %.2f GB | %.1f GB/s (read + written) | %s |\n",
                   (double)c->copy_bytes / 1e9, c->copy_bytes_s / 1e9, note);
    nt_strbuf_addf(s, "| product of %d x %d x %d bf16, ours | %.3f TFLOP/s | %s |\n", c->matrix, c->matrix, c->matrix,
                   c->own_flop_s / 1e12, note);
    if (c->blaslt_flop_s > 0)
        nt_strbuf_addf(s, "| the same by cuBLASLt | %.3f TFLOP/s | %s |\n", c->blaslt_flop_s / 1e12, note);
    nt_strbuf_addf(s, "| matrix rate: the faster one | %.3f TFLOP/s | %s |\n", c->matrix_flop_s / 1e12, note);
}

static double percent(double part, double whole) {
    return whole > 0 ? 100 * part / whole : 0;
}

static void add_timing(struct nt_strbuf *s, const struct nt_gpu_report *r, const struct nt_cuda_timing *t) {
    const struct nt_cuda_ceilings *c = &r->ceilings;
    nt_strbuf_addf(s, "| %s | %s %d |", t->what, t->prefill ? "prefill" : "decode", t->n_tok);
    if (t->skipped[0] || !(t->seconds > 0)) {
        nt_strbuf_addf(s, " | | | | | | | | %s |\n", t->skipped);
        return;
    }
    const double bytes = (t->cost.read_bytes + t->cost.write_bytes) / t->seconds, flops = t->cost.flops / t->seconds;
    nt_strbuf_addf(s, " %.2f | %.1f | %.3f | %.1f | %.1f | %.1f |", t->seconds * 1e6, bytes / 1e9, flops / 1e12,
                   percent(bytes, c->copy_bytes_s), percent(flops, c->matrix_flop_s),
                   percent(nt_cuda_timing_ideal(t, c), t->seconds));
    if (t->blaslt_seconds > 0)
        nt_strbuf_addf(s, " %.2f | %.2f |", t->blaslt_seconds * 1e6, t->blaslt_seconds / t->seconds);
    else
        nt_strbuf_adds(s, " | |");
    nt_strbuf_addf(s, " %s |\n", r->emulated ? emulated_note : "");
}

static void add_timings(struct nt_strbuf *s, const struct nt_gpu_report *r) {
    for (int m = 0; m < NT_GPU_REPORT_MODELS; m++) {
        const struct nt_cuda_dims *d = &r->dims[m];
        if (!d->name) continue;
        nt_strbuf_addf(
            s,
            "\n## Kernels in the shapes of %s\n\nd_model %d, d_ff %d, %d heads, %d kv of %d, vocabulary %d. "
            "Cold operands; %% of ideal: against the larger of bytes over the copy bandwidth and, for "
            "products and attention, FLOPs over the matrix rate. Speedup: time of cuBLASLt over ours.\n\n"
            "| kernel | rows | time us | GB/s | TFLOP/s | %% of copy | %% of matrix | %% of ideal | cuBLASLt "
            "us | speedup | note |\n"
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n",
            d->name, d->d_model, d->d_ff, d->n_head, d->n_kv, d->d_head, d->n_vocab);
        for (int32_t i = 0; i < r->timings.n; i++)
            if (strcmp(r->timings.row[i].model, d->name) == 0) add_timing(s, r, &r->timings.row[i]);
    }
}

/* A cell, empty where there is nothing. */
static void add_number(struct nt_strbuf *s, int decimals, double value) {
    if (value > 0) nt_strbuf_addf(s, " %.*f", decimals, value);
    nt_strbuf_adds(s, " |");
}

static void add_steps(struct nt_strbuf *s, const struct nt_gpu_report *r) {
    nt_strbuf_adds(
        s, "\n## Whole steps\n\nThe real forward with random weights; ideal: the cost ledger over the ceilings"
           " above. Sampling is not in it. One by one: each launch behind the end of the one before.\n\n"
           "| model | step | sequences | context | launches | time ms | one by one | tokens/s | ideal ms | % of ideal "
           "| note |\n| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n");
    for (int32_t i = 0; i < r->steps.n; i++) {
        const struct nt_gpu_step *t = &r->steps.row[i];
        nt_strbuf_addf(s, "| %s | %s | %d | %d | %lld |", t->model, t->prefill ? "prefill" : "decode", t->n_seq,
                       t->context, (long long)t->cost.launches);
        add_number(s, 3, t->seconds * 1e3);
        add_number(s, 3, t->one_by_one_s * 1e3);
        add_number(s, 0, t->seconds > 0 ? t->n_tok / t->seconds : 0);
        add_number(s, 3, t->ideal_s * 1e3);
        add_number(s, 1, t->seconds > 0 ? percent(t->ideal_s, t->seconds) : 0);
        nt_strbuf_addf(s, " %s%s |\n", t->wrong ? "**FAILED: other tokens than one by one** " : "",
                       t->skipped[0] ? t->skipped
                       : r->emulated ? emulated_note
                                     : "");
    }
}

void nt_gpu_report_md(const struct nt_gpu_report *r, struct nt_strbuf *out) {
    nt_strbuf_addf(out, "# GPU report: %s\n\nnocturne %s (%s), %.0f s%s.%s\n", r->facts.name, NT_VERSION, NT_COMMIT,
                   r->took_s, r->complete ? "" : ", not complete",
                   r->emulated ? " The device is emulated and all shapes are small: times are not meaningful." : "");
    if (r->error[0]) nt_strbuf_addf(out, "\n**Stopped: %s**\n", r->error);
    for (int i = 0; i < NT_OP_COUNT; i++)
        if (r->skip[i]) nt_strbuf_addf(out, "\nLeft out on request: %s\n", nt_op_name((enum nt_op)i));
    nt_strbuf_addc(out, '\n');
    add_facts(out, r);
    add_health(out, r);
    if (r->check.n > 0) add_checks(out, r);
    if (r->ceilings.copy_bytes_s > 0) add_ceilings(out, r);
    if (r->timings.n > 0) add_timings(out, r);
    if (r->steps.n > 0) add_steps(out, r);
}
