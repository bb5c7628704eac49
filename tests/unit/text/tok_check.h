/* Compares a tokenizer with the digests that HF tokenizers gave (tests/golden/tok/NAME.sha), 20,000 strings.
 *
 * One SHA-256 per block of 100 strings over: ids with special tokens parsed and added, ids without, the decoded text,
 * and the decoded text without special tokens. Streaming decode is compared with whole decoding on the way. Shared by
 * the tests of text and corpus; single thread; a difference fails the calling cmocka test and names the block. Layout
 * of the hashed bytes: tools/make_tok_golden.py. */
#ifndef NT_TOK_CHECK_H
#define NT_TOK_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tok_strings.h"
#include "tokenizer.h"

static inline void must(nt_status st) {
    if (st != NT_OK) fail_msg("%s", nt_error_last()->text);
}

static inline void hash_u32(struct nt_sha256 *s, uint32_t v) {
    uint8_t le[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    nt_sha256_add(s, le, 4);
}

static inline void hash_ids(struct nt_sha256 *s, const struct nt_ids *ids) {
    hash_u32(s, (uint32_t)ids->len);
    for (int64_t i = 0; i < ids->len; i++) hash_u32(s, (uint32_t)ids->data[i]);
}

static inline void hash_text(struct nt_sha256 *s, const struct nt_strbuf *text) {
    hash_u32(s, (uint32_t)text->len);
    nt_sha256_add(s, text->data, text->len);
}

struct work {
    struct nt_ids full, plain;
    struct nt_strbuf text, whole, skipped, streamed;
};

static inline void check_stream(const struct nt_tokenizer *t, const struct work *w, struct nt_detok *d,
                                struct nt_strbuf *streamed) {
    nt_strbuf_reset(streamed);
    nt_detok_init(d, true);
    for (int64_t i = 0; i < w->full.len; i++) nt_detok_step(d, t, w->full.data[i], streamed);
    nt_detok_finish(d, t, streamed);
    assert_int_equal(streamed->len, w->skipped.len);
    if (streamed->len) assert_memory_equal(streamed->data, w->skipped.data, streamed->len);
}

static inline void check_blocks(const struct nt_tokenizer *t, const char *what, const char *sha) {
    struct tok_strings strings;
    struct work w = {0};
    struct nt_detok detok = {0};
    must(tok_strings_open(&strings, NT_TEST_DIR));
    for (int begin = 0; begin < TOK_STRINGS; begin += TOK_BLOCK, sha += 17) {
        struct nt_sha256 *s;
        must(nt_sha256_new(&s));
        for (int i = begin; i < begin + TOK_BLOCK; i++) {
            tok_strings_make(&strings, i, &w.text);
            nt_ids_reset(&w.full);
            nt_ids_reset(&w.plain);
            nt_strbuf_reset(&w.whole);
            nt_strbuf_reset(&w.skipped);
            const char *text = nt_strbuf_cstr(&w.text);
            must(nt_tokenizer_encode(t, text, w.text.len, NT_TOK_PARSE_SPECIAL | NT_TOK_ADD_SPECIAL, &w.full));
            must(nt_tokenizer_encode(t, text, w.text.len, 0, &w.plain));
            nt_tokenizer_decode(t, w.full.data, w.full.len, false, &w.whole);
            nt_tokenizer_decode(t, w.full.data, w.full.len, true, &w.skipped);
            hash_ids(s, &w.full);
            hash_ids(s, &w.plain);
            hash_text(s, &w.whole);
            hash_text(s, &w.skipped);
            check_stream(t, &w, &detok, &w.streamed);
            nt_strbuf_reset(&w.whole);
            nt_ids_reset(&w.plain);
            for (int64_t k = w.full.len; k-- > 0;) nt_ids_push(&w.plain, w.full.data[k]);
            nt_tokenizer_decode(t, w.plain.data, w.plain.len, false, &w.whole);
            hash_text(s, &w.whole);
        }
        uint8_t digest[NT_SHA256_BYTES];
        char hex[NT_SHA256_HEX];
        nt_sha256_finish(s, digest);
        nt_hex(digest, sizeof digest, hex);
        if (memcmp(hex, sha, 16) != 0)
            fail_msg("%s: strings %d to %d differ from HF tokenizers; make_tok_golden.py --show prints its ids", what,
                     begin, begin + TOK_BLOCK - 1);
    }
    nt_ids_release(&w.full);
    nt_ids_release(&w.plain);
    nt_strbuf_release(&w.text);
    nt_strbuf_release(&w.whole);
    nt_strbuf_release(&w.skipped);
    nt_strbuf_release(&w.streamed);
    nt_detok_release(&detok);
    tok_strings_close(&strings);
}

static inline void read_golden(const char *name, const char *suffix, char **data, size_t *len) {
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/golden/tok/%s.%s", NT_TEST_DIR, name, suffix);
    must(nt_file_read(path, 4 << 20, data, len));
}

#endif
