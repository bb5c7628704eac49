#include "attention_cuda.h"
#include "attention_sm90_cuda.h"

#include "cpu_math.h"
#include "cuda_bodies.h"
#include "launch_places.h"

/* The kernels by width of the tile: the first row that d_pad fits. */
static const struct {
    int32_t d;
    enum nt_cuda_kernel prefill[2], decode[2]; /* bf16 cache, int8 cache */
} widths[] = {
    {64,
     {NT_CUDA_attention_d64, NT_CUDA_attention_int8_d64},
     {NT_CUDA_attention_decode_d64, NT_CUDA_attention_decode_int8_d64}  },
    {96,
     {NT_CUDA_attention_d96, NT_CUDA_attention_int8_d96},
     {NT_CUDA_attention_decode_d96, NT_CUDA_attention_decode_int8_d96}  },
    {128,
     {NT_CUDA_attention_d128, NT_CUDA_attention_int8_d128},
     {NT_CUDA_attention_decode_d128, NT_CUDA_attention_decode_int8_d128}},
    {256,
     {NT_CUDA_attention_d256, NT_CUDA_attention_int8_d256},
     {NT_CUDA_attention_decode_d256, NT_CUDA_attention_decode_int8_d256}},
};
enum { N_WIDTHS = sizeof widths / sizeof widths[0], MAX_POS = 1 << 30, MAX_GRID_YZ = 65535 };

static int find_width(int32_t d_pad) {
    int w = 0;
    while (w < N_WIDTHS && widths[w].d < d_pad) w++;
    return w;
}

static nt_status check(const struct nt_attention_args *a) {
    const struct nt_kv_layer *kv = a->kv;
    if (kv->format != NT_KV_ROWS && kv->format != NT_KV_ROWS_INT8)
        return NT_FAIL(NT_E_UNSUPPORTED, "attention on CUDA reads a cache in rows of bf16 or int8, not format %d",
                       (int)kv->format);
    if (kv->d_head < 2 || kv->d_head % 2 || kv->d_head > NT_ATTN_CUDA_MAX_D)
        return NT_FAIL(NT_E_UNSUPPORTED, "attention on CUDA takes an even d_head of 2 to %d, not %d",
                       NT_ATTN_CUDA_MAX_D, kv->d_head);
    if (a->n_seq > MAX_GRID_YZ)
        return NT_FAIL(NT_E_UNSUPPORTED, "attention on CUDA takes at most %d sequences, not %d", MAX_GRID_YZ, a->n_seq);
    if (a->max_q < 1 || a->min_q > a->max_q || a->max_pos < a->max_q || a->max_pos > MAX_POS)
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "attention on CUDA needs 1 <= max_q <= max_pos <= %d and no larger min_q, got %d, %d and %d",
                       MAX_POS, a->max_q, a->max_pos, a->min_q);
    if (a->n_head < 1 || kv->n_kv < 1 || a->window < 0)
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "attention on CUDA needs heads, KV heads and no negative window, got %d, %d and %d", a->n_head,
                       kv->n_kv, a->window);
    if (kv->page_stride % 8 != 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "attention on CUDA reads pages of a multiple of 8 numbers, not %lld",
                       (long long)kv->page_stride);
    NT_CHECK(((uintptr_t)a->q | (uintptr_t)kv->base) % 16 == 0); /* cp.async; of allocations, not of a shape */
    return NT_OK;
}

static int32_t least(int64_t a, int64_t b) {
    return (int32_t)(a < b ? a : b);
}

/* The workspace as `places` accumulators and then their (maximum, sum). */
static nt_status take_places(struct nt_backend *be, const struct nt_attention_args *a, struct nt_attn_launch *l,
                             int64_t places) {
    void *memory;
    NT_TRY(nt_cuda_workspace(be, (size_t)places * nt_attn_place(a), "attention", &memory));
    l->state = memory;
    l->state_ml = l->state + places * l->d_pad;
    return NT_OK;
}

/* Devices of compute capability 8.6 and 8.9 have 99 KiB a block. */
static nt_status check_shared(const struct nt_backend *be, enum nt_cuda_kernel kernel, size_t shared, int32_t d_head,
                              bool int8) {
    const struct nt_cuda_facts *f = &be->cuda->facts;
    if (shared <= (size_t)be->cuda->functions[kernel].max_dynamic_shared) return NT_OK;
    return NT_FAIL(NT_E_UNSUPPORTED,
                   "attention over heads of %d values needs %zu bytes of shared memory a block, and %s has %d%s",
                   d_head, shared, f->name, f->max_shared,
                   int8 ? "" : "; an int8 cache (generate.kv_cache_dtype = int8) takes less");
}

static nt_status launch_prefill(struct nt_backend *be, const struct nt_attention_args *a,
                                const struct nt_attn_launch *l, int w, int64_t tiles) {
    const bool int8 = a->kv->format == NT_KV_ROWS_INT8;
    const int32_t d = widths[w].d, rows = nt_attn_prefill_rows(d);
    const size_t shared = (size_t)NT_ATTN_SHARED(d, rows, NT_ATTN_PREFILL_HALVES(d), int8);
    if (nt_attention_sm90_takes(be, a)) return nt_attention_sm90(be, a, l, tiles);
    NT_TRY(check_shared(be, widths[w].prefill[int8], shared, l->d_head, int8));
    return NT_CUDA_LAUNCH(be, widths[w].prefill[int8], tiles, l->n_seq, 1, NT_ATTN_PREFILL_WARPS * 32, shared, l);
}

/* Sequences with more than NT_ATTN_DECODE_Q tokens. Where states are parked, as many tokens a launch as have a place.
 */
static nt_status prefill(struct nt_backend *be, const struct nt_attention_args *a, struct nt_attn_launch l, int w) {
    const int32_t rows = nt_attn_prefill_rows(widths[w].d);
    const int64_t tiles = nt_attn_tiles(a->max_q, a->max_group, a->n_head, rows) * a->kv->n_kv;
    const int32_t step = nt_attn_prefill_tokens(a, be->cuda->workspace_bytes);
    l.min_q = NT_ATTN_DECODE_Q + 1;
    l.max_q = a->max_q;
    if (a->max_pos > NT_ATTN_SPLIT) NT_TRY(take_places(be, a, &l, (int64_t)(step + rows) * a->n_head));
    for (int32_t tok = 0; tok < a->n_tok; tok += step) {
        l.tok_begin = tok;
        l.tok_end = l.state ? least((int64_t)tok + step, a->n_tok) : INT32_MAX;
        NT_TRY(launch_prefill(be, a, &l, w, tiles));
    }
    return NT_OK;
}

/* Sequences with 1 to NT_ATTN_DECODE_Q tokens; as many a launch as the workspace has places for. */
static nt_status decode(struct nt_backend *be, const struct nt_attention_args *a, struct nt_attn_launch l, int w) {
    const bool int8 = a->kv->format == NT_KV_ROWS_INT8;
    const int32_t d = widths[w].d;
    const size_t shared = (size_t)NT_ATTN_DECODE_SHARED(d, int8);
    const int64_t tiles = a->n_head / NT_ATTN_DECODE_ROWS + a->kv->n_kv; /* of one token */
    const struct nt_attn_short cut = nt_attn_short_cut(a, be->cuda->workspace_bytes);
    NT_TRY(check_shared(be, widths[w].decode[int8], shared, l.d_head, int8));
    l.min_q = 1;
    l.max_q = least(a->max_q, NT_ATTN_DECODE_Q);
    l.n_split = cut.n_split;
    if (l.n_split > 1) NT_TRY(take_places(be, a, &l, cut.n_seq * cut.per_seq));
    for (int32_t seq = 0; seq < a->n_seq; seq += cut.n_seq) {
        l.seqs = a->seqs + seq;
        l.n_seq = least(cut.n_seq, a->n_seq - seq);
        NT_TRY(NT_CUDA_LAUNCH(be, widths[w].decode[int8], tiles * l.max_q, l.n_split, l.n_seq,
                              NT_ATTN_DECODE_WARPS * 32, shared, &l));
        if (l.n_split == 1) continue;
        const int64_t warps = NT_ATTN_MERGE_THREADS / 32, n_row = (int64_t)l.n_seq * l.max_q * a->n_head;
        NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_attention_merge, (n_row + warps - 1) / warps, 1, 1, NT_ATTN_MERGE_THREADS, 0,
                              &l));
    }
    return NT_OK;
}

nt_status nt_attention_cuda_prepare(const struct nt_attention_args *args, struct nt_attn_launch *out) {
    const struct nt_kv_layer *kv = args->kv;
    NT_TRY(check(args));
    *out = (struct nt_attn_launch){
        .q = args->q,
        .cache = (const unsigned char *)kv->base,
        .seqs = args->seqs,
        .kv_of_head = args->kv_of_head,
        .out = args->out,
        .lse = args->lse,
        .ldo = args->ldo,
        .page_bytes = kv->page_stride * (int64_t)sizeof(nt_bf16),
        .head_bytes = nt_kv_head_elems(kv->format, kv->d_head) * (int64_t)sizeof(nt_bf16),
        .scale_log2 = args->scale * NT_LOG2E,
        .span = args->window > 0 && args->window < MAX_POS ? args->window - 1 : MAX_POS,
        .n_seq = args->n_seq,
        .n_head = args->n_head,
        .n_kv = kv->n_kv,
        .d_head = kv->d_head,
        .d_pad = nt_d_pad(kv->d_head),
        .n_split = 1,
    };
    return NT_OK;
}

nt_status nt_attention_cuda(struct nt_backend *be, const struct nt_attention_args *args) {
    struct nt_attn_launch l;
    if (args->n_seq == 0 || args->n_tok == 0) return NT_OK;
    NT_TRY(nt_attention_cuda_prepare(args, &l));
    const int w = find_width(l.d_pad);
    if (args->max_q > NT_ATTN_DECODE_Q) NT_TRY(prefill(be, args, l, w));
    return args->min_q <= NT_ATTN_DECODE_Q ? decode(be, args, l, w) : NT_OK;
}
