/* Device helpers of kernels that pass over rows: pieces of 16 bytes, whatever the width and alignment of a row.
 *
 * A quad is four f32, an octet eight bf16. WIDE: one access, at an address divisible by 16, of a row whose width is a
 * multiple of the piece; otherwise element by element. left: elements from the address to the end of the row; beyond
 * it nothing is read or written, and a load gives 0. No state. */
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

template <bool WIDE> NT_DEVICE void nt_load_octet(const nt_bf16 *p, int32_t left, float v[8]) {
    if (WIDE) {
        nt_bf16_unpack8(left > 0 ? nt_load128(p) : make_uint4(0, 0, 0, 0), v);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = i < left ? nt_dev_to_f32(p[i]) : 0.0f;
    }
}

template <bool WIDE> NT_DEVICE void nt_store_octet(nt_bf16 *p, int32_t left, const float v[8]) {
    if (!WIDE) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (i < left) p[i] = nt_dev_to_bf16(v[i]);
    } else if (left > 0) {
        nt_store128(p, nt_bf16_pack8(v));
    }
}

/* Whether rows that begin `bytes` apart all begin at addresses divisible by 16. */
NT_DEVICE bool nt_rows_aligned16(const void *p, int64_t bytes) {
    return (((uintptr_t)p | (uintptr_t)bytes) & 15) == 0;
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
