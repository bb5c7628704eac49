/* Signed bytes to bf16 in registers, for products of int8 caches and int8 weights on tensor cores.
 *
 * Exact: a byte is its low 7 bits less 0 or 128; 128 + those bits is a bf16 whose mantissa holds them, and one fma takes
 * off 128, or 256 of a negative one. Four instructions a pair with the permutation that picks it. No state, no memory. */
#ifndef NT_CUDA_INT8_CUH
#define NT_CUDA_INT8_CUH

#include "ptx.cuh"

/* Two signed bytes, each in its half of the register, to two bf16, exactly. */
NT_DEVICE uint32_t nt_int8_to_bf16(uint32_t two) {
    const uint32_t value = (two & 0x007f007fu) | 0x43004300u, less = (two & 0x00800080u) | 0xc300c300u;
    return nt_fma_bf16x2(value, 0x3f803f80u, less);
}
/* Those bytes of four that the selector of __byte_perm puts there. */
NT_DEVICE uint32_t nt_int8_pick(uint32_t four, uint32_t selector) {
    return nt_int8_to_bf16(__byte_perm(four, 0, selector));
}
/* Bytes 2 i and 2 i + 1. */
NT_DEVICE uint32_t nt_int8_pair(uint32_t four, int i) {
    return nt_int8_pick(four, i ? 0x4342 : 0x4140);
}

#endif
