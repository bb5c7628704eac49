/* GGUF metadata -> tokenizer. GGUF names the pre-tokenizer instead of holding it; the rows below say what each name
 * means in the tokenizer.json it was made from. A name without a row is refused. */
#include "tok_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_SPM_PIECE = 512 };
enum token_type { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define CL100K(digits)                                                                                                 \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits                                               \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define O200K(suffix, digits)                                                                                          \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+" suffix                 \
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*" suffix "|" digits     \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"

static const struct nt_tok_preset pre_rows[] = {
    {.name = "default",                   .pattern = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {.name = "gpt-2",                     .pattern = {GPT2}                                                           },
    {.name = "phi-2",                     .pattern = {GPT2}                                                           },
    {.name = "smollm",                    .pattern = {"\\p{N}", GPT2}                                                 },
    {.name = "starcoder",                 .pattern = {"\\p{N}", GPT2}                                                 },
    {.name = "refact",                    .pattern = {"\\p{N}", GPT2}                                                 },
    {.name = "codeshell",                 .pattern = {"\\p{N}", GPT2}                                                 },
    {.name = "llama-bpe",                 .pattern = {CL100K("\\p{N}{1,3}")},                                           .ignore_merges = true, .add_bos = true},
    {.name = "llama3",                    .pattern = {CL100K("\\p{N}{1,3}")},                                                                                                .ignore_merges = true, .add_bos = true},
    {.name = "llama-v3",.pattern = {CL100K("\\p{N}{1,3}")},.ignore_merges = true, .add_bos = true},
    {.name = "qwen2",                                   .pattern = {CL100K("\\p{N}")},                                                                                              .nfc = true},
    {.name = "deepseek-r1-qwen",              .pattern = {CL100K("\\p{N}")},                                                                                                                                      .nfc = true},
    {.name = "qwen35",
     .pattern = {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}"
                 "| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
     .nfc = true},
    {.name = "tekken",                                   .pattern = {O200K("", "\\p{N}")},                                                                                      .ignore_merges = true, .add_bos = true},
    {.name = "gpt-4o",                        .pattern = {O200K(CONTRACTION, "\\p{N}{1,3}")}},
};

const struct nt_tok_preset *nt_tok_preset_find(const char *name) {
    for (size_t i = 0; i < sizeof pre_rows / sizeof pre_rows[0]; i++) {
        if (strcmp(pre_rows[i].name, name) == 0) return &pre_rows[i];
    }
    return NULL;
}

static nt_status check_parts(const struct nt_tok_parts *p) {
    if (p->n_tokens < 1 || !p->tokens)
        return NT_FAIL(NT_E_DATA, "%s: tokenizer.ggml.tokens is missing or empty", p->origin);
    if (!p->types)
        return NT_FAIL(NT_E_DATA,
                       "%s: tokenizer.ggml.token_type is missing; without it control tokens cannot be told from text",
                       p->origin);
    if (p->n_types != p->n_tokens)
        return NT_FAIL(NT_E_DATA, "%s: tokenizer.ggml.token_type has %lld entries; expected %lld, one per token",
                       p->origin, (long long)p->n_types, (long long)p->n_tokens);
    if (p->scores && p->n_scores != p->n_tokens)
        return NT_FAIL(NT_E_DATA, "%s: tokenizer.ggml.scores has %lld entries; expected %lld, one per token", p->origin,
                       (long long)p->n_scores, (long long)p->n_tokens);
    for (int64_t i = 0; i < p->n_tokens; i++) {
        if (p->types[i] < NORMAL || p->types[i] > BYTE)
            return NT_FAIL(NT_E_DATA, "%s: tokenizer.ggml.token_type[%lld] is %d; expected 1 to 6", p->origin,
                           (long long)i, p->types[i]);
        if (p->scores && isnan(p->scores[i]))
            return NT_FAIL(NT_E_DATA, "%s: tokenizer.ggml.scores[%lld] is not a number", p->origin, (long long)i);
    }
    return NT_OK;
}

/* SentencePiece files spell user-defined tokens with blanks; the vocabulary has marks. */
static void spm_spelling(const struct nt_tok_str *s, struct nt_strbuf *out) {
    nt_strbuf_reset(out);
    for (size_t i = 0; i < s->len; i++) {
        if (s->data[i] == ' ')
            nt_strbuf_add(out, "\xE2\x96\x81", 3);
        else
            nt_strbuf_addc(out, s->data[i]);
    }
}

static nt_status put_tokens(struct nt_tokenizer *t, const struct nt_tok_parts *p, bool spm) {
    struct nt_strbuf spelled = NT_STRBUF_INIT;
    nt_status st = NT_OK;
    for (int64_t i = 0; i < p->n_tokens && st == NT_OK; i++) {
        const struct nt_tok_str *s = &p->tokens[i];
        int32_t type = p->types[i];
        const char *text = s->data;
        size_t len = s->len;
        if (!nt_utf8_valid(text, len)) {
            st = NT_FAIL(NT_E_DATA, "%s: tokenizer.ggml.tokens[%lld] is not UTF-8", p->origin, (long long)i);
            break;
        }
        if (spm && type == USER_DEFINED) {
            spm_spelling(s, &spelled);
            text = nt_strbuf_cstr(&spelled);
            len = spelled.len;
        }
        bool model = type != CONTROL && type != UNKNOWN;
        st = nt_tok_vocab_put(&t->vocab, i, text, len, model ? NT_TOK_ATTR_MODEL : 0u, p->origin);
        bool special = type == CONTROL || (type == UNKNOWN && spm);
        if (st != NT_OK || !(special || type == USER_DEFINED)) continue;
        struct nt_tok_added a = {.id = (int32_t)i, .len = (uint32_t)len, .special = special};
        st = nt_tok_add_added(t, &a, text);
    }
    nt_strbuf_release(&spelled);
    return st;
}

static nt_status put_merges(struct nt_tokenizer *t, const struct nt_tok_parts *p) {
    if (!p->merges)
        return NT_FAIL(NT_E_DATA, "%s: tokenizer.ggml.merges is missing; a \"gpt2\" tokenizer needs it", p->origin);
    NT_TRY(nt_tok_merges_init(&t->merges, p->n_merges, p->origin));
    struct nt_strbuf joined = NT_STRBUF_INIT;
    nt_status st = NT_OK;
    for (int64_t i = 0; i < p->n_merges; i++) {
        const struct nt_tok_str *m = &p->merges[i];
        const char *blank = m->len ? memchr(m->data, ' ', m->len) : NULL;
        size_t left_len = blank ? (size_t)(blank - m->data) : 0, right_len = blank ? m->len - left_len - 1 : 0;
        if (left_len == 0 || right_len == 0 || memchr(blank + 1, ' ', right_len)) {
            st =
                NT_FAIL(NT_E_DATA, "%s: tokenizer.ggml.merges[%lld]: expected \"left right\"", p->origin, (long long)i);
            break;
        }
        nt_strbuf_reset(&joined);
        nt_strbuf_add(&joined, m->data, left_len);
        nt_strbuf_add(&joined, blank + 1, right_len);
        int32_t left = nt_tok_vocab_find(&t->vocab, m->data, left_len);
        int32_t right = nt_tok_vocab_find(&t->vocab, blank + 1, right_len);
        int32_t id = nt_tok_vocab_find(&t->vocab, nt_strbuf_cstr(&joined), joined.len);
        if (left < 0 || right < 0 || id < 0) {
            st = NT_FAIL(NT_E_DATA, "%s: tokenizer.ggml.merges[%lld] \"%.*s\": a part or the result is no token",
                         p->origin, (long long)i, (int)(m->len < 80 ? m->len : 80), m->data);
            break;
        }
        nt_tok_merges_put(&t->merges, left, right, (int32_t)i, id, false);
    }
    nt_strbuf_release(&joined);
    return st;
}

struct scored {
    float score;
    int32_t id;
};

static int by_score(const void *a, const void *b) {
    const struct scored *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static bool mergeable(const struct nt_tok_parts *p, int32_t id) {
    return id >= 0 && (p->types[id] == NORMAL || p->types[id] == USER_DEFINED);
}

/* Calls for each way to cut token id into two tokens; counts them, and puts them when m is given. */
static int64_t cut_token(const struct nt_tokenizer *t, const struct nt_tok_parts *p, int32_t id, int32_t rank,
                         struct nt_tok_merges *m) {
    const struct nt_tok_entry *e = &t->vocab.entry[id];
    const char *text = t->vocab.blob.data + e->text;
    int64_t n = 0;
    if (e->text_len > MAX_SPM_PIECE) return 0;
    for (size_t i = 0; i < e->text_len;) {
        i += nt_utf8_len((unsigned char)text[i]);
        if (i >= e->text_len) break;
        int32_t left = nt_tok_vocab_find(&t->vocab, text, i);
        if (!mergeable(p, left)) continue;
        int32_t right = nt_tok_vocab_find(&t->vocab, text + i, e->text_len - i);
        if (!mergeable(p, right)) continue;
        if (m) nt_tok_merges_put(m, left, right, rank, id, true);
        n++;
    }
    return n;
}

/* SentencePiece joins the pair whose result has the best score; here: rank = place of the score, equal scores share. */
static nt_status score_merges(struct nt_tokenizer *t, const struct nt_tok_parts *p) {
    if (!p->scores)
        return NT_FAIL(NT_E_DATA, "%s: tokenizer.ggml.scores is missing; a \"llama\" tokenizer needs it", p->origin);
    struct scored *order = calloc((size_t)p->n_tokens, sizeof *order);
    if (!order) return NT_FAIL(NT_E_NOMEM, "%s: no memory to order %lld tokens", p->origin, (long long)p->n_tokens);
    int64_t n = 0, n_pair = 0;
    for (int32_t i = 0; i < (int32_t)p->n_tokens; i++) {
        if (!mergeable(p, i)) continue;
        order[n++] = (struct scored){.score = p->scores[i], .id = i};
        n_pair += cut_token(t, p, i, 0, NULL);
    }
    nt_status st = nt_tok_merges_init(&t->merges, n_pair, p->origin);
    if (st == NT_OK) {
        qsort(order, (size_t)n, sizeof *order, by_score);
        int32_t rank = -1;
        for (int64_t i = 0; i < n; i++) {
            if (i == 0 || order[i].score != order[i - 1].score) rank++;
            (void)cut_token(t, p, order[i].id, rank, &t->merges);
        }
    }
    free(order);
    return st;
}

static nt_status set_id(const struct nt_tokenizer *t, int64_t id, const char *key, int32_t *out) {
    *out = -1;
    if (id == -1 || id == UINT32_MAX) return NT_OK; /* absent; some writers store -1 as u32 */
    if (id < 0 || id >= t->vocab.n)
        return NT_FAIL(NT_E_DATA, "%s: tokenizer.ggml.%s is %lld; expected 0 to %d", t->origin, key, (long long)id,
                       t->vocab.n - 1);
    *out = (int32_t)id;
    return NT_OK;
}

static nt_status set_ids(struct nt_tokenizer *t, const struct nt_tok_parts *p, bool add_bos_default) {
    int32_t eot, eom;
    NT_TRY(set_id(t, p->bos, "bos_token_id", &t->bos));
    NT_TRY(set_id(t, p->eos, "eos_token_id", &t->eos));
    NT_TRY(set_id(t, p->eot, "eot_token_id", &eot));
    NT_TRY(set_id(t, p->eom, "eom_token_id", &eom));
    NT_TRY(set_id(t, p->unk, "unknown_token_id", &t->unk));
    NT_TRY(set_id(t, p->pad, "padding_token_id", &t->pad));
    if (t->eos >= 0) NT_TRY(nt_tokenizer_add_stop(t, t->eos));
    if (eot >= 0) NT_TRY(nt_tokenizer_add_stop(t, eot));
    if (eom >= 0) NT_TRY(nt_tokenizer_add_stop(t, eom));
    bool add_bos = p->add_bos >= 0 ? p->add_bos != 0 : add_bos_default;
    if (add_bos && t->bos >= 0) t->post_before[t->n_before++] = t->bos;
    if (p->add_eos > 0 && t->eos >= 0) t->post_after[t->n_after++] = t->eos;
    return NT_OK;
}

static nt_status build_gpt2(struct nt_tokenizer *t, const struct nt_tok_parts *p) {
    const char *pre = p->pre ? p->pre : "default";
    const struct nt_tok_preset *row = nt_tok_preset_find(pre);
    if (!row)
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%s: tokenizer.ggml.pre \"%.60s\" is not supported; give the model as a "
                       "directory with tokenizer.json",
                       p->origin, pre);
    t->byte_level = t->dec.byte_level = true;
    t->ignore_merges = row->ignore_merges;
    if (row->nfc) NT_TRY(nt_tok_add_norm(t, NT_TOK_NORM_UNICODE, UTF8PROC_STABLE | UTF8PROC_COMPOSE, NULL, 0, NULL, 0));
    for (int i = 0; i < NT_TOK_MAX_PRE && row->pattern[i]; i++)
        NT_TRY(nt_tok_add_split(t, row->pattern[i], strlen(row->pattern[i]), NT_TOK_ISOLATED, false, row->name));
    NT_TRY(put_tokens(t, p, false));
    NT_TRY(put_merges(t, p));
    return set_ids(t, p, row->add_bos);
}

static nt_status build_llama(struct nt_tokenizer *t, const struct nt_tok_parts *p) {
    static const char marker[] = "\xE2\x96\x81";
    bool prefix = p->add_space_prefix != 0; /* absent: yes */
    if (prefix) NT_TRY(nt_tok_add_norm(t, NT_TOK_NORM_PREPEND, 0, NULL, 0, marker, 3));
    NT_TRY(nt_tok_add_norm(t, NT_TOK_NORM_REPLACE, 0, " ", 1, marker, 3));
    NT_TRY(put_tokens(t, p, true));
    NT_TRY(score_merges(t, p));
    NT_TRY(set_ids(t, p, true));
    t->byte_fallback = t->fuse_unk = true;
    t->unk_model = t->unk;
    t->dec = (struct nt_tok_decoder){.byte_fallback = true, .marker_blank = true, .strip_left = prefix ? 1 : 0};
    return NT_OK;
}

nt_status nt_tokenizer_from_parts(const struct nt_tok_parts *p, struct nt_tokenizer **out) {
    struct nt_tokenizer *t = NULL;
    NT_TRY(check_parts(p));
    nt_status st = nt_tok_new(p->origin, &t);
    if (st != NT_OK) return st;
    NT_TRY_GOTO(st, free_tok, nt_tok_vocab_init(&t->vocab, p->n_tokens, p->origin));
    const char *model = p->model ? p->model : "(none)";
    if (strcmp(model, "gpt2") == 0) {
        NT_TRY_GOTO(st, free_tok, build_gpt2(t, p));
    } else if (strcmp(model, "llama") == 0) {
        NT_TRY_GOTO(st, free_tok, build_llama(t, p));
    } else {
        st = NT_FAIL(NT_E_UNSUPPORTED, "%s: tokenizer.ggml.model \"%.60s\" is not supported; expected gpt2 or llama",
                     p->origin, model);
        goto free_tok;
    }
    NT_TRY_GOTO(st, free_tok, nt_tok_finish(t));
    *out = t;
    t = NULL;
free_tok:
    nt_tokenizer_free(t);
    return st;
}
