/* Ops on logit rows [n_row, n_vocab]: statistics, Gumbel argmax, edits, penalties, scaling, picks. (Top-k: topk.cu.)
 *
 * stats: per chunk of 4096 logits, 16 in registers of each of 256 threads: maximum, then the sum of exp(x - chunk's
 * maximum); nt_logit_stats_join, a warp per row, rescales the chunks' sums to the row's maximum. Order of the sum: 16
 * in a thread ascending by quads, butterfly, chunks by lane, butterfly. It depends on n_vocab alone.
 * gumbel: per chunk the best of x * inv_temp + noise, four words of noise per Philox call; bits as the CPU bodies.
 * Layout: logits [n_row, ld >= n_vocab] f32, one value per row elsewhere, parts [n_row, chunks] in the workspace.
 * Roofline: 4 bytes per logit read once. stats ~14 FLOP per logit: bandwidth, expected 85 % of copy from about 16
 * rows of 49152. gumbel ~80 instructions per logit (10 Philox rounds a quarter, two logarithms): bound by issue,
 * about half of copy bandwidth on H100. scale 8 bytes per logit, bandwidth. edit, penalty, pick: scattered sectors, 32
 * bytes each way per token named; the launch up to some 10^4 of them. penalty: a block per row, so that all that a row
 * has said passes one place, which tells whether the newest token is among it. */
#include "logits_cuda.h"
#include "cuda_logits.cuh"
#include "ptx.cuh"

/* Where the quads of this thread begin, relative to the chunk. */
NT_DEVICE int32_t quad_at(int q) {
    return 4 * ((int32_t)threadIdx.x + q * NT_LOGIT_THREADS);
}

extern "C" __global__ void __launch_bounds__(NT_LOGIT_THREADS) nt_logit_stats(const struct nt_logit_stats_cuda a) {
    nt_launch_begin();
    __shared__ struct nt_best best_of_warp[NT_MAX_WARPS];
    __shared__ float sum_of_warp[NT_MAX_WARPS];
    const float *row = a.op.logits + (int64_t)blockIdx.y * a.op.ld;
    const int32_t begin = (int32_t)blockIdx.x * NT_LOGIT_CHUNK, n = a.op.n_vocab;
    float4 x[NT_LOGIT_QUADS];
    struct nt_best best = nt_best_none();
#pragma unroll
    for (int q = 0; q < NT_LOGIT_QUADS; q++) x[q] = nt_load_logits4(row, begin + quad_at(q), n);
#pragma unroll
    for (int q = 0; q < NT_LOGIT_QUADS; q++) {
        const float v[4] = {x[q].x, x[q].y, x[q].z, x[q].w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int32_t at = begin + quad_at(q) + i;
            if (at < n && (nt_dev_above(v[i], best.value) || best.index == INT32_MAX)) {
                best.value = v[i];
                best.index = at;
            }
        }
    }
    best = nt_block_best(best, best_of_warp);
    float sum = 0;
    if (a.op.sum_exp) { /* beyond the row: exp(-inf) */
#pragma unroll
        for (int q = 0; q < NT_LOGIT_QUADS; q++) {
            sum = __fadd_rn(sum, nt_exp_below(x[q].x, best.value));
            sum = __fadd_rn(sum, nt_exp_below(x[q].y, best.value));
            sum = __fadd_rn(sum, nt_exp_below(x[q].z, best.value));
            sum = __fadd_rn(sum, nt_exp_below(x[q].w, best.value));
        }
        sum = nt_block_sum(sum, sum_of_warp);
    }
    if (threadIdx.x == 0) {
        const struct nt_logit_part part = {best.value, best.index, sum, 0};
        a.part[(int64_t)blockIdx.y * a.n_chunk + blockIdx.x] = part;
    }
}

/* The best of a row's parts, in all lanes of the warp. */
NT_DEVICE struct nt_best best_part(const struct nt_logit_part *part, int32_t n_chunk) {
    struct nt_best best = nt_best_none();
    for (int32_t c = nt_lane(); c < n_chunk; c += NT_WARP) {
        const struct nt_best b = {part[c].value, part[c].index};
        best = nt_best_of(best, b);
    }
    return nt_warp_best(best);
}

extern "C" __global__ void __launch_bounds__(NT_WARP *NT_LOGIT_JOIN_ROWS)
    nt_logit_stats_join(const struct nt_logit_stats_cuda a) {
    nt_launch_begin();
    const int64_t r = (int64_t)blockIdx.x * NT_LOGIT_JOIN_ROWS + nt_warp();
    if (r >= a.op.n_row) return;
    const struct nt_logit_part *part = a.part + r * a.n_chunk;
    const struct nt_best best = best_part(part, a.n_chunk);
    if (nt_lane() == 0) {
        a.op.max[r] = best.value;
        if (a.op.argmax) a.op.argmax[r] = best.index;
    }
    if (!a.op.sum_exp) return;
    float sum = 0;
    for (int32_t c = nt_lane(); c < a.n_chunk; c += NT_WARP)
        if (part[c].value > -NT_INF) /* the sum of such a chunk is exactly 0 here */
            sum = fmaf(part[c].sum, nt_exp_below(part[c].value, best.value), sum);
    sum = nt_warp_sum(sum);
    if (!nt_dev_finite(best.value)) sum = __uint_as_float(0x7fc00000u); /* as exp(inf - inf) on the host */
    if (nt_lane() == 0) a.op.sum_exp[r] = sum;
}

extern "C" __global__ void __launch_bounds__(NT_LOGIT_THREADS) nt_logit_gumbel(const struct nt_logit_gumbel_cuda a) {
    nt_launch_begin();
    __shared__ struct nt_best best_of_warp[NT_MAX_WARPS];
    const int64_t r = blockIdx.y;
    const float inv_temp = a.op.inv_temp[r];
    if (inv_temp == 0.0f) return;
    const float *row = a.op.logits + r * a.op.ld;
    const int32_t n = a.op.n_vocab, lead = a.op.first & 3; /* quads of ids begin at multiples of 4 of the vocabulary */
    const int32_t begin = (int32_t)blockIdx.x * NT_LOGIT_CHUNK - lead;
    const uint64_t seed = a.op.seed[r], stream = a.op.stream[r];
    struct nt_best best = nt_best_none();
#pragma unroll
    for (int q = 0; q < NT_LOGIT_QUADS; q++) {
        const int32_t v0 = begin + quad_at(q);
        if (v0 >= n) continue;
        const float4 x = nt_load_logits4(row, v0, n);
        const uint4 w = nt_dev_philox(seed, stream, (uint64_t)(((int64_t)a.op.first + v0) >> 2));
        const float v[4] = {x.x, x.y, x.z, x.w};
        const uint32_t word[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float sum = __fsub_rn(__fmul_rn(v[i], inv_temp), nt_dev_log_neg_log(word[i]));
            if (v0 + i < 0 || v0 + i >= n) continue;
            if (best.index != INT32_MAX && !nt_dev_above(sum, best.value)) continue;
            best.value = sum;
            best.index = v0 + i;
        }
    }
    best = nt_block_best(best, best_of_warp);
    if (threadIdx.x == 0) {
        const struct nt_logit_part part = {best.value, best.index, 0, 0};
        a.part[r * a.n_chunk + blockIdx.x] = part;
    }
}

extern "C" __global__ void __launch_bounds__(NT_WARP *NT_LOGIT_JOIN_ROWS)
    nt_logit_gumbel_join(const struct nt_logit_gumbel_cuda a) {
    nt_launch_begin();
    const int64_t r = (int64_t)blockIdx.x * NT_LOGIT_JOIN_ROWS + nt_warp();
    if (r >= a.op.n_row || a.op.inv_temp[r] == 0.0f) return;
    const struct nt_best best = best_part(a.part + r * a.n_chunk, a.n_chunk);
    if (nt_lane() != 0) return;
    const float logit = a.op.logits[r * a.op.ld + best.index];
    a.op.value[r] = isnan(best.value) && isnan(logit) ? nt_quiet(logit) : best.value;
    a.op.index[r] = best.index;
}

extern "C" __global__ void __launch_bounds__(NT_LOGIT_THREADS) nt_logit_edit(const struct nt_logit_edit_args a) {
    nt_launch_begin();
    const int32_t i = (int32_t)(blockIdx.x * NT_LOGIT_THREADS + threadIdx.x);
    if (i >= a.n_edit) return;
    const struct nt_logit_edit e = a.edits[i];
    if (e.row < 0 || e.row >= a.n_row || e.id < 0 || e.id >= a.n_vocab) return;
    float *x = a.logits + e.row * a.ld + e.id;
    const float v = __fadd_rn(*x, e.bias);
    *x = __fsub_rn(v > 0 ? __fdiv_rn(v, e.divide) : __fmul_rn(v, e.divide), e.minus);
}

NT_DEVICE void penalize(const struct nt_logit_penalty_args *a, int32_t r, int32_t id, int32_t count) {
    if (id < a->first || id - a->first >= a->n_vocab) return;
    float *x = a->logits + r * a->ld + (id - a->first);
    const float minus = count > 0 ? __fadd_rn(a->presence[r], __fmul_rn(a->frequency[r], (float)count)) : 0;
    *x = __fsub_rn(*x > 0 ? __fdiv_rn(*x, a->repetition[r]) : __fmul_rn(*x, a->repetition[r]), minus);
}

extern "C" __global__ void __launch_bounds__(NT_LOGIT_THREADS) nt_logit_penalty(const struct nt_logit_penalty_args a) {
    nt_launch_begin();
    const int32_t r = (int32_t)blockIdx.x, end = a.begin[r + 1];
    const int32_t last = a.last && a.last_row[r] >= 0 ? a.last[a.last_row[r]] : -1;
    int known = last < 0;
    for (int32_t i = a.begin[r] + (int32_t)threadIdx.x; i < end; i += NT_LOGIT_THREADS) {
        const struct nt_seen s = a.seen[i];
        known |= s.id == last;
        penalize(&a, r, s.id, s.count + (s.id == last));
    }
    known = __syncthreads_or(known);
    if (threadIdx.x == 0 && !known) penalize(&a, r, last, 1);
}

extern "C" __global__ void __launch_bounds__(NT_LOGIT_THREADS) nt_logit_scale(const struct nt_logit_edit_args a) {
    nt_launch_begin();
    const float scale = a.scale[blockIdx.y];
    if (scale == 1.0f) return;
    float *row = a.logits + (int64_t)blockIdx.y * a.ld;
    const int32_t begin = (int32_t)blockIdx.x * NT_LOGIT_CHUNK;
#pragma unroll
    for (int q = 0; q < NT_LOGIT_QUADS; q++) {
        const int32_t v = begin + quad_at(q);
        if (v + 4 <= a.n_vocab && nt_is_aligned16(row + v)) {
            const float4 x = nt_load_f4(row + v);
            nt_store_f4(row + v, make_float4(x.x * scale, x.y * scale, x.z * scale, x.w * scale));
        } else {
            for (int32_t i = v; i < v + 4 && i < a.n_vocab; i++) row[i] *= scale;
        }
    }
}

extern "C" __global__ void __launch_bounds__(NT_LOGIT_THREADS) nt_logit_pick(const struct nt_logit_pick_args a) {
    nt_launch_begin();
    const int32_t r = (int32_t)(blockIdx.x * NT_LOGIT_THREADS + threadIdx.x);
    if (r >= a.n_row) return;
    const int32_t id = a.id[r] - a.first;
    a.value[r] = id >= 0 && id < a.n_vocab ? a.logits[r * a.ld + id] : -NT_INF;
}
