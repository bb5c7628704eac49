/* Launches of logit_sample. */
#include "sample_cuda.h"
#include "cuda_bodies.h"

nt_status nt_logit_sample_cuda(struct nt_backend *be, const struct nt_logit_sample_args *args) {
    struct nt_logit_sample_cuda a = {.op = *args, .n_chunk = nt_logit_chunks(args->n_vocab)};
    NT_TRY(nt_logit_cuda_check(args->n_vocab, "logit_sample"));
    const size_t chunks = (size_t)args->n_row * (size_t)a.n_chunk;
    const size_t part_bytes = (chunks * sizeof *a.part + 255) / 256 * 256;
    const size_t group_bytes = chunks * NT_TOPK_CHUNK_GROUPS * sizeof *a.group;
    void *memory = NULL;
    NT_TRY(nt_cuda_workspace(be, part_bytes + group_bytes, "logit_sample", &memory));
    a.part = memory;
    a.group = (uint32_t *)((char *)memory + part_bytes);
    NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_sample_chunks, a.n_chunk, args->n_row, 1, NT_LOGIT_THREADS, 0, &a));
    return NT_CUDA_LAUNCH(be, NT_CUDA_sample_pick, args->n_row, 1, 1, NT_TOPK_THREADS, 0, &a);
}
