/* Launches of attention_bwd: by mma.sync (attention_bwd.cu) or by wgmma (attention_bwd_sm90.cu). */
#include "attention_bwd_sm90_cuda.h"

#include "cuda_bodies.h"
#include "cuda_granted.h"

/* One of the two, for heads of up to d columns. */
struct half {
    enum nt_cuda_kernel kernel;
    int32_t lines, threads, shared; /* keys of a block of dk and dv, rows of a tile of dq */
};
struct width {
    int32_t d;
    struct half dkdv, dq;
};
#define KEYS(d)                                                                                                        \
    {                                                                                                                  \
        NT_CUDA_attention_bwd_keys_d##d, NT_ATTN_BWD_PAGES(d) * NT_KV_PAGE, NT_ATTN_BWD_KEY_WARPS(d) * 32,             \
            NT_ATTN_BWD_KEYS_SHARED(d)                                                                                 \
    }
#define QUERIES(d)                                                                                                     \
    {                                                                                                                  \
        NT_CUDA_attention_bwd_queries_d##d, NT_ATTN_BWD_ROWS(d), NT_ATTN_PREFILL_WARPS * 32,                           \
            NT_ATTN_BWD_QUERIES_SHARED(d)                                                                              \
    }
static const struct width widths[] = {
    {64,  KEYS(64),  QUERIES(64) },
    {96,  KEYS(96),  QUERIES(96) },
    {128, KEYS(128), QUERIES(128)},
    {256, KEYS(256), QUERIES(256)},
};
#undef KEYS
#undef QUERIES
#define HALF(half, d, shared)                                                                                          \
    { NT_CUDA_attention_bwd_sm90_##half##_d##d, NT_ATTN_BWD_SM90_ROWS, NT_ATTN_BWD_SM90_THREADS, (shared) }
#define WIDTH(d)                                                                                                       \
    {(d), HALF(keys, d, NT_ATTN_BWD_SM90_KEYS_SHARED(d)), HALF(queries, d, NT_ATTN_BWD_SM90_QUERIES_SHARED(d))},
static const struct width sm90_widths[] = {NT_ATTN_BWD_SM90_WIDTHS(WIDTH)};
#undef HALF
#undef WIDTH
enum { N_SM90 = sizeof sm90_widths / sizeof sm90_widths[0] };

#define CHECK(d)                                                                                                       \
    _Static_assert(nt_granted_attention_bwd_sm90_keys_d##d == NT_ATTN_BWD_SM90_KEYS_SHARED(d), "cuda_kernels.def");    \
    _Static_assert(nt_granted_attention_bwd_sm90_queries_d##d == NT_ATTN_BWD_SM90_QUERIES_SHARED(d),                   \
                   "cuda_kernels.def");                                                                                \
    _Static_assert(NT_ATTN_BWD_SM90_KEYS_SHARED(d) + 1024 <= 228 * 1024, "more than an H100 has");
NT_ATTN_BWD_SM90_WIDTHS(CHECK)
#undef CHECK
_Static_assert(2 * NT_ATTN_BWD_SM90_PAGES * 8 <= NT_GEMM_SM90_BARRIERS, "two mbarriers a stage");

/* Both add in the same order. */
static const struct width *width_of(const struct nt_backend *be, int32_t d_pad) {
    const bool wgmma = nt_cuda_has(be, sm90_widths[0].dkdv.kernel) && d_pad <= sm90_widths[N_SM90 - 1].d;
    const struct width *w = wgmma ? sm90_widths : widths;
    while (w->d < d_pad) w++;
    return w;
}

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
    if (args->n_seq == 0 || args->n_tok == 0) return NT_OK;
    NT_TRY(fill(args, &l));
    NT_TRY(nt_cuda_workspace(be, (size_t)args->n_tok * (size_t)args->n_head * 2 * sizeof *l.stats, "attention_bwd",
                             &memory));
    l.stats = memory;
    const struct width *w = width_of(be, l.f.d_pad);
    const int64_t n_key = nt_ceil_div(args->max_q, w->dkdv.lines);
    const int64_t all = (int64_t)args->max_q * args->n_head; /* each KV head's last tile may be part */
    const int64_t tiles = nt_attn_tiles(args->max_q, args->max_group, args->n_head, w->dq.lines) * l.f.n_kv;
    if (n_key > 65535)
        return NT_FAIL(NT_E_UNSUPPORTED, "attention_bwd on CUDA takes at most %d tokens of a sequence, not %d",
                       65535 * w->dkdv.lines, args->max_q);
    NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_attention_bwd_delta,
                          nt_ceil_div(all / NT_ATTN_BWD_DELTA_ROWS + l.f.n_kv, NT_ATTN_PREFILL_WARPS), args->n_seq, 1,
                          NT_ATTN_PREFILL_WARPS * 32, 0, &l));
    NT_TRY(NT_CUDA_LAUNCH(be, w->dkdv.kernel, l.f.n_kv, (int32_t)n_key, args->n_seq, w->dkdv.threads,
                          (size_t)w->dkdv.shared, &l));
    return NT_CUDA_LAUNCH(be, w->dq.kernel, tiles, args->n_seq, 1, w->dq.threads, (size_t)w->dq.shared, &l);
}
