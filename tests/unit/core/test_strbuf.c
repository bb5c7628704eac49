/* Growable strings, and JSON text as Python's json.dumps(ensure_ascii=False) writes it. */
#include "strbuf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void appends_grow_and_terminate(void **state) {
    (void)state;
    struct nt_strbuf s = NT_STRBUF_INIT;
    assert_string_equal(nt_strbuf_cstr(&s), "");
    nt_strbuf_reset(&s);
    for (int i = 0; i < 1000; i++) nt_strbuf_addf(&s, "%03d,", i);
    assert_int_equal(s.len, 4000);
    assert_memory_equal(s.data + 3996, "999,", 5);
    nt_strbuf_reset(&s);
    assert_string_equal(nt_strbuf_cstr(&s), "");
    nt_strbuf_add(&s, "a\0b", 3);
    nt_strbuf_adds(&s, "cd");
    nt_strbuf_addc(&s, 'e');
    assert_int_equal(s.len, 6);
    assert_memory_equal(s.data, "a\0bcde", 7);
    nt_strbuf_add(&s, NULL, 0);
    nt_strbuf_addf(&s, "%s", "");
    assert_int_equal(s.len, 6);
    nt_strbuf_release(&s);
    assert_null(s.data);
    nt_strbuf_release(&s);
}

struct string_row {
    const char *bytes;
    size_t n;
    const char *json;
};
#define ROW(bytes, json)                                                                                               \
    { bytes, sizeof(bytes) - 1, json }

static void json_strings(void **state) {
    (void)state;
    static const struct string_row rows[] = {
        ROW("", "\"\""),
        ROW("plain", "\"plain\""),
        ROW("q\"b\\s/", "\"q\\\"b\\\\s/\""),
        ROW("\b\f\n\r\t", "\"\\b\\f\\n\\r\\t\""),
        ROW("\0\x01\x1f", "\"\\u0000\\u0001\\u001f\""),
        ROW("\x7f", "\"\x7f\""),
        ROW("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\""),
        ROW("\xe2\x80\xa8", "\"\xe2\x80\xa8\""), /* U+2028 stays */
        /* bad UTF-8: as bytes.decode("utf-8", "replace") */
        ROW("a\xff"
            "b",
            "\"a\xef\xbf\xbd"
            "b\""),
        ROW("\xc3", "\"\xef\xbf\xbd\""),
        ROW("\xe2\x82", "\"\xef\xbf\xbd\""),
        ROW("\xf0\x9f\x98x", "\"\xef\xbf\xbdx\""),
        ROW("\xc0\xaf", "\"\xef\xbf\xbd\xef\xbf\xbd\""),
        ROW("\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""),
        ROW("\xf4\x90\x80\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""),
        ROW("\x80\"", "\"\xef\xbf\xbd\\\"\""),
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct nt_strbuf s = NT_STRBUF_INIT;
        nt_strbuf_add_json(&s, rows[i].bytes, rows[i].n);
        assert_string_equal(s.data, rows[i].json);
        assert_int_equal(s.len, strlen(rows[i].json));
        nt_strbuf_release(&s);
    }
}

static void json_numbers_as_python(void **state) {
    (void)state;
    FILE *f = fopen(NT_TEST_DIR "/unit/core/json_numbers.txt", "r");
    assert_non_null(f);
    unsigned long long bits = 0;
    char want[64];
    int n = 0;
    while (fscanf(f, "%llx %63s", &bits, want) == 2) {
        double v = 0;
        memcpy(&v, &bits, sizeof v);
        struct nt_strbuf s = NT_STRBUF_INIT;
        nt_strbuf_add_json_num(&s, v);
        assert_string_equal(s.data, want);
        nt_strbuf_release(&s);
        n++;
    }
    (void)fclose(f);
    assert_int_equal(n, 400);
}

static void not_finite_is_null(void **state) {
    (void)state;
    struct nt_strbuf s = NT_STRBUF_INIT;
    nt_strbuf_add_json_num(&s, __builtin_nan(""));
    nt_strbuf_add_json_num(&s, __builtin_inf());
    nt_strbuf_add_json_num(&s, -__builtin_inf());
    assert_string_equal(s.data, "nullnullnull");
    nt_strbuf_release(&s);
}

/* What would move the cursor, end the line or turn the text around is spelled out; all else stays. */
static void shown_on_a_terminal(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *shown;
    } cases[] = {
        {"",                                             0,  ""                                         },
        {"a \"b\" \\ ~",                                 9,  "a \"b\" \\ ~"                             },
        {"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80",    14, "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"a\nb\r\tc",                                    6,  "a\\nb\\r\\tc"                             },
        {"\033[2J\0\a\177",                              7,  "\\x1b[2J\\x00\\x07\\x7f"                  },
        {"\xc2\x9b"
         "31m\xc2\xa0",                         7,  "\\u009b31m\xc2\xa0"                       },
        {"\x9b"
         "31m\xe9\xe2\x82",                     7,  "\\x9b31m\\xe9\\xe2\\x82"                  },
        {"\xe2\x80\xae"
         "abc\xe2\x80\xa8\xe2\x81\xa6\xd8\x9c", 14, "\\u202eabc\\u2028\\u2066\\u061c"          },
        {"\xc0\x80\xed\xa0\x80",                         5,  "\\xc0\\x80\\xed\\xa0\\x80"                },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nt_strbuf s = NT_STRBUF_INIT;
        nt_strbuf_add_shown(&s, cases[i].bytes, cases[i].n);
        assert_string_equal(nt_strbuf_cstr(&s), cases[i].shown);
        nt_strbuf_release(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_grow_and_terminate), cmocka_unit_test(json_strings),
        cmocka_unit_test(json_numbers_as_python),     cmocka_unit_test(not_finite_is_null),
        cmocka_unit_test(shown_on_a_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
