/* Signed bytes to bf16 in registers, for products of int8 caches and int8 weights on tensor cores.
 *
 * Exact: a byte is its low 7 bits less 0 or 128; 128 + those bits is a bf16 whose mantissa holds them, and one fma takes
 * off 128, or 256 of a negative one. Six instructions a pair with the permutation that picks it, as one takes no two
 * constants. Two and a half are enough where a factor of 64 is given back later: 8 bits taken for those of a bf16 are
 * their number times 2^-133, from the subnormal numbers into the binade behind them, so byte + 128 in the place of a
 * bf16 becomes byte / 64 by one fma with 2^127 and -2. No state, no memory. */
#ifndef NT_CUDA_INT8_CUH
#define NT_CUDA_INT8_CUH

#include "ptx.cuh"

/* Two signed bytes, each in its half of the register, to two bf16, exactly. */
NT_DEVICE uint32_t nt_int8_to_bf16(uint32_t two) {
    const uint32_t value = (two & 0x007f007fu) | 0x43004300u, less = (two & 0x00800080u) | 0xc300c300u;
    return nt_fma_bf16x2(value, 0x3f803f80u, less);
}
/* Bytes 2 i and 2 i + 1 of four. */
NT_DEVICE uint32_t nt_int8_pair(uint32_t four, int i) {
    return nt_int8_to_bf16(__byte_perm(four, 0, i ? 0x4342 : 0x4140));
}

/* Four signed bytes, each plus 128. */
NT_DEVICE uint32_t nt_int8_biased(uint32_t four) {
    return four ^ 0x80808080u;
}
/* 1/64 of two of them, exactly: those that the selector of __byte_perm puts into the low bytes of the halves. */
NT_DEVICE uint32_t nt_int8_64ths(uint32_t biased, uint32_t selector) {
    return nt_fma_bf16x2(__byte_perm(biased, 0, selector), 0x7f007f00u, 0xc000c000u);
}

#endif
