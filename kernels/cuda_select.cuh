/* Selection and sorting of the best words of a row by one block, in shared memory (words: cuda_logits.cuh).
 *
 * nt_select_kth finds the word at a rank, or at a sum of masses, by its digits of 8 bits from the top: add the weights of
 * each digit in a histogram, keep the bin where the sum from the top reaches the target. Weights are integers, added by
 * atomics, so the result does not depend on the order of the threads. Words are read again in each pass.
 * nt_sort_words: bitonic, descending. Callers: all threads of the block; the structs lie in shared memory. */
#ifndef NT_CUDA_SELECT_CUH
#define NT_CUDA_SELECT_CUH

#include "cuda_logits.cuh"

/* Where words come from: keys of group maxima, or a row of logits, each times scale. */
struct nt_word_source {
    const uint32_t *keys; /* NULL: row */
    const float *row;
    float scale, best; /* best: of the scaled row, for masses */
    int32_t count;
};
NT_DEVICE uint64_t nt_word_at(const struct nt_word_source *s, int32_t i) {
    return s->keys ? (uint64_t)s->keys[i] << 32 : nt_logit_word(__fmul_rn(s->row[i], s->scale), i);
}

typedef unsigned long long nt_mass; /* what atomicAdd takes; 64 bits */

/* What the words of a bin weigh: uint32_t, their number, or nt_mass. */
template <typename W> struct nt_select {
    W bin[256];
    W above, inside;
    uint32_t digit;
};
NT_DEVICE void nt_add_weight(uint32_t *bin, const struct nt_word_source *source, uint64_t word) {
    atomicAdd(bin, 1u);
}
NT_DEVICE void nt_add_weight(nt_mass *bin, const struct nt_word_source *source, uint64_t word) {
    atomicAdd(bin, (nt_mass)nt_mass_below(nt_word_logit(word), source->best));
}

/* Warp 0: the bin in which the weights, summed from the top, reach `need`; inside is 0 when they never do. */
template <typename W> NT_DEVICE void nt_select_bin(struct nt_select<W> *s, W need) {
    W sum = 0;
    const int32_t top = 255 - 8 * nt_lane();
    for (int j = 0; j < 8; j++) sum += s->bin[top - j];
    W upto = sum;
#pragma unroll
    for (int d = 1; d < NT_WARP; d *= 2) {
        const W other = __shfl_up_sync(NT_ALL_LANES, upto, d);
        if (nt_lane() >= d) upto += other;
    }
    if (nt_lane() == NT_WARP - 1 && upto < need) s->inside = 0;
    W above = upto - sum;
    if (above >= need || upto < need) return; /* at most one lane goes on */
    for (int j = 0; j < 8; j++) {
        const W inside = s->bin[top - j];
        if (above + inside >= need) {
            s->digit = (uint32_t)(top - j);
            s->above = above;
            s->inside = inside;
            return;
        }
        above += inside;
    }
}

/* The largest T such that the words of the source in [max(T, low), high] weigh at least `need`; 0: they never do. By
 * number: a T such that exactly `need` words lie there (with keys of maxima: or more, of equal ones). */
template <typename W>
NT_DEVICE uint64_t nt_select_kth(struct nt_select<W> *s, const struct nt_word_source *source, uint64_t low,
                                 uint64_t high, W need) {
    uint64_t prefix = 0, mask = 0;
    const int last = source->keys ? 32 : 0;
    for (int shift = 56; shift >= last; shift -= 8) {
        for (uint32_t i = threadIdx.x; i < 256; i += blockDim.x) s->bin[i] = 0;
        __syncthreads();
        for (int32_t i = (int32_t)threadIdx.x; i < source->count; i += (int32_t)blockDim.x) {
            const uint64_t word = nt_word_at(source, i);
            if (word >= low && word <= high && (word & mask) == prefix)
                nt_add_weight(&s->bin[word >> shift & 255], source, word);
        }
        __syncthreads();
        if (nt_warp() == 0) nt_select_bin(s, need);
        __syncthreads();
        if (s->inside == 0) break;
        prefix |= (uint64_t)s->digit << shift;
        mask |= (uint64_t)255 << shift;
        need -= s->above;
        if (sizeof(W) == sizeof(uint32_t) && s->inside == need) break; /* the whole bin: lower digits do not matter */
    }
    __syncthreads(); /* the struct may be used again */
    return prefix;
}

/* Appends the words of the lanes that have one; *count may pass the capacity, the rest is dropped. Whole warp. */
NT_DEVICE void nt_append_word(uint64_t *words, int32_t capacity, uint32_t *count, bool have, uint64_t word) {
    const uint32_t lanes = __ballot_sync(NT_ALL_LANES, have);
    if (lanes == 0) return;
    uint32_t base = 0;
    if (nt_lane() == 0) base = atomicAdd(count, (uint32_t)__popc(lanes));
    base = __shfl_sync(NT_ALL_LANES, base, 0);
    const uint32_t at = base + (uint32_t)__popc(lanes & ((1u << nt_lane()) - 1));
    if (have && at < (uint32_t)capacity) words[at] = word;
}

/* All logits (times scale) whose key reaches the threshold, found by the maxima of their groups of 32. Whole block; at
 * most capacity are kept, *count may pass it. */
NT_DEVICE void nt_collect_words(const struct nt_word_source *row, const uint32_t *group, uint32_t threshold,
                                uint64_t *words, int32_t capacity, uint32_t *count) {
    const int32_t n = row->count, n_group = (n + NT_WARP - 1) / NT_WARP;
    for (int32_t g0 = nt_warp() * NT_WARP; g0 < n_group; g0 += (int32_t)blockDim.x) {
        const bool reaches = g0 + nt_lane() < n_group && group[g0 + nt_lane()] >= threshold;
        for (uint32_t left = __ballot_sync(NT_ALL_LANES, reaches); left; left &= left - 1) {
            const int32_t v = (g0 + __ffs((int)left) - 1) * NT_WARP + nt_lane();
            const uint64_t word = v < n ? nt_word_at(row, v) : 0;
            nt_append_word(words, capacity, count, v < n && word >> 32 >= threshold, word);
        }
    }
}

/* The keys of the maxima of 32 neighbours of a chunk: quad q of a thread holds logits 4 (thread + q threads) .. + 3 of
 * it, 8 threads' quads are a group. Leaves them in shared memory; the caller puts a barrier after. */
template <int QUADS> NT_DEVICE void nt_group_maxima(const float4 x[QUADS], uint32_t *group) {
#pragma unroll
    for (int q = 0; q < QUADS; q++) {
        uint32_t key = max(max(nt_logit_key(x[q].x), nt_logit_key(x[q].y)),
                           max(nt_logit_key(x[q].z), nt_logit_key(x[q].w)));
#pragma unroll
        for (int d = 1; d < 8; d *= 2) key = max(key, __shfl_xor_sync(NT_ALL_LANES, key, d));
        if (threadIdx.x % 8 == 0) group[(threadIdx.x + q * blockDim.x) / 8] = key;
    }
}

/* words [size], size a power of two: largest first. */
NT_DEVICE void nt_sort_words(uint64_t *words, int32_t size) {
    for (int32_t run = 2; run <= size; run *= 2) {
        for (int32_t step = run / 2; step > 0; step /= 2) {
            __syncthreads();
            for (int32_t p = (int32_t)threadIdx.x; p < size / 2; p += (int32_t)blockDim.x) {
                const int32_t i = 2 * p - (p & (step - 1)), j = i + step;
                const uint64_t a = words[i], b = words[j];
                if (((i & run) == 0) != (a > b)) {
                    words[i] = b;
                    words[j] = a;
                }
            }
        }
    }
    __syncthreads();
}

/* Fills up to a power of two with words below all others, sorts. The capacity is a power. */
NT_DEVICE void nt_sort_list(uint64_t *words, int32_t count) {
    int32_t size = 2;
    while (size < count) size *= 2;
    for (int32_t i = count + (int32_t)threadIdx.x; i < size; i += (int32_t)blockDim.x) words[i] = 0;
    nt_sort_words(words, size);
}

#endif
