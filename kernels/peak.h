/* What this machine can do at most, measured: arithmetic in registers and reading memory.
 *
 * The roof that benchmarks divide by. It is measured beside them, because clock and neighbours change. A burst is a
 * loop of independent multiply-adds of one data type with the widest instructions of the level; where a level has no
 * such instruction for a type (bf16 below AVX-512) the burst does what a body must do there. No state; the caller owns
 * the pool; nt_peak_read allocates and frees its own buffer. Peak arithmetic counts a multiply and an add as two. */
#ifndef NT_PEAK_H
#define NT_PEAK_H

#include "cpu_isa.h"
#include "pool.h"

enum nt_peak_unit { NT_PEAK_F32, NT_PEAK_BF16, NT_PEAK_INT8, NT_PEAK_UNIT_COUNT };
const char *nt_peak_unit_name(enum nt_peak_unit unit);

struct nt_peaks {
    enum nt_isa isa;
    int n_threads;
    double gflops[NT_PEAK_UNIT_COUNT][2]; /* [0] one thread, [1] all; int8: GOP/s */
    double read_gb_s[2];
};

/* About 0.3 s. */
NT_MUST nt_status nt_peak_measure(struct nt_pool *pool, enum nt_isa isa, struct nt_peaks *out);
/* GFLOP/s of one thread or all, best of a few bursts of about a millisecond. */
double nt_peak_gflops(struct nt_pool *pool, enum nt_isa isa, enum nt_peak_unit unit, bool all_threads);
/* GB/s of one thread or all, best of a few passes over a buffer larger than the caches. */
NT_MUST nt_status nt_peak_read(struct nt_pool *pool, double gb_s[2]);

/* Bursts: n rounds; return the number of operations done. */
double nt_peak_burst_portable(enum nt_peak_unit unit, int64_t n);
double nt_peak_burst_avx2(enum nt_peak_unit unit, int64_t n);
double nt_peak_burst_avx512(enum nt_peak_unit unit, int64_t n);

#endif
