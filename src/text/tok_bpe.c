/* Byte pair encoding of one word: the adjacent pair of lowest rank is joined, leftmost first, until none is left.
 * Short words scan an array; long ones use a heap with lazy invalidation (an entry counts only while the pair at its
 * position still makes the same token), so that a document without word boundaries costs n log n. */
#include "tok_internal.h"

#include <stdlib.h>
#include <string.h>

enum { SHORT_WORD = 48, NO_RANK = INT32_MAX };

nt_status nt_tok_merges_init(struct nt_tok_merges *m, int64_t n, const char *origin) {
    if (n > NT_TOK_MAX_MERGES)
        return NT_FAIL(NT_E_DATA, "%s: %lld merges; at most %d are accepted", origin, (long long)n, NT_TOK_MAX_MERGES);
    uint64_t slots = 64;
    while (slots < (uint64_t)n * 2) slots *= 2;
    m->slot = malloc(slots * sizeof *m->slot);
    if (!m->slot) return NT_FAIL(NT_E_NOMEM, "%s: no memory for %lld merges", origin, (long long)n);
    for (uint64_t i = 0; i < slots; i++) m->slot[i] = (struct nt_tok_pair){.key = UINT64_MAX};
    m->mask = slots - 1;
    m->n = 0;
    return NT_OK;
}

static struct nt_tok_pair *pair_slot(const struct nt_tok_merges *m, int32_t left, int32_t right) {
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t at = (key * 0x9E3779B97F4A7C15u >> 24) & m->mask;
    while (m->slot[at].key != key && m->slot[at].key != UINT64_MAX) at = (at + 1) & m->mask;
    return &m->slot[at];
}

void nt_tok_merges_put(struct nt_tok_merges *m, int32_t left, int32_t right, int32_t rank, int32_t id,
                       bool keep_first) {
    struct nt_tok_pair *p = pair_slot(m, left, right);
    if (p->key == UINT64_MAX)
        m->n++;
    else if (keep_first)
        return;
    *p = (struct nt_tok_pair){.key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right, .rank = rank, .id = id};
}

void nt_tok_merges_release(struct nt_tok_merges *m) {
    free(m->slot);
    memset(m, 0, sizeof *m);
}

/* Rank and result of joining left and right; NO_RANK when no rule does. */
static int32_t pair_rank(const struct nt_tok_merges *m, int32_t left, int32_t right, int32_t *id) {
    const struct nt_tok_pair *p = pair_slot(m, left, right);
    if (p->key == UINT64_MAX) return NO_RANK;
    *id = p->id;
    return p->rank;
}

static void merge_short(const struct nt_tok_merges *m, struct nt_tok_sym *syms, int64_t n, struct nt_ids *ids) {
    int32_t id[SHORT_WORD], rank[SHORT_WORD], joined[SHORT_WORD] = {0};
    for (int64_t i = 0; i < n; i++) id[i] = syms[i].id;
    for (int64_t i = 0; i + 1 < n; i++) rank[i] = pair_rank(m, id[i], id[i + 1], &joined[i]);
    while (n > 1) {
        int64_t best = 0;
        for (int64_t i = 1; i + 1 < n; i++) {
            if (rank[i] < rank[best]) best = i;
        }
        if (rank[best] == NO_RANK) break;
        id[best] = joined[best];
        size_t tail = (size_t)(n - best - 2) * sizeof *id;
        memmove(id + best + 1, id + best + 2, tail);
        memmove(rank + best, rank + best + 1, tail);
        memmove(joined + best, joined + best + 1, tail);
        n--;
        if (best > 0) rank[best - 1] = pair_rank(m, id[best - 1], id[best], &joined[best - 1]);
        if (best + 1 < n) rank[best] = pair_rank(m, id[best], id[best + 1], &joined[best]);
    }
    nt_ids_append(ids, id, n);
}

static bool before(struct nt_tok_heap a, struct nt_tok_heap b) {
    return a.rank != b.rank ? a.rank < b.rank : a.pos < b.pos;
}

static void heap_push(struct nt_tok_scratch *s, struct nt_tok_heap e) {
    if (s->n_heap == s->cap_heap) nt_tok_grow((void **)&s->heap, &s->cap_heap, s->n_heap + 1, sizeof *s->heap);
    int64_t i = s->n_heap++;
    while (i > 0 && before(e, s->heap[(i - 1) / 2])) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = e;
}

static struct nt_tok_heap heap_pop(struct nt_tok_scratch *s) {
    struct nt_tok_heap top = s->heap[0], e = s->heap[--s->n_heap];
    int64_t i = 0;
    for (;;) {
        int64_t c = 2 * i + 1;
        if (c >= s->n_heap) break;
        if (c + 1 < s->n_heap && before(s->heap[c + 1], s->heap[c])) c++;
        if (!before(s->heap[c], e)) break;
        s->heap[i] = s->heap[c];
        i = c;
    }
    if (s->n_heap > 0) s->heap[i] = e;
    return top;
}

static void offer(const struct nt_tok_merges *m, struct nt_tok_scratch *s, int32_t left) {
    int32_t right = s->syms[left].next, id = 0;
    if (right < 0) return;
    int32_t rank = pair_rank(m, s->syms[left].id, s->syms[right].id, &id);
    if (rank != NO_RANK) heap_push(s, (struct nt_tok_heap){.rank = rank, .pos = left, .id = id});
}

static void merge_long(const struct nt_tok_merges *m, struct nt_tok_scratch *s, int64_t n, struct nt_ids *ids) {
    struct nt_tok_sym *y = s->syms;
    for (int64_t i = 0; i < n; i++) {
        y[i].prev = (int32_t)i - 1;
        y[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    s->n_heap = 0;
    for (int32_t i = 0; i < (int32_t)n; i++) offer(m, s, i);
    while (s->n_heap > 0) {
        struct nt_tok_heap top = heap_pop(s);
        int32_t left = top.pos, right = y[left].next, id = -1;
        if (y[left].id < 0 || right < 0) continue; /* swallowed, or at the end now */
        if (pair_rank(m, y[left].id, y[right].id, &id) == NO_RANK || id != top.id) continue;
        y[left].id = id;
        y[left].next = y[right].next;
        y[right].id = -1;
        if (y[left].next >= 0) y[y[left].next].prev = left;
        if (y[left].prev >= 0) offer(m, s, y[left].prev);
        offer(m, s, left);
    }
    for (int32_t i = 0; i >= 0; i = y[i].next) nt_ids_push(ids, y[i].id);
}

static void put_sym(struct nt_tok_scratch *s, int64_t *n, int32_t id) {
    if (*n == s->cap_sym) nt_tok_grow((void **)&s->syms, &s->cap_sym, *n + 1, sizeof *s->syms);
    s->syms[(*n)++].id = id;
}

static int64_t byte_syms(const struct nt_tokenizer *t, struct nt_tok_scratch *s, const char *word, size_t len) {
    int64_t n = 0;
    bool unk = false; /* the symbol before is an unknown one */
    for (size_t i = 0; i < len; i++) {
        int32_t id = t->byte_id[(unsigned char)word[i]];
        if (id < 0 && (t->unk_model < 0 || (unk && t->fuse_unk))) continue;
        unk = id < 0;
        put_sym(s, &n, unk ? t->unk_model : id);
    }
    return n;
}

static int32_t char_token(const struct nt_tokenizer *t, const char *text, size_t len) {
    uint32_t cp;
    size_t used;
    if (len < 4 && nt_utf8_look(text, len, &used, &cp) == NT_UTF8_OK) return t->char_id[cp];
    int32_t id = nt_tok_vocab_find(&t->vocab, text, len);
    return id >= 0 && (t->vocab.entry[id].attr & NT_TOK_ATTR_MODEL) ? id : -1;
}

/* Characters; those without a token become their bytes' tokens or the unknown token. An unknown token waits (to be
 * fused with the next) until a known character comes, and byte tokens do not make it come earlier: the reference's
 * order. */
static int64_t char_syms(const struct nt_tokenizer *t, struct nt_tok_scratch *s, const char *word, size_t len) {
    int64_t n = 0;
    bool waiting = false;
    for (size_t i = 0, step; i < len; i += step) {
        step = nt_utf8_len((unsigned char)word[i]);
        int32_t id = char_token(t, word + i, step);
        if (id >= 0) {
            if (waiting) put_sym(s, &n, t->unk_model);
            waiting = false;
            put_sym(s, &n, id);
            continue;
        }
        bool bytes = t->byte_fallback;
        for (size_t k = 0; bytes && k < step; k++) bytes = t->byte_id[(unsigned char)word[i + k]] >= 0;
        if (bytes) {
            for (size_t k = 0; k < step; k++) put_sym(s, &n, t->byte_id[(unsigned char)word[i + k]]);
        } else if (t->unk_model >= 0) {
            if (waiting && !t->fuse_unk) put_sym(s, &n, t->unk_model);
            waiting = true;
        }
    }
    if (waiting) put_sym(s, &n, t->unk_model);
    return n;
}

static void encode_word(const struct nt_tokenizer *t, struct nt_tok_scratch *s, const char *word, size_t len,
                        struct nt_ids *ids) {
    if (t->ignore_merges) {
        int32_t id =
            t->byte_level ? nt_tok_vocab_find_piece(&t->vocab, word, len) : nt_tok_vocab_find(&t->vocab, word, len);
        if (id >= 0 && (t->vocab.entry[id].attr & NT_TOK_ATTR_MODEL)) {
            nt_ids_push(ids, id);
            return;
        }
    }
    int64_t n = t->byte_level ? byte_syms(t, s, word, len) : char_syms(t, s, word, len);
    if (n == 0) return;
    if (n <= SHORT_WORD)
        merge_short(&t->merges, s->syms, n, ids);
    else
        merge_long(&t->merges, s, n, ids);
}

void nt_tok_bpe(const struct nt_tokenizer *t, struct nt_tok_scratch *s, const char *word, size_t len,
                struct nt_ids *ids) {
    if (len > NT_TOK_CACHE_BYTES) {
        encode_word(t, s, word, len, ids);
        return;
    }
    struct nt_tok_word *w = &s->cache[nt_xxh64(word, len, 0) & (NT_TOK_CACHE - 1)];
    if (w->len == len && memcmp(w->bytes, word, len) == 0) {
        nt_ids_append(ids, w->id, w->n_id);
        return;
    }
    int64_t begin = ids->len;
    encode_word(t, s, word, len, ids);
    int64_t n = ids->len - begin;
    if (n > NT_TOK_CACHE_IDS) return;
    w->len = (uint8_t)len;
    w->n_id = (uint8_t)n;
    memcpy(w->bytes, word, len);
    if (n > 0) memcpy(w->id, ids->data + begin, (size_t)n * sizeof *w->id);
}
