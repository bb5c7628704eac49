/* From journal and input to results.h5, results.jsonl and errors.jsonl: N rows in, N rows out, the same bytes always.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fileio.h"
#include "hash.h"
#include "hdf5file.h"
#include "journal.h"
#include "json.h"
#include "reader.h"
#include "transfer.h"
#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t job[32] = {0xab, 1};
static const char input_text[] =
    "{\"custom_id\":\"chat\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{\"messages\":[{\"role\":"
    "\"user\",\"content\":\"hi\"}],\"n\":2,\"logprobs\":true,\"top_logprobs\":2}}\n"
    "broken\n"
    "{\"prompt\":\"once\",\"logprobs\":1}\n"
    "\n"
    "{\"prompt\":\"plain\"}\n"
    "{\"prompt\":\"too long\",\"custom_id\":\"long\"}\n";
enum { N_ROWS = 5 };

struct place {
    char dir[64], input[96], out[96];
};

static void make_place(struct place *p) {
    (void)snprintf(p->dir, sizeof p->dir, "/tmp/nt-finish-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    (void)snprintf(p->input, sizeof p->input, "%s/in.jsonl", p->dir);
    (void)snprintf(p->out, sizeof p->out, "%s/out", p->dir);
    assert_int_equal(nt_mkdir_p(p->out), NT_OK);
    assert_int_equal(nt_publish_bytes(p->input, input_text, sizeof input_text - 1, NT_PUBLISH_REPLACE), NT_OK);
}

static void drop_place(const struct place *p) {
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", p->dir);
    assert_int_equal(system(cmd), 0);
}

/* Pieces: 1 "Hel", 2 "lo", 3 half of U+00E9, 4 its other half, 5 spells as 2 does; others none. */
static const char *piece(void *arg, uint32_t id, size_t *len) {
    static const char *const pieces[] = {NULL, "Hel", "lo", "\xc3", "\xa9", "lo"};
    (void)arg;
    const char *p = id < 6 ? pieces[id] : NULL;
    if (p) *len = strlen(p);
    return p;
}

static void answer(const struct nt_request *q, struct nt_result *r) {
    *r = (struct nt_result){.row = q->row, .status = 200, .n_prompt = 4};
    memcpy(r->digest, q->digest, sizeof r->digest);
    if (q->error || q->row == 4) {
        r->status = 400;
        r->n_prompt = 0;
        r->error = strdup(q->error ? q->error : "line 6: the prompt has 9000 tokens, the model takes 8192");
        return;
    }
    r->n_choice = q->sampling.n;
    r->choice = calloc((size_t)r->n_choice, sizeof *r->choice);
    for (int32_t i = 0; i < r->n_choice; i++) {
        struct nt_choice *c = &r->choice[i];
        c->finish = i ? NT_FINISH_LENGTH : NT_FINISH_STOP;
        c->n_tok = 4;
        c->tok = calloc(4, 4);
        for (uint32_t t = 0; t < 4; t++) c->tok[t] = t + 1;
        c->text = strdup("Hello\xc3\xa9");
        c->text_len = 7;
        if (q->sampling.top_logprobs < 0) continue;
        const size_t n_top = (size_t)q->sampling.top_logprobs;
        c->n_top = (int32_t)n_top;
        c->logprob = calloc(4, 4);
        c->top_id = calloc(4 * n_top, 4);
        c->top_lp = calloc(4 * n_top, 4);
        for (size_t t = 0; t < 4; t++) {
            c->logprob[t] = t == 3 ? -INFINITY : -0.5f * (float)(t + 1);
            for (size_t k = 0; k < n_top; k++) {
                c->top_id[t * n_top + k] = k ? 5 : 2; /* both spell "lo" */
                c->top_lp[t * n_top + k] = -0.25f - (float)k;
            }
        }
    }
}

/* Rows in the order given by step: what is written must not depend on it. */
static void write_journal(const struct place *p, const struct nt_config *c, int first, int step, int n) {
    struct nt_result results[N_ROWS];
    struct nt_reader *reader = NULL;
    struct nt_journal *j = NULL;
    assert_int_equal(nt_reader_open(&reader, p->input, c), NT_OK);
    for (int row = 0; row < N_ROWS; row++) {
        struct nt_request q;
        assert_int_equal(nt_reader_row(reader, row, &q), NT_OK);
        answer(&q, &results[row]);
        nt_request_release(&q);
    }
    nt_reader_close(reader);
    assert_int_equal(nt_journal_open(&j, p->out, job), NT_OK);
    for (int i = 0; i < n; i++) assert_int_equal(nt_journal_append(j, &results[(first + i * step) % N_ROWS]), NT_OK);
    assert_int_equal(nt_journal_close(j), NT_OK);
    for (int row = 0; row < N_ROWS; row++) nt_result_release(&results[row]);
}

static nt_status finish(const struct place *p, const struct nt_config *c, int64_t *n_error) {
    struct nt_finish_info info = {.input = p->input,
                                  .dir = p->out,
                                  .model_name = "tiny",
                                  .job_digest = job,
                                  .n_rows = N_ROWS,
                                  .created = 1700000000,
                                  .config = c,
                                  .piece = piece};
    const nt_status st = nt_results_finish(&info);
    *n_error = info.n_error;
    return st;
}

static void slurp(const struct place *p, const char *name, char **text, size_t *len) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", p->out, name);
    assert_int_equal(nt_file_read(path, 1 << 24, text, len), NT_OK);
}

static const struct nt_json *dig(const struct nt_json *v, const char *path) {
    char part[32];
    while (*path) {
        const size_t n = strcspn(path, "/");
        assert_true(n < sizeof part);
        memcpy(part, path, n);
        part[n] = '\0';
        v = part[0] >= '0' && part[0] <= '9' ? nt_json_at(v, (size_t)strtoul(part, NULL, 10)) : nt_json_get(v, part);
        path += n + (path[n] == '/');
    }
    return v;
}

static void expect_json(const struct nt_json *doc, const char *path, const char *want) {
    struct nt_strbuf s = NT_STRBUF_INIT;
    nt_json_dump(dig(doc, path), &s);
    if (strcmp(nt_strbuf_cstr(&s), want) != 0) fail_msg("%s is %s, expected %s", path, nt_strbuf_cstr(&s), want);
    nt_strbuf_release(&s);
}

/* Line i of a text as JSON; NULL when there is none. */
static struct nt_json *json_line(const char *text, int i) {
    struct nt_json *doc = NULL;
    for (; i > 0 && text; i--) {
        text = strchr(text, '\n');
        if (text) text++;
    }
    if (!text || !*text) return NULL;
    assert_int_equal(nt_json_parse(text, strcspn(text, "\n"), "line", &doc), NT_OK);
    return doc;
}

static void check_chat_line(const char *text) {
    struct nt_json *doc = json_line(text, 0);
    expect_json(doc, "custom_id", "\"chat\"");
    expect_json(doc, "error", "null");
    expect_json(doc, "response/status_code", "200");
    expect_json(doc, "response/body/object", "\"chat.completion\"");
    expect_json(doc, "response/body/created", "1700000000");
    expect_json(doc, "response/body/model", "\"tiny\"");
    assert_int_equal(nt_json_len(dig(doc, "response/body/choices")), 2);
    expect_json(doc, "response/body/choices/0/message",
                "{\"role\":\"assistant\",\"content\":\"Hello\xc3\xa9\",\"refusal\":null}");
    expect_json(doc, "response/body/choices/0/finish_reason", "\"stop\"");
    expect_json(doc, "response/body/choices/1/finish_reason", "\"length\"");
    expect_json(doc, "response/body/choices/1/index", "1");
    assert_int_equal(nt_json_len(dig(doc, "response/body/choices/0/logprobs/content")), 4);
    expect_json(doc, "response/body/choices/0/logprobs/content/0",
                "{\"token\":\"Hel\",\"logprob\":-0.5,\"bytes\":[72,101,108],\"top_logprobs\":[{\"token\":\"lo\","
                "\"logprob\":-0.25,\"bytes\":[108,111]},{\"token\":\"lo\",\"logprob\":-1.25,\"bytes\":[108,111]}]}");
    expect_json(doc, "response/body/choices/0/logprobs/content/2/token", "\"\xef\xbf\xbd\"");
    expect_json(doc, "response/body/choices/0/logprobs/content/2/bytes", "[195]");
    expect_json(doc, "response/body/choices/0/logprobs/content/3/logprob", "-9999.0");
    expect_json(doc, "response/body/usage", "{\"prompt_tokens\":4,\"completion_tokens\":8,\"total_tokens\":12}");
    nt_json_free(doc);
}

static void check_other_lines(const char *text) {
    struct nt_json *doc = json_line(text, 1);
    expect_json(doc, "custom_id", "\"row-1\"");
    expect_json(doc, "response/status_code", "400");
    expect_json(doc, "response/body/error/type", "\"invalid_request_error\"");
    expect_json(doc, "response/body/error/message",
                "\"line 2: not valid JSON at byte 6: invalid token near 'broken'\"");
    nt_json_free(doc);
    doc = json_line(text, 2);
    expect_json(doc, "response/body/object", "\"text_completion\"");
    expect_json(doc, "response/body/choices/0/text", "\"Hello\xc3\xa9\"");
    expect_json(doc, "response/body/choices/0/logprobs",
                "{\"text_offset\":[0,3,5,6],\"token_logprobs\":[-0.5,-1.0,-1.5,-9999.0],\"tokens\":[\"Hel\",\"lo\","
                "\"bytes:\\\\xc3\",\"bytes:\\\\xa9\"],\"top_logprobs\":[{\"lo\":-0.25,\"Hel\":-0.5},{\"lo\":-0.25},"
                "{\"lo\":-0.25,\"bytes:\\\\xc3\":-1.5},{\"lo\":-0.25,\"bytes:\\\\xa9\":-9999.0}]}");
    nt_json_free(doc);
    doc = json_line(text, 3);
    expect_json(doc, "custom_id", "\"row-3\"");
    expect_json(doc, "response/body/choices/0/logprobs", "null");
    nt_json_free(doc);
    doc = json_line(text, 4);
    expect_json(doc, "custom_id", "\"long\"");
    expect_json(doc, "response/status_code", "400");
    nt_json_free(doc);
    assert_null(json_line(text, 5));
}

static void check_ids_differ(const char *text) {
    char seen[2 * N_ROWS][64];
    for (int i = 0; i < N_ROWS; i++) {
        struct nt_json *doc = json_line(text, i);
        (void)snprintf(seen[2 * i], 64, "%s", nt_json_str(dig(doc, "id"), NULL));
        (void)snprintf(seen[2 * i + 1], 64, "%s", nt_json_str(dig(doc, "response/request_id"), NULL));
        assert_int_equal(strlen(seen[2 * i]), 42);
        nt_json_free(doc);
    }
    for (int i = 0; i < 2 * N_ROWS; i++) {
        for (int k = 0; k < i; k++) assert_string_not_equal(seen[i], seen[k]);
    }
}

static void check_errors(const struct place *p) {
    char *text = NULL;
    size_t len = 0;
    slurp(p, "errors.jsonl", &text, &len);
    struct nt_json *doc = json_line(text, 0);
    expect_json(doc, "line", "2");
    expect_json(doc, "row", "1");
    expect_json(doc, "custom_id", "\"row-1\"");
    nt_json_free(doc);
    doc = json_line(text, 1);
    expect_json(doc, "line", "6");
    expect_json(doc, "row", "4");
    nt_json_free(doc);
    assert_null(json_line(text, 2));
    free(text);
}

static void expect_text(struct nt_h5_file *f, const char *path, int64_t rows, int64_t i, const char *want) {
    struct nt_h5_text t;
    struct nt_strbuf s = NT_STRBUF_INIT;
    assert_int_equal(nt_h5_text(f, path, NT_H5_U8, rows, &t), NT_OK);
    assert_int_equal(nt_h5_text_get(&t, i, &s), NT_OK);
    assert_string_equal(nt_strbuf_cstr(&s), want);
    nt_strbuf_release(&s);
}

static void check_h5(const struct place *p) {
    char path[128], text[80];
    struct nt_h5_file *f = NULL;
    struct nt_h5_array *a = NULL;
    (void)snprintf(path, sizeof path, "%s/results.h5", p->out);
    assert_int_equal(nt_h5_open(&f, path), NT_OK);
    assert_int_equal(nt_h5_read_attr(f, "/", "encoding-type", text, sizeof text), NT_OK);
    assert_string_equal(text, "nocturne-results");
    assert_int_equal(nt_h5_read_attr(f, "/", "job_digest", text, sizeof text), NT_OK);
    assert_memory_equal(text, "ab01000000", 10);
    expect_text(f, "/requests/custom_id", N_ROWS, 0, "chat");
    expect_text(f, "/requests/custom_id", N_ROWS, 4, "long");
    expect_text(f, "/requests/error", N_ROWS, 0, "");
    expect_text(f, "/requests/error", N_ROWS, 4, "line 6: the prompt has 9000 tokens, the model takes 8192");
    uint16_t status[N_ROWS];
    assert_int_equal(nt_h5_array(f, "/requests/status", NT_H5_U16, 0, N_ROWS, &a), NT_OK);
    assert_int_equal(nt_h5_read(a, 0, N_ROWS, status), NT_OK);
    assert_int_equal(status[0], 200);
    assert_int_equal(status[1], 400);
    int64_t row[4], ptr[N_ROWS + 1];
    assert_int_equal(nt_h5_array(f, "/generations/row", NT_H5_I64, 0, 4, &a), NT_OK);
    assert_int_equal(nt_h5_read(a, 0, 4, row), NT_OK);
    assert_true(row[0] == 0 && row[1] == 0 && row[2] == 2 && row[3] == 3);
    assert_int_equal(nt_h5_array(f, "/requests/gen_ptr", NT_H5_I64, 0, N_ROWS + 1, &a), NT_OK);
    assert_int_equal(nt_h5_read(a, 0, N_ROWS + 1, ptr), NT_OK);
    assert_true(ptr[1] == 2 && ptr[2] == 2 && ptr[3] == 3 && ptr[4] == 4 && ptr[5] == 4);
    expect_text(f, "/generations/content", 4, 3, "Hello\xc3\xa9");
    uint32_t tok[16], top_id[32];
    float lp[16], top_lp[32];
    assert_int_equal(nt_h5_array(f, "/generations/tok", NT_H5_U32, 0, 16, &a), NT_OK);
    assert_int_equal(nt_h5_read(a, 0, 16, tok), NT_OK);
    assert_int_equal(nt_h5_array(f, "/generations/logprob", NT_H5_F32, 0, 16, &a), NT_OK);
    assert_int_equal(nt_h5_read(a, 0, 16, lp), NT_OK);
    assert_int_equal(nt_h5_array(f, "/generations/top_id", NT_H5_U32, 2, 16, &a), NT_OK);
    assert_int_equal(nt_h5_read(a, 0, 16, top_id), NT_OK);
    assert_int_equal(nt_h5_array(f, "/generations/top_lp", NT_H5_F32, -1, 16, &a), NT_OK);
    assert_int_equal(nt_h5_width(a), 2);
    assert_int_equal(nt_h5_read(a, 0, 16, top_lp), NT_OK);
    assert_true(tok[15] == 4 && lp[0] == -0.5f && isinf(lp[3]) && isnan(lp[12]));
    assert_true(top_id[0] == 2 && top_id[1] == 5 && top_id[16] == 2 && top_id[17] == UINT32_MAX);
    assert_true(top_lp[1] == -1.25f && isnan(top_lp[17]) && isnan(top_lp[30]));
    nt_h5_close(f);
}

static void test_files(void **state) {
    (void)state;
    struct place p;
    struct nt_config c;
    int64_t n_error = 0;
    char *text = NULL;
    size_t len = 0;
    nt_config_init(&c);
    make_place(&p);
    write_journal(&p, &c, 0, 1, N_ROWS);
    assert_int_equal(finish(&p, &c, &n_error), NT_OK);
    assert_int_equal(n_error, 2);
    slurp(&p, "results.jsonl", &text, &len);
    check_chat_line(text);
    check_other_lines(text);
    check_ids_differ(text);
    free(text);
    check_errors(&p);
    check_h5(&p);
    drop_place(&p);
    nt_config_release(&c);
}

/* Another order, two writers, a row twice, a bad line without record, finished twice: the same bytes, no leftovers. */
static void test_same_bytes(void **state) {
    (void)state;
    static const char *const names[] = {"results.h5", "results.jsonl", "errors.jsonl"};
    struct place p, q;
    struct nt_config c;
    int64_t n_error = 0;
    nt_config_init(&c);
    make_place(&p);
    make_place(&q);
    write_journal(&p, &c, 0, 1, N_ROWS);
    assert_int_equal(finish(&p, &c, &n_error), NT_OK);
    write_journal(&q, &c, 4, 3, 4); /* 4 2 0 3; row 1, the broken line, is missing */
    write_journal(&q, &c, 3, 1, 2); /* 3 4 again */
    char stale[160];
    (void)snprintf(stale, sizeof stale, "%s/.tmp-results.h5.host.1", q.out);
    assert_int_equal(nt_publish_bytes(stale, "x", 1, NT_PUBLISH_REPLACE), NT_OK);
    for (int pass = 0; pass < 2; pass++) {
        assert_int_equal(finish(&q, &c, &n_error), NT_OK);
        assert_int_equal(n_error, 2);
        for (int i = 0; i < 3; i++) {
            char *a = NULL, *b = NULL;
            size_t n = 0, m = 0;
            slurp(&p, names[i], &a, &n);
            slurp(&q, names[i], &b, &m);
            assert_int_equal(n, m);
            assert_memory_equal(a, b, n);
            free(a);
            free(b);
        }
    }
    DIR *d = opendir(q.out);
    for (const struct dirent *e = readdir(d); e; e = readdir(d)) assert_int_not_equal(strncmp(e->d_name, ".tmp", 4), 0);
    (void)closedir(d);
    assert_int_equal(nt_journal_discard(q.out), NT_OK);
    d = opendir(q.out);
    for (const struct dirent *e = readdir(d); e; e = readdir(d)) assert_int_equal(e->d_name[0], '.');
    (void)closedir(d);
    drop_place(&p);
    drop_place(&q);
    nt_config_release(&c);
}

static void test_refusals(void **state) {
    (void)state;
    struct place p;
    struct nt_config c;
    int64_t n_error = 0;
    char path[128];
    nt_config_init(&c);
    make_place(&p);
    write_journal(&p, &c, 0, 1, 3);
    assert_int_equal(finish(&p, &c, &n_error), NT_E_INTERNAL); /* rows 3 and 4 are not answered */
    write_journal(&p, &c, 3, 1, 2);
    char *text = strdup(input_text);
    memcpy(strstr(text, "once"), "ONCE", 4);
    assert_int_equal(nt_publish_bytes(p.input, text, strlen(text), NT_PUBLISH_REPLACE), NT_OK);
    assert_int_equal(finish(&p, &c, &n_error), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "row 2 (line 3)"));
    free(text);
    const size_t without_last = (size_t)(strstr(input_text, "{\"prompt\":\"too long") - input_text);
    assert_int_equal(nt_publish_bytes(p.input, input_text, without_last, NT_PUBLISH_REPLACE), NT_OK);
    assert_int_equal(finish(&p, &c, &n_error), NT_E_DATA); /* the input ends early */
    (void)snprintf(path, sizeof path, "%s/results.h5", p.out);
    assert_false(nt_file_exists(path)); /* nothing half-made */
    drop_place(&p);
    nt_config_release(&c);
}

static void test_export(void **state) {
    (void)state;
    struct place p;
    struct nt_config c;
    struct nt_transfer t;
    int64_t n_error = 0;
    char h5[128], jsonl[128], *text = NULL;
    size_t len = 0;
    nt_config_init(&c);
    make_place(&p);
    write_journal(&p, &c, 0, 1, N_ROWS);
    assert_int_equal(finish(&p, &c, &n_error), NT_OK);
    (void)snprintf(h5, sizeof h5, "%s/results.h5", p.out);
    (void)snprintf(jsonl, sizeof jsonl, "%s/export.jsonl", p.out);
    assert_int_equal(nt_export(h5, jsonl, &t), NT_OK);
    assert_int_equal(t.n_rows, N_ROWS);
    slurp(&p, "export.jsonl", &text, &len);
    struct nt_json *doc = json_line(text, 0);
    expect_json(doc, "custom_id", "\"chat\"");
    expect_json(doc, "choices/1/finish_reason", "\"length\"");
    expect_json(doc, "choices/1/tokens", "[1,2,3,4]");
    expect_json(doc, "choices/1/logprobs", "[-0.5,-1.0,-1.5,-9999.0]");
    expect_json(doc, "choices/1/top_logprobs/3", "[[2,-0.25],[5,-1.25]]");
    nt_json_free(doc);
    doc = json_line(text, 1);
    expect_json(doc, "status", "400");
    expect_json(doc, "error", "\"line 2: not valid JSON at byte 6: invalid token near 'broken'\"");
    expect_json(doc, "choices", "[]");
    nt_json_free(doc);
    doc = json_line(text, 3); /* asked for no log-probabilities */
    expect_json(doc, "choices/0",
                "{\"index\":0,\"content\":\"Hello\xc3\xa9\",\"finish_reason\":\"stop\",\"tokens\":[1,2,3,4]}");
    expect_json(doc, "line", "5");
    nt_json_free(doc);
    assert_null(json_line(text, N_ROWS));
    free(text);
    drop_place(&p);
    nt_config_release(&c);
}

/* The files as tools other than ours see them. */
static void test_h5dump(void **state) {
    (void)state;
    struct place p;
    struct nt_config c;
    int64_t n_error = 0;
    char cmd[256], line[256];
    if (system("command -v h5dump >/dev/null 2>&1") != 0) {
        print_message("skipped: no h5dump (apt-get install hdf5-tools)\n");
        skip();
    }
    nt_config_init(&c);
    make_place(&p);
    write_journal(&p, &c, 0, 1, N_ROWS);
    assert_int_equal(finish(&p, &c, &n_error), NT_OK);
    (void)snprintf(cmd, sizeof cmd, "h5dump -p -d /generations/tok '%s/results.h5' 2>&1", p.out);
    FILE *f = popen(cmd, "r");
    assert_non_null(f);
    bool tok = false, fletcher = false, type = false;
    while (fgets(line, sizeof line, f)) {
        tok |= strstr(line, "(0): 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4") != NULL;
        fletcher |= strstr(line, "FLETCHER32") != NULL;
        type |= strstr(line, "H5T_STD_U32LE") != NULL;
    }
    assert_int_equal(pclose(f), 0);
    assert_true(tok && fletcher && type);
    drop_place(&p);
    nt_config_release(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),  cmocka_unit_test(test_same_bytes), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_export), cmocka_unit_test(test_h5dump),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
