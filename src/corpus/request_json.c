#include "request_json.h"

#include "request_params.h"
#include "strbuf.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *copy_bytes(const char *bytes, size_t n) {
    char *copy = malloc(n + 1);
    if (!copy) nt_bug("out of memory for %zu bytes of text", n);
    memcpy(copy, bytes, n);
    copy[n] = '\0';
    return copy;
}

/* ---- messages ---- */

static const struct {
    const char *name, *role;
} roles[] = {
    {"system",    "system"   },
    {"developer", "system"   }, /* the newer name of the same role */
    {"user",      "user"     },
    {"assistant", "assistant"},
    {"tool",      "tool"     },
};

static const char *find_role(const char *name) {
    for (size_t i = 0; name && i < sizeof roles / sizeof *roles; i++) {
        if (strcmp(roles[i].name, name) == 0) return roles[i].role;
    }
    return NULL;
}

/* Text parts are joined by a line end, as vLLM does for templates that take strings. */
static bool join_parts(struct nt_request *r, const struct nt_json *parts, const char *where, const char *origin,
                       struct nt_strbuf *out) {
    for (size_t i = 0; i < nt_json_len(parts); i++) {
        const struct nt_json *part = nt_json_at(parts, i);
        const char *type = nt_json_str(nt_json_get(part, "type"), NULL);
        size_t len = 0;
        const char *text = nt_json_str(nt_json_get(part, "text"), &len);
        if (!type || strcmp(type, "text") != 0)
            return nt_request_reject(r, origin, "%s.content[%zu] has the type \"%.40s\", only \"text\" is supported",
                                     where, i, type ? type : "");
        if (!text) return nt_request_reject(r, origin, "%s.content[%zu].text is missing or no string", where, i);
        if (i > 0) nt_strbuf_addc(out, '\n');
        nt_strbuf_add(out, text, len);
    }
    return true;
}

static bool check_message_keys(struct nt_request *r, const struct nt_json *m, const char *where, const char *origin) {
    static const char *const known[] = {"role",          "content", "name",  "tool_call_id",      "tool_calls",
                                        "function_call", "refusal", "audio", "reasoning_content", "weight"};
    enum { N_KNOWN = sizeof known / sizeof *known, N_FREE = 4 }; /* the first four may have any value */
    for (void *it = nt_json_first(m); it; it = nt_json_next(m, it)) {
        const char *key = nt_json_key(it);
        const struct nt_json *v = nt_json_value(it);
        int i = 0;
        while (i < N_KNOWN && strcmp(known[i], key) != 0) i++;
        if (i < N_FREE || (i < N_KNOWN && nt_json_is(v, NT_JSON_NULL))) continue;
        if (i < N_KNOWN && nt_json_is(v, NT_JSON_ARRAY) && nt_json_len(v) == 0) continue;
        if (i < N_KNOWN) return nt_request_reject(r, origin, "%s.%s is not supported; leave it out", where, key);
        const char *near = nt_nearest(key, known, N_KNOWN);
        return nt_request_reject(r, origin, "unknown key %s.\"%.80s\"%s%s%s", where, key, near ? ", maybe: " : "",
                                 near ? near : "", near ? "?" : "");
    }
    return true;
}

static bool read_message(struct nt_request *r, const struct nt_json *m, size_t i, const struct nt_params_at *at) {
    char where[64], shown[72];
    (void)snprintf(where, sizeof where, "%smessages[%zu]", at->prefix, i);
    if (!nt_json_is(m, NT_JSON_OBJECT))
        return nt_request_reject(r, at->origin, "%s is %s, expected an object with role and content", where,
                                 nt_json_type_name(m));
    if (!check_message_keys(r, m, where, at->origin)) return false;
    const struct nt_json *role = nt_json_get(m, "role");
    struct nt_message *out = &r->messages[i];
    out->role = find_role(nt_json_str(role, NULL));
    if (!out->role)
        return nt_request_reject(r, at->origin,
                                 "%s.role is %s, expected one of system, developer, user, assistant, tool", where,
                                 role ? nt_params_show(role, shown, sizeof shown) : "missing");
    const struct nt_json *content = nt_json_get(m, "content");
    const char *text = nt_json_str(content, &out->len);
    if (text) {
        out->content = copy_bytes(text, out->len);
        return true;
    }
    if (!nt_json_is(content, NT_JSON_ARRAY))
        return nt_request_reject(r, at->origin, "%s.content is %s, expected a string or a list of text parts", where,
                                 content ? nt_json_type_name(content) : "missing");
    struct nt_strbuf joined = NT_STRBUF_INIT;
    const bool ok = join_parts(r, content, where, at->origin, &joined);
    if (ok) {
        out->content = copy_bytes(nt_strbuf_cstr(&joined), joined.len);
        out->len = joined.len;
    }
    nt_strbuf_release(&joined);
    return ok;
}

static bool read_messages(struct nt_request *r, const struct nt_json *list, const struct nt_params_at *at) {
    if (!nt_json_is(list, NT_JSON_ARRAY))
        return nt_request_reject(r, at->origin, "%smessages is %s, expected a list of messages", at->prefix,
                                 list ? nt_json_type_name(list) : "missing");
    const size_t n = nt_json_len(list);
    if (n == 0 || n > INT32_MAX)
        return nt_request_reject(r, at->origin, "%smessages is empty, expected at least one message", at->prefix);
    r->messages = calloc(n, sizeof *r->messages);
    if (!r->messages) nt_bug("out of memory for %zu messages", n);
    r->n_messages = (int32_t)n; /* content of unread ones is NULL */
    for (size_t i = 0; i < n; i++) {
        if (!read_message(r, nt_json_at(list, i), i, at)) return false;
    }
    return true;
}

/* ---- prompt ---- */

static bool read_prompt_ids(struct nt_request *r, const struct nt_json *ids, const struct nt_params_at *at) {
    const size_t n = nt_json_len(ids);
    char shown[72];
    if (n > INT32_MAX) return nt_request_reject(r, at->origin, "%sprompt has too many token ids", at->prefix);
    r->prompt_ids = calloc(n, sizeof *r->prompt_ids);
    if (!r->prompt_ids) nt_bug("out of memory for %zu token ids", n);
    r->n_prompt_ids = (int32_t)n;
    for (size_t i = 0; i < n; i++) {
        const struct nt_json *v = nt_json_at(ids, i);
        const int64_t id = nt_json_is(v, NT_JSON_INT) ? nt_json_int(v, -1) : -1;
        if (id < 0 || id > INT32_MAX)
            return nt_request_reject(r, at->origin, "%sprompt[%zu] is %s, expected a token id from 0 to 2147483647",
                                     at->prefix, i, nt_params_show(v, shown, sizeof shown));
        r->prompt_ids[i] = (int32_t)id;
    }
    return true;
}

static bool read_prompt(struct nt_request *r, const struct nt_json *v, const struct nt_params_at *at) {
    const struct nt_json *first = nt_json_at(nt_json_is(v, NT_JSON_ARRAY) ? v : NULL, 0);
    const bool nested = nt_json_is(first, NT_JSON_STRING) || nt_json_is(first, NT_JSON_ARRAY);
    if (nested && nt_json_len(v) > 1)
        return nt_request_reject(r, at->origin, "%sprompt is a list of %zu prompts, expected one prompt per row",
                                 at->prefix, nt_json_len(v));
    if (nested) v = first;
    size_t len = 0;
    const char *text = nt_json_str(v, &len);
    if (text ? len == 0 : nt_json_is(v, NT_JSON_ARRAY) && nt_json_len(v) == 0)
        return nt_request_reject(r, at->origin, "%sprompt is empty, expected text or token ids", at->prefix);
    if (!text && nt_json_is(v, NT_JSON_ARRAY)) return read_prompt_ids(r, v, at);
    if (!text)
        return nt_request_reject(r, at->origin, "%sprompt is %s, expected a string or a list of token ids", at->prefix,
                                 v ? nt_json_type_name(v) : "missing");
    r->prompt = copy_bytes(text, len);
    r->prompt_len = len;
    return true;
}

/* ---- envelope ---- */

static bool read_custom_id(struct nt_request *r, const struct nt_json *line, const char *origin) {
    const struct nt_json *v = nt_json_get(line, "custom_id");
    size_t len = 0;
    const char *id = nt_json_str(v, &len);
    if (!v && !r->batch) return true;
    if (!v) return nt_request_reject(r, origin, "custom_id is missing; every line of a batch needs its own");
    if (!id || len == 0 || len > NT_MAX_CUSTOM_ID || strlen(id) != len)
        return nt_request_reject(r, origin, "custom_id is %s, expected a string of 1 to %d bytes without NUL",
                                 id ? "too short, too long or holds NUL" : nt_json_type_name(v), NT_MAX_CUSTOM_ID);
    free(r->custom_id);
    r->custom_id = copy_bytes(id, len);
    return true;
}

static bool read_url(struct nt_request *r, const struct nt_json *line, const char *origin) {
    char shown[72];
    const struct nt_json *method = nt_json_get(line, "method"), *url = nt_json_get(line, "url");
    const char *m = nt_json_str(method, NULL), *u = nt_json_str(url, NULL);
    if (!m || strcmp(m, "POST") != 0)
        return nt_request_reject(r, origin, "method is %s, expected \"POST\"",
                                 method ? nt_params_show(method, shown, sizeof shown) : "missing");
    if (u && strcmp(u, "/v1/chat/completions") == 0) {
        r->kind = NT_REQUEST_CHAT;
        return true;
    }
    if (u && strcmp(u, "/v1/completions") == 0) {
        r->kind = NT_REQUEST_COMPLETION;
        return true;
    }
    return nt_request_reject(r, origin, "url is %s, expected \"/v1/chat/completions\" or \"/v1/completions\"",
                             url ? nt_params_show(url, shown, sizeof shown) : "missing");
}

static bool read_batch(struct nt_request *r, const struct nt_json *line, const char *origin) {
    static const char *const known[] = {"custom_id", "method", "url", "body"};
    for (void *it = nt_json_first(line); it; it = nt_json_next(line, it)) {
        int i = 0;
        while (i < 4 && strcmp(known[i], nt_json_key(it)) != 0) i++;
        if (i < 4) continue;
        const char *near = nt_nearest(nt_json_key(it), known, 4);
        return nt_request_reject(r, origin, "unknown key \"%.80s\"%s%s; a batch line has custom_id, method, url, body",
                                 nt_json_key(it), near ? ", maybe: " : "", near ? near : "");
    }
    if (!read_custom_id(r, line, origin) || !read_url(r, line, origin)) return false;
    const struct nt_json *body = nt_json_get(line, "body");
    if (!nt_json_is(body, NT_JSON_OBJECT))
        return nt_request_reject(r, origin, "body is %s, expected an object",
                                 body ? nt_json_type_name(body) : "missing");
    const struct nt_params_at at = {.origin = origin, .prefix = "body."};
    const bool chat = r->kind == NT_REQUEST_CHAT;
    const char *other = chat ? "prompt" : "messages";
    if (nt_json_get(body, other))
        return nt_request_reject(r, origin, "body.%s does not belong to the url %s; expected %s", other,
                                 chat ? "/v1/chat/completions" : "/v1/completions", chat ? "messages" : "prompt");
    return nt_params_read(r, body, &at) && (chat ? read_messages(r, nt_json_get(body, "messages"), &at)
                                                 : read_prompt(r, nt_json_get(body, "prompt"), &at));
}

static bool read_plain(struct nt_request *r, const struct nt_json *line, const char *origin) {
    const struct nt_json *messages = nt_json_get(line, "messages"), *prompt = nt_json_get(line, "prompt");
    r->kind = messages ? NT_REQUEST_CHAT : NT_REQUEST_COMPLETION;
    if (!read_custom_id(r, line, origin)) return false;
    if (messages && prompt) return nt_request_reject(r, origin, "has both messages and prompt, expected one of them");
    const struct nt_params_at at = {.origin = origin, .prefix = "", .envelope = true};
    if (!nt_params_read(r, line, &at)) return false;
    if (!messages && !prompt)
        return nt_request_reject(r, origin,
                                 "has neither messages nor prompt; expected one of them, or an OpenAI Batch line");
    return messages ? read_messages(r, messages, &at) : read_prompt(r, prompt, &at);
}

void nt_request_from_json(struct nt_request *r, const struct nt_json *line, const char *origin) {
    if (!r->custom_id) {
        char id[32];
        (void)snprintf(id, sizeof id, "row-%" PRId64, r->row);
        r->custom_id = copy_bytes(id, strlen(id));
    }
    if (r->error) return;
    r->add_generation_prompt = true;
    if (!nt_json_is(line, NT_JSON_OBJECT)) {
        (void)nt_request_reject(r, origin, "is %s, expected an object", nt_json_type_name(line));
        return;
    }
    r->batch = nt_json_get(line, "body") || nt_json_get(line, "url") || nt_json_get(line, "method");
    if (r->batch ? read_batch(r, line, origin) : read_plain(r, line, origin)) nt_request_digest(r);
}
