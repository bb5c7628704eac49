/* Loads a model's tokenizer and chat template from where the model lives.
 *
 * A Hugging Face directory (tokenizer.json, tokenizer_config.json, chat_template.jinja, generation_config.json,
 * special_tokens_map.json) or a GGUF file (tokenizer.ggml.*, tokenizer.chat_template). Stop ids from config and
 * generation_config are added to the tokenizer. Files are capped before they are read.
 * Lifecycle: zero-initialise struct nt_tok_bundle, nt_tokenizer_load, nt_tok_bundle_release. The bundle owns all.
 * Threading: constant after loading. Errors name the file and the key. */
#ifndef NT_TOKLOAD_H
#define NT_TOKLOAD_H

#include "status.h"
#include "tokenizer.h"

struct nt_gguf;

struct nt_tok_bundle {
    struct nt_tokenizer *tok;
    char *chat_template; /* NUL terminated; NULL: the model has none */
    size_t chat_template_len;
};

/* tokenizer.json and tokenizer_config.json (with the chat template) for the tokenizer of a GGUF file. */
NT_MUST nt_status nt_tokenizer_gguf_to_hf(const char *path, struct nt_strbuf *tokenizer, struct nt_strbuf *config);
NT_MUST nt_status nt_tokenizer_load(const char *model_path, struct nt_tok_bundle *out);
void nt_tok_bundle_release(struct nt_tok_bundle *b);

#endif
