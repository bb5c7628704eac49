#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fileio.h"
#include "journal.h"
#include "journal_index.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64];
static const uint8_t job[32] = {1, 2, 3}, other_job[32] = {9};

static int make_dir(void **state) {
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/nt-journal-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state) {
    (void)state;
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

/* A result whose every field is a function of the row. */
static void make_result(struct nt_result *r, int64_t row) {
    *r = (struct nt_result){.row = row, .status = 200, .n_prompt = (int32_t)row + 3};
    memset(r->digest, (int)row + 1, sizeof r->digest);
    if (row % 4 == 3) {
        r->status = 400;
        r->error = strdup("line 4: temperature is 1000, expected a number from 0 to 100");
        return;
    }
    r->n_choice = 1 + (int32_t)(row % 2);
    r->choice = calloc((size_t)r->n_choice, sizeof *r->choice);
    for (int32_t i = 0; i < r->n_choice; i++) {
        struct nt_choice *c = &r->choice[i];
        const size_t n = (size_t)(row % 5);
        c->finish = i ? NT_FINISH_LENGTH : NT_FINISH_STOP;
        c->n_tok = (int32_t)n;
        c->n_top = (int32_t)(row % 3);
        const size_t n_top = n * (size_t)c->n_top;
        c->tok = n ? calloc(n, 4) : NULL;
        c->logprob = row % 2 ? NULL : calloc(n + 1, 4);
        c->top_id = n_top ? calloc(n_top, 4) : NULL;
        c->top_lp = n_top ? calloc(n_top, 4) : NULL;
        for (size_t t = 0; t < n; t++) {
            c->tok[t] = (uint32_t)(row * 100) + (uint32_t)t;
            if (c->logprob) c->logprob[t] = -0.5f * (float)t;
        }
        for (size_t t = 0; t < n_top; t++) {
            c->top_id[t] = (uint32_t)t + 7;
            c->top_lp[t] = -1.0f - (float)t;
        }
        c->text_len = n + 1;
        c->text = calloc(n + 2, 1);
        memset(c->text, 'a' + (int)(row % 26), n);
        c->text[n] = '\0'; /* a NUL inside: text_len counts it */
    }
}

static void encode(int64_t row, struct nt_strbuf *out) {
    struct nt_result r;
    make_result(&r, row);
    nt_result_encode(&r, out);
    nt_result_release(&r);
}

static void append(struct nt_journal *j, int64_t row) {
    struct nt_result r;
    make_result(&r, row);
    assert_int_equal(nt_journal_append(j, &r), NT_OK);
    nt_result_release(&r);
}

static void write_rows(int64_t first, int64_t n) {
    struct nt_journal *j = NULL;
    assert_int_equal(nt_journal_open(&j, dir, job), NT_OK);
    for (int64_t row = first; row < first + n; row++) append(j, row);
    assert_int_equal(nt_journal_sync(j), NT_OK);
    assert_int_equal(nt_journal_close(j), NT_OK);
}

/* Reads every row below n back and compares bytes. */
static void check_rows(int64_t n_rows, int64_t n) {
    struct nt_journal_index x;
    assert_int_equal(nt_journal_index_build(&x, dir, job, n_rows), NT_OK);
    assert_int_equal(x.n_done, n);
    for (int64_t row = 0; row < n; row++) {
        struct nt_result r;
        struct nt_strbuf got = NT_STRBUF_INIT, want = NT_STRBUF_INIT;
        assert_int_equal(nt_journal_index_read(&x, row, &r), NT_OK);
        nt_result_encode(&r, &got);
        encode(row, &want);
        assert_int_equal(got.len, want.len);
        assert_memory_equal(got.data, want.data, want.len);
        nt_strbuf_release(&got);
        nt_strbuf_release(&want);
        nt_result_release(&r);
    }
    nt_journal_index_release(&x);
}

static int64_t scan(int64_t n_rows, uint8_t *done) {
    int64_t n = -1;
    memset(done, 0, 8);
    assert_int_equal(nt_journal_scan(dir, job, n_rows, done, &n), NT_OK);
    return n;
}

static void test_round_trip(void **state) {
    (void)state;
    uint8_t done[8];
    assert_int_equal(scan(20, done), 0); /* no journal at all */
    write_rows(0, 12);
    assert_int_equal(scan(20, done), 12);
    assert_int_equal(done[0], 0xff);
    assert_int_equal(done[1], 0x0f);
    write_rows(10, 10); /* a second writer; rows 10 and 11 twice */
    assert_int_equal(scan(20, done), 20);
    check_rows(20, 20);
    int64_t n = 0;
    assert_int_equal(nt_journal_scan(dir, job, 15, done, &n), NT_E_DATA); /* rows the input does not have */
    assert_int_equal(nt_journal_discard(dir), NT_OK);
    assert_int_equal(scan(20, done), 0);
    assert_int_equal(nt_journal_discard(dir), NT_OK);
}

static void test_lazy(void **state) {
    (void)state;
    struct nt_journal *j = NULL;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/journal", dir);
    assert_int_equal(nt_journal_open(&j, dir, job), NT_OK);
    assert_int_equal(nt_journal_sync(j), NT_OK);
    assert_int_equal(nt_journal_close(j), NT_OK);
    assert_false(nt_file_exists(path));
}

static void test_other_job(void **state) {
    (void)state;
    struct nt_journal *j = NULL;
    uint8_t done[8] = {0};
    int64_t n = 0;
    write_rows(0, 3);
    assert_int_equal(nt_journal_open(&j, dir, other_job), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "0102030000"));
    assert_non_null(strstr(nt_error_last()->text, "0900000000"));
    assert_non_null(strstr(nt_error_last()->text, "--fresh"));
    assert_int_equal(nt_journal_scan(dir, other_job, 20, done, &n), NT_E_DATA);
    assert_int_equal(nt_journal_discard(dir), NT_OK);
}

struct file {
    char path[256];
    char *bytes;
    size_t n;
};

static void load_only_file(struct file *f) {
    struct nt_journal_files files;
    assert_int_equal(nt_journal_list(dir, &files), NT_OK);
    assert_int_equal(files.n, 1);
    (void)snprintf(f->path, sizeof f->path, "%s", files.path[0]);
    nt_journal_files_release(&files);
    assert_int_equal(nt_file_read(f->path, 1 << 20, &f->bytes, &f->n), NT_OK);
}

static void store(const struct file *f, const char *bytes, size_t n) {
    assert_int_equal(nt_publish_bytes(f->path, bytes, n, NT_PUBLISH_REPLACE), NT_OK);
}

/* Cut at every byte, zeroed behind every byte (a power cut leaves zeros): every whole record before counts. */
static void test_torn_everywhere(void **state) {
    (void)state;
    enum { ROWS = 6 };
    size_t end[ROWS + 1] = {NT_JOURNAL_HEADER};
    for (int64_t row = 0; row < ROWS; row++) {
        struct nt_strbuf body = NT_STRBUF_INIT;
        encode(row, &body);
        end[row + 1] = end[row] + NT_JOURNAL_FRONT + body.len;
        nt_strbuf_release(&body);
    }
    write_rows(0, ROWS);
    struct file f;
    load_only_file(&f);
    assert_int_equal(f.n, end[ROWS]);
    char *zeroed = malloc(f.n);
    for (size_t cut = 0; cut <= f.n; cut++) {
        int64_t whole = 0;
        while (whole < ROWS && end[whole + 1] <= cut) whole++;
        uint8_t done[8];
        store(&f, f.bytes, cut);
        assert_int_equal(scan(ROWS, done), whole);
        if (cut % 16 == 0) check_rows(ROWS, whole);
        memcpy(zeroed, f.bytes, cut);
        memset(zeroed + cut, 0, f.n - cut);
        store(&f, zeroed, f.n);
        const int64_t n = scan(ROWS, done);
        assert_true(n >= whole && n <= whole + 1); /* + 1: the cut-off bytes were zeros themselves */
        check_rows(ROWS, n);
    }
    /* the next attempt writes its own file and completes the job */
    store(&f, f.bytes, end[4] + 5);
    write_rows(4, 2);
    check_rows(ROWS, ROWS);
    free(zeroed);
    free(f.bytes);
    assert_int_equal(nt_journal_discard(dir), NT_OK);
}

/* Every flipped bit: rows before the damaged record survive, nothing wrong is ever read. */
static void test_flipped_everywhere(void **state) {
    (void)state;
    enum { ROWS = 5 };
    write_rows(0, ROWS);
    struct file f;
    load_only_file(&f);
    for (size_t i = 0; i < f.n; i++) {
        f.bytes[i] ^= (char)(1 << (i % 8));
        store(&f, f.bytes, f.n);
        int64_t n = 0;
        uint8_t done[8] = {0};
        assert_int_equal(nt_journal_scan(dir, job, ROWS, done, &n), NT_OK);
        assert_true(n < ROWS);
        check_rows(ROWS, n);
        f.bytes[i] ^= (char)(1 << (i % 8));
    }
    free(f.bytes);
    assert_int_equal(nt_journal_discard(dir), NT_OK);
}

/* A record with a good checksum and a bad body: decode refuses every cut and every hostile length. */
static void test_decode_refuses(void **state) {
    (void)state;
    for (int64_t row = 0; row < 8; row++) {
        struct nt_strbuf body = NT_STRBUF_INIT;
        struct nt_result r;
        encode(row, &body);
        for (size_t n = 0; n < body.len; n++) {
            assert_int_equal(nt_result_decode(body.data, n, "x.ntj", 64, &r), NT_E_DATA);
            assert_non_null(strstr(nt_error_last()->text, "x.ntj: record at offset 64"));
        }
        for (size_t i = 0; i < body.len; i++) { /* must not crash or ask for much memory; may succeed */
            const char saved = body.data[i];
            body.data[i] = (char)0xff;
            if (nt_result_decode(body.data, body.len, "x.ntj", 64, &r) == NT_OK) nt_result_release(&r);
            body.data[i] = 0x7f;
            if (nt_result_decode(body.data, body.len, "x.ntj", 64, &r) == NT_OK) nt_result_release(&r);
            body.data[i] = saved;
        }
        nt_strbuf_addc(&body, 'x');
        assert_int_equal(nt_result_decode(body.data, body.len, "x.ntj", 64, &r), NT_E_DATA);
        nt_strbuf_release(&body);
    }
}

/* A full disk: the append or sync says so, and the journal stays failed. */
static void test_full_disk(void **state) {
    (void)state;
    struct nt_journal *j = NULL;
    if (nt_mkdir_p("/dev/full/x") == NT_OK) fail();
    assert_int_equal(nt_journal_open(&j, "/proc", job), NT_OK); /* nothing can be created there */
    append(j, 0);
    assert_int_not_equal(nt_journal_sync(j), NT_OK);
    assert_int_equal(nt_journal_sync(j), NT_E_IO);
    assert_non_null(strstr(nt_error_last()->text, "earlier write"));
    assert_int_equal(nt_journal_close(j), NT_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),         cmocka_unit_test(test_lazy),
        cmocka_unit_test(test_other_job),          cmocka_unit_test(test_torn_everywhere),
        cmocka_unit_test(test_flipped_everywhere), cmocka_unit_test(test_decode_refuses),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
