#include "launch_places.h"
#include "attention_cuda.h"
#include "head_cuda.h"
#include "sample_cuda.h"

int64_t nt_places(size_t workspace, size_t bytes, int64_t n) {
    const int64_t fit = (int64_t)(workspace / (bytes > 0 ? bytes : 1)), most = fit < n ? fit : n;
    return most > 1 ? most : 1;
}

/* ---- rows of logits ---- */

size_t nt_logit_topk_place(int32_t n_vocab) {
    return (size_t)nt_logit_chunks(n_vocab) * NT_TOPK_CHUNK_GROUPS * sizeof(uint32_t);
}

size_t nt_logit_sample_place(int32_t n_vocab) {
    return (size_t)nt_logit_chunks(n_vocab) * sizeof(struct nt_sample_part) + nt_logit_topk_place(n_vocab);
}

size_t nt_head_argmax_place(int32_t n_vocab) {
    return (size_t)((n_vocab + NT_HEAD_COLS - 1) / NT_HEAD_COLS) * sizeof(struct nt_head_pair);
}

/* ---- attention ---- */

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

size_t nt_attn_place(const struct nt_attention_args *a) {
    return (size_t)(nt_d_pad(a->kv->d_head) + 2) * sizeof(float);
}

int32_t nt_attn_prefill_rows(int32_t d_tile) {
    return NT_ATTN_PREFILL_WARPS * 16 * (d_tile <= 128 ? 2 : 1);
}

int32_t nt_attn_prefill_tokens(const struct nt_attention_args *a, size_t workspace) {
    const int32_t rows = nt_attn_prefill_rows(nt_d_pad(a->kv->d_head));
    if (a->max_pos <= NT_ATTN_SPLIT) return a->n_tok;
    /* A tile begins before tok_end and has at most `rows` tokens more. */
    const int64_t n = nt_places(workspace, nt_attn_place(a) * (size_t)a->n_head, (int64_t)a->n_tok + rows) - rows;
    return n > 1 ? (int32_t)n : 1;
}

struct nt_attn_short nt_attn_short_cut(const struct nt_attention_args *a, size_t workspace) {
    const int64_t max_q = least(a->max_q, NT_ATTN_DECODE_Q), window = a->window > 0 ? a->window : a->max_pos;
    struct nt_attn_short c = {.n_seq = a->n_seq};
    /* A window of any length touches one split more than it is long, its start and end being anywhere. */
    c.n_split = (int32_t)least(((int64_t)a->max_pos + NT_ATTN_SPLIT - 1) / NT_ATTN_SPLIT,
                               (window + max_q - 2) / NT_ATTN_SPLIT + 2);
    c.per_seq = max_q * a->n_head * c.n_split;
    if (c.n_split > 1) c.n_seq = (int32_t)nt_places(workspace, nt_attn_place(a) * (size_t)c.per_seq, a->n_seq);
    return c;
}
