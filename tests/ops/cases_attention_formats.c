/* Attention over a cache in the layouts of GPUs, bf16 and int8 rows: slots never written hold NaN, contexts cross the
 * places where a body may begin a new softmax state (every 512 positions), and the bits of a token do not depend on its
 * chunk, on its batch or on which places of a step are empty. */
#include "test_ops.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_SEQ = 8, MAX_HEAD = 20 };

struct shape {
    int32_t n_head, n_kv, d, window, n_seq;
    int32_t n_q[3], pos0[3]; // [n_seq]
};

struct problem {
    struct nt_attention_args args;
    struct nt_kv_layer kv;
    struct nt_attn_seq seqs[MAX_SEQ];
    int32_t kv_of_head[MAX_HEAD], *pages;
    unsigned char *cache;
    nt_bf16 *q, *out;
    float *lse; // [n_tok, n_head]
    size_t cache_bytes, out_bytes, lse_bytes;
};

static unsigned char *head_of(const struct problem *p, const struct nt_attn_seq *seq, int32_t pos, int32_t h) {
    const int64_t elems =
        seq->pages[pos / NT_KV_PAGE] * p->kv.page_stride + h * nt_kv_head_elems(p->kv.format, p->kv.d_head);
    return p->cache + elems * (int64_t)sizeof(nt_bf16);
}

static double value(const struct problem *p, const struct nt_attn_seq *seq, int32_t pos, int32_t h, bool v, int32_t i) {
    const int64_t d_pad = nt_d_pad(p->kv.d_head), slot = pos % NT_KV_PAGE;
    const int64_t at = ((v ? NT_KV_PAGE : 0) + slot) * d_pad + i;
    const unsigned char *head = head_of(p, seq, pos, h);
    if (p->kv.format == NT_KV_ROWS) return nt_bf16_to_f32(((const nt_bf16 *)(const void *)head)[at]);
    const float *scales = (const float *)(const void *)(head + 2 * NT_KV_PAGE * d_pad);
    return (double)((const int8_t *)head)[at] * scales[(v ? NT_KV_PAGE : 0) + slot];
}

/* One row of K or V: as rope_kv writes it, padding included. */
static void put_row(const struct problem *p, const struct nt_attn_seq *seq, int32_t pos, int32_t h, bool v,
                    const float *x) {
    const int64_t d_pad = nt_d_pad(p->kv.d_head), slot = pos % NT_KV_PAGE, at = ((v ? NT_KV_PAGE : 0) + slot) * d_pad;
    unsigned char *head = head_of(p, seq, pos, h);
    if (p->kv.format == NT_KV_ROWS) {
        nt_bf16 *row = (nt_bf16 *)(void *)head + at;
        for (int32_t i = 0; i < d_pad; i++) row[i] = i < p->kv.d_head ? nt_f32_to_bf16(x[i]) : 0;
        return;
    }
    float max = 0;
    for (int32_t i = 0; i < p->kv.d_head; i++) max = fmaxf(max, fabsf(x[i]));
    const float scale = max > 0 ? max / 127.0f : 1.0f;
    int8_t *row = (int8_t *)head + at;
    for (int32_t i = 0; i < d_pad; i++) row[i] = i < p->kv.d_head ? (int8_t)lrintf(x[i] / scale) : 0;
    ((float *)(void *)(head + 2 * NT_KV_PAGE * d_pad))[(v ? NT_KV_PAGE : 0) + slot] = scale;
}

static void fill_cache(struct problem *p, uint64_t *seed) {
    float x[256];
    memset(p->cache, 0xff, p->cache_bytes); /* NaN wherever nothing is written */
    for (int32_t s = 0; s < p->args.n_seq; s++) {
        for (int32_t pos = 0; pos < p->seqs[s].pos0 + p->seqs[s].n_q; pos++) {
            for (int32_t h = 0; h < 2 * p->kv.n_kv; h++) {
                op_random_f32(seed, x, p->kv.d_head, h % 2 ? 1.0f : 1.3f);
                put_row(p, &p->seqs[s], pos, h / 2, h % 2, x);
            }
        }
    }
}

static void make(struct problem *p, uint64_t seed, const struct shape *sh, enum nt_kv_format format) {
    memset(p, 0, sizeof *p);
    int32_t n_pages = 0, next = 0;
    for (int32_t s = 0; s < sh->n_seq; s++) n_pages += (sh->pos0[s] + sh->n_q[s] + NT_KV_PAGE - 1) / NT_KV_PAGE;
    p->pages = op_alloc((size_t)n_pages * sizeof *p->pages);
    for (int32_t s = 0; s < sh->n_seq; s++) {
        p->seqs[s] = (struct nt_attn_seq){p->args.n_tok, sh->n_q[s], sh->pos0[s], p->pages + next};
        for (int32_t i = 0; i < (sh->pos0[s] + sh->n_q[s] + NT_KV_PAGE - 1) / NT_KV_PAGE; i++, next++)
            p->pages[next] = (next * 13 + 3) % n_pages; /* n_pages is no multiple of 13 in the shapes below */
        p->args.n_tok += sh->n_q[s];
        if (p->seqs[s].pos0 + sh->n_q[s] > p->args.max_pos) p->args.max_pos = p->seqs[s].pos0 + sh->n_q[s];
        if (sh->n_q[s] > p->args.max_q) p->args.max_q = sh->n_q[s];
        if (sh->n_q[s] > 0 && (p->args.min_q == 0 || sh->n_q[s] < p->args.min_q)) p->args.min_q = sh->n_q[s];
    }
    for (int32_t h = 0; h < sh->n_head; h++) p->kv_of_head[h] = h * sh->n_kv / sh->n_head;
    p->kv = (struct nt_kv_layer){NULL, sh->n_kv * nt_kv_head_elems(format, sh->d) + 64, sh->n_kv, sh->d, format};
    p->cache_bytes = (size_t)(n_pages * p->kv.page_stride) * sizeof(nt_bf16);
    p->cache = op_alloc(p->cache_bytes);
    p->kv.base = (nt_bf16 *)(void *)p->cache;
    p->args.n_seq = sh->n_seq;
    fill_cache(p, &seed);
    const int64_t n_row = (int64_t)p->args.n_tok * sh->n_head, d_pad = nt_d_pad(sh->d);
    p->q = op_alloc((size_t)(n_row * d_pad) * sizeof *p->q);
    for (int64_t r = 0; r < n_row; r++) op_random_bf16(&seed, p->q + r * d_pad, sh->d, 1.5f);
    p->args.ldo = sh->n_head * sh->d + op_random_int(&seed, 0, 1) * 8;
    p->out_bytes = (size_t)(p->args.n_tok * p->args.ldo) * sizeof *p->out;
    p->out = op_alloc(p->out_bytes);
    p->lse_bytes = (size_t)n_row * sizeof *p->lse;
    p->args.lse = p->lse = op_alloc(p->lse_bytes);
    p->args.q = p->q;
    p->args.kv = &p->kv;
    p->args.seqs = p->seqs;
    p->args.kv_of_head = p->kv_of_head;
    p->args.out = p->out;
    p->args.scale = 1.0f / sqrtf((float)sh->d);
    p->args.window = sh->window;
    p->args.n_head = sh->n_head;
}

static void drop(struct problem *p) {
    free(p->lse);
    free(p->pages);
    free(p->cache);
    free(p->q);
    free(p->out);
}

static void run(struct op_env *env, struct problem *p) {
    memset(p->out, 0x5a, p->out_bytes);
    memset(p->lse, 0x5a, p->lse_bytes);
    if (env->be[1].ops.attention(&env->be[1], &p->args) != NT_OK) op_fail(env, "status: %s", nt_error_last()->text);
}

/* Returns the row's lse. */
static double reference(const struct problem *p, const struct nt_attn_seq *seq, int32_t tok, int32_t head,
                        double *want) {
    const int32_t d = p->kv.d_head, pos = seq->pos0 + tok, h = p->kv_of_head[head], window = p->args.window;
    const nt_bf16 *q = p->q + ((int64_t)(seq->q_row + tok) * p->args.n_head + head) * nt_d_pad(d);
    double max = -INFINITY, sum = 0, *w = op_alloc((size_t)(pos + 1) * sizeof *w);
    const int32_t first = window > 0 && pos >= window ? pos - window + 1 : 0;
    for (int32_t x = first; x <= pos; x++) {
        double dot = 0;
        for (int32_t i = 0; i < d; i++) dot += nt_bf16_to_f32(q[i]) * value(p, seq, x, h, false, i);
        w[x] = dot * p->args.scale;
        if (w[x] > max) max = w[x];
    }
    for (int32_t i = 0; i < d; i++) want[i] = 0;
    for (int32_t x = first; x <= pos; x++) {
        const double e = exp(w[x] - max);
        sum += e;
        for (int32_t i = 0; i < d; i++) want[i] += e * value(p, seq, x, h, true, i);
    }
    for (int32_t i = 0; i < d; i++) want[i] /= sum;
    free(w);
    return (max + log(sum)) / log(2);
}

static double work(const struct shape *sh) {
    double macs = 0;
    for (int32_t s = 0; s < sh->n_seq; s++) macs += 2.0 * sh->n_head * sh->d * sh->n_q[s] * (sh->pos0[s] + sh->n_q[s]);
    return macs;
}

/* Every width of tile, groups of one head to 20, contexts around the ends of pages and of 512 positions, windows that
 * begin anywhere. */
static const struct shape shapes[] = {
    {4,  2, 64,  0,   3, {9, 1, 0},   {55, 130, 0}    },
    {3,  1, 16,  0,   2, {6, 1},      {509, 511}      },
    {2,  1, 64,  0,   3, {10, 2, 1},  {506, 511, 1080}},
    {2,  2, 48,  300, 2, {7, 1},      {700, 1030}     },
    {4,  2, 32,  1,   2, {7, 4},      {60, 100}       },
    {20, 1, 80,  0,   2, {5, 1},      {62, 64}        },
    {2,  1, 96,  70,  2, {40, 3},     {40, 520}       },
    {3,  2, 128, 0,   2, {36, 1},     {3, 520}        },
    {2,  1, 160, 0,   2, {5, 1},      {510, 70}       },
    {1,  1, 256, 65,  2, {20, 1},     {30, 512}       },
    {4,  1, 8,   0,   1, {40},        {490}           }, /* tiles of tokens in more than one launch */
    {2,  1, 16,  0,   3, {1, 2, 1},   {600, 511, 520} }, /* short sequences alone, in more than one launch */
    {2,  1, 16,  70,  2, {4, 2},      {579, 580}      }, /* tokens of a call whose windows begin in two splits */
    {1,  1, 128, 0,   2, {12, 1},     {505, 517}      }, /* more pages than a ring has stages, in two splits */
    {1,  1, 64,  0,   1, {12},        {1018}          }, /* rows of a tile go from split to split twice */
    {1,  1, 128, 0,   1, {6},         {1021}          },
    {1,  1, 184, 0,   1, {5},         {1021}          },
    {2,  1, 128, 0,   3, {133, 2, 1}, {400, 511, 1080}}, /* too much for an interpreter */
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static void check_values(struct op_env *env, enum nt_kv_format format) {
    for (int i = 0; i < N_SHAPES; i++) {
        struct problem p;
        char what[32];
        if (op_too_large(env, work(&shapes[i]))) continue;
        make(&p, (uint64_t)i, &shapes[i], format);
        const int32_t width = p.args.n_head * p.kv.d_head;
        double *want = op_alloc((size_t)(p.args.n_tok * width) * sizeof *want);
        double *lse = op_alloc(2 * p.lse_bytes);
        nt_bf16 *got = op_alloc((size_t)(p.args.n_tok * width) * sizeof *got);
        run(env, &p);
        for (int32_t s = 0; s < p.args.n_seq; s++) {
            for (int32_t t = 0; t < p.seqs[s].n_q; t++) {
                const int64_t row = p.seqs[s].q_row + t;
                for (int32_t h = 0; h < p.args.n_head; h++)
                    lse[row * p.args.n_head + h] =
                        reference(&p, &p.seqs[s], t, h, want + row * width + h * p.kv.d_head);
                memcpy(got + row * width, p.out + row * p.args.ldo, (size_t)width * sizeof *got);
                for (int64_t c = width; c < p.args.ldo; c++)
                    if (p.out[row * p.args.ldo + c] != 0x5a5a) op_fail(env, "padding of out was written");
            }
        }
        (void)snprintf(what, sizeof what, "shape %d", i);
        (void)op_compare_bf16(env, what, want, got, (int64_t)p.args.n_tok * width);
        (void)op_compare_f32(env, what, lse, p.lse, (int64_t)p.args.n_tok * p.args.n_head);
        free(lse);
        free(want);
        free(got);
        drop(&p);
    }
}

static void check_rows(struct op_env *env) {
    check_values(env, NT_KV_ROWS);
}
static void check_int8(struct op_env *env) {
    check_values(env, NT_KV_ROWS_INT8);
}

/* The tokens of one sequence in calls of `chunk` tokens, beside a sequence without tokens. */
static void run_cut(struct op_env *env, struct problem *p, int32_t s, int32_t chunk) {
    for (int32_t t = 0; t < p->seqs[s].n_q; t += chunk) {
        const int32_t left = p->seqs[s].n_q - t;
        struct nt_attn_seq seqs[2] = {{0}, p->seqs[s]};
        struct nt_attention_args part = p->args;
        seqs[1].q_row += t;
        seqs[1].pos0 += t;
        seqs[1].n_q = left < chunk ? left : chunk;
        part.seqs = seqs;
        part.n_seq = 2;
        part.min_q = seqs[1].n_q;
        if (env->be[0].ops.attention(&env->be[0], &part) != NT_OK) op_fail(env, "status: %s", nt_error_last()->text);
    }
}

static void check_bits_of(struct op_env *env, enum nt_kv_format format) {
    static const int32_t chunks[] = {1, 3, 6, 17};
    for (int i = 0; i < N_SHAPES; i++) {
        struct problem p;
        char what[64];
        if (op_too_large(env, work(&shapes[i]))) continue;
        make(&p, 100 + (uint64_t)i, &shapes[i], format);
        nt_bf16 *whole = op_alloc(p.out_bytes);
        float *lse = op_alloc(p.lse_bytes);
        run(env, &p);
        memcpy(whole, p.out, p.out_bytes);
        memcpy(lse, p.lse, p.lse_bytes);
        p.args.max_q += 5; /* as a captured step has them */
        p.args.max_pos += 1100;
        p.args.min_q = 0;
        run(env, &p);
        (void)snprintf(what, sizeof what, "shape %d with loose bounds", i);
        (void)op_compare_bytes(env, what, whole, p.out, p.out_bytes);
        for (int c = 0; c < (int)(sizeof chunks / sizeof chunks[0]); c++) {
            memset(p.out, 0x5a, p.out_bytes);
            memset(p.lse, 0x5a, p.lse_bytes);
            for (int32_t s = 0; s < p.args.n_seq; s++) run_cut(env, &p, s, chunks[c]);
            (void)snprintf(what, sizeof what, "shape %d in chunks of %d", i, chunks[c]);
            (void)op_compare_bytes(env, what, whole, p.out, p.out_bytes);
            (void)op_compare_bytes(env, what, lse, p.lse, p.lse_bytes);
        }
        free(lse);
        free(whole);
        drop(&p);
    }
}

static void check_rows_bits(struct op_env *env) {
    check_bits_of(env, NT_KV_ROWS);
}
static void check_int8_bits(struct op_env *env) {
    check_bits_of(env, NT_KV_ROWS_INT8);
}

static const struct op_case cases[] = {
    {NT_OP_attention, "bf16 rows",       check_rows,      NULL},
    {NT_OP_attention, "int8 rows",       check_int8,      NULL},
    {NT_OP_attention, "bf16 rows, bits", check_rows_bits, NULL},
    {NT_OP_attention, "int8 rows, bits", check_int8_bits, NULL},
};
const struct op_cases attention_format_cases = {sizeof cases / sizeof cases[0], cases};
