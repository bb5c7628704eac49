/* The all-reduce and the best of pairs over peer memory, its ranks one after the other on one emulated device: flags
 * say that the peers have arrived, or are a call ahead. All ranks must have the same bits, those of the sum in rank
 * order, and fused with the norm those of rmsnorm after it. That ranks wait for each other: test_cuda_ranks. */
#include "allreduce_p2p_cuda.h"
#include "cuda_bodies.h"
#include <math.h>
#include "cuda_fixture.h"
#include <string.h>

#if !defined NT_HAVE_CUDA || !defined NT_CUDA_EMU

int main(void) {
    return 0; /* nothing to run on */
}

#else

enum { MAX_COUNT = NT_P2P_MAX_BYTES / 4, FIRST_CALL = -1 }; /* the second call's number is 0: it wraps */

/* The shared state of all ranks, on one device. */
struct ranks {
    struct nt_p2p_group group[NT_P2P_RANKS];
    float *host[NT_P2P_RANKS], *sum; // [MAX_COUNT]
    int32_t size;
};

static void *take(size_t bytes) {
    void *p = NULL;
    OK(be.memory->take(&be, bytes, "a test", &p));
    return p;
}

static void make(struct ranks *g, int32_t size) {
    uint32_t epoch[NT_P2P_BLOCKS];
    for (int b = 0; b < NT_P2P_BLOCKS; b++) epoch[b] = (uint32_t)FIRST_CALL - 1;
    *g = (struct ranks){.size = size, .sum = malloc(MAX_COUNT * sizeof(float))};
    for (int32_t r = 0; r < size; r++) {
        g->host[r] = malloc(MAX_COUNT * sizeof(float));
        for (int32_t i = 0; i < MAX_COUNT; i++)
            g->host[r][i] = (float)((uint32_t)(i + 1) * 2654435761u * (uint32_t)(r + 3) >> 8) / 1e6f - 8;
        g->group[0].from[r] = take(MAX_COUNT * sizeof(float));
        g->group[0].flags[r] = take(NT_P2P_FLAGS * sizeof(uint32_t));
        OK(be.memory->upload(&be, (void *)(uintptr_t)g->group[0].from[r], g->host[r], MAX_COUNT * sizeof(float)));
    }
    for (int32_t i = 0; i < MAX_COUNT; i++) {
        g->sum[i] = g->host[0][i];
        for (int32_t r = 1; r < size; r++) g->sum[i] += g->host[r][i];
    }
    for (int32_t r = 0; r < size; r++) {
        g->group[r] = g->group[0];
        g->group[r].rank = r;
        g->group[r].size = size;
        g->group[r].epoch = take(sizeof epoch);
        OK(be.memory->upload(&be, g->group[r].epoch, epoch, sizeof epoch));
    }
}

static void drop(struct ranks *g) {
    for (int32_t r = 0; r < g->size; r++) {
        be.memory->give(&be, (void *)(uintptr_t)g->group[0].from[r], MAX_COUNT * sizeof(float));
        be.memory->give(&be, g->group[0].flags[r], NT_P2P_FLAGS * sizeof(uint32_t));
        be.memory->give(&be, g->group[r].epoch, NT_P2P_BLOCKS * sizeof(uint32_t));
        free(g->host[r]);
    }
    free(g->sum);
}

/* Every peer has arrived at the call; odd ones are a call ahead. */
static void arrive(const struct ranks *g, uint32_t call) {
    uint32_t flags[NT_P2P_FLAGS];
    for (uint32_t i = 0; i < NT_P2P_FLAGS; i++) flags[i] = call + i % NT_P2P_RANKS % 2;
    for (int32_t r = 0; r < g->size; r++) OK(be.memory->upload(&be, g->group[r].flags[r], flags, sizeof flags));
}

/* The first n blocks have announced the call to every rank and counted it. */
static void check_flags(const struct ranks *g, uint32_t call, int32_t n) {
    uint32_t flags[NT_P2P_FLAGS], epoch[NT_P2P_BLOCKS];
    for (int32_t p = 0; p < g->size; p++) {
        OK(be.memory->download(&be, flags, g->group[p].flags[p], sizeof flags));
        OK(be.memory->download(&be, epoch, g->group[p].epoch, sizeof epoch));
        for (int32_t b = 0; b < n; b++) {
            assert_int_equal(epoch[b], call);
            for (int32_t r = 0; r < g->size; r++) assert_int_equal(flags[b * NT_P2P_RANKS + r], call);
        }
    }
}

static void test_sum(void **state) {
    (void)state;
    static const int32_t sizes[] = {1, 2, 3, 8}, counts[] = {4, 132, 2048, 2052, MAX_COUNT};
    float *got = malloc(MAX_COUNT * sizeof *got), *out = take(MAX_COUNT * sizeof *out);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        struct ranks g;
        make(&g, sizes[s]);
        uint32_t call = (uint32_t)FIRST_CALL;
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++, call++) {
            arrive(&g, call);
            for (int32_t r = 0; r < g.size; r++) {
                const struct nt_allreduce_p2p_args a = {.group = g.group[r], .out = out, .count = counts[c]};
                OK(be.memory->zero(&be, out, MAX_COUNT * sizeof *out));
                OK(nt_allreduce_p2p_cuda(&be, &a));
                OK(be.memory->download(&be, got, out, MAX_COUNT * sizeof *out));
                assert_memory_equal(got, g.sum, (size_t)counts[c] * sizeof *got);
                for (int32_t i = counts[c]; i < MAX_COUNT; i++) assert_true(got[i] == 0);
            }
            check_flags(&g, call, 1);
        }
        drop(&g);
    }
    be.memory->give(&be, out, MAX_COUNT * sizeof *out);
    free(got);
}

/* One shape on all ranks; rmsnorm of the sum gives the bits to expect. */
static void check_norm(const struct ranks *g, uint32_t call, int32_t n_rows, int32_t d) {
    const size_t count = (size_t)n_rows * (size_t)d, x_bytes = count * sizeof(float), y_bytes = count * sizeof(nt_bf16);
    float *x = take(x_bytes), *sum = take(x_bytes), *w = take((size_t)d * sizeof(float));
    nt_bf16 *y = take(y_bytes);
    char *want = malloc(x_bytes + y_bytes), *got = malloc(x_bytes + y_bytes);
    OK(be.memory->upload(&be, sum, g->sum, x_bytes));
    OK(be.memory->upload(&be, w, g->host[0], (size_t)d * sizeof(float)));
    struct nt_rmsnorm_args norm = {.x = x, .delta = sum, .w = w, .y = y, .eps = 1e-5f, .n_rows = n_rows, .d_model = d};
    norm.ldy = d;
    arrive(g, call);
    for (int32_t r = -1; r < g->size; r++) {
        OK(be.memory->upload(&be, x, g->host[0] + 1000, x_bytes));
        if (r < 0) {
            OK(nt_rmsnorm_cuda(&be, &norm));
        } else {
            const struct nt_allreduce_norm_p2p_args a = {.group = g->group[r], .norm = norm};
            OK(nt_allreduce_norm_p2p_cuda(&be, &a));
        }
        OK(be.memory->download(&be, got, x, x_bytes));
        OK(be.memory->download(&be, got + x_bytes, y, y_bytes));
        if (r < 0) memcpy(want, got, x_bytes + y_bytes);
        assert_memory_equal(got, want, x_bytes + y_bytes);
        norm.delta = NULL;
    }
    check_flags(g, call, n_rows < NT_P2P_BLOCKS ? n_rows : NT_P2P_BLOCKS);
    be.memory->give(&be, x, x_bytes);
    be.memory->give(&be, sum, x_bytes);
    be.memory->give(&be, w, (size_t)d * sizeof(float));
    be.memory->give(&be, y, y_bytes);
    free(want);
    free(got);
}

static void test_norm(void **state) {
    (void)state;
    struct ranks g;
    make(&g, 3);
    check_norm(&g, (uint32_t)FIRST_CALL, 1, 576);
    drop(&g);
    make(&g, 2);
    check_norm(&g, (uint32_t)FIRST_CALL, 5, 1028);
    drop(&g);
    make(&g, 8);
    check_norm(&g, (uint32_t)FIRST_CALL, 67, 64); /* a block takes two rows */
    drop(&g);
    make(&g, 2);
    check_norm(&g, (uint32_t)FIRST_CALL, 2, 16384);
    drop(&g);
}

enum { BEST_ROWS = 300 }; /* more than threads */

/* Pairs of rank r: ties between ranks, NaN, infinities, shards without vocabulary. */
static void make_pairs(int32_t r, int32_t n_row, float *pairs) {
    int32_t *index = (int32_t *)(void *)(pairs + n_row);
    for (int32_t i = 0; i < n_row; i++) {
        pairs[i] = (float)((i * 7 + r * 13) % 11);
        if (i % 17 == 3) pairs[i] = r == i % 3 ? NAN : -INFINITY;
        if (i % 17 == 5) pairs[i] = r == 1 ? INFINITY : 1;
        if (i % 17 == 7) pairs[i] = r == 0 ? -3 : -INFINITY;
        if (i % 17 >= 11) pairs[i] = (float)((i + r / 2) % 3); /* of each two ranks the first one's */
        index[i] = isfinite(pairs[i]) ? 1000 * r + i : -1;
    }
}

static int32_t best_of(const float *const pairs[], int32_t size, int32_t n_row, int32_t row) {
    float best = -INFINITY;
    int32_t token = -1;
    for (int32_t r = 0; r < size; r++) {
        const float value = pairs[r][row];
        if (isnan(value) || value == INFINITY) return -1;
        if (value <= best) continue; /* shards ascend, so the first of equals has the lowest index */
        best = value;
        token = ((const int32_t *)(const void *)(pairs[r] + n_row))[row];
    }
    return token;
}

/* The same pairs where peers have them, and gathered with a stride. */
static void check_best(struct ranks *g, uint32_t call, int32_t n_row) {
    const size_t bytes = 2 * (size_t)n_row * sizeof(float), stride = 2 * (size_t)n_row + 3;
    float *gathered = take(stride * (size_t)g->size * sizeof(float));
    int32_t *token = take((size_t)n_row * sizeof *token), got[BEST_ROWS];
    const float *pairs[NT_P2P_RANKS];
    for (int32_t r = 0; r < g->size; r++) {
        make_pairs(r, n_row, g->host[r]);
        pairs[r] = g->host[r];
        OK(be.memory->upload(&be, (void *)(uintptr_t)g->group[0].from[r], g->host[r], bytes));
        OK(be.memory->upload(&be, gathered + (size_t)r * stride, g->host[r], bytes));
    }
    arrive(g, call);
    for (int32_t r = 0; r <= g->size; r++) {
        struct nt_best_pairs_args a = {.group = g->group[r < g->size ? r : 0], .token = token, .n_row = n_row};
        if (r == g->size) {
            a.gathered = gathered;
            a.stride = (int64_t)stride;
        }
        OK(be.memory->zero(&be, token, (size_t)n_row * sizeof *token));
        OK(nt_best_pairs_cuda(&be, &a));
        OK(be.memory->download(&be, got, token, (size_t)n_row * sizeof *token));
        for (int32_t i = 0; i < n_row; i++) assert_int_equal(got[i], best_of(pairs, g->size, n_row, i));
    }
    check_flags(g, call, 1);
    be.memory->give(&be, gathered, stride * (size_t)g->size * sizeof(float));
    be.memory->give(&be, token, (size_t)n_row * sizeof *token);
}

static void test_best(void **state) {
    (void)state;
    static const int32_t sizes[] = {1, 2, 3, 8};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        struct ranks g;
        make(&g, sizes[s]);
        check_best(&g, (uint32_t)FIRST_CALL, 1);
        check_best(&g, (uint32_t)FIRST_CALL + 1, 60);
        check_best(&g, (uint32_t)FIRST_CALL + 2, BEST_ROWS);
        drop(&g);
    }
}

static void test_limits(void **state) {
    (void)state;
    struct nt_allreduce_p2p_args a = {.count = MAX_COUNT + 4};
    a.group.size = 1;
    assert_int_equal(nt_allreduce_p2p_cuda(&be, &a), NT_E_UNSUPPORTED);
    struct nt_allreduce_norm_p2p_args n = {
        .norm = {.n_rows = 1, .d_model = 33}
    };
    n.group.size = 1;
    assert_int_equal(nt_allreduce_norm_p2p_cuda(&be, &n), NT_E_UNSUPPORTED);
    n.norm.d_model = 1 << 15;
    assert_int_equal(nt_allreduce_norm_p2p_cuda(&be, &n), NT_E_UNSUPPORTED);
    const struct nt_best_pairs_args b = {.group = {.size = 1}, .n_row = NT_P2P_MAX_BYTES / 8 + 1};
    assert_int_equal(nt_best_pairs_cuda(&be, &b), NT_E_UNSUPPORTED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum),
        cmocka_unit_test(test_norm),
        cmocka_unit_test(test_best),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, open_be, close_be);
}

#endif
