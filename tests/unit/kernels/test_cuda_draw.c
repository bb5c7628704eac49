/* The draw from the best pairs of all ranks, on one emulated device, against logit_sample's specification over the
 * whole rows: the same tokens for any number of shards, or undecided where what is kept is longer than the lists. */
#include "cuda_bodies.h"
#include "draw_pairs_cuda.h"
#include "pool.h"
#include "rng.h"
#include <math.h>
#include "cuda_fixture.h"
#include <string.h>

#if !defined NT_HAVE_CUDA || !defined NT_CUDA_EMU

int main(void) {
    return 0; /* nothing to run on */
}

#else

enum { ROWS = 48, VOCAB = 700, MAX_LIST = NT_DRAW_K };

struct rows {
    float logit[ROWS][VOCAB], inv_temp[ROWS], top_p[ROWS], min_p[ROWS];
    uint64_t seed[ROWS], stream[ROWS];
    int32_t top_k[ROWS], kind[ROWS], want[ROWS];
};

static float normal(uint32_t a, uint32_t b) {
    return sqrtf(-2 * logf(nt_unit_float(a))) * cosf(6.2831853f * nt_unit_float(b));
}

/* Flat and peaked rows, equal logits, masked ones; every kind of rule. */
static void make_rows(struct rows *t) {
    for (int32_t r = 0; r < ROWS; r++) {
        for (int32_t v = 0; v < VOCAB; v++) {
            uint32_t w[4];
            nt_philox(5, (uint64_t)r, (uint64_t)v, w);
            t->logit[r][v] = normal(w[0], w[1]) * (r % 4 == 0 ? 0.3f : 3.0f);
            if (r % 6 == 5) t->logit[r][v] = floorf(t->logit[r][v]);
            if (r % 9 == 7 && v % 3) t->logit[r][v] = -INFINITY;
        }
        t->seed[r] = (uint64_t)r * 77;
        t->stream[r] = 1;
        t->inv_temp[r] = r % 8 == 6 ? 0 : 1;
        t->top_p[r] = r % 8 == 1 || r % 8 == 0 || r % 8 == 4 ? 0.8f : 1;
        t->min_p[r] = r % 8 == 2 || r % 8 == 4 ? 0.05f : 0;
        t->top_k[r] = r % 8 == 3 || r % 8 == 4 ? 1 + 11 * (r / 8) : 0;
        t->kind[r] = r % 8 == 6 ? NT_DRAW_GREEDY : r % 8 == 5 || r % 8 == 7 ? NT_DRAW_PLAIN : NT_DRAW_TRUNCATED;
    }
    t->logit[10][3] = NAN;
    t->logit[13][650] = INFINITY;
    for (int32_t v = 0; v < VOCAB; v++) t->logit[17][v] = -INFINITY;
}

static void sample_whole(struct rows *t) {
    struct nt_pool *pool;
    struct nt_backend cpu;
    assert_int_equal(nt_pool_new(&pool, 1, false, 0, 1), NT_OK);
    assert_int_equal(nt_backend_open_cpu(&cpu, NT_ISA_PORTABLE, pool), NT_OK);
    const struct nt_logit_sample_args a = {t->logit[0], VOCAB,     t->inv_temp, t->top_p, t->min_p, t->top_k,
                                           t->seed,     t->stream, t->want,     ROWS,     VOCAB};
    assert_int_equal(cpu.ops.logit_sample(&cpu, &a), NT_OK);
    nt_backend_close(&cpu);
    nt_pool_free(pool);
}

static const float *sorted_row;
static int better(const void *a, const void *b) {
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    const float x = sorted_row[i], y = sorted_row[j];
    if (isnan(x) || isnan(y)) return isnan(y) - isnan(x) ? isnan(y) - isnan(x) : i - j;
    return x != y ? (x < y) - (x > y) : i - j;
}

static void order_of(const float *row, int32_t n, int32_t *order) {
    sorted_row = row;
    for (int32_t i = 0; i < n; i++) order[i] = i;
    qsort(order, (size_t)n, sizeof *order, better);
}

/* What a rank hands in: its lists, its draws, maxima and sums. */
static void fill_part(const struct rows *t, int32_t first, int32_t n, int32_t have, float *part) {
    int32_t *index = (int32_t *)(void *)(part + ROWS * have), order[VOCAB];
    float *tail = part + 2 * ROWS * have;
    for (int32_t r = 0; r < ROWS && have > 0; r++) {
        const float *row = t->logit[r] + first;
        float drawn = -INFINITY, sum = 0;
        int32_t at = 0;
        order_of(row, n, order);
        for (int32_t i = 0; i < have; i++) {
            part[r * have + i] = row[order[i]];
            index[r * have + i] = order[i];
        }
        for (int32_t v = 0; v < n; v++) {
            uint32_t w[4];
            nt_philox(t->seed[r], t->stream[r], (uint64_t)(first + v) >> 2, w);
            const float y = row[v] - logf(-logf(nt_unit_float(w[(first + v) & 3])));
            if (!(y > drawn)) continue;
            drawn = y;
            at = v;
        }
        for (int32_t v = 0; v < n; v++) sum += expf(row[v] - row[order[0]]);
        tail[r] = drawn;
        ((int32_t *)(void *)tail)[ROWS + r] = at;
        tail[2 * ROWS + r] = row[order[0]];
        tail[3 * ROWS + r] = sum;
    }
}

/* How many top-p, then min-p would keep of all; those of a mass that is about the limit are none of this test's. */
static int32_t kept_of(const struct rows *t, int32_t r) {
    int32_t order[VOCAB], keep = VOCAB;
    const float *row = t->logit[r];
    double total = 0, sum = 0;
    order_of(row, VOCAB, order);
    for (int32_t v = 0; v < VOCAB; v++) total += exp((double)row[v] - (double)row[order[0]]);
    for (int32_t i = 0; i < keep && t->top_p[r] < 1; i++) {
        sum += exp((double)row[order[i]] - (double)row[order[0]]);
        if (sum >= (double)t->top_p[r] * total) keep = i + 1;
    }
    for (int32_t i = 1; i < keep && t->min_p[r] > 0; i++)
        if ((double)row[order[i]] < (double)row[order[0]] + log((double)t->min_p[r])) keep = i;
    return keep;
}

static bool is_undecided(const struct rows *t, int32_t r, int32_t k) {
    if (t->kind[r] != NT_DRAW_TRUNCATED || t->want[r] < 0 || k >= VOCAB) return false;
    return t->top_k[r] > 0 ? t->top_k[r] > k : kept_of(t, r) > k;
}

static void *upload(const void *from, size_t bytes) {
    void *p = NULL;
    OK(be.memory->take(&be, bytes, "a test", &p));
    OK(be.memory->upload(&be, p, from, bytes));
    return p;
}

/* Shards of unequal size; where there are more than two the last but one is empty. */
static int32_t check_shards(const struct rows *t, int32_t size, int32_t k) {
    const int64_t stride = nt_draw_floats(ROWS, k);
    float *parts = calloc((size_t)(stride * size), sizeof *parts);
    struct nt_draw_pairs_args a = {.stride = stride, .size = size, .n_row = ROWS, .k = k, .all = k >= VOCAB};
    int32_t first = 0, token[ROWS], undecided = 0;
    for (int32_t p = 0; p < size; p++) {
        const int32_t left = VOCAB - first, part = left / (size - p) / 4 * 4 + (p % 2 ? 4 : 0);
        const int32_t n = p == size - 1 ? left : size > 2 && p == size - 2 ? 0 : part;
        a.first[p] = first;
        a.have[p] = k < n ? k : n;
        fill_part(t, first, n, a.have[p], parts + p * stride);
        first += n;
    }
    struct rows *at = upload(t, sizeof *t);
    a.gathered = upload(parts, (size_t)(stride * size) * sizeof *parts);
    a.kind = at->kind;
    a.top_p = at->top_p;
    a.min_p = at->min_p;
    a.top_k = at->top_k;
    a.seed = at->seed;
    a.stream = at->stream;
    a.token = at->want;
    OK(nt_draw_pairs_cuda(&be, &a));
    OK(be.memory->download(&be, token, at->want, sizeof token));
    for (int32_t r = 0; r < ROWS; r++) {
        const bool open = is_undecided(t, r, k);
        if (token[r] != (open ? NT_DRAW_UNDECIDED : t->want[r]))
            fail_msg("row %d of %d shards, lists of %d: token %d, expected %d%s", r, size, k, token[r], t->want[r],
                     open ? " to be undecided" : "");
        undecided += open;
    }
    be.memory->give(&be, (void *)(uintptr_t)a.gathered, (size_t)(stride * size) * sizeof *parts);
    be.memory->give(&be, at, sizeof *t);
    free(parts);
    return undecided;
}

static void test_shards(void **state) {
    (void)state;
    static const int32_t sizes[] = {1, 2, 3, 8};
    struct rows *t = calloc(1, sizeof *t);
    make_rows(t);
    sample_whole(t);
    assert_int_equal(t->want[10], -1);
    assert_int_equal(t->want[17], -1);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        assert_true(check_shards(t, sizes[s], MAX_LIST) > 0); /* flat rows */
        assert_true(check_shards(t, sizes[s], 20) > 5);
    }
    free(t);
}

static void test_limits(void **state) {
    (void)state;
    const struct nt_draw_pairs_args wide = {.size = NT_P2P_RANKS + 1, .k = 1}, longer = {.size = 1, .k = NT_DRAW_K + 1};
    assert_int_equal(nt_draw_pairs_cuda(&be, &wide), NT_E_UNSUPPORTED);
    assert_int_equal(nt_draw_pairs_cuda(&be, &longer), NT_E_UNSUPPORTED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, open_be, close_be);
}

#endif
