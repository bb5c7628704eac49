/* Added tokens: a trie over bytes, searched for the leftmost-longest match, with the reference's word and space rules.
 */
#include "tok_internal.h"

#include <stdlib.h>
#include <string.h>

static uint32_t edge_slot(const struct nt_tok_trie *t, uint64_t key) {
    uint32_t at = (uint32_t)(key * 0x9E3779B97F4A7C15u >> 32) & t->mask;
    while (t->key[at] && t->key[at] != key) at = (at + 1) & t->mask;
    return at;
}

static nt_status grow_edges(struct nt_tok_trie *t) {
    struct nt_tok_trie old = *t;
    uint32_t slots = old.key ? (old.mask + 1) * 2 : 256;
    t->key = calloc(slots, sizeof *t->key);
    t->child = calloc(slots, sizeof *t->child);
    if (!t->key || !t->child) {
        free(t->key);
        free(t->child);
        *t = old;
        return NT_FAIL(NT_E_NOMEM, "no memory for the trie of added tokens");
    }
    t->mask = slots - 1;
    for (uint32_t i = 0; old.key && i <= old.mask; i++) {
        if (!old.key[i]) continue;
        uint32_t at = edge_slot(t, old.key[i]);
        t->key[at] = old.key[i];
        t->child[at] = old.child[i];
    }
    free(old.key);
    free(old.child);
    return NT_OK;
}

static nt_status new_node(struct nt_tok_trie *t, int32_t *node) {
    if (t->n_node == t->cap_node) {
        int32_t cap = t->cap_node ? t->cap_node * 2 : 64;
        int32_t *accept = cap < (1 << 28) ? realloc(t->accept, (size_t)cap * sizeof *accept) : NULL;
        if (!accept) return NT_FAIL(NT_E_NOMEM, "no memory for the trie of added tokens");
        t->accept = accept;
        t->cap_node = cap;
    }
    t->accept[t->n_node] = -1;
    *node = t->n_node++;
    return NT_OK;
}

nt_status nt_tok_trie_add(struct nt_tok_trie *t, const char *text, size_t len, int32_t added) {
    if (len == 0) return NT_OK; /* the reference ignores empty contents */
    int32_t node = 0;
    if (t->n_node == 0) NT_TRY(new_node(t, &node));
    for (size_t i = 0; i < len; i++) {
        if (!t->key || (uint32_t)t->n_edge * 2 >= t->mask) NT_TRY(grow_edges(t));
        uint64_t key = ((uint64_t)node << 8 | (unsigned char)text[i]) + 1;
        uint32_t at = edge_slot(t, key);
        if (!t->key[at]) {
            int32_t child;
            NT_TRY(new_node(t, &child));
            t->key[at] = key;
            t->child[at] = child;
            t->n_edge++;
        }
        node = t->child[at];
    }
    if (t->accept[node] < 0) t->accept[node] = added;
    t->first[(unsigned char)text[0]] = true;
    return NT_OK;
}

void nt_tok_trie_release(struct nt_tok_trie *t) {
    free(t->key);
    free(t->child);
    free(t->accept);
    memset(t, 0, sizeof *t);
}

static bool allowed(const struct nt_tok_added *a, enum nt_tok_trust trust) {
    if (trust == NT_TOK_TRUST_ALL) return true;
    return !a->special && (trust == NT_TOK_TRUST_PLAIN || !a->markup);
}

/* Longest token at text[start], or -1. */
static int32_t longest(const struct nt_tok_trie *t, const char *text, size_t len, size_t start, size_t *end) {
    int32_t node = 0, found = -1;
    for (size_t i = start; i < len; i++) {
        uint64_t key = ((uint64_t)node << 8 | (unsigned char)text[i]) + 1;
        uint32_t at = edge_slot(t, key);
        if (!t->key[at]) break;
        node = t->child[at];
        if (t->accept[node] >= 0) {
            found = t->accept[node];
            *end = i + 1;
        }
    }
    return found;
}

static bool word_before(const char *text, size_t at) {
    if (at == 0) return false;
    size_t p = at - 1;
    while (p > 0 && ((unsigned char)text[p] & 0xC0) == 0x80) p--;
    size_t n;
    uint32_t cp;
    return nt_utf8_look(text + p, at - p, &n, &cp) == NT_UTF8_OK && nt_cp_is_word(cp);
}

static bool word_after(const char *text, size_t len, size_t at) {
    size_t n;
    uint32_t cp;
    return at < len && nt_utf8_look(text + at, len - at, &n, &cp) == NT_UTF8_OK && nt_cp_is_word(cp);
}

static size_t spaces_before(const char *text, size_t at, size_t floor) {
    while (at > floor) {
        size_t p = at - 1, n;
        while (p > floor && ((unsigned char)text[p] & 0xC0) == 0x80) p--;
        uint32_t cp;
        if (nt_utf8_look(text + p, at - p, &n, &cp) != NT_UTF8_OK || !nt_cp_is_space(cp)) break;
        at = p;
    }
    return at;
}

static size_t spaces_after(const char *text, size_t len, size_t at) {
    size_t n;
    uint32_t cp;
    while (at < len && nt_utf8_look(text + at, len - at, &n, &cp) == NT_UTF8_OK && nt_cp_is_space(cp)) at += n;
    return at;
}

/* A match of mixed trust counts as its least trusted part. Zones are few: a chat has one per message part. */
static enum nt_tok_trust trust_of(const struct nt_tok_zone *zones, int64_t n, size_t start, size_t end) {
    enum nt_tok_trust trust = NT_TOK_TRUST_ALL;
    int64_t lo = 0, hi = n - 1; /* first zone with end > start */
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        if (zones[mid].end > start)
            hi = mid;
        else
            lo = mid + 1;
    }
    for (int64_t i = lo; i < n; i++) {
        if (zones[i].trust > trust) trust = zones[i].trust;
        if (zones[i].end >= end) break;
    }
    return trust;
}

bool nt_tok_trie_next(const struct nt_tok_trie *t, const struct nt_tok_added *added, const char *text, size_t len,
                      size_t floor, size_t *pos, const struct nt_tok_zone *zones, int64_t n_zone,
                      struct nt_tok_match *m) {
    if (t->n_node == 0) return false;
    for (size_t i = *pos; i < len;) {
        while (i < len && !t->first[(unsigned char)text[i]]) i++;
        if (i == len) break;
        size_t end = 0;
        int32_t found = longest(t, text, len, i, &end);
        if (found < 0) {
            i++;
            continue;
        }
        size_t start = i;
        const struct nt_tok_added *a = &added[found];
        i = end; /* a match that the rules below refuse is passed over as a whole, as in the reference */
        if (!allowed(a, trust_of(zones, n_zone, start, end))) continue;
        if (a->single_word && (word_before(text, start) || word_after(text, len, end))) continue;
        if (a->lstrip) start = spaces_before(text, start, floor);
        if (a->rstrip) end = spaces_after(text, len, end);
        *m = (struct nt_tok_match){.start = start, .end = end, .added = found};
        *pos = i;
        return true;
    }
    *pos = len;
    return false;
}
