/* Cases of head_argmax: odd shapes, greedy and drawn rows, ties, NaN, shards, that a row's result does not depend on
 * its neighbours, and that it is the one of gemm and the ops on logits. */
#include "cuda_backend.h"
#include "test_ops.h"
#include "rng.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_ROW = 512 };

struct problem {
    struct nt_head_argmax_args args;
    struct nt_packed w;
    nt_bf16 *x, *values; // [n_row, k + 8], [n, k]
    void *packed;
    float inv_temp[MAX_ROW], value[MAX_ROW];
    uint64_t seed[MAX_ROW], stream[MAX_ROW];
    int32_t index[MAX_ROW];
};

static void pack(struct problem *p) {
    for (int32_t r = 0; r < p->w.n; r++) nt_pack_row(&p->w, p->packed, r, p->values + (int64_t)r * p->w.k);
}

/* greedy: no temperatures at all; else every third row is greedy. */
static void make(struct problem *p, uint64_t seed, int32_t n_row, int32_t n, int32_t k, bool greedy) {
    memset(p, 0, sizeof *p);
    p->w = (struct nt_packed){.format = NT_WEIGHT_BF16, .n = n, .k = k};
    p->args = (struct nt_head_argmax_args){.ldx = k + op_random_int(&seed, 0, 3) * 2, .n_row = n_row};
    p->args.n_vocab = n - op_random_int(&seed, 0, n > 9 ? 9 : n - 1);
    p->args.first = op_random_int(&seed, 0, 1000);
    p->x = op_alloc((size_t)n_row * (size_t)(k + 8) * sizeof(nt_bf16));
    p->values = op_alloc((size_t)n * (size_t)k * sizeof(nt_bf16));
    p->packed = op_alloc(nt_packed_bytes(NT_WEIGHT_BF16, n, k));
    op_random_bf16(&seed, p->x, (int64_t)n_row * (k + 8), 1.0f);
    op_random_bf16(&seed, p->values, (int64_t)n * k, 3.0f / sqrtf((float)k));
    for (int32_t r = 0; r < n_row; r++) {
        p->inv_temp[r] = r % 3 == 2 ? 0.0f : 0.5f + 0.3f * (float)(r % 4);
        p->seed[r] = (uint64_t)op_random(&seed) << 32 | op_random(&seed);
        p->stream[r] = op_random(&seed);
    }
    pack(p);
    p->w.data = p->packed;
    p->args.x = p->x;
    p->args.w = &p->w;
    p->args.inv_temp = greedy ? NULL : p->inv_temp;
    p->args.seed = greedy ? NULL : p->seed;
    p->args.stream = greedy ? NULL : p->stream;
    p->args.value = p->value;
    p->args.index = p->index;
}

static void drop(struct problem *p) {
    free(p->x);
    free(p->values);
    free(p->packed);
}

static void run(struct op_env *env, struct problem *p, int b) {
    for (int r = 0; r < MAX_ROW; r++) p->index[r] = -7;
    if (env->be[b].ops.head_argmax(&env->be[b], &p->args) != NT_OK) op_fail(env, "status");
}

static double score(const struct problem *p, int32_t r, int32_t v) {
    double sum = 0;
    for (int32_t i = 0; i < p->w.k; i++)
        sum += (double)nt_bf16_to_f32(p->x[r * p->args.ldx + i]) *
               (double)nt_bf16_to_f32(p->values[(int64_t)v * p->w.k + i]);
    if (!p->args.inv_temp || p->inv_temp[r] == 0) return sum;
    const int64_t id = (int64_t)p->args.first + v;
    uint32_t word[4];
    nt_philox(p->seed[r], p->stream[r], (uint64_t)(id / 4), word);
    return sum * p->inv_temp[r] - log(-log((double)nt_unit_float(word[id % 4])));
}

static void check_problem(struct op_env *env, struct problem *p) {
    double want[MAX_ROW];
    float first[MAX_ROW];
    char what[64];
    (void)snprintf(what, sizeof what, "rows %d n %d k %d", p->args.n_row, p->w.n, p->w.k);
    for (int b = 0; b < OP_BACKENDS; b++) {
        run(env, p, b);
        for (int32_t r = 0; r < p->args.n_row; r++) {
            double best = -INFINITY;
            for (int32_t v = 0; v < p->args.n_vocab; v++) best = fmax(best, score(p, r, v));
            const int32_t at = p->index[r] - p->args.first;
            if (at < 0 || at >= p->args.n_vocab) {
                op_fail(env, "%s row %d: index %d", what, r, at);
                return;
            }
            want[r] = score(p, r, at);
            if (!(want[r] >= best - 1e-4 * (1 + fabs(best))))
                op_fail(env, "%s row %d: index %d has %g, the best is %g", what, r, at, want[r], best);
        }
        (void)op_compare_f32(env, what, want, p->value, p->args.n_row);
        if (b == 0) memcpy(first, p->value, sizeof first);
    }
    (void)op_compare_bytes(env, "one and two threads", first, p->value, (size_t)p->args.n_row * sizeof *first);
}

static void check_shapes(struct op_env *env) {
    static const struct {
        int32_t n_row, n, k;
    } shapes[] = {
        {1,  1,   2  },
        {3,  31,  64 },
        {5,  129, 62 },
        {16, 300, 130},
        {17, 256, 72 },
        {65, 140, 96 },
        {80, 33,  200},
        {2,  999, 576},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int greedy = 0; greedy < 2; greedy++) {
            struct problem p;
            make(&p, 2 * i + (uint64_t)greedy, shapes[i].n_row, shapes[i].n, shapes[i].k, greedy);
            check_problem(env, &p);
            drop(&p);
        }
}

/* Equal weight rows give equal logits: the lower index wins. Padding rows of the vocabulary never do. A NaN wins. */
static void check_ties(struct op_env *env) {
    enum { N = 300, K = 64, FIRST_BEST = 77 };
    struct problem p;
    make(&p, 30, 6, N, K, true);
    p.args.n_vocab = N - 5;
    for (int32_t v = 0; v < N; v++)
        for (int32_t i = 0; i < K; i++)
            p.values[v * K + i] = nt_f32_to_bf16(v >= N - 5 ? 4.0f : v >= FIRST_BEST && v % 11 == 0 ? 2.0f : 1.0f);
    pack(&p);
    for (int64_t i = 0; i < 6 * p.args.ldx; i++) p.x[i] = nt_f32_to_bf16(0.5f);
    p.x[5 * p.args.ldx + 3] = nt_f32_to_bf16(NAN);
    const int32_t first = p.args.first;
    const int32_t want[6] = {first + 77, first + 77, first + 77, first + 77, first + 77, -1};
    for (int b = 0; b < OP_BACKENDS; b++) {
        run(env, &p, b);
        (void)op_compare_bytes(env, "first of equals", want, p.index, sizeof want);
        if (p.value[0] != 64 || !isnan(p.value[5])) op_fail(env, "values %g and %g", p.value[0], p.value[5]);
    }
    p.args.n_vocab = 0; /* a shard of padding rows */
    for (int b = 0; b < OP_BACKENDS; b++) {
        run(env, &p, b);
        if (p.value[0] != -INFINITY || p.index[0] != -1) op_fail(env, "no vocabulary: %g %d", p.value[0], p.index[0]);
    }
    drop(&p);
}

/* A row alone, and the better of two shards, have the bits of the whole. */
static void check_parts(struct op_env *env) {
    enum { N = 224, CUT = 96, K = 80, ROWS = 70 };
    static struct problem p; /* large */
    float value[ROWS], best_value[ROWS];
    int32_t index[ROWS], best_index[ROWS];
    make(&p, 40, ROWS, N, K, false);
    p.args.n_vocab = N;
    run(env, &p, 1);
    memcpy(value, p.value, sizeof value);
    memcpy(index, p.index, sizeof index);
    for (int32_t r = 0; r < ROWS; r += 13) {
        struct nt_head_argmax_args a = p.args;
        a.x += r * a.ldx;
        a.inv_temp += r;
        a.seed += r;
        a.stream += r;
        a.n_row = 1;
        if (env->be[0].ops.head_argmax(&env->be[0], &a) != NT_OK) op_fail(env, "status");
        (void)op_compare_bytes(env, "row alone", &value[r], p.value, sizeof *value);
        (void)op_compare_bytes(env, "index alone", &index[r], p.index, sizeof *index);
    }
    for (int32_t part = 0; part < 2; part++) {
        struct problem shard;
        make(&shard, 41, 1, part ? N - CUT : CUT, K, false);
        memcpy(shard.values, p.values + (int64_t)part * CUT * K, (size_t)shard.w.n * K * sizeof(nt_bf16));
        pack(&shard);
        struct nt_head_argmax_args a = p.args;
        a.w = &shard.w;
        a.n_vocab = shard.w.n;
        a.first = p.args.first + part * CUT;
        if (env->be[part].ops.head_argmax(&env->be[part], &a) != NT_OK) op_fail(env, "status");
        for (int32_t r = 0; r < ROWS; r++) {
            if (part && !(p.value[r] > best_value[r])) continue;
            best_value[r] = p.value[r];
            best_index[r] = p.index[r];
        }
        drop(&shard);
    }
    (void)op_compare_bytes(env, "values over shards", value, best_value, sizeof value);
    (void)op_compare_bytes(env, "indexes over shards", index, best_index, sizeof index);
    drop(&p);
}

/* What gemm, then the ops on its logits, make of the rows. */
static void through_logits(struct op_env *env, struct problem *p, float *value, int32_t *index) {
    const struct nt_head_argmax_args *a = &p->args;
    struct nt_backend *be = &env->be[0];
    float *logits = op_alloc((size_t)a->n_row * (size_t)p->w.n * sizeof *logits);
    const struct nt_gemm_args gemm = {
        .x = p->x, .ldx = a->ldx, .w = &p->w, .y = logits, .ldy = p->w.n, .n_tok = a->n_row};
    const struct nt_logit_stats_args stats = {
        .logits = logits, .ld = p->w.n, .max = value, .argmax = index, .n_row = a->n_row, .n_vocab = a->n_vocab};
    const struct nt_logit_gumbel_args gumbel = {.logits = logits,
                                                .ld = p->w.n,
                                                .inv_temp = p->inv_temp,
                                                .seed = p->seed,
                                                .stream = p->stream,
                                                .value = value,
                                                .index = index,
                                                .n_row = a->n_row,
                                                .n_vocab = a->n_vocab,
                                                .first = a->first};
    nt_status st = be->ops.gemm(be, &gemm);
    if (st == NT_OK) st = be->ops.logit_stats(be, &stats);
    if (st == NT_OK && a->inv_temp) st = be->ops.logit_gumbel(be, &gumbel);
    if (st != NT_OK) op_fail(env, "status");
    for (int32_t r = 0; r < a->n_row; r++) index[r] += a->first;
    free(logits);
}

static void compare_with_gemm(struct op_env *env, struct problem *p) {
    static float value[MAX_ROW];
    static int32_t index[MAX_ROW];
    char what[64];
    (void)snprintf(what, sizeof what, "as gemm: rows %d n %d k %d", p->args.n_row, p->w.n, p->w.k);
    through_logits(env, p, value, index);
    run(env, p, 0);
    if (!env->cuda && env->isa != NT_ISA_PORTABLE) { /* gemm's bits are its own there */
        double want[MAX_ROW];
        for (int32_t r = 0; r < p->args.n_row; r++) want[r] = value[r];
        (void)op_compare_f32(env, what, want, p->value, p->args.n_row);
        return;
    }
    (void)op_compare_bytes(env, what, value, p->value, (size_t)p->args.n_row * sizeof *value);
    (void)op_compare_bytes(env, what, index, p->index, (size_t)p->args.n_row * sizeof *index);
}

/* Every kernel of the images that this device runs gemm and the head with took part, but those with an adapter. */
static void check_launched(struct op_env *env) {
    const struct nt_backend *cuda = env->be[0].watch_arg; /* cuda_staged.h */
    const bool sm90 = nt_cuda_has(cuda, NT_CUDA_head_sm90_64x128);
    const char *const images[] = {sm90 ? "gemm_sm90" : "gemm", sm90 ? "head_sm90" : "head"};
    for (int k = 0; k < NT_CUDA_KERNEL_COUNT; k++)
        for (int i = 0; i < 2; i++)
            if (strcmp(nt_cuda_kernel_image((enum nt_cuda_kernel)k), images[i]) == 0 &&
                cuda->cuda->functions[k].launches == 0 &&
                !strstr(nt_cuda_kernel_name((enum nt_cuda_kernel)k), "_adapter_"))
                op_fail(env, "no shape runs %s", nt_cuda_kernel_name((enum nt_cuda_kernel)k));
}

/* The shapes reach every tile of gemm, and every remainder of k. */
static void check_gemm(struct op_env *env) {
    static const struct {
        int32_t n_row, n, k;
    } shapes[] = {
        {1,   1536,  576},
        {32,  3072,  130},
        {64,  6144,  72 },
        {256, 3072,  96 },
        {512, 3072,  62 },
        {128, 27648, 16 },
        {60,  27648, 16 },
        {30,  27648, 16 },
        {1,   27648, 16 },
        {250, 6144,  32 },
        {50,  3072,  66 },
        {17,  300,   520},
        {130, 600,   520}, /* more steps than the largest tile has stages */
    };
#if defined __SANITIZE_ADDRESS__
    const bool all = false; /* it takes minutes for the large ones */
#else
    const bool all = env->cuda && !env->perturbed;
#endif
    static struct problem p; /* large */
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (!all && (int64_t)shapes[i].n_row * shapes[i].n > 100000) continue;
        make(&p, 50 + i, shapes[i].n_row, shapes[i].n, shapes[i].k, i > 2 && i < 9); /* noise takes time */
        for (int aligned = shapes[i].n > 4000; aligned < 2; aligned++) {
            p.args.ldx = aligned ? (p.w.k + 7) / 8 * 8 : (p.w.k + 1) / 8 * 8 + 2; /* up to k + 8 were made */
            if (p.args.ldx < p.w.k) p.args.ldx += 8;
            compare_with_gemm(env, &p);
        }
        drop(&p);
    }
    if (all) check_launched(env);
}

static const struct op_case cases[] = {
    {NT_OP_head_argmax, "shapes", check_shapes, NULL},
    {NT_OP_head_argmax, "gemm",   check_gemm,   NULL},
    {NT_OP_head_argmax, "ties",   check_ties,   NULL},
    {NT_OP_head_argmax, "parts",  check_parts,  NULL},
};
const struct op_cases head_cases = {sizeof cases / sizeof cases[0], cases};
