/* The choice of tokens from the best pairs of every rank, with top-k, top-p and min-p. Spec: draw_pairs_cuda.h.
 *
 * A block per row. Lists are merged by counting: a pair's place is its place in its own list plus, by binary search,
 * the number of better ones in each other list; places below k are written to shared memory. One thread then walks the
 * masses (at most 256 additions, in order, so the sums have one order), and all draw among what it kept.
 * Layout: draw_pairs_cuda.h; in shared memory k words (cuda_logits.cuh) and their masses.
 * Roofline: latency. 8 bytes per pair: 8 ranks x 256 pairs are 16 KiB per row, read about twice through L1; some 50
 * comparisons and 12 FLOP per pair. Expected 10-15 us for 64 rows on one wave of blocks, below 2 % of any bandwidth:
 * the walk of one thread and the searches are chains of dependent steps, and a step of a model that needs several GPUs
 * takes a thousand times as long. */
#include "cuda_logits.cuh"
#include "draw_pairs_cuda.h"
#include "ptx.cuh"

struct row_lists {
    const struct nt_draw_pairs_args *a;
    int32_t row;
};

NT_DEVICE const float *list_of(const struct row_lists *l, int32_t r) {
    return l->a->gathered + r * l->a->stride + (int64_t)l->row * l->a->have[r];
}
NT_DEVICE uint64_t word_at(const struct row_lists *l, int32_t r, int32_t i) {
    const float *list = list_of(l, r);
    const int32_t index = __float_as_int(list[(int64_t)l->a->n_row * l->a->have[r] + i]);
    return nt_logit_word(list[i], l->a->first[r] + index);
}
/* Behind the lists: 0 the draw's value, 1 its index, 2 the maximum, 3 the sum. */
NT_DEVICE float tail_of(const struct row_lists *l, int32_t r, int32_t what) {
    const struct nt_draw_pairs_args *a = l->a;
    return a->gathered[r * a->stride + (int64_t)a->n_row * (2 * a->have[r] + what) + l->row];
}

/* How many of list r are better than the word. */
NT_DEVICE int32_t better_in(const struct row_lists *l, int32_t r, uint64_t word) {
    int32_t low = 0, high = l->a->have[r];
    while (low < high) {
        const int32_t mid = (low + high) / 2;
        if (word_at(l, r, mid) > word)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Sum of exp(logit - best) over all shards; NaN where one's numbers are not finite. */
NT_DEVICE float mass_of_shards(const struct row_lists *l, float best) {
    float sum = 0;
    for (int32_t r = 0; r < l->a->size; r++) {
        if (l->a->have[r] == 0) continue;
        const float max = tail_of(l, r, 2), part = tail_of(l, r, 3);
        if (max == -NT_INF) continue; /* all masked */
        if (!nt_dev_finite(max) || !nt_dev_finite(part)) return __uint_as_float(0x7fc00000u);
        sum = fmaf(part, nt_exp_below(max, best), sum);
    }
    return sum;
}

/* The best of the pairs, or of the draws. */
NT_DEVICE uint64_t best_of_ranks(const struct row_lists *l, bool drawn) {
    uint64_t best = 0;
    for (int32_t r = 0; r < l->a->size; r++) {
        if (l->a->have[r] == 0) continue;
        const int32_t id = l->a->first[r] + __float_as_int(tail_of(l, r, 1));
        const uint64_t word = drawn ? nt_logit_word(tail_of(l, r, 0), id) : word_at(l, r, 0);
        best = max(best, word);
    }
    return best;
}

/* How many of the n merged words stay; 0: undecided. total: mass of all shards. */
NT_DEVICE int32_t keep_count(const struct nt_draw_pairs_args *a, int32_t row, const uint64_t *word, const float *mass,
                             int32_t n, float total) {
    const int32_t top_k = a->top_k[row];
    const float top_p = a->top_p[row], min_p = a->min_p[row];
    int32_t keep = n;
    bool decided = a->all;
    if (top_k > n && !a->all) return 0;
    if (top_k > 0) {
        keep = min(top_k, n);
        decided = true;
        total = 0;
        for (int32_t i = 0; i < keep; i++) total = __fadd_rn(total, mass[i]);
    }
    if (top_p < 1) {
        const float need = __fmul_rn(top_p, total);
        float sum = 0;
        for (int32_t i = 0; i < keep; i++) {
            sum = __fadd_rn(sum, mass[i]);
            if (sum < need) continue;
            keep = i + 1;
            decided = true;
        }
    }
    if (min_p > 0) {
        const float least = __fadd_rn(nt_word_logit(word[0]), nt_dev_log_pos(min_p));
        for (int32_t i = 1; i < keep; i++) {
            if (nt_word_logit(word[i]) >= least) continue;
            keep = i;
            decided = true;
        }
    }
    while (keep > 1 && nt_word_logit(word[keep - 1]) == -NT_INF) keep--;
    return decided ? keep : 0;
}

extern "C" __global__ void __launch_bounds__(NT_DRAW_THREADS) nt_draw_pairs(const struct nt_draw_pairs_args a) {
    nt_launch_begin();
    __shared__ uint64_t word[NT_DRAW_K];
    __shared__ float mass[NT_DRAW_K];
    __shared__ struct nt_best best_of_warp[NT_MAX_WARPS];
    __shared__ int32_t n_kept;
    static_assert(NT_DRAW_THREADS >= NT_DRAW_K, "a thread draws for one pair");
    const struct row_lists l = {&a, (int32_t)blockIdx.x};
    const int32_t row = l.row, kind = a.kind[row], at = (int32_t)threadIdx.x;
    const uint64_t top = best_of_ranks(&l, false);
    const float best = nt_word_logit(top), total = mass_of_shards(&l, best);
    if (!nt_dev_finite(best) || !nt_dev_finite(total) || kind != NT_DRAW_TRUNCATED) { /* the same in all threads */
        const bool failed = !nt_dev_finite(best) || !nt_dev_finite(total);
        if (at == 0) a.token[row] = failed ? -1 : nt_word_index(kind == NT_DRAW_PLAIN ? best_of_ranks(&l, true) : top);
        return;
    }
    int32_t n = 0;
    for (int32_t r = 0; r < a.size; r++) n += a.have[r];
    n = min(n, a.k);
    for (int32_t r = 0; r < a.size; r++) {
        for (int32_t i = at; i < a.have[r]; i += NT_DRAW_THREADS) {
            const uint64_t mine = word_at(&l, r, i);
            int32_t place = i;
            for (int32_t p = 0; p < a.size; p++)
                if (p != r) place += better_in(&l, p, mine);
            if (place >= n) continue;
            word[place] = mine;
            mass[place] = nt_exp_below(nt_word_logit(mine), best);
        }
    }
    __syncthreads();
    if (at == 0) n_kept = keep_count(&a, row, word, mass, n, total);
    __syncthreads();
    struct nt_best drawn = nt_best_none();
    if (at < n_kept) {
        const int32_t id = nt_word_index(word[at]);
        const uint4 w = nt_dev_philox(a.seed[row], a.stream[row], (uint64_t)(uint32_t)id >> 2);
        const uint32_t of[4] = {w.x, w.y, w.z, w.w};
        drawn.value = __fsub_rn(nt_word_logit(word[at]), nt_dev_log_neg_log(of[id & 3]));
        drawn.index = id;
    }
    drawn = nt_block_best(drawn, best_of_warp);
    if (at == 0) a.token[row] = n_kept == 0 ? NT_DRAW_UNDECIDED : drawn.index;
}
