/* Launches of attention_bwd. */
#include "attention_bwd_cuda.h"

#include "cuda_bodies.h"

/* The kernels by width of the tile: the first row that d_pad fits. */
#define WIDTH(d)                                                                                                       \
    {                                                                                                                  \
        d, NT_ATTN_BWD_KEY_WARPS(d) * 32, NT_ATTN_BWD_PAGES(d) * NT_KV_PAGE, NT_ATTN_BWD_ROWS(d),                      \
            NT_CUDA_attention_bwd_keys_d##d, NT_CUDA_attention_bwd_queries_d##d, NT_ATTN_BWD_KEYS_SHARED(d),           \
            NT_ATTN_BWD_QUERIES_SHARED(d)                                                                              \
    }
static const struct {
    int32_t d, key_threads, keys, rows; /* of a block of dk and dv; of a tile of dq */
    enum nt_cuda_kernel dkdv, dq;
    int32_t keys_shared, queries_shared;
} widths[] = {WIDTH(64), WIDTH(96), WIDTH(128), WIDTH(256)};
#undef WIDTH

static nt_status fill(const struct nt_attention_bwd_args *args, struct nt_attn_bwd_launch *l) {
    const struct nt_kv_layer *kv = args->kv;
    const struct nt_attention_args forward = {.q = args->q,
                                              .kv = kv,
                                              .seqs = args->seqs,
                                              .kv_of_head = args->kv_of_head,
                                              .lse = (float *)(uintptr_t)args->lse,
                                              .ldo = args->ldo,
                                              .scale = args->scale,
                                              .window = args->window,
                                              .n_seq = args->n_seq,
                                              .n_tok = args->n_tok,
                                              .n_head = args->n_head,
                                              .max_q = args->max_q,
                                              .max_pos = args->max_q};
    if (kv->format == NT_KV_ROWS_INT8)
        return NT_FAIL(NT_E_UNSUPPORTED, "attention_bwd on CUDA reads a cache in rows of bf16, not of int8");
    *l = (struct nt_attn_bwd_launch){.out = args->out,
                                     .dout = args->dout,
                                     .dqkv = args->dqkv,
                                     .ldo = args->ldo,
                                     .lddo = args->lddo,
                                     .width = (int64_t)(args->n_head + 2 * kv->n_kv) * kv->d_head,
                                     .scale = args->scale};
    NT_TRY(nt_attention_cuda_prepare(&forward, &l->f));
    l->f.min_q = 1;
    l->f.max_q = args->max_q;
    l->f.tok_end = INT32_MAX;
    NT_CHECK((uintptr_t)args->dqkv % 8 == 0); /* stored in pairs; of the allocation, not of a shape */
    /* bf16 rows of d_pad columns in the place of f32 rows of d_head, copied 16 bytes at a time */
    l->staged = kv->d_head % 4 == 0 && kv->d_head >= 8 && args->lddo % 4 == 0 && args->ldo % 4 == 0 &&
                ((uintptr_t)args->dqkv | (uintptr_t)args->dout) % 16 == 0 && (uintptr_t)args->out % 8 == 0;
    return NT_OK;
}

nt_status nt_attention_bwd_cuda(struct nt_backend *be, const struct nt_attention_bwd_args *args) {
    struct nt_attn_bwd_launch l;
    void *memory;
    size_t w = 0;
    if (args->n_seq == 0 || args->n_tok == 0) return NT_OK;
    NT_TRY(fill(args, &l));
    NT_TRY(nt_cuda_workspace(be, (size_t)args->n_tok * (size_t)args->n_head * 2 * sizeof *l.stats, "attention_bwd",
                             &memory));
    l.stats = memory;
    while (widths[w].d < l.f.d_pad) w++;
    const int64_t n_key = nt_ceil_div(args->max_q, widths[w].keys);
    const int64_t all = (int64_t)args->max_q * args->n_head; /* each KV head's last tile may be part */
    const int64_t tiles = nt_attn_tiles(args->max_q, args->max_group, args->n_head, widths[w].rows) * l.f.n_kv;
    if (n_key > 65535)
        return NT_FAIL(NT_E_UNSUPPORTED, "attention_bwd on CUDA takes at most %d tokens of a sequence, not %d",
                       65535 * widths[w].keys, args->max_q);
    NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_attention_bwd_delta,
                          nt_ceil_div(all / NT_ATTN_BWD_DELTA_ROWS + l.f.n_kv, NT_ATTN_PREFILL_WARPS), args->n_seq, 1,
                          NT_ATTN_PREFILL_WARPS * 32, 0, &l));
    NT_TRY(NT_CUDA_LAUNCH(be, widths[w].dkdv, l.f.n_kv, (int32_t)n_key, args->n_seq, widths[w].key_threads,
                          (size_t)widths[w].keys_shared, &l));
    NT_TRY(NT_CUDA_LAUNCH(be, widths[w].dq, tiles, args->n_seq, 1, NT_ATTN_PREFILL_WARPS * 32,
                          (size_t)widths[w].queries_shared, &l));
    return NT_OK;
}
