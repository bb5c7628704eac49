/* Launches of rope_kv. */
#include "rope_cuda.h"
#include "cuda_bodies.h"

nt_status nt_rope_kv_cuda(struct nt_backend *be, const struct nt_rope_kv_args *args) {
    const struct nt_kv_layer *kv = args->kv;
    const int32_t d = kv->d_head, n_heads = args->n_head + 2 * kv->n_kv;
    if (d % 2 != 0 || d > NT_ROPE_CUDA_MAX_D)
        return NT_FAIL(NT_E_UNSUPPORTED, "rope_kv on CUDA needs an even d_head of at most %d, not %d",
                       NT_ROPE_CUDA_MAX_D, d);
    if (kv->format != NT_KV_ROWS && kv->format != NT_KV_ROWS_INT8)
        return NT_FAIL(NT_E_UNSUPPORTED, "rope_kv on CUDA writes a cache of rows, not the paired layout of CPUs");
    if (args->n_seq == 0) return NT_OK;
    const struct nt_rope_cuda a = {.qkv = args->qkv,
                                   .q = args->q,
                                   .pages = (char *)kv->base,
                                   .page_bytes = kv->page_stride * (int64_t)sizeof(nt_bf16),
                                   .head_bytes = nt_kv_head_elems(kv->format, d) * (int64_t)sizeof(nt_bf16),
                                   .seqs = args->seqs,
                                   .cos = args->cos,
                                   .sin = args->sin,
                                   .q_norm = args->q_norm,
                                   .k_norm = args->k_norm,
                                   .eps = args->eps,
                                   .n_seq = args->n_seq,
                                   .n_head = args->n_head,
                                   .n_kv = kv->n_kv,
                                   .d_head = d,
                                   .d_pad = nt_d_pad(d)};
    /* A head per warp while that fills the device; else a block walks over all heads of its token. */
    enum { MANY_TOKENS = 1024 };
    const int32_t groups = args->n_tok >= MANY_TOKENS ? 1 : (n_heads + NT_ROPE_WARPS - 1) / NT_ROPE_WARPS;
    return NT_CUDA_LAUNCH(be, kv->format == NT_KV_ROWS ? NT_CUDA_rope_kv_bf16 : NT_CUDA_rope_kv_int8, args->n_tok,
                          groups, 1, 32 * NT_ROPE_WARPS, 0, &a);
}
