/* Any bytes as a tokenizer. "JSON", or "JSON NUL text": tokenizer.json and what to encode (the JSON itself when there
 * is no text). "P", a switch byte, lines: tokens as GGUF metadata up to an empty line, then merges. Promises checked:
 * an error has a sentence and one of the statuses for foreign data; ids lie in the vocabulary; decoded text is UTF-8,
 * whole and streamed alike. */
#include "tok_utf8.h"
#include "tokenizer.h"

#include <string.h>

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond)) __builtin_trap();                                                                                 \
    } while (0)

enum { MAX_LINES = 512 };

static void check_status(nt_status st) {
    CHECK(st == NT_OK || st == NT_E_DATA || st == NT_E_UNSUPPORTED);
    if (st != NT_OK) CHECK(nt_error_last()->text[0] != 0);
}

static void check_ids(const struct nt_tokenizer *t, const struct nt_ids *ids) {
    struct nt_strbuf whole = NT_STRBUF_INIT, step = NT_STRBUF_INIT, streamed = NT_STRBUF_INIT;
    struct nt_detok d = {0};
    nt_detok_init(&d, false);
    for (int64_t i = 0; i < ids->len; i++) {
        CHECK(ids->data[i] >= 0 && ids->data[i] < nt_tokenizer_n_vocab(t));
        nt_strbuf_reset(&step);
        nt_detok_step(&d, t, ids->data[i], &step);
        CHECK(nt_utf8_valid(nt_strbuf_cstr(&step), step.len));
        nt_strbuf_add(&streamed, nt_strbuf_cstr(&step), step.len);
    }
    nt_detok_finish(&d, t, &streamed);
    nt_tokenizer_decode(t, ids->data, ids->len, false, &whole);
    CHECK(whole.len == streamed.len && memcmp(nt_strbuf_cstr(&whole), nt_strbuf_cstr(&streamed), whole.len) == 0);
    nt_detok_release(&d);
    nt_strbuf_release(&whole);
    nt_strbuf_release(&step);
    nt_strbuf_release(&streamed);
}

static void use(const struct nt_tokenizer *t, const char *text, size_t len) {
    struct nt_ids ids = {0};
    const size_t half = len / 2;
    const struct nt_tok_span spans[] = {
        {text,        half,       true },
        {text + half, len - half, false},
        {text,        half,       true }
    };
    for (unsigned flags = 0; flags < 4; flags++) {
        nt_ids_reset(&ids);
        check_status(nt_tokenizer_encode(t, text, len, flags, &ids));
        check_ids(t, &ids);
    }
    nt_ids_reset(&ids);
    check_status(nt_tokenizer_encode_spans(t, spans, 3, NT_TOK_ADD_SPECIAL, &ids));
    check_ids(t, &ids);
    for (int32_t id = -1; id <= nt_tokenizer_n_vocab(t) && id < 2000; id++) {
        size_t n = 0;
        const char *token = nt_tokenizer_token(t, id, &n);
        if (token) CHECK(nt_tokenizer_find(t, token, n) == id);
    }
    nt_ids_release(&ids);
}

static void as_json(const char *data, size_t size) {
    const char *nul = memchr(data, 0, size);
    const size_t len = nul ? (size_t)(nul - data) : size;
    struct nt_tokenizer *t = NULL;
    nt_status st = nt_tokenizer_from_json(data, len, "fuzz.json", NULL, 0, &t);
    check_status(st);
    if (st != NT_OK) return;
    if (nul)
        use(t, nul + 1, size - len - 1);
    else
        use(t, data, len);
    nt_tokenizer_free(t);
}

static void as_parts(const char *data, size_t size) {
    struct nt_tok_str token[MAX_LINES], merge[MAX_LINES];
    float score[MAX_LINES];
    int32_t type[MAX_LINES];
    struct nt_tok_parts p = NT_TOK_PARTS_INIT;
    struct nt_tokenizer *t = NULL;
    const unsigned switches = (unsigned char)data[1];
    static const char *const pre[] = {"gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "default", "x", NULL};
    bool merges = false;
    for (size_t i = 2; i < size;) {
        const char *end = memchr(data + i, '\n', size - i);
        const size_t n = end ? (size_t)(end - data) - i : size - i;
        if (n == 0)
            merges = true;
        else if (!merges && p.n_tokens < MAX_LINES)
            token[p.n_tokens++] = (struct nt_tok_str){data + i, n};
        else if (merges && p.n_merges < MAX_LINES)
            merge[p.n_merges++] = (struct nt_tok_str){data + i, n};
        i += n + 1;
    }
    for (int64_t i = 0; i < p.n_tokens; i++) {
        const unsigned char c = (unsigned char)token[i].data[token[i].len - 1];
        score[i] = (float)((c * 37) % 64);
        type[i] = !(switches & 16) ? 1 : c == '>' ? 3 : c % 16 == 15 ? (int32_t)(c % 7) : 1;
    }
    p.origin = "fuzz.gguf";
    p.model = switches & 1 ? "gpt2" : "llama";
    p.pre = pre[switches >> 1 & 7];
    p.tokens = token;
    p.scores = score;
    p.types = type;
    p.merges = merge;
    p.n_scores = p.n_types = p.n_tokens;
    p.bos = switches & 32 ? 0 : -1;
    p.unk = switches & 64 ? 1 : -1;
    p.add_bos = p.add_eos = (switches & 128) != 0;
    nt_status st = nt_tokenizer_from_parts(&p, &t);
    check_status(st);
    if (st == NT_OK) use(t, data, size);
    nt_tokenizer_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    nt_error_clear();
    if (size >= 2 && data[0] == 'P')
        as_parts((const char *)data, size);
    else
        as_json((const char *)data, size);
    return 0;
}
