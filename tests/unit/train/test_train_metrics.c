/* metrics.jsonl of a resumed run: what is kept up to the checkpoint's step, and what is told anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "bench_train.h"
#include "fileio.h"
#include "train_metrics.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EVAL(n) "{\"t\":1.5,\"event\":\"eval\",\"rank\":0,\"step\":" #n ",\"eval_loss\":2.5}\n"
#define STEP(n) "{\"t\":1.5,\"event\":\"step\",\"rank\":0,\"step\":" #n ",\"loss\":0.5}\n"

static void check_roof(double rate, double again, double want, bool reached, const char *text) {
    struct nt_train_roof r = {.flops = 100};
    char said[NT_TRAIN_MFU_TEXT];
    assert_int_equal(nt_train_roof_raise(&r, rate, again), want > 100);
    assert_float_equal(r.flops, want, 0);
    assert_int_equal(r.reached, reached);
    nt_train_mfu_text(&r, nt_train_mfu(&r, 2 * rate, 2), said);
    assert_string_equal(said, text);
}

/* No step makes more than 100 % of the peak: one measured beside other load is raised, and said to be. */
static void test_roof(void **state) {
    (void)state;
    char text[NT_TRAIN_MFU_TEXT];
    check_roof(50, 0, 100, false, "50%");
    check_roof(50, 90, 100, false, "50%");
    check_roof(150, 0, 150, true, "100% (of what was reached)");
    check_roof(150, 140, 150, true, "100% (of what was reached)");
    check_roof(150, 200, 200, false, "75%");
    struct nt_train_roof r = {.flops = 150, .reached = true};
    assert_false(nt_train_roof_raise(&r, 120, 0));
    assert_string_equal(nt_train_roof_source(&r), "reached by a step");
    assert_true(nt_train_roof_raise(&r, 160, 300)); /* the load is gone */
    assert_string_equal(nt_train_roof_source(&r), "measured");
    r = (struct nt_train_roof){0}; /* unknown stays unknown */
    assert_false(nt_train_roof_raise(&r, 160, 300));
    nt_train_mfu_text(&r, nt_train_mfu(&r, 5, 1), text);
    assert_string_equal(text, "unknown");
    assert_string_equal(nt_train_roof_source(&r), "unknown");
}

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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cut), cmocka_unit_test(test_roof)};
    return cmocka_run_group_tests(tests, make_path, NULL);
}
