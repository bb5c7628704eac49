#include "memory_plan.h"

#include "cuda_backend.h"
#include "log.h"
#include "sysmem.h"
#include <stdio.h>

static double mib(size_t bytes) {
    return (double)bytes / 1048576.0;
}

static size_t node_free(const struct nt_world *w) {
    return nt_memory_available() / (size_t)w->node_size;
}

size_t nt_memory_plan_free(const struct nt_backend *be, const struct nt_world *w) {
    return nt_backend_is_host(be) ? node_free(w) : be->memory->available(be);
}

/* What is held already, beside the weights. */
static const char *held(const struct nt_memory_plan *p, char *text, size_t size) {
    const size_t peers = nt_model_peer_bytes(p->model);
    int n = 0;
    text[0] = '\0';
    if (p->trained > 0)
        n = snprintf(text, size, "trained numbers, gradients and moments %.1f MiB (taken), ", mib(p->trained));
    if (nt_backend_is_host(p->memory->be)) return text;
    n += snprintf(text + n, size - (size_t)n, "workspace of kernels %.0f MiB",
                  mib(p->memory->be->cuda->workspace_bytes));
    if (peers > 0) n += snprintf(text + n, size - (size_t)n, ", sums over peers %.1f MiB", mib(peers));
    (void)snprintf(text + n, size - (size_t)n, " (taken), ");
    return text;
}

static nt_status must_fit(const struct nt_memory_plan *p, size_t needed, size_t available, const char *where) {
    if (needed <= available) return NT_OK;
    return NT_FAIL(NT_E_NOMEM, "the job needs %.0f MiB but %.0f MiB are free on this %s per rank; lower %s",
                   mib(needed), mib(available), where, p->remedy);
}

nt_status nt_memory_plan_check(const struct nt_memory_plan *p) {
    const struct nt_job_memory *m = p->memory;
    const bool host = nt_backend_is_host(m->be);
    const size_t kv = (size_t)p->n_page * nt_model_kv_page_bytes(p->model);
    const size_t available = nt_memory_plan_free(m->be, p->world);
    char text[192];
    nt_info("plan",
            "weights %.0f MiB (loaded), %skv cache up to %.0f MiB (%d pages of %d tokens), activations %.0f MiB; %.0f "
            "MiB free %s",
            mib(nt_model_weight_bytes(p->model)), held(p, text, sizeof text), mib(kv), (int)p->n_page, NT_KV_PAGE,
            mib(nt_job_memory_bytes(m) - kv), mib(available), host ? "per rank" : "on the device");
    if (host) return must_fit(p, nt_job_memory_bytes(m), available, "node");
    NT_TRY(must_fit(p, m->device.used, available, "device"));
    return must_fit(p, m->host.used, node_free(p->world), "node, host memory,");
}

nt_status nt_memory_plan_bind(const struct nt_memory_plan *p) {
    const struct nt_job_memory *m = p->memory;
    NT_TRY(nt_job_memory_bind(p->memory));
    if (nt_backend_is_host(m->be)) return NT_OK;
    const size_t weights = nt_model_weight_bytes(p->model), peers = nt_model_peer_bytes(p->model);
    const size_t workspace = m->be->cuda->workspace_bytes;
    const size_t counted = weights + workspace + peers + p->trained + m->device.size;
    const size_t taken = m->be->cuda->taken;
    if (counted != taken)
        return NT_FAIL(NT_E_INTERNAL, "the plan counted %zu bytes of device memory, but %zu are taken", counted, taken);
    nt_info(
        "plan",
        "%zu bytes of device memory: weights %zu, workspace %zu, sums over peers %zu, trained numbers %zu, cache and "
        "activations %zu",
        taken, weights, workspace, peers, p->trained, m->device.size);
    return NT_OK;
}

nt_status nt_memory_plan_take(const struct nt_memory_plan *p) {
    NT_TRY(nt_memory_plan_check(p));
    return nt_memory_plan_bind(p);
}
