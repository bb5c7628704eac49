/* Device helpers of kernels that pass over rows by quads, whatever the width and alignment of a row.
 *
 * A quad is four neighbours, f32 or bf16, so that lanes side by side read and write whole sectors of both. WIDE: one
 * access, at an address divisible by the quad's bytes (16 or 8), of a row whose width is a multiple of 4; otherwise
 * element by element. left: elements from the address to the end of the row; beyond it nothing is read or written, and
 * a load gives 0. No state. */
#ifndef NT_CUDA_ROWS_CUH
#define NT_CUDA_ROWS_CUH

#include "cuda_common.cuh"

template <bool WIDE> NT_DEVICE float4 nt_load_quad(const float *p, int32_t left) {
    float v[4] = {0, 0, 0, 0};
    if (!WIDE) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < left) v[i] = p[i];
    } else if (left > 0) {
        return nt_load_f4(p);
    }
    return make_float4(v[0], v[1], v[2], v[3]);
}

template <bool WIDE> NT_DEVICE void nt_store_quad(float *p, int32_t left, float4 x) {
    const float v[4] = {x.x, x.y, x.z, x.w};
    if (!WIDE) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < left) p[i] = v[i];
    } else if (left > 0) {
        nt_store_f4(p, x);
    }
}

template <bool WIDE> NT_DEVICE float4 nt_load_quad_bf16(const nt_bf16 *p, int32_t left) {
    float v[4] = {0, 0, 0, 0};
    if (!WIDE) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < left) v[i] = nt_dev_to_f32(p[i]);
    } else if (left > 0) {
        const uint2 x = *(const uint2 *)p;
        return make_float4(nt_bf16_low(x.x), nt_bf16_high(x.x), nt_bf16_low(x.y), nt_bf16_high(x.y));
    }
    return make_float4(v[0], v[1], v[2], v[3]);
}

template <bool WIDE> NT_DEVICE void nt_store_quad_bf16(nt_bf16 *p, int32_t left, float4 x) {
    const uint2 pair = make_uint2(nt_bf16_pack(x.x, x.y), nt_bf16_pack(x.z, x.w));
    const uint32_t v[4] = {pair.x, pair.x >> 16, pair.y, pair.y >> 16};
    if (!WIDE) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < left) p[i] = (nt_bf16)v[i];
    } else if (left > 0) {
        *(uint2 *)p = pair;
    }
}

/* Whether quads of elements of `bytes` lie right for WIDE in all rows of an array, ld elements apart. */
NT_DEVICE bool nt_rows_aligned(const void *p, int64_t ld, int64_t bytes) {
    return (((uintptr_t)p | (uintptr_t)(ld * bytes)) & (uintptr_t)(4 * bytes - 1)) == 0;
}

/* Bytes begin .. end - 1 of a row, whole words of 4, by all threads of the block; from NULL: zeros. wide: both rows are
 * aligned to 16 and begin, end are multiples of it. */
NT_DEVICE void nt_copy_piece(char *to, const char *from, int64_t begin, int64_t end, bool wide) {
    if (wide) {
        for (int64_t i = begin + 16 * threadIdx.x; i < end; i += 16 * blockDim.x)
            nt_store128(to + i, from ? nt_load128(from + i) : make_uint4(0, 0, 0, 0));
    } else {
        for (int64_t i = begin + 4 * threadIdx.x; i < end; i += 4 * blockDim.x)
            *(uint32_t *)(to + i) = from ? *(const uint32_t *)(from + i) : 0;
    }
}

#endif
