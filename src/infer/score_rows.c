#include "score_rows.h"

#include "fileio.h"
#include "hdf5file.h"
#include "json.h"
#include "lines.h"
#include "reader.h"

#include <stdlib.h>
#include <string.h>

enum kind { KIND_JSONL, KIND_TEXT, KIND_CORPUS };
enum { MAX_TEXT = 1 << 30, MAX_MESSAGES = 4096 };

struct nt_score_rows {
    const struct nt_session *session;
    const char *path;
    enum kind kind;
    struct nt_lines *lines;
    struct nt_reader *reader;
    int64_t n_rows; /* corpus */
    int64_t next;   /* row the next line is */
};

static size_t blanks(const char *text, size_t len) {
    size_t n = 0;
    while (n < len && (text[n] == ' ' || text[n] == '\t')) n++;
    return n;
}

/* By content, as generate does: HDF5 by its signature, rows when the first line that is not blank begins with '{'. */
static nt_status find_kind(struct nt_score_rows *r) {
    r->kind = KIND_CORPUS;
    if (nt_h5_is_file(r->path)) return NT_OK;
    struct nt_lines *lines;
    struct nt_line line;
    NT_TRY(nt_lines_open(&lines, r->path, 0, NULL));
    r->kind = KIND_TEXT;
    nt_status st;
    do {
        st = nt_lines_next(lines, &line);
    } while (st == NT_OK && line.data && !line.too_long && blanks(line.data, line.len) == line.len);
    if (st == NT_OK && line.data && !line.too_long && line.data[blanks(line.data, line.len)] == '{')
        r->kind = KIND_JSONL;
    nt_lines_close(lines);
    return st;
}

static nt_status open_input(struct nt_score_rows *r) {
    NT_TRY(find_kind(r));
    if (r->kind == KIND_JSONL) return nt_lines_open(&r->lines, r->path, 0, NULL);
    if (r->kind == KIND_TEXT) return NT_OK;
    uint8_t digest[32];
    NT_TRY(nt_reader_scan(r->path, &r->n_rows, digest));
    return nt_reader_open(&r->reader, r->path, r->session->config);
}

nt_status nt_score_rows_open(struct nt_score_rows **out, const struct nt_session *s, const char *path) {
    struct nt_score_rows *r = calloc(1, sizeof *r);
    if (!r) return NT_FAIL(NT_E_NOMEM, "no memory to read %s", path);
    *r = (struct nt_score_rows){.session = s, .path = path};
    const nt_status st = open_input(r);
    if (st != NT_OK)
        nt_score_rows_close(r);
    else
        *out = r;
    return st;
}

void nt_score_rows_close(struct nt_score_rows *r) {
    if (!r) return;
    nt_lines_close(r->lines);
    nt_reader_close(r->reader);
    free(r);
}

static char *copy(const char *text) {
    char *s = strdup(text);
    NT_CHECK(s);
    return s;
}

/* A failed encode is the row's fault, not the job's. */
static nt_status row_fault(struct nt_score_row *out, nt_status st) {
    if (st != NT_E_DATA && st != NT_E_UNSUPPORTED) return st;
    out->error = copy(nt_error_last()->text);
    nt_error_clear();
    return NT_OK;
}

static nt_status encode(struct nt_score_rows *r, const char *text, size_t len, unsigned flags,
                        struct nt_score_row *out) {
    return row_fault(out, nt_tokenizer_encode(r->session->text.tok, text, len, flags, &out->ids));
}

static nt_status whole_text(struct nt_score_rows *r, const char *text, size_t len, struct nt_score_row *out) {
    out->first = 1;
    return encode(r, text, len, NT_TOK_ADD_SPECIAL, out);
}

/* The last message given the ones before it and the prompt for an answer. */
static nt_status last_message(struct nt_score_rows *r, const struct nt_message *m, int64_t n,
                              struct nt_score_row *out) {
    if (!r->session->has_chat) {
        out->error = copy(r->session->chat_error);
        return NT_OK;
    }
    if (n < 2) {
        out->error = copy("messages needs at least two entries: the last one is scored given the others");
        return NT_OK;
    }
    NT_TRY(row_fault(out, nt_chat_encode(&r->session->chat, r->session->text.tok, m, n - 1, true, &out->ids)));
    out->first = (int32_t)out->ids.len;
    return out->error ? NT_OK : encode(r, m[n - 1].content, m[n - 1].len, 0, out);
}

static bool is_role(const char *role) {
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strcmp(role, roles[i]) == 0) return true;
    return false;
}

static nt_status messages_row(struct nt_score_rows *r, const struct nt_json *list, struct nt_score_row *out) {
    const size_t n = nt_json_len(list);
    if (n > MAX_MESSAGES) {
        out->error = copy("too many messages");
        return NT_OK;
    }
    struct nt_message *m = calloc(n ? n : 1, sizeof *m);
    NT_CHECK(m);
    nt_status st = NT_OK;
    for (size_t i = 0; i < n && !out->error; i++) {
        m[i].role = nt_json_str(nt_json_get(nt_json_at(list, i), "role"), NULL);
        m[i].content = nt_json_str(nt_json_get(nt_json_at(list, i), "content"), &m[i].len);
        if (!m[i].role || !m[i].content || !is_role(m[i].role))
            out->error = copy("each message needs a role (system, user, assistant, tool) and a string \"content\"");
    }
    if (!out->error) st = last_message(r, m, (int64_t)n, out);
    free(m);
    return st;
}

static nt_status json_row(struct nt_score_rows *r, const struct nt_json *line, struct nt_score_row *out) {
    size_t n_text, n_prompt, n_completion;
    const char *text = nt_json_str(nt_json_get(line, "text"), &n_text);
    const char *prompt = nt_json_str(nt_json_get(line, "prompt"), &n_prompt);
    const char *completion = nt_json_str(nt_json_get(line, "completion"), &n_completion);
    if (text) return whole_text(r, text, n_text, out);
    if (prompt && completion) {
        NT_TRY(encode(r, prompt, n_prompt, NT_TOK_ADD_SPECIAL, out));
        out->first = out->ids.len > 0 ? (int32_t)out->ids.len : 1;
        return out->error ? NT_OK : encode(r, completion, n_completion, 0, out);
    }
    if (nt_json_is(nt_json_get(line, "messages"), NT_JSON_ARRAY))
        return messages_row(r, nt_json_get(line, "messages"), out);
    out->error = copy("expected {\"text\"}, {\"prompt\",\"completion\"} or {\"messages\"} with strings");
    return NT_OK;
}

static nt_status jsonl_row(struct nt_score_rows *r, int64_t row, struct nt_score_row *out, bool *end) {
    struct nt_line line;
    for (;;) {
        NT_TRY(nt_lines_next(r->lines, &line));
        *end = !line.data;
        if (*end) return NT_OK;
        const bool blank = !line.too_long && blanks(line.data, line.len) == line.len;
        if (!blank && r->next++ == row) break;
    }
    out->line = line.number;
    if (line.too_long) {
        out->error = copy("the line is longer than 64 MiB");
        return NT_OK;
    }
    struct nt_strbuf origin = NT_STRBUF_INIT;
    struct nt_json *doc = NULL;
    nt_strbuf_addf(&origin, "%s:%lld", r->path, (long long)line.number);
    nt_status st = row_fault(out, nt_json_parse(line.data, line.len, nt_strbuf_cstr(&origin), &doc));
    if (st == NT_OK && !out->error) st = json_row(r, doc, out);
    nt_json_free(doc);
    nt_strbuf_release(&origin);
    return st;
}

static nt_status text_row(struct nt_score_rows *r, int64_t row, struct nt_score_row *out, bool *end) {
    *end = row > 0;
    if (*end) return NT_OK;
    char *text;
    size_t len;
    NT_TRY(nt_file_read(r->path, MAX_TEXT, &text, &len));
    nt_status st = NT_OK;
    if (len >= 4 && (memcmp(text, "\x1f\x8b", 2) == 0 || memcmp(text, "\x28\xb5\x2f\xfd", 4) == 0))
        st = NT_FAIL(NT_E_UNSUPPORTED, "%s is packed plain text; unpack it, or store it as rows {\"text\": ...}",
                     r->path);
    else if (memchr(text, 0, len))
        st = NT_FAIL(NT_E_DATA, "%s is neither text nor an HDF5 corpus: it holds NUL bytes", r->path);
    else
        st = whole_text(r, text, len, out);
    free(text);
    return st;
}

static nt_status corpus_row(struct nt_score_rows *r, int64_t row, struct nt_score_row *out, bool *end) {
    *end = row >= r->n_rows;
    if (*end) return NT_OK;
    struct nt_request req = {0};
    NT_TRY(nt_reader_row(r->reader, row, &req));
    nt_status st = NT_OK;
    if (req.error)
        out->error = copy(req.error);
    else if (req.kind == NT_REQUEST_CHAT)
        st = last_message(r, req.messages, req.n_messages, out);
    else {
        const struct nt_engine_config ec = nt_session_engine_config(r->session);
        st = nt_prompt_ids(&ec, &req, &out->ids, &out->error);
    }
    nt_request_release(&req);
    return st;
}

nt_status nt_score_rows_get(struct nt_score_rows *r, int64_t row, struct nt_score_row *out, bool *end) {
    *out = (struct nt_score_row){.first = 1};
    switch (r->kind) {
    case KIND_JSONL:
        return jsonl_row(r, row, out, end);
    case KIND_TEXT:
        return text_row(r, row, out, end);
    case KIND_CORPUS:
        return corpus_row(r, row, out, end);
    }
    return NT_OK;
}
