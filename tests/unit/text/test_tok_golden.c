/* Ids and texts equal to HF tokenizers on 20,000 strings per family (tools/make_tok_golden.py made the digests).
 * Each family is read from tokenizer.json; those that GGUF can express also go through nt_tokenizer_from_parts and
 * must give the same digests. Streaming decode is compared with whole decoding on the way. */
#include "tok_check.h"

static void test_json(void **state) {
    const char *family = *state;
    char *json, *sha;
    size_t len, sha_len;
    struct nt_tokenizer *t;
    read_golden(family, "json", &json, &len);
    read_golden(family, "sha", &sha, &sha_len);
    assert_int_equal(sha_len, 17 * TOK_STRINGS / TOK_BLOCK);
    must(nt_tokenizer_from_json(json, len, family, NULL, 0, &t));
    check_blocks(t, family, sha);
    nt_tokenizer_free(t);
    free(json);
    free(sha);
}

/* ---- the same tokenizer as GGUF metadata ---- */

struct gguf_row {
    const char *family, *model, *pre;
    int add_space_prefix;
};

struct arrays {
    struct nt_tok_str *tokens, *merges;
    float *scores;
    int32_t *types;
    struct nt_strbuf merge_text;
};

static struct nt_tok_str str_of(const struct nt_json *v) {
    struct nt_tok_str s;
    s.data = nt_json_str(v, &s.len);
    return s;
}

static int64_t fill_tokens(const struct nt_json *doc, struct arrays *a) {
    const struct nt_json *vocab = nt_json_get(nt_json_get(doc, "model"), "vocab");
    const struct nt_json *added = nt_json_get(doc, "added_tokens");
    size_t room = nt_json_len(vocab) + nt_json_len(added);
    int64_t n = 0;
    a->tokens = calloc(room, sizeof *a->tokens);
    a->types = calloc(room, sizeof *a->types);
    a->scores = calloc(room, sizeof *a->scores);
    for (void *it = nt_json_first(vocab); it; it = nt_json_next(vocab, it)) {
        int64_t id = nt_json_int(nt_json_value(it), -1);
        const char *text = nt_json_key(it);
        a->tokens[id] = (struct nt_tok_str){text, strlen(text)};
        a->types[id] = strlen(text) == 6 && memcmp(text, "<0x", 3) == 0 ? 6 : 1;
        a->scores[id] = -1e9f;
        if (id >= n) n = id + 1;
    }
    for (size_t i = 0; i < nt_json_len(added); i++) {
        const struct nt_json *v = nt_json_at(added, i);
        int64_t id = nt_json_int(nt_json_get(v, "id"), -1);
        a->tokens[id] = str_of(nt_json_get(v, "content"));
        a->types[id] = nt_json_bool(nt_json_get(v, "special"), false) ? 3 : 4;
        if (id >= n) n = id + 1;
    }
    return n;
}

/* Merges as text; and the scores that a SentencePiece vocabulary would have: minus the first merge's index. */
static int64_t fill_merges(const struct nt_json *doc, struct arrays *a, int64_t n_tokens) {
    const struct nt_json *merges = nt_json_get(nt_json_get(doc, "model"), "merges");
    size_t n = nt_json_len(merges), at = 0;
    a->merges = calloc(n + 1, sizeof *a->merges);
    nt_strbuf_reserve(&a->merge_text, 64 * n);
    for (size_t i = 0; i < n; i++) {
        const struct nt_json *m = nt_json_at(merges, i);
        struct nt_tok_str whole = str_of(m), left = str_of(nt_json_at(m, 0)), right = str_of(nt_json_at(m, 1));
        if (whole.data) {
            nt_strbuf_add(&a->merge_text, whole.data, whole.len);
        } else {
            nt_strbuf_add(&a->merge_text, left.data, left.len);
            nt_strbuf_addc(&a->merge_text, ' ');
            nt_strbuf_add(&a->merge_text, right.data, right.len);
            char joined[256];
            int len = snprintf(joined, sizeof joined, "%s%s", left.data, right.data);
            for (int64_t id = 0; id < n_tokens; id++) {
                if (a->scores[id] < -9e8f && a->tokens[id].len == (size_t)len &&
                    memcmp(a->tokens[id].data, joined, (size_t)len) == 0)
                    a->scores[id] = -(float)i;
            }
        }
        a->merges[i].len = a->merge_text.len - at;
        at = a->merge_text.len;
    }
    at = 0;
    for (size_t i = 0; i < n; i++) {
        a->merges[i].data = a->merge_text.data + at;
        at += a->merges[i].len;
    }
    return (int64_t)n;
}

static int64_t id_of(const struct arrays *a, int64_t n, const char *text) {
    for (int64_t i = 0; i < n; i++) {
        if (a->tokens[i].len == strlen(text) && memcmp(a->tokens[i].data, text, strlen(text)) == 0) return i;
    }
    return -1;
}

static void test_parts(void **state) {
    const struct gguf_row *row = *state;
    char *json, *sha;
    size_t len, sha_len;
    struct nt_json *doc;
    struct arrays a = {0};
    struct nt_tokenizer *t;
    read_golden(row->family, "json", &json, &len);
    read_golden(row->family, "sha", &sha, &sha_len);
    must(nt_json_parse(json, len, row->family, &doc));
    struct nt_tok_parts p = NT_TOK_PARTS_INIT;
    p.origin = row->family;
    p.model = row->model;
    p.pre = row->pre;
    p.n_tokens = p.n_scores = p.n_types = fill_tokens(doc, &a);
    p.n_merges = fill_merges(doc, &a, p.n_tokens);
    p.tokens = a.tokens;
    p.types = a.types;
    p.scores = a.scores;
    p.merges = a.merges;
    p.unk = id_of(&a, p.n_tokens, "<unk>");
    p.add_space_prefix = row->add_space_prefix;
    const struct nt_json *first = nt_json_at(nt_json_get(nt_json_get(doc, "post_processor"), "single"), 0);
    const char *bos = nt_json_str(nt_json_get(nt_json_get(first, "SpecialToken"), "id"), NULL);
    if (bos) p.bos = id_of(&a, p.n_tokens, bos);
    p.add_bos = bos != NULL;
    must(nt_tokenizer_from_parts(&p, &t));
    check_blocks(t, row->family, sha);
    nt_tokenizer_free(t);
    free(a.tokens);
    free(a.types);
    free(a.scores);
    free(a.merges);
    nt_strbuf_release(&a.merge_text);
    nt_json_free(doc);
    free(json);
    free(sha);
}

#define JSON(name)                                                                                                     \
    { "json " name, test_json, NULL, NULL, (void *)(uintptr_t)name }

int main(void) {
    static struct gguf_row rows[] = {
        {"gpt2",    "gpt2",  "gpt-2",     -1},
        {"smollm2", "gpt2",  "smollm",    -1},
        {"llama3",  "gpt2",  "llama-bpe", -1},
        {"qwen2",   "gpt2",  "qwen2",     -1},
        {"tekken",  "gpt2",  "tekken",    -1},
        {"llama2",  "llama", "default",   1 },
        {"gemma",   "llama", "default",   0 },
    };
    const struct CMUnitTest tests[] = {
        JSON("gpt2"),
        JSON("smollm2"),
        JSON("llama3"),
        JSON("qwen2"),
        JSON("tekken"),
        JSON("llama2"),
        JSON("mistral3"),
        JSON("gemma"),
        JSON("flags"),
        JSON("metaspace"),
        {"parts gpt2",    test_parts, NULL, NULL, &rows[0]},
        {"parts smollm2", test_parts, NULL, NULL, &rows[1]},
        {"parts llama3",  test_parts, NULL, NULL, &rows[2]},
        {"parts qwen2",   test_parts, NULL, NULL, &rows[3]},
        {"parts tekken",  test_parts, NULL, NULL, &rows[4]},
        {"parts llama2",  test_parts, NULL, NULL, &rows[5]},
        {"parts gemma",   test_parts, NULL, NULL, &rows[6]},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
