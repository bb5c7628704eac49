/* JSONL -> HDF5 corpus -> JSONL, the corpus as input of generate, consent, damaged and foreign files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "corpus_h5.h"
#include "fileio.h"
#include "hdf5file.h"
#include "journal.h"
#include "reader.h"
#include "request_json.h"
#include "transfer.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64], jsonl[96], h5[96], back[96], hurt[96];
static struct nt_config config;

static int make_dir(void **state) {
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/nt-corpus-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    (void)snprintf(jsonl, sizeof jsonl, "%s/in.jsonl", dir);
    (void)snprintf(h5, sizeof h5, "%s/c.h5", dir);
    (void)snprintf(back, sizeof back, "%s/back.jsonl", dir);
    (void)snprintf(hurt, sizeof hurt, "%s/hurt.h5", dir);
    nt_config_init(&config);
    return 0;
}

static int remove_dir(void **state) {
    (void)state;
    char cmd[128];
    nt_config_release(&config);
    (void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

/* One good row per line; every shape of content, key order, escapes, numbers, unusual but legal keys. */
static const char *const rows[] = {
    "{\"custom_id\":\"a-1\",\"method\":\"POST\",\"url\":\"/v1/chat/"
    "completions\",\"body\":{\"model\":\"m\",\"messages\":["
    "{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"user\",\"content\":\"h\xc3\xa9llo \xf0\x9f\x98\x80 "
    "\\u0000 end\"}],"
    "\"temperature\":0.7,\"max_tokens\":5,\"stop\":[\"\\n\",\"x\"],\"metadata\":{\"k\":[1,2.5,null,true]}}}",
    "{\"body\":{\"temperature\":1,\"messages\":[{\"content\":\"order\",\"role\":\"user\"}]},\"url\":\"/v1/chat/"
    "completions\","
    "\"method\":\"POST\",\"custom_id\":\"a-2\"}",
    "{\"messages\":[{\"role\":\"developer\",\"content\":\"d\"},{\"role\":\"user\",\"name\":\"bob\",\"content\":[{"
    "\"type\":"
    "\"text\",\"text\":\"one\"},{\"type\":\"text\",\"text\":\"two\"}]}],\"user\":\"u1\",\"seed\":9223372036854775807}",
    "{\"prompt\":\"Once upon a time\",\"logprobs\":3}",
    "{\"top_k\":5,\"prompt\":[1,2,3],\"custom_id\":\"ids\"}",
    "{\"prompt\":[\"single\"],\"user\":\"u2\"}",
    "{\"custom_id\":\"c\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":[[7]],\"user\":\"u1\","
    "\"suffix\":null}}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"\"},{\"role\":\"assistant\",\"content\":\"x\",\"refusal\":null},"
    "{\"role\":\"tool\",\"content\":\"t\",\"tool_call_id\":\"id\"}],\"logit_bias\":{\"5\":-1.25e-3,\"3\":1}}",
};
enum { N_ROWS = sizeof rows / sizeof *rows };

static void put_rows(const char *between) {
    struct nt_strbuf s = NT_STRBUF_INIT;
    for (int i = 0; i < N_ROWS; i++) {
        nt_strbuf_adds(&s, rows[i]);
        nt_strbuf_addc(&s, '\n');
        nt_strbuf_adds(&s, between);
    }
    assert_int_equal(nt_publish_bytes(jsonl, s.data, s.len, NT_PUBLISH_REPLACE), NT_OK);
    nt_strbuf_release(&s);
}

static void import_with(uint32_t consent, int64_t n_rows, int64_t n_errors) {
    struct nt_transfer t;
    if (nt_import(jsonl, h5, consent, &config, &t) != NT_OK) fail_msg("%s", nt_error_last()->text);
    assert_int_equal(t.n_rows, n_rows);
    assert_int_equal(t.n_errors, n_errors);
    assert_int_equal(nt_file_exists(t.errors), n_errors > 0);
}

static void test_round_trip(void **state) {
    (void)state;
    struct nt_transfer t;
    char *text = NULL;
    size_t len = 0;
    put_rows("");
    import_with(NT_PURPOSE_GENERATE, N_ROWS, 0);
    assert_int_equal(nt_export(h5, back, &t), NT_OK);
    assert_int_equal(t.n_rows, N_ROWS);
    assert_int_equal(nt_file_read(back, 1 << 20, &text, &len), NT_OK);
    char *line = text;
    for (int i = 0; i < N_ROWS; i++) {
        struct nt_json *a = NULL, *b = NULL;
        struct nt_strbuf x = NT_STRBUF_INIT, y = NT_STRBUF_INIT;
        char *end = strchr(line, '\n');
        assert_non_null(end);
        assert_int_equal(nt_json_parse(rows[i], strlen(rows[i]), "row", &a), NT_OK);
        assert_int_equal(nt_json_parse(line, (size_t)(end - line), "line", &b), NT_OK);
        nt_json_dump(a, &x); /* keeps order and every value */
        nt_json_dump(b, &y);
        assert_string_equal(x.data, y.data);
        assert_int_equal(x.len, y.len);
        nt_strbuf_release(&x);
        nt_strbuf_release(&y);
        nt_json_free(a);
        nt_json_free(b);
        line = end + 1;
    }
    assert_int_equal(*line, '\0');
    free(text);
}

/* generate sees the same requests in either form, with every subset of rows read. */
static void test_same_requests(void **state) {
    (void)state;
    put_rows("");
    import_with(NT_PURPOSE_GENERATE | NT_PURPOSE_TRAIN, N_ROWS, 0);
    int64_t n = 0;
    uint8_t digest[32];
    assert_int_equal(nt_reader_scan(h5, &n, digest), NT_OK);
    assert_int_equal(n, N_ROWS);
    for (int step = 1; step < 4; step++) {
        struct nt_reader *a = NULL, *b = NULL;
        assert_int_equal(nt_reader_open(&a, jsonl, &config), NT_OK);
        assert_int_equal(nt_reader_open(&b, h5, &config), NT_OK);
        struct nt_request p, q;
        for (int64_t row = step - 1; row < N_ROWS; row += step) {
            assert_int_equal(nt_reader_row(a, row, &p), NT_OK);
            assert_int_equal(nt_reader_row(b, row, &q), NT_OK);
            assert_null(p.error);
            assert_null(q.error);
            assert_memory_equal(p.digest, q.digest, 32);
            assert_string_equal(p.custom_id, q.custom_id);
            assert_int_equal(p.kind, q.kind);
            assert_int_equal(q.line, 0);
            nt_request_release(&p);
            nt_request_release(&q);
        }
        assert_int_equal(nt_reader_row(b, N_ROWS, &q), NT_E_DATA);
        nt_reader_close(a);
        nt_reader_close(b);
    }
}

/* Bad rows are left out with their lines and the others are not disturbed. */
static void test_bad_rows(void **state) {
    (void)state;
    char *text = NULL;
    size_t len = 0;
    char path[128];
    put_rows("broken\n");
    import_with(NT_PURPOSE_GENERATE, N_ROWS, N_ROWS);
    (void)snprintf(path, sizeof path, "%s.errors.jsonl", h5);
    assert_int_equal(nt_file_read(path, 1 << 20, &text, &len), NT_OK);
    assert_non_null(strstr(text, "line 16: not valid JSON"));
    assert_non_null(strstr(text, "\"line\": 2, \"row\": 1}"));
    free(text);
    put_rows("");
    import_with(NT_PURPOSE_GENERATE, N_ROWS, 0); /* and the errors file of before is gone */
    struct nt_transfer t;
    assert_int_equal(nt_import(h5, back, 1, &config, &t), NT_E_USAGE);
    assert_int_equal(nt_import(jsonl, jsonl, 1, &config, &t), NT_E_USAGE);
}

static void test_consent(void **state) {
    (void)state;
    int64_t n = -1;
    uint8_t digest[32];
    struct nt_reader *r = NULL;
    struct nt_request q;
    struct nt_transfer t;
    put_rows("");
    static const struct {
        uint32_t consent;
        int64_t n;
    } cases[] = {
        {0,                                                          0     },
        {NT_PURPOSE_TRAIN,                                           0     },
        {NT_PURPOSE_TRAIN | NT_PURPOSE_DISTILL | NT_PURPOSE_PUBLISH, 0     },
        {NT_PURPOSE_GENERATE,                                        N_ROWS},
        {15,                                                         N_ROWS}
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        import_with(cases[i].consent, N_ROWS, 0);
        assert_int_equal(nt_reader_scan(h5, &n, digest), NT_OK);
        assert_int_equal(n, cases[i].n);
        assert_int_equal(nt_reader_open(&r, h5, &config), NT_OK);
        assert_int_equal(nt_reader_row(r, 0, &q), cases[i].n ? NT_OK : NT_E_DATA);
        if (cases[i].n) nt_request_release(&q);
        nt_reader_close(r);
        assert_int_equal(nt_export(h5, back, &t), NT_OK); /* the owner sees all */
        assert_int_equal(t.n_rows, N_ROWS);
    }
    for (uint32_t consent = 0; consent < 16; consent++) { /* the truth table of the one deciding function */
        for (uint32_t purpose = 0; purpose < 16; purpose++) {
            bool every = true;
            for (uint32_t bit = 1; bit < 16; bit *= 2) every &= !(purpose & bit) || (consent & bit);
            assert_int_equal(nt_consent_allows(consent, purpose), every);
        }
    }
}

static void test_consent_words(void **state) {
    (void)state;
    uint32_t bits = 99;
    assert_int_equal(nt_consent_parse("none", &bits), NT_OK);
    assert_int_equal(bits, 0);
    assert_int_equal(nt_consent_parse("", &bits), NT_OK);
    assert_int_equal(bits, 0);
    assert_int_equal(nt_consent_parse("generate,publish", &bits), NT_OK);
    assert_int_equal(bits, 9);
    assert_int_equal(nt_consent_parse("distill,train", &bits), NT_OK);
    assert_int_equal(bits, 6);
    assert_int_equal(nt_consent_parse("generat", &bits), NT_E_CONFIG);
    assert_non_null(strstr(nt_error_last()->text, "maybe: generate?"));
}

/* A corpus made by hand in which only some subjects consent: row numbers count what is seen. */
static void write_mixed(const char *path, bool wrong_ref) {
    struct nt_h5_writer *w = NULL;
    struct nt_h5_column *c = NULL;
    struct nt_h5_ragged t;
    const uint32_t consent[2] = {NT_PURPOSE_TRAIN, NT_PURPOSE_GENERATE};
    const int32_t subject[4] = {1, 0, wrong_ref ? 2 : 1, 0};
    const int64_t ptr[5] = {0, 1, 2, 3, 4}, conversation[4] = {3, 2, 1, 0};
    const uint8_t role[4] = {5, 5, 5, 5}, endpoint[4] = {1, 1, 1, 1};
    assert_int_equal(nt_h5_create(&w, path), NT_OK);
    assert_int_equal(nt_h5_attr_str(w, "/", "encoding-type", "nocturne-corpus"), NT_OK);
    assert_int_equal(nt_h5_attr_str(w, "/", "encoding-version", "1.7.0"), NT_OK); /* a newer minor version */
    static const char *const groups[] = {"/subjects", "/conversations", "/messages", "/requests"};
    for (int i = 0; i < 4; i++) assert_int_equal(nt_h5_group(w, groups[i], groups[i] + 1), NT_OK);
    assert_int_equal(nt_h5_column(w, "/subjects/consent", NT_H5_U32, 0, &c), NT_OK);
    assert_int_equal(nt_h5_append(c, consent, 2), NT_OK);
    assert_int_equal(nt_h5_column(w, "/conversations/subject", NT_H5_I32, 0, &c), NT_OK);
    assert_int_equal(nt_h5_append(c, subject, 4), NT_OK);
    assert_int_equal(nt_h5_column(w, "/conversations/msg_ptr", NT_H5_I64, 0, &c), NT_OK);
    assert_int_equal(nt_h5_append(c, ptr, 5), NT_OK);
    assert_int_equal(nt_h5_column(w, "/messages/role", NT_H5_U8, 0, &c), NT_OK);
    assert_int_equal(nt_h5_append(c, role, 4), NT_OK);
    assert_int_equal(nt_h5_ragged(w, "/messages/content", NT_H5_U8, "ragged-utf8", &t), NT_OK);
    for (int i = 0; i < 4; i++) {
        const char text[2] = {(char)('A' + i), i == 0 ? (char)0xff : '!'}; /* message 0 is not UTF-8 */
        assert_int_equal(nt_h5_ragged_append(&t, text, 2), NT_OK);
    }
    static const char *const empty[] = {"/messages/parts", "/messages/form", "/requests/custom_id"};
    for (int k = 0; k < 3; k++) {
        assert_int_equal(nt_h5_ragged(w, empty[k], NT_H5_U8, "ragged-utf8", &t), NT_OK);
        for (int i = 0; i < 4; i++) assert_int_equal(nt_h5_ragged_append(&t, "", 0), NT_OK);
    }
    assert_int_equal(nt_h5_column(w, "/requests/conversation", NT_H5_I64, 0, &c), NT_OK);
    assert_int_equal(nt_h5_append(c, conversation, 4), NT_OK);
    assert_int_equal(nt_h5_column(w, "/requests/endpoint", NT_H5_U8, 0, &c), NT_OK);
    assert_int_equal(nt_h5_append(c, endpoint, 4), NT_OK);
    assert_int_equal(nt_h5_ragged(w, "/requests/params", NT_H5_U8, "ragged-json", &t), NT_OK);
    for (int i = 0; i < 4; i++) assert_int_equal(nt_h5_ragged_append(&t, "{\"prompt\":null}", 15), NT_OK);
    assert_int_equal(nt_h5_publish(w), NT_OK);
}

static void test_some_consent(void **state) {
    (void)state;
    int64_t n = -1;
    uint8_t digest[32];
    struct nt_reader *r = NULL;
    struct nt_request q;
    write_mixed(h5, false);
    assert_int_equal(nt_reader_scan(h5, &n, digest), NT_OK);
    assert_int_equal(n, 2);
    assert_int_equal(nt_reader_open(&r, h5, &config), NT_OK);
    assert_int_equal(nt_reader_row(r, 0, &q), NT_OK); /* request 1: conversation 2, subject 1 */
    assert_string_equal(q.prompt, "C!");
    nt_request_release(&q);
    assert_int_equal(nt_reader_row(r, 1, &q), NT_OK); /* request 3: conversation 0, its text is broken */
    assert_string_equal(q.error, "row 1: its text is not valid UTF-8");
    nt_request_release(&q);
    nt_reader_close(r);
    write_mixed(h5, true);
    assert_int_equal(nt_reader_scan(h5, &n, digest), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "/conversations/subject[2] is 2, expected 0 to 1"));
}

/* Results are HDF5 as well, but no corpus. */
static void test_wrong_kind(void **state) {
    (void)state;
    struct nt_h5_writer *w = NULL;
    struct nt_reader *r = NULL;
    assert_int_equal(nt_h5_create(&w, h5), NT_OK);
    assert_int_equal(nt_h5_attr_str(w, "/", "encoding-type", "other"), NT_OK);
    assert_int_equal(nt_h5_attr_str(w, "/", "encoding-version", "1.0.0"), NT_OK);
    assert_int_equal(nt_h5_publish(w), NT_OK);
    assert_int_equal(nt_reader_open(&r, h5, &config), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "encoding \"other\", expected \"nocturne-corpus\""));
    struct nt_transfer t;
    assert_int_equal(nt_export(h5, back, &t), NT_E_DATA);
    assert_int_equal(nt_h5_create(&w, h5), NT_OK);
    assert_int_equal(nt_h5_attr_str(w, "/", "encoding-type", "nocturne-corpus"), NT_OK);
    assert_int_equal(nt_h5_attr_str(w, "/", "encoding-version", "2.0.0"), NT_OK);
    assert_int_equal(nt_h5_publish(w), NT_OK);
    assert_int_equal(nt_reader_open(&r, h5, &config), NT_E_UNSUPPORTED);
    assert_int_equal(nt_export("/nowhere.h5", back, &t), NT_E_NOINPUT);
    assert_int_equal(nt_export(jsonl, back, &t), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "not an HDF5 file"));
    assert_int_equal(nt_publish_bytes(hurt, "{\"prompt\":\"x\"}\n", 15, NT_PUBLISH_REPLACE), NT_OK);
    assert_int_equal(nt_reader_open(&r, hurt, &config), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "not an HDF5 file, as the name says"));
    assert_int_equal(nt_reader_open(&r, "/nowhere.h5", &config), NT_E_NOINPUT);
}

/* Every row or an error; never a crash, a hang or other text. In a child: the library is not ours. */
static int read_all(const char *path) {
    int64_t n = 0;
    uint8_t digest[32];
    struct nt_reader *r = NULL;
    (void)alarm(10);
    const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) (void)signal(signals[i], SIG_DFL); /* not cmocka's */
    if (nt_reader_scan(path, &n, digest) != NT_OK || nt_reader_open(&r, path, &config) != NT_OK) return 0;
    int wrong = n != N_ROWS ? 2 : 0;
    for (int64_t row = 0; row < n && row < N_ROWS; row++) {
        struct nt_request q, want;
        struct nt_json *doc = NULL;
        if (nt_reader_row(r, row, &q) != NT_OK) return 0;
        want = (struct nt_request){.row = row};
        nt_sampling_defaults(&want.sampling, &config);
        if (nt_json_parse(rows[row], strlen(rows[row]), "row", &doc) != NT_OK) return 3;
        nt_request_from_json(&want, doc, "row");
        if (!q.error && memcmp(q.digest, want.digest, 32) != 0) wrong = 2;
    }
    return wrong;
}

/* 150 random byte changes, and cuts. */
static void test_damaged(void **state) {
    (void)state;
    char *bytes = NULL;
    size_t n = 0;
    put_rows("");
    import_with(NT_PURPOSE_GENERATE, N_ROWS, 0);
    assert_int_equal(nt_file_read(h5, 1 << 24, &bytes, &n), NT_OK);
    uint64_t seed = 88172645463325252u;
    int n_noticed = 0;
    for (int i = 0; i < 150; i++) {
        char *copy = malloc(n);
        memcpy(copy, bytes, n);
        size_t keep = n;
        for (int k = 0; k <= i % 3; k++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            if (i % 10 == 9)
                keep = (size_t)(seed % n);
            else
                copy[seed % n] = (char)(seed >> 40);
        }
        FILE *f = fopen(hurt, "wb"); /* without the syncs of a publish */
        assert_non_null(f);
        assert_int_equal(fwrite(copy, 1, keep, f), keep);
        assert_int_equal(fclose(f), 0);
        free(copy);
        const pid_t pid = fork();
        if (pid == 0) _exit(read_all(hurt));
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("damage %d: status 0x%x", i, status);
        n_noticed++;
    }
    assert_int_equal(n_noticed, 150);
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_same_requests), cmocka_unit_test(test_bad_rows),
        cmocka_unit_test(test_consent),    cmocka_unit_test(test_consent_words), cmocka_unit_test(test_some_consent),
        cmocka_unit_test(test_wrong_kind), cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
