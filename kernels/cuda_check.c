#include "cuda_check.h"

#include "allreduce_p2p_cuda.h"
#include "cpu_bodies.h"
#include "cuda_check_gemm.h"
#include "cuda_missing.h"
#include "cuda_staged.h"
#include "log.h"
#include "rng.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- ops through the staged backend ---- */

/* An int8 cache rounds each element by at most max|x| / 254: 3e-5 of the power of normal data. */
static const double int8_factor = 10;

static void staged_row(struct nt_cuda_check *out, struct nt_backend *staged, struct nt_backend *be, enum nt_op op,
                       int32_t width) {
    if (out->lost) return;
    int64_t before[NT_CUDA_KERNEL_COUNT];
    struct nt_cuda_check_row row = {.op = op};
    struct nt_selftest_row test;
    const bool cache = op == NT_OP_rope_kv || op == NT_OP_attention, int8 = be->kv_format == NT_KV_ROWS_INT8;
    char size[32] = "";
    if (width > 0) (void)snprintf(size, sizeof size, " %s %d", cache ? "d_head" : "d_model", width);
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

/* The widths at which other kernels take over (norm_cuda.h, attention_cuda.c). */
static void staged_rows(struct nt_cuda_check *out, struct nt_backend *staged, struct nt_backend *be, bool small,
                        const bool skip[NT_OP_COUNT]) {
    static const int32_t norms[] = {110, 576, 4096}, heads[] = {64, 96, 128, 256};
    for (int i = 0; i < NT_OP_COUNT; i++) {
        const enum nt_op op = (enum nt_op)i;
        const bool cache = op == NT_OP_rope_kv || op == NT_OP_attention;
        if (skip[op] || nt_cuda_is_missing(op)) continue;
        if (op == NT_OP_rmsnorm)
            for (int w = 0; w < 3; w++) staged_row(out, staged, be, op, norms[w]);
        else if (!cache)
            staged_row(out, staged, be, op, 0);
        for (int int8 = 0; int8 < 2 && cache; int8++) {
            be->kv_format = int8 ? NT_KV_ROWS_INT8 : NT_KV_ROWS;
            for (int w = 0; w < (small && op == NT_OP_rope_kv ? 1 : 4); w++) staged_row(out, staged, be, op, heads[w]);
        }
        be->kv_format = NT_KV_ROWS;
    }
}

/* ---- the all-reduce over peer memory, with this device as its only peer ---- */

enum { P2P_ROWS = 3, P2P_D = 576, P2P_COUNT = P2P_ROWS * P2P_D };

struct p2p {
    float from[P2P_COUNT], x[P2P_COUNT], w[P2P_D];
};

static void fill_p2p(struct p2p *p) {
    float *all = p->from;
    for (size_t i = 0; i < sizeof *p / sizeof *all; i++) {
        uint32_t word[4];
        nt_philox(5, 0, i, word);
        all[i] = 2 * nt_unit_float(word[0]) - 1;
    }
}

/* The sum of one rank's data is that data; the fused norm is rmsnorm with it as delta. */
static nt_status run_p2p(struct nt_backend *be, const struct p2p *p, char *device, bool norm, double *difference) {
    static const struct nt_p2p_group no_group;
    const size_t flags_at = sizeof *p, epoch_at = flags_at + NT_P2P_FLAGS * sizeof(uint32_t);
    const size_t out_at = epoch_at + NT_P2P_BLOCKS * sizeof(uint32_t), x_at = offsetof(struct p2p, x);
    struct nt_p2p_group g = no_group;
    float want[P2P_COUNT], got[P2P_COUNT];
    g.from[0] = (const float *)(void *)device;
    g.flags[0] = (uint32_t *)(void *)(device + flags_at);
    g.epoch = (uint32_t *)(void *)(device + epoch_at);
    g.size = 1;
    NT_TRY(be->memory->upload(be, device, p, sizeof *p));
    if (norm) {
        const struct nt_allreduce_norm_p2p_args a = {
            .group = g,
            .norm = {.x = (float *)(void *)(device + x_at),
                     .w = (const float *)(void *)(device + offsetof(struct p2p, w)),
                     .y = (nt_bf16 *)(void *)(device + out_at),
                     .eps = 1e-5f,
                     .n_rows = P2P_ROWS,
                     .d_model = P2P_D,
                     .ldy = P2P_D}
        };
        NT_TRY(nt_allreduce_norm_p2p_cuda(be, &a));
        for (int i = 0; i < P2P_COUNT; i++) want[i] = p->x[i] + p->from[i];
    } else {
        const struct nt_allreduce_p2p_args a = {
            .group = g, .out = (float *)(void *)(device + out_at), .count = P2P_COUNT};
        NT_TRY(nt_allreduce_p2p_cuda(be, &a));
        memcpy(want, p->from, sizeof want);
    }
    NT_TRY(be->memory->download(be, got, device + (norm ? x_at : out_at), sizeof got));
    *difference = memcmp(want, got, sizeof want) == 0 ? 0 : INFINITY;
    return NT_OK;
}

static void p2p_rows(struct nt_cuda_check *out, struct nt_backend *be) {
    const size_t words = NT_P2P_FLAGS + NT_P2P_BLOCKS + P2P_COUNT, bytes = sizeof(struct p2p) + 4 * words;
    struct p2p p;
    fill_p2p(&p);
    for (int norm = 0; norm < 2 && !out->lost; norm++) {
        int64_t before[NT_CUDA_KERNEL_COUNT];
        struct nt_cuda_check_row row = {.op = NT_OP_rmsnorm, .difference = INFINITY};
        void *device = NULL;
        (void)snprintf(row.name, sizeof row.name, "%s over peer memory, one rank",
                       norm ? "allreduce + rmsnorm" : "allreduce");
        nt_cuda_check_begin(be, before);
        nt_status st = be->memory->take(be, bytes, "an all-reduce", &device);
        if (st == NT_OK) st = run_p2p(be, &p, device, norm, &row.difference);
        be->memory->give(be, device, bytes);
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
    staged.watch_arg = NULL;
    nt_backend_close(&staged);
    if (!skip[NT_OP_rmsnorm]) p2p_rows(out, be);
    nt_status st = skip[NT_OP_gemm] || out->lost ? NT_OK : nt_cuda_check_gemm(be, small, out);
    be->kv_format = format;
    if (out->lost) {
        const struct nt_cuda_check_row *last = &out->row[out->n - 1];
        st = NT_FAIL(NT_E_SYSTEM, "the check \"%s\" ended all work on the device: %s; for the rest: --skip %s",
                     last->name, last->error, nt_op_name(last->op));
    }
    return st;
}
