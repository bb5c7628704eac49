/* What the attention kernels are launched with (attention.cu, attention_sm90.cu, attention_decode.cu; host side
 * attention_cuda.c).
 *
 * Splits: the positions of a sequence are cut every NT_ATTN_SPLIT, counted from position 0. Within a split the pages
 * are one online softmax, splits are merged in ascending order. All kernels and every tile follow this one order of
 * sums, so a row's bits do not depend on which kernel computed it, on its tile, its chunk or its neighbours. Workspace:
 * one float [d_pad] and one float2 (maximum, sum) per place, floats first. The prefill kernels park a row's running
 * state there between splits: place (row of the step - tok_begin) * n_head + head. The decode kernel leaves its partial
 * results for nt_attention_merge: place ((seq * max_q + tok) * n_head + head) * n_split + split. Fixed-width types and
 * pointers only: the same bytes for gcc and nvcc. No state. Errors: NT_E_UNSUPPORTED of nt_attention_cuda_prepare. */
#ifndef NT_ATTENTION_CUDA_H
#define NT_ATTENTION_CUDA_H

#include "ops.h"

enum {
    NT_ATTN_SPLIT = 512, /* positions */
    NT_ATTN_SPLIT_PAGES = NT_ATTN_SPLIT / NT_KV_PAGE,
    NT_ATTN_DECODE_Q = 4, /* sequences with more tokens in a step are the prefill kernels' */
    NT_ATTN_CUDA_MAX_D = 256,
    NT_ATTN_PREFILL_WARPS = 4,
    NT_ATTN_MERGE_THREADS = 128,
    NT_ATTN_BOX = NT_KV_PAGE * 128,                      /* bytes of 64 columns of a page as TMA copies them */
    NT_ATTN_SCALES = 2 * NT_KV_PAGE * (int)sizeof(float) /* bytes behind the int8 values of a head's page */
};

/* Rows of a tile: (token, head of the KV head's group), token-major; of prefill as nt_attn_prefill_rows says. */
enum { NT_ATTN_DECODE_ROWS = 16, NT_ATTN_DECODE_WARPS = 2 };

struct nt_attn_launch {
    const nt_bf16 *q;               // [n_tok, n_head, d_pad]
    const unsigned char *cache;     /* page 0 of the layer */
    const struct nt_attn_seq *seqs; // [n_seq]
    const int32_t *kv_of_head;      // [n_head]
    nt_bf16 *out;                   // [n_tok, ldo]
    float *lse;                     // [n_tok, n_head] or NULL
    float *state;                   /* the places' accumulators; NULL: no sequence has two splits */
    float *state_ml;                /* the places' maxima and sums */
    int64_t ldo, page_bytes, head_bytes;
    float scale_log2; /* scale * log2(e) */
    int32_t span;     /* window - 1, or more than any position */
    int32_t n_seq, n_head, n_kv, d_head, d_pad;
    int32_t min_q, max_q;       /* the kernel skips sequences outside [min_q, max_q] */
    int32_t n_split;            /* places per row, decode only */
    int32_t tok_begin, tok_end; /* prefill: tiles whose first token is in this range of rows of the step */
};

#ifndef __CUDACC__
/* Tiles of `rows` rows of a KV head at most; max_group 0: any number of the heads may be its. */
static inline int64_t nt_attn_tiles(int32_t max_q, int32_t max_group, int32_t n_head, int32_t rows) {
    return ((int64_t)max_q * (max_group > 0 ? max_group : n_head) + rows - 1) / rows;
}

/* Checks the args and fills in all that follows from them: the tables' and the cache's part, one split. For the
 * launchers of attention and of its gradient. */
NT_MUST nt_status nt_attention_cuda_prepare(const struct nt_attention_args *args, struct nt_attn_launch *out);
#endif

/* Bytes of dynamic shared memory. Prefill: q rows, then `halves` buffers of K or V of one page, then what the block
 * knows of its tile. Decode: q rows, later the scores that the warps exchange, then the buffers. */
#define NT_ATTN_TILE_BYTES 128
#define NT_ATTN_SHARED(d, rows, halves, int8)                                                                          \
    (NT_ATTN_TILE_BYTES + (rows) * (d)*2 + (halves) * ((int8) ? NT_KV_PAGE * (d) + NT_ATTN_SCALES : NT_KV_PAGE * (d)*2))
#define NT_ATTN_PREFILL_HALVES(d) ((d) <= 128 ? 3 : 2)
#define NT_ATTN_DECODE_HALVES(d)  ((d) <= 128 ? 4 : 3)
#define NT_ATTN_DECODE_FRONT(d)   (NT_ATTN_DECODE_ROWS * 2 * ((d) < 2 * NT_KV_PAGE ? 2 * NT_KV_PAGE : (d)))
#define NT_ATTN_DECODE_SHARED(d, int8)                                                                                 \
    (NT_ATTN_DECODE_FRONT(d) +                                                                                         \
     NT_ATTN_DECODE_HALVES(d) * ((int8) ? NT_KV_PAGE * (d) + NT_ATTN_SCALES / 2 : NT_KV_PAGE * (d)*2))

#endif
