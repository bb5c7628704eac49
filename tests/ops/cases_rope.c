/* Cases of the rope_kv op: odd heads, with and without norms and rotation, sequences of prompts and single tokens on
 * scattered pages, special values, and that nothing but the tokens' own cache slots is written. */
#include "test_ops.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_SEQ = 5, MAX_PAGES = 8, MAX_POS = 512, N_PAGES = MAX_SEQ * MAX_PAGES };

struct problem {
    struct nt_rope_kv_args args;
    struct nt_kv_layer kv;
    struct nt_attn_seq seqs[MAX_SEQ];
    int32_t pages[N_PAGES];
    float *qkv, *cos, *sin, *q_norm, *k_norm;
    nt_bf16 *cache0, *cache, *q; // cache0: before
    size_t cache_bytes, q_bytes;
};

struct shape {
    int32_t n_head, n_kv, d;
    bool norm, rotate;
};

static void make_seqs(struct problem *p, uint64_t *seed, int32_t n_seq) {
    for (int32_t i = 0; i < N_PAGES; i++) p->pages[i] = i;
    for (int32_t i = N_PAGES - 1; i > 0; i--) {
        const int32_t j = op_random_int(seed, 0, i), page = p->pages[i];
        p->pages[i] = p->pages[j];
        p->pages[j] = page;
    }
    p->args.n_tok = 0;
    for (int32_t s = 0; s < n_seq; s++) {
        const int32_t n_q = s % 2 ? 1 : op_random_int(seed, 2, 140);
        p->seqs[s] = (struct nt_attn_seq){p->args.n_tok, n_q, op_random_int(seed, 0, MAX_POS - n_q - 1),
                                          p->pages + s * MAX_PAGES};
        p->args.n_tok += n_q;
    }
    p->args.n_seq = n_seq;
    p->args.seqs = p->seqs;
}

static void make(struct problem *p, uint64_t seed, struct shape sh, int32_t n_seq) {
    memset(p, 0, sizeof *p);
    make_seqs(p, &seed, n_seq);
    const int32_t half = sh.d / 2, n_tok = p->args.n_tok;
    const int64_t n_qkv = (int64_t)n_tok * (sh.n_head + 2 * sh.n_kv) * sh.d;
    p->kv =
        (struct nt_kv_layer){NULL, sh.n_kv * nt_kv_head_elems(NT_KV_PAIRED, sh.d) + 32, sh.n_kv, sh.d, NT_KV_PAIRED};
    p->cache_bytes = (size_t)(N_PAGES * p->kv.page_stride) * sizeof(nt_bf16);
    p->q_bytes = (size_t)n_tok * (size_t)(sh.n_head * nt_d_pad(sh.d)) * sizeof(nt_bf16);
    p->qkv = op_alloc((size_t)n_qkv * sizeof(float));
    p->cos = op_alloc((size_t)(MAX_POS * half) * sizeof(float));
    p->sin = op_alloc((size_t)(MAX_POS * half) * sizeof(float));
    p->q_norm = op_alloc((size_t)sh.d * sizeof(float));
    p->k_norm = op_alloc((size_t)sh.d * sizeof(float));
    p->cache0 = op_alloc(p->cache_bytes);
    p->cache = op_alloc(p->cache_bytes);
    p->q = op_alloc(p->q_bytes);
    op_random_f32(&seed, p->qkv, n_qkv, 2.0f);
    op_random_f32(&seed, p->q_norm, sh.d, 1.0f);
    op_random_f32(&seed, p->k_norm, sh.d, 1.0f);
    op_random_bf16(&seed, p->cache0, (int64_t)(p->cache_bytes / sizeof(nt_bf16)), 1.0f);
    for (int32_t i = 0; i < MAX_POS * half; i++) {
        const double angle = i / half * pow(10000.0, -(double)(i % half) / half);
        p->cos[i] = (float)cos(angle);
        p->sin[i] = (float)sin(angle);
    }
    p->args.qkv = p->qkv;
    p->args.kv = &p->kv;
    p->args.cos = sh.rotate ? p->cos : NULL;
    p->args.sin = sh.rotate ? p->sin : NULL;
    p->args.q_norm = sh.norm ? p->q_norm : NULL;
    p->args.k_norm = sh.norm ? p->k_norm : NULL;
    p->args.eps = 1e-6f;
    p->args.n_head = sh.n_head;
}

static void drop(struct problem *p) {
    free(p->qkv);
    free(p->cos);
    free(p->sin);
    free(p->q_norm);
    free(p->k_norm);
    free(p->cache0);
    free(p->cache);
    free(p->q);
}

static void run(struct op_env *env, struct problem *p, int b) {
    memcpy(p->cache, p->cache0, p->cache_bytes);
    memset(p->q, 0x5a, p->q_bytes);
    p->kv.base = p->cache;
    p->args.q = p->q;
    if (env->be[b].ops.rope_kv(&env->be[b], &p->args) != NT_OK) op_fail(env, "status");
}

/* y[d] = the normed and rotated head in double. */
static void rotate(const struct problem *p, const float *x, const float *norm, int32_t pos, double *y) {
    const int32_t d = p->kv.d_head, half = d / 2;
    double sum = 0;
    for (int32_t i = 0; i < d; i++) sum += (double)x[i] * x[i];
    const double s = norm ? 1.0 / sqrt(sum / d + p->args.eps) : 1.0;
    for (int32_t j = 0; j < half; j++) {
        const double a = norm ? x[j] * s * norm[j] : x[j], b = norm ? x[j + half] * s * norm[j + half] : x[j + half];
        const double c = p->args.cos ? p->args.cos[pos * half + j] : 1,
                     si = p->args.cos ? p->args.sin[pos * half + j] : 0;
        y[j] = p->args.cos ? a * c - b * si : a;
        y[j + half] = p->args.cos ? b * c + a * si : b;
    }
}

/* Where element i of K (or V) of a position lies. */
static int64_t cache_at(const struct problem *p, const struct nt_attn_seq *seq, int32_t pos, int32_t h, bool v,
                        int32_t i) {
    const int32_t d_pad = nt_d_pad(p->kv.d_head), slot = pos % NT_KV_PAGE;
    const int64_t at =
        seq->pages[pos / NT_KV_PAGE] * p->kv.page_stride + h * nt_kv_head_elems(NT_KV_PAIRED, p->kv.d_head);
    return v ? at + NT_KV_PAGE * d_pad + (slot / 2) * 2 * d_pad + 2 * i + slot % 2
             : at + (i / 2) * 2 * NT_KV_PAGE + 2 * slot + i % 2;
}

static void check_token(struct op_env *env, struct problem *p, const struct nt_attn_seq *seq, int32_t tok, double *want,
                        nt_bf16 *got) {
    const int32_t d = p->kv.d_head, d_pad = nt_d_pad(d), n_head = p->args.n_head, pos = seq->pos0 + tok;
    const int64_t row = seq->q_row + tok;
    const float *x = p->qkv + row * (n_head + 2 * p->kv.n_kv) * d;
    for (int32_t h = 0; h < n_head; h++) {
        const nt_bf16 *q = p->q + (row * n_head + h) * d_pad;
        rotate(p, x + h * d, p->args.q_norm, pos, want + h * d);
        memcpy(got + h * d, q, (size_t)d * sizeof *got);
        for (int32_t i = d; i < d_pad; i++)
            if (q[i] != 0) op_fail(env, "padding of q is not zero");
    }
    (void)op_compare_bf16(env, "q", want, got, n_head * d);
    for (int32_t h = 0; h < p->kv.n_kv; h++) {
        rotate(p, x + (n_head + h) * d, p->args.k_norm, pos, want + 2 * h * d);
        for (int32_t i = 0; i < d; i++) {
            const int64_t k_at = cache_at(p, seq, pos, h, false, i), v_at = cache_at(p, seq, pos, h, true, i);
            want[(2 * h + 1) * d + i] = x[(n_head + p->kv.n_kv + h) * d + i];
            got[2 * h * d + i] = p->cache[k_at];
            got[(2 * h + 1) * d + i] = p->cache[v_at];
            p->cache[k_at] = p->cache0[k_at];
            p->cache[v_at] = p->cache0[v_at];
        }
    }
    (void)op_compare_bf16(env, "k and v", want, got, 2 * p->kv.n_kv * d);
}

static void check_problem(struct op_env *env, struct problem *p) {
    const size_t width = (size_t)((p->args.n_head + 2 * p->kv.n_kv) * p->kv.d_head);
    double *want = op_alloc(width * sizeof *want);
    nt_bf16 *got = op_alloc(width * sizeof *got);
    nt_bf16 *cache = op_alloc(p->cache_bytes), *q = op_alloc(p->q_bytes);
    run(env, p, 0);
    memcpy(cache, p->cache, p->cache_bytes);
    memcpy(q, p->q, p->q_bytes);
    run(env, p, 1);
    (void)op_compare_bytes(env, "cache of one and two threads", cache, p->cache, p->cache_bytes);
    (void)op_compare_bytes(env, "q of one and two threads", q, p->q, p->q_bytes);
    for (int32_t s = 0; s < p->args.n_seq; s++)
        for (int32_t t = 0; t < p->seqs[s].n_q; t++) check_token(env, p, &p->seqs[s], t, want, got);
    (void)op_compare_bytes(env, "the rest of the cache", p->cache0, p->cache, p->cache_bytes);
    free(want);
    free(got);
    free(cache);
    free(q);
}

static void check_shapes(struct op_env *env) {
    static const struct shape shapes[] = {
        {9,  3, 64,  false, true },
        {4,  4, 2,   true,  true },
        {3,  1, 10,  false, true },
        {6,  2, 30,  true,  true },
        {5,  2, 34,  true,  false},
        {8,  1, 96,  true,  true },
        {4,  2, 128, false, false},
        {14, 2, 160, true,  true },
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct problem p;
        make(&p, i, shapes[i], 1 + (int32_t)i % MAX_SEQ);
        check_problem(env, &p);
        drop(&p);
    }
}

static void check_special(struct op_env *env) {
    static const struct shape shapes[] = {
        {4, 2, 64, false, true },
        {3, 3, 34, true,  true },
        {2, 1, 20, false, false},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct problem p;
        make(&p, 20 + i, shapes[i], 2);
        const int32_t width = (shapes[i].n_head + 2 * shapes[i].n_kv) * shapes[i].d;
        for (int32_t t = 0; t < p.args.n_tok; t++)
            p.qkv[t * width + t * 7 % width] = t % 3 == 0 ? NAN : t % 3 == 1 ? INFINITY : -INFINITY;
        check_problem(env, &p);
        drop(&p);
    }
}

/* One token per call writes the same bits as a whole prompt. */
static void check_chunks(struct op_env *env) {
    struct problem p;
    make(&p, 30, (struct shape){6, 3, 48, true, true}, 3);
    nt_bf16 *cache = op_alloc(p.cache_bytes), *q = op_alloc(p.q_bytes);
    run(env, &p, 1);
    memcpy(cache, p.cache, p.cache_bytes);
    memcpy(q, p.q, p.q_bytes);
    memcpy(p.cache, p.cache0, p.cache_bytes);
    memset(p.q, 0x5a, p.q_bytes);
    for (int32_t s = 0; s < p.args.n_seq; s++) {
        for (int32_t t = 0; t < p.seqs[s].n_q; t++) {
            struct nt_rope_kv_args one = p.args;
            const struct nt_attn_seq seq = {p.seqs[s].q_row + t, 1, p.seqs[s].pos0 + t, p.seqs[s].pages};
            one.seqs = &seq;
            one.n_seq = 1; /* the rows of the others are nobody's */
            if (env->be[t % 2].ops.rope_kv(&env->be[t % 2], &one) != NT_OK) op_fail(env, "status");
        }
    }
    (void)op_compare_bytes(env, "cache of single tokens", cache, p.cache, p.cache_bytes);
    (void)op_compare_bytes(env, "q of single tokens", q, p.q, p.q_bytes);
    free(cache);
    free(q);
    drop(&p);
}

static nt_status run_rope(struct nt_backend *be, void *ctx) {
    return be->ops.rope_kv(be, ctx);
}

static void perf(struct op_env *env) {
    for (int norm = 0; norm < 2; norm++) {
        struct problem p;
        make(&p, 40, (struct shape){9, 3, 64, norm == 1, true}, MAX_SEQ);
        run(env, &p, 1);
        const int32_t n = p.args.n_tok;
        char what[64];
        (void)snprintf(what, sizeof what, "%d tokens, 9/3 heads of 64%s", n, norm ? ", q/k norm" : "");
        op_measure(env, what, n * 12 * 64 * 3.0, n * 15 * 64 * 6.0, run_rope, &p.args);
        drop(&p);
    }
}

static const struct op_case cases[] = {
    {NT_OP_rope_kv, "shapes",  check_shapes,  perf},
    {NT_OP_rope_kv, "special", check_special, NULL},
    {NT_OP_rope_kv, "chunks",  check_chunks,  NULL},
};
const struct op_cases rope_cases = {sizeof cases / sizeof cases[0], cases};
