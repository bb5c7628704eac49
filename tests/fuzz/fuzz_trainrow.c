/* Any bytes as a line of training data, in every format, and as a shell. Promises checked: a row is taken or has a
 * sentence; messages lie within the row's text, are UTF-8 and have weights in range; a pair has two different sides, a
 * label one answer; the shell of a row that was taken gives back the very JSON. */
#include "fuzz_file.h"
#include "tok_utf8.h"
#include "train_row.h"
#include <math.h>

static void check_list(const struct nt_train_row *row, const struct nt_row_list *l) {
    for (int32_t i = 0; i < l->n; i++) {
        const struct nt_row_message *m = &l->m[i];
        FUZZ_CHECK(m->at <= row->text.len && m->len <= row->text.len - m->at);
        FUZZ_CHECK(nt_utf8_valid(nt_strbuf_cstr(&row->text) + m->at, m->len));
        FUZZ_CHECK(nt_corpus_role(m->role) >= 0);
        FUZZ_CHECK(m->weight >= 0 && m->weight <= NT_MAX_WEIGHT);
    }
}

static const struct nt_row_list *list_of(const struct nt_train_row *row, char table) {
    return table == 'm' ? &row->messages : table == 'c' ? &row->chosen : table == 'r' ? &row->rejected : NULL;
}

static nt_status row_text(void *ctx, char table, int64_t index, struct nt_strbuf *out) {
    const struct nt_train_row *row = ctx;
    const struct nt_row_list *l = list_of(row, table);
    FUZZ_CHECK(l && index >= 0 && index < l->n);
    nt_strbuf_add(out, nt_strbuf_cstr(&row->text) + l->m[index].at, l->m[index].len);
    return NT_OK;
}

static void check_round_trip(struct nt_train_row *row, const struct nt_json *doc) {
    struct nt_strbuf shell = NT_STRBUF_INIT, want = NT_STRBUF_INIT, back = NT_STRBUF_INIT;
    struct nt_json *parsed = NULL;
    nt_shell_dump(doc, &row->refs, &shell);
    FUZZ_CHECK(nt_json_parse(shell.data, shell.len, "shell", &parsed) == NT_OK);
    FUZZ_CHECK(nt_shell_fill(parsed, row_text, row, "shell", &back) == NT_OK);
    nt_json_dump(doc, &want);
    FUZZ_CHECK(back.len == want.len && memcmp(back.data, want.data, back.len) == 0);
    nt_json_free(parsed);
    nt_strbuf_release(&shell);
    nt_strbuf_release(&want);
    nt_strbuf_release(&back);
}

static void check_row(struct nt_train_row *row, const struct nt_json *doc) {
    uint8_t digest[32], again[32];
    if (row->error[0]) {
        FUZZ_CHECK(strlen(row->error) > 10);
        return;
    }
    check_list(row, &row->messages);
    check_list(row, &row->chosen);
    check_list(row, &row->rejected);
    FUZZ_CHECK(row->kind == NT_CONV_CHAT || row->kind == NT_CONV_TEXT);
    FUZZ_CHECK((row->chosen.n > 0) == (row->rejected.n > 0));
    FUZZ_CHECK(row->messages.n > 0 || row->chosen.n > 0);
    if (row->label >= 0) FUZZ_CHECK(strcmp(row->messages.m[row->messages.n - 1].role, "assistant") == 0);
    FUZZ_CHECK(isnan(row->margin) || isfinite(row->margin));
    nt_train_row_digest(row, "", digest);
    check_round_trip(row, doc);
    nt_train_row_digest(row, "", again);
    FUZZ_CHECK(memcmp(digest, again, sizeof digest) == 0);
}

static nt_status any_text(void *ctx, char table, int64_t index, struct nt_strbuf *out) {
    (void)ctx;
    (void)table;
    if (index > 9) return NT_FAIL(NT_E_DATA, "text %lld is not there", (long long)index);
    nt_strbuf_adds(out, "0123456789");
    return NT_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct nt_json *doc = NULL;
    struct nt_train_row row = {0};
    struct nt_strbuf out = NT_STRBUF_INIT;
    enum nt_row_format format = NT_ROW_MESSAGES;
    bool request = false;
    nt_error_clear();
    const nt_status st = nt_json_parse((const char *)data, size, "line", &doc);
    fuzz_check_status(st);
    if (st != NT_OK) return 0;
    const bool known = nt_train_row_detect(doc, &format, &request);
    FUZZ_CHECK(!known || (int)format < NT_N_ROW_FORMATS);
    for (int f = 0; f < NT_N_ROW_FORMATS; f++) {
        nt_train_row_parse(&row, doc, (enum nt_row_format)f);
        check_row(&row, doc);
    }
    fuzz_check_status(nt_shell_fill(doc, any_text, NULL, "shell", &out));
    nt_strbuf_release(&out);
    nt_train_row_release(&row);
    nt_json_free(doc);
    return 0;
}
