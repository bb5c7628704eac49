/* The mark of success: its own job's is found, another's is refused, a torn one is not taken for either. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "complete.h"
#include "fileio.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char root[] = "/tmp/nt-complete-XXXXXX";

static void test_mark(void **state) {
    (void)state;
    uint8_t own[32], other[32];
    bool complete = true;
    char path[64], *text;
    size_t len;
    memset(own, 0xa5, sizeof own);
    memset(other, 0x5a, sizeof other);
    assert_int_equal(nt_path_join(path, sizeof path, root, "COMPLETE"), NT_OK);
    assert_int_equal(nt_complete_remove(root), NT_OK);
    assert_int_equal(nt_complete_find(root, own, &complete), NT_OK);
    assert_false(complete);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(nt_complete_write(root, own), NT_OK);
        assert_int_equal(nt_complete_find(root, own, &complete), NT_OK);
        assert_true(complete);
    }
    assert_int_equal(nt_file_read(path, 4096, &text, &len), NT_OK);
    assert_int_equal(len, 65);
    assert_int_equal(strspn(text, "a5"), 64);
    assert_int_equal(text[64], '\n');
    assert_int_equal(nt_complete_find(root, other, &complete), NT_E_DATA);
    assert_false(complete);
    assert_non_null(strstr(nt_error_last()->text, "--fresh"));
    assert_int_equal(nt_publish_bytes(path, text, 63, NT_PUBLISH_REPLACE), NT_OK);
    free(text);
    assert_int_equal(nt_complete_find(root, own, &complete), NT_E_DATA);
    assert_false(complete);
    assert_int_equal(nt_complete_remove(root), NT_OK);
    assert_false(nt_file_exists(path));
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mark)};
    return cmocka_run_group_tests(tests, make_root, drop_root);
}
