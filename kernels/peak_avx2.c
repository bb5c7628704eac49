#include "peak.h"

#define EACH ".irp r,4,5,6,7,8,9,10,11,12,13,14,15\n"
#define CLOBBERS                                                                                                       \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",         \
        "xmm13", "xmm14", "xmm15"
#define ZERO                                                                                                           \
    "vpxor %%ymm0,%%ymm0,%%ymm0\n vpxor %%ymm1,%%ymm1,%%ymm1\n" EACH "vpxor %%ymm\\r,%%ymm\\r,%%ymm\\r\n .endr\n"

/* bf16 is float arithmetic after widening; int8 is vpmaddubsw, vpmaddwd, vpaddd. */
double nt_peak_burst_avx2(enum nt_peak_unit unit, int64_t n) {
    const double rounds = (double)n;
    if (unit != NT_PEAK_INT8) {
        __asm__ volatile(ZERO "1:\n" EACH "vfmadd231ps %%ymm0,%%ymm1,%%ymm\\r\n .endr\n dec %0\n jnz 1b\n"
                         : "+r"(n)
                         :
                         : CLOBBERS);
        return 12 * 16 * rounds;
    }
    __asm__ volatile(ZERO "1:\n" EACH "vpmaddubsw %%ymm0,%%ymm1,%%ymm2\n vpmaddwd %%ymm2,%%ymm1,%%ymm3\n"
                          "vpaddd %%ymm3,%%ymm\\r,%%ymm\\r\n .endr\n dec %0\n jnz 1b\n"
                     : "+r"(n)
                     :
                     : CLOBBERS);
    return 12 * 64 * rounds;
}
