/* The shapes of training rows: one function and one row of the table each. */
#include "train_row.h"

#include "tok_utf8.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static bool is_string(const struct nt_json *v) {
    return nt_json_is(v, NT_JSON_STRING);
}

static bool is_list(const struct nt_json *v) {
    return nt_json_is(v, NT_JSON_ARRAY);
}

static bool declares_tools(const struct nt_json *doc) {
    const struct nt_json *v = nt_json_given(doc, "tools");
    return v && (is_list(v) ? nt_json_len(v) > 0 : !is_string(v) || nt_json_str(v, NULL)[0] != '\0');
}

static void forget_weights(struct nt_row_list *list) {
    for (int32_t i = 0; i < list->n; i++) list->m[i].weight = 0;
}

/* ---- messages ---- */

static bool parse_messages(struct nt_train_row *row, const struct nt_json *doc) {
    return nt_train_row_chat(row, 'm', nt_json_get(doc, "messages"), 1, "messages");
}

/* ---- messages that repeat others ---- */

/* By its text; of tool calls and the like, which are kept in the row's shell alone, nobody knows. */
static bool same_message(const struct nt_train_row *row, const struct nt_row_message *a,
                         const struct nt_row_message *b) {
    const char *text = nt_strbuf_cstr(&row->text);
    if (a->has_more || b->has_more) return false;
    return strcmp(a->role, b->role) == 0 && a->len == b->len && memcmp(text + a->at, text + b->at, a->len) == 0;
}

static bool same_messages(const struct nt_train_row *row, const struct nt_row_message *a,
                          const struct nt_row_message *b, int32_t n) {
    int32_t i = 0;
    while (i < n && same_message(row, &a[i], &b[i])) i++;
    return i == n;
}

/* n messages from `at` on leave. */
static void drop_messages(struct nt_row_list *list, int32_t at, int32_t n) {
    list->n -= n;
    memmove(list->m + at, list->m + at + n, (size_t)(list->n - at) * sizeof *list->m);
}

/* ---- prompt and completion ---- */

/* Both strings (kind text), or both lists of messages (kind chat); table: where the completion goes. */
static bool parse_completion_of(struct nt_train_row *row, const struct nt_json *completion, const char *name,
                                char table) {
    if (row->kind == NT_CONV_TEXT) return nt_train_row_say(row, table, "assistant", completion, 1, name);
    return nt_train_row_chat(row, table, completion, 1, name);
}

static bool parse_prompt(struct nt_train_row *row, const struct nt_json *prompt) {
    row->kind = is_string(prompt) ? NT_CONV_TEXT : NT_CONV_CHAT;
    if (row->kind == NT_CONV_TEXT) return nt_train_row_say(row, 'm', "prompt", prompt, 0, "prompt");
    return nt_train_row_chat(row, 'm', prompt, 0, "prompt");
}

/* The completion behind the first n_prompt messages may be a whole conversation that repeats the prompt, or its end: it
 * is taken once, and what pointed to the copy points to it. Of strings nobody can tell, so they stay (as TRL has it).
 */
static void drop_repeated(struct nt_train_row *row, int32_t n_prompt) {
    const struct nt_row_list *l = &row->messages;
    int32_t n = n_prompt < l->n - n_prompt ? n_prompt : l->n - n_prompt - 1; /* an answer is left */
    while (n > 0 && !same_messages(row, l->m + n_prompt - n, l->m + n_prompt, n)) n--;
    if (n <= 0) return;
    drop_messages(&row->messages, n_prompt, n);
    for (int64_t i = 0; i < row->refs.n; i++) {
        struct nt_text_ref *r = &row->refs.ref[i];
        if (r->table == 'm' && r->index >= n_prompt) r->index -= n;
    }
}

static bool begins_with(const struct nt_train_row *row, const struct nt_row_message *m,
                        const struct nt_row_message *prompt) {
    const char *text = nt_strbuf_cstr(&row->text);
    return prompt->len > 0 && m->len > prompt->len && memcmp(text + m->at, text + prompt->at, prompt->len) == 0;
}

/* The completion, behind the prompt that is read already. */
static bool parse_rest(struct nt_train_row *row, const struct nt_json *doc) {
    const int32_t n_prompt = row->messages.n;
    if (!parse_completion_of(row, nt_json_get(doc, "completion"), "completion", 'm')) return false;
    if (row->kind == NT_CONV_TEXT)
        row->repeats = begins_with(row, &row->messages.m[1], &row->messages.m[0]);
    else
        drop_repeated(row, n_prompt);
    return true;
}

/* A verdict on the completion would be lost, and a bad one learned as if it were good. */
static bool parse_completion(struct nt_train_row *row, const struct nt_json *doc) {
    if (nt_json_is(nt_json_get(doc, "label"), NT_JSON_BOOL))
        return nt_train_row_reject(row, "has a label, which rows of format completion have not; give --format label");
    return parse_prompt(row, nt_json_get(doc, "prompt")) && parse_rest(row, doc);
}

/* A label is about one answer, and it must be the last message. */
static bool read_label(struct nt_train_row *row, const struct nt_json *label, const char *name, int32_t n_prompt) {
    const struct nt_row_list *l = &row->messages;
    if (!nt_json_is(label, NT_JSON_BOOL) && !nt_json_is(label, NT_JSON_INT))
        return nt_train_row_reject(row, "%s is %s, expected true or false", name,
                                   label ? nt_json_type_name(label) : "missing");
    const int64_t v = nt_json_is(label, NT_JSON_BOOL) ? nt_json_bool(label, false) : nt_json_int(label, -1);
    if (v != 0 && v != 1) return nt_train_row_reject(row, "%s is neither true (1) nor false (0)", name);
    if (l->n - n_prompt != 1 || strcmp(l->m[l->n - 1].role, "assistant") != 0)
        return nt_train_row_reject(row, "%s needs a completion of one message of the assistant", name);
    row->label = (int)v;
    return true;
}

static bool parse_label(struct nt_train_row *row, const struct nt_json *doc) {
    if (!parse_prompt(row, nt_json_get(doc, "prompt"))) return false;
    const int32_t n_prompt = row->messages.n;
    forget_weights(&row->messages);
    return parse_rest(row, doc) && read_label(row, nt_json_get(doc, "label"), "label", n_prompt);
}

/* ---- chosen and rejected ---- */

/* The first n messages of both sides leave: they are those of the prompt from `at` on. References follow, also those of
 * copies, which name the same texts. */
static void drop_common(struct nt_train_row *row, int32_t n, int32_t at) {
    drop_messages(&row->chosen, 0, n);
    drop_messages(&row->rejected, 0, n);
    for (int64_t i = 0; i < row->refs.n; i++) {
        struct nt_text_ref *r = &row->refs.ref[i];
        if (r->table != 'c' && r->table != 'r') continue;
        if (r->index < n) {
            r->table = 'm';
            r->index += at;
        } else {
            r->index -= n;
        }
    }
}

/* The first n messages of both sides become the prompt. */
static void take_prompt(struct nt_train_row *row, int32_t n) {
    const int32_t before = row->messages.n;
    for (int32_t i = 0; i < n; i++) {
        struct nt_row_message *m = nt_train_row_append(&row->messages, row->chosen.m[i].role, 0);
        *m = row->chosen.m[i];
        m->weight = 0;
    }
    drop_common(row, n, before);
}

/* Both sides may be whole conversations that repeat the prompt, or its end: it is taken once. */
static void drop_repeated_prompt(struct nt_train_row *row) {
    const struct nt_row_list *m = &row->messages, *c = &row->chosen, *r = &row->rejected;
    int32_t n = m->n;
    if (n >= c->n) n = c->n - 1; /* an answer is left */
    if (n >= r->n) n = r->n - 1;
    while (n > 0 && !(same_messages(row, m->m + m->n - n, c->m, n) && same_messages(row, m->m + m->n - n, r->m, n)))
        n--;
    if (n > 0) drop_common(row, n, m->n - n);
}

static bool split_lists(struct nt_train_row *row) {
    int32_t n = 0;
    while (n < row->chosen.n && n < row->rejected.n && same_message(row, &row->chosen.m[n], &row->rejected.m[n])) n++;
    if (n == row->chosen.n || n == row->rejected.n)
        return nt_train_row_reject(row, "chosen and rejected are equal, or one is the beginning of the other");
    take_prompt(row, n);
    return true;
}

/* Two strings with a common beginning, which is the prompt (as TRL splits them: a blank before the difference belongs
 * to the answers). */
static bool split_strings(struct nt_train_row *row, const struct nt_json *chosen, const struct nt_json *rejected) {
    size_t len[2], n = 0;
    const char *s[2] = {nt_json_str(chosen, &len[0]), nt_json_str(rejected, &len[1])};
    while (n < len[0] && n < len[1] && s[0][n] == s[1][n]) n++;
    while (n > 0 && n < len[0] && ((unsigned char)s[0][n] & 0xc0) == 0x80) n--; /* not within a character */
    while (n > 0 && n < len[1] && ((unsigned char)s[1][n] & 0xc0) == 0x80) n--;
    if (n > 0 && s[0][n - 1] == ' ') n--;
    if (len[0] == len[1] && n + 1 >= len[0] && memcmp(s[0], s[1], len[0]) == 0)
        return nt_train_row_reject(row, "chosen and rejected are equal");
    const struct nt_json *leaf[2] = {chosen, rejected};
    struct nt_row_message *m = nt_train_row_append(&row->messages, "prompt", 0);
    m->at = row->text.len;
    m->len = n;
    nt_strbuf_add(&row->text, s[0], n);
    for (int i = 0; i < 2; i++) {
        const char table = i == 0 ? 'c' : 'r';
        m = nt_train_row_append(nt_train_row_list(row, table), "assistant", 1);
        m->at = row->text.len;
        m->len = len[i] - n;
        nt_strbuf_add(&row->text, s[i] + n, len[i] - n);
        nt_text_refs_add(&row->refs, leaf[i], 'm', 0, -1, 0);
        nt_text_refs_add(&row->refs, leaf[i], table, 0, -1, 0);
    }
    row->kind = NT_CONV_TEXT;
    return true;
}

/* Is there a question in what both sides begin with? */
static bool asks(const struct nt_train_row *row) {
    bool any = false;
    for (int32_t i = 0; !any && i < row->chosen.n && i < row->rejected.n; i++) {
        if (!same_message(row, &row->chosen.m[i], &row->rejected.m[i])) break;
        any = strcmp(row->chosen.m[i].role, "user") == 0;
    }
    return any;
}

static bool pair_is_equal(const struct nt_train_row *row) {
    return row->chosen.n == row->rejected.n && same_messages(row, row->chosen.m, row->rejected.m, row->chosen.n);
}

static bool check_pair(struct nt_train_row *row) {
    return !pair_is_equal(row) || nt_train_row_reject(row, "chosen and rejected are equal");
}

static bool read_margin(struct nt_train_row *row, const struct nt_json *doc) {
    const struct nt_json *v = nt_json_given(doc, "margin");
    if (!v) return true;
    row->margin = (float)nt_json_num(v, NAN);
    return isfinite(row->margin) || nt_train_row_reject(row, "margin is %s, expected a number", nt_json_type_name(v));
}

static bool parse_preference(struct nt_train_row *row, const struct nt_json *doc) {
    const struct nt_json *prompt = nt_json_given(doc, "prompt"), *chosen = nt_json_get(doc, "chosen"),
                         *rejected = nt_json_get(doc, "rejected");
    if (!read_margin(row, doc)) return false;
    if (is_string(chosen) != is_string(rejected))
        return nt_train_row_reject(
            row, "chosen is %s and rejected is %s, expected two strings or two lists of messages",
            chosen ? nt_json_type_name(chosen) : "missing", rejected ? nt_json_type_name(rejected) : "missing");
    if (!prompt && is_string(chosen)) return split_strings(row, chosen, rejected);
    const bool text = is_string(chosen), chat_prompt = is_list(prompt);
    if (prompt && text != is_string(prompt) && (text || !is_string(prompt)))
        return nt_train_row_reject(row, "prompt is %s, but chosen is %s: expected both as strings or as messages",
                                   nt_json_type_name(prompt), nt_json_type_name(chosen));
    if (text || chat_prompt) {
        if (!parse_prompt(row, prompt)) return false;
        forget_weights(&row->messages);
        if (!parse_completion_of(row, chosen, "chosen", 'c') || !parse_completion_of(row, rejected, "rejected", 'r'))
            return false;
        if (chat_prompt) drop_repeated_prompt(row);
        row->repeats = text && begins_with(row, row->chosen.m, row->messages.m) &&
                       begins_with(row, row->rejected.m, row->messages.m);
        return check_pair(row);
    }
    /* whole conversations, perhaps with the question repeated as a string */
    if (!nt_train_row_chat(row, 'c', chosen, 1, "chosen") || !nt_train_row_chat(row, 'r', rejected, 1, "rejected"))
        return false;
    if (!prompt || asks(row)) return split_lists(row);
    if (!nt_train_row_say(row, 'm', "user", prompt, 0, "prompt")) return false;
    return same_message(row, row->chosen.m, row->rejected.m) ? split_lists(row) : check_pair(row);
}

/* ---- ShareGPT ---- */

static bool sharegpt_message(struct nt_train_row *row, char table, const struct nt_json *m, const char *where) {
    static const struct {
        const char *from, *role;
        bool has_more;
    } names[] = {
        {"human",         "user",      false},
        {"user",          "user",      false},
        {"gpt",           "assistant", false},
        {"assistant",     "assistant", false},
        {"chatgpt",       "assistant", false},
        {"system",        "system",    false},
        {"function_call", "assistant", true },
        {"observation",   "tool",      false},
        {"tool",          "tool",      false},
    };
    enum { N = sizeof names / sizeof *names };
    const char *from = nt_json_str(nt_json_get(m, "from"), NULL);
    int i = 0;
    while (i < N && from && strcmp(names[i].from, from) != 0) i++;
    if (!from || i == N)
        return nt_train_row_reject(row, "%s.from is \"%.40s\", expected human, gpt, system, function_call, observation",
                                   where, from ? from : "(missing)");
    const bool assistant = strcmp(names[i].role, "assistant") == 0;
    char value[80];
    (void)snprintf(value, sizeof value, "%s.value", where);
    if (!nt_train_row_say(row, table, names[i].role, nt_json_get(m, "value"), assistant ? 1.0f : 0.0f, value))
        return false;
    struct nt_row_list *list = nt_train_row_list(row, table);
    list->m[list->n - 1].has_more = names[i].has_more;
    return nt_train_row_weight(row, m, where, &list->m[list->n - 1].weight);
}

static bool parse_sharegpt(struct nt_train_row *row, const struct nt_json *doc) {
    const struct nt_json *list = nt_json_get(doc, "conversations"), *system = nt_json_given(doc, "system"),
                         *chosen = nt_json_given(doc, "chosen"), *rejected = nt_json_given(doc, "rejected"),
                         *tag = nt_json_given(doc, "kto_tag");
    char where[64];
    if (!is_list(list) || nt_json_len(list) == 0)
        return nt_train_row_reject(row, "conversations is missing, empty or no list");
    const bool said = system && !(is_string(system) && nt_json_str(system, NULL)[0] == '\0');
    if (said && !nt_train_row_say(row, 'm', "system", system, 0, "system")) return false;
    for (size_t i = 0; i < nt_json_len(list); i++) {
        (void)snprintf(where, sizeof where, "conversations[%zu]", i);
        if (!sharegpt_message(row, 'm', nt_json_at(list, i), where)) return false;
    }
    if (chosen || rejected) {
        forget_weights(&row->messages);
        return sharegpt_message(row, 'c', chosen, "chosen") && sharegpt_message(row, 'r', rejected, "rejected") &&
               check_pair(row);
    }
    if (!tag) return true;
    const float last = row->messages.m[row->messages.n - 1].weight;
    forget_weights(&row->messages);
    row->messages.m[row->messages.n - 1].weight = last;
    return read_label(row, tag, "kto_tag", row->messages.n - 1);
}

/* ---- Alpaca ---- */

/* instruction and input, joined by a line end where both say something. */
static bool alpaca_question(struct nt_train_row *row, const struct nt_json *doc) {
    const struct nt_json *parts[2] = {nt_json_get(doc, "instruction"), nt_json_given(doc, "input")};
    struct nt_row_message *m = nt_train_row_append(&row->messages, "user", 0);
    const int32_t index = row->messages.n - 1;
    m->at = row->text.len;
    for (int i = 0; i < 2; i++) {
        size_t len = 0;
        const char *s = nt_json_str(parts[i], &len);
        if (!s && (i == 0 || parts[i]))
            return nt_train_row_reject(row, "%s is %s, expected a string", i ? "input" : "instruction",
                                       parts[i] ? nt_json_type_name(parts[i]) : "missing");
        if (!s || len == 0) continue;
        if (row->text.len > m->at) nt_strbuf_addc(&row->text, '\n');
        nt_text_refs_add(&row->refs, parts[i], 'm', index, (int64_t)(row->text.len - m->at), (int64_t)len);
        nt_strbuf_add(&row->text, s, len);
    }
    m->len = row->text.len - m->at;
    return true;
}

static bool alpaca_history(struct nt_train_row *row, const struct nt_json *history) {
    if (!is_list(history))
        return nt_train_row_reject(row, "history is %s, expected a list of [question, answer]",
                                   nt_json_type_name(history));
    for (size_t i = 0; i < nt_json_len(history); i++) {
        const struct nt_json *turn = nt_json_at(history, i);
        if (nt_json_len(turn) != 2) return nt_train_row_reject(row, "history[%zu] is no [question, answer]", i);
        if (!nt_train_row_say(row, 'm', "user", nt_json_at(turn, 0), 0, "history") ||
            !nt_train_row_say(row, 'm', "assistant", nt_json_at(turn, 1), 1, "history"))
            return false;
    }
    return true;
}

static bool parse_alpaca(struct nt_train_row *row, const struct nt_json *doc) {
    const struct nt_json *system = nt_json_given(doc, "system"), *history = nt_json_given(doc, "history"),
                         *chosen = nt_json_given(doc, "chosen"), *rejected = nt_json_given(doc, "rejected"),
                         *tag = nt_json_given(doc, "kto_tag");
    const bool said = system && !(is_string(system) && nt_json_str(system, NULL)[0] == '\0');
    if (said && !nt_train_row_say(row, 'm', "system", system, 0, "system")) return false;
    if (history && !alpaca_history(row, history)) return false;
    if (!alpaca_question(row, doc)) return false;
    if (chosen || rejected || tag) forget_weights(&row->messages);
    if (chosen || rejected)
        return nt_train_row_say(row, 'c', "assistant", chosen, 1, "chosen") &&
               nt_train_row_say(row, 'r', "assistant", rejected, 1, "rejected") && check_pair(row);
    const int32_t n_prompt = row->messages.n;
    if (!nt_train_row_say(row, 'm', "assistant", nt_json_get(doc, "output"), 1, "output")) return false;
    return !tag || read_label(row, tag, "kto_tag", n_prompt);
}

/* ---- OpenAI Batch ---- */

static bool parse_batch(struct nt_train_row *row, const struct nt_json *doc) {
    const struct nt_json *body = nt_json_get(doc, "body"), *messages = nt_json_get(body, "messages"),
                         *prompt = nt_json_get(body, "prompt");
    size_t len = 0;
    const char *id = nt_json_str(nt_json_get(doc, "custom_id"), &len);
    if (!id || len == 0 || len > 1024 || strlen(id) != len)
        return nt_train_row_reject(row,
                                   "custom_id is missing, empty or too long: answers and feedback are found by it");
    if (!nt_json_is(body, NT_JSON_OBJECT)) return nt_train_row_reject(row, "body is missing or no object");
    row->has_tools = declares_tools(body);
    if (messages) {
        const bool ok = nt_train_row_chat(row, 'm', messages, 0, "body.messages");
        forget_weights(&row->messages);
        return ok;
    }
    if (is_list(prompt) && nt_json_len(prompt) == 1 && is_string(nt_json_at(prompt, 0))) prompt = nt_json_at(prompt, 0);
    row->kind = NT_CONV_TEXT;
    if (!is_string(prompt))
        return nt_train_row_reject(row, "body has neither messages nor one prompt of text, and token ids are no text");
    return nt_train_row_say(row, 'm', "prompt", prompt, 0, "body.prompt");
}

/* ---- the table ---- */

static const struct {
    bool (*parse)(struct nt_train_row *row, const struct nt_json *doc);
    const char *keys[3]; /* that tell the format; the first row that has all of them */
    bool system;         /* reads it from a field of this name */
} formats[NT_N_ROW_FORMATS] = {
    [NT_ROW_MESSAGES] = {parse_messages,   {"messages"},                      false},
    [NT_ROW_COMPLETION] = {parse_completion, {"prompt", "completion"},          false},
    [NT_ROW_SHAREGPT] = {parse_sharegpt,   {"conversations"},                 true },
    [NT_ROW_ALPACA] = {parse_alpaca,     {"instruction"},                   true },
    [NT_ROW_PREFERENCE] = {parse_preference, {"chosen", "rejected"},            false},
    [NT_ROW_LABEL] = {parse_label,      {"prompt", "completion", "label"}, false},
    [NT_ROW_BATCH] = {parse_batch,      {"custom_id", "body"},             true },
};

static bool has_words(const struct nt_json *doc, const char *key) {
    size_t len = 0;
    return nt_json_str(nt_json_get(doc, key), &len) && len > 0;
}

/* A field that some data sets keep the system's words or the question in, where nothing else has such. */
static const char *unread_field(const struct nt_train_row *row, const struct nt_json *doc) {
    static const char *const systems[] = {"system", "system_prompt"};
    static const char *const questions[] = {"question", "instruction", "input", "query", "context"};
    const bool told = row->messages.n > 0 && strcmp(row->messages.m[0].role, "system") == 0;
    for (size_t i = 0; i < sizeof systems / sizeof *systems && !told && !formats[row->format].system; i++)
        if (has_words(doc, systems[i])) return systems[i];
    if (row->format != NT_ROW_PREFERENCE || nt_json_given(doc, "prompt")) return NULL;
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++)
        if (has_words(doc, questions[i])) return questions[i];
    return NULL;
}

void nt_train_row_parse(struct nt_train_row *row, const struct nt_json *doc, enum nt_row_format format) {
    nt_strbuf_reset(&row->text);
    row->messages.n = row->chosen.n = row->rejected.n = 0;
    row->refs.n = 0;
    row->error[0] = '\0';
    row->format = format;
    row->kind = NT_CONV_CHAT;
    row->label = -1;
    row->margin = NAN;
    row->has_tools = declares_tools(doc);
    row->repeats = false;
    row->unread = NULL;
    if (!nt_json_is(doc, NT_JSON_OBJECT))
        (void)nt_train_row_reject(row, "is %s, expected an object", nt_json_type_name(doc));
    else if (nt_shell_reserved(doc))
        (void)nt_train_row_reject(row, "holds an object with the only key \"$text\", which is reserved");
    else if (!formats[format].parse(row, doc))
        NT_CHECK(row->error[0]);
    else
        row->unread = unread_field(row, doc);
}

/* Whether messages end with an answer: then they are an example, else a question for generate. */
static bool ends_with_answer(const struct nt_json *messages) {
    const size_t n = nt_json_len(messages);
    const char *role = n ? nt_json_str(nt_json_get(nt_json_at(messages, n - 1), "role"), NULL) : NULL;
    return role && strcmp(role, "assistant") == 0;
}

bool nt_train_row_detect(const struct nt_json *doc, enum nt_row_format *format, bool *request) {
    static const enum nt_row_format order[] = {NT_ROW_BATCH, NT_ROW_SHAREGPT,   NT_ROW_ALPACA,  NT_ROW_PREFERENCE,
                                               NT_ROW_LABEL, NT_ROW_COMPLETION, NT_ROW_MESSAGES};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        bool all = true;
        for (int k = 0; k < 3 && formats[order[i]].keys[k]; k++)
            all &= nt_json_get(doc, formats[order[i]].keys[k]) != NULL;
        if (!all) continue;
        *format = order[i];
        *request = order[i] == NT_ROW_BATCH ||
                   (order[i] == NT_ROW_MESSAGES && !ends_with_answer(nt_json_get(doc, "messages")));
        return true;
    }
    *format = NT_ROW_MESSAGES;
    *request = nt_json_get(doc, "prompt") != NULL;
    return *request;
}
