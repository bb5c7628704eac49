/* One token per row: temperature, top-k, top-p, min-p and the Gumbel draw, without a sort of the row. Spec: ops.h.
 *
 * nt_sample_chunks reads the logits once, 4096 a block: the chunk's best; for truncated rows the maxima of each 32
 * neighbours and, with top-p alone, the integer mass of the chunk; for the others the best draw, as logit_gumbel.
 * nt_sample_pick, a block per row, joins these. Truncated rows: the maxima give a threshold that top_k (or about 768)
 * logits reach; those candidates, at most 4096, are sorted in shared memory, their masses summed from the best down,
 * and the draw is among the kept. Rows whose kept set is larger find the exact lowest word by radix passes over the row
 * (integer masses by shared atomics) and draw in a last pass.
 * Every sum is of integers, so the token is the CPU's, bit for bit, and depends on nothing but its row.
 * Layout: logits [n_row, ld >= n_vocab] f32; rules and index [n_row]; maxima and parts in the workspace.
 * Roofline: 4 bytes per logit once, a comparison each (~20 FLOP where masses are summed): expected 75-80 % of copy
 * bandwidth for truncated and greedy rows, about half for plain draws (Philox and two logarithms per logit, ~80).
 * nt_sample_pick: 128 bytes per candidate group, a sort of ~1000 words: ~6-10 us,
 * all rows at once; a wide kept set costs up to 17 passes over its row from L2 by one multiprocessor. */
#include "sample_cuda.h"
#include "cuda_select.cuh"
#include "ptx.cuh"

static_assert(NT_SAMPLE_BLOCK == NT_LOGIT_CHUNK, "a chunk's mass is a block's mass of the specification");

struct rules {
    float inv_temp, top_p, min_p;
    int32_t top_k;
    bool greedy, limited, truncated;
};
NT_DEVICE struct rules rules_of(const struct nt_logit_sample_args *a, int64_t r) {
    struct rules u;
    u.inv_temp = a->inv_temp[r];
    u.top_p = a->top_p[r];
    u.min_p = a->min_p[r];
    u.top_k = a->top_k[r];
    u.greedy = u.inv_temp == 0.0f;
    if (u.greedy) u.inv_temp = 1.0f;
    u.limited = u.top_k > 0 && u.top_k < a->n_vocab;
    u.truncated = !u.greedy && (u.limited || u.top_p < 1.0f || u.min_p > 0.0f);
    return u;
}

/* The better of `best` and the draw of logit v with value y. */
NT_DEVICE void offer(struct nt_best *best, float y, int32_t v, uint32_t word) {
    const float sum = __fsub_rn(y, nt_dev_log_neg_log(word));
    if (!nt_dev_better(sum, v, best->value, best->index)) return;
    best->value = sum;
    best->index = v;
}

extern "C" __global__ void __launch_bounds__(NT_LOGIT_THREADS) nt_sample_chunks(const struct nt_logit_sample_cuda a) {
    nt_launch_begin();
    __shared__ struct nt_best best_of_warp[NT_MAX_WARPS], drawn_of_warp[NT_MAX_WARPS];
    __shared__ uint64_t mass_of_warp[NT_MAX_WARPS];
    __shared__ uint32_t group[NT_TOPK_CHUNK_GROUPS];
    const int64_t r = blockIdx.y, part_at = r * a.n_chunk + blockIdx.x;
    const struct rules u = rules_of(&a.op, r);
    const float *row = a.op.logits + r * a.op.ld;
    const int32_t begin = (int32_t)blockIdx.x * NT_LOGIT_CHUNK, n = a.op.n_vocab;
    float4 y[NT_LOGIT_QUADS];
    struct nt_best best = nt_best_none(), drawn = best;
    uint64_t mass = 0;
#pragma unroll
    for (int q = 0; q < NT_LOGIT_QUADS; q++) {
        const float4 x = nt_load_logits4(row, begin + 4 * ((int32_t)threadIdx.x + q * NT_LOGIT_THREADS), n);
        y[q] = make_float4(__fmul_rn(x.x, u.inv_temp), __fmul_rn(x.y, u.inv_temp), __fmul_rn(x.z, u.inv_temp),
                           __fmul_rn(x.w, u.inv_temp));
    }
#pragma unroll
    for (int q = 0; q < NT_LOGIT_QUADS; q++) {
        const float v[4] = {y[q].x, y[q].y, y[q].z, y[q].w};
        const int32_t v0 = begin + 4 * ((int32_t)threadIdx.x + q * NT_LOGIT_THREADS);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (v0 + i >= n || !nt_dev_better(v[i], v0 + i, best.value, best.index)) continue;
            best.value = v[i];
            best.index = v0 + i;
        }
    }
    best = nt_block_best(best, best_of_warp);
    if (u.truncated) {
        nt_group_maxima<NT_LOGIT_QUADS>(y, group);
        __syncthreads();
        if (threadIdx.x < NT_TOPK_CHUNK_GROUPS) a.group[part_at * NT_TOPK_CHUNK_GROUPS + threadIdx.x] = group[threadIdx.x];
        if (!u.limited && u.top_p < 1.0f) {
#pragma unroll
            for (int q = 0; q < NT_LOGIT_QUADS; q++)
                mass += nt_mass_below(y[q].x, best.value) + nt_mass_below(y[q].y, best.value) +
                        nt_mass_below(y[q].z, best.value) + nt_mass_below(y[q].w, best.value);
            mass = nt_block_sum_u64(mass, mass_of_warp);
        }
    } else if (!u.greedy) {
        const uint64_t seed = a.op.seed[r], stream = a.op.stream[r];
#pragma unroll
        for (int q = 0; q < NT_LOGIT_QUADS; q++) {
            const int32_t v0 = begin + 4 * ((int32_t)threadIdx.x + q * NT_LOGIT_THREADS);
            if (v0 >= n) continue;
            const uint4 w = nt_dev_philox(seed, stream, (uint64_t)v0 >> 2);
            offer(&drawn, y[q].x, v0, w.x);
            if (v0 + 1 < n) offer(&drawn, y[q].y, v0 + 1, w.y);
            if (v0 + 2 < n) offer(&drawn, y[q].z, v0 + 2, w.z);
            if (v0 + 3 < n) offer(&drawn, y[q].w, v0 + 3, w.w);
        }
        drawn = nt_block_best(drawn, drawn_of_warp);
    }
    if (threadIdx.x == 0) {
        const struct nt_sample_part part = {best.value, drawn.value, best.index, drawn.index, mass};
        a.part[part_at] = part;
    }
}

/* The shared memory of a picking block. */
struct pick {
    uint64_t words[NT_TOPK_SORTED];
    union {
        struct nt_select<uint32_t> rank;
        struct nt_select<nt_mass> mass;
    } select;
    uint64_t sum_of_warp[NT_MAX_WARPS];
    struct nt_best best_of_warp[NT_MAX_WARPS];
    uint32_t count;
    int32_t keep;
};

/* floor(top_p * sum), at least 1. */
NT_DEVICE uint64_t needed_mass(float top_p, uint64_t sum) {
    const uint64_t need = __double2ull_rz(__dmul_rn((double)top_p, __ull2double_rn(sum)));
    return need > 0 ? need : 1;
}

/* Sum of the chunks' masses, relative to the row's best; the same in all threads. */
NT_DEVICE uint64_t mass_of_row(const struct nt_sample_part *part, int32_t n_chunk, float best, struct pick *s) {
    uint64_t mass = 0;
    for (int32_t c = (int32_t)threadIdx.x; c < n_chunk; c += (int32_t)blockDim.x) {
        if (part[c].best == -NT_INF) continue;
        const uint64_t weight = nt_mass_below(part[c].best, best);
        mass += __umul64hi(part[c].mass, weight) << 24 | part[c].mass * weight >> 40;
    }
    mass = nt_block_sum_u64(mass, s->sum_of_warp);
    __syncthreads();
    return mass;
}

/* How many of the count sorted words it takes to weigh `need`; count + 1 when all weigh less. */
NT_DEVICE int32_t prefix_of_mass(struct pick *s, int32_t count, float best, uint64_t need) {
    enum { EACH = NT_TOPK_SORTED / NT_TOPK_THREADS };
    const int32_t from = (int32_t)threadIdx.x * EACH;
    uint64_t sum = 0;
    for (int32_t i = from; i < from + EACH && i < count; i++) sum += nt_mass_below(nt_word_logit(s->words[i]), best);
    uint64_t upto = sum;
#pragma unroll
    for (int d = 1; d < NT_WARP; d *= 2) {
        const uint64_t other = __shfl_up_sync(NT_ALL_LANES, upto, d);
        if (nt_lane() >= d) upto += other;
    }
    if (nt_lane() == NT_WARP - 1) s->sum_of_warp[nt_warp()] = upto;
    if (threadIdx.x == 0) s->keep = count + 1;
    __syncthreads();
    for (int32_t w = 0; w < nt_warp(); w++) upto += s->sum_of_warp[w];
    uint64_t mass = upto - sum;
    if (mass < need && upto >= need) { /* one thread */
        for (int32_t i = from; mass < need; i++) {
            mass += nt_mass_below(nt_word_logit(s->words[i]), best);
            s->keep = i + 1;
        }
    }
    __syncthreads();
    const int32_t keep = s->keep;
    __syncthreads();
    return keep;
}

/* Sum of the masses of the first count words. */
NT_DEVICE uint64_t mass_of_words(struct pick *s, int32_t count, float best) {
    uint64_t mass = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < count; i += NT_TOPK_THREADS)
        mass += nt_mass_below(nt_word_logit(s->words[i]), best);
    mass = nt_block_sum_u64(mass, s->sum_of_warp);
    __syncthreads();
    return mass;
}

/* What a truncated row needs beside its parts. */
struct truncated_row {
    const struct nt_logit_sample_cuda *a;
    int64_t r;
    struct rules u;
    struct nt_word_source row;
    uint64_t floor_word; /* nothing below is drawn */
};

/* The draw among candidates in shared memory, or -1: more than these are kept. */
NT_DEVICE int32_t pick_among_candidates(const struct truncated_row *t, struct pick *s) {
    const struct rules *u = &t->u;
    const int32_t n = t->row.count, n_group = (n + NT_TOPK_GROUP - 1) / NT_TOPK_GROUP;
    const uint32_t *group = t->a->group + t->r * t->a->n_chunk * NT_TOPK_CHUNK_GROUPS;
    const struct nt_word_source maxima = {group, NULL, 1, 0, n_group};
    const uint32_t lowest = nt_logit_key(-NT_INF) + 1, floor_key = (uint32_t)(t->floor_word >> 32);
    /* What top-k drops into the mass must be seen, whatever min-p says of it. */
    const uint32_t end = u->limited && u->top_p < 1.0f ? lowest : floor_key;
    const int32_t usual = n_group / 2 < NT_SAMPLE_CANDIDATES ? (n_group + 1) / 2 : NT_SAMPLE_CANDIDATES;
    const int32_t rank = u->limited ? u->top_k : usual;
    uint32_t threshold = end;
    if (n > NT_TOPK_SORTED && rank <= n_group) {
        const uint32_t kth = (uint32_t)(nt_select_kth(&s->select.rank, &maxima, 0, ~0ull, (uint32_t)rank) >> 32);
        threshold = kth > end ? kth : end;
    }
    if (threadIdx.x == 0) s->count = 0;
    __syncthreads();
    nt_collect_words(&t->row, group, threshold, s->words, NT_TOPK_SORTED, &s->count);
    __syncthreads();
    const int32_t found = (int32_t)s->count;
    if (found > NT_TOPK_SORTED) return -1;
    nt_sort_list(s->words, found);
    int32_t keep = u->limited && u->top_k < found ? u->top_k : found;
    if (u->top_p < 1.0f) {
        const struct nt_sample_part *part = t->a->part + t->r * t->a->n_chunk;
        const uint64_t sum = u->limited ? mass_of_words(s, keep, t->row.best)
                                        : mass_of_row(part, t->a->n_chunk, t->row.best, s);
        const int32_t reached = prefix_of_mass(s, keep, t->row.best, needed_mass(u->top_p, sum));
        if (reached > keep && threshold > end) return -1;
        if (reached < keep) keep = reached;
    } else if (!u->limited && threshold > end) {
        return -1; /* min-p alone keeps more */
    }
    const uint64_t seed = t->a->op.seed[t->r], stream = t->a->op.stream[t->r];
    struct nt_best best = nt_best_none();
    for (int32_t i = (int32_t)threadIdx.x; i < keep; i += NT_TOPK_THREADS) {
        const uint64_t word = s->words[i];
        if (word < t->floor_word) continue;
        const int32_t v = nt_word_index(word);
        const uint4 w = nt_dev_philox(seed, stream, (uint64_t)v >> 2);
        const uint32_t noise = v & 2 ? (v & 1 ? w.w : w.z) : (v & 1 ? w.y : w.x);
        offer(&best, nt_word_logit(word), v, noise);
    }
    return nt_block_best(best, s->best_of_warp).index;
}

/* The draw by passes over the row. */
NT_DEVICE int32_t pick_in_row(const struct truncated_row *t, struct pick *s) {
    const struct rules *u = &t->u;
    const int32_t n = t->row.count;
    uint64_t low = u->limited ? nt_select_kth(&s->select.rank, &t->row, 0, ~0ull, (uint32_t)u->top_k) : 0;
    if (u->top_p < 1.0f) {
        uint64_t sum = 0;
        if (u->limited) {
            for (int32_t v = (int32_t)threadIdx.x; v < n; v += NT_TOPK_THREADS) {
                const uint64_t word = nt_word_at(&t->row, v);
                if (word >= low) sum += nt_mass_below(nt_word_logit(word), t->row.best);
            }
            sum = nt_block_sum_u64(sum, s->sum_of_warp);
            __syncthreads();
        } else {
            sum = mass_of_row(t->a->part + t->r * t->a->n_chunk, t->a->n_chunk, t->row.best, s);
        }
        const uint64_t cut =
            nt_select_kth(&s->select.mass, &t->row, low, ~0ull, (nt_mass)needed_mass(u->top_p, sum));
        if (cut > low) low = cut;
    }
    if (t->floor_word > low) low = t->floor_word;
    const uint64_t seed = t->a->op.seed[t->r], stream = t->a->op.stream[t->r];
    struct nt_best best = nt_best_none();
    for (int32_t v0 = 4 * (int32_t)threadIdx.x; v0 < n; v0 += 4 * NT_TOPK_THREADS) {
        const float4 x = nt_load_logits4(t->row.row, v0, n);
        const float y[4] = {x.x, x.y, x.z, x.w};
        uint64_t word[4];
        bool any = false;
#pragma unroll
        for (int i = 0; i < 4; i++) { /* -inf beyond the row is below every floor */
            word[i] = nt_logit_word(__fmul_rn(y[i], u->inv_temp), v0 + i);
            any |= word[i] >= low;
        }
        if (!any) continue;
        const uint4 w = nt_dev_philox(seed, stream, (uint64_t)v0 >> 2);
        const uint32_t noise[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (word[i] >= low) offer(&best, nt_word_logit(word[i]), v0 + i, noise[i]);
    }
    return nt_block_best(best, s->best_of_warp).index;
}

extern "C" __global__ void __launch_bounds__(NT_TOPK_THREADS) nt_sample_pick(const struct nt_logit_sample_cuda a) {
    nt_launch_begin();
    __shared__ struct pick s;
    const int64_t r = blockIdx.x;
    const struct nt_sample_part *part = a.part + r * a.n_chunk;
    struct truncated_row t;
    t.a = &a;
    t.r = r;
    t.u = rules_of(&a.op, r);
    struct nt_best best = nt_best_none(), drawn = best;
    for (int32_t c = (int32_t)threadIdx.x; c < a.n_chunk; c += NT_TOPK_THREADS) {
        const struct nt_best b = {part[c].best, part[c].best_index}, d = {part[c].drawn, part[c].drawn_index};
        best = nt_best_of(best, b);
        drawn = nt_best_of(drawn, d);
    }
    best = nt_block_best(best, s.best_of_warp);
    __syncthreads();
    int32_t index = best.index;
    if (!nt_dev_finite(best.value)) {
        index = -1;
    } else if (t.u.truncated) {
        const struct nt_word_source row = {NULL, a.op.logits + r * a.op.ld, t.u.inv_temp, best.value, a.op.n_vocab};
        const uint64_t best_word = nt_logit_word(best.value, best.index);
        t.row = row;
        t.floor_word = t.u.min_p > 0.0f
                           ? (uint64_t)nt_logit_key(__fadd_rn(best.value, nt_dev_log_pos(t.u.min_p))) << 32
                           : (uint64_t)(nt_logit_key(-NT_INF) + 1) << 32;
        if (t.floor_word > best_word) t.floor_word = best_word;
        index = pick_among_candidates(&t, &s);
        if (index < 0) index = pick_in_row(&t, &s); /* the same in all threads */
    } else if (!t.u.greedy) {
        index = nt_block_best(drawn, s.best_of_warp).index;
    }
    if (threadIdx.x == 0) a.op.index[r] = index;
}
