/* Status codes, the error sentence and its trail, and the hook of nt_bug. */
#include "status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static nt_status deepest(int n) {
    return NT_FAIL(NT_E_DATA, "file.bin: expected %d bytes, found %s", n, "none");
}

static nt_status middle(void) {
    NT_TRY(deepest(7));
    return NT_OK;
}

static nt_status with_cleanup(int *cleaned) {
    nt_status st = NT_OK;
    NT_TRY_GOTO(st, out, middle());
    st = NT_E_INTERNAL; /* not reached */
out:
    (*cleaned)++;
    return st;
}

static void sentence_and_trail(void **state) {
    (void)state;
    nt_error_clear();
    assert_int_equal(nt_error_last()->code, NT_OK);
    int cleaned = 0;
    assert_int_equal(with_cleanup(&cleaned), NT_E_DATA);
    assert_int_equal(cleaned, 1);
    const struct nt_error *e = nt_error_last();
    assert_int_equal(e->code, NT_E_DATA);
    assert_string_equal(e->text, "file.bin: expected 7 bytes, found none");
    assert_int_equal(e->n_trail, 3);
    for (int i = 0; i < 3; i++) assert_non_null(strstr(e->trail[i].file, "test_status.c"));
    assert_true(e->trail[0].line < e->trail[1].line && e->trail[1].line < e->trail[2].line);
}

static void new_sentence_replaces_the_old(void **state) {
    (void)state;
    (void)middle();
    /* an argument may be the old sentence itself */
    (void)NT_FAIL(NT_E_IO, "row 3: %s", nt_error_last()->text);
    assert_string_equal(nt_error_last()->text, "row 3: file.bin: expected 7 bytes, found none");
    assert_int_equal(nt_error_last()->n_trail, 1);
    assert_int_equal(nt_error_last()->code, NT_E_IO);
}

static void long_sentence_shows_its_cut(void **state) {
    (void)state;
    char *big = malloc(3000);
    memset(big, 'a', 2999);
    big[2999] = '\0';
    (void)NT_FAIL(NT_E_DATA, "%s", big);
    free(big);
    size_t n = strlen(nt_error_last()->text);
    assert_int_equal(n, NT_ERROR_TEXT - 1);
    assert_string_equal(nt_error_last()->text + n - 3, "...");
}

static void trail_is_bounded(void **state) {
    (void)state;
    (void)middle();
    for (int i = 0; i < 3 * NT_ERROR_TRAIL; i++) assert_int_equal(nt_trail_at(NT_E_DATA, "x.c", i), NT_E_DATA);
    assert_int_equal(nt_error_last()->n_trail, NT_ERROR_TRAIL);
}

static void record_moves_between_threads(void **state) {
    (void)state;
    (void)middle();
    struct nt_error taken;
    nt_error_take(&taken);
    assert_int_equal(nt_error_last()->code, NT_OK);
    assert_int_equal(nt_error_last()->text[0], '\0');
    nt_error_give(&taken);
    assert_int_equal(nt_error_last()->code, NT_E_DATA);
    assert_int_equal(nt_error_last()->n_trail, 2);
    nt_error_give(nt_error_last());
    assert_int_equal(nt_error_last()->n_trail, 2);
}

static void exit_codes(void **state) {
    (void)state;
    assert_int_equal(nt_status_exit_code(NT_OK), 0);
    assert_int_equal(nt_status_exit_code(NT_E_USAGE), 2);
    assert_int_equal(nt_status_exit_code(NT_E_CONFIG), 78);
    assert_int_equal(nt_status_exit_code(NT_E_STOPPED), 85);
    assert_int_equal(nt_status_exit_code((nt_status)999), 70);
    assert_string_equal(nt_status_text((nt_status)999), "unknown status");
    for (int i = 0; i < NT_STATUS_COUNT; i++) {
        assert_true(strlen(nt_status_text((nt_status)i)) > 0);
        for (int j = 0; j < i; j++)
            assert_int_not_equal(nt_status_exit_code((nt_status)i), nt_status_exit_code((nt_status)j));
    }
}

static jmp_buf back;
static char bug_text[256];

static void jump_back(const char *file, int line, const char *text) {
    assert_non_null(strstr(file, "test_status.c"));
    assert_true(line > 0);
    (void)snprintf(bug_text, sizeof bug_text, "%s", text);
    longjmp(back, 1);
}

static void bug_reaches_the_hook(void **state) {
    (void)state;
    nt_bug_set_hook(jump_back);
    if (setjmp(back) == 0) {
        NT_CHECK(1 + 1 == 2);
        NT_CHECK(1 + 1 == 3);
        fail();
    }
    assert_string_equal(bug_text, "violated: 1 + 1 == 3");
    if (setjmp(back) == 0) nt_bug("row %d", 5);
    assert_string_equal(bug_text, "row 5");
    nt_bug_set_hook(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sentence_and_trail),           cmocka_unit_test(new_sentence_replaces_the_old),
        cmocka_unit_test(long_sentence_shows_its_cut),  cmocka_unit_test(trail_is_bounded),
        cmocka_unit_test(record_moves_between_threads), cmocka_unit_test(exit_codes),
        cmocka_unit_test(bug_reaches_the_hook),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
