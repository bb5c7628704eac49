/* Gradient of the target's log-probability: dlogits[r, v] = bf16(coef (1[v = target] - exp(logits - max) / sum_exp)).
 *
 * Block (chunk of NT_LOGIT_CHUNK logits, row); a thread takes 4 neighbours at a time, 16 bytes in and 8 out. The
 * target's element is coef ((sum_exp - exp) / sum_exp), which does not cancel. One pass; elements are independent, the
 * operations those of the CPU bodies.
 * Layout: logits [n_row, ld >= n_vocab] f32, dlogits [n_row, lddl >= n_vocab] bf16, of any alignment; columns behind
 * n_vocab are not touched; target, max, sum_exp, coef [n_row].
 * Roofline: bandwidth, 6 bytes per logit (4 read, 2 written), 4 FLOP in about 25 instructions, a third of the issue
 * rate of that bandwidth on H100. Expected 85 % of copy bandwidth from about 16 rows of 49152. */
#include "logits_cuda.h"
#include "cuda_logits.cuh"
#include "cuda_rows.cuh"
#include "ops_bwd.h"
#include "ptx.cuh"

/* Where quad q of this thread begins in the row. */
NT_DEVICE int32_t quad_at(int q) {
    return (int32_t)blockIdx.x * NT_LOGIT_CHUNK + 4 * ((int32_t)threadIdx.x + q * NT_LOGIT_THREADS);
}

extern "C" __global__ void __launch_bounds__(NT_LOGIT_THREADS) nt_logit_bwd(const struct nt_logit_bwd_args a) {
    nt_launch_begin();
    const int64_t r = blockIdx.y;
    const float *row = a.logits + r * a.ld;
    nt_bf16 *to = a.dlogits + r * a.lddl;
    const int32_t n = a.n_vocab, target = a.target[r];
    const float max = a.max[r], sum = a.sum_exp[r], coef = a.coef[r], factor = __fdiv_rn(-coef, sum);
    const bool wide = nt_rows_aligned(to, 0, sizeof *to);
    float4 x[NT_LOGIT_QUADS];
#pragma unroll
    for (int q = 0; q < NT_LOGIT_QUADS; q++) x[q] = nt_load_logits4(row, quad_at(q), n);
#pragma unroll
    for (int q = 0; q < NT_LOGIT_QUADS; q++) {
        const int32_t v0 = quad_at(q);
        float d[4] = {x[q].x, x[q].y, x[q].z, x[q].w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float e = nt_exp_below(d[i], max);
            d[i] = v0 + i == target ? coef * __fdiv_rn(__fsub_rn(sum, e), sum) : factor * e;
        }
        x[q] = make_float4(d[0], d[1], d[2], d[3]);
        if (wide && v0 + 4 <= n)
            nt_store_quad_bf16<true>(to + v0, 4, x[q]);
        else
            nt_store_quad_bf16<false>(to + v0, n - v0, x[q]);
    }
}
