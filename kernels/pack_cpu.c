/* Rounding and packing of trained numbers, in portable C. */
#include "cpu_rows.h"
#include "ops_bwd.h"

/* A tile: words of two columns, as a panel has them. Tiles begin at even columns of x, so that threads share no word
 * but where col0 is odd, of which each writes its half. */
enum { ROWS = NT_PANEL, COLUMNS = 128, PAIRS = COLUMNS / 2 + 1 };

struct tile {
    const struct nt_pack_args *a;
    int32_t j0, n, i0, k; /* the outputs and inputs of it */
    int32_t odd;          /* of col0: the first word lacks its lower half */
    uint32_t words[PAIRS][ROWS];
};

void nt_pack_check(const struct nt_pack_args *args) {
    const int64_t rows = args->n > 0 ? nt_pack_place(args, args->n - 1) + 1 : 0;
    NT_CHECK(args->n >= 0 && args->k >= 0 && args->row0 >= 0 && args->run >= 0 && args->col0 >= 0);
    NT_CHECK(!args->w ||
             (!nt_weight_is_quantized(args->w->format) && rows <= args->w->n && args->col0 <= args->w->k - args->k));
    NT_CHECK(!args->table || !args->turned);
    NT_CHECK(!args->vector || (!args->w && !args->table && args->k == 1));
}

static int32_t pairs_of(const struct tile *t) {
    return (t->odd + t->k + 1) / 2;
}

static uint32_t word_of(float low, float high) {
    return nt_f32_to_bf16(low) | (uint32_t)nt_f32_to_bf16(high) << 16;
}

static void fill_rows(struct tile *t) {
    const struct nt_pack_args *a = t->a;
    for (int32_t j = 0; j < t->n; j++) {
        const float *x = a->x + (int64_t)(t->j0 + j) * a->k + t->i0;
        nt_bf16 line[2 * PAIRS] = {0};
        for (int32_t i = 0; i < t->k; i++) line[t->odd + i] = nt_f32_to_bf16(x[i] * a->scale);
        if (a->table)
            memcpy(a->table + (int64_t)(t->j0 + j) * a->k + t->i0, line + t->odd, (size_t)t->k * sizeof *line);
        for (int32_t p = 0; p < pairs_of(t) && a->w; p++) memcpy(&t->words[p][j], line + 2 * p, sizeof t->words[p][j]);
    }
}

static void fill_turned(struct tile *t) {
    static const float zeros[ROWS];
    const float *x = t->a->x + (int64_t)t->i0 * t->a->n + t->j0;
    for (int32_t p = 0; p < pairs_of(t); p++) {
        const int32_t i = 2 * p - t->odd;
        const float *low = i >= 0 ? x + (int64_t)i * t->a->n : zeros;
        const float *high = i + 1 < t->k ? x + (int64_t)(i + 1) * t->a->n : zeros;
        for (int32_t j = 0; j < t->n; j++) t->words[p][j] = word_of(low[j] * t->a->scale, high[j] * t->a->scale);
    }
}

/* n words from output j on, which lie side by side. */
static void store(const struct tile *t, int32_t j, int32_t n, nt_bf16 *to) {
    const int32_t last = pairs_of(t) - 1;
    for (int32_t p = 0; p <= last; p++, to += 2 * NT_PANEL) {
        const int32_t begin = p == 0 ? t->odd : 0, end = p == last ? t->odd + t->k - 2 * last : 2;
        if (begin == 0 && end == 2) {
            memcpy(to, &t->words[p][j], (size_t)n * sizeof t->words[p][j]);
            continue;
        }
        for (int32_t i = 0; i < n; i++)
            for (int32_t half = begin; half < end; half++)
                to[2 * i + half] = (nt_bf16)(t->words[p][j + i] >> 16 * half);
    }
}

/* Outputs that a panel and a run hold side by side. */
static void empty(const struct tile *t) {
    const struct nt_pack_args *a = t->a;
    const int64_t pairs = (a->w->k + 1) / 2, first = (a->col0 + t->i0) / 2;
    int32_t n;
    for (int32_t j = 0; j < t->n; j += n) {
        const int64_t row = nt_pack_place(a, t->j0 + j), lane = row % NT_PANEL;
        const int64_t panel = NT_PANEL - lane, run = a->run ? a->run - (t->j0 + j) % a->run : panel;
        n = t->n - j;
        if (n > panel) n = (int32_t)panel;
        if (n > run) n = (int32_t)run;
        store(t, j, n, (nt_bf16 *)(uintptr_t)a->w->data + ((row / NT_PANEL * pairs + first) * NT_PANEL + lane) * 2);
    }
}

/* Neighbours of x one after the other. */
static void pack_thread(void *arg, int thread, int n_threads) {
    const struct nt_pack_args *a = arg;
    const int64_t across = (a->k + COLUMNS - 1) / COLUMNS, down = ((int64_t)a->n + ROWS - 1) / ROWS;
    struct tile t = {.a = a, .odd = a->col0 % 2};
    int64_t begin, end;
    nt_split(across * down, 1, thread, n_threads, &begin, &end);
    for (int64_t p = begin; p < end; p++) {
        t.j0 = (int32_t)(a->turned ? p % down : p / across) * ROWS;
        t.i0 = (int32_t)(a->turned ? p / down : p % across) * COLUMNS;
        t.n = a->n - t.j0 < ROWS ? a->n - t.j0 : ROWS;
        t.k = a->k - t.i0 < COLUMNS ? a->k - t.i0 : COLUMNS;
        if (a->turned)
            fill_turned(&t);
        else
            fill_rows(&t);
        if (a->w) empty(&t);
    }
}

nt_status nt_pack_portable(struct nt_backend *be, const struct nt_pack_args *args) {
    struct nt_pack_args a = *args;
    nt_pack_check(args);
    NT_CHECK(!a.w || a.w->format == NT_WEIGHT_BF16);
    for (int32_t j = 0; j < a.n && a.vector; j++) a.vector[nt_pack_place(&a, j)] = a.x[j];
    if (a.w || a.table) nt_rows_run(be, pack_thread, &a, a.n, a.k);
    return NT_OK;
}
