/* The order of training: every example once per epoch, a function of (seed, epoch) and the cursor alone, both classes
 * of kto in every batch, mismatched pairs that never match. */
#include "order.h"
#include "train_sets.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void must(nt_status st) {
    if (st != NT_OK) fail_msg("%s", nt_error_last()->text);
}

static void count_up(struct nt_order *o, int64_t from, int64_t n, int32_t *seen) {
    memset(seen, 0, (size_t)o->set->n * sizeof *seen);
    for (int64_t p = from; p < from + n; p++) {
        int32_t example;
        nt_order_take(o, p, 1, &example);
        assert_in_range(example, 0, o->set->n - 1);
        seen[example]++;
    }
}

static void test_once_per_epoch(void **state) {
    (void)state;
    static const int32_t sizes[] = {1, 2, 3, 7, 64, 1000};
    int32_t seen[1000], first[1000], again[1000];
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const int32_t n = sizes[s];
        struct nt_example_set set;
        struct nt_order o;
        must(set_make(&set, NT_TRAIN_SFT, n, 0, 5, 8));
        must(nt_order_open(&o, &set, 11, 4));
        for (int64_t epoch = 0; epoch < 3; epoch++) {
            assert_int_equal(nt_order_epoch(&o, epoch * n), epoch);
            count_up(&o, epoch * n, n, seen);
            for (int32_t i = 0; i < n; i++) assert_int_equal(seen[i], 1);
        }
        nt_order_take(&o, 0, n, first);
        nt_order_take(&o, n, n, again);
        if (n >= 64) assert_memory_not_equal(first, again, (size_t)n * sizeof *first); /* reshuffled */
        nt_order_close(&o);
        must(nt_order_open(&o, &set, 12, 4));
        nt_order_take(&o, 0, n, again);
        if (n >= 64) assert_memory_not_equal(first, again, (size_t)n * sizeof *first); /* another seed */
        nt_order_close(&o);
        nt_example_set_release(&set);
    }
}

/* Whatever was taken before, and in whatever batches, a position holds the same example. */
static void test_cursor_is_the_state(void **state) {
    (void)state;
    for (int kto = 0; kto < 2; kto++) {
        enum { N = 57, TOTAL = 5 * N };
        struct nt_example_set set;
        struct nt_order o;
        int32_t all[TOTAL], part[TOTAL];
        must(set_make(&set, kto ? NT_TRAIN_KTO : NT_TRAIN_SFT, N, 20, 5, 8));
        must(nt_order_open(&o, &set, 3, 16));
        nt_order_take(&o, 0, TOTAL, all);
        for (int64_t cursor = TOTAL - 16; cursor >= 0; cursor -= 13) { /* backwards, straddling epochs */
            nt_order_take(&o, cursor, 16, part);
            assert_memory_equal(part, all + cursor, 16 * sizeof *part);
        }
        nt_order_close(&o);
        must(nt_order_open(&o, &set, 3, 8)); /* another batch size, the same positions */
        for (int64_t cursor = 0; cursor + 8 <= TOTAL; cursor += 8) nt_order_take(&o, cursor, 8, part + cursor);
        assert_memory_equal(part, all, TOTAL / 8 * 8 * sizeof *part);
        nt_order_close(&o);
        nt_example_set_release(&set);
    }
}

/* All six orders of three examples come up about equally often. */
static void test_fair(void **state) {
    (void)state;
    struct nt_example_set set;
    int counts[27] = {0}, kinds = 0;
    must(set_make(&set, NT_TRAIN_SFT, 3, 0, 5, 8));
    for (uint64_t seed = 0; seed < 1200; seed++) {
        struct nt_order o;
        int32_t p[3];
        must(nt_order_open(&o, &set, seed, 1));
        nt_order_take(&o, 0, 3, p);
        counts[p[0] * 9 + p[1] * 3 + p[2]]++;
        nt_order_close(&o);
    }
    for (int i = 0; i < 27; i++) {
        if (counts[i] == 0) continue;
        kinds++;
        assert_in_range(counts[i], 140, 260); /* 200 expected, deviation 13 */
    }
    assert_int_equal(kinds, 6);
    nt_example_set_release(&set);
}

static void check_classes(int32_t n, int32_t good, int32_t batch) {
    struct nt_example_set set;
    struct nt_order o;
    int32_t seen[512], at[64];
    must(set_make(&set, NT_TRAIN_KTO, n, good, 5, 8));
    must(nt_order_open(&o, &set, 7, batch));
    for (int64_t cursor = 0; cursor < 4 * (int64_t)n; cursor += batch) {
        int32_t n_good = 0;
        nt_order_take(&o, cursor, batch, at);
        for (int32_t i = 0; i < batch; i++) n_good += set.rows[at[i]].label;
        assert_in_range(n_good, 1, batch - 1);
    }
    const int32_t small = good < n - good ? good : n - good;
    assert_int_equal(o.repeated, small * batch < n);
    for (int64_t epoch = 0; epoch < 3 && !o.repeated; epoch++) {
        count_up(&o, epoch * n, n, seen);
        for (int32_t i = 0; i < n; i++) assert_int_equal(seen[i], 1);
    }
    /* The shares the class weights are computed from are those that are served. */
    double desirable, undesirable;
    int64_t served = 0;
    const int64_t total = (int64_t)n * batch;
    nt_order_shares(good, n - good, batch, &desirable, &undesirable);
    for (int64_t p = 0; p < total; p++) {
        nt_order_take(&o, p, 1, at);
        served += set.rows[at[0]].label;
    }
    assert_true(desirable + undesirable == 1);
    assert_true(fabs((double)served / (double)total - desirable) < 1e-9);
    nt_order_close(&o);
    nt_example_set_release(&set);
}

static void test_both_classes(void **state) {
    (void)state;
    for (int32_t batch = 2; batch <= 16; batch += 7) {
        check_classes(40, 20, batch);
        check_classes(40, 13, batch);
        check_classes(41, 30, batch);
        check_classes(100, 1, batch);
        check_classes(100, 99, batch);
        check_classes(3, 1, batch);
    }
}

static void test_refusals(void **state) {
    (void)state;
    struct nt_example_set set = {0};
    struct nt_order o;
    assert_int_equal(nt_order_open(&o, &set, 0, 4), NT_E_DATA);
    must(set_make(&set, NT_TRAIN_KTO, 9, 9, 5, 8));
    assert_int_equal(nt_order_open(&o, &set, 0, 4), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "9 desirable and 0 undesirable"));
    nt_example_set_release(&set);
    must(set_make(&set, NT_TRAIN_KTO, 9, 4, 5, 8));
    assert_int_equal(nt_order_open(&o, &set, 0, 1), NT_E_CONFIG);
    assert_non_null(strstr(nt_error_last()->text, "train.batch_size"));
    nt_example_set_release(&set);
}

static void test_mismatch(void **state) {
    (void)state;
    enum { N = 30, B = 10 };
    struct nt_example_set set;
    struct nt_order o;
    int32_t at[B], other[B], again[B], shifts[B] = {0}, n_shifts = 0;
    must(set_make(&set, NT_TRAIN_KTO, N, 12, 5, 8));
    must(nt_order_open(&o, &set, 7, B));
    for (int64_t cursor = 0; cursor < 50 * B; cursor += B) {
        int32_t used[B] = {0};
        nt_order_take(&o, cursor, B, at);
        nt_order_mismatch(&o, cursor, at, B, other);
        nt_order_mismatch(&o, cursor, at, B, again);
        assert_memory_equal(other, again, sizeof other);
        for (int32_t i = 0; i < B; i++) {
            assert_in_range(other[i], 0, B - 1);
            assert_int_not_equal(other[i], i);
            used[other[i]]++;
        }
        for (int32_t i = 0; i < B; i++) assert_int_equal(used[i], 1); /* every completion once */
        shifts[other[0]]++;
    }
    for (int32_t i = 0; i < B; i++) n_shifts += shifts[i] > 0;
    assert_true(n_shifts >= 5);                            /* not always the same neighbour */
    for (int32_t i = 0; i < B; i++) at[i] = i < 3 ? 4 : 5; /* two texts only, so equal completions lie side by side */
    nt_order_mismatch(&o, 0, at, B, other);
    for (int32_t i = 0; i < B; i++) assert_int_not_equal(at[other[i]], at[i]);
    for (int32_t i = 0; i < B; i++) at[i] = 4; /* nothing to mismatch with */
    nt_order_mismatch(&o, 0, at, B, other);
    for (int32_t i = 0; i < B; i++) assert_int_equal(other[i], -1);
    nt_order_mismatch(&o, 0, at, 1, other);
    assert_int_equal(other[0], -1);
    nt_order_close(&o);
    nt_example_set_release(&set);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_once_per_epoch), cmocka_unit_test(test_cursor_is_the_state),
        cmocka_unit_test(test_fair),           cmocka_unit_test(test_both_classes),
        cmocka_unit_test(test_refusals),       cmocka_unit_test(test_mismatch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
