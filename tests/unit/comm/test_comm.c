/* The world of one process and the parts of the watchdog that need no second rank; tests/jobs/test_comm.sh has the
 * ranks. */
#include "comm.h"
#include "heartbeat.h"
#include "fileio.h"
#include "watchdog.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static const char *const launcher_vars[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "SLURM_STEP_NUM_TASKS"};

static int setup(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof launcher_vars / sizeof *launcher_vars; i++) (void)unsetenv(launcher_vars[i]);
    return 0;
}

static void test_self_world(void **state) {
    (void)state;
    struct nt_world w;
    assert_int_equal(nt_world_open(&w), NT_OK);
    assert_int_equal(w.rank, 0);
    assert_int_equal(w.size, 1);
    assert_int_equal(w.node_size, 1);
    assert_true(w.host[0] != 0);
    assert_int_equal(nt_world_split(&w, 1), NT_OK);
    assert_int_equal(w.tp_size * w.dp_size, 1);

    float f[3] = {1.5F, -0.0F, 3.0F};
    int64_t i[2] = {-7, 9}, all[2] = {0};
    assert_int_equal(nt_comm_barrier(w.world), NT_OK);
    assert_int_equal(nt_comm_broadcast(w.dp, f, sizeof f, 0), NT_OK);
    assert_int_equal(nt_comm_allreduce_f32(w.tp, f, 3), NT_OK);
    assert_int_equal(nt_comm_allreduce_max_i64(w.world, i, 2), NT_OK);
    assert_int_equal(nt_comm_allreduce_sum_i64(w.world, i, 2), NT_OK);
    assert_int_equal(nt_comm_allgather(w.world, i, all, sizeof i), NT_OK);
    assert_memory_equal(i, all, sizeof i);
    assert_true(f[0] == 1.5F && f[1] == 0.0F && f[2] == 3.0F);
    assert_int_equal(i[0], -7);
    nt_comm_progress(&w);
    nt_world_close(&w);
}

static void test_split_needs_divisor(void **state) {
    (void)state;
    struct nt_world w;
    assert_int_equal(nt_world_open(&w), NT_OK);
    assert_int_equal(nt_world_split(&w, 2), NT_E_CONFIG);
    assert_non_null(strstr(nt_error_last()->text, "run.tp is 2, but there are 1 ranks"));
    assert_int_equal(nt_world_split(&w, 0), NT_E_CONFIG);
    assert_int_equal(nt_world_split(&w, 1), NT_OK);
    nt_world_close(&w);
}

static void test_srun_without_mpi(void **state) {
    (void)state;
    struct nt_world w;
    assert_int_equal(setenv("SLURM_STEP_NUM_TASKS", "2", 1), 0);
    assert_int_equal(nt_world_open(&w), NT_E_COMM);
    assert_non_null(strstr(nt_error_last()->text, "--mpi=pmix"));
    assert_int_equal(setenv("SLURM_STEP_NUM_TASKS", "1", 1), 0);
    assert_int_equal(nt_world_open(&w), NT_OK);
    nt_world_close(&w);
    (void)unsetenv("SLURM_STEP_NUM_TASKS");
}

static void test_agree_keeps_the_sentence(void **state) {
    (void)state;
    struct nt_world w;
    assert_int_equal(nt_world_open(&w), NT_OK);
    assert_int_equal(nt_comm_agree(w.world, NT_OK), NT_OK);
    assert_int_equal(nt_comm_agree(w.world, NT_FAIL(NT_E_DATA, "row 7 is bad")), NT_E_DATA);
    assert_string_equal(nt_error_last()->text, "row 7 is bad");
    nt_world_close(&w);
}

static void test_shared_is_private_and_aligned(void **state) {
    (void)state;
    struct nt_world w;
    struct nt_shared s;
    assert_int_equal(nt_world_open(&w), NT_OK);
    assert_int_equal(nt_world_split(&w, 1), NT_OK);
    const size_t sizes[] = {0, 1, 63, 1 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(nt_shared_open(&w, sizes[i], &s), NT_OK);
        assert_true(s.leader);
        assert_int_equal((uintptr_t)s.base % 64, 0);
        memset(s.base, 0x5A, sizes[i]);
        assert_int_equal(nt_shared_ready(&w, &s), NT_OK);
        nt_shared_close(&w, &s);
        assert_null(s.base);
    }
    assert_int_equal(nt_shared_open(&w, SIZE_MAX - 5, &s), NT_E_NOMEM);
    nt_world_close(&w);
}

static void test_tickets(void **state) {
    (void)state;
    struct nt_world w;
    struct nt_ticket *t = NULL;
    int64_t first = -1;
    assert_int_equal(nt_world_open(&w), NT_OK);
    assert_int_equal(nt_ticket_open(&w, &t), NT_OK);
    const int64_t counts[] = {3, 1, 0, 5}, firsts[] = {0, 3, 4, 4};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(nt_ticket_next(t, counts[i], &first), NT_OK);
        assert_int_equal(first, firsts[i]);
    }
    assert_int_equal(nt_ticket_add(t, 5, &first), NT_OK);
    assert_int_equal(first, 9);
    assert_int_equal(nt_ticket_add(t, 0, &first), NT_OK);
    assert_int_equal(first, 14);
    nt_ticket_close(t);
    nt_ticket_close(NULL);
    nt_world_close(&w);
}

static void test_heartbeat_file(void **state) {
    (void)state;
    char dir[] = "/tmp/nt-heartbeat-XXXXXX", path[256], folder[256];
    assert_non_null(mkdtemp(dir));
    assert_true(nt_heartbeat_path(path, sizeof path, dir, 3));
    assert_non_null(strstr(path, "/.heartbeat/rank-3"));
    assert_false(nt_heartbeat_path(path, 8, dir, 3));
    assert_true(nt_heartbeat_path(path, sizeof path, dir, 3));
    (void)snprintf(folder, sizeof folder, "%s/.heartbeat", dir);

    struct nt_heartbeat h = {.present = true,
                             .pid = 42,
                             .tick = 7,
                             .progress = 1000,
                             .seq = 9,
                             .idle_s = 2.5,
                             .time = 1e9,
                             .host = "n\"1",
                             .doing = "forward",
                             .call = "barrier",
                             .on = "tp",
                             .inside = true,
                             .late = 5000000000,
                             .whose = 3};
    struct nt_heartbeat got;
    assert_int_equal(nt_heartbeat_write(path, &h), NT_E_IO); /* no folder yet */
    assert_non_null(strstr(nt_error_last()->text, path));
    nt_heartbeat_read(path, &got);
    assert_false(got.present);
    assert_int_equal(nt_mkdir_p(folder), NT_OK);
    assert_int_equal(nt_heartbeat_write(path, &h), NT_OK);
    memset(h.host, 0, sizeof h.host); /* the second is shorter: no tail of the first may stay */
    h.tick = 8;
    assert_int_equal(nt_heartbeat_write(path, &h), NT_OK);
    int64_t size = 0;
    assert_int_equal(nt_file_size(path, &size), NT_OK);
    assert_int_equal(size, NT_HEARTBEAT_BYTES);
    nt_heartbeat_read(path, &got);
    assert_true(got.present && got.inside);
    assert_int_equal(got.tick, 8);
    assert_int_equal(got.pid, 42);
    assert_string_equal(got.doing, "forward");
    assert_string_equal(got.call, "barrier");
    assert_true(got.idle_s == 2.5);
    assert_true(got.late == 5000000000 && got.whose == 3);

    memset(&h, 'x', sizeof h); /* the longest of everything still has its size */
    h.host[sizeof h.host - 1] = h.doing[sizeof h.doing - 1] = h.call[sizeof h.call - 1] = h.on[sizeof h.on - 1] = 0;
    h.idle_s = h.time = 1e15;
    h.inside = false;
    assert_int_equal(nt_heartbeat_write(path, &h), NT_OK);
    assert_int_equal(nt_file_size(path, &size), NT_OK);
    assert_int_equal(size, NT_HEARTBEAT_BYTES);
    nt_heartbeat_read(path, &got);
    assert_true(got.present && !got.inside && got.late == h.late && got.whose == h.whose && got.seq == h.seq);

    FILE *f = fopen(path, "w"); /* a torn write */
    assert_non_null(f);
    assert_true(fputs("{\"pid\":42,\"tick\":", f) >= 0);
    assert_int_equal(fclose(f), 0);
    nt_heartbeat_read(path, &got);
    assert_false(got.present);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(rmdir(dir), 0);
}

/* Runs fn in a child with stderr in text; returns its exit status. */
static int in_child(void (*fn)(const char *dir), const char *dir, char *text, size_t cap) {
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)dup2(fds[1], 2);
        (void)close(fds[0]);
        (void)close(fds[1]);
        fn(dir);
        _exit(99);
    }
    (void)close(fds[1]);
    size_t len = 0;
    ssize_t n;
    while (len < cap - 1 && (n = read(fds[0], text + len, cap - 1 - len)) > 0) len += (size_t)n;
    text[len] = 0;
    (void)close(fds[0]);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void hang(const char *dir) {
    struct nt_world w;
    struct nt_watchdog *d = NULL;
    if (nt_world_open(&w) != NT_OK || nt_comm_barrier(w.world) != NT_OK) _exit(98);
    if (nt_watchdog_start(&d, &w, dir, 0.3) != NT_OK) _exit(98);
    nt_watchdog_beat(d, "read input");
    for (int i = 0; i < 600; i++) (void)usleep(100000);
}

static void work(const char *dir) {
    struct nt_world w;
    struct nt_watchdog *d = NULL;
    if (nt_world_open(&w) != NT_OK || nt_watchdog_start(&d, &w, dir, 20) != NT_OK) _exit(98);
    for (int i = 0; i < 5; i++) {
        nt_watchdog_beat(d, "forward");
        (void)usleep(1000);
    }
    nt_watchdog_stop(d);
    nt_world_close(&w);
    _exit(0);
}

static void test_watchdog_ends_a_hang(void **state) {
    (void)state;
    char dir[] = "/tmp/nt-watchdog-XXXXXX", path[256], text[4096];
    assert_non_null(mkdtemp(dir));
    assert_int_equal(in_child(hang, dir, text, sizeof text), 76);
    assert_non_null(strstr(text, "rank 0 (host "));
    assert_non_null(strstr(text, "doing 'read input', after barrier #1 on world), which made no progress"));
    (void)snprintf(path, sizeof path, "%s/.heartbeat/rank-0", dir);
    struct nt_heartbeat h;
    nt_heartbeat_read(path, &h); /* the evidence stays */
    assert_true(h.present);
    assert_int_equal(unlink(path), 0);

    assert_int_equal(in_child(hang, NULL, text, sizeof text), 76);
    assert_non_null(strstr(text, "doing 'read input'"));

    assert_int_equal(in_child(work, dir, text, sizeof text), 0);
    assert_string_equal(text, "");
    assert_false(nt_file_exists(path)); /* with its folder */
    assert_int_equal(rmdir(dir), 0);
}

static void test_watchdog_off(void **state) {
    (void)state;
    struct nt_world w;
    struct nt_watchdog *d = (struct nt_watchdog *)&w;
    assert_int_equal(nt_world_open(&w), NT_OK);
    assert_int_equal(nt_watchdog_start(&d, &w, "/nonexistent", 0), NT_OK);
    assert_null(d);
    nt_watchdog_beat(d, "nothing");
    nt_watchdog_stop(d);
    assert_int_not_equal(nt_watchdog_start(&d, &w, "/proc/nocturne", 5), NT_OK); /* a directory nobody can make */
    assert_non_null(strstr(nt_error_last()->text, "/proc/nocturne"));
    assert_null(d);
    nt_world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_self_world),
        cmocka_unit_test(test_split_needs_divisor),
        cmocka_unit_test(test_srun_without_mpi),
        cmocka_unit_test(test_agree_keeps_the_sentence),
        cmocka_unit_test(test_shared_is_private_and_aligned),
        cmocka_unit_test(test_tickets),
        cmocka_unit_test(test_heartbeat_file),
        cmocka_unit_test(test_watchdog_ends_a_hang),
        cmocka_unit_test(test_watchdog_off),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
