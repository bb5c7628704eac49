/* Gradient of rotary embedding and q/k RMS norm: rotates back, goes back through the norm, rounds to bf16.
 *
 * Layout: rows of dqkv, qkv and dqkv16 are n_head q heads, n_kv k heads, n_kv v heads, as in rope.cu.
 * nt_rope_bwd: block (b, h) is head h of block b of NT_ROPE_BLOCK tokens, counted in the order of the sequences; warp w
 * takes tokens w, w + 4, ... with a head in registers (cuda_rope.cuh). With y = rotate(x s w), s = 1 / rms(x), and g dy
 * rotated back: dx = s (g w - x s^2 mean(g w x)), dw = sum of g x s.
 * Order of the sums of dw: a warp's tokens ascending, the 4 warps ascending; nt_rope_bwd_join adds the heads of a block
 * ascending, then blocks ascending to what is there, a column each thread. Nothing depends on the launch.
 * Roofline: bandwidth, 6 bytes an element of dqkv (4 read, 2 written) and with norms 4 more for each of q and k; about
 * 12 FLOP an element. Expected 80 % of copy bandwidth for 1000 tokens and more; 1000 tokens of 15 heads of 64 (6 MB)
 * take about 5 us on A100, where the launch shows. The join reads 1 / 64 of that again: under 5 %, a launch apart. */
#include "cuda_rope.cuh"
#include "rope_bwd_cuda.h"
#include "ptx.cuh"

enum { WARPS = NT_ROPE_WARPS, THREADS = WARPS * NT_WARP };
static_assert(NT_ROPE_BLOCK <= THREADS, "a thread each for the block's tokens");

/* The block's tokens. */
struct tokens {
    int32_t row[NT_ROPE_BLOCK], pos[NT_ROPE_BLOCK]; /* row -1: none */
};

/* Tokens first, first + 1, ... in the order of the sequences. */
NT_DEVICE void find_tokens(const struct nt_rope_bwd_args *a, int32_t first, struct tokens *t) {
    if (threadIdx.x < NT_ROPE_BLOCK) t->row[threadIdx.x] = -1;
    __syncthreads();
    int32_t before = 0;
    for (int32_t s0 = 0; nt_warp() == 0 && s0 < a->n_seq && before < first + NT_ROPE_BLOCK; s0 += NT_WARP) {
        const int32_t s = s0 + nt_lane(), n = s < a->n_seq ? a->seqs[s].n_q : 0;
        int32_t end = n;
#pragma unroll
        for (int d = 1; d < NT_WARP; d *= 2) {
            const int32_t lower = __shfl_up_sync(NT_ALL_LANES, end, d);
            if (nt_lane() >= d) end += lower;
        }
        const int32_t begin = before + end - n;
        const bool here = n > 0 && begin < first + NT_ROPE_BLOCK && begin + n > first;
        for (uint32_t left = __ballot_sync(NT_ALL_LANES, here); left; left &= left - 1) {
            const int32_t lane = __ffs((int)left) - 1, at = __shfl_sync(NT_ALL_LANES, begin, lane);
            const struct nt_attn_seq *seq = &a->seqs[s0 + lane];
            for (int32_t i = max(at, first) + nt_lane(); i < min(at + seq->n_q, first + NT_ROPE_BLOCK); i += NT_WARP) {
                t->row[i - first] = seq->q_row + i - at;
                t->pos[i - first] = seq->pos0 + i - at;
            }
        }
        before += __shfl_sync(NT_ALL_LANES, end, NT_WARP - 1);
    }
    __syncthreads();
}

/* A head's gradient in a warp, of heads of at most 64 PAIRS columns: element p in .x, p + 1 in .y, of the lower and the
 * upper half. */
template <int PAIRS> struct pairs { float2 low[PAIRS], high[PAIRS]; };
#define FOR_PAIRS(p, j)                                                                                                \
    _Pragma("unroll") for (int p = 0; p < PAIRS; p += TWO ? 2 : 1) if (const int32_t j = nt_rope_column<TWO>(p);       \
                                                                       j < half)
template <int PAIRS> NT_DEVICE void clear(struct pairs<PAIRS> *x) {
#pragma unroll
    for (int p = 0; p < PAIRS; p++) x->low[p] = x->high[p] = make_float2(0, 0);
}

/* g = dy of position pos rotated back; 0 beyond the head. */
template <bool TWO, int PAIRS>
NT_DEVICE void rotate_back(const float *dy, const float *cos, const float *sin, int32_t half, struct pairs<PAIRS> *g) {
    clear(g);
    FOR_PAIRS(p, j) {
        const float2 a = nt_rope_load<TWO>(dy, j), b = nt_rope_load<TWO>(dy, j + half);
        g->low[p] = a;
        g->high[p] = b;
        if (!cos) continue;
        const float2 c = nt_rope_load<TWO>(cos, j), s = nt_rope_load<TWO>(sin, j);
        g->low[p] = make_float2(a.x * c.x + b.x * s.x, a.y * c.y + b.y * s.y);
        g->high[p] = make_float2(b.x * c.x - a.x * s.x, b.y * c.y - a.y * s.y);
    }
}

/* g through the norm of x; the gradient of the norm's weights is added to sums. */
template <bool TWO, int PAIRS>
NT_DEVICE void norm_back(const float *x_row, const float *norm, float eps, int32_t half, struct pairs<PAIRS> *g,
                         struct pairs<PAIRS> *sums) {
    struct pairs<PAIRS> x;
    float sum = 0, dot = 0;
    FOR_PAIRS(p, j) {
        const float2 a = x.low[p] = nt_rope_load<TWO>(x_row, j), b = x.high[p] = nt_rope_load<TWO>(x_row, j + half);
        const float2 w = nt_rope_load<TWO>(norm, j), v = nt_rope_load<TWO>(norm, j + half);
        sum += a.x * a.x + a.y * a.y + b.x * b.x + b.y * b.y;
        dot += g->low[p].x * w.x * a.x + g->low[p].y * w.y * a.y + g->high[p].x * v.x * b.x + g->high[p].y * v.y * b.y;
    }
    const float d = (float)(2 * half);
    const float s = __frcp_rn(__fsqrt_rn(__fadd_rn(__fdiv_rn(nt_warp_sum(sum), d), eps)));
    const float c = s * s * __fdiv_rn(nt_warp_sum(dot), d);
    FOR_PAIRS(p, j) {
        const float2 a = x.low[p], b = x.high[p], w = nt_rope_load<TWO>(norm, j), v = nt_rope_load<TWO>(norm, j + half);
        float2 *low = &g->low[p], *high = &g->high[p];
        sums->low[p].x += low->x * (a.x * s);
        sums->low[p].y += low->y * (a.y * s);
        sums->high[p].x += high->x * (b.x * s);
        sums->high[p].y += high->y * (b.y * s);
        *low = make_float2(s * (low->x * w.x - a.x * c), s * (low->y * w.y - a.y * c));
        *high = make_float2(s * (high->x * v.x - b.x * c), s * (high->y * v.y - b.y * c));
    }
}

/* The sums of the 4 warps to the block's place. scratch [WARPS, d_head]. */
template <bool TWO, int PAIRS>
NT_DEVICE void leave_sums(const struct pairs<PAIRS> *sums, int32_t half, float *scratch, float *part) {
    float *mine = scratch + nt_warp() * 2 * half;
    FOR_PAIRS(p, j) {
        if (TWO) {
            *(float2 *)(mine + j) = sums->low[p];
            *(float2 *)(mine + j + half) = sums->high[p];
        } else {
            mine[j] = sums->low[p].x;
            mine[j + half] = sums->high[p].x;
        }
    }
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < 2 * half; i += THREADS) {
        float sum = scratch[i];
#pragma unroll
        for (int w = 1; w < WARPS; w++) sum = __fadd_rn(sum, scratch[w * 2 * half + i]);
        part[i] = sum;
    }
}

template <bool TWO, int PAIRS>
NT_DEVICE void head(const struct nt_rope_bwd_cuda *r, const struct tokens *t, float *scratch) {
    const struct nt_rope_bwd_args *a = &r->args;
    const int32_t h = (int32_t)blockIdx.y, d = a->d_head, half = d / 2, n_qk = a->n_head + a->n_kv;
    const float *norm = h < a->n_head ? a->q_norm : h < n_qk ? a->k_norm : NULL;
    const bool turn = h < n_qk && a->cos;
    struct pairs<PAIRS> sums;
    clear(&sums);
    for (int32_t i = nt_warp(); i < NT_ROPE_BLOCK; i += WARPS) {
        if (t->row[i] < 0) break; /* the last tokens: no more follow */
        const int64_t at = ((int64_t)t->row[i] * (n_qk + a->n_kv) + h) * d, angle = (int64_t)t->pos[i] * half;
        struct pairs<PAIRS> g;
        rotate_back<TWO, PAIRS>(a->dqkv + at, turn ? a->cos + angle : NULL, a->sin + angle, half, &g);
        if (norm) norm_back<TWO, PAIRS>(a->qkv + at, norm, a->eps, half, &g, &sums);
        FOR_PAIRS(p, j) {
            nt_rope_store<TWO>(a->dqkv16 + at, j, g.low[p].x, g.low[p].y);
            nt_rope_store<TWO>(a->dqkv16 + at, j + half, g.high[p].x, g.high[p].y);
        }
    }
    if (r->parts && norm) leave_sums<TWO, PAIRS>(&sums, half, scratch, r->parts + ((int64_t)blockIdx.x * n_qk + h) * d);
}

extern "C" __global__ void __launch_bounds__(THREADS) nt_rope_bwd(const struct nt_rope_bwd_cuda r) {
    nt_launch_begin();
    __shared__ struct tokens t;
    __shared__ __align__(8) float scratch[WARPS * NT_ROPE_CUDA_MAX_D];
    find_tokens(&r.args, (r.first_block + (int32_t)blockIdx.x) * NT_ROPE_BLOCK, &t);
    if (r.args.d_head % 4 != 0)
        head<false, NT_ROPE_PAIRS>(&r, &t, scratch);
    else if (r.args.d_head <= 128)
        head<true, 2>(&r, &t, scratch);
    else
        head<true, NT_ROPE_PAIRS>(&r, &t, scratch);
}

/* Block (x, y): 32 columns of q's (y 0) or k's norm; a warp sums the heads of every 8th block. */
extern "C" __global__ void __launch_bounds__(NT_ROPE_JOIN_WARPS *NT_WARP)
    nt_rope_bwd_join(const struct nt_rope_bwd_cuda r) {
    nt_launch_begin();
    __shared__ float sums[NT_ROPE_JOIN_WARPS][NT_WARP];
    const struct nt_rope_bwd_args *a = &r.args;
    const bool k = blockIdx.y == 1;
    const int32_t d = a->d_head, n_qk = a->n_head + a->n_kv, col = (int32_t)blockIdx.x * NT_WARP + nt_lane();
    const int32_t head0 = k ? a->n_head : 0, head1 = k ? n_qk : a->n_head;
    float *to = k ? a->dk_norm : a->dq_norm;
    if (!to || !(k ? a->k_norm : a->q_norm)) return;
    float total = nt_warp() == 0 && col < d ? to[col] : 0;
    for (int32_t b0 = 0; b0 < r.n_block; b0 += NT_ROPE_JOIN_WARPS) {
        const int32_t b = b0 + nt_warp();
        float sum = 0;
        for (int32_t h = head0; h < head1 && b < r.n_block && col < d; h++)
            sum = __fadd_rn(sum, r.parts[((int64_t)b * n_qk + h) * d + col]);
        sums[nt_warp()][nt_lane()] = sum;
        __syncthreads();
        for (int32_t w = 0; nt_warp() == 0 && w < min(NT_ROPE_JOIN_WARPS, r.n_block - b0); w++)
            total = __fadd_rn(total, sums[w][nt_lane()]);
        __syncthreads();
    }
    if (nt_warp() == 0 && col < d) to[col] = total;
}
