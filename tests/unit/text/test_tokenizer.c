/* The tokenizer's edges: streaming decode, trust, flags from tokenizer_config.json, patterns, long texts, threads, and
 * a table of malformed or unsupported files with their messages. */
#include "tok_check.h"
#include "tok_internal.h"

#include <pthread.h>

static struct nt_tokenizer *from_json(const char *json, const char *config) {
    struct nt_tokenizer *t;
    must(nt_tokenizer_from_json(json, strlen(json), "t.json", config, config ? strlen(config) : 0, &t));
    return t;
}

static struct nt_tokenizer *open_family(const char *name) {
    char *text;
    size_t len;
    struct nt_tokenizer *t;
    read_golden(name, "json", &text, &len);
    must(nt_tokenizer_from_json(text, len, name, NULL, 0, &t));
    free(text);
    return t;
}

static void expect_ids(const struct nt_tokenizer *t, const char *text, unsigned flags, const int32_t *want, int64_t n) {
    struct nt_ids ids = {0};
    must(nt_tokenizer_encode(t, text, strlen(text), flags, &ids));
    if (ids.len != n) fail_msg("\"%s\": %lld ids, expected %lld", text, (long long)ids.len, (long long)n);
    for (int64_t i = 0; i < n; i++) {
        if (ids.data[i] != want[i]) fail_msg("\"%s\": id %lld is %d, not %d", text, (long long)i, ids.data[i], want[i]);
    }
    nt_ids_release(&ids);
}

/* A vocabulary small enough to follow by hand: SentencePiece style with three byte tokens of U+20AC. */
#define SPM_HEAD                                                                                                       \
    "{\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true},{\"id\":1,\"content\":\"<s>\","              \
    "\"special\":true}],\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"     \
    "\"\\u2581\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\\u2581\"}]},"                    \
    "\"pre_tokenizer\":null,\"post_processor\":null,\"decoder\":{\"type\":\"Sequence\",\"decoders\":["                 \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\\u2581\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"       \
    "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},"
#define SPM_MODEL                                                                                                      \
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,\"vocab\":{"         \
    "\"<unk>\":0,\"<s>\":1,\"<0xE2>\":2,\"<0x82>\":3,\"<0xAC>\":4,\"\\u2581\":5,\"a\":6,\"b\":7,\"ab\":8,"             \
    "\"\\u2581ab\":9,\"aa\":10},\"merges\":[[\"a\",\"b\"],\"\\u2581 ab\",\"a a\"]}}"

static void test_spm_by_hand(void **state) {
    (void)state;
    struct nt_tokenizer *t =
        from_json(SPM_HEAD SPM_MODEL, "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"ab\"}}");
    expect_ids(t, "ab", 0, (const int32_t[]){9}, 1);
    expect_ids(t, "ab ab", 0, (const int32_t[]){9, 9}, 2);
    expect_ids(t, "aab", 0, (const int32_t[]){5, 6, 8}, 3);  /* rank, not position, decides */
    expect_ids(t, "aaa", 0, (const int32_t[]){5, 10, 6}, 3); /* equal rank: leftmost */
    expect_ids(t, "", 0, NULL, 0);
    expect_ids(t, "\xE2\x82\xAC", 0, (const int32_t[]){5, 2, 3, 4}, 4);
    expect_ids(t, "xyz", 0, (const int32_t[]){5, 0}, 2); /* no byte tokens for these: unknown, fused */
    expect_ids(t, "<s>ab", NT_TOK_PARSE_SPECIAL, (const int32_t[]){1, 9}, 2);
    assert_int_equal(nt_tokenizer_bos(t), 1);
    assert_int_equal(nt_tokenizer_eos(t), 8);
    int64_t n;
    const int32_t *stops = nt_tokenizer_stops(t, &n);
    assert_int_equal(n, 1);
    assert_int_equal(stops[0], 8);
    must(nt_tokenizer_add_stop(t, 1));
    must(nt_tokenizer_add_stop(t, 8));
    stops = nt_tokenizer_stops(t, &n);
    assert_int_equal(n, 2);
    assert_int_equal(stops[0], 1);
    assert_int_equal(nt_tokenizer_add_stop(t, 11), NT_E_DATA);
    size_t len;
    assert_string_equal(nt_tokenizer_describe(t), "SentencePiece-style BPE, 11 ids, 3 merges, 2 added tokens");
    assert_memory_equal(nt_tokenizer_piece(t, 9, &len), " ab", 3);
    assert_int_equal(len, 3);
    assert_memory_equal(nt_tokenizer_piece(t, 2, &len), "\xE2", 1);
    assert_null(nt_tokenizer_piece(t, 11, &len));
    assert_null(nt_tokenizer_piece(t, -1, &len));
    assert_true(nt_tokenizer_is_special(t, 1));
    assert_false(nt_tokenizer_is_special(t, 8));
    assert_int_equal(nt_tokenizer_find(t, "aa", 2), 10);
    assert_int_equal(nt_tokenizer_find(t, "ba", 2), -1);
    nt_tokenizer_free(t);
}

/* What each step of a streaming decode gives out. */
static void expect_stream(const struct nt_tokenizer *t, const int32_t *ids, const char *const *want, int64_t n,
                          const char *end) {
    struct nt_detok d = {0};
    struct nt_strbuf out = NT_STRBUF_INIT;
    nt_detok_init(&d, true);
    for (int round = 0; round < 2; round++) { /* finish makes it ready for reuse */
        for (int64_t i = 0; i < n; i++) {
            nt_strbuf_reset(&out);
            nt_detok_step(&d, t, ids[i], &out);
            assert_string_equal(nt_strbuf_cstr(&out), want[i]);
        }
        nt_strbuf_reset(&out);
        nt_detok_finish(&d, t, &out);
        assert_string_equal(nt_strbuf_cstr(&out), end);
    }
    nt_detok_release(&d);
    nt_strbuf_release(&out);
}

#define BAD "\xEF\xBF\xBD"

static void test_stream_spm(void **state) {
    (void)state;
    struct nt_tokenizer *t = from_json(SPM_HEAD SPM_MODEL, NULL);
    expect_stream(t, (const int32_t[]){1, 9, 9}, (const char *const[]){"", "ab", " ab"}, 3, "");
    expect_stream(t, (const int32_t[]){2, 3, 4, 6},
                  (const char *const[]){"", "", "",
                                        "\xE2\x82\xAC"
                                        "a"},
                  4, "");
    expect_stream(t, (const int32_t[]){6, 2, 3}, (const char *const[]){"a", "", ""}, 3, BAD BAD);
    expect_stream(t, (const int32_t[]){2, 6}, (const char *const[]){"", BAD "a"}, 2, "");
    expect_stream(t, (const int32_t[]){5, 5, 6, 999, -5}, (const char *const[]){"", " ", "a", "", ""}, 5, "");
    nt_tokenizer_free(t);
}

/* Byte-level: the bytes of a text one by one, as their own tokens. */
static void test_stream_bytes(void **state) {
    static const char text[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xF0\x9F\xC3(\xE2\x82";
    (void)state;
    struct nt_tokenizer *t = open_family("gpt2");
    struct nt_strbuf streamed = NT_STRBUF_INIT, whole = NT_STRBUF_INIT, step = NT_STRBUF_INIT;
    struct nt_detok d = {0};
    struct nt_ids ids = {0};
    for (size_t i = 0; i + 1 < sizeof text; i++) {
        char spelled[2];
        size_t len = nt_tok_byte_spelling((uint8_t)text[i], spelled);
        nt_ids_push(&ids, nt_tokenizer_find(t, spelled, len));
    }
    nt_tokenizer_decode(t, ids.data, ids.len, false, &whole);
    assert_string_equal(nt_strbuf_cstr(&whole), "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80" BAD BAD "(" BAD);
    nt_detok_init(&d, false);
    for (int64_t i = 0; i < ids.len; i++) {
        nt_strbuf_reset(&step);
        nt_detok_step(&d, t, ids.data[i], &step);
        assert_true(nt_utf8_valid(nt_strbuf_cstr(&step), step.len)); /* never half a character */
        nt_strbuf_add(&streamed, nt_strbuf_cstr(&step), step.len);
    }
    nt_detok_finish(&d, t, &streamed);
    assert_string_equal(nt_strbuf_cstr(&streamed), nt_strbuf_cstr(&whole));
    nt_detok_release(&d);
    nt_ids_release(&ids);
    nt_strbuf_release(&streamed);
    nt_strbuf_release(&whole);
    nt_strbuf_release(&step);
    nt_tokenizer_free(t);
}

/* Spans: control tokens count in trusted spans only, and never across a border. */
static void test_spans(void **state) {
    (void)state;
    static const char *const families[] = {"qwen2", "flags", "metaspace"}; /* the last: <s> is normalized:true */
    static const char *const tokens[] = {"<|im_start|>", "<N>", "<s>"};
    for (size_t f = 0; f < 3; f++) {
        struct nt_tokenizer *t = open_family(families[f]);
        const char *token = tokens[f];
        size_t len = strlen(token);
        int32_t id = nt_tokenizer_find(t, token, len);
        const struct {
            struct nt_tok_span span[3];
            int64_t count;
        } rows[] = {
            {{{token, len, true}, {"x", 1, false}, {token, len, true}},       2},
            {{{token, len, true}, {token, len, false}, {"x", 1, false}},      1},
            {{{token, 2, true}, {token + 2, len - 2, false}, {"x", 1, true}}, 0},
            {{{token, 2, false}, {token + 2, len - 2, true}, {"x", 1, true}}, 0},
            {{{token, 2, true}, {token + 2, len - 2, true}, {"x", 1, false}}, 1},
            {{{"a", 1, false}, {token, len, false}, {"b", 1, false}},         0},
        };
        for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
            struct nt_ids ids = {0};
            struct nt_strbuf text = NT_STRBUF_INIT, want = NT_STRBUF_INIT;
            int64_t n = 0;
            must(nt_tokenizer_encode_spans(t, rows[r].span, 3, 0, &ids));
            for (int64_t i = 0; i < ids.len; i++) n += ids.data[i] == id;
            if (n != rows[r].count) fail_msg("%s row %zu: %lld control tokens", families[f], r, (long long)n);
            nt_tokenizer_decode(t, ids.data, ids.len, false, &text);
            for (int k = 0; k < 3; k++) nt_strbuf_add(&want, rows[r].span[k].text, rows[r].span[k].len);
            if (f < 2) assert_string_equal(nt_strbuf_cstr(&text), nt_strbuf_cstr(&want));
            nt_strbuf_release(&text);
            nt_strbuf_release(&want);
            nt_ids_release(&ids);
        }
        nt_tokenizer_free(t);
    }
}

/* tokenizer_config.json overrides flags and adds tokens, as in transformers. */
static void test_config_overrides(void **state) {
    (void)state;
    static const char config[] = "{\"added_tokens_decoder\":{\"8\":{\"content\":\"ab\",\"special\":true},"
                                 "\"11\":{\"content\":\"<new>\",\"special\":true,\"lstrip\":true}}}";
    struct nt_tokenizer *plain = from_json(SPM_HEAD SPM_MODEL, NULL), *t = from_json(SPM_HEAD SPM_MODEL, config);
    assert_int_equal(nt_tokenizer_n_vocab(plain), 11);
    assert_int_equal(nt_tokenizer_n_vocab(t), 12);
    assert_true(nt_tokenizer_is_special(t, 8));
    expect_ids(t, "ab \t<new>b", NT_TOK_PARSE_SPECIAL, (const int32_t[]){8, 11, 5, 7}, 4);
    uint8_t a[NT_SHA256_BYTES], b[NT_SHA256_BYTES];
    nt_tokenizer_digest(plain, a);
    nt_tokenizer_digest(t, b);
    assert_memory_not_equal(a, b, sizeof a);
    struct nt_tokenizer *again = from_json(SPM_HEAD SPM_MODEL, NULL);
    nt_tokenizer_digest(again, b);
    assert_memory_equal(a, b, sizeof a);
    nt_tokenizer_free(plain);
    nt_tokenizer_free(t);
    nt_tokenizer_free(again);
}

static void test_regex(void **state) {
    (void)state;
    static const struct {
        const char *in, *out; /* out NULL: refused, naming err */
        const char *err;
    } rows[] = {
        {"a|b",                                     "a|b",                                     NULL                  },
        {"\\p{L}\\P{Lu}\\p{^N}",                    "\\p{L}\\P{Lu}\\P{N}",                     NULL                  },
        {"\\p{Han}[\\p{Hiragana}]",                 "\\p{sc:Han}[\\p{sc:Hiragana}]",           NULL                  },
        {"\\p{Letter}",                             "\\p{L}",                                  NULL                  },
        {"\\d[\\D]",                                "\\p{Nd}[\\P{Nd}]",                        NULL                  },
        {"\\h",                                     "[0-9a-fA-F]",                             NULL                  },
        {"\\v",                                     "\\x{B}",                                  NULL                  },
        {"\\u00e9\\x41\\x{1F600}",                  "\\x{00e9}\\x{41}\\x{1F600}",              NULL                  },
        {"(?i:x)(?m:.)(?=y)(?!z)(?<=a)(?<!b)(?>c)", "(?i:x)(?s:.)(?=y)(?!z)(?<=a)(?<!b)(?>c)", NULL                  },
        {"a{2}b{2,}c{2,3}",                         "a{2}b{2,}c{2,3}",                         NULL                  },
        {"\\-\\.\\[",                               "\\-\\.\\[",                               NULL                  },
        {"[a&&b]",                                  NULL,                                      "intersection"        },
        {"[a[b]]",                                  NULL,                                      "class inside a class"},
        {"[]",                                      NULL,                                      "empty class"         },
        {"[a",                                      NULL,                                      "class without ]"     },
        {"a{,3}",                                   NULL,                                      "this use of {"       },
        {"a{1,2}+",                                 NULL,                                      "a + after"           },
        {"(?<name>x)",                              NULL,                                      "kind of group"       },
        {"\\G",                                     NULL,                                      "\\G"                 },
        {"\\1",                                     NULL,                                      "\\1"                 },
        {"\\K",                                     NULL,                                      "\\K"                 },
        {"\\p{L",                                   NULL,                                      "without }"           },
        {"\\pL",                                    NULL,                                      "without braces"      },
        {"[\\W]",                                   NULL,                                      "\\W"                 },
        {"x\\",                                     NULL,                                      "backslash at the end"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct nt_strbuf out = NT_STRBUF_INIT;
        nt_status st = nt_tok_regex_translate(rows[i].in, strlen(rows[i].in), "t.json", "Split", &out);
        if (rows[i].out) {
            must(st);
            assert_string_equal(nt_strbuf_cstr(&out), rows[i].out);
        } else {
            assert_int_equal(st, NT_E_UNSUPPORTED);
            if (!strstr(nt_error_last()->text, rows[i].err)) fail_msg("%s: %s", rows[i].in, nt_error_last()->text);
        }
        nt_strbuf_release(&out);
    }
}

/* One long word, runs of each kind: linear time and no limit hit. */
static void test_long_texts(void **state) {
    static const char *const families[] = {"llama3", "tekken", "smollm2", "gemma"};
    static const char *const units[] = {" ", "a", "A", "\n", "1", "\xC3\x89", "\xE4\xB8\xAD", "-", "Aa ", "<|", "\xFF"};
    (void)state;
    for (size_t f = 0; f < 4; f++) {
        struct nt_tokenizer *t = open_family(families[f]);
        for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
            struct nt_strbuf text = NT_STRBUF_INIT, back = NT_STRBUF_INIT, want = NT_STRBUF_INIT;
            struct nt_ids ids = {0};
            while (text.len < 300000) nt_strbuf_adds(&text, units[u]);
            must(nt_tokenizer_encode(t, text.data, text.len, 0, &ids));
            nt_tokenizer_decode(t, ids.data, ids.len, false, &back);
            nt_utf8_add_lossy(&want, text.data, text.len);
            assert_int_equal(back.len, want.len);
            assert_memory_equal(back.data, want.data, want.len);
            nt_ids_release(&ids);
            nt_strbuf_release(&text);
            nt_strbuf_release(&back);
            nt_strbuf_release(&want);
        }
        nt_tokenizer_free(t);
    }
}

/* A pattern that backtracks without end is stopped by its limits, with an error that names the file. */
static void test_runaway_pattern(void **state) {
    (void)state;
    struct nt_tokenizer *t =
        from_json("{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
                  "{\"Regex\":\"(?:a|aa)+[xy]\"},\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\","
                  "\"add_prefix_space\":false,\"use_regex\":false}]},\"decoder\":{\"type\":\"ByteLevel\"},"
                  "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
                  NULL);
    char text[300];
    struct nt_ids ids = {0};
    memset(text, 'a', sizeof text);
    assert_int_equal(nt_tokenizer_encode(t, text, sizeof text, 0, &ids), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "t.json: the pre-tokenizer pattern failed"));
    must(nt_tokenizer_encode(t, text, 10, 0, &ids)); /* and the tokenizer stays usable */
    assert_int_equal(ids.len, 10);
    nt_ids_release(&ids);
    nt_tokenizer_free(t);
}

struct thread_job {
    const struct nt_tokenizer *t;
    uint64_t hash;
};

static void *encode_some(void *arg) {
    struct thread_job *job = arg;
    struct tok_strings strings;
    struct nt_strbuf text = NT_STRBUF_INIT;
    struct nt_ids ids = {0};
    if (tok_strings_open(&strings, NT_TEST_DIR) != NT_OK) return NULL;
    for (int i = 0; i < 800; i++) {
        tok_strings_make(&strings, i, &text);
        if (nt_tokenizer_encode(job->t, nt_strbuf_cstr(&text), text.len, NT_TOK_PARSE_SPECIAL, &ids) != NT_OK)
            return NULL;
    }
    job->hash = nt_xxh64(ids.data, (size_t)ids.len * sizeof *ids.data, 1);
    nt_ids_release(&ids);
    nt_strbuf_release(&text);
    tok_strings_close(&strings);
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    struct nt_tokenizer *t = open_family("qwen2");
    struct thread_job job[4];
    pthread_t thread[4];
    for (int i = 0; i < 4; i++) {
        job[i] = (struct thread_job){.t = t};
        assert_int_equal(pthread_create(&thread[i], NULL, encode_some, &job[i]), 0);
    }
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_true(job[0].hash != 0);
    for (int i = 1; i < 4; i++) assert_true(job[i].hash == job[0].hash);
    nt_tokenizer_free(t);
}

/* ---- malformed and unsupported files ---- */

#define DEC                  "\"decoder\":{\"type\":\"ByteLevel\"},"
#define PRE                  "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
#define MODEL(vocab, merges) "\"model\":{\"type\":\"BPE\",\"vocab\":{" vocab "},\"merges\":[" merges "]}}"
#define OK_MODEL             MODEL("\"a\":0,\"b\":1,\"ab\":2", "\"a b\"")

static const struct bad_row {
    const char *json;
    nt_status status;
    const char *says;
} bad_rows[] = {
    {"",                                                                                                              NT_E_DATA,                                                                                    "t.json"                                                                                                                                            },
    {"[]",                                                                                                            NT_E_DATA,                                                                                    "no \"model\" object"                                                                                                                               },
    {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}",                                                               NT_E_UNSUPPORTED,                                                                             "model \"Unigram\""                                                                                                                                 },
    {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}",                                                             NT_E_UNSUPPORTED,                                                                             "model \"WordPiece\""                                                                                                                               },
    {"{" PRE DEC "\"model\":{\"type\":\"BPE\",\"merges\":[]}}",                                                       NT_E_DATA,                                                                                    "model.vocab"                                                                                                                                       },
    {"{" PRE DEC "\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}",                                          NT_E_DATA,                                                                                    "model.vocab"                                                                                                                                       },
    {"{" PRE DEC "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}",                                                 NT_E_DATA,                                                                                    "model.merges is"                                                                                                                                   },
    {"{" PRE DEC MODEL("\"a\":0,\"b\":0",                                                                             ""),                                                                                          NT_E_DATA,                                                                                                                                            "two tokens"},
    {"{" PRE DEC MODEL("\"a\":-1",                                                                                                               ""),                                                                                                                                                                                NT_E_DATA,                                                                                                                                                                                                                   "id -1"},
    {"{" PRE DEC MODEL("\"a\":16000000",                                                                                                        ""),                                                                                                                                                                                                    NT_E_DATA,                                                                                                     "id 16000000"},
    {"{" PRE DEC MODEL("\"a\":9223372036854775807",                                                                                                      ""),NT_E_DATA,                                  "outside"},
    {"{" PRE DEC MODEL("\"a\":\"0\"",       ""),                                                                                                         NT_E_DATA,                                                                                                                                                                                                                   "expected an integer"},
    {"{" PRE DEC MODEL("\"a\":0.5",                                                                                 ""),                                                                                                                                                                    NT_E_DATA,                                                                                                                                                                                                       "expected an integer"},
    {"{" PRE DEC MODEL("\"a\":0,\"b\":1",                                                                                                               "\"a b\""),                                                                                                                                                                               NT_E_DATA,                                                                                                                                                                                                                                                "model.merges[0]"},
    {"{" PRE DEC MODEL("\"a\":0,\"ab\":1",                                                                                          "\"a b\""),                                                                                                                                                                                      NT_E_DATA,                                                                                                  "model.merges[0]"},
    {"{" PRE DEC MODEL("\"a\":0,\"b\":1,\"ab\":2",                                                                                                      "\"ab\""),   NT_E_DATA,"\"left right\""},
    {"{" PRE DEC MODEL("\"a\":0,\"b\":1,\"ab\":2",            "\"a  b\""),NT_E_DATA,"\"left right\""},
    {"{" PRE DEC MODEL("\"a\":0,\"b\":1,\"ab\":2",                                                                    "[\"a\"]"),                                                  NT_E_DATA,                                                                                                                                                                                           "\"left right\""},
    {"{" PRE DEC MODEL("\"a\":0,\"b\":1,\"ab\":2",                                                                                                               "[\"a\",1]"),                                                                                                                                                                NT_E_DATA,                                                                                                                                                                                                                                                                                              "\"left right\""},
    {"{" PRE DEC "\"model\":{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{\"a\":0},\"merges\":[]}}",                                                                                               NT_E_UNSUPPORTED,
     "dropout"                                                                                                                                                                                                                                                                                                                                                        },
    {"{" PRE DEC "\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\",\"vocab\":{\"a\":0},\"merges\":[]}}",
     NT_E_UNSUPPORTED,                                                                                                                                 "end_of_word_suffix"                                                                                          },
    {"{" PRE DEC "\"model\":{\"type\":\"BPE\",\"unk_token\":\"?\",\"vocab\":{\"a\":0},\"merges\":[]}}",NT_E_DATA,
     "unk_token"},
    {"{\"normalizer\":{\"type\":\"Lowercase\"}," PRE DEC OK_MODEL,                   NT_E_UNSUPPORTED, "normalizer \"Lowercase\""                                                                                                                                                                                                                                                                                                                                                          },
    {"{\"normalizer\":{\"type\":\"Precompiled\"}," PRE DEC OK_MODEL,   NT_E_UNSUPPORTED,                                                                                                                                                                                              "normalizer \"Precompiled\""                                                                                                                                                                                             },
    {"{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x\"},\"content\":\"\"}," PRE DEC OK_MODEL,
     NT_E_UNSUPPORTED,                                                                                                              "String pattern only"                                                                                                                                                                                                                                                                                                                                                        },
    {"{\"normalizer\":[]," PRE DEC OK_MODEL,                                                    NT_E_DATA,                                                                                                              "expected an object"                                                                                                                                                                                                                                       },
    {"{\"pre_tokenizer\":{\"type\":\"Whitespace\"}," DEC OK_MODEL,                                                  NT_E_UNSUPPORTED,                                                                                                                            "pre_tokenizer \"Whitespace\""                                                      },
    {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"Digits\"}]}"
     "," DEC OK_MODEL,
     NT_E_UNSUPPORTED,                                                                                                                                                                                              "after ByteLevel"                                                                                                                                                                                                               },
    {"{\"pre_tokenizer\":{\"type\":\"Sequence\"}," DEC OK_MODEL,                                                                          NT_E_DATA,                                                                                                          "without \"pretokenizers\""                                                                                                                            },
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}," DEC OK_MODEL,
     NT_E_DATA,                                                                               "does not compile"                                                                         },
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Odd\"}," DEC OK_MODEL,
     NT_E_DATA,                                                                                                                                                                                              "behavior \"Odd\""                                                                                                                                   },
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":7,\"behavior\":\"Isolated\"}," DEC OK_MODEL,                                                      NT_E_DATA,
     "Regex or String"                                                                               },
    {"{" PRE OK_MODEL, NT_E_UNSUPPORTED,                                                                                                                                                                                                     "no decoder"                                                                                                                                                                                                                                                        },
    {"{" PRE "\"decoder\":{\"type\":\"CTC\"}," OK_MODEL,      NT_E_UNSUPPORTED,                                                                                                                                                                                                     "decoder \"CTC\""                                                                                                                                         },
    {"{" DEC OK_MODEL,                 NT_E_UNSUPPORTED,                                               "both be ByteLevel"                                                                                                                                                                                                                                                                                                                                                  },
    {"{\"post_processor\":{\"type\":\"BertProcessing\"}," PRE DEC OK_MODEL,                                                                                                NT_E_UNSUPPORTED,
     "post_processor \"BertProcessing\""                                                                                                               },
    {"{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}],"
     "\"special_tokens\":{}}," PRE DEC OK_MODEL,
     NT_E_DATA,                                                                                                                                     "without ids"                                                                   },
    {"{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}],"
     "\"special_tokens\":{\"x\":{\"ids\":[77]}}}," PRE DEC OK_MODEL,
     NT_E_DATA,                                                                                                                                                            "outside the vocabulary"                                                                                                                                                                                                                                              },
    {"{\"added_tokens\":[{\"id\":9,\"content\":\"a\"}]," PRE DEC OK_MODEL,                                           NT_E_DATA,                        "the vocabulary gives it 0"                                                                                                                                                                                                                                                                                                                                },
    {"{\"added_tokens\":[{\"id\":1,\"content\":\"new\"}]," PRE DEC OK_MODEL,                                                                 NT_E_DATA,                                                                                                                                                                                                     "two tokens"                                                                                                                                                                                                       },
    {"{\"added_tokens\":[{\"content\":\"new\"}]," PRE DEC OK_MODEL,                                             NT_E_DATA,                                                                                                                                                                                                     "added_tokens"                                                                                                                                                                     },
    {"{\"added_tokens\":[{\"id\":3}]," PRE DEC OK_MODEL,                                            NT_E_DATA,                                                                                     "added_tokens"                                                                                                                                                                                      },
    {"{\"added_tokens\":[{\"id\":2000000000,\"content\":\"x\"}]," PRE DEC OK_MODEL,                                          NT_E_DATA,                                                             "2000000000"},
};

static void test_malformed(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad_rows / sizeof bad_rows[0]; i++) {
        const struct bad_row *r = &bad_rows[i];
        struct nt_tokenizer *t = NULL;
        nt_status st = nt_tokenizer_from_json(r->json, strlen(r->json), "t.json", NULL, 0, &t);
        if (st != r->status) fail_msg("row %zu %s: status %d: %s", i, r->json, st, nt_error_last()->text);
        if (!strstr(nt_error_last()->text, r->says)) fail_msg("row %zu: \"%s\"", i, nt_error_last()->text);
        assert_non_null(strstr(nt_error_last()->text, "t.json"));
        assert_null(t);
    }
    struct nt_tokenizer *t = from_json("{" PRE DEC OK_MODEL, NULL); /* the frame of the rows is a good one */
    expect_ids(t, "abba", 0, (const int32_t[]){2, 1, 0}, 3);
    nt_tokenizer_free(t);
}

static void test_malformed_parts(void **state) {
    (void)state;
    static const struct nt_tok_str tokens[] =
        {
            {"a",  1},
            {"b",  1},
            {"ab", 2}
    },
                                   bad_merge[] = {{"a c", 3}}, good_merge[] = {{"a b", 3}},
                                   twice[] = {{"a", 1}, {"b", 1}, {"a", 1}},
                                   latin1[] = {{"a", 1}, {"b", 1}, {"\xE9", 1}};
    static const float scores[] = {0, 0, 1}, nan_scores[] = {0, 0, __builtin_nanf("")};
    static const int32_t types[] = {1, 1, 1}, bad_types[] = {1, 1, 9};
#define BASE .tokens = tokens, .n_tokens = 3, .types = types, .n_types = 3
    const struct {
        const char *says;
        nt_status status;
        struct nt_tok_parts p;
    } rows[] = {
        {"tokens is missing",     NT_E_DATA,        {.model = "gpt2"}                                                                   },
        {"token_type is missing", NT_E_DATA,        {.model = "gpt2", .tokens = tokens, .n_tokens = 3}                                  },
        {"token_type[2]",
         NT_E_DATA,                                 {.model = "gpt2", .tokens = tokens, .n_tokens = 3, .types = bad_types, .n_types = 3}},
        {"token_type has 1",
         NT_E_DATA,                                 {.model = "gpt2", .tokens = tokens, .n_tokens = 3, .types = types, .n_types = 1}    },
        {"model \"bert\"",        NT_E_UNSUPPORTED, {.model = "bert", BASE}                                                             },
        {"model \"(none)\"",      NT_E_UNSUPPORTED, {BASE}                                                                              },
        {"pre \"strange\"",       NT_E_UNSUPPORTED, {.model = "gpt2", .pre = "strange", BASE}                                           },
        {"merges is missing",     NT_E_DATA,        {.model = "gpt2", BASE}                                                             },
        {"merges[0]",             NT_E_DATA,        {.model = "gpt2", BASE, .merges = bad_merge, .n_merges = 1}                         },
        {"scores is missing",     NT_E_DATA,        {.model = "llama", BASE}                                                            },
        {"scores has 2",          NT_E_DATA,        {.model = "llama", BASE, .scores = scores, .n_scores = 2}                           },
        {"scores[2]",             NT_E_DATA,        {.model = "llama", BASE, .scores = nan_scores, .n_scores = 3}                       },
        {"two ids",               NT_E_DATA,        {.model = "gpt2", .tokens = twice, .n_tokens = 3, .types = types, .n_types = 3}     },
        {"not UTF-8",             NT_E_DATA,        {.model = "gpt2", .tokens = latin1, .n_tokens = 3, .types = types, .n_types = 3}    },
        {"bos_token_id is 7",     NT_E_DATA,        {.model = "gpt2", BASE, .merges = good_merge, .n_merges = 1, .bos = 7}              },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct nt_tok_parts p = rows[i].p;
        struct nt_tokenizer *t = NULL;
        p.origin = "m.gguf";
        if (p.bos != 7) p.bos = -1;
        p.eos = p.eot = p.eom = p.unk = p.pad = -1;
        nt_status st = nt_tokenizer_from_parts(&p, &t);
        if (st != rows[i].status) fail_msg("row %zu: status %d: %s", i, st, nt_error_last()->text);
        if (!strstr(nt_error_last()->text, rows[i].says)) fail_msg("row %zu: \"%s\"", i, nt_error_last()->text);
        assert_non_null(strstr(nt_error_last()->text, "m.gguf"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spm_by_hand),      cmocka_unit_test(test_stream_spm),
        cmocka_unit_test(test_stream_bytes),     cmocka_unit_test(test_spans),
        cmocka_unit_test(test_config_overrides), cmocka_unit_test(test_regex),
        cmocka_unit_test(test_long_texts),       cmocka_unit_test(test_threads),
        cmocka_unit_test(test_runaway_pattern),  cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_malformed_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
