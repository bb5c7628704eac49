/* The sum of a branch over the tensor-parallel ranks. */
#include "model_impl.h"
#include <stdlib.h>

/* Without NCCL: down to the host, over its communicator, up again. */
static nt_status through_host(struct nt_model *m, float *buf, int64_t n) {
    struct nt_backend *be = m->backend;
    const size_t bytes = (size_t)n * sizeof *buf;
    float *staging = malloc(bytes);
    if (!staging) return NT_FAIL(NT_E_NOMEM, "no memory for %zu bytes of an all-reduce", bytes);
    nt_status st = be->memory->download(be, staging, buf, bytes);
    if (st == NT_OK) st = nt_comm_allreduce_f32(m->world->tp, staging, n);
    if (st == NT_OK) st = be->memory->upload(be, buf, staging, bytes);
    free(staging);
    return st;
}

nt_status nt_model_allreduce(struct nt_model *m, float *buf, int64_t n) {
    if (nt_backend_is_host(m->backend)) return nt_comm_allreduce_f32(m->world->tp, buf, n);
    if (m->device_comm) return nt_device_allreduce_f32(m->device_comm, buf, n);
    return through_host(m, buf, n);
}
