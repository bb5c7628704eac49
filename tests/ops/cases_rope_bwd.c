/* Cases of rope_bwd: the formula against slopes of rotation and norms, odd heads, each norm alone, sequences of several
 * lengths, more tokens than one block, special values by position, tokens cut into sequences and calls. */
#include "op_gradient.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_SEQ = 16, MAX_POS = 200 };

struct shape {
    int32_t n_head, n_kv, d;
    bool q_norm, k_norm, rotate;
};

struct problem {
    struct nt_rope_bwd_args args;
    struct nt_attn_seq seqs[MAX_SEQ];
    float *dqkv, *qkv, *cos, *sin, *norm, *dnorm0, *dnorm; // norm, dnorm [2, d]: q, k
    nt_bf16 *dqkv16;
    int64_t count;
    int32_t width;
};

static float *random_floats(uint64_t *seed, int64_t count, float scale) {
    float *x = op_alloc((size_t)count * sizeof *x);
    op_random_f32(seed, x, count, scale);
    return x;
}

static void make(struct problem *p, uint64_t seed, struct shape sh, int32_t n_seq, int32_t max_q) {
    const int32_t half = sh.d / 2;
    memset(p, 0, sizeof *p);
    p->args = (struct nt_rope_bwd_args){
        .eps = 1e-6f, .n_seq = n_seq, .n_head = sh.n_head, .n_kv = sh.n_kv, .d_head = sh.d, .max_q = max_q};
    for (int32_t s = 0; s < n_seq; s++) {
        const int32_t n_q = s == 0 ? max_q : s == 2 ? 0 : op_random_int(&seed, 1, max_q);
        const int32_t pos0 = n_q < MAX_POS ? op_random_int(&seed, 0, MAX_POS - n_q - 1) : 0;
        p->seqs[s] = (struct nt_attn_seq){p->args.n_tok, n_q, pos0, NULL};
        p->args.n_tok += n_q;
    }
    p->width = (sh.n_head + 2 * sh.n_kv) * sh.d;
    p->count = (int64_t)p->args.n_tok * p->width;
    p->dqkv = random_floats(&seed, p->count, 1);
    p->qkv = random_floats(&seed, p->count, 2);
    p->norm = random_floats(&seed, 2 * sh.d, 1);
    p->dnorm0 = random_floats(&seed, 2 * sh.d, 1);
    p->dnorm = op_alloc((size_t)(2 * sh.d) * sizeof *p->dnorm);
    p->dqkv16 = op_alloc((size_t)(p->count + p->width) * sizeof *p->dqkv16);
    p->cos = op_alloc((size_t)(MAX_POS * half) * sizeof(float));
    p->sin = op_alloc((size_t)(MAX_POS * half) * sizeof(float));
    for (int32_t i = 0; i < MAX_POS * half; i++) {
        const double angle = i / half * pow(10000.0, -(double)(i % half) / half);
        p->cos[i] = (float)cos(angle);
        p->sin[i] = (float)sin(angle);
    }
    p->args.dqkv = p->dqkv;
    p->args.dqkv16 = p->dqkv16;
    p->args.seqs = p->seqs;
    p->args.cos = sh.rotate ? p->cos : NULL;
    p->args.sin = sh.rotate ? p->sin : NULL;
    p->args.qkv = sh.q_norm || sh.k_norm ? p->qkv : NULL;
    p->args.q_norm = sh.q_norm ? p->norm : NULL;
    p->args.k_norm = sh.k_norm ? p->norm + sh.d : NULL;
    p->args.dq_norm = sh.q_norm ? p->dnorm : NULL;
    p->args.dk_norm = sh.k_norm ? p->dnorm + sh.d : NULL;
}

static void drop(struct problem *p) {
    free(p->dqkv);
    free(p->qkv);
    free(p->norm);
    free(p->dnorm0);
    free(p->dnorm);
    free(p->dqkv16);
    free(p->cos);
    free(p->sin);
}

static void run(struct op_env *env, struct problem *p, int b) {
    memset(p->dqkv16, 0x5a, (size_t)(p->count + p->width) * sizeof *p->dqkv16);
    memcpy(p->dnorm, p->dnorm0, (size_t)(2 * p->args.d_head) * sizeof *p->dnorm);
    if (env->be[b].ops.rope_bwd(&env->be[b], &p->args) != NT_OK) op_fail(env, "status");
}

/* The norm of head h of a row, or NULL; dnorm moves along. */
static const double *norm_of(const struct problem *p, const double *norm, int32_t h, double **dnorm) {
    const bool q = h < p->args.n_head;
    if (h >= p->args.n_head + p->args.n_kv || !(q ? p->args.q_norm : p->args.k_norm)) return NULL;
    if (dnorm && !q) *dnorm += p->args.d_head;
    return norm + (q ? 0 : p->args.d_head);
}

/* The forward in double: y of one head. */
static void rotate(const struct problem *p, const double *x, const double *norm, int32_t pos, bool turn, double *y) {
    const int32_t d = p->args.d_head, half = d / 2;
    double sum = 0;
    for (int32_t i = 0; i < d; i++) sum += x[i] * x[i];
    const double s = norm ? 1 / sqrt(sum / d + p->args.eps) : 1;
    for (int32_t i = 0; i < d; i++) y[i] = x[i] * s * (norm ? norm[i] : 1);
    for (int32_t j = 0; turn && p->args.cos && j < half; j++) {
        const double c = p->cos[pos * half + j], si = p->sin[pos * half + j], a = y[j], b = y[j + half];
        y[j] = a * c - b * si;
        y[j + half] = b * c + a * si;
    }
}

/* dx of one head, dnorm added to. */
static void rotate_bwd(const struct problem *p, const float *dy, const double *x, const double *norm, int32_t pos,
                       bool turn, double *dx, double *dnorm) {
    const int32_t d = p->args.d_head, half = d / 2;
    double sum = 0, dot = 0;
    for (int32_t i = 0; i < d; i++) dx[i] = (double)dy[i];
    for (int32_t j = 0; turn && p->args.cos && j < half; j++) {
        const double c = p->cos[pos * half + j], si = p->sin[pos * half + j];
        dx[j] = dy[j] * c + dy[j + half] * si;
        dx[j + half] = dy[j + half] * c - dy[j] * si;
    }
    if (!norm) return;
    for (int32_t i = 0; i < d; i++) {
        sum += x[i] * x[i];
        dot += dx[i] * norm[i] * x[i];
    }
    const double s = 1 / sqrt(sum / d + p->args.eps);
    for (int32_t i = 0; i < d; i++) {
        dnorm[i] += dx[i] * x[i] * s;
        dx[i] = s * (dx[i] * norm[i] - x[i] * s * s * dot / d);
    }
}

static void reference(const struct problem *p, const double *qkv, const double *norm, double *dqkv, double *dnorm) {
    const int32_t d = p->args.d_head, n = p->width / d;
    for (int32_t s = 0; s < p->args.n_seq; s++)
        for (int32_t i = 0; i < p->seqs[s].n_q * n; i++) {
            const int64_t at = (int64_t)p->seqs[s].q_row * p->width + (int64_t)i * d;
            double *sums = dnorm;
            const double *w = norm_of(p, norm, i % n, &sums);
            rotate_bwd(p, p->dqkv + at, qkv + at, w, p->seqs[s].pos0 + i / n, i % n < p->args.n_head + p->args.n_kv,
                       dqkv + at, sums);
        }
}

static void check_problem(struct op_env *env, struct problem *p, const char *what) {
    const int32_t d = p->args.d_head;
    const size_t bytes = (size_t)(p->count + p->width) * sizeof *p->dqkv16,
                 norm_bytes = (size_t)(2 * d) * sizeof(float);
    double *qkv = op_doubles(p->qkv, p->count), *norm = op_doubles(p->norm, 2 * d);
    double *dqkv = op_doubles(p->dqkv, p->count), *dnorm = op_doubles(p->dnorm0, 2 * d);
    nt_bf16 *first = op_alloc(bytes);
    float *first_norm = op_alloc(norm_bytes);
    reference(p, qkv, norm, dqkv, dnorm);
    run(env, p, 0);
    memcpy(first, p->dqkv16, bytes);
    memcpy(first_norm, p->dnorm, norm_bytes);
    run(env, p, 1);
    (void)op_compare_bytes(env, "dqkv of one and two threads", first, p->dqkv16, bytes);
    (void)op_compare_bytes(env, "sums of one and two threads", first_norm, p->dnorm, norm_bytes);
    (void)op_compare_bf16(env, what, dqkv, p->dqkv16, p->count);
    for (int k = 0; k < 2; k++) {
        if (k ? p->args.k_norm : p->args.q_norm)
            (void)op_compare_f32(env, k ? "dk_norm" : "dq_norm", dnorm + k * d, p->dnorm + k * d, d);
        else
            (void)op_compare_bytes(env, "no norm", p->dnorm0 + k * d, p->dnorm + k * d, norm_bytes / 2);
    }
    memset(first, 0x5a, (size_t)p->width * sizeof *first);
    (void)op_compare_bytes(env, "the row after the last", first, p->dqkv16 + p->count,
                           (size_t)p->width * sizeof *first);
    free(qkv);
    free(norm);
    free(dqkv);
    free(dnorm);
    free(first);
    free(first_norm);
}

static const struct shape shapes[] = {
    {9, 3, 64,  false, false, true },
    {4, 4, 2,   true,  true,  true },
    {3, 1, 10,  false, false, true },
    {6, 2, 30,  true,  true,  true },
    {5, 2, 34,  true,  true,  false},
    {8, 1, 96,  true,  false, true },
    {4, 2, 128, false, true,  true },
    {2, 1, 160, false, false, false},
    {2, 1, 512, true,  true,  true },
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static void check_shapes(struct op_env *env) {
    for (int i = 0; i < N_SHAPES; i++) {
        struct problem p;
        char what[64];
        make(&p, (uint64_t)i, shapes[i], 1 + i % 5, 20 + 17 * i);
        (void)snprintf(what, sizeof what, "shape %d", i);
        check_problem(env, &p, what);
        if (p.args.q_norm) { /* frozen norms */
            p.args.dq_norm = p.args.dk_norm = NULL;
            run(env, &p, 1);
            (void)op_compare_bytes(env, "frozen norms", p.dnorm0, p.dnorm, (size_t)(2 * shapes[i].d) * sizeof(float));
        }
        drop(&p);
    }
}

struct loss {
    const struct problem *p;
    double *qkv, *norm;
};

static double loss_of(void *ctx) {
    const struct loss *l = ctx;
    const struct problem *p = l->p;
    const int32_t d = p->args.d_head, n = p->width / d;
    double y[512], loss = 0;
    for (int32_t s = 0; s < p->args.n_seq; s++)
        for (int32_t i = 0; i < p->seqs[s].n_q * n; i++) {
            const int64_t at = (int64_t)p->seqs[s].q_row * p->width + (int64_t)i * d;
            rotate(p, l->qkv + at, norm_of(p, l->norm, i % n, NULL), p->seqs[s].pos0 + i / n,
                   i % n < p->args.n_head + p->args.n_kv, y);
            for (int32_t j = 0; j < d; j++) loss += p->dqkv[at + j] * y[j];
        }
    return loss;
}

static void check_slopes(struct op_env *env) {
    for (int i = 0; i < 3; i++) {
        struct problem p;
        make(&p, 20 + (uint64_t)i, (struct shape){2, 1, 6, i > 0, i > 1, i != 1}, 2, 4);
        double *dqkv = op_alloc((size_t)p.count * sizeof *dqkv), dnorm[12] = {0};
        struct loss l = {&p, op_doubles(p.qkv, p.count), op_doubles(p.norm, 12)};
        reference(&p, l.qkv, l.norm, dqkv, dnorm);
        op_check_gradient(env, "dqkv", loss_of, &l, l.qkv, dqkv, p.count);
        op_check_gradient(env, "norms", loss_of, &l, l.norm, dnorm, 12);
        check_problem(env, &p, "slopes");
        free(dqkv);
        free(l.qkv);
        free(l.norm);
        drop(&p);
    }
}

static void check_special(struct op_env *env) {
    for (int i = 0; i < N_SHAPES; i++) {
        struct problem p;
        make(&p, 40 + (uint64_t)i, shapes[i], 2, 30);
        for (int32_t t = 0; t < p.args.n_tok; t += 4) {
            float *at = (t % 8 ? p.qkv : p.dqkv) + (int64_t)t * p.width + t * 7 % p.width;
            *at = t % 3 == 0 ? NAN : t % 3 == 1 ? INFINITY : -INFINITY;
        }
        check_problem(env, &p, "special values");
        drop(&p);
    }
}

/* The same tokens as one sequence, as many, and in calls of whole blocks give the same bits; rows of no sequence stay.
 */
static void check_cut(struct op_env *env) {
    enum { TOK = 3 * NT_ROPE_BLOCK - 10, EACH = 2, MANY = TOK / EACH, GAP = 2 };
    struct nt_attn_seq many[MANY];
    struct problem p;
    float whole[2 * 16];
    make(&p, 70, (struct shape){3, 2, 16, true, true, true}, 1, TOK + GAP);
    const size_t bytes = (size_t)(p.count + p.width) * sizeof *p.dqkv16, norm_bytes = sizeof whole;
    nt_bf16 *first = op_alloc(bytes);
    p.seqs[0].q_row = GAP;
    p.seqs[0].n_q = TOK;
    run(env, &p, 0);
    const float *norms = p.dnorm;
    memcpy(first, p.dqkv16, bytes);
    memcpy(whole, norms, norm_bytes);
    for (int32_t i = 0; i < GAP * p.width; i++)
        if (p.dqkv16[i] != 0x5a5a) op_fail(env, "element %d of no sequence was written", i);
    for (int32_t i = 0; i < MANY; i++)
        many[i] = (struct nt_attn_seq){GAP + i * EACH, EACH, p.seqs[0].pos0 + i * EACH, NULL};
    p.args.seqs = many;
    p.args.n_seq = MANY;
    run(env, &p, 1);
    (void)op_compare_bytes(env, "many sequences", first, p.dqkv16, bytes);
    (void)op_compare_bytes(env, "sums of many sequences", whole, norms, norm_bytes);
    p.args.seqs = p.seqs;
    p.args.n_seq = 1;
    p.seqs[0].n_q = NT_ROPE_BLOCK;
    run(env, &p, 1);
    p.seqs[0].q_row += NT_ROPE_BLOCK;
    p.seqs[0].pos0 += NT_ROPE_BLOCK;
    p.seqs[0].n_q = TOK - NT_ROPE_BLOCK;
    if (env->be[0].ops.rope_bwd(&env->be[0], &p.args) != NT_OK) op_fail(env, "status");
    (void)op_compare_bytes(env, "two calls", first, p.dqkv16, bytes);
    (void)op_compare_bytes(env, "sums of two calls", whole, norms, norm_bytes);
    free(first);
    drop(&p);
}

/* More blocks than the join of their sums takes at once, the last of them not full. */
static void check_long(struct op_env *env) {
    enum { TOK = 11 * NT_ROPE_BLOCK - 30, EACH = TOK / MAX_SEQ + 1 };
    struct problem p;
    make(&p, 71, (struct shape){2, 1, 6, true, true, true}, 1, TOK);
    for (int32_t i = 0; i < MAX_SEQ; i++)
        p.seqs[i] = (struct nt_attn_seq){i * EACH, i + 1 < MAX_SEQ ? EACH : TOK - i * EACH, 7 * i, NULL};
    p.args.n_seq = MAX_SEQ;
    p.args.max_q = EACH;
    check_problem(env, &p, "long");
    drop(&p);
}

static nt_status run_rope(struct nt_backend *be, void *ctx) {
    return be->ops.rope_bwd(be, ctx);
}

static void perf(struct op_env *env) {
    for (int norm = 0; norm < 2; norm++) {
        struct problem p;
        make(&p, 60, (struct shape){9, 3, 64, norm == 1, norm == 1, true}, 1, MAX_POS - 1);
        run(env, &p, 1);
        const double n = p.args.n_tok * 12 * 64.0;
        op_measure(env, norm ? "199 tokens, 9/3 x 64, norms" : "199 tokens, 9/3 x 64", n * (norm ? 13 : 3),
                   p.args.n_tok * 15 * 64 * 6.0 + (norm ? n * 4 : 0), run_rope, &p.args);
        drop(&p);
    }
}

static const struct op_case cases[] = {
    {NT_OP_rope_bwd, "shapes",  check_shapes,  perf},
    {NT_OP_rope_bwd, "slopes",  check_slopes,  NULL},
    {NT_OP_rope_bwd, "special", check_special, NULL},
    {NT_OP_rope_bwd, "cut",     check_cut,     NULL},
    {NT_OP_rope_bwd, "long",    check_long,    NULL},
};
const struct op_cases rope_bwd_cases = {sizeof cases / sizeof cases[0], cases};
