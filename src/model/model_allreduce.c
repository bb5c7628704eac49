/* The sum of a branch over the tensor-parallel ranks: peers' memory, NCCL, host memory, or MPI; and the norm that takes
 * it up. */
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

nt_status nt_model_branch_sum(struct nt_model *m, struct nt_step *s, const float *partial, int32_t n_tok) {
    s->apart = partial != m->acts.delta && nt_peer_sum_fuses(m->peers, m->spec.d_model);
    s->pending = !s->apart;
    if (s->apart) return NT_OK;
    return nt_model_allreduce(m, partial, m->acts.delta, (int64_t)n_tok * m->spec.d_model);
}

nt_status nt_model_norm(struct nt_model *m, struct nt_step *s, const float *w, nt_bf16 *h, float *keep, int32_t n_tok) {
    const struct nt_rmsnorm_args args = {.x = s->x,
                                         .delta = s->pending ? m->acts.delta : NULL,
                                         .w = w,
                                         .y = h,
                                         .keep = s->tape ? keep : NULL,
                                         .eps = m->spec.norm_eps,
                                         .n_rows = n_tok,
                                         .d_model = m->spec.d_model,
                                         .ldy = m->spec.d_model};
    const bool apart = s->apart;
    s->pending = s->apart = false;
    return apart ? nt_peer_sum_norm(m->peers, &args) : m->backend->ops.rmsnorm(m->backend, &args);
}
