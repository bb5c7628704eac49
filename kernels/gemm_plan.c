#include "gemm_plan.h"
#include <stdatomic.h>

enum {
    L2_ROWS_BYTES = 448 << 10, /* of x in a core's L2 (>= 1 MiB on the machines that matter), beside two panels */
    ROW_PAD = 256,             /* at most this much follows a copied row */
    MAX_UNITS = 16             /* pieces per thread and block of rows */
};
/* What a piece should last, and rough speeds of one core to estimate it with. */
static const double piece_s = 5e-6, core_flops = 2e11, core_bytes = 30e9;

/* The pieces of one thread, [first, end) packed in one word: the owner takes from the front, idle threads from the
 * back. It lies at the end of the owner's scratch. */
struct queue {
    _Alignas(64) atomic_uint_fast64_t range;
};

struct job {
    const struct nt_gemm_args *a;
    const struct nt_gemm_traits *traits;
    struct nt_backend *be;
    bool copy;
    int32_t n_thread, n_panel;
    int32_t grid_rows, grid_cols; /* of threads: thread i is at row i / grid_cols, column i % grid_cols */
    int32_t n_block;              /* blocks of rows of one thread */
    int32_t n_unit;               /* pieces its panels are cut into, per block */
};

static int32_t ceil_div(int64_t a, int64_t b) {
    return (int32_t)((a + b - 1) / b);
}

/* Panels are divided among all threads; where they are few, rows as well, which costs another pass over the weights. */
static void choose_grid(struct job *j) {
    double best = 0;
    for (int32_t rows = 1; rows <= j->n_thread; rows++) {
        if (j->n_thread % rows != 0 || (rows > 1 && j->a->n_tok / rows < 2 * j->traits->tile_rows)) continue;
        const int32_t cols = j->n_thread / rows;
        const double even = (double)j->n_panel / ((double)ceil_div(j->n_panel, cols) * cols);
        const double gain = even / (1 + 0.05 * (rows - 1) / rows);
        if (gain <= best) continue;
        best = gain;
        j->grid_rows = rows;
        j->grid_cols = cols;
    }
}

static void plan(struct job *j) {
    const struct nt_gemm_args *a = j->a;
    choose_grid(j);
    const int32_t tile = j->traits->tile_rows;
    const int64_t row_bytes = (int64_t)a->w->k * j->traits->row_bytes;
    int64_t fit = L2_ROWS_BYTES / row_bytes / tile * tile;
    if (fit < tile) fit = tile;
    const int64_t room = (int64_t)(j->be->scratch_per_thread - sizeof(struct queue)) / (row_bytes + ROW_PAD);
    if (j->copy && fit > room) fit = room;
    const int32_t n_tok = ceil_div(a->n_tok, j->grid_rows), n_panel = ceil_div(j->n_panel, j->grid_cols);
    j->n_block = ceil_div(n_tok, fit);
    const double pairs = (double)a->w->k * NT_PANEL;
    const double compute = 2 * pairs * n_tok / j->n_block / core_flops, stream = 2 * pairs / core_bytes;
    const double units = (compute > stream ? compute : stream) * n_panel / piece_s;
    j->n_unit = units < 1 ? 1 : units > MAX_UNITS ? MAX_UNITS : (int32_t)units;
    if (j->n_unit > n_panel) j->n_unit = n_panel;
}

static struct queue *queue_of(const struct job *j, int thread) {
    char *end = (char *)nt_cpu_scratch(j->be, thread) + j->be->scratch_per_thread;
    return (struct queue *)(void *)(end - sizeof(struct queue));
}

/* Takes a piece from the front or the back of a queue; -1: empty. */
static int64_t take(struct queue *q, bool front) {
    uint_fast64_t old = atomic_load_explicit(&q->range, memory_order_relaxed);
    for (;;) {
        const uint32_t first = (uint32_t)(old >> 32), end = (uint32_t)old;
        if (first >= end) return -1;
        const uint_fast64_t left = front ? old + ((uint_fast64_t)1 << 32) : old - 1;
        if (atomic_compare_exchange_weak_explicit(&q->range, &old, left, memory_order_relaxed, memory_order_relaxed))
            return front ? first : end - 1;
    }
}

struct piece {
    int64_t row, row_end, panel, panel_end; /* panel == panel_end: none left */
};

static struct piece piece_at(const struct job *j, int owner, int64_t index) {
    struct piece p = {0};
    int64_t row, row_end, panel, panel_end, begin, end;
    nt_split(j->a->n_tok, 1, owner / j->grid_cols, j->grid_rows, &row, &row_end);
    nt_split(j->n_panel, 1, owner % j->grid_cols, j->grid_cols, &panel, &panel_end);
    nt_split(row_end - row, 1, (int)(index / j->n_unit), j->n_block, &begin, &end);
    p.row = row + begin;
    p.row_end = row + end;
    nt_split(panel_end - panel, 1, (int)(index % j->n_unit), j->n_unit, &begin, &end);
    p.panel = panel + begin;
    p.panel_end = panel + end;
    return p;
}

static bool is_empty(const struct piece *p) {
    return p->panel >= p->panel_end || p->row >= p->row_end;
}

/* The next piece for a thread: its own, else another's last. */
static struct piece next_piece(const struct job *j, int thread) {
    for (int i = 0; i < j->n_thread; i++) {
        const int owner = (thread + i) % j->n_thread;
        for (int64_t index; (index = take(queue_of(j, owner), i == 0)) >= 0;) {
            const struct piece p = piece_at(j, owner, index);
            if (!is_empty(&p)) return p;
        }
    }
    return (struct piece){0};
}

static const char *panel_at(const struct job *j, int64_t panel) {
    return (const char *)j->a->w->data + panel * ((j->a->w->k + 1) / 2) * NT_PANEL * 2 * (int64_t)sizeof(nt_bf16);
}

struct worker {
    const struct job *j;
    int thread;
    bool lookahead;
    struct piece piece, next;
    int64_t row; /* of the rows in p, -1: none */
    struct nt_gemm_panel p;
};

static void set_rows(struct worker *w) {
    const struct nt_gemm_args *a = w->j->a;
    if (w->row == w->piece.row) return;
    w->row = w->piece.row;
    w->p.rows = (int32_t)(w->piece.row_end - w->row);
    w->p.x = (const char *)(a->x + w->row * a->ldx);
    w->p.ldx = a->ldx * (int64_t)sizeof(nt_bf16);
    if (!w->j->copy) return;
    void *at = nt_cpu_scratch(w->j->be, w->thread);
    w->j->traits->copy(a, (int32_t)w->row, w->p.rows, at, &w->p.ldx);
    NT_CHECK(w->p.rows * w->p.ldx <= (int64_t)(w->j->be->scratch_per_thread - sizeof(struct queue)));
    w->p.x = at;
}

/* The weights this thread reads after the panel. The next piece is taken when the last panel of this one begins: early
 * enough to prefetch, late enough not to keep work from an idle thread. */
static const char *panel_after(struct worker *w, int64_t panel) {
    if (panel + 1 < w->piece.panel_end) return panel_at(w->j, panel + 1);
    if (!w->lookahead) return NULL;
    w->next = next_piece(w->j, w->thread);
    return is_empty(&w->next) ? NULL : panel_at(w->j, w->next.panel);
}

static void run_piece(struct worker *w) {
    const struct nt_gemm_args *a = w->j->a;
    struct nt_gemm_panel *p = &w->p;
    const bool gated = a->out == NT_GEMM_SWIGLU_BF16 || a->out == NT_GEMM_GEGLU_BF16;
    const bool f32 = a->out == NT_GEMM_STORE_F32 || a->out == NT_GEMM_ADD_F32;
    const int64_t y_bytes = f32 ? sizeof(float) : sizeof(nt_bf16);
    set_rows(w);
    p->ldy = a->ldy * y_bytes;
    for (int64_t panel = w->piece.panel; panel < w->piece.panel_end; panel++) {
        const int64_t n0 = panel * NT_PANEL;
        p->w = panel_at(w->j, panel);
        p->w_next = panel_after(w, panel);
        p->n_valid = (int32_t)(a->w->n - n0 < NT_PANEL ? a->w->n - n0 : NT_PANEL);
        p->bias = a->bias ? a->bias + n0 : NULL;
        p->y = (char *)a->y + w->row * p->ldy + (gated ? n0 / 2 : n0) * y_bytes;
        w->j->traits->panel(p);
    }
}

static void run_thread(void *arg, int thread, int n_threads) {
    const struct job *j = arg;
    (void)n_threads;
    struct worker w = {.j = j, .thread = thread, .row = -1};
    w.p.n_pair = (j->a->w->k + 1) / 2;
    w.p.out = j->a->out;
    w.lookahead = j->a->n_tok / (j->grid_rows * j->n_block) >= j->traits->lookahead_rows;
    for (w.piece = next_piece(j, thread); !is_empty(&w.piece);) {
        run_piece(&w);
        w.piece = w.lookahead ? w.next : next_piece(j, thread);
    }
}

nt_status nt_gemm_run(struct nt_backend *be, const struct nt_gemm_args *args, const struct nt_gemm_traits *traits,
                      bool copy) {
    if (args->w->format == NT_WEIGHT_INT4 || args->w2 || args->pre) return nt_gemm_portable(be, args);
    NT_CHECK(args->w->format == NT_WEIGHT_BF16 && args->w->k % 2 == 0);
    if (args->n_tok == 0) return NT_OK;
    struct job j = {.a = args,
                    .traits = traits,
                    .be = be,
                    .copy = copy,
                    .n_thread = nt_pool_size(be->pool),
                    .n_panel = ceil_div(args->w->n, NT_PANEL)};
    plan(&j);
    for (int i = 0; i < j.n_thread; i++)
        atomic_store_explicit(&queue_of(&j, i)->range, (uint_fast64_t)(j.n_block * j.n_unit), memory_order_relaxed);
    nt_pool_run(be->pool, run_thread, &j);
    return NT_OK;
}
