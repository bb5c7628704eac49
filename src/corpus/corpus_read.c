#include "corpus_h5.h"
#include "corpus_tables.h"
#include "hdf5file.h"
#include "tok_utf8.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct nt_corpus {
    char *path;
    uint32_t purpose;
    struct nt_h5_file *h5;
    struct nt_h5_array *consent, *subject, *msg_ptr, *role, *conversation, *endpoint;
    struct nt_h5_text content, parts, form, custom_id, params;
    int64_t n_subjects, n_conversations, n_messages, n_requests, next;
    struct nt_strbuf text;
};

static const char *const role_names[NT_CORPUS_N_ROLES] = {"system", "developer", "user", "assistant", "tool", "prompt"};

const char *nt_corpus_role_name(int role) {
    return role_names[role];
}

int nt_corpus_role(const char *name) {
    for (int i = 0; name && i < NT_CORPUS_N_ROLES; i++) {
        if (strcmp(role_names[i], name) == 0) return i;
    }
    return -1;
}

bool nt_consent_allows(uint32_t consent, uint32_t purpose) {
    return (consent & purpose) == purpose;
}

nt_status nt_consent_parse(const char *text, uint32_t *bits) {
    static const char *const names[] = {"none", "generate", "train", "distill", "publish"};
    enum { N = sizeof names / sizeof *names };
    bool none = false;
    *bits = 0;
    while (*text) {
        char word[32] = {0};
        const size_t n = strcspn(text, ",");
        memcpy(word, text, n < sizeof word ? n : sizeof word - 1);
        int i = 0;
        while (i < N && strcmp(names[i], word) != 0) i++;
        if (i == N) {
            const char *near = nt_nearest(word, names, N);
            return NT_FAIL(NT_E_CONFIG, "consent \"%s\": expected generate, train, distill, publish or none%s%s%s",
                           word, near ? "; maybe: " : "", near ? near : "", near ? "?" : "");
        }
        if (i > 0) *bits |= 1u << (i - 1);
        none = none || i == 0;
        text += n + (text[n] == ',');
    }
    if (none && *bits) return NT_FAIL(NT_E_CONFIG, "consent: none and a purpose exclude each other");
    return NT_OK;
}

static nt_status check_encoding(struct nt_corpus *c) {
    char type[64], version[32];
    NT_TRY(nt_h5_read_attr(c->h5, "/", "encoding-type", type, sizeof type));
    NT_TRY(nt_h5_read_attr(c->h5, "/", "encoding-version", version, sizeof version));
    if (strcmp(type, NT_CORPUS_ENCODING) != 0)
        return NT_FAIL(NT_E_DATA, "%s: an HDF5 file of encoding \"%s\", expected \"%s\"", c->path, type,
                       NT_CORPUS_ENCODING);
    if (strncmp(version, "1.", 2) != 0)
        return NT_FAIL(
            NT_E_UNSUPPORTED,
            "%s: corpus version %s, this program reads 1.x; ingest the rows again, or use the program that wrote it",
            c->path, version);
    return NT_OK;
}

static nt_status open_tables(struct nt_corpus *c) {
    struct nt_h5_file *f = c->h5;
    if (!nt_h5_has(f, "/requests"))
        return NT_FAIL(NT_E_DATA,
                       "%s: a corpus of rows to train on, expected one of requests; write it with `nocturne ingest "
                       "--format requests`",
                       c->path);
    NT_TRY(nt_h5_array(f, "/subjects/consent", NT_H5_U32, 0, -1, &c->consent));
    NT_TRY(nt_h5_array(f, "/conversations/subject", NT_H5_I32, 0, -1, &c->subject));
    c->n_subjects = nt_h5_rows(c->consent);
    c->n_conversations = nt_h5_rows(c->subject);
    NT_TRY(nt_h5_array(f, "/conversations/msg_ptr", NT_H5_I64, 0, c->n_conversations + 1, &c->msg_ptr));
    NT_TRY(nt_h5_array(f, "/messages/role", NT_H5_U8, 0, -1, &c->role));
    c->n_messages = nt_h5_rows(c->role);
    NT_TRY(nt_h5_text(f, "/messages/content", NT_H5_U8, c->n_messages, &c->content));
    NT_TRY(nt_h5_text(f, "/messages/parts", NT_H5_U8, c->n_messages, &c->parts));
    NT_TRY(nt_h5_text(f, "/messages/form", NT_H5_U8, c->n_messages, &c->form));
    NT_TRY(nt_h5_array(f, "/requests/conversation", NT_H5_I64, 0, -1, &c->conversation));
    c->n_requests = nt_h5_rows(c->conversation);
    NT_TRY(nt_h5_array(f, "/requests/endpoint", NT_H5_U8, 0, c->n_requests, &c->endpoint));
    NT_TRY(nt_h5_text(f, "/requests/custom_id", NT_H5_U8, c->n_requests, &c->custom_id));
    return nt_h5_text(f, "/requests/params", NT_H5_U8, c->n_requests, &c->params);
}

nt_status nt_corpus_open(struct nt_corpus **out, const char *path, enum nt_purpose purpose) {
    nt_status st = NT_OK;
    struct nt_corpus *c = calloc(1, sizeof *c);
    if (!c) return NT_FAIL(NT_E_NOMEM, "%s: no memory to read it", path);
    c->purpose = (uint32_t)purpose;
    c->path = strdup(path);
    if (!c->path) {
        st = NT_FAIL(NT_E_NOMEM, "%s: no memory to read it", path);
        goto close_corpus;
    }
    NT_TRY_GOTO(st, close_corpus, nt_h5_open(&c->h5, path));
    NT_TRY_GOTO(st, close_corpus, check_encoding(c));
    NT_TRY_GOTO(st, close_corpus, open_tables(c));
    *out = c;
    return NT_OK;

close_corpus:
    nt_corpus_close(c);
    return st;
}

void nt_corpus_close(struct nt_corpus *c) {
    if (!c) return;
    nt_h5_close(c->h5);
    nt_strbuf_release(&c->text);
    free(c->path);
    free(c);
}

static nt_status check_ref(const struct nt_corpus *c, const char *what, int64_t from, int64_t to, int64_t n) {
    if (to >= 0 && to < n) return NT_OK;
    return NT_FAIL(NT_E_DATA, "%s: %s[%" PRId64 "] is %" PRId64 ", expected 0 to %" PRId64, c->path, what, from, to,
                   n - 1);
}

/* Moves next to a row that may be seen; *conv its conversation, -1 when there is none. */
static nt_status find_visible(struct nt_corpus *c, int64_t *conv) {
    for (; c->next < c->n_requests; c->next++) {
        int32_t subject = 0;
        uint32_t consent = 0;
        NT_TRY(nt_h5_get(c->conversation, c->next, conv));
        NT_TRY(check_ref(c, "/requests/conversation", c->next, *conv, c->n_conversations));
        NT_TRY(nt_h5_get(c->subject, *conv, &subject));
        NT_TRY(check_ref(c, "/conversations/subject", *conv, subject, c->n_subjects));
        NT_TRY(nt_h5_get(c->consent, subject, &consent));
        if (nt_consent_allows(consent, c->purpose)) return NT_OK;
    }
    *conv = -1;
    return NT_OK;
}

nt_status nt_corpus_skip(struct nt_corpus *c, int64_t n, int64_t *n_skipped) {
    int64_t conv = 0;
    for (*n_skipped = 0; *n_skipped < n; (*n_skipped)++) {
        NT_TRY(find_visible(c, &conv));
        if (conv < 0) return NT_OK;
        c->next++;
    }
    return NT_OK;
}

/* ---- one row as JSON ---- */

struct row {
    struct nt_corpus *c;
    struct nt_strbuf *out;
    int64_t first, end; /* messages */
    bool bad;           /* not UTF-8 */
};

static nt_status add_string(struct row *r, struct nt_h5_text *t, int64_t i) {
    struct nt_strbuf *text = &r->c->text;
    nt_strbuf_reset(text);
    NT_TRY(nt_h5_text_get(t, i, text));
    r->bad |= !nt_utf8_valid(nt_strbuf_cstr(text), text->len);
    nt_strbuf_add_json(r->out, nt_strbuf_cstr(text), text->len);
    return NT_OK;
}

static nt_status load_json(struct row *r, struct nt_h5_text *t, int64_t i, const char *name, struct nt_json **doc) {
    struct nt_strbuf *text = &r->c->text;
    *doc = NULL;
    nt_strbuf_reset(text);
    NT_TRY(nt_h5_text_get(t, i, text));
    if (text->len == 0) return NT_OK;
    char origin[320];
    (void)snprintf(origin, sizeof origin, "%.200s: %s[%" PRId64 "]", r->c->path, name, i);
    return nt_json_parse(text->data, text->len, origin, doc);
}

/* The content of message i: its parts when it has them, else its text. */
static nt_status add_content(struct row *r, int64_t i) {
    struct nt_json *parts = NULL;
    NT_TRY(load_json(r, &r->c->parts, i, "/messages/parts", &parts));
    if (!parts) return add_string(r, &r->c->content, i);
    nt_json_dump(parts, r->out);
    nt_json_free(parts);
    return NT_OK;
}

static void add_key(struct nt_strbuf *out, const struct nt_json *object, void *it) {
    const char *key = nt_json_key(it);
    if (it != nt_json_first(object)) nt_strbuf_addc(out, ',');
    nt_strbuf_add_json(out, key, strlen(key));
    nt_strbuf_addc(out, ':');
}

static nt_status add_message(struct row *r, int64_t i) {
    struct nt_json *form = NULL;
    uint8_t role = 0;
    nt_status st = NT_OK;
    NT_TRY(load_json(r, &r->c->form, i, "/messages/form", &form));
    if (!form) {
        NT_TRY(nt_h5_get(r->c->role, i, &role));
        NT_TRY(check_ref(r->c, "/messages/role", i, role, NT_CORPUS_PROMPT));
        nt_strbuf_addf(r->out, "{\"role\":\"%s\",\"content\":", nt_corpus_role_name(role));
        st = add_content(r, i);
    } else {
        nt_strbuf_addc(r->out, '{');
        for (void *it = nt_json_first(form); it && st == NT_OK; it = nt_json_next(form, it)) {
            add_key(r->out, form, it);
            if (strcmp(nt_json_key(it), "content") == 0)
                st = add_content(r, i);
            else
                nt_json_dump(nt_json_value(it), r->out);
        }
    }
    nt_strbuf_addc(r->out, '}');
    nt_json_free(form);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

static nt_status add_messages(struct row *r) {
    nt_strbuf_addc(r->out, '[');
    for (int64_t i = r->first; i < r->end; i++) {
        if (i > r->first) nt_strbuf_addc(r->out, ',');
        NT_TRY(add_message(r, i));
    }
    nt_strbuf_addc(r->out, ']');
    return NT_OK;
}

/* The row's object (or its body) with the texts put back where params has null for them. */
static nt_status add_object(struct row *r, const struct nt_json *params, bool top) {
    nt_strbuf_addc(r->out, '{');
    for (void *it = nt_json_first(params); it; it = nt_json_next(params, it)) {
        const char *key = nt_json_key(it);
        const struct nt_json *v = nt_json_value(it);
        const bool empty = nt_json_is(v, NT_JSON_NULL);
        add_key(r->out, params, it);
        if (empty && top && strcmp(key, "custom_id") == 0)
            NT_TRY(add_string(r, &r->c->custom_id, r->c->next));
        else if (empty && strcmp(key, "messages") == 0)
            NT_TRY(add_messages(r));
        else if (empty && strcmp(key, "prompt") == 0 && r->first < r->end)
            NT_TRY(add_content(r, r->first));
        else if (top && strcmp(key, "body") == 0 && nt_json_is(v, NT_JSON_OBJECT))
            NT_TRY(add_object(r, v, false));
        else
            nt_json_dump(v, r->out);
    }
    nt_strbuf_addc(r->out, '}');
    return NT_OK;
}

nt_status nt_corpus_next(struct nt_corpus *c, struct nt_strbuf *json, bool *more, bool *bad) {
    struct row r = {.c = c, .out = json};
    struct nt_json *params = NULL;
    int64_t conv = -1;
    nt_strbuf_reset(json);
    NT_TRY(find_visible(c, &conv));
    *more = conv >= 0;
    *bad = false;
    if (!*more) return NT_OK;
    NT_TRY(nt_h5_get(c->msg_ptr, conv, &r.first));
    NT_TRY(nt_h5_get(c->msg_ptr, conv + 1, &r.end));
    if (r.first < 0 || r.end < r.first || r.end > c->n_messages)
        return NT_FAIL(NT_E_DATA,
                       "%s: /conversations/msg_ptr[%" PRId64 "] gives messages %" PRId64 " to %" PRId64
                       ", expected a range within %" PRId64,
                       c->path, conv, r.first, r.end, c->n_messages);
    NT_TRY(load_json(&r, &c->params, c->next, "/requests/params", &params));
    const nt_status st = add_object(&r, params, true);
    nt_json_free(params);
    NT_TRY(st);
    *bad = r.bad;
    c->next++;
    return NT_OK;
}
