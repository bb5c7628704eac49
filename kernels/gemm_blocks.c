#include "gemm_blocks.h"

enum {
    MERGE = NT_GEMM_DEPTH / 2, /* a second product up to here joins the last block of the first */
    MIN_PANELS = 16,           /* of a piece, when its rows are written anew for each block of the sum */
    IN_PLACE_PANELS = 2,       /* when they are read again from L3: small pieces, so that no thread waits for long */
    MAX_PANELS = 8,            /* so many panels of sums lie in scratch between two blocks */
    FETCH_AHEAD = 8192,        /* bytes of quantized weights on their way from memory */
    NARROW_ROWS = 56,          /* of dw: up to here pairs of b are made on the way, not in scratch */
    PAIR = NT_PANEL * 2        /* elements of a pair in a panel */
};

/* Elements [j0, j0 + n) of the first product's sum, then [u0, u0 + n2) of the second's. */
struct block {
    int32_t j0, n, u0, n2;
};

struct job {
    const struct nt_gemm_block_traits *traits;
    const struct nt_gemm_args *gemm; /* one of the three */
    const struct nt_gemm_dgrad_args *dgrad;
    const struct nt_gemm_wgrad_args *wgrad;
    const nt_bf16 *x, *x2; /* rows of gemm and dgrad, of the first and the second product */
    int64_t ldx, ldx2;
    int32_t row0, col0; /* of w: where a part of it begins */
    bool runs;          /* the part's rows alternate with another's, which depth counts */
    int32_t n_row, n_col, depth, depth2;
    int32_t n_block;   /* of the sum */
    bool in_place;     /* rows are read where they are, not copied to scratch */
    bool narrow;       /* the panel function for few rows of a gradient */
    bool keep_sums;    /* in scratch until the last block, for an output that cannot hold them */
    int64_t row_bytes; /* from row to row of the longest block */
    int64_t panel_bytes, sum_row_bytes;
    struct nt_gemm_plan plan;
};

static int32_t even(int32_t n) {
    return (n + 1) / 2 * 2;
}

static int32_t n_blocks(int32_t depth) {
    return (depth + NT_GEMM_DEPTH - 1) / NT_GEMM_DEPTH;
}

static int32_t block_length(int32_t depth, int32_t index) {
    const int32_t left = depth - index * NT_GEMM_DEPTH;
    return left < NT_GEMM_DEPTH ? left : NT_GEMM_DEPTH;
}

static struct block block_at(const struct job *j, int32_t index) {
    const int32_t first = n_blocks(j->depth);
    if (index >= first)
        return (struct block){.u0 = (index - first) * NT_GEMM_DEPTH, .n2 = block_length(j->depth2, index - first)};
    struct block b = {.j0 = index * NT_GEMM_DEPTH, .n = block_length(j->depth, index)};
    if (index == first - 1 && j->depth2 <= MERGE) b.n2 = j->depth2;
    return b;
}

struct worker {
    const struct job *j;
    int thread;
    struct nt_gemm_piece piece, next;
    int64_t row; /* of the rows in scratch when the sum is one block, -1: none */
    nt_bf16 *panel;
    float *sums; // [MAX_PANELS][rows, NT_PANEL]
    char *rows;
    struct nt_gemm_panel p;
};

/* One part of the rows; a pair's second element that is not there is zero. */
static void write_part(const struct job *j, const nt_bf16 *from, int64_t ld, int32_t rows, int32_t n, char *to) {
    const int64_t bytes = j->traits->product->row_bytes;
    j->traits->product->copy(from, ld, rows, n, to, j->row_bytes);
    for (int32_t r = 0; r < rows && n % 2 != 0; r++) memset(to + r * j->row_bytes + n * bytes, 0, (size_t)bytes);
}

static void write_rows(struct worker *w, const struct block *b) {
    const struct job *j = w->j;
    const int64_t row = w->piece.row;
    const int32_t rows = (int32_t)(w->piece.row_end - row);
    if (j->wgrad) {
        const struct nt_gemm_wgrad_args *a = j->wgrad;
        if (j->narrow)
            j->traits->pair_rows(a->a + b->j0 * a->lda + row, a->lda, b->n, rows, w->rows, w->p.ldx);
        else
            j->traits->transpose(a->a + b->j0 * a->lda + row, a->lda, b->n, rows, w->rows, j->row_bytes);
        return;
    }
    char *second = w->rows + even(b->n) * (int64_t)j->traits->product->row_bytes;
    if (b->n > 0) write_part(j, j->x + row * j->ldx + b->j0, j->ldx, rows, b->n, w->rows);
    if (b->n2 > 0) write_part(j, j->x2 + row * j->ldx2 + b->u0, j->ldx2, rows, b->n2, second);
}

static const nt_bf16 *w2_panel(const struct nt_gemm_args *a, int64_t panel) {
    return (const nt_bf16 *)a->w2->data + panel * NT_PANEL * a->w2->k;
}

static void point_at_rows(struct worker *w, const struct block *b) {
    const struct job *j = w->j;
    struct nt_gemm_panel *p = &w->p;
    const int64_t row = w->piece.row;
    p->x = (const char *)(j->x + row * j->ldx + b->j0);
    p->ldx = j->ldx * (int64_t)sizeof *j->x;
    p->x2 = b->n2 > 0 ? (const char *)(j->x2 + row * j->ldx2 + b->u0) : NULL;
    p->ldx2 = j->ldx2 * (int64_t)sizeof *j->x2;
}

static void find_rows(struct worker *w, const struct block *b) {
    const struct job *j = w->j;
    struct nt_gemm_panel *p = &w->p;
    p->n_pair = j->runs ? (b->n + NT_PANEL / 2) / NT_PANEL * NT_GEMM_RUN : even(b->n) / 2;
    p->w = (const char *)(w->panel + j->row0 % NT_PANEL / 2 * (int64_t)PAIR);
    p->w2 = (const char *)(w->panel + p->n_pair * (int64_t)PAIR);
    p->second[0] = p->second[1] = (struct nt_gemm_span){0, even(b->n2) / 2};
    if (j->in_place) {
        point_at_rows(w, b);
        return;
    }
    if (j->n_block > 1 || w->row != w->piece.row) write_rows(w, b);
    w->row = w->piece.row;
    p->x2 = w->rows + 2 * p->n_pair * (int64_t)j->traits->product->row_bytes;
    p->ldx2 = p->ldx;
}

/* The columns of a block, fetching what lies FETCH_AHEAD behind them: blocks and panels follow each other in memory. */
static void unpack_panel(const struct job *j, const struct block *b, int32_t panel, nt_bf16 *to) {
    const struct nt_packed *w = j->gemm->w;
    const int32_t bytes = nt_packed_block_bytes(w->format) / (NT_INT4_GROUP / NT_PANEL); /* of NT_PANEL columns */
    const char *ahead = (const char *)nt_packed_block(w, panel, b->j0 / NT_INT4_GROUP) + FETCH_AHEAD;
    for (int32_t k = 0; k < b->n; k += NT_PANEL, ahead += bytes) {
        for (int32_t i = 0; i < bytes; i += 64) __builtin_prefetch(ahead + i);
        j->traits->product->unpack(w, panel, b->j0 + k, to + k / 2 * (int64_t)PAIR);
    }
}

/* Where the halves of a panel of b begin. */
static void find_halves(const struct nt_gemm_wgrad_args *a, const struct block *b, int64_t panel,
                        const nt_bf16 *half[2]) {
    const nt_bf16 *from = a->b + b->j0 * a->ldb;
    for (int h = 0; h < 2; h++) half[h] = from + nt_gemm_wgrad_column(a, (int32_t)panel * NT_PANEL + h * NT_PANEL / 2);
}

static void write_panel(struct worker *w, const struct block *b, int64_t panel) {
    const struct job *j = w->j;
    const int32_t c0 = (int32_t)panel * NT_PANEL;
    if (j->wgrad) {
        const struct nt_gemm_wgrad_args *a = j->wgrad;
        const nt_bf16 *half[2];
        find_halves(a, b, panel, half);
        j->traits->pair(half, a->ldb, b->n, a->n - c0 < NT_PANEL ? a->n - c0 : NT_PANEL, w->panel);
        return;
    }
    nt_bf16 *second = w->panel + even(b->n) / 2 * (int64_t)PAIR;
    if (j->gemm) {
        unpack_panel(j, b, (int32_t)panel, w->panel);
        if (b->n2 > 0) w->p.w2 = (const char *)(w2_panel(j->gemm, panel) + b->u0 * NT_PANEL);
        return;
    }
    for (int32_t n = 0; n < j->row0 % NT_PANEL + b->n; n += NT_PANEL)
        j->traits->turn(j->dgrad->w, (j->row0 + b->j0 + n) / NT_PANEL, j->col0 + c0, w->panel + n / 2 * (int64_t)PAIR);
    for (int32_t n = 0; n < b->n2; n += NT_PANEL)
        j->traits->turn(j->dgrad->w2, (b->u0 + n) / NT_PANEL, c0, second + n / 2 * (int64_t)PAIR);
}

static void set_gemm_output(struct nt_gemm_panel *p, const struct nt_gemm_args *a, int64_t row, int64_t n0) {
    const bool gated = a->out == NT_GEMM_SWIGLU_BF16 || a->out == NT_GEMM_GEGLU_BF16;
    const bool f32 = a->out == NT_GEMM_STORE_F32 || a->out == NT_GEMM_ADD_F32;
    const int64_t bytes = f32 ? sizeof(float) : sizeof(nt_bf16);
    p->out = a->out;
    p->bias = a->bias ? a->bias + n0 : NULL;
    p->ldy = a->ldy * bytes;
    p->y = (char *)a->y + row * p->ldy + (gated ? n0 / 2 : n0) * bytes;
    p->ldpre = a->ldpre * (int64_t)sizeof(nt_bf16);
    p->pre = a->pre ? (char *)(a->pre + row * a->ldpre + n0) : NULL;
}

/* Where the sums of a panel go: blocks after the first are added. */
static void set_output(struct worker *w, int32_t index, int64_t panel) {
    const struct job *j = w->j;
    struct nt_gemm_panel *p = &w->p;
    const int64_t c0 = panel * NT_PANEL;
    p->n_valid = (int32_t)(j->n_col - c0 < NT_PANEL ? j->n_col - c0 : NT_PANEL);
    if (j->gemm) {
        set_gemm_output(p, j->gemm, w->piece.row, c0);
    } else if (j->wgrad) {
        p->out = NT_GEMM_ADD_F32;
        p->ldy = j->wgrad->lddw * (int64_t)sizeof(float);
        p->y = (char *)(j->wgrad->dw + w->piece.row * j->wgrad->lddw + c0);
    } else {
        const int64_t bytes = j->dgrad->out == NT_GEMM_STORE_BF16 ? sizeof(nt_bf16) : sizeof(float);
        p->out = j->dgrad->out == NT_GEMM_STORE_F32 && index > 0 ? NT_GEMM_ADD_F32 : j->dgrad->out;
        p->ldy = j->dgrad->lddx * bytes;
        p->y = (char *)j->dgrad->dx + w->piece.row * p->ldy + (j->col0 + c0) * bytes;
    }
}

/* NT_PANEL columns of the panels of a block. */
static struct nt_gemm_ahead turned_source(const struct job *j, const struct block *b, int32_t c0) {
    const struct nt_packed *w = j->dgrad->w;
    const int32_t first = (j->row0 + b->j0) / NT_PANEL, n_group = (w->k + NT_INT4_GROUP - 1) / NT_INT4_GROUP;
    struct nt_gemm_ahead a = {.n = (b->n + NT_PANEL - 1) / NT_PANEL};
    if (nt_weight_is_quantized(w->format)) { /* INT4: one half of a block of 2 x 64 k; INT8: a quarter, 32 k */
        const int32_t columns = w->format == NT_WEIGHT_INT4 ? 64 : NT_PANEL;
        const int32_t block = nt_packed_block_bytes(w->format);
        a.stride = (int64_t)n_group * block;
        a.bytes = (block - 2 * NT_PANEL) / NT_INT4_GROUP * columns;
        a.at = (const char *)nt_packed_block(w, first, c0 / NT_INT4_GROUP) + c0 % NT_INT4_GROUP / columns * a.bytes;
    } else {
        a.stride = (int64_t)w->k * NT_PANEL * (int64_t)sizeof(nt_bf16);
        a.bytes = NT_PANEL * NT_PANEL * (int32_t)sizeof(nt_bf16);
        a.at = (const char *)w->data + first * a.stride + c0 * NT_PANEL * (int64_t)sizeof(nt_bf16);
    }
    return a;
}

/* What write_panel reads, but for a second product's weights, which are few. */
static struct nt_gemm_ahead source_of(const struct job *j, const struct block *b, int64_t panel) {
    const int32_t c0 = (int32_t)panel * NT_PANEL;
    if (j->wgrad) {
        const int64_t ld = j->wgrad->ldb;
        return (struct nt_gemm_ahead){.at =
                                          (const char *)(j->wgrad->b + b->j0 * ld + nt_gemm_wgrad_column(j->wgrad, c0)),
                                      .stride = ld * (int64_t)sizeof(nt_bf16),
                                      .bytes = j->wgrad->b_run == 0 ? PAIR : 2 * PAIR,
                                      .n = b->n};
    }
    if (j->gemm) return (struct nt_gemm_ahead){0}; /* unpack_panel fetches */
    return turned_source(j, b, j->col0 + c0);
}

/* The source of the panel that a thread writes next: in this block of the sum, the one after, or the next of its own
 * pieces, which is taken when the last panel of this one begins. */
static struct nt_gemm_ahead source_after(struct worker *w, int32_t index, int64_t panel) {
    const struct job *j = w->j;
    struct block b = block_at(j, index);
    if (panel + 1 < w->piece.panel_end) return source_of(j, &b, panel + 1);
    b = block_at(j, (index + 1) % j->n_block);
    if (index + 1 < j->n_block) return source_of(j, &b, w->piece.panel);
    w->next = nt_gemm_plan_own(&j->plan, w->thread);
    return nt_gemm_piece_empty(&w->next) ? (struct nt_gemm_ahead){0} : source_of(j, &b, w->next.panel);
}

/* A gradient with few rows, unless b's share too few cache sets to be read again for every tile. */
static bool is_narrow(const struct nt_gemm_wgrad_args *a, const struct nt_gemm_block_traits *traits) {
    return traits->narrow && a->m <= NARROW_ROWS && a->n_tok % 2 == 0 &&
           nt_gemm_in_place(traits->product, a->ldb, a->n_tok);
}

static void run_panel(struct worker *w, const struct block *b, int64_t panel) {
    const struct job *j = w->j;
    if (j->narrow) {
        const nt_bf16 *half[2];
        find_halves(j->wgrad, b, panel, half);
        j->traits->narrow(&w->p, half, j->wgrad->ldb);
        return;
    }
    write_panel(w, b, panel);
    j->traits->product->panel(&w->p);
}

static void run_block(struct worker *w, int32_t index) {
    const struct job *j = w->j;
    const struct block b = block_at(j, index);
    struct nt_gemm_panel *p = &w->p;
    find_rows(w, &b);
    for (int64_t panel = w->piece.panel; panel < w->piece.panel_end; panel++) {
        float *sums = w->sums + (panel - w->piece.panel) * p->rows * NT_PANEL;
        p->begin = j->keep_sums && index > 0 ? sums : NULL;
        if (b.n2 > 0 && j->gemm)
            nt_gemm_second(j->gemm->w2, panel, b.u0 / 2, (b.u0 + b.n2) / 2, j->traits->product->parts, p->second);
        if (!j->keep_sums || index == j->n_block - 1) {
            set_output(w, index, panel);
        } else {
            p->out = NT_GEMM_STORE_F32;
            p->bias = NULL;
            p->pre = NULL;
            p->n_valid = j->n_col - panel * NT_PANEL <= NT_PANEL / 2 ? NT_PANEL / 2 : NT_PANEL; /* of a half or all */
            p->y = (char *)sums;
            p->ldy = NT_PANEL * sizeof(float);
        }
        p->ahead = source_after(w, index, panel);
        run_panel(w, &b, panel);
    }
}

/* Of a pair of tokens, with few rows. */
static int32_t pad_rows(int32_t rows) {
    return (rows + 15) / 16 * 16;
}

static int64_t room_per_row(const struct job *j) {
    return j->sum_row_bytes + (j->in_place ? 0 : j->row_bytes);
}

static void run_thread(void *arg, int thread, int n_threads) {
    const struct job *j = arg;
    (void)n_threads;
    struct worker w = {.j = j, .thread = thread, .row = -1, .panel = nt_cpu_scratch(j->plan.be, thread)};
    w.sums = (float *)(void *)((char *)w.panel + j->panel_bytes);
    w.p = (struct nt_gemm_panel){.ldx = j->row_bytes, .runs = j->runs, .scale = 1};
    if (j->wgrad) w.p.scale = j->wgrad->alpha;
    while (nt_gemm_plan_next(&j->plan, thread, &w.next, &w.piece)) {
        w.p.rows = (int32_t)(w.piece.row_end - w.piece.row);
        w.rows = (char *)w.sums + w.p.rows * j->sum_row_bytes;
        w.p.x = w.rows;
        const int32_t rows = j->narrow ? pad_rows(w.p.rows) : w.p.rows;
        if (j->narrow) w.p.ldx = rows * 2 * (int64_t)sizeof(nt_bf16);
        NT_CHECK(j->panel_bytes + rows * room_per_row(j) <= nt_gemm_plan_room(j->plan.be));
        NT_CHECK(!j->keep_sums || w.piece.panel_end - w.piece.panel <= MAX_PANELS);
        for (int32_t i = 0; i < j->n_block; i++) run_block(&w, i);
    }
}

static bool fit_in_place(const struct job *j) {
    const bool whole_pairs = j->depth % 2 == 0 && j->depth2 % 2 == 0;
    return j->x && whole_pairs && nt_gemm_in_place(j->traits->product, j->ldx, j->n_row);
}

static void run(struct job *j, struct nt_backend *be) {
    int32_t longest = 0;
    j->n_block = n_blocks(j->depth) + (j->depth2 > MERGE ? n_blocks(j->depth2) : 0);
    for (int32_t i = 0; i < j->n_block; i++) {
        const struct block b = block_at(j, i);
        if (even(b.n) + even(b.n2) > longest) longest = even(b.n) + even(b.n2);
    }
    const int64_t row_bytes = (int64_t)longest * j->traits->product->row_bytes;
    j->row_bytes = nt_gemm_row_stride(row_bytes);
    j->panel_bytes = (longest + 2 * NT_PANEL) / 2 * PAIR * (int64_t)sizeof(nt_bf16); /* whole panels are turned */
    j->in_place = fit_in_place(j);
    j->keep_sums = j->n_block > 1 && (j->gemm || (j->dgrad && j->dgrad->out == NT_GEMM_STORE_BF16));
    j->sum_row_bytes = j->keep_sums ? MAX_PANELS * NT_PANEL * (int64_t)sizeof(float) : 0;
    const struct nt_gemm_cut cut = {.n_row = j->n_row,
                                    .n_panel = (j->n_col + NT_PANEL - 1) / NT_PANEL,
                                    .half_last = !j->narrow && nt_gemm_half_last(j->traits->product, j->n_col),
                                    .depth = j->depth + j->depth2,
                                    .row_bytes = row_bytes,
                                    .in_place = j->in_place,
                                    .room = room_per_row(j) > 0 ? nt_gemm_plan_room(be) - j->panel_bytes : 0,
                                    .room_per_row = room_per_row(j),
                                    .tile_rows = j->traits->product->tile_rows,
                                    .min_panels = j->keep_sums     ? MAX_PANELS
                                                  : j->in_place    ? IN_PLACE_PANELS
                                                  : j->n_block > 1 ? MIN_PANELS
                                                                   : 0,
                                    .max_panels = j->keep_sums ? MAX_PANELS : 0};
    nt_gemm_plan_start(&j->plan, be, &cut);
    nt_pool_run(be->pool, run_thread, j);
}

nt_status nt_gemm_quantized_run(struct nt_backend *be, const struct nt_gemm_args *args,
                                const struct nt_gemm_traits *product) {
    NT_CHECK(nt_weight_is_quantized(args->w->format) && args->w->k % 2 == 0);
    nt_gemm_check_options(args);
    if (args->n_tok == 0) return NT_OK;
    const struct nt_gemm_block_traits traits = {.product = product};
    struct job j = {.traits = &traits, .gemm = args, .n_row = args->n_tok, .n_col = args->w->n, .depth = args->w->k};
    j.x = args->x;
    j.ldx = args->ldx;
    j.x2 = args->x2;
    j.ldx2 = args->ldx2;
    if (args->w2) j.depth2 = args->w2->k;
    run(&j, be);
    return NT_OK;
}

/* Whether each part's columns are computed from its rows alone. */
static bool by_parts(const struct nt_gemm_dgrad_args *a, const struct nt_gemm_traits *product) {
    if (!product->parts || a->w->n_part == 0 || a->w2 || a->w->format != NT_WEIGHT_BF16) return false;
    for (int i = 0; i < a->w->n_part; i++) {
        const struct nt_packed_part *p = &a->w->part[i];
        if (p->n == 0 || p->row0 % 2 != 0 || p->n % (p->run > 0 ? p->run : 2) != 0) return false;
    }
    return true;
}

static void run_parts(struct nt_backend *be, const struct nt_gemm_dgrad_args *args,
                      const struct nt_gemm_block_traits *traits) {
    int32_t col0 = 0;
    for (int i = 0; i < args->w->n_part; i++) {
        const struct nt_packed_part *p = &args->w->part[i];
        struct job j = {.traits = traits, .dgrad = args, .n_row = args->n_tok, .n_col = p->k};
        j.row0 = p->row0;
        j.col0 = col0;
        j.runs = p->run > 0;
        j.depth = j.runs ? 2 * p->n - p->run : p->n;
        j.x = args->dy + p->row0;
        j.ldx = args->lddy;
        run(&j, be);
        col0 += p->k;
    }
}

nt_status nt_gemm_dgrad_run(struct nt_backend *be, const struct nt_gemm_dgrad_args *args,
                            const struct nt_gemm_block_traits *traits) {
    nt_gemm_dgrad_check(args);
    if (args->n_tok == 0) return NT_OK;
    if (by_parts(args, traits->product)) {
        run_parts(be, args, traits);
        return NT_OK;
    }
    struct job j = {.traits = traits, .dgrad = args, .n_row = args->n_tok, .n_col = args->w->k, .depth = args->w->n};
    j.x = args->dy;
    j.ldx = args->lddy;
    j.x2 = args->dy2;
    j.ldx2 = args->lddy2;
    if (args->w2) j.depth2 = args->w2->n;
    run(&j, be);
    return NT_OK;
}

nt_status nt_gemm_wgrad_run(struct nt_backend *be, const struct nt_gemm_wgrad_args *args,
                            const struct nt_gemm_block_traits *traits) {
    nt_gemm_wgrad_check(args);
    if (args->n_tok == 0) return NT_OK;
    struct job j = {.traits = traits, .wgrad = args, .n_row = args->m, .n_col = args->n, .depth = args->n_tok};
    j.narrow = is_narrow(args, traits);
    run(&j, be);
    return NT_OK;
}
