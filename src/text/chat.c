/* Chat formats as rows. To add one: write (or reuse) a render function that prints what the template prints, add the
 * row, add the template's hash (sha256 of its text without newlines at the end) to known[], and add its cases with
 * tools/make_chat_golden.py. The template interpreter will be one more row whose render runs the model's own text. */
#include "chat.h"

#include "tok_utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STOPS = 3 };

/* One conversation being rendered. */
struct job {
    const struct nt_chat *chat;
    const struct nt_message *m;
    int64_t n;
    bool generate;
    struct nt_chat_prompt *out;
};

typedef nt_status render_fn(const struct job *j);

struct nt_chat_format {
    const char *name;
    render_fn *render;
    const char *system; /* the system message of conversations without one; NULL: none */
    const char *stop[MAX_STOPS];
};

/* ---- spans ---- */

static void add_span(const struct job *j, const char *text, size_t len, bool trusted) {
    struct nt_chat_prompt *p = j->out;
    if (len == 0) return;
    if (p->n == p->cap) {
        int64_t cap = p->cap ? p->cap * 2 : 32;
        struct nt_tok_span *grown = realloc(p->spans, (size_t)cap * sizeof *grown);
        if (!grown) nt_bug("no memory for %lld spans", (long long)cap);
        p->spans = grown;
        p->cap = cap;
    }
    p->spans[p->n++] = (struct nt_tok_span){.text = text, .len = len, .trusted = trusted};
}

static void put(const struct job *j, const char *text) {
    add_span(j, text, strlen(text), true);
}

static void put_user(const struct job *j, const char *text, size_t len) {
    add_span(j, text, len, false);
}

static void put_content(const struct job *j, const struct nt_message *m) {
    put_user(j, m->content, m->len);
}

static bool role_is(const struct nt_message *m, const char *role) {
    return strcmp(m->role, role) == 0;
}

/* The job file names the role, so its text is not trusted either; the usual names are plain words in any case. */
static void put_role(const struct job *j, const struct nt_message *m) {
    put_user(j, m->role, strlen(m->role));
}

/* Python's str.strip(): white space and the four information separators. */
static bool python_space(uint32_t cp) {
    return nt_cp_is_space(cp) || (cp >= 0x1C && cp <= 0x1F);
}

static void put_stripped(const struct job *j, const struct nt_message *m) {
    const char *s = m->content;
    size_t start = 0, end = m->len, len;
    uint32_t cp;
    while (start < end && nt_utf8_look(s + start, end - start, &len, &cp) == NT_UTF8_OK && python_space(cp))
        start += len;
    while (end > start) {
        size_t p = end - 1;
        while (p > start && ((unsigned char)s[p] & 0xC0) == 0x80) p--;
        if (nt_utf8_look(s + p, end - p, &len, &cp) != NT_UTF8_OK || p + len != end || !python_space(cp)) break;
        end = p;
    }
    put_user(j, s + start, end - start);
}

/* ---- ChatML: SmolLM2, Qwen2 ---- */

static nt_status render_chatml(const struct job *j) {
    const char *system = j->chat->format->system;
    if (system && j->n > 0 && !role_is(&j->m[0], "system")) {
        put(j, "<|im_start|>system\n");
        put(j, system);
        put(j, "<|im_end|>\n");
    }
    for (int64_t i = 0; i < j->n; i++) {
        put(j, "<|im_start|>");
        put_role(j, &j->m[i]);
        put(j, "\n");
        put_content(j, &j->m[i]);
        put(j, "<|im_end|>\n");
    }
    if (j->generate) put(j, "<|im_start|>assistant\n");
    return NT_OK;
}

/* ---- Qwen2.5 and Qwen3: tool answers are grouped into user turns ---- */

static nt_status need_message(const struct job *j) {
    if (j->n > 0) return NT_OK;
    return NT_FAIL(NT_E_DATA, "messages: empty; the chat format \"%s\" needs at least one message", j->chat->name);
}

static void put_turn(const struct job *j, const struct nt_message *m) {
    put(j, "<|im_start|>");
    put_role(j, m);
    put(j, "\n");
    put_content(j, m);
    put(j, "<|im_end|>\n");
}

static void put_tool_turn(const struct job *j, int64_t i) {
    if (i == 0 || !role_is(&j->m[i - 1], "tool")) put(j, "<|im_start|>user");
    put(j, "\n<tool_response>\n");
    put_content(j, &j->m[i]);
    put(j, "\n</tool_response>");
    if (i == j->n - 1 || !role_is(&j->m[i + 1], "tool")) put(j, "<|im_end|>\n");
}

/* Messages of other roles print nothing: the template has no else branch. */
static nt_status render_qwen25(const struct job *j) {
    NT_TRY(need_message(j));
    if (role_is(&j->m[0], "system")) {
        put_turn(j, &j->m[0]);
    } else {
        put(j, "<|im_start|>system\n");
        put(j, j->chat->format->system);
        put(j, "<|im_end|>\n");
    }
    for (int64_t i = 0; i < j->n; i++) {
        const struct nt_message *m = &j->m[i];
        if (role_is(m, "user") || role_is(m, "assistant") || (role_is(m, "system") && i > 0))
            put_turn(j, m);
        else if (role_is(m, "tool"))
            put_tool_turn(j, i);
    }
    if (j->generate) put(j, "<|im_start|>assistant\n");
    return NT_OK;
}

static bool starts_with(const struct nt_message *m, const char *s) {
    return m->len >= strlen(s) && memcmp(m->content, s, strlen(s)) == 0;
}

static bool ends_with(const struct nt_message *m, const char *s) {
    return m->len >= strlen(s) && memcmp(m->content + m->len - strlen(s), s, strlen(s)) == 0;
}

struct slice {
    const char *s;
    size_t n;
};

static struct slice strip_newlines(struct slice v, bool left, bool right) {
    while (left && v.n > 0 && v.s[0] == '\n') {
        v.s++;
        v.n--;
    }
    while (right && v.n > 0 && v.s[v.n - 1] == '\n') v.n--;
    return v;
}

/* Behind the last occurrence of mark, or all. */
static struct slice after_last(struct slice v, const char *mark) {
    size_t len = strlen(mark);
    for (const char *hit; (hit = memmem(v.s, v.n, mark, len));) {
        v.n -= (size_t)(hit - v.s) + len;
        v.s = hit + len;
    }
    return v;
}

/* A turn of the assistant: thoughts before the last question are dropped, later ones are set apart. */
static void put_qwen3_assistant(const struct job *j, int64_t i, int64_t last_query) {
    struct slice content = {j->m[i].content, j->m[i].len}, thought = {"", 0};
    const char *close = content.n ? memmem(content.s, content.n, "</think>", 8) : NULL;
    if (close) {
        struct slice head = {content.s, (size_t)(close - content.s)};
        thought = strip_newlines(after_last(strip_newlines(head, false, true), "<think>"), true, false);
        content = strip_newlines(after_last(content, "</think>"), true, false);
    }
    put(j, "<|im_start|>assistant\n");
    if (i > last_query && (i == j->n - 1 || thought.n > 0)) {
        thought = strip_newlines(thought, true, true);
        content = strip_newlines(content, true, false);
        put(j, "<think>\n");
        put_user(j, thought.s, thought.n);
        put(j, "\n</think>\n\n");
    }
    put_user(j, content.s, content.n);
    put(j, "<|im_end|>\n");
}

static nt_status render_qwen3(const struct job *j) {
    NT_TRY(need_message(j));
    int64_t last_query = j->n - 1;
    for (int64_t i = j->n - 1; i >= 0; i--) {
        const struct nt_message *m = &j->m[i];
        if (!role_is(m, "user") || (starts_with(m, "<tool_response>") && ends_with(m, "</tool_response>"))) continue;
        last_query = i;
        break;
    }
    for (int64_t i = 0; i < j->n; i++) {
        const struct nt_message *m = &j->m[i];
        if (role_is(m, "user") || role_is(m, "system"))
            put_turn(j, m);
        else if (role_is(m, "assistant"))
            put_qwen3_assistant(j, i, last_query);
        else if (role_is(m, "tool"))
            put_tool_turn(j, i);
    }
    if (j->generate) put(j, "<|im_start|>assistant\n");
    return NT_OK;
}

/* ---- Llama 3 ---- */

static void put_llama3_turn(const struct job *j, const struct nt_message *m) {
    put(j, "<|start_header_id|>");
    put_role(j, m);
    put(j, "<|end_header_id|>\n\n");
    put_stripped(j, m);
    put(j, "<|eot_id|>");
}

static nt_status render_llama3(const struct job *j) {
    if (j->n > 0) put(j, j->chat->bos);
    for (int64_t i = 0; i < j->n; i++) put_llama3_turn(j, &j->m[i]);
    if (j->generate) put(j, "<|start_header_id|>assistant<|end_header_id|>\n\n");
    return NT_OK;
}

/* Bytes made here; the buffer's address must not move, so each has its own. */
static nt_status own(const struct job *j, struct nt_strbuf **out) {
    struct nt_chat_prompt *p = j->out;
    struct nt_strbuf *grown = realloc(p->owned, (size_t)(p->n_owned + 1) * sizeof *grown);
    if (!grown) return NT_FAIL(NT_E_NOMEM, "no memory to render a conversation");
    p->owned = grown;
    *out = &p->owned[p->n_owned++];
    **out = (struct nt_strbuf)NT_STRBUF_INIT;
    return NT_OK;
}

/* Llama 3.1 to 3.3 open with dates. The template's own fallback date is printed, never today's: a rerun must give the
 * same prompt. */
static nt_status render_llama31(const struct job *j) {
    NT_TRY(need_message(j));
    int64_t i = 0;
    put(j, j->chat->bos);
    put(j, "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
           "Today Date: 26 Jul 2024\n\n");
    if (role_is(&j->m[0], "system")) put_stripped(j, &j->m[i++]);
    put(j, "<|eot_id|>");
    for (; i < j->n; i++) {
        const struct nt_message *m = &j->m[i];
        if (!role_is(m, "tool") && !role_is(m, "ipython")) {
            put_llama3_turn(j, m);
            continue;
        }
        struct nt_strbuf *json; /* the template prints strings of these roles through tojson */
        NT_TRY(own(j, &json));
        nt_strbuf_add_json(json, m->content, m->len);
        put(j, "<|start_header_id|>ipython<|end_header_id|>\n\n");
        put_user(j, json->data, json->len);
        put(j, "<|eot_id|>");
    }
    if (j->generate) put(j, "<|start_header_id|>assistant<|end_header_id|>\n\n");
    return NT_OK;
}

/* ---- Mistral ---- */

static nt_status must_alternate(const struct job *j, int64_t first) {
    for (int64_t i = first; i < j->n; i++) {
        const struct nt_message *m = &j->m[i];
        if (!role_is(m, "user") && !role_is(m, "assistant"))
            return NT_FAIL(NT_E_DATA,
                           "messages[%lld]: role \"%.40s\"; the chat format \"%s\" has user and assistant only",
                           (long long)i, m->role, j->chat->name);
        if (role_is(m, "user") != ((i - first) % 2 == 0))
            return NT_FAIL(NT_E_DATA,
                           "messages[%lld]: role \"%.40s\"; in the chat format \"%s\" roles alternate "
                           "user/assistant/user/assistant",
                           (long long)i, m->role, j->chat->name);
    }
    return NT_OK;
}

/* Mistral 7B Instruct up to v0.2: blanks inside [INST], no system role. */
static nt_status render_mistral(const struct job *j) {
    NT_TRY(must_alternate(j, 0));
    put(j, j->chat->bos);
    for (int64_t i = 0; i < j->n; i++) {
        bool user = role_is(&j->m[i], "user");
        if (user) put(j, "[INST] ");
        put_content(j, &j->m[i]);
        put(j, user ? " [/INST]" : j->chat->eos);
    }
    return NT_OK;
}

/* Mistral Nemo: no blanks; the system message goes into the last user turn, if the conversation ends with one. */
static nt_status render_nemo(const struct job *j) {
    NT_TRY(need_message(j));
    int64_t first = role_is(&j->m[0], "system") ? 1 : 0;
    NT_TRY(must_alternate(j, first));
    put(j, j->chat->bos);
    for (int64_t i = first; i < j->n; i++) {
        bool user = role_is(&j->m[i], "user");
        if (user) put(j, "[INST]");
        if (user && first == 1 && i == j->n - 1) {
            put_content(j, &j->m[0]);
            put(j, "\n\n");
        }
        put_content(j, &j->m[i]);
        put(j, user ? "[/INST]" : j->chat->eos);
    }
    return NT_OK;
}

/* ---- plain: for models without a chat format; the messages' texts, one empty line between them ---- */

static nt_status render_plain(const struct job *j) {
    for (int64_t i = 0; i < j->n; i++) {
        if (i > 0) put(j, "\n\n");
        put_content(j, &j->m[i]);
    }
    return NT_OK;
}

/* ---- rows ---- */

#define IM_STOPS                                                                                                       \
    { "<|im_end|>", "<|endoftext|>" }
#define LLAMA3_STOPS                                                                                                   \
    { "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>" }

static const struct nt_chat_format formats[] = {
    {.name = "chatml",                                                                 .render = render_chatml,                   .stop = IM_STOPS},
    {.name = "smollm2",
     .render = render_chatml,
     .system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
     .stop = IM_STOPS},
    {.name = "qwen2", .render = render_chatml,                                                                                                            .system = "You are a helpful assistant.", .stop = IM_STOPS},
    {.name = "qwen2.5",
     .render = render_qwen25,
     .system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
     .stop = IM_STOPS},
    {.name = "qwen3",                                                                .render = render_qwen3,                                                                                                         .stop = IM_STOPS},
    {.name = "llama3",                                                          .render = render_llama3,                                            .stop = LLAMA3_STOPS},
    {.name = "llama3.1",                                                                                .render = render_llama31,                                                                                                           .stop = LLAMA3_STOPS},
    {.name = "mistral",                                                                .render = render_mistral, .stop = {"</s>"}},
    {.name = "mistral-nemo",.render = render_nemo,.stop = {"</s>"}},
    {.name = "plain",                                                               .render = render_plain},
};
enum { N_FORMAT = sizeof formats / sizeof formats[0] };

static const char names[] = "chatml, smollm2, qwen2, qwen2.5, qwen3, llama3, llama3.1, mistral, mistral-nemo, plain";

/* Hashes of templates as published. The short ones occur with "\n" inside quotes written both ways. */
static const struct {
    const char *sha256, *format;
} known[] = {
    {"872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788", "smollm2"     }, /* SmolLM2-*-Instruct */
    {"de9cde7d1b0ca0cc87459a6673e0d12fb89c070bdb24e4a30b6e4d187b226221", "smollm2"     },
    {"793202280c0910ab26bc6eb57c8212c2417324c6d8c4efd0d10d59092ab3e3eb", "qwen2"       }, /* Qwen2-*-Instruct */
    {"f0206845c9ebc3abb4735d44f286eb81ce99238ad2accc710c6fc60e6cb8ccc8", "qwen2"       },
    {"55b2f4a26ac9ee719330a61a0c39d9e538b0e9322212f048326318cff4f8674a", "qwen2.5"     }, /* Qwen2.5-*-Instruct */
    {"87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5", "qwen3"       }, /* Qwen3-* */
    {"ba03a121d097859c7b5b9cd03af99aafe95275210d2876f642ad9929a150f122", "llama3"      }, /* Meta-Llama-3-*-Instruct */
    {"4f46ecd43418f216df8c26936c60e5d04bcc81db47db5d86fbe889f64212dd4c", "llama3"      },
    {"93c0e9aa3629bbd77e68dbc0f5621f6e6b23aa8d74b932595cdb8d64684526d7", "llama3.1"    }, /* Llama-3.1, 3.3 */
    {"d82792f95932f1c9cef5c4bd992f171225e3bf8c7b609b4557c9e1ec96be819f", "llama3.1"    }, /* Llama-3.2 */
    {"26a59556925c987317ce5291811ba3b7f32ec4c647c400c6cc7e3a9993007ba7", "mistral"     }, /* Mistral-7B v0.1, v0.2 */
    {"e7deee034838db2bfc7487788a3013d8a307ab69f72f3c54a85f06fd76007d4e", "mistral-nemo"}, /* Mistral-Nemo-2407 */
    {"fcf7a096fe99a48fd9ad2b250bf9237e96e8f48bffec1c7ea4d3f225176cd40e", "chatml"      }, /* ChatML, common form */
    {"153280e3ff55d19da1398bdb3914ee2a51b80429bfaedde11d7d216c39db80f3", "chatml"      },
};

const char *nt_chat_names(void) {
    return names;
}

static const struct nt_chat_format *find_format(const char *name) {
    for (int i = 0; i < N_FORMAT; i++) {
        if (strcmp(formats[i].name, name) == 0) return &formats[i];
    }
    return NULL;
}

static void copy_token(const struct nt_tokenizer *tok, int32_t id, char *buf, size_t cap) {
    size_t len;
    const char *text = tok ? nt_tokenizer_token(tok, id, &len) : NULL;
    buf[0] = 0;
    if (text && len < cap && !memchr(text, 0, len)) {
        memcpy(buf, text, len);
        buf[len] = 0;
    }
}

static const struct nt_chat_format *recognise(const char *text, size_t len, char hex[NT_SHA256_HEX]) {
    uint8_t digest[NT_SHA256_BYTES];
    while (len > 0 && text[len - 1] == '\n') len--; /* Jinja drops the last newline of a source */
    nt_sha256(text, len, digest);
    nt_hex(digest, sizeof digest, hex);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].sha256, hex) == 0) return find_format(known[i].format);
    }
    return NULL;
}

nt_status nt_chat_open(struct nt_chat *chat, const char *choice, const char *template_text, size_t template_len,
                       const struct nt_tokenizer *tok, const char *origin) {
    struct nt_chat c = {0};
    const struct nt_chat_format *seen = NULL;
    if (template_text) seen = recognise(template_text, template_len, c.template_sha256);
    if (strcmp(choice, "auto") != 0) {
        c.format = find_format(choice);
        if (!c.format)
            return NT_FAIL(NT_E_CONFIG, "model.chat = \"%.60s\" is no chat format; expected auto, %s", choice, names);
    } else if (seen) {
        c.format = seen;
    } else if (template_text) {
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%s: its chat template (sha256 %s) is not one this build knows; choose the "
                       "format yourself with model.chat = one of %s",
                       origin, c.template_sha256, names);
    } else {
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%s: the model has no chat template; choose a format with model.chat = one of "
                       "%s, or give prompts instead of messages",
                       origin, names);
    }
    c.name = c.format->name;
    if (tok) {
        copy_token(tok, nt_tokenizer_bos(tok), c.bos, sizeof c.bos);
        copy_token(tok, nt_tokenizer_eos(tok), c.eos, sizeof c.eos);
    }
    *chat = c;
    return NT_OK;
}

void nt_chat_prompt_release(struct nt_chat_prompt *p) {
    for (int64_t i = 0; i < p->n_owned; i++) nt_strbuf_release(&p->owned[i]);
    free(p->owned);
    free(p->spans);
    *p = (struct nt_chat_prompt){0};
}

nt_status nt_chat_render(const struct nt_chat *chat, const struct nt_message *messages, int64_t n,
                         bool add_generation_prompt, struct nt_chat_prompt *out) {
    struct nt_chat_prompt p = {0};
    const struct job j = {.chat = chat, .m = messages, .n = n, .generate = add_generation_prompt, .out = &p};
    nt_status st = chat->format->render(&j);
    if (st != NT_OK) {
        nt_chat_prompt_release(&p);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    *out = p;
    return NT_OK;
}

nt_status nt_chat_encode(const struct nt_chat *chat, const struct nt_tokenizer *tok, const struct nt_message *messages,
                         int64_t n, bool add_generation_prompt, struct nt_ids *ids) {
    struct nt_chat_prompt p = {0};
    NT_TRY(nt_chat_render(chat, messages, n, add_generation_prompt, &p));
    nt_status st = nt_tokenizer_encode_spans(tok, p.spans, p.n, 0, ids);
    nt_chat_prompt_release(&p);
    return st;
}

int64_t nt_chat_stops(const struct nt_chat *chat, const struct nt_tokenizer *tok, int32_t *ids, int64_t cap) {
    int64_t n = 0;
    for (int i = 0; i < MAX_STOPS && chat->format->stop[i]; i++) {
        int32_t id = nt_tokenizer_find(tok, chat->format->stop[i], strlen(chat->format->stop[i]));
        if (id >= 0 && n < cap) ids[n++] = id;
    }
    return n;
}
