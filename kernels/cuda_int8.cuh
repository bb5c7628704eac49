/* Signed bytes to bf16 in registers, for products of int8 caches and int8 weights on tensor cores.
 *
 * 64ths, exactly, which a factor of 64 gives back later: 8 bits taken for those of a bf16 are their number times 2^-133,
 * from the subnormal numbers into the binade behind them, so byte + 128 in the place of a bf16 becomes byte / 64 by one
 * fma with 2^127 and -2. Two and a half instructions a pair. No state, no memory. */
#ifndef NT_CUDA_INT8_CUH
#define NT_CUDA_INT8_CUH

#include "ptx.cuh"

/* Four signed bytes, each plus 128. */
NT_DEVICE uint32_t nt_int8_biased(uint32_t four) {
    return four ^ 0x80808080u;
}
/* 1/64 of two of them, exactly: those that the selector of __byte_perm puts into the low bytes of the halves. */
NT_DEVICE uint32_t nt_int8_64ths(uint32_t biased, uint32_t selector) {
    return nt_fma_bf16x2(__byte_perm(biased, 0, selector), 0x7f007f00u, 0xc000c000u);
}

#endif
