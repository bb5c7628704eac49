/* Cases of head_argmax: odd shapes, greedy and drawn rows, ties, NaN, shards, and that a row's result does not depend
 * on its neighbours. */
#include "test_ops.h"
#include "rng.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_ROW = 80 };

struct problem {
    struct nt_head_argmax_args args;
    struct nt_packed w;
    nt_bf16 *x, *values; // [n_row, ldx], [n, k]
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
    p->x = op_alloc((size_t)(n_row * p->args.ldx) * sizeof(nt_bf16));
    p->values = op_alloc((size_t)n * (size_t)k * sizeof(nt_bf16));
    p->packed = op_alloc(nt_packed_bytes(NT_WEIGHT_BF16, n, k));
    op_random_bf16(&seed, p->x, n_row * p->args.ldx, 1.0f);
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
            const int32_t at = p->index[r];
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
    const int32_t want[6] = {77, 77, 77, 77, 77, 0};
    for (int b = 0; b < OP_BACKENDS; b++) {
        run(env, &p, b);
        (void)op_compare_bytes(env, "first of equals", want, p.index, sizeof want);
        if (p.value[0] != 64 || !isnan(p.value[5])) op_fail(env, "values %g and %g", p.value[0], p.value[5]);
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
            best_index[r] = p.index[r] + part * CUT;
        }
        drop(&shard);
    }
    (void)op_compare_bytes(env, "values over shards", value, best_value, sizeof value);
    (void)op_compare_bytes(env, "indexes over shards", index, best_index, sizeof index);
    drop(&p);
}

static const struct op_case cases[] = {
    {NT_OP_head_argmax, "shapes", check_shapes, NULL},
    {NT_OP_head_argmax, "ties",   check_ties,   NULL},
    {NT_OP_head_argmax, "parts",  check_parts,  NULL},
};
const struct op_cases head_cases = {sizeof cases / sizeof cases[0], cases};
