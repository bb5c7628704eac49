#include "gemm_plan.h"

enum {
    L2_ROWS_BYTES = 448 << 10, /* of x in a core's L2 (>= 1 MiB on the machines that matter), beside two panels */
    MAX_PIECES = 16            /* per thread */
};
/* What a piece should last, and rough speeds of one core to estimate it with. */
static const double piece_s = 5e-6, core_flops = 2e11, core_bytes = 30e9;

struct job {
    const struct nt_gemm_args *a;
    const struct nt_gemm_traits *traits;
    struct nt_backend *be;
    bool copy;
    int32_t n_panel, n_block, n_unit; /* pieces: n_block * n_unit */
};

static int32_t ceil_div(int64_t a, int64_t b) {
    return (int32_t)((a + b - 1) / b);
}

static void plan(struct job *j) {
    const struct nt_gemm_args *a = j->a;
    const int64_t row_bytes = (int64_t)a->w->k * j->traits->row_bytes;
    const int32_t tile = j->traits->tile_rows, n_threads = nt_pool_size(j->be->pool);
    int64_t rows = L2_ROWS_BYTES / row_bytes / tile * tile;
    if (rows < tile) rows = tile;
    j->n_block = ceil_div(a->n_tok, rows);
    while (j->n_block * j->n_panel < 8 * n_threads && a->n_tok / (j->n_block + 1) >= 2 * tile) j->n_block++;

    const double pairs = (double)a->w->k * NT_PANEL;
    const double compute = 2 * pairs * a->n_tok / j->n_block / core_flops, stream = 2 * pairs / core_bytes;
    const double panel_s = compute > stream ? compute : stream;
    const double pieces = panel_s * j->n_panel * j->n_block / n_threads / piece_s;
    /* per thread and block of rows; among the allowed numbers the one that divides best */
    int32_t most = ceil_div((int64_t)(pieces < 1 ? 1 : pieces > MAX_PIECES ? MAX_PIECES : pieces), j->n_block);
    int64_t best = INT64_MAX;
    for (int32_t n = 1; n <= most; n++) {
        const int64_t load = (int64_t)ceil_div(j->n_panel, (int64_t)n * n_threads) * n;
        if (load > best) continue;
        best = load;
        j->n_unit = n * n_threads < j->n_panel ? n * n_threads : j->n_panel;
    }
}

struct piece {
    int64_t block, first, end; /* panels */
};

static struct piece piece_at(const struct job *j, int64_t ticket) {
    struct piece p = {.block = ticket / j->n_unit};
    nt_split(j->n_panel, 1, (int)(ticket % j->n_unit), j->n_unit, &p.first, &p.end);
    return p;
}

static const char *panel_at(const struct job *j, int64_t panel) {
    return (const char *)j->a->w->data + panel * ((j->a->w->k + 1) / 2) * NT_PANEL * 2 * (int64_t)sizeof(nt_bf16);
}

static void set_rows(const struct job *j, int thread, int64_t block, struct nt_gemm_panel *p) {
    const struct nt_gemm_args *a = j->a;
    int64_t begin, end;
    nt_split(a->n_tok, 1, (int)block, j->n_block, &begin, &end);
    p->rows = (int32_t)(end - begin);
    p->x = (const char *)(a->x + begin * a->ldx);
    p->ldx = a->ldx * (int64_t)sizeof(nt_bf16);
    if (!j->copy) return;
    void *at = nt_cpu_scratch(j->be, thread);
    j->traits->copy(a, (int32_t)begin, p->rows, at, &p->ldx);
    p->x = at;
}

static void run_piece(const struct job *j, const struct piece *piece, const char *w_after, struct nt_gemm_panel *p) {
    const struct nt_gemm_args *a = j->a;
    const bool gated = a->out == NT_GEMM_SWIGLU_BF16 || a->out == NT_GEMM_GEGLU_BF16;
    const bool f32 = a->out == NT_GEMM_STORE_F32 || a->out == NT_GEMM_ADD_F32;
    const int64_t y_bytes = f32 ? sizeof(float) : sizeof(nt_bf16);
    int64_t row, row_end;
    nt_split(a->n_tok, 1, (int)piece->block, j->n_block, &row, &row_end);
    p->ldy = a->ldy * y_bytes;
    for (int64_t panel = piece->first; panel < piece->end; panel++) {
        const int64_t n0 = panel * NT_PANEL;
        p->w = panel_at(j, panel);
        p->w_next = panel + 1 < piece->end ? panel_at(j, panel + 1) : w_after;
        p->n_valid = (int32_t)(a->w->n - n0 < NT_PANEL ? a->w->n - n0 : NT_PANEL);
        p->bias = a->bias ? a->bias + n0 : NULL;
        p->y = (char *)a->y + row * p->ldy + (gated ? n0 / 2 : n0) * y_bytes;
        j->traits->panel(p);
    }
}

static void run_thread(void *arg, int thread, int n_threads) {
    const struct job *j = arg;
    (void)n_threads;
    const int64_t count = (int64_t)j->n_block * j->n_unit;
    struct nt_gemm_panel p = {.n_pair = (j->a->w->k + 1) / 2, .out = j->a->out};
    const bool lookahead = j->a->n_tok / j->n_block >= j->traits->lookahead_rows;
    int64_t block = -1;
    for (int64_t ticket = nt_pool_next(j->be->pool, count); ticket >= 0;) {
        const int64_t next = lookahead ? nt_pool_next(j->be->pool, count) : -1;
        const struct piece piece = piece_at(j, ticket);
        if (piece.block != block) set_rows(j, thread, piece.block, &p);
        block = piece.block;
        run_piece(j, &piece, next >= 0 ? panel_at(j, piece_at(j, next).first) : NULL, &p);
        ticket = lookahead ? next : nt_pool_next(j->be->pool, count);
    }
}

nt_status nt_gemm_run(struct nt_backend *be, const struct nt_gemm_args *args, const struct nt_gemm_traits *traits,
                      bool copy) {
    NT_CHECK(args->w->format == NT_WEIGHT_BF16 && args->w->k % 2 == 0);
    if (args->n_tok == 0) return NT_OK;
    struct job j = {.a = args, .traits = traits, .be = be, .copy = copy, .n_panel = ceil_div(args->w->n, NT_PANEL)};
    plan(&j);
    nt_pool_run(be->pool, run_thread, &j);
    return NT_OK;
}
