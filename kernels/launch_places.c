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

/* ---- gradients of weights ---- */

/* Tiles of 64 x 64 that keep a device busy, two for each multiprocessor of an H100: with fewer, blocks of tokens run
 * beside each other. Their sums are then written and read once each, and so is dw in the other case; the join is one
 * launch more. Not of the device at hand, so that who counts launches needs none. A grid has at most 65535 of them. */
enum { WGRAD_TILE = 64, WGRAD_TILES = 2 * 132, WGRAD_GRID = 65535 };

struct nt_wgrad_cut nt_wgrad_cut(const struct nt_gemm_wgrad_args *a, size_t workspace) {
    const int64_t n_block = ((int64_t)a->n_tok + NT_WGRAD_TOKENS - 1) / NT_WGRAD_TOKENS;
    const int64_t down = ((int64_t)a->m + WGRAD_TILE - 1) / WGRAD_TILE;
    const int64_t tiles = down * (((int64_t)a->n + WGRAD_TILE - 1) / WGRAD_TILE);
    struct nt_wgrad_cut c = {.place = (size_t)a->m * (size_t)a->n * sizeof(float)};
    if (n_block <= 1 || tiles >= WGRAD_TILES) return (struct nt_wgrad_cut){0};
    const int64_t most = nt_places(workspace, c.place, least(n_block, WGRAD_GRID)), n = (n_block + most - 1) / most;
    c.n_block = (n_block + n - 1) / n; /* launches of the same size, about */
    return c;
}
