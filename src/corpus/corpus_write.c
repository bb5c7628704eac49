#include "corpus_h5.h"
#include "corpus_tables.h"
#include "hash.h"
#include "hdf5file.h"
#include "idset.h"
#include <stdlib.h>
#include <string.h>

struct nt_corpus_writer {
    struct nt_h5_writer *h5;
    uint32_t consent;
    struct nt_h5_column *subject_id, *subject_consent;
    struct nt_h5_column *conv_id, *conv_subject, *msg_ptr;
    struct nt_h5_column *role, *req_conv, *endpoint;
    struct nt_h5_ragged content, parts, form, custom_id, params;
    struct nt_id_set users; /* "line" is the subject's index */
    int64_t n_subjects, n_conversations, n_messages;
    struct nt_strbuf text;
    struct nt_sha256 *sha; /* over the rows' JSON */
};

static nt_status open_tables(struct nt_corpus_writer *w) {
    struct nt_h5_writer *h = w->h5;
    const int64_t zero = 0;
    NT_TRY(nt_h5_attr_str(h, "/", "encoding-type", NT_CORPUS_ENCODING));
    NT_TRY(nt_h5_attr_str(h, "/", "encoding-version", NT_CORPUS_VERSION));
    NT_TRY(nt_h5_attr_str(h, "/", "creator", "nocturne ingest"));
    NT_TRY(nt_h5_group(h, "/subjects", "subjects"));
    NT_TRY(nt_h5_column(h, "/subjects/id", NT_H5_U8, NT_CORPUS_ID, &w->subject_id));
    NT_TRY(nt_h5_column(h, "/subjects/consent", NT_H5_U32, 0, &w->subject_consent));
    NT_TRY(nt_h5_attr_str(h, "/subjects/consent", "bits", "1 generate,2 train,4 distill,8 publish"));
    NT_TRY(nt_h5_group(h, "/conversations", "conversations"));
    NT_TRY(nt_h5_column(h, "/conversations/id", NT_H5_U8, NT_CORPUS_ID, &w->conv_id));
    NT_TRY(nt_h5_column(h, "/conversations/subject", NT_H5_I32, 0, &w->conv_subject));
    NT_TRY(nt_h5_column(h, "/conversations/msg_ptr", NT_H5_I64, 0, &w->msg_ptr));
    NT_TRY(nt_h5_append(w->msg_ptr, &zero, 1));
    NT_TRY(nt_h5_group(h, "/messages", "messages"));
    NT_TRY(nt_h5_column(h, "/messages/role", NT_H5_U8, 0, &w->role));
    NT_TRY(nt_h5_attr_str(h, "/messages/role", "values", NT_CORPUS_ROLES));
    NT_TRY(nt_h5_ragged(h, "/messages/content", NT_H5_U8, "ragged-utf8", &w->content));
    NT_TRY(nt_h5_ragged(h, "/messages/parts", NT_H5_U8, "ragged-json", &w->parts));
    NT_TRY(nt_h5_ragged(h, "/messages/form", NT_H5_U8, "ragged-json", &w->form));
    NT_TRY(nt_h5_group(h, "/requests", "requests"));
    NT_TRY(nt_h5_column(h, "/requests/conversation", NT_H5_I64, 0, &w->req_conv));
    NT_TRY(nt_h5_column(h, "/requests/endpoint", NT_H5_U8, 0, &w->endpoint));
    NT_TRY(nt_h5_attr_str(h, "/requests/endpoint", "values", "chat.completions,completions"));
    NT_TRY(nt_h5_ragged(h, "/requests/custom_id", NT_H5_U8, "ragged-utf8", &w->custom_id));
    return nt_h5_ragged(h, "/requests/params", NT_H5_U8, "ragged-json", &w->params);
}

/* Subject 0 stands for rows that name no user. The id is a digest, so that the table of subjects holds no names. */
static nt_status add_subject(struct nt_corpus_writer *w, const char *user, size_t len) {
    uint8_t digest[NT_SHA256_BYTES] = {0};
    static const char salt[] = "nocturne subject";
    if (user) {
        nt_strbuf_reset(&w->text);
        nt_strbuf_add(&w->text, salt, sizeof salt);
        nt_strbuf_add(&w->text, user, len);
        nt_sha256(w->text.data, w->text.len, digest);
    }
    NT_TRY(nt_h5_append(w->subject_id, digest, 1));
    NT_TRY(nt_h5_append(w->subject_consent, &w->consent, 1));
    w->n_subjects++;
    return NT_OK;
}

nt_status nt_corpus_create(struct nt_corpus_writer **out, const char *path, uint32_t consent) {
    nt_status st = NT_OK;
    struct nt_corpus_writer *w = calloc(1, sizeof *w);
    if (!w) return NT_FAIL(NT_E_NOMEM, "%s: no memory to write it", path);
    w->consent = consent;
    NT_TRY_GOTO(st, abandon, nt_sha256_new(&w->sha));
    NT_TRY_GOTO(st, abandon, nt_h5_create(&w->h5, path));
    NT_TRY_GOTO(st, abandon, open_tables(w));
    NT_TRY_GOTO(st, abandon, add_subject(w, NULL, 0));
    *out = w;
    return NT_OK;

abandon:
    nt_corpus_abandon(w);
    return st;
}

void nt_corpus_abandon(struct nt_corpus_writer *w) {
    if (!w) return;
    uint8_t unused[NT_SHA256_BYTES];
    if (w->sha) nt_sha256_finish(w->sha, unused);
    nt_h5_abandon(w->h5);
    nt_id_set_release(&w->users);
    nt_strbuf_release(&w->text);
    free(w);
}

/* An object with the values of the named keys replaced by null: what remains of a row beside its texts. */
static void dump_without(const struct nt_json *object, const char *const *keys, int n, struct nt_strbuf *out) {
    nt_strbuf_addc(out, '{');
    for (void *it = nt_json_first(object); it; it = nt_json_next(object, it)) {
        const char *key = nt_json_key(it);
        bool leave_out = false;
        for (int i = 0; i < n; i++) leave_out |= strcmp(key, keys[i]) == 0;
        if (it != nt_json_first(object)) nt_strbuf_addc(out, ',');
        nt_strbuf_add_json(out, key, strlen(key));
        nt_strbuf_addc(out, ':');
        if (leave_out)
            nt_strbuf_adds(out, "null");
        else if (strcmp(key, "body") == 0 && nt_json_is(nt_json_value(it), NT_JSON_OBJECT))
            dump_without(nt_json_value(it), keys, n, out);
        else
            nt_json_dump(nt_json_value(it), out);
    }
    nt_strbuf_addc(out, '}');
}

/* {"role": R, "content": "..."} in this order needs no form. */
static bool is_ordinary(const struct nt_json *m) {
    void *it = nt_json_first(m);
    return nt_json_len(m) == 2 && strcmp(nt_json_key(it), "role") == 0 &&
           nt_json_is(nt_json_get(m, "content"), NT_JSON_STRING);
}

static nt_status add_ragged_json(struct nt_corpus_writer *w, struct nt_h5_ragged *column, const struct nt_json *v) {
    nt_strbuf_reset(&w->text);
    if (v) nt_json_dump(v, &w->text);
    return nt_h5_ragged_append(column, nt_strbuf_cstr(&w->text), (int64_t)w->text.len);
}

static nt_status add_message(struct nt_corpus_writer *w, const struct nt_message *text, const struct nt_json *m) {
    static const char *const content_key[] = {"content"};
    const struct nt_json *content = nt_json_get(m, "content");
    const uint8_t role = (uint8_t)nt_corpus_role(nt_json_str(nt_json_get(m, "role"), NULL));
    NT_TRY(nt_h5_append(w->role, &role, 1));
    NT_TRY(nt_h5_ragged_append(&w->content, text->content, (int64_t)text->len));
    NT_TRY(add_ragged_json(w, &w->parts, nt_json_is(content, NT_JSON_ARRAY) ? content : NULL));
    nt_strbuf_reset(&w->text);
    if (!is_ordinary(m)) dump_without(m, content_key, 1, &w->text);
    NT_TRY(nt_h5_ragged_append(&w->form, nt_strbuf_cstr(&w->text), (int64_t)w->text.len));
    w->n_messages++;
    return NT_OK;
}

static nt_status add_prompt(struct nt_corpus_writer *w, const struct nt_request *q, const struct nt_json *prompt) {
    const uint8_t role = NT_CORPUS_PROMPT;
    NT_TRY(nt_h5_append(w->role, &role, 1));
    NT_TRY(nt_h5_ragged_append(&w->content, q->prompt ? q->prompt : "", (int64_t)q->prompt_len));
    NT_TRY(add_ragged_json(w, &w->parts, nt_json_is(prompt, NT_JSON_ARRAY) ? prompt : NULL));
    NT_TRY(nt_h5_ragged_append(&w->form, "", 0));
    w->n_messages++;
    return NT_OK;
}

static nt_status find_subject(struct nt_corpus_writer *w, const struct nt_json *body, int32_t *subject) {
    size_t len = 0;
    const char *user = nt_json_str(nt_json_get(body, "user"), &len);
    int64_t known = 0;
    *subject = 0;
    if (!user || len == 0) return NT_OK;
    if (w->n_subjects >= INT32_MAX)
        return NT_FAIL(NT_E_UNSUPPORTED, "more than %d users in one corpus; split the input", INT32_MAX);
    NT_TRY(nt_id_set_add(&w->users, user, len, w->n_subjects, &known));
    *subject = (int32_t)(known ? known : w->n_subjects);
    return known ? NT_OK : add_subject(w, user, len);
}

static nt_status add_conversation(struct nt_corpus_writer *w, const struct nt_request *q, const struct nt_json *body) {
    uint8_t seed[40], id[NT_SHA256_BYTES];
    int32_t subject = 0;
    memcpy(seed, q->digest, 32);
    memcpy(seed + 32, &w->n_conversations, 8);
    nt_sha256(seed, sizeof seed, id);
    NT_TRY(find_subject(w, body, &subject));
    NT_TRY(nt_h5_append(w->conv_id, id, 1));
    NT_TRY(nt_h5_append(w->conv_subject, &subject, 1));
    const struct nt_json *messages = nt_json_get(body, "messages");
    for (int32_t i = 0; i < q->n_messages; i++)
        NT_TRY(add_message(w, &q->messages[i], nt_json_at(messages, (size_t)i)));
    if (q->kind == NT_REQUEST_COMPLETION) NT_TRY(add_prompt(w, q, nt_json_get(body, "prompt")));
    return nt_h5_append(w->msg_ptr, &w->n_messages, 1);
}

nt_status nt_corpus_add(struct nt_corpus_writer *w, const struct nt_request *q, const struct nt_json *row) {
    static const char *const text_keys[] = {"custom_id", "messages", "prompt"};
    const struct nt_json *body = q->batch ? nt_json_get(row, "body") : row;
    const uint8_t endpoint = q->kind == NT_REQUEST_CHAT ? 0 : 1;
    size_t id_len = 0;
    const char *id = nt_json_str(nt_json_get(row, "custom_id"), &id_len);
    NT_CHECK(!q->error);
    NT_TRY(add_conversation(w, q, body));
    NT_TRY(nt_h5_append(w->req_conv, &w->n_conversations, 1));
    NT_TRY(nt_h5_append(w->endpoint, &endpoint, 1));
    NT_TRY(nt_h5_ragged_append(&w->custom_id, id ? id : "", (int64_t)id_len));
    nt_strbuf_reset(&w->text);
    dump_without(row, text_keys, 3, &w->text);
    NT_TRY(nt_h5_ragged_append(&w->params, w->text.data, (int64_t)w->text.len));
    w->n_conversations++;
    nt_strbuf_reset(&w->text);
    nt_json_dump(row, &w->text);
    nt_strbuf_addc(&w->text, '\n');
    nt_sha256_add(w->sha, w->text.data, w->text.len);
    return NT_OK;
}

static nt_status finish(struct nt_corpus_writer *w) {
    uint8_t digest[NT_SHA256_BYTES];
    char hex[NT_SHA256_HEX];
    nt_sha256_finish(w->sha, digest);
    w->sha = NULL;
    nt_hex(digest, sizeof digest, hex);
    NT_TRY(nt_h5_attr_str(w->h5, "/", "content_sha256", hex));
    NT_TRY(nt_h5_attr_i64(w->h5, "/", "n_conversations", w->n_conversations));
    NT_TRY(nt_h5_attr_i64(w->h5, "/", "n_messages", w->n_messages));
    struct nt_h5_writer *h5 = w->h5;
    w->h5 = NULL;
    return nt_h5_publish(h5);
}

nt_status nt_corpus_publish(struct nt_corpus_writer *w) {
    const nt_status st = finish(w);
    nt_corpus_abandon(w);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}
