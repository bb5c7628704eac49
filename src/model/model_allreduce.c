/* The sum of a branch over the tensor-parallel ranks: peers' memory, NCCL, host memory, or MPI. */
#include "model_state.h"
#include <stdlib.h>

float *nt_model_partial(struct nt_model *m, float *out, int64_t n) {
    float *place = nt_peer_sum_place(m->peers, n);
    return place ? place : out;
}

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

nt_status nt_model_allreduce(struct nt_model *m, const float *partial, float *out, int64_t n) {
    if (partial != out) return nt_peer_sum_run(m->peers, out, n);
    if (nt_backend_is_host(m->backend)) return nt_comm_allreduce_f32(m->world->tp, out, n);
    if (m->device_comm) return nt_device_allreduce_f32(m->device_comm, out, n);
    return through_host(m, out, n);
}
