/* comm_check MODE ...: what a communicator promises, checked on every rank of an mpirun or srun job.
 *
 *   collectives TP            each collective against values computed here, float sums bit by bit
 *   shared TP                 one copy of the bytes per node and tp index, aligned, seen by all (PSS)
 *   tickets                   unique and complete under contention, also while rank 0 computes
 *   agree                     every rank learns the first failure
 *   die HOW FILE              rank 1 ends by kill|segv|exit|abort, the time of death goes to FILE; the others wait for
 * it hang HOW DIR LIMIT        rank 1 stops (SIGSTOP) or sleeps or takes another collective, under a watchdog wait DIR
 * LIMIT            rank 1 works for two limits while the others wait: no watchdog may bite Exit status 0 and "ok MODE"
 * from rank 0, or a sentence and 1. */
#include "clock.h"
#include "comm.h"
#include "hash.h"
#include "log.h"
#include "watchdog.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPECT(cond)                                                                                                   \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fprintf(stderr, "comm_check.c:%d: not true: %s (%s)\n", __LINE__, #cond, nt_error_last()->text);           \
            nt_world_abort(1);                                                                                         \
        }                                                                                                              \
    } while (0)
#define OK(call) EXPECT((call) == NT_OK)

/* A float of rank r with many different exponents, so that another order of additions gives other bits. */
static float value(int64_t i, int32_t r) {
    const int64_t key[2] = {i, r};
    const uint64_t h = nt_xxh64(key, sizeof key, 1);
    const float mantissa = (float)(h & 0xFFFFFF) / 16777216.0F - 0.5F;
    return mantissa * (float)(1u << (h >> 24 & 15));
}

static void check_sum(struct nt_comm *c, int64_t n) {
    const int32_t rank = nt_comm_rank(c), size = nt_comm_size(c);
    float *buf = malloc((size_t)(n + 1) * sizeof *buf);
    EXPECT(buf != NULL);
    for (int64_t i = 0; i < n; i++) buf[i] = value(i, rank);
    buf[n] = -77.0F; /* must survive */
    OK(nt_comm_allreduce_f32(c, buf, n));
    int64_t other_order = 0;
    for (int64_t i = 0; i < n; i++) {
        float up = value(i, 0), down = value(i, size - 1);
        for (int32_t r = 1; r < size; r++) {
            up += value(i, r);
            down += value(i, size - 1 - r);
        }
        EXPECT(memcmp(&buf[i], &up, sizeof up) == 0);
        other_order += memcmp(&up, &down, sizeof up) != 0;
    }
    EXPECT(buf[n] == -77.0F);
    EXPECT(size < 3 || n < 1000 || other_order > 0); /* the values can tell orders apart */
    free(buf);
}

static void check_one(struct nt_comm *c) {
    const int32_t rank = nt_comm_rank(c), size = nt_comm_size(c);
    OK(nt_comm_barrier(c));
    const int64_t counts[] = {0, 1, 2, 3, 7, 576, 5003, 40001, (1 << 20) + 3};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) check_sum(c, counts[i]);
    for (int32_t root = 0; root < size; root++) {
        uint8_t bytes[1001];
        memset(bytes, rank == root ? 100 + root : 0, sizeof bytes);
        OK(nt_comm_broadcast(c, bytes, sizeof bytes, root));
        for (size_t i = 0; i < sizeof bytes; i++) EXPECT(bytes[i] == 100 + root);
    }
    int64_t max[3] = {rank, -rank, INT64_MIN + rank}, sum[2] = {rank, (int64_t)1 << 40};
    OK(nt_comm_allreduce_max_i64(c, max, 3));
    OK(nt_comm_allreduce_sum_i64(c, sum, 2));
    EXPECT(max[0] == size - 1 && max[1] == 0 && max[2] == INT64_MIN + size - 1);
    EXPECT(sum[0] == (int64_t)size * (size - 1) / 2 && sum[1] == size * ((int64_t)1 << 40));
    char mine[5] = {(char)('a' + rank), 'x', 'y', 'z', (char)('A' + rank)}, *all = malloc((size_t)size * sizeof mine);
    EXPECT(all != NULL);
    OK(nt_comm_allgather(c, mine, all, sizeof mine));
    for (int32_t r = 0; r < size; r++)
        EXPECT(all[5 * r] == 'a' + r && all[5 * r + 3] == 'z' && all[5 * r + 4] == 'A' + r);
    free(all);
}

static void mode_collectives(struct nt_world *w, char **args) {
    const int32_t tp = (int32_t)strtol(args[0], NULL, 10);
    EXPECT(nt_world_split(w, w->size + 1) == NT_E_CONFIG); /* no divisor, and no rank waits for another */
    OK(nt_world_split(w, tp));
    EXPECT(w->tp_size == tp && w->dp_size == w->size / tp);
    EXPECT(w->tp_rank + w->dp_rank * tp == w->rank); /* tp neighbours are consecutive */
    EXPECT(nt_comm_rank(w->tp) == w->tp_rank && nt_comm_size(w->tp) == w->tp_size);
    EXPECT(nt_comm_rank(w->dp) == w->dp_rank && nt_comm_size(w->dp) == w->dp_size);
    EXPECT(w->node_size >= 1 && w->node_rank < w->node_size);
    check_one(w->world);
    check_one(w->tp);
    check_one(w->dp);
}

/* The proportional set size in KiB of the mapping that holds p: a page shared by k processes counts 1/k. */
static int64_t pss_kib(const void *p) {
    FILE *f = fopen("/proc/self/smaps", "r");
    EXPECT(f != NULL);
    char line[512];
    bool mine = false;
    long long kib = -1;
    while (kib < 0 && fgets(line, sizeof line, f) != NULL) {
        unsigned long long from, to;
        if (sscanf(line, "%llx-%llx ", &from, &to) == 2) mine = from <= (uintptr_t)p && (uintptr_t)p < to;
        if (mine) (void)sscanf(line, "Pss: %lld kB", &kib);
    }
    (void)fclose(f);
    return kib;
}

static void mode_shared(struct nt_world *w, char **args) {
    OK(nt_world_split(w, (int32_t)strtol(args[0], NULL, 10)));
    const size_t n_words = (size_t)2 << 20; /* 16 MiB */
    struct nt_shared s;
    OK(nt_shared_open(w, n_words * 8 + 8, &s));
    EXPECT((uintptr_t)s.base % 64 == 0 && s.bytes == n_words * 8 + 8);
    uint64_t *words = s.base;
    const uint64_t first = 1000 * (uint64_t)w->tp_rank;
    if (s.leader)
        for (size_t i = 0; i <= n_words; i++) words[i] = first + i;
    OK(nt_shared_ready(w, &s));
    for (size_t i = 0; i <= n_words; i++) EXPECT(words[i] == first + i);

    int64_t leaders = s.leader, *pss = calloc((size_t)w->size, sizeof *pss);
    EXPECT(pss != NULL);
    OK(nt_comm_allreduce_sum_i64(w->world, &leaders, 1));
    OK(nt_comm_barrier(w->world)); /* all have touched all pages */
    const int64_t mine = pss_kib(words);
    OK(nt_comm_allgather(w->world, &mine, pss, sizeof mine));
    int64_t sum = 0;
    for (int32_t r = 0; r < w->size; r++) sum += pss[r];
    const int64_t copies_kib = leaders * (int64_t)(n_words * 8 / 1024);
    EXPECT(sum >= copies_kib && sum < copies_kib + 512 * w->size); /* one copy per leader, nothing private */
    if (w->rank == 0) printf("shared: %d ranks, %lld copies, %lld KiB\n", w->size, (long long)leaders, (long long)sum);
    free(pss);
    nt_shared_close(w, &s);
}

static void compute(double seconds) {
    const double until = nt_now() + seconds;
    while (nt_now() < until) {
    }
}

static void mode_tickets(struct nt_world *w, char **args) {
    (void)args;
    enum { N = 3000 };
    struct nt_ticket *t = NULL, *added = NULL;
    OK(nt_world_split(w, 1));
    OK(nt_ticket_open(w, &t));
    OK(nt_ticket_open(w, &added));
    int64_t *taken = calloc(N, sizeof *taken), first = 0, n_mine = 0, before = 0;
    EXPECT(taken != NULL);
    const int64_t count = 1 + w->rank % 3;
    for (int64_t k = 0; first < N; k++) {
        OK(nt_ticket_next(t, count, &first));
        int64_t n_new = 0, heard = 0;
        for (int64_t i = first; i < first + count && i < N; i++, n_new++) taken[i]++;
        n_mine += n_new;
        OK(nt_ticket_add(added, n_new, &heard));
        EXPECT(heard >= before && heard <= N); /* what a rank hears may be old, but it grows */
        before = heard;
        if (w->rank != 0 || k % 16 != 0) continue;
        compute(0.002); /* rank 0 is busy, but once per step it lets the others be served */
        nt_comm_progress(w);
        if (w->size > 1 && first > N / 2) break; /* it also leaves first and must go on serving while it waits */
    }
    OK(nt_comm_barrier(w->dp));
    OK(nt_comm_allreduce_sum_i64(w->world, taken, N));
    for (int64_t i = 0; i < N; i++) EXPECT(taken[i] == 1);
    int64_t heard = 0;
    OK(nt_ticket_add(added, 0, &heard));
    for (int i = 0; heard != N && i < 5000; i++) { /* the others hear it while rank 0 waits */
        (void)usleep(1000);
        OK(nt_ticket_add(added, 0, &heard));
    }
    EXPECT(heard == N);
    int64_t least = -n_mine;
    OK(nt_comm_allreduce_max_i64(w->world, &least, 1));
    if (w->rank == 0) printf("tickets: %d, the poorest rank got %lld\n", (int)N, (long long)-least);
    free(taken);
    nt_ticket_close(added);
    nt_ticket_close(t);
}

static void mode_agree(struct nt_world *w, char **args) {
    (void)args;
    const int32_t last = w->size - 1;
    OK(nt_comm_agree(w->world, NT_OK));
    nt_status mine = w->rank == last ? NT_FAIL(NT_E_DATA, "row %d is bad", 7) : NT_OK;
    EXPECT(nt_comm_agree(w->world, mine) == NT_E_DATA);
    EXPECT(nt_error_last()->code == NT_E_DATA && strstr(nt_error_last()->text, "row 7 is bad") != NULL);
    char who[32];
    (void)snprintf(who, sizeof who, "rank %d of world: ", last);
    EXPECT((strstr(nt_error_last()->text, who) != NULL) == (w->rank != last));

    mine = NT_FAIL(NT_E_IO, "disk %d is full", w->rank); /* all fail: all report the first */
    EXPECT(nt_comm_agree(w->world, mine) == NT_E_IO);
    EXPECT(strstr(nt_error_last()->text, "disk 0 is full") != NULL);

    mine = w->rank == last ? NT_FAIL(NT_E_IO, "real") : NT_FAIL(NT_E_STOPPED, "stopped");
    EXPECT(nt_comm_agree(w->world, mine) == NT_E_IO); /* a checkpoint does not hide a failure */
    nt_error_clear();
    mine = w->rank == 0 ? NT_E_STOPPED : NT_OK; /* no sentence was recorded */
    EXPECT(nt_comm_agree(w->world, mine) == NT_E_STOPPED);
    OK(nt_comm_agree(w->world, NT_OK));
}

static void mode_die(struct nt_world *w, char **args) {
    float sums[1000] = {0};
    for (int i = 0; i < 5; i++) OK(nt_comm_allreduce_f32(w->world, sums, 1000));
    if (w->rank == 1) {
        FILE *f = fopen(args[1], "w");
        EXPECT(f != NULL && fprintf(f, "%.3f\n", nt_unix_time()) > 0 && fclose(f) == 0);
        if (strcmp(args[0], "kill") == 0) (void)raise(SIGKILL);
        if (strcmp(args[0], "segv") == 0) (void)raise(SIGSEGV);
        if (strcmp(args[0], "abort") == 0) nt_world_abort(66);
        _exit(42);
    }
    for (;;) OK(nt_comm_allreduce_f32(w->world, sums, 1000));
}

static void mode_hang(struct nt_world *w, char **args) {
    struct nt_watchdog *d = NULL;
    OK(nt_world_split(w, w->size));
    OK(nt_watchdog_start(&d, w, args[1], strtod(args[2], NULL)));
    nt_watchdog_beat(d, "forward");
    OK(nt_comm_barrier(w->world));
    OK(nt_comm_barrier(w->tp));
    OK(nt_comm_barrier(w->world));
    if (w->rank == 1) {
        nt_watchdog_beat(d, "read input");
        if (strcmp(args[0], "stop") == 0) {
            (void)usleep(1000000); /* a heartbeat later: a stopped rank can only tell what it told before */
            (void)raise(SIGSTOP);
        }
        if (strcmp(args[0], "sleep") == 0) (void)sleep(3600);
        OK(nt_comm_barrier(w->tp)); /* other: not what the others call */
    }
    float sums[100] = {0};
    OK(nt_comm_allreduce_f32(w->world, sums, 100));
    EXPECT(false && "nobody hung");
}

static void mode_wait(struct nt_world *w, char **args) {
    struct nt_watchdog *d = NULL;
    const double limit_s = strtod(args[1], NULL);
    OK(nt_watchdog_start(&d, w, args[0], limit_s));
    if (w->rank == 1) {
        const double until = nt_now() + 2.5 * limit_s;
        while (nt_now() < until) {
            nt_watchdog_beat(d, "forward");
            (void)usleep(20000);
        }
    }
    OK(nt_comm_barrier(w->world));
    nt_watchdog_stop(d);
    OK(nt_comm_barrier(w->world));
}

static const struct {
    const char *name;
    int n_args;
    void (*run)(struct nt_world *w, char **args);
} mode_table[] = {
    {"collectives", 1, mode_collectives},
    {"shared",      1, mode_shared     },
    {"tickets",     0, mode_tickets    },
    {"agree",       0, mode_agree      },
    {"die",         2, mode_die        },
    {"hang",        3, mode_hang       },
    {"wait",        2, mode_wait       },
};

int main(int argc, char **argv) {
    for (size_t i = 0; argc > 1 && i < sizeof mode_table / sizeof *mode_table; i++) {
        if (strcmp(argv[1], mode_table[i].name) != 0 || argc != 2 + mode_table[i].n_args) continue;
        struct nt_world w;
        OK(nt_world_open(&w));
        nt_log_init(w.rank, w.size, false);
        mode_table[i].run(&w, argv + 2);
        if (w.rank == 0) printf("ok %s on %d ranks\n", argv[1], w.size);
        nt_world_close(&w);
        return 0;
    }
    fprintf(stderr, "comm_check: see the top of comm_check.c for the modes\n");
    return 2;
}
