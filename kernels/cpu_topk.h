/* Selecting the k largest logits of a row without a heap: a threshold, the candidates at or above it, a radix sort.
 *
 * Included by the tuned bodies and compiled with their instruction set (the counting loops vectorize). The threshold is
 * the k-th largest of the maxima of disjoint groups of 16 logits, so at least k logits reach it and few more do. Keys
 * are the logits as unsigned integers of the same order, -0 as +0; rows with a NaN take the heap of cpu_logits.h
 * instead, as do rows that do not fit into the thread's scratch. Candidates are collected by ascending index and the
 * sort is stable: equal logits stay in the order of their indexes. */
#ifndef NT_CPU_TOPK_H
#define NT_CPU_TOPK_H

#include "cpu_bodies.h"
#include "cpu_logits.h"
#include "cpu_math.h"

enum {
    NT_TOPK_SELECT_K = 48, /* below, the heap is faster */
    NT_TOPK_BLOCK = 256,   /* logits whose 16 vertical groups give 16 maxima */
    NT_TOPK_MAXIMA = 32768,
    NT_TOPK_CAND = 65536,
};

struct nt_topk_scratch {
    float maxima[NT_TOPK_MAXIMA];
    uint32_t key[NT_TOPK_CAND], key_to[NT_TOPK_CAND];
    int32_t index[NT_TOPK_CAND];
};
_Static_assert(sizeof(struct nt_topk_scratch) <= NT_CPU_SCRATCH_BYTES, "one row's candidates fit into the scratch");

static inline uint32_t nt_topk_key(float x) {
    const uint32_t bits = nt_bits_of_float(x + 0.0f); /* -0 + 0 is +0 */
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
static inline float nt_topk_unkey(uint32_t key) {
    return nt_float_of_bits(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

/* The k-th largest of n keys: its bits from the top, each decided by counting. */
static inline uint32_t nt_topk_kth(const uint32_t *key, int32_t n, int32_t k) {
    uint32_t kth = 0;
    for (uint32_t bit = 0x80000000u; bit; bit >>= 1) {
        int32_t count = 0;
        for (int32_t i = 0; i < n; i++) count += key[i] >= (kth | bit);
        if (count >= k) kth |= bit;
    }
    return kth;
}

/* Keeps the k best of n candidates, in the order of their indexes. */
static inline void nt_topk_keep(struct nt_topk_scratch *s, int32_t n, int32_t k) {
    const uint32_t kth = nt_topk_kth(s->key, n, k);
    int32_t above = 0, kept = 0;
    for (int32_t i = 0; i < n; i++) above += s->key[i] > kth;
    for (int32_t i = 0, equal = k - above; i < n; i++) {
        if (s->key[i] < kth || (s->key[i] == kth && equal-- <= 0)) continue;
        s->key[kept] = s->key[i];
        s->index[kept++] = s->index[i];
    }
}

/* One stable pass by the 8 key bits at shift, largest first. */
static inline void nt_topk_radix_pass(const uint32_t *key, const int32_t *index, uint32_t *key_to, int32_t *index_to,
                                      int32_t n, int shift) {
    int32_t place[256] = {0};
    for (int32_t i = 0; i < n; i++) place[key[i] >> shift & 255]++;
    for (int32_t d = 255, sum = 0; d >= 0; d--) {
        const int32_t count = place[d];
        place[d] = sum;
        sum += count;
    }
    for (int32_t i = 0; i < n; i++) {
        const int32_t to = place[key[i] >> shift & 255]++;
        key_to[to] = key[i];
        index_to[to] = index[i];
    }
}

/* The k best of n candidates, best first; the output row serves as the sort's other buffer of indexes. */
static inline void nt_topk_finish(struct nt_topk_scratch *s, int32_t n, const float *x, float *value, int32_t *index,
                                  int32_t k) {
    if (n > k) nt_topk_keep(s, n, k);
    for (int shift = 0; shift < 32; shift += 16) {
        nt_topk_radix_pass(s->key, s->index, s->key_to, index, k, shift);
        nt_topk_radix_pass(s->key_to, index, s->key, s->index, k, shift + 8);
    }
    for (int32_t i = 0; i < k; i++) {
        index[i] = s->index[i];
        value[i] = x[s->index[i]];
    }
}

/* What an instruction set brings. */
struct nt_topk_body {
    void (*heap)(const float *x, int32_t n, float *value, int32_t *index, int32_t k);
    int32_t (*maxima)(const float *x, int32_t n, float *maxima); /* of the row's groups; -1: a NaN, or too many */
    int32_t (*collect)(const float *x, int32_t n, float threshold, struct nt_topk_scratch *s); /* -1: too many */
};

/* False: this row is one for the heap. */
static inline bool nt_topk_select(const struct nt_topk_body *b, const float *x, int32_t n, float *value, int32_t *index,
                                  int32_t k, struct nt_topk_scratch *s) {
    const int32_t n_max = b->maxima(x, n, s->maxima);
    if (n_max < 0 || k > NT_TOPK_CAND) return false;
    float threshold = -INFINITY;
    if (k < n_max) {
        for (int32_t i = 0; i < n_max; i++) s->key[i] = nt_topk_key(s->maxima[i]);
        threshold = nt_topk_unkey(nt_topk_kth(s->key, n_max, k));
    }
    const int32_t count = b->collect(x, n, threshold, s);
    if (count < 0) return false;
    nt_topk_finish(s, count, x, value, index, k);
    return true;
}

struct nt_topk_run {
    const struct nt_logit_topk_args *args;
    const struct nt_backend *be;
    const struct nt_topk_body *body;
};

static inline void nt_topk_thread(void *arg, int thread, int n_threads) {
    const struct nt_topk_run *run = arg;
    const struct nt_logit_topk_args *a = run->args;
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const float *x = a->logits + r * a->ld;
        float *value = a->value + r * a->k;
        int32_t *index = a->index + r * a->k;
        void *scratch = nt_cpu_scratch(run->be, thread);
        if (a->k < NT_TOPK_SELECT_K || !nt_topk_select(run->body, x, a->n_vocab, value, index, a->k, scratch))
            run->body->heap(x, a->n_vocab, value, index, a->k);
    }
}

#endif
