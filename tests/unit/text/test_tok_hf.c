/* A tokenizer of GGUF metadata, written as tokenizer.json and read back, gives the same ids and the same text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "json.h"
#include "rng.h"
#include "tok_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_BYTES = 256, N_MERGES = 6, N_TOKENS = N_BYTES + N_MERGES + 4 };

struct vocab {
    char letter[N_BYTES][3];
    struct nt_tok_str tokens[N_TOKENS], merges[N_MERGES];
    int32_t types[N_TOKENS];
};

static void must(nt_status st) {
    if (st != NT_OK) print_message("%s\n", nt_error_last()->text);
    assert_int_equal(st, NT_OK);
}

/* The bytes, six merges (U+0120 is the blank), two control tokens, a word of the user's, and padding. */
static void make_vocab(struct vocab *v) {
    static const char *const merges[N_MERGES] = {"t h", "th e", "\xC4\xA0 the", "1 2", "a n", "\xC4\xA0 \xC4\xA0"};
    static const char *const merged[N_MERGES] = {"th", "the", "\xC4\xA0the", "12", "an", "\xC4\xA0\xC4\xA0"};
    static const char *const rest[4] = {"<|\"start\"|>", "<|end|>", "<think>", "[PAD0]"};
    static const int32_t rest_types[4] = {3, 3, 4, 5};
    int32_t n = 0;
    for (int i = 0; i < 2; i++, n++) { // control tokens first, as some models have them
        v->tokens[n] = (struct nt_tok_str){rest[i], strlen(rest[i])};
        v->types[n] = rest_types[i];
    }
    for (int b = 0; b < N_BYTES; b++, n++) {
        const size_t len = nt_tok_byte_spelling((uint8_t)b, v->letter[b]);
        v->tokens[n] = (struct nt_tok_str){v->letter[b], len};
        v->types[n] = 1;
    }
    for (int i = 0; i < N_MERGES; i++, n++) {
        v->tokens[n] = (struct nt_tok_str){merged[i], strlen(merged[i])};
        v->types[n] = 1;
        v->merges[i] = (struct nt_tok_str){merges[i], strlen(merges[i])};
    }
    for (int i = 2; i < 4; i++, n++) {
        v->tokens[n] = (struct nt_tok_str){rest[i], strlen(rest[i])};
        v->types[n] = rest_types[i];
    }
}

static void compare(const struct nt_tokenizer *a, const struct nt_tokenizer *b, const char *text, size_t len) {
    struct nt_ids x = {0}, y = {0};
    for (unsigned flags = 0; flags < 4; flags++) {
        nt_ids_reset(&x);
        nt_ids_reset(&y);
        must(nt_tokenizer_encode(a, text, len, flags, &x));
        must(nt_tokenizer_encode(b, text, len, flags, &y));
        assert_int_equal(x.len, y.len);
        if (x.len > 0) assert_memory_equal(x.data, y.data, (size_t)x.len * sizeof *x.data);
        for (int skip = 0; skip < 2; skip++) {
            struct nt_strbuf s = NT_STRBUF_INIT, t = NT_STRBUF_INIT;
            nt_tokenizer_decode(a, x.data, x.len, skip, &s);
            nt_tokenizer_decode(b, x.data, x.len, skip, &t);
            assert_string_equal(nt_strbuf_cstr(&s), nt_strbuf_cstr(&t));
            nt_strbuf_release(&s);
            nt_strbuf_release(&t);
        }
    }
    nt_ids_release(&x);
    nt_ids_release(&y);
}

static void check(const struct nt_tok_parts *parts) {
    static const char chars[] = "the an 12 123  \n\tx'll <|\"start\"|><think>\xC3\xA9\xE4\xB8\xAD\xCC\x81.";
    struct nt_tokenizer *a = NULL, *b = NULL;
    struct nt_strbuf json = NT_STRBUF_INIT, config = NT_STRBUF_INIT;
    must(nt_tokenizer_from_parts(parts, &a));
    must(nt_tokenizer_to_hf(a, parts, "{{ \"x\" }}\n", 10, &json, &config));
    must(nt_tokenizer_from_json(json.data, json.len, "json", config.data, config.len, &b));
    assert_int_equal(nt_tokenizer_n_vocab(a), nt_tokenizer_n_vocab(b));
    assert_int_equal(nt_tokenizer_bos(a), nt_tokenizer_bos(b));
    assert_int_equal(nt_tokenizer_eos(a), nt_tokenizer_eos(b));
    assert_int_equal(nt_tokenizer_pad(a), nt_tokenizer_pad(b));
    for (int32_t id = 0; id < N_TOKENS; id++)
        assert_int_equal(nt_tokenizer_is_special(a, id), nt_tokenizer_is_special(b, id));
    compare(a, b, "the 12 an<|end|><think> the", 27);
    for (uint64_t k = 0; k < 300; k++) { // texts of pieces of chars
        char text[200];
        size_t len = 0;
        for (uint64_t i = 0; len < 120 && i < 40; i++) {
            uint32_t w[4];
            nt_philox(1, k, i, w);
            const size_t at = w[0] % (sizeof chars - 1), n = 1 + w[1] % 6;
            for (size_t j = at; j < at + n && j < sizeof chars - 1; j++) text[len++] = chars[j];
        }
        compare(a, b, text, len);
    }
    struct nt_json *doc = NULL;
    must(nt_json_parse(config.data, config.len, "config", &doc));
    assert_string_equal(nt_json_str(nt_json_get(doc, "chat_template"), NULL), "{{ \"x\" }}\n");
    nt_json_free(doc);
    nt_strbuf_release(&json);
    nt_strbuf_release(&config);
    nt_tokenizer_free(a);
    nt_tokenizer_free(b);
}

static struct nt_tok_parts parts_of(const struct vocab *v, const char *pre) {
    struct nt_tok_parts p = NT_TOK_PARTS_INIT;
    p.origin = "x.gguf";
    p.model = "gpt2";
    p.pre = pre;
    p.tokens = v->tokens;
    p.types = v->types;
    p.merges = v->merges;
    p.n_tokens = p.n_types = N_TOKENS;
    p.n_merges = N_MERGES;
    p.bos = 0;
    p.eos = 1;
    return p;
}

static void test_presets(void **state) {
    (void)state;
    static const char *const names[] = {NULL, "gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "gpt-4o"};
    static struct vocab v;
    make_vocab(&v);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct nt_tok_parts p = parts_of(&v, names[i]);
        check(&p);
        p.add_bos = 1;
        p.add_eos = 1;
        p.pad = N_TOKENS - 1;
        check(&p);
        p.add_bos = 0;
        p.bos = -1;
        check(&p);
    }
}

static void test_sentencepiece(void **state) {
    (void)state;
    static struct vocab v;
    static float scores[N_TOKENS];
    struct nt_tokenizer *t = NULL;
    struct nt_strbuf json = NT_STRBUF_INIT, config = NT_STRBUF_INIT;
    make_vocab(&v);
    struct nt_tok_parts p = parts_of(&v, NULL);
    p.model = "llama";
    p.scores = scores;
    p.n_scores = N_TOKENS;
    must(nt_tokenizer_from_parts(&p, &t));
    assert_int_equal(nt_tokenizer_to_hf(t, &p, NULL, 0, &json, &config), NT_E_UNSUPPORTED);
    assert_non_null(strstr(nt_error_last()->text, "copy tokenizer.json"));
    nt_tokenizer_free(t);
    nt_strbuf_release(&json);
    nt_strbuf_release(&config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_presets),
        cmocka_unit_test(test_sentencepiece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
