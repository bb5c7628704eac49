/* JSON reading: types, refusals with origin and byte offset, exact integers, dump. */
#include "json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "strbuf.h"

static struct nt_json *parse(const char *text) {
    struct nt_json *doc = NULL;
    if (nt_json_parse(text, strlen(text), "x.json", &doc) != NT_OK) fail_msg("%s", nt_error_last()->text);
    return doc;
}

static void values_and_defaults(void **state) {
    (void)state;
    struct nt_json *doc = parse("{\"s\":\"a\\u0000b\\u00e4\",\"i\":-9223372036854775808,\"big\":9223372036854775807,"
                                "\"r\":2.5,\"whole\":4096.0,\"t\":true,\"z\":null,\"a\":[1,[],{}]}");
    size_t len = 0;
    const char *s = nt_json_str(nt_json_get(doc, "s"), &len);
    assert_int_equal(len, 5);
    assert_memory_equal(s, "a\0b\xc3\xa4", 6);
    assert_true(nt_json_int(nt_json_get(doc, "i"), 0) == INT64_MIN);
    assert_true(nt_json_int(nt_json_get(doc, "big"), 0) == INT64_MAX);
    assert_int_equal(nt_json_int(nt_json_get(doc, "r"), -7), -7);
    assert_int_equal(nt_json_int(nt_json_get(doc, "whole"), 0), 4096);
    assert_true(nt_json_num(nt_json_get(doc, "r"), 0) == 2.5);
    assert_true(nt_json_num(nt_json_get(doc, "whole"), 0) == 4096);
    assert_true(nt_json_bool(nt_json_get(doc, "t"), false));
    assert_true(nt_json_bool(nt_json_get(doc, "i"), true));
    assert_int_equal(nt_json_len(nt_json_get(doc, "a")), 3);
    assert_int_equal(nt_json_len(doc), 8);
    assert_int_equal(nt_json_len(nt_json_get(doc, "s")), 0);
    assert_int_equal(nt_json_int(nt_json_at(nt_json_get(doc, "a"), 0), 0), 1);
    assert_null(nt_json_at(nt_json_get(doc, "a"), 3));
    assert_null(nt_json_at(doc, 0));
    assert_null(nt_json_get(nt_json_get(doc, "a"), "x"));
    assert_null(nt_json_get(doc, "absent"));
    assert_null(nt_json_str(nt_json_get(doc, "i"), NULL));
    nt_json_free(doc);
}

static void types(void **state) {
    (void)state;
    struct nt_json *doc = parse("[null,false,1,1.0,\"\",[],{}]");
    static const char *const names[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
    for (int i = 0; i < 7; i++) {
        const struct nt_json *v = nt_json_at(doc, (size_t)i);
        assert_int_equal(nt_json_type(v), i);
        assert_string_equal(nt_json_type_name(v), names[i]);
        assert_true(nt_json_is(v, (enum nt_json_type)i));
    }
    assert_int_equal(nt_json_type(NULL), NT_JSON_NULL);
    assert_false(nt_json_is(NULL, NT_JSON_NULL)); /* absent is not null */
    assert_string_equal(nt_json_type_name(NULL), "nothing");
    nt_json_free(doc);
    nt_json_free(NULL);
}

static void objects_keep_their_order(void **state) {
    (void)state;
    struct nt_json *doc = parse("{\"zeta\":1,\"alpha\":2,\"mid\":3}");
    static const char *const keys[] = {"zeta", "alpha", "mid"};
    int n = 0;
    for (void *it = nt_json_first(doc); it; it = nt_json_next(doc, it)) {
        assert_string_equal(nt_json_key(it), keys[n++]);
        assert_int_equal(nt_json_int(nt_json_value(it), 0), n);
    }
    assert_int_equal(n, 3);
    nt_json_free(doc);
}

static void scalars_at_top(void **state) {
    (void)state;
    struct nt_json *doc = parse(" 5 ");
    assert_int_equal(nt_json_int(doc, 0), 5);
    nt_json_free(doc);
    doc = parse("\"x\"");
    assert_string_equal(nt_json_str(doc, NULL), "x");
    nt_json_free(doc);
}

static void refusals(void **state) {
    (void)state;
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"",                          "x.json: not valid JSON at byte 0"                   },
        {"{\"a\":1,\"b\":2,\"a\":3}", "byte 16 (line 1): duplicate object key near '\"a\"'"},
        {"{\"a\":1,}",                "byte 8"                                             },
        {"[1,2",                      "byte 4"                                             },
        {"[1] 2",                     "end of file expected"                               },
        {"{\"a\" 1}",                 "':' expected"                                       },
        {"[01]",                      "byte "                                              },
        {"[NaN]",                     "invalid token"                                      },
        {"[1e999]",                   "real number overflow"                               },
        {"[9223372036854775808]",     "too big integer"                                    },
        {"[\"\\ud800\"]",             "invalid Unicode"                                    },
        {"[\"\xff\"]",                "unable to decode byte 0xff"                         },
        {"[\"\xed\xa0\x80\"]",        "unable to decode byte 0xed"                         },
        {"[\"a\nb\"]",                "unexpected newline"                                 },
        {"{\"a\\u0000\":1}",          "NUL byte"                                           },
        {"\n\n{\"a\": tru}",          "line 3"                                             },
        {"'a'",                       "byte 1"                                             },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct nt_json *doc = NULL;
        assert_int_equal(nt_json_parse(rows[i].text, strlen(rows[i].text), "x.json", &doc), NT_E_DATA);
        assert_null(doc);
        if (!strstr(nt_error_last()->text, rows[i].says))
            fail_msg("row %zu: \"%s\" lacks \"%s\"", i, nt_error_last()->text, rows[i].says);
    }
}

/* As transformers writes it where a tokenizer has no limit. */
static void integers_beyond_64_bits(void **state) {
    (void)state;
    static const char text[] =
        "{\"s\": \"1000000000000000019884624838656 \\\" 9\",\n"
        " \"model_max_length\": 1000000000000000019884624838656, \"least\": [9223372036854775807,\n"
        " 9223372036854775808, -18446744073709551616, 12345678901234567890.5, 1.12345678901234567890123], \"b\": 7}";
    struct nt_json *doc = NULL;
    assert_int_equal(nt_json_parse_wide(text, sizeof text - 1, "x", &doc), NT_OK);
    const struct nt_json *max = nt_json_get(doc, "model_max_length"), *least = nt_json_get(doc, "least");
    assert_true(nt_json_is(max, NT_JSON_REAL) && fabs(nt_json_num(max, 0) / 1e30 - 1) < 1e-15);
    assert_string_equal(nt_json_str(nt_json_get(doc, "s"), NULL), "1000000000000000019884624838656 \" 9");
    assert_true(nt_json_int(nt_json_at(least, 0), 0) == INT64_MAX);
    static const double want[] = {9223372036854775808.0, -18446744073709551616.0, 12345678901234567890.5,
                                  1.12345678901234567890123};
    for (size_t i = 0; i < 4; i++) assert_true(fabs(nt_json_num(nt_json_at(least, i + 1), 0) / want[i] - 1) < 1e-15);
    assert_int_equal(nt_json_int(nt_json_get(doc, "b"), 0), 7);
    nt_json_free(doc);
    assert_int_equal(nt_json_parse_wide("[11111111111111111111, x]", 25, "x", &doc), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "byte 24"));
}

static void depth_is_limited(void **state) {
    (void)state;
    char *deep = malloc(100001);
    memset(deep, '[', 100000);
    deep[100000] = '\0';
    struct nt_json *doc = NULL;
    assert_int_equal(nt_json_parse(deep, 100000, "deep.json", &doc), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "maximum parsing depth"));
    free(deep);
}

static void dump_is_compact_and_rereads(void **state) {
    (void)state;
    static const char text[] = "{\"b\":[1,-2,0.1,1e+22,true,null],\"a\\n\":\"\xc3\xa4\\u0000\\\"\",\"o\":{},\"l\":[]}";
    struct nt_json *doc = parse(text);
    struct nt_strbuf out = NT_STRBUF_INIT;
    nt_json_dump(doc, &out);
    assert_string_equal(out.data, text);
    nt_strbuf_release(&out);
    nt_json_free(doc);
}

static void files(void **state) {
    (void)state;
    char path[] = "/tmp/nt_test_json_XXXXXX";
    FILE *f = fdopen(mkstemp(path), "w");
    assert_non_null(f);
    (void)fputs("{\"a\": [1, 2}", f);
    (void)fclose(f);
    struct nt_json *doc = NULL;
    assert_int_equal(nt_json_parse_file(path, 100, &doc), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, path));
    assert_int_equal(nt_json_parse_file(path, 5, &doc), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "at most 5"));
    (void)remove(path);
    assert_int_equal(nt_json_parse_file(path, 100, &doc), NT_E_NOINPUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_defaults),
        cmocka_unit_test(types),
        cmocka_unit_test(objects_keep_their_order),
        cmocka_unit_test(scalars_at_top),
        cmocka_unit_test(refusals),
        cmocka_unit_test(integers_beyond_64_bits),
        cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(dump_is_compact_and_rereads),
        cmocka_unit_test(files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
