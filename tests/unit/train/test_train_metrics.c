/* metrics.jsonl of a resumed run: what is kept up to the checkpoint's step, and what is told anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "fileio.h"
#include "train_metrics.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EVAL(n) "{\"t\":1.5,\"event\":\"eval\",\"rank\":0,\"step\":" #n ",\"eval_loss\":2.5}\n"
#define STEP(n) "{\"t\":1.5,\"event\":\"step\",\"rank\":0,\"step\":" #n ",\"loss\":0.5}\n"

static char path[] = "/tmp/nt-train-metrics-XXXXXX";

static void cut(const char *text, int64_t step, const char *want) {
    char *got;
    size_t len;
    assert_int_equal(nt_publish_bytes(path, text, strlen(text), NT_PUBLISH_REPLACE), NT_OK);
    assert_int_equal(nt_train_metrics_cut(path, step), NT_OK);
    assert_int_equal(nt_file_read(path, 4096, &got, &len), NT_OK);
    assert_string_equal(got, want);
    free(got);
}

static void test_cut(void **state) {
    (void)state;
    const char whole[] = EVAL(0) STEP(1) STEP(2) EVAL(2) STEP(3) STEP(10) EVAL(10);
    cut(whole, -1, "");
    cut(whole, 0, "");
    cut(whole, 1, EVAL(0) STEP(1));
    cut(whole, 2, EVAL(0) STEP(1) STEP(2));
    cut(whole, 3, EVAL(0) STEP(1) STEP(2) EVAL(2) STEP(3));
    cut(whole, 9, EVAL(0) STEP(1) STEP(2) EVAL(2) STEP(3));
    cut(whole, 11, whole);
    cut(STEP(1) "{\"t\":1.5,\"event\":\"step\",\"rank\":0,\"st", 9, STEP(1)); // torn by a crash
    cut("{\"t\":1,\"event\":\"note\"}\n" STEP(7), 7, "{\"t\":1,\"event\":\"note\"}\n" STEP(7));
    cut("", 3, "");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(nt_train_metrics_cut(path, 3), NT_OK);
    assert_false(nt_file_exists(path));
}

static int make_path(void **state) {
    (void)state;
    const int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cut)};
    return cmocka_run_group_tests(tests, make_path, NULL);
}
