#include "arena.h"
#include "clock.h"
#include "peak.h"
#include <string.h>

enum { LANES = 32 };

double nt_peak_burst_portable(enum nt_peak_unit unit, int64_t n) {
    (void)unit; /* plain C does everything in float */
    float acc[LANES], x[LANES];
    for (int i = 0; i < LANES; i++) {
        acc[i] = (float)i;
        x[i] = 0.5f;
    }
    for (int64_t k = 0; k < n; k++) {
        for (int i = 0; i < LANES; i++) acc[i] = acc[i] * 0.5f + x[i];
        __asm__ volatile("" : : "r"(acc) : "memory");
    }
    return 2.0 * LANES * (double)n;
}

static const struct {
    const char *unit;
} units[] = {
    [NT_PEAK_F32] = {"f32"},
    [NT_PEAK_BF16] = {"bf16"},
    [NT_PEAK_INT8] = {"int8"},
};
_Static_assert(sizeof units / sizeof units[0] == NT_PEAK_UNIT_COUNT, "one row per unit");

const char *nt_peak_unit_name(enum nt_peak_unit unit) {
    return units[unit].unit;
}

static double (*const bursts[])(enum nt_peak_unit unit, int64_t n) = {
    [NT_ISA_PORTABLE] = nt_peak_burst_portable,
    [NT_ISA_AVX2] = nt_peak_burst_avx2,
    [NT_ISA_AVX512] = nt_peak_burst_avx512,
};
_Static_assert(sizeof bursts / sizeof bursts[0] == NT_ISA_COUNT, "one burst per level");

enum { REPEATS = 5 };

struct burst {
    enum nt_isa isa;
    enum nt_peak_unit unit;
    int n_active;
    int64_t rounds;
    double done; /* operations of one thread */
};

static void run_burst(void *arg, int thread, int n_threads) {
    struct burst *b = arg;
    (void)n_threads;
    if (thread >= b->n_active) return;
    const double done = bursts[b->isa](b->unit, b->rounds);
    if (thread == 0) b->done = done;
}

double nt_peak_gflops(struct nt_pool *pool, enum nt_isa isa, enum nt_peak_unit unit, bool all_threads) {
    struct burst b = {.isa = isa, .unit = unit, .n_active = all_threads ? nt_pool_size(pool) : 1, .rounds = 40000};
    double best = 0;
    for (int i = 0; i < REPEATS; i++) {
        const double start = nt_now();
        nt_pool_run(pool, run_burst, &b);
        const double rate = b.done * b.n_active / (nt_now() - start);
        if (rate > best) best = rate;
    }
    return best * 1e-9;
}

/* Larger than a last-level cache's share of one job; read in whole lines by all active threads. */
enum { READ_BYTES = 128 << 20, READ_UNIT = 1 << 16 };

struct reading {
    const uint64_t *data;
    int n_active;
};

static void read_part(void *arg, int thread, int n_threads) {
    const struct reading *r = arg;
    (void)n_threads;
    if (thread >= r->n_active) return;
    int64_t begin, end;
    nt_split(READ_BYTES, READ_UNIT, thread, r->n_active, &begin, &end);
    uint64_t sum[8] = {0};
    for (int64_t i = begin / 8; i < end / 8; i += 8)
        for (int k = 0; k < 8; k++) sum[k] += r->data[i + k];
    __asm__ volatile("" : : "r"(sum) : "memory");
}

nt_status nt_peak_read(struct nt_pool *pool, double gb_s[2]) {
    struct nt_arena arena;
    nt_arena_init(&arena, "bandwidth probe");
    (void)nt_arena_take(&arena, READ_BYTES, 1);
    NT_TRY(nt_arena_bind(&arena));
    uint64_t *data = nt_arena_take(&arena, READ_BYTES, 1);
    memset(data, 1, READ_BYTES); /* untouched pages would all be the zero page */
    for (int all = 0; all < 2; all++) {
        struct reading r = {.data = data, .n_active = all ? nt_pool_size(pool) : 1};
        gb_s[all] = 0;
        for (int i = 0; i < REPEATS; i++) {
            const double start = nt_now();
            nt_pool_run(pool, read_part, &r);
            const double rate = READ_BYTES / (nt_now() - start) * 1e-9;
            if (rate > gb_s[all]) gb_s[all] = rate;
        }
    }
    nt_arena_release(&arena);
    return NT_OK;
}

nt_status nt_peak_measure(struct nt_pool *pool, enum nt_isa isa, struct nt_peaks *out) {
    *out = (struct nt_peaks){.isa = isa, .n_threads = nt_pool_size(pool)};
    for (int u = 0; u < NT_PEAK_UNIT_COUNT; u++)
        for (int all = 0; all < 2; all++) out->gflops[u][all] = nt_peak_gflops(pool, isa, (enum nt_peak_unit)u, all);
    return nt_peak_read(pool, out->read_gb_s);
}
