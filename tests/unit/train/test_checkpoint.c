/* Checkpoints by name: which files of the folder are some, in which order, and where each lies. */
#include "checkpoint.h"
#include "fileio.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

static char dir[] = "/tmp/nt-checkpoint-XXXXXX";

static void must(nt_status st) {
    if (st != NT_OK) fail_msg("%s", nt_error_last()->text);
}

static void add(const char *name) {
    char path[256];
    (void)snprintf(path, sizeof path, "%s/checkpoints/%s", dir, name);
    must(nt_publish_bytes(path, "x", 1, NT_PUBLISH_NEW));
}

static void test_list(void **state) {
    (void)state;
    int64_t *steps, n;
    char path[256];
    must(nt_checkpoint_list(dir, &steps, &n)); /* no folder */
    assert_int_equal(n, 0);
    free(steps);
    (void)snprintf(path, sizeof path, "%s/checkpoints", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    static const char *const names[] = {"step-00000007.h5", "step-123456789.h5", "step-00000100.h5"};
    static const char *const others[] = {"step-0000012.h5",  "step-000000012.h5",     "step-00000012.h5~",
                                         "step-00000012",    "step--0000012.h5",      "step- 0000012.h5",
                                         "step-0000001x.h5", "copy-step-00000012.h5", "step-99999999999999999999.h5"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) add(names[i]);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) add(others[i]);
    must(nt_checkpoint_list(dir, &steps, &n));
    assert_int_equal(n, 3);
    assert_int_equal(steps[0], 123456789);
    assert_int_equal(steps[1], 100);
    assert_int_equal(steps[2], 7);
    for (int64_t i = 0; i < n; i++) {
        must(nt_checkpoint_path(path, sizeof path, dir, steps[i]));
        assert_true(nt_file_exists(path));
    }
    free(steps);
    must(nt_checkpoint_discard(dir));
    must(nt_checkpoint_list(dir, &steps, &n));
    assert_int_equal(n, 0);
    free(steps);
}

static int make_dir(void **state) {
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state) {
    (void)state;
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_list)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
