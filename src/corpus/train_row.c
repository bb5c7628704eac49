#include "train_row.h"

#include "hash.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_MESSAGES = 1 << 20 };

bool nt_train_row_reject(struct nt_train_row *row, const char *fmt, ...) {
    if (row->error[0]) return false;
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(row->error, sizeof row->error, fmt, args);
    va_end(args);
    return false;
}

struct nt_row_list *nt_train_row_list(struct nt_train_row *row, char table) {
    return table == 'm' ? &row->messages : table == 'c' ? &row->chosen : &row->rejected;
}

struct nt_row_message *nt_train_row_append(struct nt_row_list *list, const char *role, float weight) {
    if (list->n == list->cap) {
        const int32_t cap = list->cap ? 2 * list->cap : 16;
        struct nt_row_message *grown = realloc(list->m, (size_t)cap * sizeof *grown);
        if (!grown) nt_bug("out of memory for %d messages", cap);
        list->m = grown;
        list->cap = cap;
    }
    list->m[list->n] = (struct nt_row_message){.role = role, .weight = weight};
    return &list->m[list->n++];
}

bool nt_train_row_say(struct nt_train_row *row, char table, const char *role, const struct nt_json *text, float weight,
                      const char *where) {
    struct nt_row_list *list = nt_train_row_list(row, table);
    size_t len = 0;
    const char *s = nt_json_str(text, &len);
    if (!s)
        return nt_train_row_reject(row, "%s is %s, expected a string", where,
                                   text ? nt_json_type_name(text) : "missing");
    nt_text_refs_add(&row->refs, text, table, list->n, -1, 0);
    struct nt_row_message *m = nt_train_row_append(list, role, weight);
    m->at = row->text.len;
    m->len = len;
    nt_strbuf_add(&row->text, s, len);
    return true;
}

/* ---- {"role", "content"} ---- */

static bool has_more(const struct nt_json *m) {
    static const char *const keys[] = {"tool_calls", "function_call", "audio",
                                       "refusal",    "reasoning",     "reasoning_content"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct nt_json *v = nt_json_given(m, keys[i]);
        if (v && !(nt_json_is(v, NT_JSON_ARRAY) && nt_json_len(v) == 0)) return true;
    }
    return false;
}

static bool join_parts(struct nt_train_row *row, char table, int32_t index, const struct nt_json *parts,
                       const char *where, struct nt_row_message *to) {
    for (size_t i = 0; i < nt_json_len(parts); i++) {
        const struct nt_json *part = nt_json_at(parts, i), *text = nt_json_get(part, "text");
        const char *type = nt_json_str(nt_json_get(part, "type"), NULL);
        size_t len = 0;
        const char *s = nt_json_str(text, &len);
        if (!type || strcmp(type, "text") != 0 || !s)
            return nt_train_row_reject(row,
                                       "%s.content[%zu] is no {\"type\": \"text\", \"text\": ...}, and text is all "
                                       "that can be trained on",
                                       where, i);
        if (i > 0) nt_strbuf_addc(&row->text, '\n');
        nt_text_refs_add(&row->refs, text, table, index, (int64_t)(row->text.len - to->at), (int64_t)len);
        nt_strbuf_add(&row->text, s, len);
    }
    to->len = row->text.len - to->at;
    return true;
}

bool nt_train_row_content(struct nt_train_row *row, char table, int32_t index, const struct nt_json *message,
                          const char *where, struct nt_row_message *to) {
    const struct nt_json *content = nt_json_get(message, "content");
    const char *s = nt_json_str(content, &to->len);
    to->at = row->text.len;
    to->has_more = has_more(message);
    if (nt_json_is(content, NT_JSON_ARRAY)) return join_parts(row, table, index, content, where, to);
    if (s) {
        nt_text_refs_add(&row->refs, content, table, index, -1, 0);
        nt_strbuf_add(&row->text, s, to->len);
        return true;
    }
    to->len = 0;
    if (nt_json_type(content) == NT_JSON_NULL && to->has_more) return true; /* absent or null beside tool calls */
    return nt_train_row_reject(row, "%s.content is %s, expected a string or a list of text parts", where,
                               content ? nt_json_type_name(content) : "missing");
}

bool nt_train_row_weight(struct nt_train_row *row, const struct nt_json *m, const char *where, float *weight) {
    const struct nt_json *v = nt_json_given(m, "weight");
    if (!v) return true;
    const double w = nt_json_num(v, -1);
    if (!nt_json_is(v, NT_JSON_INT) && !nt_json_is(v, NT_JSON_REAL))
        return nt_train_row_reject(row, "%s.weight is %s, expected a number from 0 to %g", where, nt_json_type_name(v),
                                   (double)NT_MAX_WEIGHT);
    if (!(w >= 0 && w <= (double)NT_MAX_WEIGHT))
        return nt_train_row_reject(row, "%s.weight is %g, expected 0 to %g", where, w, (double)NT_MAX_WEIGHT);
    *weight = (float)w;
    return true;
}

static bool read_message(struct nt_train_row *row, char table, const struct nt_json *m, float assistant_weight,
                         const char *where) {
    struct nt_row_list *list = nt_train_row_list(row, table);
    const char *role = nt_json_str(nt_json_get(m, "role"), NULL);
    const int r = nt_corpus_role(role);
    if (!nt_json_is(m, NT_JSON_OBJECT))
        return nt_train_row_reject(row, "%s is %s, expected {\"role\", \"content\"}", where, nt_json_type_name(m));
    if (r < 0 || r == NT_CORPUS_PROMPT)
        return nt_train_row_reject(row,
                                   "%s.role is \"%.40s\", expected one of system, developer, user, assistant, tool",
                                   where, role ? role : "(missing)");
    const bool assistant = strcmp(role, "assistant") == 0;
    const int32_t index = list->n;
    struct nt_row_message *to = nt_train_row_append(list, nt_corpus_role_name(r), assistant ? assistant_weight : 0.0f);
    return nt_train_row_weight(row, m, where, &to->weight) && nt_train_row_content(row, table, index, m, where, to);
}

bool nt_train_row_chat(struct nt_train_row *row, char table, const struct nt_json *list, float assistant_weight,
                       const char *where) {
    const size_t n = nt_json_len(list);
    char one[64];
    if (!nt_json_is(list, NT_JSON_ARRAY) || n == 0 || n > MAX_MESSAGES)
        return nt_train_row_reject(row, "%s is %s, expected a list of 1 to %d messages", where,
                                   !list                             ? "missing"
                                   : nt_json_is(list, NT_JSON_ARRAY) ? "empty or too long"
                                                                     : nt_json_type_name(list),
                                   MAX_MESSAGES);
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(one, sizeof one, "%s[%zu]", where, i);
        if (!read_message(row, table, nt_json_at(list, i), assistant_weight, one)) return false;
    }
    return true;
}

/* ---- as a whole ---- */

void nt_train_row_release(struct nt_train_row *row) {
    free(row->messages.m);
    free(row->chosen.m);
    free(row->rejected.m);
    nt_text_refs_release(&row->refs);
    nt_strbuf_release(&row->text);
    *row = (struct nt_train_row){0};
}

void nt_train_row_messages(const struct nt_train_row *row, const struct nt_row_list *list, struct nt_new_message *out) {
    for (int32_t i = 0; i < list->n; i++) {
        const struct nt_row_message *m = &list->m[i];
        out[i] = (struct nt_new_message){.role = m->role,
                                         .text = nt_strbuf_cstr(&row->text) + m->at,
                                         .len = m->len,
                                         .weight = m->weight,
                                         .has_more = m->has_more};
    }
}

static void add_list(const struct nt_train_row *row, const struct nt_row_list *list, struct nt_strbuf *s) {
    nt_strbuf_addf(s, "%d\n", list->n);
    for (int32_t i = 0; i < list->n; i++) {
        const struct nt_row_message *m = &list->m[i];
        nt_strbuf_addf(s, "%s %a %zu\n", m->role, (double)m->weight, m->len);
        nt_strbuf_add(s, nt_strbuf_cstr(&row->text) + m->at, m->len);
    }
}

void nt_train_row_digest(const struct nt_train_row *row, const char *salt, uint8_t digest[32]) {
    struct nt_strbuf s = NT_STRBUF_INIT;
    nt_strbuf_addf(&s, "nocturne row 1\n%zu %s\n%d %d\n", strlen(salt), salt, (int)row->kind, row->label);
    add_list(row, &row->messages, &s);
    add_list(row, &row->chosen, &s);
    add_list(row, &row->rejected, &s);
    nt_sha256(s.data, s.len, digest);
    nt_strbuf_release(&s);
}
