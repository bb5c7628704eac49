/* The k largest logits of each row, best first, ties by lower index; exact, without sorting a row.
 *
 * nt_topk_groups reads the logits once and leaves the maximum of each 32 neighbours. nt_topk_select, a block per row:
 * the k-th largest of those maxima is a threshold that at least k logits reach and few more do, and only groups whose
 * maximum reaches it are read again; the candidates, at most 4096, are sorted in shared memory. Where more reach it (ties,
 * k near or above a 32nd of the row) the block selects exact ranks from the whole row, 4096 at a time, by radix
 * passes over (key, index) words: right for every k, and slow (8 passes per 4096 ranks, one multiprocessor per row).
 * Layout: logits [n_row, ld >= n_vocab] f32; value and index [n_row, k]; maxima [n_row, groups] in the workspace.
 * Roofline: 4 bytes per logit once, plus 1/32, no FLOP but comparisons; expected 75-80 % of copy bandwidth for many
 * rows: blocks of 4096 logits are short, and the second kernel follows. It reads 128 bytes per candidate group and
 * sorts k words: ~5-8 us for k = 256, rows in parallel. */
#include "topk_cuda.h"
#include "cuda_select.cuh"
#include "ptx.cuh"

static_assert(NT_TOPK_GROUP == NT_WARP, "a warp reads a group, 8 lanes' quads are one");

extern "C" __global__ void __launch_bounds__(NT_LOGIT_THREADS) nt_topk_groups(const struct nt_logit_topk_cuda a) {
    nt_launch_begin();
    __shared__ uint32_t group[NT_TOPK_CHUNK_GROUPS];
    const float *row = a.op.logits + (int64_t)blockIdx.y * a.op.ld;
    const int32_t begin = (int32_t)blockIdx.x * NT_LOGIT_CHUNK;
    float4 x[NT_LOGIT_QUADS];
#pragma unroll
    for (int q = 0; q < NT_LOGIT_QUADS; q++)
        x[q] = nt_load_logits4(row, begin + 4 * ((int32_t)threadIdx.x + q * NT_LOGIT_THREADS), a.op.n_vocab);
    nt_group_maxima<NT_LOGIT_QUADS>(x, group);
    __syncthreads();
    if (threadIdx.x < NT_TOPK_CHUNK_GROUPS)
        a.group[((int64_t)blockIdx.y * a.n_chunk + blockIdx.x) * NT_TOPK_CHUNK_GROUPS + threadIdx.x] =
            group[threadIdx.x];
}

NT_DEVICE void write_best(const struct nt_logit_topk_args *a, int64_t r, const uint64_t *words, int32_t from,
                          int32_t count) {
    const float *row = a->logits + r * a->ld;
    for (int32_t i = (int32_t)threadIdx.x; i < count; i += (int32_t)blockDim.x) {
        const int32_t at = nt_word_index(words[i]);
        a->index[r * a->k + from + i] = at;
        a->value[r * a->k + from + i] = row[at];
    }
}

extern "C" __global__ void __launch_bounds__(NT_TOPK_THREADS) nt_topk_select(const struct nt_logit_topk_cuda a) {
    nt_launch_begin();
    __shared__ uint64_t words[NT_TOPK_SORTED];
    __shared__ struct nt_select<uint32_t> select;
    __shared__ uint32_t count;
    const int64_t r = blockIdx.x;
    const float *row = a.op.logits + r * a.op.ld;
    const uint32_t *group = a.group + r * a.n_chunk * NT_TOPK_CHUNK_GROUPS;
    const int32_t n = a.op.n_vocab, k = a.op.k, n_group = (n + NT_TOPK_GROUP - 1) / NT_TOPK_GROUP;
    const struct nt_word_source maxima = {group, NULL, 1, 0, n_group}, all = {NULL, row, 1, 0, n};
    uint32_t threshold = 0;
    if (k <= n_group) threshold = (uint32_t)(nt_select_kth(&select, &maxima, 0, ~0ull, (uint32_t)k) >> 32);
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    if (k <= n_group || n <= NT_TOPK_SORTED)
        nt_collect_words(&all, group, threshold, words, NT_TOPK_SORTED, &count);
    __syncthreads();
    const int32_t found = (int32_t)count;
    if (found >= k && found <= NT_TOPK_SORTED) {
        nt_sort_list(words, found);
        write_best(&a.op, r, words, 0, k);
        return;
    }
    uint64_t high = ~0ull;
    for (int32_t done = 0; done < k; done += NT_TOPK_SORTED) {
        const int32_t take = k - done < NT_TOPK_SORTED ? k - done : NT_TOPK_SORTED;
        const uint64_t low = nt_select_kth(&select, &all, 0, high, (uint32_t)take);
        if (threadIdx.x == 0) count = 0;
        __syncthreads();
        for (int32_t v0 = 0; v0 < n; v0 += (int32_t)blockDim.x) { /* whole warps to the end */
            const int32_t v = v0 + (int32_t)threadIdx.x;
            const uint64_t word = v < n ? nt_logit_word(row[v], v) : 0;
            nt_append_word(words, NT_TOPK_SORTED, &count, v < n && word >= low && word <= high, word);
        }
        __syncthreads();
        nt_sort_list(words, take);
        write_best(&a.op, r, words, done, take);
        __syncthreads();
        high = low - 1;
    }
}
