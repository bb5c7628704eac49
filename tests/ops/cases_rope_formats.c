/* rope_kv into a cache in the layouts of GPUs, bf16 and int8 rows: values and scales, padding columns, places of a step
 * without tokens, rows of no sequence, rows with NaN and infinity, and that nothing else of the cache is written. */
#include "test_ops.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N_SEQ = 5, PAGES = 4, MAX_POS = PAGES * NT_KV_PAGE, N_TOK = 40, N_PAGES = 3 * PAGES };

struct shape {
    int32_t n_head, n_kv, d;
    bool norm, rotate;
};

struct problem {
    struct nt_rope_kv_args args;
    struct nt_kv_layer kv;
    struct nt_attn_seq seqs[N_SEQ];
    int32_t pages[N_PAGES];
    float *qkv, *cos, *sin, *q_norm, *k_norm;
    unsigned char *cache0, *cache; // before, and of the last run
    nt_bf16 *q;
    size_t cache_bytes, q_bytes;
};

/* Rows 0 .. 2, 5 .. 31 and 39 belong to sequences; places 0 and 3 of the step are empty. */
static void make_seqs(struct problem *p) {
    for (int32_t i = 0; i < N_PAGES; i++) p->pages[i] = (7 * i + 3) % N_PAGES;
    p->seqs[0] = (struct nt_attn_seq){.q_row = 5};
    p->seqs[1] = (struct nt_attn_seq){5, 27, NT_KV_PAGE - 9, p->pages};
    p->seqs[2] = (struct nt_attn_seq){0, 3, 2 * NT_KV_PAGE - 1, p->pages + PAGES};
    p->seqs[3] = (struct nt_attn_seq){0};
    p->seqs[4] = (struct nt_attn_seq){39, 1, 0, p->pages + 2 * PAGES};
    p->args.seqs = p->seqs;
    p->args.n_seq = N_SEQ;
    p->args.n_tok = N_TOK;
    p->args.max_q = 27;
}

static void make(struct problem *p, uint64_t seed, const struct shape *sh, enum nt_kv_format format) {
    memset(p, 0, sizeof *p);
    make_seqs(p);
    const int32_t half = sh->d / 2, width = (sh->n_head + 2 * sh->n_kv) * sh->d;
    p->kv = (struct nt_kv_layer){NULL, sh->n_kv * nt_kv_head_elems(format, sh->d) + 32, sh->n_kv, sh->d, format};
    p->cache_bytes = (size_t)(N_PAGES * p->kv.page_stride) * sizeof(nt_bf16);
    p->q_bytes = (size_t)(N_TOK * sh->n_head * nt_d_pad(sh->d)) * sizeof(nt_bf16);
    p->qkv = op_alloc((size_t)(N_TOK * width) * sizeof(float));
    p->cos = op_alloc((size_t)(MAX_POS * half) * sizeof(float));
    p->sin = op_alloc((size_t)(MAX_POS * half) * sizeof(float));
    p->q_norm = op_alloc((size_t)sh->d * sizeof(float));
    p->k_norm = op_alloc((size_t)sh->d * sizeof(float));
    p->cache0 = op_alloc(p->cache_bytes);
    p->cache = op_alloc(p->cache_bytes);
    p->q = op_alloc(p->q_bytes);
    op_random_f32(&seed, p->qkv, N_TOK * width, 2.0f);
    op_random_f32(&seed, p->q_norm, sh->d, 1.0f);
    op_random_f32(&seed, p->k_norm, sh->d, 1.0f);
    for (size_t i = 0; i < p->cache_bytes; i++) p->cache0[i] = (unsigned char)op_random(&seed);
    for (int32_t i = 0; i < MAX_POS * half; i++) {
        const double angle = i / half * pow(10000.0, -(double)(i % half) / half);
        p->cos[i] = (float)cos(angle);
        p->sin[i] = (float)sin(angle);
    }
    p->kv.base = (nt_bf16 *)(void *)p->cache;
    p->args.kv = &p->kv;
    p->args.qkv = p->qkv;
    p->args.q = p->q;
    p->args.cos = sh->rotate ? p->cos : NULL;
    p->args.sin = sh->rotate ? p->sin : NULL;
    p->args.q_norm = sh->norm ? p->q_norm : NULL;
    p->args.k_norm = sh->norm ? p->k_norm : NULL;
    p->args.eps = 1e-6f;
    p->args.n_head = sh->n_head;
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

/* y[d] = the normed and rotated head in double. */
static void rotate(const struct problem *p, const float *x, const float *norm, bool turn, int32_t pos, double *y) {
    const int32_t d = p->kv.d_head, half = d / 2;
    double sum = 0;
    for (int32_t i = 0; i < d; i++) sum += (double)x[i] * x[i];
    const double s = norm ? 1.0 / sqrt(sum / d + p->args.eps) : 1.0;
    for (int32_t i = 0; i < d; i++) y[i] = norm ? x[i] * s * norm[i] : x[i];
    for (int32_t j = 0; turn && j < half; j++) {
        const double a = y[j], b = y[j + half], c = p->cos[pos * half + j], si = p->sin[pos * half + j];
        y[j] = a * c - b * si;
        y[j + half] = b * c + a * si;
    }
}

/* Row `row` of a head's page (K, then V): its bytes and, for int8, its scale; both are put back as they were. */
static void check_row(struct op_env *env, struct problem *p, int64_t head_at, int32_t row, const double *want) {
    const int32_t d = p->kv.d_head, d_pad = nt_d_pad(d);
    const size_t size = p->kv.format == NT_KV_ROWS ? sizeof(nt_bf16) : 1;
    const size_t at = (size_t)head_at * sizeof(nt_bf16) + (size_t)(row * d_pad) * size;
    const size_t scale_at = (size_t)head_at * sizeof(nt_bf16) + (size_t)(2 * NT_KV_PAGE * d_pad) + 4 * (size_t)row;
    for (size_t i = (size_t)d * size; i < (size_t)d_pad * size; i++)
        if (p->cache[at + i] != 0) op_fail(env, "padding column of a row is not 0");
    if (p->kv.format == NT_KV_ROWS) {
        (void)op_compare_bf16(env, "row", want, (const nt_bf16 *)(const void *)(p->cache + at), d);
    } else {
        float scale;
        double max = 0;
        bool nan = false;
        for (int32_t i = 0; i < d; i++) {
            max = fmax(max, fabs(want[i]));
            nan |= isnan(want[i]);
        }
        memcpy(&scale, p->cache + scale_at, sizeof scale);
        const double exact = nan ? NAN : max == 0 ? 1 : max / 127;
        if (isnan(exact) ? !isnan(scale) : isinf(exact) ? !isinf(scale) : !(fabs(scale - exact) <= 1e-5 * exact))
            op_fail(env, "scale %g, expected %g", (double)scale, exact);
        for (int32_t i = 0; i < d; i++) {
            const double q = isfinite(exact) ? want[i] / exact : 0, got = (signed char)p->cache[at + (size_t)i];
            if (!(fabs(got - q) <= 0.502)) op_fail(env, "int8 %g for %g", got, q);
        }
        env->n_checked++;
        memcpy(p->cache + scale_at, p->cache0 + scale_at, sizeof scale);
    }
    memcpy(p->cache + at, p->cache0 + at, (size_t)d_pad * size);
}

static void check_token(struct op_env *env, struct problem *p, const struct nt_attn_seq *seq, int32_t t) {
    const int32_t d = p->kv.d_head, d_pad = nt_d_pad(d), n_head = p->args.n_head, n_kv = p->kv.n_kv;
    const int32_t pos = seq->pos0 + t, slot = pos % NT_KV_PAGE;
    const int64_t row = seq->q_row + t, page = seq->pages[pos / NT_KV_PAGE] * p->kv.page_stride;
    const float *x = p->qkv + row * (n_head + 2 * n_kv) * d;
    double *want = op_alloc((size_t)d * sizeof *want);
    for (int32_t h = 0; h < n_head; h++) {
        nt_bf16 *q = p->q + (row * n_head + h) * d_pad;
        rotate(p, x + h * d, p->args.q_norm, p->args.cos != NULL, pos, want);
        (void)op_compare_bf16(env, "q", want, q, d);
        for (int32_t i = d; i < d_pad; i++)
            if (q[i] != 0) op_fail(env, "padding of q is not 0");
        memset(q, 0x5a, (size_t)d_pad * sizeof *q);
    }
    for (int32_t h = 0; h < n_kv; h++) {
        const int64_t head = page + h * nt_kv_head_elems(p->kv.format, d);
        rotate(p, x + (n_head + h) * d, p->args.k_norm, p->args.cos != NULL, pos, want);
        check_row(env, p, head, slot, want);
        rotate(p, x + (n_head + n_kv + h) * d, NULL, false, pos, want);
        check_row(env, p, head, NT_KV_PAGE + slot, want);
    }
    free(want);
}

static void check_problem(struct op_env *env, struct problem *p) {
    for (int b = 0; b < OP_BACKENDS; b++) {
        memcpy(p->cache, p->cache0, p->cache_bytes);
        memset(p->q, 0x5a, p->q_bytes);
        if (env->be[b].ops.rope_kv(&env->be[b], &p->args) != NT_OK) op_fail(env, "status");
        for (int32_t s = 0; s < N_SEQ; s++)
            for (int32_t t = 0; t < p->seqs[s].n_q; t++) check_token(env, p, &p->seqs[s], t);
        (void)op_compare_bytes(env, "the rest of the cache", p->cache0, p->cache, p->cache_bytes);
        for (size_t i = 0; i < p->q_bytes; i++)
            if (((unsigned char *)p->q)[i] != 0x5a) return op_fail(env, "q of a row of no sequence was written");
    }
}

static const struct shape shapes[] = {
    {4, 2, 64,  false, true },
    {9, 3, 128, true,  true },
    {3, 1, 30,  true,  true },
    {2, 2, 10,  false, false},
    {1, 1, 2,   false, true },
    {2, 1, 256, true,  true },
};

static void check_format(struct op_env *env, enum nt_kv_format format) {
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct problem p;
        make(&p, i, &shapes[i], format);
        check_problem(env, &p);
        drop(&p);
    }
}
static void check_rows(struct op_env *env) {
    check_format(env, NT_KV_ROWS);
}
static void check_int8(struct op_env *env) {
    check_format(env, NT_KV_ROWS_INT8);
}

/* A zero row, a tiny one, NaN and infinities. */
static void check_special(struct op_env *env) {
    for (int format = NT_KV_ROWS; format <= NT_KV_ROWS_INT8; format++) {
        static const struct shape sh = {2, 2, 32, false, false};
        struct problem p;
        make(&p, 20 + (uint64_t)format, &sh, (enum nt_kv_format)format);
        const int32_t width = (sh.n_head + 2 * sh.n_kv) * sh.d;
        for (int32_t i = 0; i < width; i++) {
            p.qkv[i] = 0;
            p.qkv[6 * width + i] *= 1e-30f;
        }
        p.qkv[7 * width + width - 3] = NAN;
        p.qkv[8 * width + width - 1] = INFINITY;
        p.qkv[9 * width + 3 * sh.d] = -INFINITY;
        check_problem(env, &p);
        drop(&p);
    }
}

static const struct op_case cases[] = {
    {NT_OP_rope_kv, "bf16 rows",     check_rows,    NULL},
    {NT_OP_rope_kv, "int8 rows",     check_int8,    NULL},
    {NT_OP_rope_kv, "rows, special", check_special, NULL},
};
const struct op_cases rope_format_cases = {sizeof cases / sizeof cases[0], cases};
