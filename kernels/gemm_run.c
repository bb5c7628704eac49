/* gemm on the tuned panel functions: rows in place or copied, panels in the order of the plan. Quantized weights go by
 * gemm_blocks.c. */
#include "gemm_blocks.h"

struct job {
    const struct nt_gemm_args *a;
    const struct nt_gemm_traits *traits;
    struct nt_backend *be;
    bool copy, lookahead;
    int32_t k, k2;
    int64_t copy_stride; /* bytes from one copied row to the next */
    struct nt_gemm_plan plan;
};

static const char *panel_at(const void *data, int64_t panel, int32_t k) {
    return (const char *)data + panel * k * NT_PANEL * (int64_t)sizeof(nt_bf16);
}

struct worker {
    const struct job *j;
    int thread;
    struct nt_gemm_piece piece, next;
    int64_t row; /* of the rows in p, -1: none */
    struct nt_gemm_panel p;
};

/* The rows of x, and behind each its row of x2. */
static void copy_rows(struct worker *w) {
    const struct job *j = w->j;
    const struct nt_gemm_args *a = j->a;
    char *at = nt_cpu_scratch(j->be, w->thread);
    const int64_t x_bytes = (int64_t)j->k * j->traits->row_bytes;
    w->p.ldx = w->p.ldx2 = j->copy_stride;
    NT_CHECK(w->p.rows * w->p.ldx <= nt_gemm_plan_room(j->be));
    j->traits->copy(a->x + w->row * a->ldx, a->ldx, w->p.rows, a->w->k, at, w->p.ldx);
    if (a->w2) j->traits->copy(a->x2 + w->row * a->ldx2, a->ldx2, w->p.rows, a->w2->k, at + x_bytes, w->p.ldx);
    w->p.x = at;
    w->p.x2 = at + x_bytes;
}

static void set_rows(struct worker *w) {
    const struct nt_gemm_args *a = w->j->a;
    if (w->row == w->piece.row) return;
    w->row = w->piece.row;
    w->p.rows = (int32_t)(w->piece.row_end - w->row);
    if (w->j->copy) {
        copy_rows(w);
        return;
    }
    w->p.x = (const char *)(a->x + w->row * a->ldx);
    w->p.ldx = a->ldx * (int64_t)sizeof(nt_bf16);
    if (!a->w2) return;
    w->p.x2 = (const char *)(a->x2 + w->row * a->ldx2);
    w->p.ldx2 = a->ldx2 * (int64_t)sizeof(nt_bf16);
}

/* The weights this thread reads after the panel. The next of its own pieces is taken when the last panel of this one
 * begins, early enough to prefetch; another thread's only when there is nothing else to do. */
static const char *panel_after(struct worker *w, int64_t panel) {
    const struct job *j = w->j;
    if (panel + 1 < w->piece.panel_end) return panel_at(j->a->w->data, panel + 1, j->k);
    if (!j->lookahead) return NULL;
    w->next = nt_gemm_plan_own(&j->plan, w->thread);
    return nt_gemm_piece_empty(&w->next) ? NULL : panel_at(j->a->w->data, w->next.panel, j->k);
}

static void run_piece(struct worker *w) {
    const struct job *j = w->j;
    const struct nt_gemm_args *a = j->a;
    struct nt_gemm_panel *p = &w->p;
    const bool gated = a->out == NT_GEMM_SWIGLU_BF16 || a->out == NT_GEMM_GEGLU_BF16;
    const bool f32 = a->out == NT_GEMM_STORE_F32 || a->out == NT_GEMM_ADD_F32;
    const int64_t y_bytes = f32 ? sizeof(float) : sizeof(nt_bf16);
    set_rows(w);
    p->ldy = a->ldy * y_bytes;
    p->ldpre = a->ldpre * (int64_t)sizeof(nt_bf16);
    for (int64_t panel = w->piece.panel; panel < w->piece.panel_end; panel++) {
        const int64_t n0 = panel * NT_PANEL;
        p->w = panel_at(a->w->data, panel, j->k);
        p->w_next = panel_after(w, panel);
        if (a->w2) {
            p->w2 = panel_at(a->w2->data, panel, j->k2);
            nt_gemm_second(a->w2, panel, 0, j->k2 / 2, j->traits->parts, p->second);
        }
        p->n_valid = (int32_t)(a->w->n - n0 < NT_PANEL ? a->w->n - n0 : NT_PANEL);
        p->bias = a->bias ? a->bias + n0 : NULL;
        p->y = (char *)a->y + w->row * p->ldy + (gated ? n0 / 2 : n0) * y_bytes;
        p->pre = a->pre ? (char *)(a->pre + w->row * a->ldpre + n0) : NULL;
        j->traits->panel(p);
    }
}

static void run_thread(void *arg, int thread, int n_threads) {
    const struct job *j = arg;
    (void)n_threads;
    struct worker w = {.j = j, .thread = thread, .row = -1};
    w.p.n_pair = j->k / 2;
    w.p.scale = 1;
    w.p.out = j->a->out;
    while (nt_gemm_plan_next(&j->plan, thread, &w.next, &w.piece)) run_piece(&w);
}

nt_status nt_gemm_run(struct nt_backend *be, const struct nt_gemm_args *args, const struct nt_gemm_traits *traits) {
    if (nt_weight_is_quantized(args->w->format)) return nt_gemm_quantized_run(be, args, traits);
    NT_CHECK(args->w->format == NT_WEIGHT_BF16 && args->w->k % 2 == 0);
    nt_gemm_check_options(args);
    if (args->n_tok == 0) return NT_OK;
    struct job j = {.a = args, .traits = traits, .be = be, .k = args->w->k};
    j.copy = !nt_gemm_in_place(traits, args->ldx, args->n_tok);
    if (args->w2) j.k2 = args->w2->k;
    const int64_t row_bytes = (int64_t)(j.k + j.k2) * traits->row_bytes;
    j.copy_stride = nt_gemm_row_stride(row_bytes);
    const struct nt_gemm_cut cut = {.n_row = args->n_tok,
                                    .n_panel = (args->w->n + NT_PANEL - 1) / NT_PANEL,
                                    .half_last = nt_gemm_half_last(traits, args->w->n),
                                    .depth = j.k + j.k2,
                                    .row_bytes = row_bytes,
                                    .in_place = !j.copy,
                                    .room = j.copy ? nt_gemm_plan_room(be) : 0,
                                    .room_per_row = j.copy_stride,
                                    .tile_rows = traits->tile_rows};
    nt_gemm_plan_start(&j.plan, be, &cut);
    j.lookahead = args->n_tok / (j.plan.grid_rows * j.plan.n_block) >= traits->lookahead_rows;
    nt_pool_run(be->pool, run_thread, &j);
    return NT_OK;
}
