/* Gradient of the target's log-probability: dlogits[r, v] = bf16(coef (1[v = target] - exp(logits - max) / sum_exp)).
 *
 * Block (chunk of NT_LOGIT_CHUNK logits, row); a thread takes eight neighbours at a time, 32 bytes in and 16 out. The
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

/* Where octet o of this thread begins in the row. */
NT_DEVICE int32_t octet_at(int o) {
    return (int32_t)blockIdx.x * NT_LOGIT_CHUNK + 8 * ((int32_t)threadIdx.x + o * NT_LOGIT_THREADS);
}

extern "C" __global__ void __launch_bounds__(NT_LOGIT_THREADS) nt_logit_bwd(const struct nt_logit_bwd_args a) {
    enum { OCTETS = NT_LOGIT_QUADS / 2 };
    const int64_t r = blockIdx.y;
    const float *row = a.logits + r * a.ld;
    nt_bf16 *to = a.dlogits + r * a.lddl;
    const int32_t n = a.n_vocab, target = a.target[r];
    const float max = a.max[r], sum = a.sum_exp[r], coef = a.coef[r], factor = __fdiv_rn(-coef, sum);
    float4 x[2 * OCTETS];
#pragma unroll
    for (int q = 0; q < 2 * OCTETS; q++) x[q] = nt_load_logits4(row, octet_at(q / 2) + q % 2 * 4, n);
#pragma unroll
    for (int o = 0; o < OCTETS; o++) {
        const int32_t v0 = octet_at(o);
        const float4 low = x[2 * o], high = x[2 * o + 1];
        float d[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float e = nt_exp_below(d[i], max);
            d[i] = v0 + i == target ? coef * __fdiv_rn(__fsub_rn(sum, e), sum) : factor * e;
        }
        if (v0 + 8 <= n && nt_is_aligned16(to + v0))
            nt_store_octet<true>(to + v0, 8, d);
        else
            nt_store_octet<false>(to + v0, n - v0, d);
    }
}
