#include "peak.h"

/* 24 independent accumulators cover the latency of 6 cycles at four times over. */
#define EACH ".irp r,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27\n"
#define CLOBBERS                                                                                                       \
    "xmm0", "xmm1", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",       \
        "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26",    \
        "xmm27"
#define ZERO                                                                                                           \
    "vpxord %%zmm0,%%zmm0,%%zmm0\n vpxord %%zmm1,%%zmm1,%%zmm1\n" EACH "vpxord %%zmm\\r,%%zmm\\r,%%zmm\\r\n .endr\n"

double nt_peak_burst_avx512(enum nt_peak_unit unit, int64_t n) {
    const double rounds = (double)n;
    switch (unit) {
    case NT_PEAK_F32:
        __asm__ volatile(ZERO "1:\n" EACH "vfmadd231ps %%zmm0,%%zmm1,%%zmm\\r\n .endr\n dec %0\n jnz 1b\n"
                         : "+r"(n)
                         :
                         : CLOBBERS);
        return 24 * 32 * rounds;
    case NT_PEAK_BF16:
        __asm__ volatile(ZERO "1:\n" EACH "vdpbf16ps %%zmm0,%%zmm1,%%zmm\\r\n .endr\n dec %0\n jnz 1b\n"
                         : "+r"(n)
                         :
                         : CLOBBERS);
        return 24 * 64 * rounds;
    default:
        __asm__ volatile(ZERO "1:\n" EACH "vpdpbusd %%zmm0,%%zmm1,%%zmm\\r\n .endr\n dec %0\n jnz 1b\n"
                         : "+r"(n)
                         :
                         : CLOBBERS);
        return 24 * 128 * rounds;
    }
}
