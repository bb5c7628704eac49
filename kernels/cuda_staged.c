#include "cuda_staged.h"

#include "cuda_backend.h"
#include "cuda_staged_kv.h"
#include "ops_bwd.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ITEMS = 64 };

/* The operands of one call on the device. */
struct stage {
    struct nt_backend *cuda;
    nt_status st;    /* of the first operand that failed; later ones are skipped */
    bool keep_place; /* operands lie within 16 bytes as they do on the host; otherwise on a multiple */
    int n;
    struct {
        void *host;   /* where an output goes, or NULL */
        char *device; /* taken: `skip` bytes before the operand */
        size_t bytes, skip;
    } items[MAX_ITEMS];
};

static struct stage begin(struct nt_backend *be) {
    return (struct stage){.cuda = be->watch_arg, .st = NT_OK};
}

/* For ops whose kernels take any alignment. */
static struct stage begin_in_place(struct nt_backend *be) {
    struct stage s = begin(be);
    s.keep_place = true;
    return s;
}

static nt_status put(struct stage *s, const void *from, void *back, size_t bytes, void **out) {
    NT_CHECK(s->n < MAX_ITEMS);
    const size_t skip = s->keep_place ? (uintptr_t)from % 16 : 0;
    NT_TRY(s->cuda->memory->take(s->cuda, bytes + skip, "an operand", out));
    s->items[s->n].host = back;
    s->items[s->n].device = *out;
    s->items[s->n].bytes = bytes;
    s->items[s->n].skip = skip;
    s->n++;
    *out = (char *)*out + skip;
    NT_TRY(s->cuda->memory->upload(s->cuda, *out, from, bytes));
    return NT_OK;
}

/* An input; NULL stays NULL. */
static void *in(struct stage *s, const void *host, size_t bytes) {
    void *device = NULL;
    if (host && s->st == NT_OK) s->st = put(s, host, NULL, bytes, &device);
    return device;
}

/* An output, or an operand that is changed in place. */
static void *inout(struct stage *s, void *host, size_t bytes) {
    void *device = NULL;
    if (host && s->st == NT_OK) s->st = put(s, host, host, bytes, &device);
    return device;
}

static nt_status bring_back(struct stage *s) {
    NT_TRY(s->cuda->memory->wait(s->cuda));
    for (int i = 0; i < s->n; i++) {
        const char *from = s->items[i].device + s->items[i].skip;
        if (!s->items[i].host) continue;
        NT_TRY(s->cuda->memory->download(s->cuda, s->items[i].host, from, s->items[i].bytes));
    }
    return NT_OK;
}

static nt_status end(struct stage *s, nt_status st) {
    if (st == NT_OK) st = bring_back(s);
    for (int i = s->n - 1; i >= 0; i--)
        s->cuda->memory->give(s->cuda, s->items[i].device, s->items[i].bytes + s->items[i].skip);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

/* The body of `op` on staged args, if all operands arrived. */
#define RUN(s, op, args) end((s), (s)->st == NT_OK ? (s)->cuda->ops.op((s)->cuda, (args)) : (s)->st)

/* Bytes of rows of `width` elements, ld apart: nothing behind the last. */
static size_t matrix(int64_t rows, int64_t ld, int64_t width, size_t element) {
    return rows > 0 ? (size_t)((rows - 1) * ld + width) * element : 0;
}

static size_t vector(int64_t count, size_t element) {
    return (size_t)count * element;
}

static int64_t rows_used(const int32_t *rows, int32_t n) {
    int64_t used = 0;
    for (int32_t i = 0; i < n; i++)
        if (rows[i] >= used) used = rows[i] + 1;
    return used;
}

/* ---- embed, rmsnorm, gather ---- */

static nt_status staged_embed(struct nt_backend *be, const struct nt_embed_args *args) {
    struct stage s = begin(be);
    struct nt_embed_args a = *args;
    a.ids = in(&s, args->ids, vector(args->n_tok, sizeof *args->ids));
    a.table = in(&s, args->table, matrix(args->n_rows, args->d_model, args->d_model, sizeof *args->table));
    a.x = inout(&s, args->x, matrix(args->n_tok, args->d_model, args->d_model, sizeof *args->x));
    return RUN(&s, embed, &a);
}

static nt_status staged_rmsnorm(struct nt_backend *be, const struct nt_rmsnorm_args *args) {
    struct stage s = begin(be);
    struct nt_rmsnorm_args a = *args;
    const int64_t n_tok = args->rows ? rows_used(args->rows, args->n_rows) : args->n_rows;
    const size_t x_bytes = matrix(n_tok, args->d_model, args->d_model, sizeof *args->x);
    a.x = inout(&s, args->x, x_bytes);
    a.delta = in(&s, args->delta, x_bytes);
    a.w = in(&s, args->w, vector(args->d_model, sizeof *args->w));
    a.y = inout(&s, args->y, matrix(args->n_rows, args->ldy, args->d_model, sizeof *args->y));
    a.keep = inout(&s, args->keep, matrix(args->n_rows, args->d_model, args->d_model, sizeof *args->keep));
    a.rows = in(&s, args->rows, vector(args->n_rows, sizeof *args->rows));
    return RUN(&s, rmsnorm, &a);
}

static nt_status staged_gather(struct nt_backend *be, const struct nt_gather_args *args) {
    struct stage s = begin(be);
    struct nt_gather_args a = *args;
    a.from = in(&s, args->from, (size_t)(rows_used(args->rows, args->n_rows) * args->bytes));
    a.to = inout(&s, args->to, (size_t)(args->n_rows * args->bytes));
    a.rows = in(&s, args->rows, vector(args->n_rows, sizeof *args->rows));
    return RUN(&s, gather, &a);
}

/* ---- gemm ---- */

/* Panels to rows; *out is to be freed. */
static nt_status repack(const struct nt_packed *from, struct nt_packed *to, void **out) {
    NT_CHECK(from->format == NT_WEIGHT_BF16);
    *to = *from;
    to->format = NT_WEIGHT_BF16_ROWS;
    nt_bf16 *rows = *out = calloc(1, nt_packed_bytes(to->format, to->n, to->k));
    nt_bf16 *values = calloc((size_t)from->k, sizeof *values);
    if (!rows || !values) {
        free(values);
        return NT_FAIL(NT_E_NOMEM, "no memory to repack weights of %d x %d", from->n, from->k);
    }
    const int64_t pairs = (from->k + 1) / 2;
    for (int32_t r = 0; r < from->n; r++) {
        const nt_bf16 *lane = (const nt_bf16 *)from->data + (r / NT_PANEL * pairs * NT_PANEL + r % NT_PANEL) * 2;
        for (int64_t i = 0; i < from->k; i++) values[i] = lane[i / 2 * NT_PANEL * 2 + i % 2];
        nt_pack_row(to, rows, r, values);
    }
    free(values);
    return NT_OK;
}

static void stage_weights(struct stage *s, const struct nt_packed *from, struct nt_packed *to) {
    if (nt_weight_is_quantized(from->format)) { /* the same for all backends */
        *to = *from;
        to->data = in(s, from->data, nt_packed_bytes(from->format, from->n, from->k));
        return;
    }
    void *rows = NULL;
    s->st = repack(from, to, &rows);
    to->data = in(s, rows, s->st == NT_OK ? nt_packed_bytes(to->format, to->n, to->k) : 0);
    free(rows); /* an upload does not need its source any more */
}

static nt_status staged_gemm(struct nt_backend *be, const struct nt_gemm_args *args) {
    struct stage s = begin(be);
    struct nt_gemm_args a = *args;
    struct nt_packed w, w2 = {0};
    stage_weights(&s, args->w, &w);
    a.w = &w;
    a.x = in(&s, args->x, matrix(args->n_tok, args->ldx, args->w->k, sizeof *args->x));
    if (args->w2) {
        if (s.st == NT_OK) stage_weights(&s, args->w2, &w2);
        a.w2 = &w2;
        a.x2 = in(&s, args->x2, matrix(args->n_tok, args->ldx2, args->w2->k, sizeof *args->x2));
    }
    a.pre = inout(&s, args->pre, matrix(args->n_tok, args->ldpre, args->w->n, sizeof *args->pre));
    a.bias = in(&s, args->bias, vector(args->w->n, sizeof *args->bias));
    const bool gated = args->out == NT_GEMM_SWIGLU_BF16 || args->out == NT_GEMM_GEGLU_BF16;
    const bool f32 = args->out == NT_GEMM_STORE_F32 || args->out == NT_GEMM_ADD_F32;
    a.y = inout(
        &s, args->y,
        matrix(args->n_tok, args->ldy, gated ? args->w->n / 2 : args->w->n, f32 ? sizeof(float) : sizeof(nt_bf16)));
    return RUN(&s, gemm, &a);
}

static nt_status staged_gemm_dgrad(struct nt_backend *be, const struct nt_gemm_dgrad_args *args) {
    struct stage s = begin(be);
    struct nt_gemm_dgrad_args a = *args;
    struct nt_packed w, w2 = {0};
    const size_t element = args->out == NT_GEMM_STORE_BF16 ? sizeof(nt_bf16) : sizeof(float);
    stage_weights(&s, args->w, &w);
    a.w = &w;
    a.dy = in(&s, args->dy, matrix(args->n_tok, args->lddy, args->w->n, sizeof *args->dy));
    if (args->w2) {
        if (s.st == NT_OK) stage_weights(&s, args->w2, &w2);
        a.w2 = &w2;
        a.dy2 = in(&s, args->dy2, matrix(args->n_tok, args->lddy2, args->w2->n, sizeof *args->dy2));
    }
    a.dx = inout(&s, args->dx, matrix(args->n_tok, args->lddx, args->w->k, element));
    return RUN(&s, gemm_dgrad, &a);
}

static nt_status staged_gemm_wgrad(struct nt_backend *be, const struct nt_gemm_wgrad_args *args) {
    struct stage s = begin(be);
    struct nt_gemm_wgrad_args a = *args;
    const int64_t width = nt_gemm_wgrad_column(args, args->n - 1) + 1;
    a.a = in(&s, args->a, matrix(args->n_tok, args->lda, args->m, sizeof *args->a));
    a.b = in(&s, args->b, matrix(args->n_tok, args->ldb, width, sizeof *args->b));
    a.dw = inout(&s, args->dw, matrix(args->m, args->lddw, args->n, sizeof *args->dw));
    return RUN(&s, gemm_wgrad, &a);
}

/* ---- rope_kv, attention ---- */

static int32_t n_pages(const struct nt_attn_seq *seq) {
    return seq->n_q > 0 ? (seq->pos0 + seq->n_q + NT_KV_PAGE - 1) / NT_KV_PAGE : 0;
}

/* The operands that rope_kv and attention share. */
struct cache {
    struct nt_kv_layer layer; /* on the device */
    enum nt_kv_format format;
    int64_t n_pages;        /* from the first to the last that is used */
    size_t bytes;           /* of the image */
    nt_bf16 *before;        /* host image in the layout of the device; to be freed */
    int32_t max_q, max_pos; /* CPU bodies need no bounds, so their callers may leave them out */
    int64_t n_rows;         /* up to the last row of a token; n_tok may count fewer */
    const struct nt_attn_seq *seqs;
};

static void stage_seqs(struct stage *s, const struct nt_attn_seq *seqs, int32_t n_seq, struct cache *out) {
    int64_t total = 0;
    for (int32_t i = 0; i < n_seq; i++) total += n_pages(&seqs[i]);
    struct nt_attn_seq *moved = malloc((size_t)(n_seq + 1) * sizeof *moved);
    int32_t *pages = malloc((size_t)(total + 1) * sizeof *pages);
    if (!moved || !pages) {
        s->st = NT_FAIL(NT_E_NOMEM, "no memory to stage %d sequences", n_seq);
        goto done;
    }
    int64_t n = 0;
    for (int32_t i = 0; i < n_seq; i++)
        for (int32_t p = 0; p < n_pages(&seqs[i]); p++) pages[n++] = seqs[i].pages[p];
    const int32_t *table = in(s, pages, (size_t)total * sizeof *pages);
    n = 0;
    for (int32_t i = 0; i < n_seq; i++) {
        moved[i] = seqs[i];
        moved[i].pages = table + n;
        n += n_pages(&seqs[i]);
    }
    out->seqs = in(s, moved, (size_t)n_seq * sizeof *moved);
done:
    free(moved);
    free(pages);
}

static void stage_cache(struct stage *s, const struct nt_kv_layer *kv, const struct nt_attn_seq *seqs, int32_t n_seq,
                        struct cache *out) {
    const bool raw = kv->format != NT_KV_PAIRED; /* in a layout of GPUs already: copied as it is */
    *out = (struct cache){.layer = *kv, .format = raw ? kv->format : s->cuda->kv_format};
    for (int32_t i = 0; i < n_seq; i++) {
        for (int32_t p = 0; p < n_pages(&seqs[i]); p++)
            if (seqs[i].pages[p] >= out->n_pages) out->n_pages = seqs[i].pages[p] + 1;
        if (seqs[i].n_q > out->max_q) out->max_q = seqs[i].n_q;
        if (seqs[i].q_row + seqs[i].n_q > out->n_rows) out->n_rows = seqs[i].q_row + seqs[i].n_q;
        if (seqs[i].n_q > 0 && seqs[i].pos0 + seqs[i].n_q > out->max_pos) out->max_pos = seqs[i].pos0 + seqs[i].n_q;
    }
    const int64_t page = kv->n_kv * nt_kv_head_elems(kv->format, kv->d_head);
    const int64_t elems = !raw               ? nt_staged_elems(kv, out->format, out->n_pages)
                          : out->n_pages > 0 ? (out->n_pages - 1) * kv->page_stride + page
                                             : 0;
    out->bytes = (size_t)elems * sizeof *out->before;
    out->before = malloc(out->bytes + 1);
    if (!out->before) {
        s->st = NT_FAIL(NT_E_NOMEM, "no memory to stage %lld cache pages", (long long)out->n_pages);
        return;
    }
    if (raw)
        memcpy(out->before, kv->base, out->bytes);
    else
        nt_staged_to_device(kv, out->format, out->n_pages, out->before);
    out->layer.base = in(s, out->before, out->bytes);
    out->layer.format = out->format;
    out->layer.page_stride = raw ? kv->page_stride : nt_staged_stride(kv, out->format);
    stage_seqs(s, seqs, n_seq, out);
}

static nt_status unstage_cache(struct stage *s, const struct nt_kv_layer *kv, const struct cache *cache) {
    nt_bf16 *after = malloc(cache->bytes + 1);
    if (!after) return NT_FAIL(NT_E_NOMEM, "no memory to bring %lld cache pages back", (long long)cache->n_pages);
    const nt_status st = s->cuda->memory->download(s->cuda, after, cache->layer.base, cache->bytes);
    if (st == NT_OK) nt_staged_to_host(kv, cache->format, cache->n_pages, cache->before, after);
    free(after);
    return st;
}

static nt_status staged_rope_kv(struct nt_backend *be, const struct nt_rope_kv_args *args) {
    struct stage s = begin(be);
    struct nt_rope_kv_args a = *args;
    const int32_t d = args->kv->d_head, d_pad = nt_d_pad(d);
    const int64_t width = (int64_t)(args->n_head + 2 * args->kv->n_kv) * d;
    struct cache cache;
    stage_cache(&s, args->kv, args->seqs, args->n_seq, &cache);
    a.kv = &cache.layer;
    a.seqs = cache.seqs;
    a.max_q = cache.max_q;
    a.qkv = in(&s, args->qkv, matrix(cache.n_rows, width, width, sizeof *args->qkv));
    a.q = inout(&s, args->q, vector(cache.n_rows * args->n_head * d_pad, sizeof *args->q));
    a.cos = in(&s, args->cos, vector((int64_t)cache.max_pos * (d / 2), sizeof *args->cos));
    a.sin = in(&s, args->sin, vector((int64_t)cache.max_pos * (d / 2), sizeof *args->sin));
    a.q_norm = in(&s, args->q_norm, vector(d, sizeof *args->q_norm));
    a.k_norm = in(&s, args->k_norm, vector(d, sizeof *args->k_norm));
    nt_status st = s.st == NT_OK ? s.cuda->ops.rope_kv(s.cuda, &a) : s.st;
    if (st == NT_OK) st = unstage_cache(&s, args->kv, &cache);
    free(cache.before);
    return end(&s, st);
}

static nt_status staged_attention(struct nt_backend *be, const struct nt_attention_args *args) {
    struct stage s = begin(be);
    struct nt_attention_args a = *args;
    const int32_t d = args->kv->d_head;
    struct cache cache;
    stage_cache(&s, args->kv, args->seqs, args->n_seq, &cache);
    free(cache.before);
    a.kv = &cache.layer;
    a.seqs = cache.seqs;
    if (a.max_q < cache.max_q) a.max_q = cache.max_q; /* looser bounds are kept */
    if (a.max_pos < cache.max_pos) a.max_pos = cache.max_pos;
    a.q = in(&s, args->q, vector(cache.n_rows * args->n_head * nt_d_pad(d), sizeof *args->q));
    a.kv_of_head = in(&s, args->kv_of_head, vector(args->n_head, sizeof *args->kv_of_head));
    a.out = inout(&s, args->out, matrix(cache.n_rows, args->ldo, (int64_t)args->n_head * d, sizeof *args->out));
    a.lse = inout(&s, args->lse, vector(cache.n_rows * args->n_head, sizeof *args->lse));
    return RUN(&s, attention, &a);
}

static nt_status staged_attention_bwd(struct nt_backend *be, const struct nt_attention_bwd_args *args) {
    struct stage s = begin(be);
    struct nt_attention_bwd_args a = *args;
    const int32_t d = args->kv->d_head, n_head = args->n_head;
    const int64_t width = (int64_t)(n_head + 2 * args->kv->n_kv) * d;
    struct cache cache;
    stage_cache(&s, args->kv, args->seqs, args->n_seq, &cache);
    free(cache.before);
    a.kv = &cache.layer;
    a.seqs = cache.seqs;
    if (a.max_q < cache.max_q) a.max_q = cache.max_q;
    a.q = in(&s, args->q, vector(cache.n_rows * n_head * nt_d_pad(d), sizeof *args->q));
    a.kv_of_head = in(&s, args->kv_of_head, vector(n_head, sizeof *args->kv_of_head));
    a.out = in(&s, args->out, matrix(cache.n_rows, args->ldo, (int64_t)n_head * d, sizeof *args->out));
    a.lse = in(&s, args->lse, vector(cache.n_rows * n_head, sizeof *args->lse));
    a.dout = in(&s, args->dout, matrix(cache.n_rows, args->lddo, (int64_t)n_head * d, sizeof *args->dout));
    a.dqkv = inout(&s, args->dqkv, matrix(cache.n_rows, width, width, sizeof *args->dqkv));
    return RUN(&s, attention_bwd, &a);
}

/* Rows, positions and sequences of a call that reads no pages. */
static nt_status staged_rope_bwd(struct nt_backend *be, const struct nt_rope_bwd_args *args) {
    struct stage s = begin(be);
    struct nt_rope_bwd_args a = *args;
    const int32_t d = args->d_head;
    const int64_t width = (int64_t)(args->n_head + 2 * args->n_kv) * d;
    int64_t n_rows = 0, n_pos = 0;
    for (int32_t i = 0; i < args->n_seq; i++) {
        const struct nt_attn_seq *seq = &args->seqs[i];
        if (seq->q_row + seq->n_q > n_rows) n_rows = seq->q_row + seq->n_q;
        if (seq->pos0 + seq->n_q > n_pos) n_pos = seq->pos0 + seq->n_q;
    }
    a.dqkv = in(&s, args->dqkv, matrix(n_rows, width, width, sizeof *args->dqkv));
    a.qkv = in(&s, args->qkv, matrix(n_rows, width, width, sizeof *args->qkv));
    a.dqkv16 = inout(&s, args->dqkv16, matrix(n_rows, width, width, sizeof *args->dqkv16));
    a.seqs = in(&s, args->seqs, vector(args->n_seq, sizeof *args->seqs));
    a.cos = in(&s, args->cos, vector(n_pos * (d / 2), sizeof *args->cos));
    a.sin = in(&s, args->sin, vector(n_pos * (d / 2), sizeof *args->sin));
    a.q_norm = in(&s, args->q_norm, vector(d, sizeof *args->q_norm));
    a.k_norm = in(&s, args->k_norm, vector(d, sizeof *args->k_norm));
    a.dq_norm = inout(&s, args->dq_norm, vector(d, sizeof *args->dq_norm));
    a.dk_norm = inout(&s, args->dk_norm, vector(d, sizeof *args->dk_norm));
    return RUN(&s, rope_bwd, &a);
}

/* ---- logits ---- */

static nt_status staged_logit_stats(struct nt_backend *be, const struct nt_logit_stats_args *args) {
    struct stage s = begin(be);
    struct nt_logit_stats_args a = *args;
    a.logits = in(&s, args->logits, matrix(args->n_row, args->ld, args->n_vocab, sizeof *args->logits));
    a.max = inout(&s, args->max, vector(args->n_row, sizeof *args->max));
    a.sum_exp = inout(&s, args->sum_exp, vector(args->n_row, sizeof *args->sum_exp));
    a.argmax = inout(&s, args->argmax, vector(args->n_row, sizeof *args->argmax));
    return RUN(&s, logit_stats, &a);
}

static nt_status staged_logit_topk(struct nt_backend *be, const struct nt_logit_topk_args *args) {
    struct stage s = begin(be);
    struct nt_logit_topk_args a = *args;
    const int64_t count = (int64_t)args->n_row * args->k;
    a.logits = in(&s, args->logits, matrix(args->n_row, args->ld, args->n_vocab, sizeof *args->logits));
    a.value = inout(&s, args->value, vector(count, sizeof *args->value));
    a.index = inout(&s, args->index, vector(count, sizeof *args->index));
    return RUN(&s, logit_topk, &a);
}

static nt_status staged_logit_gumbel(struct nt_backend *be, const struct nt_logit_gumbel_args *args) {
    struct stage s = begin(be);
    struct nt_logit_gumbel_args a = *args;
    a.logits = in(&s, args->logits, matrix(args->n_row, args->ld, args->n_vocab, sizeof *args->logits));
    a.inv_temp = in(&s, args->inv_temp, vector(args->n_row, sizeof *args->inv_temp));
    a.seed = in(&s, args->seed, vector(args->n_row, sizeof *args->seed));
    a.stream = in(&s, args->stream, vector(args->n_row, sizeof *args->stream));
    a.value = inout(&s, args->value, vector(args->n_row, sizeof *args->value));
    a.index = inout(&s, args->index, vector(args->n_row, sizeof *args->index));
    return RUN(&s, logit_gumbel, &a);
}

static nt_status staged_logit_edit(struct nt_backend *be, const struct nt_logit_edit_args *args) {
    struct stage s = begin(be);
    struct nt_logit_edit_args a = *args;
    a.logits = inout(&s, args->logits, matrix(args->n_row, args->ld, args->n_vocab, sizeof *args->logits));
    a.edits = in(&s, args->edits, vector(args->n_edit, sizeof *args->edits));
    a.scale = in(&s, args->scale, vector(args->n_row, sizeof *args->scale));
    return RUN(&s, logit_edit, &a);
}

static nt_status staged_logit_penalty(struct nt_backend *be, const struct nt_logit_penalty_args *args) {
    struct stage s = begin(be);
    struct nt_logit_penalty_args a = *args;
    const int64_t n_last = args->last ? rows_used(args->last_row, args->n_row) : 0;
    a.logits = inout(&s, args->logits, matrix(args->n_row, args->ld, args->n_vocab, sizeof *args->logits));
    a.seen = in(&s, args->seen, vector(args->n_seen, sizeof *args->seen));
    a.begin = in(&s, args->begin, vector(args->n_row + 1, sizeof *args->begin));
    a.last = in(&s, args->last, vector(n_last, sizeof *args->last));
    a.last_row = in(&s, args->last_row, vector(args->n_row, sizeof *args->last_row));
    a.repetition = in(&s, args->repetition, vector(args->n_row, sizeof *args->repetition));
    a.presence = in(&s, args->presence, vector(args->n_row, sizeof *args->presence));
    a.frequency = in(&s, args->frequency, vector(args->n_row, sizeof *args->frequency));
    return RUN(&s, logit_penalty, &a);
}

static nt_status staged_logit_pick(struct nt_backend *be, const struct nt_logit_pick_args *args) {
    struct stage s = begin(be);
    struct nt_logit_pick_args a = *args;
    a.logits = in(&s, args->logits, matrix(args->n_row, args->ld, args->n_vocab, sizeof *args->logits));
    a.id = in(&s, args->id, vector(args->n_row, sizeof *args->id));
    a.value = inout(&s, args->value, vector(args->n_row, sizeof *args->value));
    return RUN(&s, logit_pick, &a);
}

static nt_status staged_logit_sample(struct nt_backend *be, const struct nt_logit_sample_args *args) {
    struct stage s = begin(be);
    struct nt_logit_sample_args a = *args;
    a.logits = in(&s, args->logits, matrix(args->n_row, args->ld, args->n_vocab, sizeof *args->logits));
    a.inv_temp = in(&s, args->inv_temp, vector(args->n_row, sizeof *args->inv_temp));
    a.top_p = in(&s, args->top_p, vector(args->n_row, sizeof *args->top_p));
    a.min_p = in(&s, args->min_p, vector(args->n_row, sizeof *args->min_p));
    a.top_k = in(&s, args->top_k, vector(args->n_row, sizeof *args->top_k));
    a.seed = in(&s, args->seed, vector(args->n_row, sizeof *args->seed));
    a.stream = in(&s, args->stream, vector(args->n_row, sizeof *args->stream));
    a.index = inout(&s, args->index, vector(args->n_row, sizeof *args->index));
    return RUN(&s, logit_sample, &a);
}

static nt_status staged_head_argmax(struct nt_backend *be, const struct nt_head_argmax_args *args) {
    struct stage s = begin(be);
    struct nt_head_argmax_args a = *args;
    struct nt_packed w;
    stage_weights(&s, args->w, &w);
    a.w = &w;
    a.x = in(&s, args->x, matrix(args->n_row, args->ldx, args->w->k, sizeof *args->x));
    a.inv_temp = in(&s, args->inv_temp, vector(args->n_row, sizeof *args->inv_temp));
    a.seed = in(&s, args->seed, vector(args->n_row, sizeof *args->seed));
    a.stream = in(&s, args->stream, vector(args->n_row, sizeof *args->stream));
    a.value = inout(&s, args->value, vector(args->n_row, sizeof *args->value));
    a.index = inout(&s, args->index, vector(args->n_row, sizeof *args->index));
    return RUN(&s, head_argmax, &a);
}

/* ---- gradients of norms, gates, logits ---- */

static nt_status staged_rmsnorm_bwd(struct nt_backend *be, const struct nt_rmsnorm_bwd_args *args) {
    struct stage s = begin(be);
    struct nt_rmsnorm_bwd_args a = *args;
    const int64_t count = (int64_t)args->n_tok * args->d_model;
    a.x = in(&s, args->x, vector(count, sizeof *args->x));
    a.w = in(&s, args->w, vector(args->d_model, sizeof *args->w));
    a.dy = in(&s, args->dy, vector(count, sizeof *args->dy));
    a.dx = inout(&s, args->dx, vector(count, sizeof *args->dx));
    a.dx16 = inout(&s, args->dx16, vector(count, sizeof *args->dx16));
    a.dw = inout(&s, args->dw, vector(args->d_model, sizeof *args->dw));
    return RUN(&s, rmsnorm_bwd, &a);
}

static nt_status staged_glu_bwd(struct nt_backend *be, const struct nt_glu_bwd_args *args) {
    struct stage s = begin_in_place(be);
    struct nt_glu_bwd_args a = *args;
    const size_t pre = matrix(args->n_tok, args->ldpre, 2 * (int64_t)args->n, sizeof *args->pre);
    a.dpre = inout(&s, args->dpre, pre);
    a.pre = args->pre == args->dpre ? a.dpre : in(&s, args->pre, pre);
    a.dy = in(&s, args->dy, matrix(args->n_tok, args->lddy, args->n, sizeof *args->dy));
    a.y = inout(&s, args->y, matrix(args->n_tok, args->ldy, args->n, sizeof *args->y));
    return RUN(&s, glu_bwd, &a);
}

static nt_status staged_logit_bwd(struct nt_backend *be, const struct nt_logit_bwd_args *args) {
    struct stage s = begin_in_place(be);
    struct nt_logit_bwd_args a = *args;
    a.logits = in(&s, args->logits, matrix(args->n_row, args->ld, args->n_vocab, sizeof *args->logits));
    a.target = in(&s, args->target, vector(args->n_row, sizeof *args->target));
    a.max = in(&s, args->max, vector(args->n_row, sizeof *args->max));
    a.sum_exp = in(&s, args->sum_exp, vector(args->n_row, sizeof *args->sum_exp));
    a.coef = in(&s, args->coef, vector(args->n_row, sizeof *args->coef));
    a.dlogits = inout(&s, args->dlogits, matrix(args->n_row, args->lddl, args->n_vocab, sizeof *args->dlogits));
    return RUN(&s, logit_bwd, &a);
}

/* ---- rows of gradients, the optimizer ---- */

static nt_status staged_embed_bwd(struct nt_backend *be, const struct nt_embed_bwd_args *args) {
    struct stage s = begin(be);
    struct nt_embed_bwd_args a = *args;
    const int64_t d = args->d_model;
    a.ids = in(&s, args->ids, vector(args->n_tok, sizeof *args->ids));
    a.dx = in(&s, args->dx, matrix(args->n_tok, d, d, sizeof *args->dx));
    a.dtable = inout(&s, args->dtable, matrix(args->n_rows, d, d, sizeof *args->dtable));
    return RUN(&s, embed_bwd, &a);
}

static nt_status staged_scatter(struct nt_backend *be, const struct nt_scatter_args *args) {
    struct stage s = begin(be);
    struct nt_scatter_args a = *args;
    a.from = in(&s, args->from, (size_t)(args->n_rows * args->bytes));
    a.to = inout(&s, args->to, (size_t)(args->n_to * args->bytes));
    a.rows = in(&s, args->rows, vector(args->n_rows, sizeof *args->rows));
    return RUN(&s, scatter, &a);
}

static nt_status staged_dropout(struct nt_backend *be, const struct nt_dropout_args *args) {
    struct stage s = begin_in_place(be);
    struct nt_dropout_args a = *args;
    const size_t element = args->add ? sizeof(float) : sizeof(nt_bf16);
    a.y = inout(&s, args->y, matrix(args->n_row, args->ldy, args->n_col, element));
    a.x = args->x == args->y ? a.y : in(&s, args->x, matrix(args->n_row, args->ldx, args->n_col, element));
    a.stream = in(&s, args->stream, vector(args->n_row, sizeof *args->stream));
    return RUN(&s, dropout, &a);
}

static nt_status staged_adamw(struct nt_backend *be, const struct nt_adamw_args *args) {
    struct stage s = begin_in_place(be);
    struct nt_adamw_args a = *args;
    a.p = inout(&s, args->p, vector(args->n, sizeof *args->p));
    a.m = inout(&s, args->m, vector(args->n, sizeof *args->m));
    a.v = inout(&s, args->v, vector(args->n, sizeof *args->v));
    a.grad = in(&s, args->grad, vector(args->n, sizeof *args->grad));
    return RUN(&s, adamw, &a);
}

static nt_status staged_sum_squares(struct nt_backend *be, const struct nt_sum_squares_args *args) {
    struct stage s = begin_in_place(be);
    struct nt_sum_squares_args a = *args;
    a.x = in(&s, args->x, vector(args->n, sizeof *args->x));
    a.sum = inout(&s, args->sum, sizeof *args->sum);
    return RUN(&s, sum_squares, &a);
}

static nt_status staged_sum_parts(struct nt_backend *be, const struct nt_sum_parts_args *args) {
    struct stage s = begin_in_place(be);
    struct nt_sum_parts_args a = *args;
    a.x = in(&s, args->x, vector(args->n * args->n_part, sizeof *args->x));
    a.y = inout(&s, args->y, vector(args->n, sizeof *args->y));
    return RUN(&s, sum_parts, &a);
}

/* Rows to panels again. */
static nt_status bring_panels_back(const struct nt_packed *rows, const struct nt_packed *panels) {
    nt_bf16 *values = calloc((size_t)rows->k, sizeof *values);
    if (!values) return NT_FAIL(NT_E_NOMEM, "no memory for a row of %d weights", rows->k);
    for (int32_t r = 0; r < rows->n; r++) {
        nt_unpack_row(rows, r, values);
        nt_pack_row(panels, (void *)(uintptr_t)panels->data, r, values);
    }
    free(values);
    return NT_OK;
}

static nt_status staged_pack(struct nt_backend *be, const struct nt_pack_args *args) {
    struct stage s = begin_in_place(be);
    struct nt_pack_args a = *args;
    struct nt_packed w = {0}, host;
    void *rows = NULL;
    if (args->w) {
        s.st = repack(args->w, &host, &rows);
        w = host;
        w.data = s.st == NT_OK ? inout(&s, rows, nt_packed_bytes(w.format, w.n, w.k)) : NULL;
        host.data = rows;
        a.w = &w;
    }
    const int64_t count = (int64_t)args->n * args->k;
    a.x = in(&s, args->x, vector(count, sizeof *args->x));
    a.table = inout(&s, args->table, vector(count, sizeof *args->table));
    a.vector =
        inout(&s, args->vector, args->n > 0 ? vector(nt_pack_place(args, args->n - 1) + 1, sizeof *args->vector) : 0);
    nt_status st = RUN(&s, pack, &a);
    if (st == NT_OK && args->w) st = bring_panels_back(&host, args->w);
    free(rows);
    return st;
}

nt_status nt_cuda_staged_ops(struct nt_backend *cuda, struct nt_backend *out) {
    NT_CHECK(cuda->cuda && cuda->kv_format != NT_KV_PAIRED && cuda->weight_format == NT_WEIGHT_BF16_ROWS);
    NT_TRY(nt_backend_open_cpu(out, NT_ISA_PORTABLE, cuda->pool));
    out->name = "cuda";
    (void)snprintf(out->level, sizeof out->level, "%s", cuda->level);
    out->watch_arg = cuda; /* with no watch it is free to say where the ops go */
#define NT_OP(op, doc) out->ops.op = staged_##op;
#include "ops.def"
#undef NT_OP
    return NT_OK;
}
