/* Metrics: one JSON object a line, appended; a failing file never fails the job. */
#include "clock.h"
#include "metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fileio.h"
#include "json.h"
#include "log.h"
#include <fcntl.h>
#include <unistd.h>

static void lines_are_json(void **state) {
    (void)state;
    char path[] = "/tmp/nt_test_metrics_XXXXXX";
    (void)close(mkstemp(path));
    for (int open_again = 0; open_again < 2; open_again++) {
        struct nt_metrics m;
        assert_int_equal(nt_metrics_open(&m, path, 3), NT_OK);
        nt_metrics_event(&m, "step", NT_INT("rows", INT64_MAX), NT_NUM("tok_per_s", 0.1), NT_STR("file", "a\"b\n"),
                         NT_STR("none", NULL), NT_NUM("nan", __builtin_nan("")));
        nt_metrics_event_n(&m, "end", NULL, 0);
        nt_metrics_close(&m);
        assert_int_equal(m.fd, -1);
        nt_metrics_event_n(&m, "closed", NULL, 0);
    }
    char *text = NULL;
    size_t len = 0;
    assert_int_equal(nt_file_read(path, 1 << 20, &text, &len), NT_OK);
    int n = 0;
    for (char *line = text, *nl = NULL; (nl = strchr(line, '\n')) != NULL; line = nl + 1, n++) {
        struct nt_json *doc = NULL;
        assert_int_equal(nt_json_parse(line, (size_t)(nl - line), "line", &doc), NT_OK);
        assert_true(nt_json_num(nt_json_get(doc, "t"), 0) > 1.6e9);
        assert_int_equal(nt_json_int(nt_json_get(doc, "rank"), -1), 3);
        assert_string_equal(nt_json_str(nt_json_get(doc, "event"), NULL), n % 2 ? "end" : "step");
        if (n % 2 == 0) {
            assert_true(nt_json_int(nt_json_get(doc, "rows"), 0) == INT64_MAX);
            assert_true(nt_json_num(nt_json_get(doc, "tok_per_s"), 0) == 0.1);
            assert_string_equal(nt_json_str(nt_json_get(doc, "file"), NULL), "a\"b\n");
            assert_true(nt_json_is(nt_json_get(doc, "none"), NT_JSON_NULL));
            assert_true(nt_json_is(nt_json_get(doc, "nan"), NT_JSON_NULL));
        }
        nt_json_free(doc);
    }
    assert_int_equal(n, 4);
    free(text);
    (void)remove(path);
}

static void errors_close_the_file_only(void **state) {
    (void)state;
    struct nt_metrics m;
    assert_int_equal(nt_metrics_open(&m, "/no/such/dir/m.jsonl", 0), NT_E_IO);
    assert_non_null(strstr(nt_error_last()->text, "/no/such/dir/m.jsonl"));
    assert_int_equal(m.fd, -1);
    nt_log_init(1, 2, true);
    char said[] = "/tmp/nt_test_metrics_XXXXXX", text[256] = "";
    int keep = dup(STDERR_FILENO), log = mkstemp(said);
    (void)dup2(log, STDERR_FILENO);
    assert_int_equal(nt_metrics_open(&m, "/dev/full", 0), NT_OK);
    nt_error_clear();
    nt_metrics_event(&m, "step", NT_INT("x", 1));
    (void)dup2(keep, STDERR_FILENO);
    (void)close(keep);
    assert_true(pread(log, text, sizeof text - 1, 0) > 0);
    assert_non_null(strstr(text, "/dev/full: cannot write it")); // which file
    (void)close(log);
    (void)remove(said);
    assert_int_equal(m.fd, -1);
    assert_int_equal(nt_error_last()->code, NT_OK);
}

static void the_clock_goes_on(void **state) {
    (void)state;
    double a = nt_now(), b = nt_now();
    assert_true(b >= a && b - a < 3600);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_json),
        cmocka_unit_test(errors_close_the_file_only),
        cmocka_unit_test(the_clock_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
