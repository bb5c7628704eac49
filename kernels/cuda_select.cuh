/* Selection and sorting of the best words of a row by one block, in shared memory (words: cuda_logits.cuh).
 *
 * nt_select_kth finds the k-th largest by its digits of 8 bits from the top: count the digit in a histogram, keep the
 * bin that holds rank k, until the bin holds nothing too many. Counting is by integer atomics, so the result does not
 * depend on the order of the threads. Words are read again in each pass, by a function of the source.
 * nt_sort_words: bitonic, descending. Callers: all threads of the block; the structs lie in shared memory. */
#ifndef NT_CUDA_SELECT_CUH
#define NT_CUDA_SELECT_CUH

#include "cuda_logits.cuh"

/* Where words come from: keys of group maxima, or a row of logits. */
struct nt_word_source {
    const uint32_t *keys; /* NULL: row */
    const float *row;
    int32_t count;
};
NT_DEVICE uint64_t nt_word_at(const struct nt_word_source *s, int32_t i) {
    return s->keys ? (uint64_t)s->keys[i] << 32 : nt_logit_word(s->row[i], i);
}

struct nt_select {
    uint32_t bin[256];
    uint32_t digit, above, inside;
};

/* Warp 0: the bin with rank `need`, counted from the top. */
NT_DEVICE void nt_select_bin(struct nt_select *s, uint32_t need) {
    uint32_t sum = 0;
    const int32_t top = 255 - 8 * nt_lane();
    for (int j = 0; j < 8; j++) sum += s->bin[top - j];
    uint32_t upto = sum;
#pragma unroll
    for (int d = 1; d < NT_WARP; d *= 2) {
        const uint32_t other = __shfl_up_sync(NT_ALL_LANES, upto, d);
        if (nt_lane() >= d) upto += other;
    }
    uint32_t above = upto - sum;
    if (above >= need || upto < need) return; /* one lane goes on */
    for (int j = 0; j < 8; j++) {
        const uint32_t inside = s->bin[top - j];
        if (above + inside >= need) {
            s->digit = (uint32_t)(top - j);
            s->above = above;
            s->inside = inside;
            return;
        }
        above += inside;
    }
}

/* A word T such that k words of the source lie in [T, high], or more when equal keys of maxima end the digits. There
 * are at least k words up to high. */
NT_DEVICE uint64_t nt_select_kth(struct nt_select *s, const struct nt_word_source *source, uint64_t high, uint32_t k) {
    uint64_t prefix = 0, mask = 0;
    const int last = source->keys ? 32 : 0;
    for (int shift = 56; shift >= last; shift -= 8) {
        for (uint32_t i = threadIdx.x; i < 256; i += blockDim.x) s->bin[i] = 0;
        __syncthreads();
        for (int32_t i = (int32_t)threadIdx.x; i < source->count; i += (int32_t)blockDim.x) {
            const uint64_t word = nt_word_at(source, i);
            if (word <= high && (word & mask) == prefix) atomicAdd(&s->bin[word >> shift & 255], 1u);
        }
        __syncthreads();
        if (nt_warp() == 0) nt_select_bin(s, k);
        __syncthreads();
        prefix |= (uint64_t)s->digit << shift;
        mask |= (uint64_t)255 << shift;
        k -= s->above;
        if (s->inside == k) break;
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
