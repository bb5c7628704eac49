/* Gathers of rows: nt_embed (table rows to f32) and nt_gather (copies).
 *
 * Embed: x[t, :] = table[ids[t] - first, :] * scale, zero where the row is another rank's. One block per token, four
 * elements per thread and turn: 8-byte loads of bf16 and 16-byte stores of f32, both whole sectors; widths that are no
 * multiple of 4 go element by element.
 * Gather: to[i, :] = from[rows[i], :]. Grid (rows, pieces of NT_GATHER_PIECE bytes); 16 bytes per thread and turn, 4
 * where a row is no multiple of 16 bytes.
 * Layout: ids [n_tok], table [n_rows, d_model] bf16, x [n_tok, d_model] f32; rows of a gather are `bytes` apart.
 * Roofline: bandwidth. Embed 6 bytes per element (2 read, 4 written), no FLOP but the scale: expected 85-90 % of copy
 * bandwidth from about 4 MiB of output; a decode step (64 x 4096: 1.5 MB) is bound by the launch and one dependent
 * load, ~3 us. Gather 2 bytes moved per byte, expected 90 %: it is a copy. */
#include "embed_cuda.h"
#include "cuda_rows.cuh"
#include "ptx.cuh"

extern "C" __global__ void __launch_bounds__(NT_EMBED_THREADS) nt_embed(const struct nt_embed_args a) {
    nt_launch_begin();
    const int64_t t = blockIdx.x;
    const int64_t row = (int64_t)a.ids[t] - a.first;
    const bool mine = row >= 0 && row < a.n_rows;
    const nt_bf16 *from = a.table + (mine ? row : 0) * a.d_model;
    float *x = a.x + t * a.d_model;
    if (a.d_model % 4 == 0) {
        for (int32_t i = 4 * (int32_t)threadIdx.x; i < a.d_model; i += 4 * (int32_t)blockDim.x) {
            const uint2 v = mine ? *(const uint2 *)(from + i) : make_uint2(0, 0);
            float4 y = make_float4(0, 0, 0, 0);
            if (mine)
                y = make_float4(nt_bf16_low(v.x) * a.scale, nt_bf16_high(v.x) * a.scale, nt_bf16_low(v.y) * a.scale,
                                nt_bf16_high(v.y) * a.scale);
            nt_store_f4(x + i, y);
        }
    } else {
        for (int32_t i = (int32_t)threadIdx.x; i < a.d_model; i += (int32_t)blockDim.x)
            x[i] = mine ? nt_dev_to_f32(from[i]) * a.scale : 0.0f;
    }
}

extern "C" __global__ void __launch_bounds__(NT_GATHER_THREADS) nt_gather(const struct nt_gather_args a) {
    nt_launch_begin();
    const int64_t begin = (int64_t)blockIdx.y * NT_GATHER_PIECE;
    const int64_t end = begin + NT_GATHER_PIECE < a.bytes ? begin + NT_GATHER_PIECE : a.bytes;
    const char *from = (const char *)a.from + a.rows[blockIdx.x] * a.bytes;
    char *to = (char *)a.to + (int64_t)blockIdx.x * a.bytes;
    nt_copy_piece(to, from, begin, end, a.bytes % 16 == 0);
}
