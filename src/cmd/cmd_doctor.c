/* nocturne doctor: what a job would find here, on every rank: CPU, threads, MPI, GPU, HDF5, memory, and the kernels'
 * self-test. */
#include "cmd.h"
#include "cpu_bodies.h"
#include "cuda_backend.h"
#include "cuda_health.h"
#include "doctor_gpu.h"
#include "env.h"
#include "hdf5file.h"
#include "peak.h"
#include "session.h"
#include "sysmem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPORT_BYTES = 4096 };

static void add_cpu(struct nt_strbuf *s) {
    char text[2048];
    nt_cpu_describe(text, sizeof text);
    for (char *at = text; *at; at++)
        if (*at == '\n') *at = ' ';
    nt_strbuf_addf(s, "cpu            %s\n", text);
    nt_strbuf_addf(s, "isa            %s\n", nt_isa_name(nt_isa_detect()));
}

static nt_status add_machine(struct nt_cmd_context *ctx, struct nt_strbuf *s, bool *ok) {
    struct nt_pool *pool = NULL;
    struct nt_backend be;
    struct nt_peaks peaks;
    NT_TRY(nt_backend_from_config(ctx->config, ctx->world, NT_DEVICE_CPU, &pool, &be));
    nt_strbuf_addf(s, "threads        %d per rank, isa %s\n", nt_pool_size(pool), nt_isa_name(be.isa));
    nt_status st = nt_peak_measure(pool, be.isa, &peaks);
    if (st == NT_OK) {
        nt_strbuf_addf(s, "peak           bf16 %.0f, f32 %.0f GFLOP/s, int8 %.0f GOP/s; read %.1f GB/s\n",
                       peaks.gflops[NT_PEAK_BF16][1], peaks.gflops[NT_PEAK_F32][1], peaks.gflops[NT_PEAK_INT8][1],
                       peaks.read_gb_s[1]);
        const nt_status tested = nt_ops_selftest(&be, s);
        *ok = tested == NT_OK;
        if (!*ok) nt_strbuf_addf(s, "kernels        FAILED: %s\n", nt_error_last()->text);
    }
    nt_backend_close(&be);
    nt_pool_free(pool);
    return st;
}

/* The GPU that this rank of a job would take, or why there is none. */
static void add_gpu(const struct nt_cmd_context *ctx, struct nt_strbuf *s) {
    struct nt_cuda_facts f;
    char no_nccl[NT_CUDA_HEALTH_TEXT];
    int32_t device, count;
    if (strcmp(ctx->config->run_device, "cpu") == 0) return;
    if (nt_cuda_device_count(&count) != NT_OK || nt_cuda_pick_device(ctx->world->node_rank, &device) != NT_OK ||
        nt_cuda_device_facts(device, &f) != NT_OK) {
        nt_strbuf_addf(s, "gpu            none: %.300s\n", nt_error_last()->text);
        nt_error_clear();
        return;
    }
    nt_strbuf_addf(s,
                   "gpu            %d of %d at %s: %s, compute capability %d.%d, %.1f GiB, driver for CUDA %d.%d, "
                   "kernels by nvcc %d.%d\n",
                   device, count, f.bus, f.name, f.cc / 10, f.cc % 10, (double)f.memory / 1073741824.0, f.driver / 1000,
                   f.driver % 1000 / 10, f.toolkit / 1000, f.toolkit % 1000 / 10);
    if (f.driver / 1000 < f.toolkit / 1000)
        nt_strbuf_addf(s, "gpu            the driver is too old for these kernels: build with an nvcc of CUDA %d\n",
                       f.driver / 1000);
    const int32_t nccl = nt_cuda_nccl_version(no_nccl);
    if (nccl)
        nt_strbuf_addf(s, "nccl           %d\n", nccl);
    else
        nt_strbuf_addf(s, "nccl           none: %.300s\n", no_nccl);
}

static nt_status check_mpi(struct nt_world *w, struct nt_strbuf *s) {
    int64_t sum = w->rank + 1;
    NT_TRY(nt_comm_allreduce_sum_i64(w->world, &sum, 1));
    const int64_t expected = (int64_t)w->size * (w->size + 1) / 2;
    if (sum != expected)
        return NT_FAIL(NT_E_COMM, "allreduce over %d ranks gave %lld, expected %lld", w->size, (long long)sum,
                       (long long)expected);
    nt_strbuf_addf(s, "mpi            %s, world %d, %d on this node, allreduce ok\n",
                   nt_env_launched_by_mpi() ? "launched" : "not launched (single process)", w->size, w->node_size);
    return NT_OK;
}

nt_status nt_cmd_doctor(struct nt_cmd_context *ctx) {
    if (ctx->config->doctor_gpu) return nt_comm_agree(ctx->world->world, nt_doctor_gpu(ctx));
    if (ctx->config->doctor_report[0] || ctx->config->doctor_skip[0])
        return NT_FAIL(NT_E_USAGE, "doctor: --report and --skip are of the GPU's check; add --gpu");
    struct nt_world *w = ctx->world;
    struct nt_strbuf s = NT_STRBUF_INIT;
    bool ok = true;
    nt_strbuf_addf(&s, "rank           %d of %d on %s\n", w->rank, w->size, w->host);
    add_cpu(&s);
    nt_status st = check_mpi(w, &s);
    if (st == NT_OK) st = add_machine(ctx, &s, &ok);
    if (st == NT_OK) {
        add_gpu(ctx, &s);
        nt_strbuf_addf(&s, "hdf5           %s\n", nt_hdf5_version());
        nt_strbuf_addf(&s, "memory         %.1f GiB free\n", (double)nt_memory_available() / 1073741824.0);
        if (nt_env_slurm_job_id())
            nt_strbuf_addf(&s, "slurm          job %s, restart %d\n", nt_env_slurm_job_id(),
                           nt_env_slurm_restart_count());
        nt_strbuf_addf(&s, "verdict        %s\n\n", ok ? "ok" : "FAILED");
    }
    char *all = calloc((size_t)w->size, REPORT_BYTES), mine[REPORT_BYTES] = {0};
    NT_CHECK(all);
    memcpy(mine, nt_strbuf_cstr(&s), s.len < REPORT_BYTES ? s.len : REPORT_BYTES - 1);
    st = nt_comm_agree(w->world, st);
    if (st == NT_OK) st = nt_comm_allgather(w->world, mine, all, REPORT_BYTES);
    for (int32_t r = 0; r < w->size && w->rank == 0 && st == NT_OK; r++) fputs(all + (size_t)r * REPORT_BYTES, stdout);
    free(all);
    nt_strbuf_release(&s);
    if (st == NT_OK && !ok)
        st = NT_FAIL(NT_E_INTERNAL,
                     "a kernel differs from its portable body on rank %d; set run.isa lower and report this", w->rank);
    return nt_comm_agree(w->world, st);
}
