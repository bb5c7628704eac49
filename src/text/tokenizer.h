/* Tokenizers: text <-> ids, byte-level BPE and SentencePiece-style BPE, from tokenizer.json or from GGUF metadata.
 *
 * One engine, compiled from data: normalizer, added tokens, pre-tokenizer (PCRE2-JIT), merges, post-processor, decoder.
 * The yardstick is HF `tokenizers`: same ids, same decoded text. What the engine cannot do is refused at load with
 * the component's name, never approximated. Input bytes that are not UTF-8 become U+FFFD as in Python's
 * bytes.decode("utf-8", "replace"). Text may hold NUL bytes.
 * Trust: without NT_TOK_PARSE_SPECIAL, control tokens spelled out in the text stay text (HF: encode_special_tokens);
 * nt_tokenizer_encode_spans decides it per span, while words still join across spans as in one string.
 * Threading: after loading, the tokenizer is constant; encode and decode may run on any number of threads.
 * Lifecycle: nt_tokenizer_from_* ... nt_tokenizer_free. Errors: NT_E_DATA / NT_E_UNSUPPORTED naming origin and key. */
#ifndef NT_TOKENIZER_H
#define NT_TOKENIZER_H

#include "hash.h"
#include "status.h"
#include "strbuf.h"
#include "tok_list.h"
#include <stdbool.h>
#include <stdint.h>

struct nt_tokenizer; /* opaque */

/* config: text of tokenizer_config.json or NULL. origin names the file in error sentences. */
NT_MUST nt_status nt_tokenizer_from_json(const char *text, size_t len, const char *origin, const char *config,
                                         size_t config_len, struct nt_tokenizer **out);

struct nt_tok_str {
    const char *data;
    size_t len;
};

/* GGUF metadata (tokenizer.ggml.*), borrowed for the call. Absent ids and switches are -1, absent arrays NULL. */
struct nt_tok_parts {
    const char *origin;              /* for error sentences */
    const char *model;               /* "gpt2" or "llama" */
    const char *pre;                 /* name of the pre-tokenizer; NULL: "default" */
    const struct nt_tok_str *tokens; /* [n_tokens] */
    const float *scores;             /* [n_tokens] */
    const int32_t *types;            /* [n_tokens] 1 normal 2 unknown 3 control 4 user defined 5 unused 6 byte */
    const struct nt_tok_str *merges; /* [n_merges] "A B" */
    int64_t n_tokens, n_merges;
    int64_t n_scores, n_types; /* lengths found in the file, checked against n_tokens */
    int64_t bos, eos, eot, eom, unk, pad;
    int add_bos, add_eos, add_space_prefix; /* 0, 1, -1 absent */
};
#define NT_TOK_PARTS_INIT                                                                                              \
    {                                                                                                                  \
        .bos = -1, .eos = -1, .eot = -1, .eom = -1, .unk = -1, .pad = -1, .add_bos = -1, .add_eos = -1,                \
        .add_space_prefix = -1                                                                                         \
    }
NT_MUST nt_status nt_tokenizer_from_parts(const struct nt_tok_parts *parts, struct nt_tokenizer **out);

/* The same tokenizer as tokenizer.json and tokenizer_config.json of a Hugging Face directory; t was built from parts.
 * NT_E_UNSUPPORTED for SentencePiece-style vocabularies, whose merges GGUF does not keep. */
NT_MUST nt_status nt_tokenizer_to_hf(const struct nt_tokenizer *t, const struct nt_tok_parts *parts,
                                     const char *chat_template, size_t chat_template_len, struct nt_strbuf *tokenizer,
                                     struct nt_strbuf *config);

void nt_tokenizer_free(struct nt_tokenizer *t); /* accepts NULL */

enum nt_tok_flag {
    NT_TOK_PARSE_SPECIAL = 1, /* control tokens spelled out in the text become their ids */
    NT_TOK_ADD_SPECIAL = 2,   /* bos/eos as the model's post-processor says */
};

/* Appends to ids. NT_E_DATA when a pattern of the model exceeds its match limits on this text. */
NT_MUST nt_status nt_tokenizer_encode(const struct nt_tokenizer *t, const char *text, size_t len, unsigned flags,
                                      struct nt_ids *ids);

/* Trusted spans are parsed for control tokens, others never: there even non-special markup such as "<tool_call>" stays
 * text. Apart from that the result is that of the concatenation. */
struct nt_tok_span {
    const char *text;
    size_t len;
    bool trusted;
};
NT_MUST nt_status nt_tokenizer_encode_spans(const struct nt_tokenizer *t, const struct nt_tok_span *spans, int64_t n,
                                            unsigned flags, struct nt_ids *ids);

/* Appends the text of ids to out, as HF decode(ids, skip_special_tokens) without clean-up. Ids the vocabulary does not
 * have (padding rows of the embedding) give nothing. */
void nt_tokenizer_decode(const struct nt_tokenizer *t, const int32_t *ids, int64_t n, bool skip_special,
                         struct nt_strbuf *out);

/* Streaming decode: the concatenation of what step and finish append equals nt_tokenizer_decode of all ids. Never half
 * a UTF-8 sequence: incomplete tails (and runs of SentencePiece byte tokens) are held back. Zero-initialise. */
struct nt_detok {
    struct nt_strbuf pending; /* bytes that do not yet form text */
    bool started;             /* a token has been seen */
    bool skip_special;
    int32_t strip_left; /* blanks already removed from the start */
};
void nt_detok_init(struct nt_detok *d, bool skip_special);
void nt_detok_step(struct nt_detok *d, const struct nt_tokenizer *t, int32_t id, struct nt_strbuf *out);
void nt_detok_finish(struct nt_detok *d, const struct nt_tokenizer *t, struct nt_strbuf *out); /* ready for reuse */
void nt_detok_release(struct nt_detok *d);

/* One more than the largest id of model vocabulary and added tokens. */
int32_t nt_tokenizer_n_vocab(const struct nt_tokenizer *t);
/* The bytes the token stands for (byte-level characters mapped back, U+2581 as blank, byte tokens as their byte);
 * NULL for an id without token. Special tokens give their spelling. */
const char *nt_tokenizer_piece(const struct nt_tokenizer *t, int32_t id, size_t *len);
/* The token as the vocabulary spells it; NULL for an id without token. */
const char *nt_tokenizer_token(const struct nt_tokenizer *t, int32_t id, size_t *len);
int32_t nt_tokenizer_find(const struct nt_tokenizer *t, const char *token, size_t len); /* -1: none */
bool nt_tokenizer_is_special(const struct nt_tokenizer *t, int32_t id);

int32_t nt_tokenizer_bos(const struct nt_tokenizer *t); /* -1: none, as for all below */
int32_t nt_tokenizer_eos(const struct nt_tokenizer *t);
int32_t nt_tokenizer_unk(const struct nt_tokenizer *t);
int32_t nt_tokenizer_pad(const struct nt_tokenizer *t);
/* Ids that end a generation: eos, GGUF eot and eom, generation_config's list, in ascending order without doubles. */
const int32_t *nt_tokenizer_stops(const struct nt_tokenizer *t, int64_t *n);
/* For the loader, before the tokenizer is shared. NT_E_DATA when the vocabulary has no such id. */
NT_MUST nt_status nt_tokenizer_add_stop(struct nt_tokenizer *t, int64_t id);

/* SHA-256 over vocabulary, merges, added tokens and pipeline: equal digests tokenize equally. */
void nt_tokenizer_digest(const struct nt_tokenizer *t, uint8_t digest[NT_SHA256_BYTES]);
const char *nt_tokenizer_describe(const struct nt_tokenizer *t); /* one line for humans, e.g. "byte-level BPE ..." */

#endif
