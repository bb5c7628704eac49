/* The thread pool: every index once, barriers, many runs, sizes 1 to 4 (more threads than CPUs included). */
#include "pool.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { N_ITEMS = 1000, N_PHASES = 200, MAX_THREADS = 4 };

struct tally {
    struct nt_pool *pool;
    atomic_int hits[N_ITEMS];
    atomic_int threads[MAX_THREADS];
    atomic_int wrong_size;
    atomic_int phase_sum[N_PHASES];
    atomic_int phase_wrong;
};

static struct nt_pool *new_pool(int n) {
    struct nt_pool *p = NULL;
    assert_int_equal(nt_pool_new(&p, n, true, 0, 1), NT_OK);
    assert_int_equal(nt_pool_size(p), n);
    return p;
}

static void take_tickets(void *arg, int thread, int n_threads) {
    struct tally *t = arg;
    atomic_fetch_add(&t->threads[thread], 1);
    if (n_threads != nt_pool_size(t->pool)) atomic_fetch_add(&t->wrong_size, 1);
    for (int64_t i = nt_pool_next(t->pool, N_ITEMS); i >= 0; i = nt_pool_next(t->pool, N_ITEMS))
        atomic_fetch_add(&t->hits[i], 1);
}

static void every_index_once(void **state) {
    (void)state;
    for (int n = 1; n <= MAX_THREADS; n++) {
        struct tally *t = calloc(1, sizeof *t);
        t->pool = new_pool(n);
        for (int run = 1; run <= 3; run++) {
            nt_pool_run(t->pool, take_tickets, t);
            for (int i = 0; i < N_ITEMS; i++) assert_int_equal(t->hits[i], run);
            for (int i = 0; i < MAX_THREADS; i++) assert_int_equal(t->threads[i], i < n ? run : 0);
        }
        assert_int_equal(t->wrong_size, 0);
        nt_pool_free(t->pool);
        free(t);
    }
}

/* After the barrier of a phase every thread must see the additions of all threads to that phase. */
static void add_and_check(void *arg, int thread, int n_threads) {
    struct tally *t = arg;
    for (int i = 0; i < N_PHASES; i++) {
        atomic_fetch_add(&t->phase_sum[i], thread + 1);
        nt_pool_barrier(t->pool);
        if (atomic_load(&t->phase_sum[i]) != n_threads * (n_threads + 1) / 2) atomic_fetch_add(&t->phase_wrong, 1);
    }
}

static void barrier_separates_phases(void **state) {
    (void)state;
    for (int n = 1; n <= MAX_THREADS; n++) {
        struct tally *t = calloc(1, sizeof *t);
        t->pool = new_pool(n);
        nt_pool_run(t->pool, add_and_check, t);
        assert_int_equal(t->phase_wrong, 0);
        assert_int_equal(t->phase_sum[N_PHASES - 1], n * (n + 1) / 2);
        nt_pool_free(t->pool);
        free(t);
    }
}

static void count_one(void *arg, int thread, int n_threads) {
    (void)n_threads;
    int64_t *counts = arg;
    counts[thread * 8]++; /* not atomic: run must order it */
}

static void many_runs_hot_and_cold(void **state) {
    (void)state;
    for (int n = 1; n <= MAX_THREADS; n++) {
        struct nt_pool *p = new_pool(n);
        int64_t counts[MAX_THREADS * 8] = {0};
        for (int run = 0; run < 2000; run++) {
            nt_pool_run(p, count_one, counts);
            int64_t sum = 0;
            for (int i = 0; i < n; i++) sum += counts[i * 8];
            assert_int_equal(sum, (int64_t)n * (run + 1));
            /* Longer than the spin: the workers sleep, and must wake. */
            if (run % 200 == 0) nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        }
        nt_pool_free(p);
    }
}

static void slow_worker(void *arg, int thread, int n_threads) {
    if (thread == n_threads - 1) nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    count_one(arg, thread, n_threads);
}

static void caller_waits_for_a_slow_worker(void **state) {
    (void)state;
    struct nt_pool *p = new_pool(3);
    int64_t counts[MAX_THREADS * 8] = {0};
    for (int run = 1; run <= 5; run++) {
        nt_pool_run(p, slow_worker, counts);
        assert_int_equal(counts[2 * 8], run);
    }
    nt_pool_free(p);
}

static void free_restores_the_callers_cpus(void **state) {
    (void)state;
    cpu_set_t before, after;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    struct nt_pool *p = NULL;
    assert_int_equal(nt_pool_new(&p, 0, true, 0, 1), NT_OK);
    assert_int_equal(nt_pool_size(p), CPU_COUNT(&before));
    nt_pool_free(p);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
    nt_pool_free(NULL);
}

static void split_covers_in_units(void **state) {
    (void)state;
    for (int64_t count = 0; count <= 70; count++) {
        for (int64_t unit = 1; unit <= 16; unit *= 2) {
            for (int n = 1; n <= 5; n++) {
                int64_t at = 0, smallest = INT64_MAX, largest = 0;
                for (int i = 0; i < n; i++) {
                    int64_t begin = -1, end = -1;
                    nt_split(count, unit, i, n, &begin, &end);
                    assert_int_equal(begin, at);
                    assert_true(end >= begin);
                    if (end < count) assert_int_equal(end % unit, 0);
                    int64_t units = (end - begin + unit - 1) / unit;
                    smallest = units < smallest ? units : smallest;
                    largest = units > largest ? units : largest;
                    at = end;
                }
                assert_int_equal(at, count);
                assert_true(largest - smallest <= 1);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_index_once),
        cmocka_unit_test(barrier_separates_phases),
        cmocka_unit_test(many_runs_hot_and_cold),
        cmocka_unit_test(caller_waits_for_a_slow_worker),
        cmocka_unit_test(free_restores_the_callers_cpus),
        cmocka_unit_test(split_covers_in_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
