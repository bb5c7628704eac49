/* The places of sums over peers: written where they are read, and none twice in a row without a sum of NCCL's between,
 * over steps of any mixture of both. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "allreduce_p2p_cuda.h"
#include "peer_sum.h"
#include <stdlib.h>

static struct nt_p2p_group last; /* of the newest call */
static int64_t n_calls;

static nt_status take(struct nt_backend *be, size_t bytes, const char *what, void **out) {
    (void)be;
    (void)what;
    *out = calloc(1, bytes);
    return *out ? NT_OK : NT_FAIL(NT_E_NOMEM, "no memory");
}

static void give(struct nt_backend *be, void *memory, size_t bytes) {
    (void)be;
    (void)bytes;
    free(memory);
}

static nt_status note(const struct nt_p2p_group *group) {
    last = *group;
    n_calls++;
    return NT_OK;
}

static nt_status sum(struct nt_backend *be, const struct nt_allreduce_p2p_args *args) {
    (void)be;
    return note(&args->group);
}

static nt_status norm(struct nt_backend *be, const struct nt_allreduce_norm_p2p_args *args) {
    (void)be;
    return note(&args->group);
}

static nt_status best(struct nt_backend *be, const struct nt_best_pairs_args *args) {
    (void)be;
    return note(&args->group);
}

static const struct nt_memory memory = {.take = take, .give = give};
static const struct nt_peer_ops peer_ops = {.sum = sum, .norm = norm, .best = best};

struct job {
    struct nt_peer_sum *sums;
    const float *before; /* the place of the last call; NULL behind a sum of NCCL's */
};

/* The sum of n floats as the model makes it, by the way that `how` chooses where it is one for peers. */
static void one_sum(struct job *j, int64_t n, int how) {
    float out[1];
    const struct nt_rmsnorm_args rms = {.n_rows = 1, .d_model = 64};
    const float *place = nt_peer_sum_place(j->sums, n);
    if (place) {
        const int64_t calls = n_calls;
        if (how == 0)
            assert_int_equal(nt_peer_sum_run(j->sums, out, n), NT_OK);
        else if (how == 1)
            assert_int_equal(nt_peer_sum_norm(j->sums, &rms), NT_OK);
        else
            assert_int_equal(nt_peer_sum_best(j->sums, (int32_t *)(void *)out, 1), NT_OK);
        assert_int_equal(n_calls, calls + 1);
        for (int32_t r = 0; r < last.size; r++) assert_ptr_equal(last.from[r], place);
        assert_ptr_not_equal(place, j->before);
    }
    j->before = place;
}

/* Steps as the model runs them: the embedding and the blocks' sums over all tokens, the last ones over the rows with
 * logits alone, and the choice of tokens. */
static void one_step(struct job *j, int32_t n_layer, int64_t all, int64_t few, bool draws) {
    nt_peer_sum_step(j->sums);
    one_sum(j, all, 0);
    for (int32_t i = 0; i < 2 * n_layer; i++) one_sum(j, i < 2 * n_layer - 1 ? all : few, 1);
    if (draws) one_sum(j, 8, 2);
}

static void test_places(void **state) {
    (void)state;
    enum { SMALL = 1024, LARGE = NT_P2P_MAX_BYTES / 4 + 4, STEPS = 400 };
    struct nt_backend be = {.memory = &memory, .peer_ops = &peer_ops};
    const struct nt_world w = {.tp_size = 2};
    struct job j = {0};
    uint32_t random = 1;
    assert_int_equal(nt_peer_sum_open_shape(&be, &w, &j.sums), NT_OK);
    assert_non_null(j.sums);
    assert_true(nt_peer_sum_bytes(j.sums) >= 3 * NT_P2P_MAX_BYTES);
    for (int32_t step = 0; step < STEPS; step++) {
        random = random * 1664525u + 1013904223u;
        const uint32_t way = random >> 24;
        one_step(&j, 1 + (int32_t)(way & 3), way & 4 ? SMALL : LARGE, way & 8 ? SMALL : LARGE, way & 16);
    }
    nt_peer_sum_close(j.sums);
}

static void test_not_for_peers(void **state) {
    (void)state;
    struct nt_backend be = {.memory = &memory, .peer_ops = &peer_ops};
    const struct nt_world two = {.tp_size = 2}, three = {.tp_size = 3};
    struct nt_peer_sum *p = NULL;
    assert_int_equal(nt_peer_sum_open_shape(&be, &three, &p), NT_OK);
    assert_null(p);
    assert_null(nt_peer_sum_place(NULL, 4));
    assert_int_equal(nt_peer_sum_open_shape(&be, &two, &p), NT_OK);
    assert_null(nt_peer_sum_place(p, 5));
    assert_null(nt_peer_sum_place(p, NT_P2P_MAX_BYTES / 4 + 4));
    assert_non_null(nt_peer_sum_place(p, NT_P2P_MAX_BYTES / 4));
    nt_peer_sum_close(p);
    nt_peer_sum_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_places), cmocka_unit_test(test_not_for_peers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
