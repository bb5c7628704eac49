/* Cases of the attention op: odd heads and groups, windows, prompts and single tokens mixed, special values by
 * position, and the bitwise promise that a token's result does not depend on how its prompt was cut or on the threads.
 */
#include "test_ops.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_SEQ = 64, MAX_HEAD = 16 };

struct shape {
    int32_t n_head, n_kv, d, window, n_seq, max_pos;
};

struct problem {
    struct nt_attention_args args;
    struct nt_kv_layer kv;
    struct nt_attn_seq seqs[MAX_SEQ];
    int32_t kv_of_head[MAX_HEAD], *pages; // [n_seq, pages_per_seq]
    nt_bf16 *cache, *q, *out;
    float *lse; // [n_tok, n_head]
    size_t out_bytes, lse_bytes;
};

static int64_t cache_at(const struct problem *p, const struct nt_attn_seq *seq, int32_t pos, int32_t h, bool v,
                        int32_t i) {
    const int32_t d_pad = nt_d_pad(p->kv.d_head), slot = pos % NT_KV_PAGE;
    const int64_t at =
        seq->pages[pos / NT_KV_PAGE] * p->kv.page_stride + h * nt_kv_head_elems(NT_KV_PAIRED, p->kv.d_head);
    return v ? at + NT_KV_PAGE * d_pad + (slot / 2) * 2 * d_pad + 2 * i + slot % 2
             : at + (i / 2) * 2 * NT_KV_PAGE + 2 * slot + i % 2;
}

static void fill_seq(struct problem *p, uint64_t *seed, const struct nt_attn_seq *seq) {
    for (int32_t pos = 0; pos < seq->pos0 + seq->n_q; pos++)
        for (int32_t h = 0; h < p->kv.n_kv; h++)
            for (int32_t i = 0; i < p->kv.d_head; i++) {
                p->cache[cache_at(p, seq, pos, h, false, i)] = nt_f32_to_bf16(op_random_normal(seed));
                p->cache[cache_at(p, seq, pos, h, true, i)] = nt_f32_to_bf16(op_random_normal(seed));
            }
}

/* Uneven groups, as tensor parallel ranks have them: non-decreasing, from 0 to n_kv - 1. */
static void make_groups(struct problem *p, uint64_t *seed, const struct shape *sh) {
    for (int32_t h = 0; h < sh->n_head; h++) p->kv_of_head[h] = h * sh->n_kv / sh->n_head;
    for (int32_t h = 1; sh->n_head % sh->n_kv != 0 && h < sh->n_head - 1; h++)
        if (op_random_int(seed, 0, 2) == 0 && p->kv_of_head[h + 1] != p->kv_of_head[h]) p->kv_of_head[h + 1]--;
    for (int32_t h = 1; h < sh->n_head; h++)
        if (p->kv_of_head[h] < p->kv_of_head[h - 1]) p->kv_of_head[h] = p->kv_of_head[h - 1];
}

static void make_seqs(struct problem *p, uint64_t *seed, const struct shape *sh) {
    const int32_t per_seq = (sh->max_pos + NT_KV_PAGE - 1) / NT_KV_PAGE, n_pages = sh->n_seq * per_seq;
    p->pages = op_alloc((size_t)n_pages * sizeof *p->pages);
    for (int32_t i = 0; i < n_pages; i++) p->pages[i] = i;
    for (int32_t i = n_pages - 1; i > 0; i--) {
        const int32_t j = op_random_int(seed, 0, i), page = p->pages[i];
        p->pages[i] = p->pages[j];
        p->pages[j] = page;
    }
    p->kv = (struct nt_kv_layer){NULL, sh->n_kv * nt_kv_head_elems(NT_KV_PAIRED, sh->d) + 64, sh->n_kv, sh->d,
                                 NT_KV_PAIRED};
    p->cache = op_alloc((size_t)(n_pages * p->kv.page_stride) * sizeof *p->cache);
    p->kv.base = p->cache;
    for (int32_t s = 0; s < sh->n_seq; s++) {
        const int32_t n_q = s % 2 ? 1 : op_random_int(seed, 2, sh->max_pos);
        p->seqs[s] =
            (struct nt_attn_seq){p->args.n_tok, n_q, op_random_int(seed, 0, sh->max_pos - n_q), p->pages + s * per_seq};
        p->args.n_tok += n_q;
        fill_seq(p, seed, &p->seqs[s]);
    }
}

static void make(struct problem *p, uint64_t seed, struct shape sh) {
    memset(p, 0, sizeof *p);
    make_groups(p, &seed, &sh);
    make_seqs(p, &seed, &sh);
    const int32_t d_pad = nt_d_pad(sh.d);
    const int64_t n_row = (int64_t)p->args.n_tok * sh.n_head;
    p->q = op_alloc((size_t)(n_row * d_pad) * sizeof *p->q);
    for (int64_t r = 0; r < n_row; r++) op_random_bf16(&seed, p->q + r * d_pad, sh.d, 1.5f);
    p->args.ldo = sh.n_head * sh.d + op_random_int(&seed, 0, 7);
    p->out_bytes = (size_t)(p->args.n_tok * p->args.ldo) * sizeof *p->out;
    p->out = op_alloc(p->out_bytes);
    p->lse_bytes = (size_t)n_row * sizeof *p->lse;
    p->lse = op_alloc(p->lse_bytes);
    p->args.q = p->q;
    p->args.lse = p->lse;
    p->args.kv = &p->kv;
    p->args.seqs = p->seqs;
    p->args.kv_of_head = p->kv_of_head;
    p->args.out = p->out;
    p->args.scale = 1.0f / sqrtf((float)sh.d);
    p->args.window = sh.window;
    p->args.n_seq = sh.n_seq;
    p->args.n_head = sh.n_head;
}

static void drop(struct problem *p) {
    free(p->pages);
    free(p->cache);
    free(p->q);
    free(p->out);
    free(p->lse);
}

static void run(struct op_env *env, struct problem *p, int b) {
    memset(p->out, 0x5a, p->out_bytes);
    memset(p->lse, 0x5a, p->lse_bytes);
    if (env->be[b].ops.attention(&env->be[b], &p->args) != NT_OK) op_fail(env, "status");
}

/* One row in double, and its lse; w [pos + 1] is scratch. */
static double reference(const struct problem *p, const struct nt_attn_seq *seq, int32_t tok, int32_t head, double *w,
                        double *out) {
    const int32_t d = p->kv.d_head, pos = seq->pos0 + tok, h = p->kv_of_head[head], window = p->args.window;
    const int32_t first = window > 0 && pos >= window ? pos - window + 1 : 0;
    const nt_bf16 *q = p->q + ((int64_t)(seq->q_row + tok) * p->args.n_head + head) * nt_d_pad(d);
    double max = -INFINITY, sum = 0;
    for (int32_t x = first; x <= pos; x++) {
        double dot = 0;
        for (int32_t i = 0; i < d; i++)
            dot += (double)nt_bf16_to_f32(q[i]) * nt_bf16_to_f32(p->cache[cache_at(p, seq, x, h, false, i)]);
        w[x] = dot * p->args.scale;
        if (w[x] > max || isnan(w[x])) max = w[x];
    }
    for (int32_t i = 0; i < d; i++) out[i] = 0;
    for (int32_t x = first; x <= pos; x++) {
        const double e = exp(w[x] - max);
        sum += e;
        for (int32_t i = 0; i < d; i++) out[i] += e * nt_bf16_to_f32(p->cache[cache_at(p, seq, x, h, true, i)]);
    }
    for (int32_t i = 0; i < d; i++) out[i] /= sum;
    return (max + log(sum)) / log(2);
}

static void check_problem(struct op_env *env, struct problem *p, const char *what) {
    const int32_t width = p->args.n_head * p->kv.d_head;
    double *want = op_alloc((size_t)(p->args.n_tok * width) * sizeof *want), *w = op_alloc(4096 * sizeof *w);
    nt_bf16 *got = op_alloc((size_t)(p->args.n_tok * width) * sizeof *got), *first = op_alloc(p->out_bytes);
    float *first_lse = op_alloc(p->lse_bytes);
    double *lse = op_alloc(2 * p->lse_bytes);
    run(env, p, 0);
    memcpy(first, p->out, p->out_bytes);
    memcpy(first_lse, p->lse, p->lse_bytes);
    run(env, p, 1);
    (void)op_compare_bytes(env, "one and two threads", first, p->out, p->out_bytes);
    (void)op_compare_bytes(env, "lse of one and two threads", first_lse, p->lse, p->lse_bytes);
    for (int32_t s = 0; s < p->args.n_seq; s++) {
        for (int32_t t = 0; t < p->seqs[s].n_q; t++) {
            const int64_t row = p->seqs[s].q_row + t;
            for (int32_t h = 0; h < p->args.n_head; h++)
                lse[row * p->args.n_head + h] =
                    reference(p, &p->seqs[s], t, h, w, want + row * width + h * p->kv.d_head);
            memcpy(got + row * width, p->out + row * p->args.ldo, (size_t)width * sizeof *got);
            for (int64_t i = width; i < p->args.ldo; i++)
                if (p->out[row * p->args.ldo + i] != 0x5a5a) op_fail(env, "padding of out was written");
        }
    }
    (void)op_compare_bf16(env, what, want, got, (int64_t)p->args.n_tok * width);
    if (!env->kv_int8) /* of the values before they were rounded */
        (void)op_compare_f32(env, "lse", lse, p->lse, (int64_t)p->args.n_tok * p->args.n_head);
    free(lse);
    free(first_lse);
    free(want);
    free(w);
    free(got);
    free(first);
}

static const struct shape shapes[] = {
    {9,  3, 64,  0,   3, 200},
    {1,  1, 2,   0,   2, 70 },
    {5,  2, 10,  0,   4, 150},
    {8,  1, 32,  0,   2, 130},
    {7,  3, 34,  20,  3, 300},
    {6,  6, 80,  64,  2, 140},
    {16, 2, 96,  0,   2, 66 },
    {4,  2, 128, 100, 3, 260},
    {14, 2, 160, 1,   2, 90 },
    {3,  1, 256, 0,   2, 65 },
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static void check_shapes(struct op_env *env) {
    for (int i = 0; i < N_SHAPES; i++) {
        struct problem p;
        char what[64];
        make(&p, (uint64_t)i, shapes[i]);
        (void)snprintf(what, sizeof what, "shape %d", i);
        check_problem(env, &p, what);
        drop(&p);
    }
    struct problem p; /* the groups of a rank whose heads end within a group */
    make(&p, 50, (struct shape){5, 2, 64, 0, 2, 100});
    const int32_t uneven[] = {0, 0, 0, 1, 1};
    memcpy(p.kv_of_head, uneven, sizeof uneven);
    check_problem(env, &p, "groups of 3 and 2");
    drop(&p);
}

/* The tokens of all sequences in calls of `chunk` tokens; everything must have the bits of the whole. */
static void check_cut(struct op_env *env, struct problem *p, const nt_bf16 *whole, int32_t chunk, int b) {
    char what[64];
    float *lse = op_alloc(p->lse_bytes);
    memcpy(lse, p->lse, p->lse_bytes);
    memset(p->out, 0x5a, p->out_bytes);
    memset(p->lse, 0x5a, p->lse_bytes);
    for (int32_t s = 0; s < p->args.n_seq; s++) {
        for (int32_t t = 0; t < p->seqs[s].n_q; t += chunk) {
            const int32_t left = p->seqs[s].n_q - t;
            const struct nt_attn_seq seq = {p->seqs[s].q_row + t, left < chunk ? left : chunk, p->seqs[s].pos0 + t,
                                            p->seqs[s].pages};
            struct nt_attention_args part = p->args;
            part.seqs = &seq;
            part.n_seq = 1;
            if (env->be[b].ops.attention(&env->be[b], &part) != NT_OK) op_fail(env, "status");
        }
    }
    (void)snprintf(what, sizeof what, "chunks of %d", chunk);
    (void)op_compare_bytes(env, what, whole, p->out, p->out_bytes);
    (void)op_compare_bytes(env, what, lse, p->lse, p->lse_bytes);
    free(lse);
}

static void check_chunks(struct op_env *env) {
    for (int i = 0; i < N_SHAPES; i++) {
        struct problem p;
        make(&p, 100 + (uint64_t)i, shapes[i]);
        nt_bf16 *whole = op_alloc(p.out_bytes);
        run(env, &p, 1);
        memcpy(whole, p.out, p.out_bytes);
        check_cut(env, &p, whole, 1, 0);
        check_cut(env, &p, whole, 7, 1);
        check_cut(env, &p, whole, 33, 0);
        free(whole);
        drop(&p);
    }
}

/* Special values in V, K and q of three positions of sequence 0; rows that do not see them keep their bits. */
static void check_special(struct op_env *env) {
    for (int i = 0; i < N_SHAPES; i++) {
        struct problem p;
        struct shape sh = shapes[i];
        sh.n_seq = 1;
        make(&p, 200 + (uint64_t)i, sh);
        const struct nt_attn_seq *seq = &p.seqs[0];
        const int32_t d = sh.d, n = seq->n_q, pos = seq->pos0 + n / 2, clean = (n / 2) * (int32_t)p.args.ldo;
        nt_bf16 *before = op_alloc(p.out_bytes);
        run(env, &p, 1);
        memcpy(before, p.out, p.out_bytes);
        p.cache[cache_at(&p, seq, pos, sh.n_kv - 1, true, d / 3)] = nt_f32_to_bf16(INFINITY);
        if (pos + 1 < seq->pos0 + n) {
            p.cache[cache_at(&p, seq, pos + 1, 0, true, d - 1)] = nt_f32_to_bf16(NAN);
            p.q[((int64_t)(n / 2 + 1) * sh.n_head) * nt_d_pad(d)] = nt_f32_to_bf16(NAN);
        }
        if (pos + 3 < seq->pos0 + n) p.cache[cache_at(&p, seq, pos + 3, 0, false, d / 2)] = nt_f32_to_bf16(-INFINITY);
        check_problem(env, &p, "special values");
        (void)op_compare_bytes(env, "rows before the special values", before, p.out, (size_t)clean * sizeof *before);
        nt_bf16 *whole = op_alloc(p.out_bytes);
        memcpy(whole, p.out, p.out_bytes);
        check_cut(env, &p, whole, 5, 1);
        free(before);
        free(whole);
        drop(&p);
    }
}

/* Scores far apart: weights underflow, the running maximum rises by page. */
static void check_range(struct op_env *env) {
    struct problem p;
    make(&p, 300, (struct shape){4, 2, 64, 0, 2, 250});
    for (int64_t i = 0; i < (int64_t)p.args.n_tok * 4 * 64; i++)
        p.q[i] = nt_f32_to_bf16(nt_bf16_to_f32(p.q[i]) * 40.0f);
    check_problem(env, &p, "scores of some hundreds");
    drop(&p);
}

static nt_status run_attention(struct nt_backend *be, void *ctx) {
    return be->ops.attention(be, ctx);
}

static void measure(struct op_env *env, struct shape sh, int32_t n_q, int32_t context, const char *what) {
    struct problem p;
    double flops = 0, bytes = 0;
    sh.max_pos = context;
    make(&p, 400, sh);
    p.args.n_tok = 0;
    for (int32_t s = 0; s < sh.n_seq; s++) {
        p.seqs[s] = (struct nt_attn_seq){s * n_q, n_q, context - n_q, p.seqs[s].pages};
        p.args.n_tok += n_q;
        for (int32_t t = 0; t < n_q; t++) flops += 4.0 * sh.d * sh.n_head * (context - n_q + t + 1);
        bytes += 4.0 * sh.d * sh.n_kv * context;
    }
    free(p.q);
    free(p.out);
    p.args.lse = NULL;
    uint64_t seed = 401;
    const int64_t n = (int64_t)p.args.n_tok * sh.n_head * sh.d;
    p.args.q = p.q = op_alloc((size_t)n * sizeof *p.q);
    p.args.out = p.out = op_alloc((size_t)n * sizeof *p.out);
    p.args.ldo = sh.n_head * sh.d;
    op_random_bf16(&seed, p.q, n, 1.5f);
    op_measure(env, what, flops, bytes, run_attention, &p.args);
    drop(&p);
}

static void perf(struct op_env *env) {
    measure(env, (struct shape){.n_head = 9, .n_kv = 3, .d = 64, .n_seq = 1}, 512, 512, "prefill 512, 9/3 x 64");
    measure(env, (struct shape){.n_head = 9, .n_kv = 3, .d = 64, .n_seq = 64}, 1, 192, "decode 64 at 192, 9/3 x 64");
    measure(env, (struct shape){.n_head = 16, .n_kv = 4, .d = 128, .n_seq = 1}, 512, 512, "prefill 512, 16/4 x 128");
    measure(env, (struct shape){.n_head = 16, .n_kv = 4, .d = 128, .n_seq = 6}, 1, 1024,
            "decode 6 at 1024, 16/4 x 128");
}

static const struct op_case cases[] = {
    {NT_OP_attention, "shapes",  check_shapes,  perf},
    {NT_OP_attention, "chunks",  check_chunks,  NULL},
    {NT_OP_attention, "special", check_special, NULL},
    {NT_OP_attention, "range",   check_range,   NULL},
};
const struct op_cases attention_cases = {sizeof cases / sizeof cases[0], cases};
