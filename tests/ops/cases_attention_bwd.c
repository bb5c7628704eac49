/* Cases of attention_bwd: the formula against slopes of attention (causal, windows, groups, several sequences), odd
 * heads and lengths on scattered pages, special values by position, no gradient between sequences, threads. */
#include "op_gradient.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_SEQ = 7, MAX_HEAD = 99, EDGES = 129 };

/* Lengths of the sequences where max_q is EDGES: around pages, and blocks of two of them. */
static const int32_t edges[MAX_SEQ] = {EDGES, 1, 64, 0, 65, 127, 128};

struct shape {
    int32_t n_head, n_kv, d, window, n_seq, max_q;
};

struct problem {
    struct nt_attention_bwd_args args;
    struct nt_kv_layer kv;
    struct nt_attn_seq seqs[MAX_SEQ];
    int32_t kv_of_head[MAX_HEAD], *pages;
    nt_bf16 *cache, *q, *out;
    float *lse, *dout, *dqkv;
    size_t dqkv_bytes;
    int32_t width; /* of a row of dqkv */
};

/* Inputs and results in double. q [n_tok, n_head, d], k and v [n_tok, n_kv, d], dout [n_tok, n_head, d]. */
struct exact {
    const struct problem *p;
    double *q, *k, *v, *dout, *dqkv;
};

static int64_t cache_at(const struct problem *p, const struct nt_attn_seq *seq, int32_t pos, int32_t h, bool v,
                        int32_t i) {
    const int32_t d_pad = nt_d_pad(p->kv.d_head), slot = pos % NT_KV_PAGE;
    const int64_t at =
        seq->pages[pos / NT_KV_PAGE] * p->kv.page_stride + h * nt_kv_head_elems(NT_KV_PAIRED, p->kv.d_head);
    return v ? at + NT_KV_PAGE * d_pad + (slot / 2) * 2 * d_pad + 2 * i + slot % 2
             : at + (i / 2) * 2 * NT_KV_PAGE + 2 * slot + i % 2;
}

static void make_seqs(struct problem *p, uint64_t *seed, const struct shape *sh) {
    const int32_t per_seq = (sh->max_q + NT_KV_PAGE - 1) / NT_KV_PAGE, n_pages = sh->n_seq * per_seq;
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
        const int32_t some = s == 0 ? sh->max_q : s == 3 ? 0 : op_random_int(seed, 1, sh->max_q);
        const int32_t n_q = sh->max_q == EDGES ? edges[s] : some;
        p->seqs[s] = (struct nt_attn_seq){p->args.n_tok, n_q, 0, p->pages + s * per_seq};
        p->args.n_tok += n_q;
        for (int32_t pos = 0; pos < n_q; pos++)
            for (int32_t i = 0; i < sh->n_kv * sh->d; i++) {
                p->cache[cache_at(p, &p->seqs[s], pos, i / sh->d, false, i % sh->d)] =
                    nt_f32_to_bf16(op_random_normal(seed));
                p->cache[cache_at(p, &p->seqs[s], pos, i / sh->d, true, i % sh->d)] =
                    nt_f32_to_bf16(op_random_normal(seed));
            }
        for (int32_t pos = n_q; pos % NT_KV_PAGE; pos++) /* of nobody */
            for (int32_t i = 0; i < 2 * sh->n_kv * sh->d; i++)
                p->cache[cache_at(p, &p->seqs[s], pos, i / 2 / sh->d, i % 2, i / 2 % sh->d)] = nt_f32_to_bf16(NAN);
    }
}

static void make(struct problem *p, uint64_t seed, struct shape sh) {
    memset(p, 0, sizeof *p);
    const int32_t step = seed % 3 == 1 ? 1 : 4; /* a GPU reads aligned rows in other ways */
    for (int32_t h = 0; h < sh.n_head; h++) p->kv_of_head[h] = h * sh.n_kv / sh.n_head;
    make_seqs(p, &seed, &sh);
    const int32_t d_pad = nt_d_pad(sh.d), n_tok = p->args.n_tok;
    p->width = (sh.n_head + 2 * sh.n_kv) * sh.d;
    p->dqkv_bytes = (size_t)(n_tok + 1) * (size_t)p->width * sizeof *p->dqkv;
    p->args = (struct nt_attention_bwd_args){.kv = &p->kv,
                                             .seqs = p->seqs,
                                             .kv_of_head = p->kv_of_head,
                                             .ldo = sh.n_head * sh.d + step * op_random_int(&seed, 0, 7),
                                             .lddo = sh.n_head * sh.d + step * op_random_int(&seed, 0, 7),
                                             .scale = 1.0f / sqrtf((float)sh.d),
                                             .window = sh.window,
                                             .n_seq = sh.n_seq,
                                             .n_tok = n_tok,
                                             .n_head = sh.n_head,
                                             .max_q = sh.max_q};
    p->q = op_alloc((size_t)(n_tok * sh.n_head * d_pad) * sizeof *p->q);
    for (int64_t r = 0; r < (int64_t)n_tok * sh.n_head; r++) op_random_bf16(&seed, p->q + r * d_pad, sh.d, 1.5f);
    p->out = op_alloc((size_t)(n_tok * p->args.ldo) * sizeof *p->out);
    p->lse = op_alloc((size_t)(n_tok * sh.n_head) * sizeof *p->lse);
    p->dout = op_alloc((size_t)(n_tok * p->args.lddo) * sizeof *p->dout);
    op_random_f32(&seed, p->dout, n_tok * p->args.lddo, 1);
    p->dqkv = op_alloc(p->dqkv_bytes);
    p->args.q = p->q;
    p->args.out = p->out;
    p->args.lse = p->lse;
    p->args.dout = p->dout;
    p->args.dqkv = p->dqkv;
}

static void drop(struct problem *p) {
    free(p->pages);
    free(p->cache);
    free(p->q);
    free(p->out);
    free(p->lse);
    free(p->dout);
    free(p->dqkv);
}

static struct exact exact_of(const struct problem *p) {
    const int32_t n_tok = p->args.n_tok, n_head = p->args.n_head, n_kv = p->kv.n_kv, d = p->kv.d_head;
    struct exact e = {.p = p};
    e.q = op_alloc((size_t)(n_tok * n_head * d) * sizeof *e.q);
    e.dout = op_alloc((size_t)(n_tok * n_head * d) * sizeof *e.dout);
    e.k = op_alloc((size_t)(n_tok * n_kv * d) * sizeof *e.k);
    e.v = op_alloc((size_t)(n_tok * n_kv * d) * sizeof *e.v);
    e.dqkv = op_alloc((size_t)n_tok * (size_t)p->width * sizeof *e.dqkv);
    for (int64_t t = 0; t < n_tok; t++)
        for (int32_t i = 0; i < n_head * d; i++) {
            e.q[t * n_head * d + i] = (double)nt_bf16_to_f32(p->q[(t * n_head + i / d) * nt_d_pad(d) + i % d]);
            e.dout[t * n_head * d + i] = (double)nt_bf16_to_f32(nt_f32_to_bf16(p->dout[t * p->args.lddo + i]));
        }
    for (int32_t s = 0; s < p->args.n_seq; s++)
        for (int32_t pos = 0; pos < p->seqs[s].n_q; pos++)
            for (int32_t i = 0; i < n_kv * d; i++) {
                const int64_t at = (int64_t)(p->seqs[s].q_row + pos) * n_kv * d + i;
                e.k[at] = (double)nt_bf16_to_f32(p->cache[cache_at(p, &p->seqs[s], pos, i / d, false, i % d)]);
                e.v[at] = (double)nt_bf16_to_f32(p->cache[cache_at(p, &p->seqs[s], pos, i / d, true, i % d)]);
            }
    return e;
}

static void exact_free(struct exact *e) {
    free(e->q);
    free(e->k);
    free(e->v);
    free(e->dout);
    free(e->dqkv);
}

/* The probabilities of one query row, w [pos + 1], and its lse; returns its first visible position. */
static int32_t probabilities(const struct exact *e, const struct nt_attn_seq *seq, int32_t pos, int32_t head, double *w,
                             double *lse) {
    const struct problem *p = e->p;
    const int32_t d = p->kv.d_head, n_kv = p->kv.n_kv, h = p->kv_of_head[head], window = p->args.window;
    const int32_t first = window > 0 && pos >= window ? pos - window + 1 : 0;
    const double *q = e->q + ((int64_t)(seq->q_row + pos) * p->args.n_head + head) * d;
    double max = -INFINITY, sum = 0;
    for (int32_t x = first; x <= pos; x++) {
        const double *k = e->k + ((int64_t)(seq->q_row + x) * n_kv + h) * d;
        w[x] = 0;
        for (int32_t i = 0; i < d; i++) w[x] += q[i] * k[i];
        w[x] *= p->args.scale;
        if (w[x] > max || isnan(w[x])) max = w[x];
    }
    for (int32_t x = first; x <= pos; x++) sum += w[x] = exp(w[x] - max);
    for (int32_t x = first; x <= pos; x++) w[x] /= sum;
    *lse = (max + log(sum)) / log(2);
    return first;
}

/* The output row in double; returns its lse. */
static double output(const struct exact *e, const struct nt_attn_seq *seq, int32_t pos, int32_t head, double *w,
                     double *out) {
    const int32_t d = e->p->kv.d_head, n_kv = e->p->kv.n_kv, h = e->p->kv_of_head[head];
    double lse;
    const int32_t first = probabilities(e, seq, pos, head, w, &lse);
    for (int32_t i = 0; i < d; i++) out[i] = 0;
    for (int32_t x = first; x <= pos; x++)
        for (int32_t i = 0; i < d; i++) out[i] += w[x] * e->v[((int64_t)(seq->q_row + x) * n_kv + h) * d + i];
    return lse;
}

/* e->dqkv: one query row's parts. w [pos + 1] is scratch. */
static void add_row(const struct exact *e, const struct nt_attn_seq *seq, int32_t pos, int32_t head, double *w) {
    const struct problem *p = e->p;
    const int32_t d = p->kv.d_head, n_head = p->args.n_head, n_kv = p->kv.n_kv, h = p->kv_of_head[head];
    const int64_t t = seq->q_row + pos, at = (t * n_head + head) * d;
    const double *dout = e->dout + at, *q = e->q + at;
    double *dq = e->dqkv + t * p->width + head * d, out[512], delta = 0, lse;
    output(e, seq, pos, head, w, out);
    for (int32_t i = 0; i < d; i++) delta += out[i] * dout[i];
    const int32_t first = probabilities(e, seq, pos, head, w, &lse);
    for (int32_t x = first; x <= pos; x++) {
        const int64_t row = ((int64_t)(seq->q_row + x) * n_kv + h) * d;
        double *dk = e->dqkv + (seq->q_row + x) * (int64_t)p->width + (n_head + h) * d, *dv = dk + n_kv * d, dp = 0;
        for (int32_t i = 0; i < d; i++) dp += dout[i] * e->v[row + i];
        const double ds = w[x] * (dp - delta) * p->args.scale;
        for (int32_t i = 0; i < d; i++) {
            dq[i] += ds * e->k[row + i];
            dk[i] += ds * q[i];
            dv[i] += w[x] * dout[i];
        }
    }
}

static void reference(struct exact *e) {
    const struct problem *p = e->p;
    double *w = op_alloc(4096 * sizeof *w);
    memset(e->dqkv, 0, (size_t)p->args.n_tok * (size_t)p->width * sizeof *e->dqkv);
    for (int32_t s = 0; s < p->args.n_seq; s++)
        for (int32_t pos = 0; pos < p->seqs[s].n_q; pos++)
            for (int32_t h = 0; h < p->args.n_head; h++) add_row(e, &p->seqs[s], pos, h, w);
    free(w);
}

/* The forward's output and lse, rounded as the forward rounds them. */
static void make_out(struct problem *p, const struct exact *e) {
    const int32_t d = p->kv.d_head;
    double *w = op_alloc(4096 * sizeof *w), out[512];
    for (int32_t s = 0; s < p->args.n_seq; s++)
        for (int32_t pos = 0; pos < p->seqs[s].n_q; pos++)
            for (int32_t h = 0; h < p->args.n_head; h++) {
                p->lse[(p->seqs[s].q_row + pos) * p->args.n_head + h] = (float)output(e, &p->seqs[s], pos, h, w, out);
                for (int32_t i = 0; i < d; i++)
                    p->out[(p->seqs[s].q_row + pos) * p->args.ldo + h * d + i] = nt_f32_to_bf16((float)out[i]);
            }
    free(w);
}

static void run(struct op_env *env, struct problem *p, int b) {
    memset(p->dqkv, 0x5a, p->dqkv_bytes);
    if (env->be[b].ops.attention_bwd(&env->be[b], &p->args) != NT_OK) op_fail(env, "status");
}

/* Columns [first, first + n) of the reference's rows. */
static double *columns(const struct exact *e, int32_t first, int32_t n) {
    double *to = op_alloc((size_t)(e->p->args.n_tok * n) * sizeof *to);
    for (int64_t t = 0; t < e->p->args.n_tok; t++)
        memcpy(to + t * n, e->dqkv + t * e->p->width + first, (size_t)n * sizeof *to);
    return to;
}

/* Where the reference has a NaN or Inf in a KV head of a sequence, the result has one too, and may have more NaN in
 * that head and sequence: both become NaN there. */
static void spread_nan(const struct exact *e, float *got) {
    const struct problem *p = e->p;
    const int32_t d = p->kv.d_head, n_head = p->args.n_head, n_kv = p->kv.n_kv;
    for (int32_t s = 0; s < p->args.n_seq; s++)
        for (int32_t h = 0; h < n_kv; h++) {
            const int64_t row0 = p->seqs[s].q_row, row1 = row0 + p->seqs[s].n_q;
            bool any = false;
            for (int pass = 0; pass < 2; pass++)
                for (int64_t i = row0 * p->width; (any || pass == 0) && i < row1 * p->width; i++) {
                    const int32_t head = (int32_t)(i % p->width) / d;
                    if ((head < n_head ? p->kv_of_head[head] : (head - n_head) % n_kv) != h) continue;
                    if (pass == 0)
                        any |= !isfinite(e->dqkv[i]);
                    else if (isnan(got[i]) || (isinf(got[i]) && !isfinite(e->dqkv[i])))
                        e->dqkv[i] = got[i] = NAN;
                }
        }
}

/* dq, dk and dv apart: their sizes differ. */
static void compare_parts(struct op_env *env, const struct exact *e, const char *what) {
    const struct problem *p = e->p;
    const int32_t kv = p->kv.n_kv * p->kv.d_head, q = p->args.n_head * p->kv.d_head;
    const int32_t first[] = {0, q, q + kv}, n[] = {q, kv, kv};
    for (int i = 0; i < 3; i++) {
        double *want = columns(e, first[i], n[i]);
        float *got = op_alloc((size_t)(p->args.n_tok * n[i]) * sizeof *got);
        char part[80];
        (void)snprintf(part, sizeof part, "%s: d%c", what, "qkv"[i]);
        for (int64_t t = 0; t < p->args.n_tok; t++)
            memcpy(got + t * n[i], p->dqkv + t * p->width + first[i], (size_t)n[i] * sizeof *got);
        (void)op_compare_f32(env, part, want, got, (int64_t)p->args.n_tok * n[i]);
        free(want);
        free(got);
    }
}

static void check_problem(struct op_env *env, struct problem *p, const char *what) {
    struct exact e = exact_of(p);
    float *first = op_alloc(p->dqkv_bytes);
    make_out(p, &e);
    reference(&e);
    run(env, p, 0);
    memcpy(first, p->dqkv, p->dqkv_bytes);
    run(env, p, 1);
    (void)op_compare_bytes(env, "one and two threads", first, p->dqkv, p->dqkv_bytes);
    spread_nan(&e, p->dqkv);
    compare_parts(env, &e, what);
    memset(first, 0x5a, (size_t)p->width * sizeof *first);
    (void)op_compare_bytes(env, "the row after the last", first, p->dqkv + (int64_t)p->args.n_tok * p->width,
                           (size_t)p->width * sizeof *first);
    exact_free(&e);
    free(first);
}

static const struct shape shapes[] = {
    {9,  3, 64,  0,   3, 200},
    {1,  1, 2,   0,   2, 70 },
    {5,  5, 10,  0,   4, 150},
    {8,  1, 32,  0,   5, 130},
    {6,  3, 34,  20,  3, 300},
    {6,  6, 80,  64,  2, 140},
    {16, 2, 96,  0,   2, 66 },
    {4,  2, 128, 100, 3, 260},
    {14, 2, 160, 2,   2, 90 },
    {3,  1, 256, 0,   1, 65 },
    {2,  2, 512, 0,   1, 70 },
    {12, 1, 6,   70,  2, 130},
    {40, 2, 16,  0,   1, 40 },
    {99, 1, 16,  0,   1, 70 },
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static void check_shapes(struct op_env *env) {
    for (int i = 0; i < N_SHAPES; i++) {
        struct problem p;
        char what[64];
        if (env->cuda && shapes[i].d > 256) continue; /* more than its kernels take */
        make(&p, (uint64_t)i, shapes[i]);
        (void)snprintf(what, sizeof what, "shape %d", i);
        check_problem(env, &p, what);
        drop(&p);
    }
    struct problem p; /* the groups of a rank whose heads end within a group, and a KV head that nobody reads */
    make(&p, 50, (struct shape){5, 3, 64, 0, 2, 100});
    const int32_t uneven[] = {0, 0, 0, 2, 2};
    memcpy(p.kv_of_head, uneven, sizeof uneven);
    check_problem(env, &p, "groups of 3, 0 and 2");
    drop(&p);
}

/* sum of dout . out */
static double loss_of(void *ctx) {
    const struct exact *e = ctx;
    const struct problem *p = e->p;
    const int32_t d = p->kv.d_head;
    double w[64], out[512], loss = 0;
    for (int32_t s = 0; s < p->args.n_seq; s++)
        for (int32_t pos = 0; pos < p->seqs[s].n_q; pos++)
            for (int32_t h = 0; h < p->args.n_head; h++) {
                const double *dout = e->dout + ((int64_t)(p->seqs[s].q_row + pos) * p->args.n_head + h) * d;
                output(e, &p->seqs[s], pos, h, w, out);
                for (int32_t i = 0; i < d; i++) loss += dout[i] * out[i];
            }
    return loss;
}

static void check_slopes(struct op_env *env) {
    static const struct shape small[] = {
        {2, 2, 4, 0, 1, 7},
        {4, 2, 4, 0, 3, 5},
        {3, 1, 6, 3, 2, 9},
    };
    for (size_t i = 0; i < sizeof small / sizeof small[0]; i++) {
        struct problem p;
        make(&p, 70 + i, small[i]);
        struct exact e = exact_of(&p);
        const int32_t q = small[i].n_head * small[i].d, kv = small[i].n_kv * small[i].d;
        reference(&e);
        double *dq = columns(&e, 0, q), *dk = columns(&e, q, kv), *dv = columns(&e, q + kv, kv);
        op_check_gradient(env, "dq", loss_of, &e, e.q, dq, (int64_t)p.args.n_tok * q);
        op_check_gradient(env, "dk", loss_of, &e, e.k, dk, (int64_t)p.args.n_tok * kv);
        op_check_gradient(env, "dv", loss_of, &e, e.v, dv, (int64_t)p.args.n_tok * kv);
        check_problem(env, &p, "slopes");
        free(dq);
        free(dk);
        free(dv);
        exact_free(&e);
        drop(&p);
    }
}

/* dout of one sequence alone gives gradients to its own rows alone; the others' are 0, and its own have the bits they
 * have in a batch. */
static void check_apart(struct op_env *env) {
    struct problem p;
    make(&p, 80, (struct shape){4, 2, 32, 0, 3, 90});
    struct exact e = exact_of(&p);
    make_out(&p, &e);
    exact_free(&e);
    run(env, &p, 1);
    float *whole = op_alloc(p.dqkv_bytes), *dout = op_alloc((size_t)(p.args.n_tok * p.args.lddo) * sizeof *dout);
    memcpy(whole, p.dqkv, p.dqkv_bytes);
    memcpy(dout, p.dout, (size_t)(p.args.n_tok * p.args.lddo) * sizeof *dout);
    for (int32_t s = 0; s < p.args.n_seq; s++) {
        const int64_t row0 = p.seqs[s].q_row, row1 = row0 + p.seqs[s].n_q;
        memset(p.dout, 0, (size_t)(p.args.n_tok * p.args.lddo) * sizeof *dout);
        memcpy(p.dout + row0 * p.args.lddo, dout + row0 * p.args.lddo,
               (size_t)((row1 - row0) * p.args.lddo) * sizeof *dout);
        run(env, &p, s % 2);
        for (int64_t i = 0; i < (int64_t)p.args.n_tok * p.width; i++) {
            const bool own = i >= row0 * p.width && i < row1 * p.width;
            if (own ? env->perturbed || p.dqkv[i] == whole[i] : p.dqkv[i] == 0) continue;
            op_fail(env, "sequence %d: element %lld is %g", s, (long long)i, p.dqkv[i]);
            break;
        }
        env->n_checked++;
    }
    memcpy(p.dout, dout, (size_t)(p.args.n_tok * p.args.lddo) * sizeof *dout);
    for (int32_t s = 0; s < p.args.n_seq; s++) { /* and alone, where all other rows stay as they are */
        struct problem alone = p;
        const size_t row = (size_t)p.width * sizeof *whole, before = (size_t)p.seqs[s].q_row * row;
        const size_t own = (size_t)p.seqs[s].n_q * row;
        char *bytes = op_alloc(p.dqkv_bytes);
        alone.args.seqs = p.seqs + s;
        alone.args.n_seq = 1;
        memset(bytes, 0x5a, p.dqkv_bytes);
        memcpy(bytes + before, (const char *)whole + before, own);
        run(env, &alone, s % 2);
        (void)op_compare_bytes(env, "a sequence alone", bytes, p.dqkv, p.dqkv_bytes);
        free(bytes);
    }
    free(whole);
    free(dout);
    drop(&p);
}

/* One special value a time in q, k, v, dout. */
static void check_special(struct op_env *env) {
    for (int i = 0; i < N_SHAPES; i++) {
        struct shape sh = shapes[i];
        if (sh.d > 96 || sh.max_q > (env->emulated ? 70 : 150)) continue;
        sh.n_seq = 1;
        for (int mode = 0; mode < 5; mode++) {
            struct problem p;
            make(&p, 200 + (uint64_t)i, sh);
            const struct nt_attn_seq *seq = &p.seqs[0];
            const int32_t d = shapes[i].d, pos = seq->n_q / 2, h = shapes[i].n_kv - 1;
            char what[64];
            if (mode == 0) p.q[((int64_t)(seq->q_row + pos) * shapes[i].n_head) * nt_d_pad(d)] = nt_f32_to_bf16(NAN);
            if (mode == 1) p.cache[cache_at(&p, seq, pos, h, false, d / 2)] = nt_f32_to_bf16(NAN);
            if (mode == 2) p.cache[cache_at(&p, seq, pos, h, true, d / 3)] = nt_f32_to_bf16(INFINITY);
            if (mode == 3) p.dout[(seq->q_row + pos) * p.args.lddo + d - 1] = NAN;
            if (mode == 4) p.dout[(seq->q_row + pos) * p.args.lddo] = -INFINITY;
            (void)snprintf(what, sizeof what, "special value %d, shape %d", mode, i);
            check_problem(env, &p, what);
            drop(&p);
        }
    }
}

/* Scores far apart: probabilities of 0 and 1. */
static void check_range(struct op_env *env) {
    struct problem p;
    make(&p, 300, (struct shape){4, 2, 64, 0, 2, 150});
    for (int64_t i = 0; i < (int64_t)p.args.n_tok * 4 * 64; i++)
        p.q[i] = nt_f32_to_bf16(nt_bf16_to_f32(p.q[i]) * 10.0f);
    check_problem(env, &p, "scores of a hundred");
    drop(&p);
}

/* More pages than a GPU's warp holds numbers of. */
static void check_long(struct op_env *env) {
    struct problem p;
    make(&p, 310, (struct shape){1, 1, 4, 0, 1, 33 * NT_KV_PAGE + 5});
    struct exact e = exact_of(&p);
    make_out(&p, &e);
    reference(&e);
    run(env, &p, 1);
    compare_parts(env, &e, "34 pages");
    exact_free(&e);
    drop(&p);
}

/* Sequences that end at the edges of tiles, in groups that fit a tile of rows and that do not. */
static void check_edges(struct op_env *env) {
    static const struct shape of[] = {
        {3,  1, 34,  20, 7, EDGES},
        {5,  1, 128, 65, 7, EDGES},
        {7,  1, 80,  64, 7, EDGES},
        {16, 1, 8,   0,  7, EDGES},
    };
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        struct problem p;
        char what[64];
        make(&p, 500 + i, of[i]);
        (void)snprintf(what, sizeof what, "edges %zu", i);
        check_problem(env, &p, what);
        drop(&p);
    }
}

static nt_status run_attention(struct nt_backend *be, void *ctx) {
    return be->ops.attention_bwd(be, ctx);
}

static void measure(struct op_env *env, struct shape sh, const char *what) {
    struct problem p;
    double pairs = 0;
    make(&p, 400, sh);
    for (int32_t i = 0; i < p.args.n_tok * sh.n_head; i++) p.lse[i] = 10;
    for (int32_t s = 0; s < sh.n_seq; s++) pairs += 0.5 * p.seqs[s].n_q * (p.seqs[s].n_q + 1);
    op_measure(env, what, pairs * sh.n_head * 10 * sh.d, p.args.n_tok * (double)p.width * 6, run_attention, &p.args);
    drop(&p);
}

static void perf(struct op_env *env) {
    measure(env, (struct shape){9, 3, 64, 0, 1, 256}, "256, 9/3 x 64");
    measure(env, (struct shape){9, 3, 64, 0, 1, 1024}, "1024, 9/3 x 64");
    measure(env, (struct shape){9, 3, 64, 0, 1, 2048}, "2048, 9/3 x 64");
    measure(env, (struct shape){16, 4, 128, 0, 1, 512}, "512, 16/4 x 128");
}

static const struct op_case cases[] = {
    {NT_OP_attention_bwd, "shapes",  check_shapes,  perf},
    {NT_OP_attention_bwd, "slopes",  check_slopes,  NULL},
    {NT_OP_attention_bwd, "apart",   check_apart,   NULL},
    {NT_OP_attention_bwd, "special", check_special, NULL},
    {NT_OP_attention_bwd, "range",   check_range,   NULL},
    {NT_OP_attention_bwd, "long",    check_long,    NULL},
    {NT_OP_attention_bwd, "edges",   check_edges,   NULL},
};
const struct op_cases attention_bwd_cases = {sizeof cases / sizeof cases[0], cases};
