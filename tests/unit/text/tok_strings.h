/* The test strings of the tokenizer goldens: the generator of tools/make_tok_golden.py, written again in C.
 *
 * String i is a function of i and of tests/golden/tok/atoms.json, so 20,000 strings per family need not be stored.
 * The same xorshift64 in both languages; a difference shows as a wrong digest in the first block.
 * Ownership: the set owns the parsed atoms; make appends to the caller's buffer. Test only, single thread.
 * Errors: a missing or malformed atoms.json fails the calling test. */
#ifndef NT_TOK_STRINGS_H
#define NT_TOK_STRINGS_H

#include "fileio.h"
#include "hash.h"
#include "json.h"
#include "strbuf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOK_STRINGS = 20000, TOK_BLOCK = 100 };

struct tok_strings {
    struct nt_json *doc;
    const struct nt_json *classes, *atoms;
};

struct tok_rng {
    uint64_t x;
};

static inline size_t tok_below(struct tok_rng *r, size_t n) {
    uint64_t x = r->x;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    r->x = x;
    return (size_t)((x >> 33) % n);
}

static inline nt_status tok_strings_open(struct tok_strings *s, const char *dir) {
    char path[1024];
    NT_TRY(nt_path_join(path, sizeof path, dir, "golden/tok/atoms.json"));
    NT_TRY(nt_json_parse_file(path, 1 << 20, &s->doc));
    s->classes = nt_json_get(s->doc, "classes");
    s->atoms = nt_json_get(s->doc, "atoms");
    return NT_OK;
}

static inline void tok_strings_close(struct tok_strings *s) {
    nt_json_free(s->doc);
}

static inline const char *tok_pick(const struct tok_strings *s, const struct nt_json *mix, struct tok_rng *r,
                                   size_t *len) {
    const char *name = nt_json_str(nt_json_at(mix, tok_below(r, nt_json_len(mix))), NULL);
    const struct nt_json *list = nt_json_get(s->atoms, name);
    return nt_json_str(nt_json_at(list, tok_below(r, nt_json_len(list))), len);
}

static inline void tok_strings_make(const struct tok_strings *s, int i, struct nt_strbuf *out) {
    struct tok_rng r = {(uint64_t)(i + 1) * 0x9E3779B97F4A7C15u};
    const struct nt_json *kind = nt_json_at(s->classes, (size_t)i % nt_json_len(s->classes));
    const struct nt_json *mix = nt_json_get(kind, "mix");
    const char *how = nt_json_str(nt_json_get(kind, "how"), NULL);
    size_t len;
    nt_strbuf_reset(out);
    if (strcmp(how, "repeat") == 0) {
        const char *atom = tok_pick(s, mix, &r, &len);
        size_t n = i % 4000 == 9 ? 100000 / len : 1 + tok_below(&r, 300);
        for (size_t k = 0; k < n; k++) nt_strbuf_add(out, atom, len);
        return;
    }
    size_t n = 1 + tok_below(&r, 14);
    for (size_t k = 0; k < n; k++) {
        const char *atom = tok_pick(s, mix, &r, &len);
        bool invalid = strcmp(how, "invalid") == 0;
        if (invalid) len = 1 + tok_below(&r, len);
        nt_strbuf_add(out, atom, len);
        if (invalid && tok_below(&r, 3) == 0) {
            size_t more = 1 + tok_below(&r, 3);
            for (size_t b = 0; b < more; b++) nt_strbuf_addc(out, (char)(128 + tok_below(&r, 128)));
        }
        if (tok_below(&r, 40) == 0) nt_strbuf_addc(out, (char)tok_below(&r, 128));
    }
}

#endif
