#include "cuda_check_attention.h"

#include "attention_cuda.h"
#include "rng.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 20, POS0 = 500, HEADS = 4, FEW = NT_ATTN_DECODE_Q };
enum { PAGES = (POS0 + CHUNK + NT_KV_PAGE - 1) / NT_KV_PAGE };
_Static_assert((int)POS0 / (int)NT_ATTN_SPLIT < (POS0 + CHUNK - 1) / (int)NT_ATTN_SPLIT,
               "a new state begins in the chunk");

struct chunk {
    struct nt_kv_layer kv;
    int32_t pages[PAGES], kv_of_head[HEADS];
    nt_bf16 *cache, *q, *whole, *few;           // q, whole, few: [CHUNK, HEADS, d]
    size_t cache_elems, row_elems, chunk_elems; /* of all pages, a token, all tokens */
};

static void fill(nt_bf16 *x, size_t n, uint64_t stream) {
    for (size_t i = 0; i < n; i++) {
        uint32_t word[4];
        nt_philox(13, stream, i, word);
        x[i] = nt_f32_to_bf16(2 * nt_unit_float(word[0]) - 1);
    }
}

static nt_status make(struct chunk *c, int32_t d) {
    *c = (struct chunk){
        .kv = {.page_stride = nt_kv_head_elems(NT_KV_PAIRED, d), .n_kv = 1, .d_head = d}
    };
    c->cache_elems = (size_t)(PAGES * c->kv.page_stride);
    c->row_elems = (size_t)HEADS * (size_t)d;
    c->chunk_elems = (size_t)CHUNK * c->row_elems;
    for (int32_t i = 0; i < PAGES; i++) c->pages[i] = PAGES - 1 - i;
    c->cache = calloc(c->cache_elems + 3 * c->chunk_elems, sizeof *c->cache);
    if (!c->cache) return NT_FAIL(NT_E_NOMEM, "no memory for a chunk");
    c->kv.base = c->cache;
    c->q = c->cache + c->cache_elems;
    c->whole = c->q + c->chunk_elems;
    c->few = c->whole + c->chunk_elems;
    fill(c->cache, c->cache_elems, 0);
    fill(c->q, c->chunk_elems, 1);
    return NT_OK;
}

/* n tokens from the chunk's token `first` on. */
static nt_status run(struct nt_backend *staged, struct chunk *c, int32_t first, int32_t n, nt_bf16 *out) {
    const struct nt_attn_seq seq = {.q_row = first, .n_q = n, .pos0 = POS0 + first, .pages = c->pages};
    const struct nt_attention_args a = {.q = c->q,
                                        .kv = &c->kv,
                                        .seqs = &seq,
                                        .kv_of_head = c->kv_of_head,
                                        .out = out,
                                        .ldo = (int64_t)c->row_elems,
                                        .scale = 2.8f / sqrtf((float)c->kv.d_head),
                                        .n_seq = 1,
                                        .n_tok = CHUNK,
                                        .n_head = HEADS};
    return staged->ops.attention(staged, &a);
}

/* The chunk, then its first and its last tokens alone. */
static nt_status compare(struct nt_backend *staged, struct chunk *c, bool *same) {
    const size_t bytes = (size_t)FEW * c->row_elems * sizeof *c->few;
    *same = true;
    NT_TRY(run(staged, c, 0, CHUNK, c->whole));
    for (int32_t first = 0; first < CHUNK; first += CHUNK - FEW) {
        const size_t at = (size_t)first * c->row_elems;
        NT_TRY(run(staged, c, first, FEW, c->few));
        *same = *same && memcmp(c->whole + at, c->few + at, bytes) == 0;
    }
    return NT_OK;
}

static void add_row(struct nt_cuda_check *out, struct nt_backend *staged, struct nt_backend *be, int32_t d) {
    int64_t before[NT_CUDA_KERNEL_COUNT];
    struct nt_cuda_check_row row = {.op = NT_OP_attention, .difference = INFINITY};
    struct chunk c;
    bool same = false;
    (void)snprintf(row.name, sizeof row.name, "attention d_head %d, %s cache, tokens alone", d,
                   be->kv_format == NT_KV_ROWS_INT8 ? "int8" : "bf16");
    nt_cuda_check_begin(be, before);
    nt_status st = make(&c, d);
    if (st == NT_OK) st = compare(staged, &c, &same);
    if (same) row.difference = 0;
    free(c.cache);
    nt_cuda_check_add(out, be, row, st, before);
}

void nt_cuda_check_attention(struct nt_cuda_check *out, struct nt_backend *staged, struct nt_backend *be, bool small) {
    static const int32_t widths[] = {64, 128, 96, 256}; /* small: the first two */
    for (int int8 = 0; int8 < (small ? 1 : 2); int8++) {
        be->kv_format = int8 ? NT_KV_ROWS_INT8 : NT_KV_ROWS;
        for (int w = 0; w < (small ? 2 : 4) && !out->lost; w++) add_row(out, staged, be, widths[w]);
    }
    be->kv_format = NT_KV_ROWS;
}
