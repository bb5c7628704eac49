#include "doctor_gpu.h"

#include "clock.h"
#include "gemm_cublaslt.h"
#include "gpu_report.h"
#include "log.h"
#include "session.h"
#include "spec_shape.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct doctor {
    struct nt_cmd_context *ctx;
    struct nt_pool *pool;
    struct nt_backend be;
    struct nt_cuda_bench_sizes sizes;
    struct nt_spec spec[NT_GPU_REPORT_MODELS];
    double start;
    struct nt_gpu_report report;
};

static const char *const models[NT_GPU_REPORT_MODELS] = {"smollm2-135m", "llama3-8b"};

static nt_status publish(struct doctor *d) {
    const char *dir = d->ctx->config->doctor_report;
    d->report.took_s = nt_now() - d->start;
    return dir[0] ? nt_gpu_report_publish(&d->report, dir) : NT_OK;
}

/* For an emulator: heads as they are, everything else as small as kernels take it. */
static void shrink(struct nt_spec *s) {
    const int32_t group = s->n_head / s->n_kv;
    s->n_kv = 1;
    s->n_head = group;
    s->n_layer = 1;
    s->d_model = 192;
    s->d_ff = 256;
    s->n_vocab = 500;
}

static nt_status choose_models(struct doctor *d) {
    for (int m = 0; m < NT_GPU_REPORT_MODELS; m++) {
        struct nt_spec *s = &d->spec[m];
        NT_TRY(nt_spec_of(models[m], s));
        if (d->report.emulated) shrink(s);
        d->report.dims[m] = (struct nt_cuda_dims){.name = models[m],
                                                  .d_model = s->d_model,
                                                  .d_ff = s->d_ff,
                                                  .n_head = s->n_head,
                                                  .n_kv = s->n_kv,
                                                  .d_head = s->d_head,
                                                  .n_vocab = s->n_vocab};
    }
    return NT_OK;
}

static void read_health(struct doctor *d) {
    struct nt_gpu_report *r = &d->report;
    if (r->n_health < NT_GPU_REPORT_HEALTH) nt_cuda_health_read(r->facts.bus, &r->health[r->n_health++]);
}

static nt_status read_facts(struct doctor *d) {
    struct nt_gpu_report *r = &d->report;
    r->facts = d->be.cuda->facts;
    r->emulated = r->facts.emulated;
    r->unix_time = nt_unix_time();
    r->nccl = nt_cuda_nccl_version(r->no_nccl);
    read_health(d);
    if (nt_cublaslt_enable(&d->be, INT32_MAX) != NT_OK) {
        memcpy(r->ceilings.no_blaslt, nt_error_last()->text, sizeof r->ceilings.no_blaslt);
        nt_error_clear();
    }
    r->blaslt = nt_cublaslt_version(&d->be);
    for (int k = 0; k < NT_CUDA_KERNEL_COUNT; k++) {
        r->has_kernel[k] = nt_cuda_has(&d->be, (enum nt_cuda_kernel)k);
        if (!r->has_kernel[k]) continue;
        NT_TRY(nt_cuda_kernel_facts(&d->be, (enum nt_cuda_kernel)k, 32, 0, &r->kernel[k]));
    }
    nt_cuda_bench_sizes(r->emulated, &d->sizes);
    memcpy(d->sizes.skip, r->skip, sizeof r->skip);
    return choose_models(d);
}

/* "attention,gemm" as flags. */
static nt_status read_skip(const char *list, bool skip[NT_OP_COUNT]) {
    const char *names[NT_OP_COUNT];
    for (int i = 0; i < NT_OP_COUNT; i++) names[i] = nt_op_name((enum nt_op)i);
    for (const char *at = list; *at;) {
        char name[64];
        const size_t n = strcspn(at, ",");
        int i = 0;
        (void)snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), at);
        while (i < NT_OP_COUNT && strcmp(names[i], name) != 0) i++;
        if (i == NT_OP_COUNT) {
            const char *near = nt_nearest(name, names, NT_OP_COUNT);
            return NT_FAIL(NT_E_USAGE, "doctor.skip: unknown op \"%s\"%s%s%s", name, near ? " (maybe: " : "",
                           near ? near : "", near ? "?)" : "");
        }
        skip[i] = true;
        at += at[n] ? n + 1 : n;
    }
    return NT_OK;
}

static nt_status check_kernels(struct doctor *d) {
    nt_info("doctor", "kernels of %s against the CPU", d->report.facts.name);
    NT_TRY(nt_cuda_check(&d->be, d->report.emulated, d->sizes.skip, &d->report.check));
    return publish(d);
}

static nt_status time_kernels(struct doctor *d) {
    struct nt_cuda_bench *bench = NULL;
    struct nt_gpu_report *r = &d->report;
    NT_TRY(nt_cuda_bench_open(&bench, &d->be, &d->sizes));
    nt_info("doctor", "copy bandwidth and matrix rate");
    nt_status st = nt_cuda_bench_ceilings(bench, &r->ceilings);
    read_health(d);
    for (int m = 0; m < NT_GPU_REPORT_MODELS && st == NT_OK; m++) {
        st = nt_cuda_bench_ops(bench, &r->dims[m], &r->timings);
        if (st == NT_OK) st = publish(d);
    }
    nt_cuda_bench_close(bench);
    return st;
}

static nt_status time_steps(struct doctor *d) {
    for (int m = 0; m < NT_GPU_REPORT_MODELS; m++) {
        const struct nt_gpu_steps_job job = {.model = models[m],
                                             .spec = &d->spec[m],
                                             .world = d->ctx->world,
                                             .sizes = &d->sizes,
                                             .ceilings = &d->report.ceilings};
        NT_TRY(nt_gpu_steps_run(&job, &d->be, &d->report.steps));
        NT_TRY(publish(d));
    }
    read_health(d);
    return NT_OK;
}

static nt_status run(struct doctor *d) {
    NT_TRY(read_facts(d));
    NT_TRY(publish(d)); /* a directory that cannot be written shows before anything is measured */
    NT_TRY(check_kernels(d));
    NT_TRY(time_kernels(d));
    return time_steps(d);
}

/* Also after an error: what there is, with the sentence. */
static nt_status finish(struct doctor *d, nt_status st) {
    struct nt_strbuf md = NT_STRBUF_INIT;
    struct nt_error error;
    d->report.complete = st == NT_OK;
    if (st != NT_OK) memcpy(d->report.error, nt_error_last()->text, sizeof d->report.error);
    nt_error_take(&error);
    const nt_status published = publish(d);
    if (st != NT_OK) nt_error_give(&error);
    nt_gpu_report_md(&d->report, &md);
    fputs(nt_strbuf_cstr(&md), stdout);
    fflush(stdout); /* before the sentence on stderr */
    nt_strbuf_release(&md);
    if (st != NT_OK) return st;
    NT_TRY(published);
    if (d->report.check.n_wrong > 0)
        return NT_FAIL(NT_E_INTERNAL,
                       "%d of %d checks of the CUDA kernels failed on %s: see the rows marked FAILED; use run.device = "
                       "cpu and report this",
                       d->report.check.n_wrong, d->report.check.n, d->report.facts.name);
    for (int32_t i = 0; i < d->report.steps.n; i++)
        if (d->report.steps.row[i].wrong)
            return NT_FAIL(NT_E_INTERNAL,
                           "a step of %s draws other tokens on %s when its launches begin early than one by one: see "
                           "the rows marked FAILED; use run.device = cpu and report this",
                           d->report.steps.row[i].model, d->report.facts.name);
    return NT_OK;
}

static nt_status open_device(struct doctor *d) {
    struct nt_world *w = d->ctx->world;
    if (w->size != 1)
        return NT_FAIL(NT_E_USAGE, "doctor --gpu measures one GPU: start it with one rank, not %d", w->size);
    if (strcmp(d->ctx->config->run_device, "cpu") == 0)
        return NT_FAIL(NT_E_USAGE, "doctor --gpu is for a GPU: leave out run.device = cpu, or --gpu");
    return nt_backend_from_config(d->ctx->config, w, NT_DEVICE_CUDA, &d->pool, &d->be);
}

nt_status nt_doctor_gpu(struct nt_cmd_context *ctx) {
    struct doctor *d = calloc(1, sizeof *d);
    if (!d) return NT_FAIL(NT_E_NOMEM, "no memory for the report");
    d->ctx = ctx;
    d->start = nt_now();
    nt_status st = read_skip(ctx->config->doctor_skip, d->report.skip);
    if (st == NT_OK) st = open_device(d);
    if (d->be.cuda) {
        st = finish(d, run(d));
        struct nt_error error;
        nt_error_take(&error); /* closing a lost device must not replace the sentence */
        nt_backend_close(&d->be);
        if (st != NT_OK) nt_error_give(&error);
        nt_pool_free(d->pool);
    }
    free(d);
    return st;
}
