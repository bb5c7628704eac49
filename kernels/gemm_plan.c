#include "gemm_plan.h"
#include <stdatomic.h>

enum {
    COPIED_BYTES = 704 << 10, /* of rows in scratch: a core's L2 (1 MiB where it matters) holds them and two panels */
    IN_PLACE_BYTES = 2304 << 10, /* of rows that are shared: from L3 they come fast enough, and a panel is written less
                                    often (measured: dgrad 4 to 9 % of the peak) */
    MAX_UNITS = 16               /* pieces per thread and block of rows */
};
/* What a piece should last, and rough speeds of one core to estimate it with. */
static const double piece_s = 5e-6, core_flops = 2e11, core_bytes = 30e9;

/* The pieces of one thread, [first, end) packed in one word: the owner takes from the front, idle threads from the
 * back. It lies at the end of the owner's scratch. */
struct queue {
    _Alignas(64) atomic_uint_fast64_t range;
};

static int32_t ceil_div(int64_t a, int64_t b) {
    return (int32_t)((a + b - 1) / b);
}

/* Panels are divided among all threads; where they are few, rows as well, which costs another pass over the weights. */
static void choose_grid(struct nt_gemm_plan *p, int32_t tile_rows, bool half_last) {
    const double work = half_last ? p->n_panel - 0.5 : p->n_panel;
    double best = 0;
    for (int32_t rows = 1; rows <= p->n_thread; rows++) {
        if (p->n_thread % rows != 0 || (rows > 1 && p->n_row / rows < 2 * tile_rows)) continue;
        const int32_t cols = p->n_thread / rows;
        const double even = cols == 1 ? 1 : work / ((double)ceil_div(p->n_panel, cols) * cols);
        const double gain = even / (1 + 0.05 * (rows - 1) / rows);
        if (gain <= best) continue;
        best = gain;
        p->grid_rows = rows;
        p->grid_cols = cols;
    }
}

bool nt_gemm_in_place(const struct nt_gemm_traits *traits, int64_t ldx, int32_t n_row) {
    const bool conflict = ldx * (int64_t)sizeof(nt_bf16) % 2048 == 0;
    return traits->in_place && !(conflict && n_row >= traits->lookahead_rows);
}

/* Whether some of the 16 rows from `row` on are the part's. */
static bool part_has(const struct nt_packed_part *p, int64_t row) {
    const int64_t at = row - p->row0;
    if (p->run == 0) return at > -NT_PANEL / 2 && at < p->n;
    return at >= 0 && at % (2 * p->run) == 0 && at / 2 < p->n;
}

void nt_gemm_second(const struct nt_packed *w, int64_t panel, int32_t begin, int32_t end, bool parts,
                    struct nt_gemm_span second[2]) {
    for (int h = 0; h < 2; h++) {
        int32_t first = end, last = begin, k = 0;
        for (int i = 0; parts && i < w->n_part; k += w->part[i++].k) {
            if (!part_has(&w->part[i], panel * NT_PANEL + h * NT_PANEL / 2)) continue;
            if (k / 2 < first) first = k / 2;
            last = (k + w->part[i].k) / 2;
        }
        if (!parts || w->n_part == 0) {
            first = begin;
            last = end;
        }
        if (first < begin) first = begin;
        if (last > end) last = end;
        second[h] = (struct nt_gemm_span){first - begin, last > first ? last - first : 0};
    }
}

int64_t nt_gemm_plan_room(const struct nt_backend *be) {
    return (int64_t)(be->scratch_per_thread - sizeof(struct queue));
}

static struct queue *queue_of(const struct nt_gemm_plan *p, int thread) {
    char *end = (char *)nt_cpu_scratch(p->be, thread) + p->be->scratch_per_thread;
    return (struct queue *)(void *)(end - sizeof(struct queue));
}

void nt_gemm_plan_start(struct nt_gemm_plan *p, struct nt_backend *be, const struct nt_gemm_cut *cut) {
    *p = (struct nt_gemm_plan){
        .be = be, .n_row = cut->n_row, .n_panel = cut->n_panel, .n_thread = nt_pool_size(be->pool)};
    choose_grid(p, cut->tile_rows, cut->half_last);
    const int64_t bytes = cut->in_place ? IN_PLACE_BYTES : COPIED_BYTES;
    int64_t fit = bytes / cut->row_bytes / cut->tile_rows * cut->tile_rows;
    if (fit < cut->tile_rows) fit = cut->tile_rows;
    if (cut->room > 0 && fit > cut->room / cut->room_per_row) fit = cut->room / cut->room_per_row;
    const int32_t n_row = ceil_div(cut->n_row, p->grid_rows), n_panel = ceil_div(cut->n_panel, p->grid_cols);
    p->n_block = ceil_div(n_row, fit);
    const double pairs = (double)cut->depth * NT_PANEL;
    const double compute = 2 * pairs * n_row / p->n_block / core_flops, stream = 2 * pairs / core_bytes;
    const double units = (compute > stream ? compute : stream) * n_panel / piece_s;
    p->n_unit = units < 1 ? 1 : units > MAX_UNITS ? MAX_UNITS : (int32_t)units;
    const int32_t most = n_panel / (cut->min_panels > 1 ? cut->min_panels : 1);
    if (p->n_unit > most) p->n_unit = most > 1 ? most : 1;
    if (cut->max_panels > 0 && p->n_unit < ceil_div(n_panel, cut->max_panels))
        p->n_unit = ceil_div(n_panel, cut->max_panels);
    for (int i = 0; i < p->n_thread; i++)
        atomic_store_explicit(&queue_of(p, i)->range, (uint_fast64_t)(p->n_block * p->n_unit), memory_order_relaxed);
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

static struct nt_gemm_piece piece_at(const struct nt_gemm_plan *p, int owner, int64_t index) {
    struct nt_gemm_piece piece = {0};
    int64_t row, row_end, panel, panel_end, begin, end;
    nt_split(p->n_row, 1, owner / p->grid_cols, p->grid_rows, &row, &row_end);
    nt_split(p->n_panel, 1, owner % p->grid_cols, p->grid_cols, &panel, &panel_end);
    nt_split(row_end - row, 1, (int)(index / p->n_unit), p->n_block, &begin, &end);
    piece.row = row + begin;
    piece.row_end = row + end;
    nt_split(panel_end - panel, 1, (int)(index % p->n_unit), p->n_unit, &begin, &end);
    piece.panel = panel + begin;
    piece.panel_end = panel + end;
    return piece;
}

static struct nt_gemm_piece take_piece(const struct nt_gemm_plan *p, int owner, bool front) {
    for (int64_t index; (index = take(queue_of(p, owner), front)) >= 0;) {
        const struct nt_gemm_piece piece = piece_at(p, owner, index);
        if (!nt_gemm_piece_empty(&piece)) return piece;
    }
    return (struct nt_gemm_piece){0};
}

struct nt_gemm_piece nt_gemm_plan_own(const struct nt_gemm_plan *p, int thread) {
    return take_piece(p, thread, true);
}

bool nt_gemm_plan_next(const struct nt_gemm_plan *p, int thread, struct nt_gemm_piece *ahead,
                       struct nt_gemm_piece *piece) {
    *piece = *ahead;
    *ahead = (struct nt_gemm_piece){0};
    for (int i = 0; i < p->n_thread && nt_gemm_piece_empty(piece); i++)
        *piece = take_piece(p, (thread + i) % p->n_thread, i == 0);
    return !nt_gemm_piece_empty(piece);
}
