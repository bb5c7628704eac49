#include "cuda_check.h"

#include "cpu_bodies.h"
#include "cuda_check_attention.h"
#include "cuda_check_gemm.h"
#include "cuda_staged.h"
#include "draw_pairs_cuda.h"
#include "log.h"
#include "rng.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- ops through the staged backend ---- */

/* An int8 cache rounds each element by at most max|x| / 254: 3e-5 of the power of normal data. */
static const double int8_factor = 10;

static bool is_rows(enum nt_op op) {
    return op == NT_OP_head_argmax || op == NT_OP_gemm_dgrad || op == NT_OP_gemm_wgrad;
}

static void staged_row(struct nt_cuda_check *out, struct nt_backend *staged, struct nt_backend *be, enum nt_op op,
                       int32_t width) {
    if (out->lost) return;
    int64_t before[NT_CUDA_KERNEL_COUNT];
    struct nt_cuda_check_row row = {.op = op};
    struct nt_selftest_row test;
    const bool cache = op == NT_OP_rope_kv || op == NT_OP_attention, int8 = be->kv_format == NT_KV_ROWS_INT8;
    char size[32] = "";
    const char *what = cache || op == NT_OP_attention_bwd ? "d_head" : is_rows(op) ? "rows" : "d_model";
    if (width > 0) (void)snprintf(size, sizeof size, " %s %d", what, width);
    (void)snprintf(row.name, sizeof row.name, "%s%s%s", nt_op_name(op), size,
                   !cache ? ""
                   : int8 ? ", int8 cache"
                          : ", bf16 cache");
    nt_cuda_check_begin(be, before);
    const nt_status st = nt_ops_selftest_op(staged, op, width, &test);
    row.difference = test.difference;
    row.limit = cache && int8 ? int8_factor * test.limit : test.limit;
    nt_cuda_check_add(out, be, row, st, before);
}

/* The widths at which other kernels take over, or the rows where those decide (norm_cuda.h, attention_cuda.c,
 * head_cuda.h; of gemm's gradients on 100 to 140 multiprocessors, nt_gemm_choose and nt_sm90_choose). */
static void staged_rows(struct nt_cuda_check *out, struct nt_backend *staged, struct nt_backend *be, bool small,
                        const bool skip[NT_OP_COUNT]) {
    static const int32_t norms[] = {110, 576, 4096}, heads[] = {64, 96, 128, 256}, head_rows[] = {3, 40, 70};
    static const int32_t product_rows[] = {0, 128, 256, 576, 1024, 2048, 4096}; /* small: the first */
    enum { N_PRODUCT_ROWS = sizeof product_rows / sizeof product_rows[0] };
    for (int i = 0; i < NT_OP_COUNT; i++) {
        const enum nt_op op = (enum nt_op)i;
        const bool cache = op == NT_OP_rope_kv || op == NT_OP_attention;
        if (skip[op]) continue;
        if (op == NT_OP_attention_bwd)
            for (int w = 0; w < 4; w++) staged_row(out, staged, be, op, heads[w]);
        else if (op == NT_OP_rmsnorm || op == NT_OP_rmsnorm_bwd)
            for (int w = 0; w < 3; w++) staged_row(out, staged, be, op, norms[w]);
        else if (op == NT_OP_head_argmax)
            for (int w = 0; w < 3; w++) staged_row(out, staged, be, op, head_rows[w]);
        else if (is_rows(op))
            for (int w = 0; w < (small ? 1 : N_PRODUCT_ROWS); w++) staged_row(out, staged, be, op, product_rows[w]);
        else if (!cache)
            staged_row(out, staged, be, op, 0);
        for (int int8 = 0; int8 < 2 && cache; int8++) {
            be->kv_format = int8 ? NT_KV_ROWS_INT8 : NT_KV_ROWS;
            for (int w = 0; w < (small && op == NT_OP_rope_kv ? 1 : 4); w++) staged_row(out, staged, be, op, heads[w]);
        }
        be->kv_format = NT_KV_ROWS;
    }
}

/* ---- kernels that read peer memory, with this device as its only peer ---- */

enum { P2P_ROWS = 3, P2P_D = 576, P2P_COUNT = P2P_ROWS * P2P_D };
/* More rows than threads; the pairs of ranks that NCCL has gathered lie one after the other. */
enum { PAIR_ROWS = NT_BEST_THREADS + 24, PAIR_RANKS = 3, PAIR_WORDS = 2 * PAIR_ROWS };
_Static_assert(PAIR_RANKS *PAIR_WORDS <= P2P_COUNT, "pairs take the place of sums");

struct p2p {
    float from[P2P_COUNT], x[P2P_COUNT], w[P2P_D];
};
struct p2p_device { /* in device memory */
    struct p2p data;
    uint32_t flags[NT_P2P_FLAGS], epoch[NT_P2P_BLOCKS];
    float out[P2P_COUNT];
};

static void fill_p2p(struct p2p *p) {
    float *all = p->from;
    for (size_t i = 0; i < sizeof *p / sizeof *all; i++) {
        uint32_t word[4];
        nt_philox(5, 0, i, word);
        all[i] = 2 * nt_unit_float(word[0]) - 1;
    }
}

static struct nt_p2p_group group_of(struct p2p_device *d) {
    static const struct nt_p2p_group none;
    struct nt_p2p_group g = none;
    g.from[0] = d->data.from;
    g.flags[0] = d->flags;
    g.epoch = d->epoch;
    g.size = 1;
    return g;
}

/* The sum of one rank's data is that data. */
static nt_status run_sum(struct nt_backend *be, struct p2p *p, struct p2p_device *d, bool *same) {
    const struct nt_allreduce_p2p_args a = {.group = group_of(d), .out = d->out, .count = P2P_COUNT};
    float got[P2P_COUNT];
    NT_TRY(be->memory->upload(be, &d->data, p, sizeof *p));
    NT_TRY(nt_allreduce_p2p_cuda(be, &a));
    NT_TRY(be->memory->download(be, got, d->out, sizeof got));
    *same = memcmp(got, p->from, sizeof got) == 0;
    return NT_OK;
}

/* rmsnorm with that sum as delta. */
static nt_status run_norm(struct nt_backend *be, struct p2p *p, struct p2p_device *d, bool *same) {
    const struct nt_allreduce_norm_p2p_args a = {
        .group = group_of(d),
        .norm = {.x = d->data.x,
                 .w = d->data.w,
                 .y = (nt_bf16 *)(void *)d->out,
                 .eps = 1e-5f,
                 .n_rows = P2P_ROWS,
                 .d_model = P2P_D,
                 .ldy = P2P_D}
    };
    float want[P2P_COUNT], got[P2P_COUNT];
    NT_TRY(be->memory->upload(be, &d->data, p, sizeof *p));
    NT_TRY(nt_allreduce_norm_p2p_cuda(be, &a));
    NT_TRY(be->memory->download(be, got, d->data.x, sizeof got));
    for (int i = 0; i < P2P_COUNT; i++) want[i] = p->x[i] + p->from[i];
    *same = memcmp(want, got, sizeof want) == 0;
    return NT_OK;
}

/* The token of the first n ranks' pairs: the largest value's, the first of equals'; none where it is not finite. */
static int32_t wanted_token(const float *pairs, int32_t n, int32_t row) {
    int32_t best = 0, token = 0;
    for (int32_t r = 1; r < n; r++)
        if (pairs[r * PAIR_WORDS + row] > pairs[best * PAIR_WORDS + row]) best = r;
    memcpy(&token, &pairs[best * PAIR_WORDS + PAIR_ROWS + row], sizeof token);
    return isfinite(pairs[best * PAIR_WORDS + row]) ? token : -1;
}

/* This rank's pairs where peers would read them, then all ranks' in this rank's own memory. */
static nt_status run_best(struct nt_backend *be, struct p2p *p, struct p2p_device *d, bool *same) {
    struct nt_best_pairs_args a = {.group = group_of(d), .token = (int32_t *)(void *)d->out, .n_row = PAIR_ROWS};
    int32_t got[PAIR_ROWS];
    for (int32_t r = 0; r < PAIR_RANKS; r++) {
        for (int32_t i = 0; i < PAIR_ROWS; i++) {
            const int32_t token = r * PAIR_ROWS + i;
            memcpy(&p->from[r * PAIR_WORDS + PAIR_ROWS + i], &token, sizeof token);
        }
        p->from[r * PAIR_WORDS] = -INFINITY; /* a row without a token, and one of equal values */
        p->from[r * PAIR_WORDS + 1] = 1;
    }
    NT_TRY(be->memory->upload(be, &d->data, p, sizeof *p));
    *same = true;
    for (int32_t n = 1; n <= PAIR_RANKS; n += PAIR_RANKS - 1) {
        NT_TRY(nt_best_pairs_cuda(be, &a));
        NT_TRY(be->memory->download(be, got, a.token, sizeof got));
        for (int32_t i = 0; i < PAIR_ROWS; i++) *same = *same && got[i] == wanted_token(p->from, n, i);
        a.gathered = d->data.from;
        a.stride = PAIR_WORDS;
        a.group.size = PAIR_RANKS;
    }
    return NT_OK;
}

/* Of three shards whose lists are all they have: the tokens of logit_sample over the whole rows. */
enum {
    DRAW_ROWS = 6,
    DRAW_LIST = 40,
    DRAW_STRIDE = DRAW_ROWS * (2 * DRAW_LIST + 4),
    DRAW_ALL = PAIR_RANKS * DRAW_LIST
};
_Static_assert(PAIR_RANKS *DRAW_STRIDE <= P2P_COUNT, "lists take the place of sums");

struct draw_rules {
    uint64_t seed[DRAW_ROWS];
    float inv_temp[DRAW_ROWS], top_p[DRAW_ROWS], min_p[DRAW_ROWS];
    int32_t kind[DRAW_ROWS], top_k[DRAW_ROWS];
};
static const struct draw_rules draw_rules = {
    .seed = {1,              2,                 3,                 4,                 5,                 6   },
    .inv_temp = {0,              1,                 1,                 1,                 1,                 1   },
    .top_p = {1,              0.9f,              1,                 1,                 0.7f,              0.5f},
    .min_p = {0,              0,                 0.3f,              0,                 0.2f,              0   },
    .kind = {NT_DRAW_GREEDY, NT_DRAW_TRUNCATED, NT_DRAW_TRUNCATED, NT_DRAW_TRUNCATED, NT_DRAW_TRUNCATED,
             NT_DRAW_TRUNCATED                                                                               },
    .top_k = {0,              0,                 0,                 20,                40,                1   }
};

static int descending(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Lists of a rank out of its random numbers, and the rows of the whole vocabulary. */
static void fill_lists(float *part, int32_t first, float *rows) {
    float *sum = part + DRAW_ROWS * (2 * DRAW_LIST + 3), *max = sum - DRAW_ROWS;
    for (int32_t r = 0; r < DRAW_ROWS; r++) {
        float *list = part + r * DRAW_LIST;
        for (int32_t i = 0; i < DRAW_LIST; i++) {
            list[i] *= 4;
            memcpy(&list[DRAW_ROWS * DRAW_LIST + i], &i, sizeof i);
        }
        qsort(list, DRAW_LIST, sizeof *list, descending);
        max[r] = list[0];
        sum[r] = 0;
        for (int32_t i = 0; i < DRAW_LIST; i++) {
            sum[r] += expf(list[i] - max[r]);
            rows[r * DRAW_ALL + first + i] = list[i];
        }
    }
}

static nt_status run_draw(struct nt_backend *be, struct p2p *p, struct p2p_device *d, bool *same) {
    float rows[DRAW_ROWS * DRAW_ALL];
    int32_t want[DRAW_ROWS], got[DRAW_ROWS];
    struct draw_rules *at = (struct draw_rules *)(void *)d->data.x;
    const struct nt_logit_sample_args whole = {.logits = rows,
                                               .ld = DRAW_ALL,
                                               .inv_temp = draw_rules.inv_temp,
                                               .top_p = draw_rules.top_p,
                                               .min_p = draw_rules.min_p,
                                               .top_k = draw_rules.top_k,
                                               .seed = draw_rules.seed,
                                               .stream = draw_rules.seed,
                                               .index = want,
                                               .n_row = DRAW_ROWS,
                                               .n_vocab = DRAW_ALL};
    struct nt_draw_pairs_args a = {.gathered = d->data.from,
                                   .stride = DRAW_STRIDE,
                                   .kind = at->kind,
                                   .top_p = at->top_p,
                                   .min_p = at->min_p,
                                   .top_k = at->top_k,
                                   .seed = at->seed,
                                   .stream = at->seed,
                                   .token = (int32_t *)(void *)d->out,
                                   .size = PAIR_RANKS,
                                   .n_row = DRAW_ROWS,
                                   .k = DRAW_ALL,
                                   .all = true};
    for (int32_t r = 0; r < PAIR_RANKS; r++) {
        a.have[r] = DRAW_LIST;
        a.first[r] = r * DRAW_LIST;
        fill_lists(p->from + r * DRAW_STRIDE, a.first[r], rows);
    }
    memcpy(p->x, &draw_rules, sizeof draw_rules);
    NT_TRY(nt_logit_sample_portable(be, &whole));
    NT_TRY(be->memory->upload(be, &d->data, p, sizeof *p));
    NT_TRY(nt_draw_pairs_cuda(be, &a));
    NT_TRY(be->memory->download(be, got, a.token, sizeof got));
    *same = memcmp(want, got, sizeof got) == 0;
    return NT_OK;
}

static const struct p2p_check {
    const char *name;
    nt_status (*run)(struct nt_backend *be, struct p2p *p, struct p2p_device *d, bool *same);
    enum nt_op op;
} p2p_checks[] = {
    {"allreduce over peer memory, one rank",           run_sum,  NT_OP_rmsnorm     },
    {"allreduce + rmsnorm over peer memory, one rank", run_norm, NT_OP_rmsnorm     },
    {"best pairs: one rank's, and three gathered",     run_best, NT_OP_head_argmax },
    {"draws from pairs of three ranks",                run_draw, NT_OP_logit_sample},
};

static void p2p_rows(struct nt_cuda_check *out, struct nt_backend *be, const bool skip[NT_OP_COUNT]) {
    for (size_t i = 0; i < sizeof p2p_checks / sizeof p2p_checks[0] && !out->lost; i++) {
        int64_t before[NT_CUDA_KERNEL_COUNT];
        struct nt_cuda_check_row row = {.op = p2p_checks[i].op, .difference = INFINITY};
        struct p2p p;
        void *device = NULL;
        bool same = false;
        if (skip[row.op]) continue;
        fill_p2p(&p);
        (void)snprintf(row.name, sizeof row.name, "%s", p2p_checks[i].name);
        nt_cuda_check_begin(be, before);
        nt_status st = be->memory->take(be, sizeof(struct p2p_device), "what peers read", &device);
        if (st == NT_OK) st = p2p_checks[i].run(be, &p, device, &same);
        if (same) row.difference = 0;
        be->memory->give(be, device, sizeof(struct p2p_device));
        nt_cuda_check_add(out, be, row, st, before);
    }
}

nt_status nt_cuda_check(struct nt_backend *be, bool small, const bool skip[NT_OP_COUNT], struct nt_cuda_check *out) {
    const enum nt_kv_format format = be->kv_format;
    struct nt_backend staged;
    *out = (struct nt_cuda_check){0};
    be->kv_format = NT_KV_ROWS;
    NT_TRY(nt_cuda_staged_ops(be, &staged));
    staged_rows(out, &staged, be, small, skip);
    if (!skip[NT_OP_attention]) nt_cuda_check_attention(out, &staged, be, small);
    staged.watch_arg = NULL;
    nt_backend_close(&staged);
    p2p_rows(out, be, skip);
    nt_status st = skip[NT_OP_gemm] || out->lost ? NT_OK : nt_cuda_check_gemm(be, small, out);
    be->kv_format = format;
    if (out->lost) {
        const struct nt_cuda_check_row *last = &out->row[out->n - 1];
        st = NT_FAIL(NT_E_SYSTEM, "the check \"%s\" ended all work on the device: %s; for the rest: --skip %s",
                     last->name, last->error, nt_op_name(last->op));
    }
    return st;
}
