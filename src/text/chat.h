/* Chat formats: messages -> prompt segments -> ids.
 *
 * A format is a named row (chatml, llama3, mistral, plain, ...). A model's own template (Jinja text) is recognised by
 * its SHA-256 only; an unknown one is an error that says so and names the remedy, because a nearly right prompt is a
 * silent loss. Segments are marked: template text is trusted (its control tokens are parsed), message text never is;
 * and what the assistant itself would have generated (its text and the token that ends its turn) names its message.
 * Rendering equals jinja2's rendering of the recognised template, byte for byte.
 * Threading: rows are constant; struct nt_chat is constant after open. The segments borrow the messages' bytes and
 * own theirs; release them with nt_chat_prompt_release.
 * Extension: a row renders through one function pointer; the template interpreter becomes one more row. */
#ifndef NT_CHAT_H
#define NT_CHAT_H

#include "status.h"
#include "strbuf.h"
#include "tokenizer.h"

struct nt_message {
    const char *role; /* "system", "user", "assistant", "tool" */
    const char *content;
    size_t len;
};

struct nt_chat_format; /* a row, opaque */

struct nt_chat {
    const struct nt_chat_format *format;
    const char *name;                    /* the row's name, e.g. "smollm2" */
    char bos[64], eos[64];               /* spelling of the tokenizer's bos and eos, for templates that print them */
    char template_sha256[NT_SHA256_HEX]; /* of the model's template; "" when it has none */
};

struct nt_chat_prompt {
    struct nt_tok_span *spans; /* text points into bytes or into the messages */
    int32_t *answer;           // [n] 1 + index of the assistant's message the span is generated for, 0: none
    int64_t n, cap;
    struct nt_strbuf *owned; /* [n_owned] bytes made by rendering */
    int64_t n_owned;
    int32_t answering; /* value of answer for the next span */
};

/* choice: "auto" or a row's name (setting model.chat). template_text: the model's chat_template or NULL.
 * auto without a template and with an unknown one are errors that print the hash and the remedy. */
NT_MUST nt_status nt_chat_open(struct nt_chat *chat, const char *choice, const char *template_text, size_t template_len,
                               const struct nt_tokenizer *tok, const char *origin);

/* NT_E_DATA for roles or orders the format does not have (the template's own raise_exception). */
NT_MUST nt_status nt_chat_render(const struct nt_chat *chat, const struct nt_message *messages, int64_t n,
                                 bool add_generation_prompt, struct nt_chat_prompt *out);
void nt_chat_prompt_release(struct nt_chat_prompt *p);

/* Renders and encodes; appends to ids. No bos is added beyond what the template prints. */
NT_MUST nt_status nt_chat_encode(const struct nt_chat *chat, const struct nt_tokenizer *tok,
                                 const struct nt_message *messages, int64_t n, bool add_generation_prompt,
                                 struct nt_ids *ids);

/* Ids that end a turn in this format (<|im_end|>, <|eot_id|>, ...) and that tok has; at most cap are written. */
int64_t nt_chat_stops(const struct nt_chat *chat, const struct nt_tokenizer *tok, int32_t *ids, int64_t cap);

/* "chatml, llama3, ..." for messages and help. */
const char *nt_chat_names(void);

#endif
