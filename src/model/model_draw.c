/* The end of a step that draws its own tokens: the vocabulary head fused with the choice, and over tensor-parallel
 * ranks the best of their (value, index) pairs by peers' memory, or by NCCL (or a communicator that counts) and a
 * kernel. Every rank computes the same tokens. */
#include "allreduce_p2p_cuda.h"
#include "cuda_backend.h"
#include "model_state.h"

/* With a library behind gemm the logits have its bits, and rows must not change between both. */
bool nt_model_head_draws(const struct nt_model *m) {
    const struct nt_backend *be = m->backend;
    if (nt_backend_is_host(be) || be->cuda->blas) return false;
    return m->shard.size == 1 || (m->device_comm && m->shard.size <= NT_P2P_RANKS);
}

bool nt_model_gathers(const struct nt_model *m) {
    return m->device_comm && m->shard.size <= NT_P2P_RANKS;
}

nt_status nt_model_allgather(const struct nt_model *m, const float *from, float *to, int64_t n) {
    return nt_device_allgather_f32(m->device_comm, from, to, n);
}

/* Floats of the pairs of n rows: a multiple of 4, as the places of the peers are. */
static int64_t pair_floats(int32_t n_row) {
    return ((int64_t)2 * n_row + 3) / 4 * 4;
}

void nt_model_layout_draw(struct nt_model *m, struct nt_job_memory *mem, const struct nt_step_limits *max) {
    const size_t n = (size_t)pair_floats(max->out);
    m->acts.pairs = NT_TAKE(&mem->device, float, n);
    if (m->shard.size > 1) m->acts.pairs_of_all = NT_TAKE(&mem->device, float, n *(size_t)m->shard.size);
}

static nt_status best_of_ranks(struct nt_model *m, const float *pairs, int32_t *token, int32_t n_row) {
    if (pairs != m->acts.pairs) return nt_peer_sum_best(m->peers, token, n_row);
    const struct nt_best_pairs_args args = {
        .group = {.rank = m->shard.rank, .size = m->shard.size},
        .gathered = m->acts.pairs_of_all,
        .stride = pair_floats(n_row),
        .token = token,
        .n_row = n_row
    };
    if (m->device_comm) /* a ledger counts it with what follows */
        NT_TRY(nt_device_allgather_f32(m->device_comm, pairs, m->acts.pairs_of_all, args.stride));
    return m->backend->peer_ops->best(m->backend, &args);
}

nt_status nt_model_draw(struct nt_model *m, const struct nt_step *s) {
    const struct nt_logit_sample_args *rules = s->batch.sample;
    const int32_t n_row = s->batch.n_out, left = rules->n_vocab - m->shard.vocab0;
    const bool alone = m->shard.size == 1;
    float *place = alone ? NULL : nt_peer_sum_place(m->peers, pair_floats(n_row));
    float *pairs = place ? place : m->acts.pairs;
    const struct nt_head_argmax_args args = {.x = m->acts.h,
                                             .ldx = m->spec.d_model,
                                             .w = &m->weights.head,
                                             .inv_temp = rules->inv_temp,
                                             .seed = rules->seed,
                                             .stream = rules->stream,
                                             .value = pairs,
                                             .index = alone ? rules->index : (int32_t *)(void *)(pairs + n_row),
                                             .n_row = n_row,
                                             .n_vocab = left < 0                  ? 0
                                                        : left < m->shard.n_vocab ? left
                                                                                  : m->shard.n_vocab,
                                             .first = m->shard.vocab0};
    NT_TRY(m->backend->ops.head_argmax(m->backend, &args));
    return alone ? NT_OK : best_of_ranks(m, pairs, rules->index, n_row);
}
