/* Directories published whole: what is there before, after, after a failure, and after a kill. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "fileio.h"
#include "outdir.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char root[] = "/tmp/nt-outdir-XXXXXX";

static const char *at(const char *name) {
    static char path[2][512];
    static int which;
    which = !which;
    assert_int_equal(nt_path_join(path[which], sizeof path[which], root, name), NT_OK);
    return path[which];
}

static int n_entries(const char *dir) {
    int n = -2;
    DIR *d = opendir(dir);
    assert_non_null(d);
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static void put(const struct nt_outdir *d, const char *name) {
    char path[PATH_MAX];
    assert_int_equal(nt_path_join(path, sizeof path, d->temp, name), NT_OK);
    assert_int_equal(nt_publish_bytes(path, "x", 1, NT_PUBLISH_NEW), NT_OK);
}

static void test_publish(void **state) {
    (void)state;
    struct nt_outdir d;
    assert_int_equal(nt_outdir_open(&d, at("deep/er/out/"), NT_PUBLISH_NEW), NT_OK); // parents are made
    put(&d, "a");
    put(&d, "b");
    assert_false(nt_file_exists(at("deep/er/out")));
    assert_int_equal(nt_outdir_publish(&d), NT_OK);
    assert_int_equal(n_entries(at("deep/er/out")), 2);
    assert_int_equal(n_entries(at("deep/er")), 1);
    nt_outdir_abandon(&d); // nothing to do any more
    assert_int_equal(n_entries(at("deep/er/out")), 2);
    assert_int_equal(nt_outdir_open(&d, at("deep/er/out"), NT_PUBLISH_NEW), NT_E_IO);
    assert_non_null(strstr(nt_error_last()->text, "exists already"));
    assert_int_equal(n_entries(at("deep/er/out")), 2);
    assert_int_equal(nt_outdir_open(&d, at("deep/er/out/a"), NT_PUBLISH_NEW), NT_E_IO); // a file is in the way
    assert_int_equal(nt_outdir_open(&d, at("deep/er/out/a/b"), NT_PUBLISH_NEW), NT_E_IO);
    assert_int_equal(unlink(at("deep/er/out/a")), 0);
    assert_int_equal(unlink(at("deep/er/out/b")), 0);
    assert_int_equal(nt_outdir_open(&d, at("deep/er/out"), NT_PUBLISH_NEW), NT_OK); // an empty directory makes room
    nt_outdir_abandon(&d);
    assert_int_equal(n_entries(at("deep/er")), 0);
    assert_int_equal(rmdir(at("deep/er")), 0);
    assert_int_equal(rmdir(at("deep")), 0);
}

static void test_taken_meanwhile(void **state) {
    (void)state;
    struct nt_outdir d;
    assert_int_equal(nt_outdir_open(&d, at("out"), NT_PUBLISH_NEW), NT_OK);
    put(&d, "a");
    assert_int_equal(mkdir(at("out"), 0777), 0);
    assert_int_equal(mkdir(at("out/theirs"), 0777), 0);
    assert_int_equal(nt_outdir_publish(&d), NT_E_IO);
    assert_int_equal(n_entries(at("out")), 1);
    assert_int_equal(n_entries(root), 1); // ours is gone
    assert_int_equal(rmdir(at("out/theirs")), 0);
    assert_int_equal(rmdir(at("out")), 0);
}

static void test_replace(void **state) {
    (void)state;
    struct nt_outdir d;
    for (int i = 0; i < 3; i++) {
        char name[8];
        snprintf(name, sizeof name, "f%d", i);
        assert_int_equal(nt_outdir_open(&d, at("out"), NT_PUBLISH_REPLACE), NT_OK);
        put(&d, name);
        if (i > 0) put(&d, "second");
        if (i > 0) assert_int_equal(n_entries(at("out")), i); // the old one, whole, until then
        assert_int_equal(nt_outdir_publish(&d), NT_OK);
        assert_int_equal(n_entries(root), 1);
        assert_true(nt_file_exists(i == 0 ? at("out/f0") : i == 1 ? at("out/f1") : at("out/f2")));
        assert_int_equal(n_entries(at("out")), i > 0 ? 2 : 1);
    }
    assert_int_equal(nt_outdir_open(&d, at("out/f2"), NT_PUBLISH_REPLACE), NT_E_IO); // a file is not replaced
    assert_int_equal(unlink(at("out/f2")), 0);
    assert_int_equal(unlink(at("out/second")), 0);
    assert_int_equal(rmdir(at("out")), 0);
}

/* A child dies in the middle; what it left goes with the next open, what a living process fills stays. */
static void test_left_over(void **state) {
    (void)state;
    struct nt_outdir d, other;
    const pid_t pid = fork();
    if (pid == 0) {
        if (nt_outdir_open(&d, at("out"), NT_PUBLISH_NEW) != NT_OK) _exit(1);
        put(&d, "a");
        _exit(0);
    }
    int status = 1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(n_entries(root), 1);
    assert_int_equal(nt_outdir_open(&other, at("out2"), NT_PUBLISH_NEW), NT_OK); // another name: leaves it alone
    assert_int_equal(n_entries(root), 2);
    assert_int_equal(nt_outdir_open(&d, at("out"), NT_PUBLISH_NEW), NT_OK);
    assert_int_equal(n_entries(root), 2);
    put(&d, "a");
    nt_outdir_abandon(&d);
    nt_outdir_abandon(&other);
    assert_int_equal(n_entries(root), 0);
}

/* Files and directories of the names given, of any host; others of the same look stay. */
static void test_remove_temps(void **state) {
    (void)state;
    static const char *const names[] = {"a", "step-"};
    static const char *const gone[] = {".tmp-a.host.1", ".tmp-a.other.host.7.abc", ".tmp-step-0001.h5.host.2"};
    static const char *const stay[] = {"a", ".tmp-ab.host.1", ".tmp-a", "step-0001.h5", ".tmp-b.host.1"};
    for (size_t i = 0; i < 3; i++) assert_int_equal(nt_publish_bytes(at(gone[i]), "x", 1, NT_PUBLISH_NEW), NT_OK);
    for (size_t i = 0; i < 5; i++) assert_int_equal(nt_publish_bytes(at(stay[i]), "x", 1, NT_PUBLISH_NEW), NT_OK);
    assert_int_equal(mkdir(at(".tmp-a.host.9"), 0777), 0);
    assert_int_equal(nt_publish_bytes(at(".tmp-a.host.9/f"), "x", 1, NT_PUBLISH_NEW), NT_OK);
    assert_int_equal(nt_outdir_remove_temps(root, names, 2), NT_OK);
    assert_int_equal(n_entries(root), 5);
    for (size_t i = 0; i < 5; i++) assert_int_equal(unlink(at(stay[i])), 0);
    assert_int_equal(nt_outdir_remove_temps(at("nowhere"), names, 2), NT_OK);
}

/* Where several jobs write: only files of the dead go. */
static void test_remove_dead(void **state) {
    (void)state;
    enum { DEAD, MINE_AGAIN, OLD, ALIVE, YOUNG, OTHER, N };
    char names[N][PATH_MAX], host[64];
    assert_int_equal(gethostname(host, sizeof host), 0);
    const pid_t dead = fork();
    if (dead == 0) _exit(0);
    assert_int_equal(waitpid(dead, NULL, 0), dead);
    snprintf(names[DEAD], PATH_MAX, "%s/.tmp-c.h5.ref-00ff.%s.%d", root, host, (int)dead);
    snprintf(names[MINE_AGAIN], PATH_MAX, "%s/.tmp-c.h5.ref-.%s.%d", root, host, (int)getpid());
    snprintf(names[OLD], PATH_MAX, "%s/.tmp-c.h5.ref-00ff.far.%s.1", root, "away");
    snprintf(names[ALIVE], PATH_MAX, "%s/.tmp-c.h5.ref-00ff.%s.%d", root, host, (int)getppid());
    snprintf(names[YOUNG], PATH_MAX, "%s/.tmp-c.h5.ref-00ff.away.%d", root, (int)dead);
    snprintf(names[OTHER], PATH_MAX, "%s/.tmp-c.h5.%s.%d", root, host, (int)dead);
    for (int i = 0; i < N; i++) assert_int_equal(nt_publish_bytes(names[i], "x", 1, NT_PUBLISH_NEW), NT_OK);
    const struct timespec then[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    assert_int_equal(utimensat(AT_FDCWD, names[OLD], then, 0), 0);
    nt_outdir_remove_dead(at("c.h5.ref-"));
    for (int i = 0; i < N; i++) assert_int_equal(nt_file_exists(names[i]), i >= ALIVE);
    for (int i = ALIVE; i < N; i++) assert_int_equal(unlink(names[i]), 0);
    nt_outdir_remove_dead(at("nowhere/c"));
}

static int make_root(void **state) {
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static int drop_root(void **state) {
    (void)state;
    return rmdir(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_publish), cmocka_unit_test(test_taken_meanwhile), cmocka_unit_test(test_left_over),
        cmocka_unit_test(test_replace), cmocka_unit_test(test_remove_temps),    cmocka_unit_test(test_remove_dead),
    };
    return cmocka_run_group_tests(tests, make_root, drop_root);
}
