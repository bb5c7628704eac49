/* Whom the watchdog names: one row per judgement, from two readings of the ranks' heartbeats. */
#include "judge.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

enum { MAX_RANKS = 4 };
#define LIMIT 10.0

/* What a rank shows, from the second reading; the first differs where it says so. */
struct seen {
    const char *call, *on; /* NULL: before its first collective */
    int64_t seq;
    bool outside, works, stopped, absent;
    int64_t late;
    int32_t whose;
};

struct row {
    const char *what;
    int32_t size;
    enum nt_verdict verdict;
    const char *says[3]; /* in this order */
    const char * not ;   /* and nowhere */
    struct seen rank[MAX_RANKS];
};

#define TP(n)    .call = "peer sum", .on = "tp", .seq = (n)
#define WORLD(n) .call = "barrier", .on = "world", .seq = (n)

static const struct row rows[] = {
    {"one collective",
     2,                                                   NT_VERDICT_HANG,
     {"one collective that does not end: rank 0 (", "rank 1 ("},
     "device",                                                                                                           {{WORLD(3)}, {WORLD(3)}}                                                                                 },
    {"collectives that differ",
     2,                                                   NT_VERDICT_HANG,
     {"do not meet: rank 0 (", "in barrier #4 on world); rank 1 (", "in peer sum #9 on tp)"},
     "device",                                                                                                           {{WORLD(4)}, {TP(9)}}                                                                                    },
    {"one collective, another number",                 2, NT_VERDICT_HANG, {"do not meet: "},                  "device", {{WORLD(4)}, {WORLD(5)}}                                                                                 },
    {"a device beside another model copy",
     4,                                                   NT_VERDICT_HANG,
     {"all ranks wait for a device: rank 0 (", "rank 3 (", "the device of rank 1 has not come to sum 712 in"},
     "do not meet",                                                                                                      {{TP(9), .late = 712, .whose = 1}, {TP(9)}, {WORLD(2)}, {WORLD(2)}}                                      },
    {"the same, known to another rank than the first",
     4,                                                   NT_VERDICT_HANG,
     {"all ranks wait for a device: ", "the device of rank 3 has not come to sum 5 in"},
     "device of rank 2",                                                                                                 {{WORLD(2)}, {WORLD(2)}, {TP(9), .late = 5, .whose = 3}, {TP(9), .late = 5, .whose = 3}}                 },
    {"two devices, each once",
     4,                                                   NT_VERDICT_HANG,
     {"all ranks wait for a device: ", "the device of rank 0 has not", "the device of rank 2 has not"},
     "meet",                                                                                                             {{TP(9)}, {TP(9), .late = 8, .whose = 0}, {TP(7), .late = 6, .whose = 2}, {TP(7), .late = 6, .whose = 2}}},
    {"a device, all in one sum",
     2,                                                   NT_VERDICT_HANG,
     {"one collective that does not end: ", "the device of rank 1 has not"},
     "all ranks wait for",                                                                                               {{TP(9), .late = 8, .whose = 1}, {TP(9)}}                                                                },
    {"a device, but another copy works",
     4,                                                   NT_VERDICT_WAIT,
     {NULL},
     "rank",                                                                                                             {{TP(9), .late = 8, .whose = 1}, {TP(9)}, {TP(5), .works = true}, {TP(5), .works = true}}                },
    {"a device, but a rank hangs outside",
     4,                                                   NT_VERDICT_HANG,
     {"rank 2 (", "after barrier #2 on world) made no progress for 11 s"},
     "device",                                                                                                           {{TP(9), .late = 8, .whose = 1}, {TP(9)}, {WORLD(2), .outside = true}, {WORLD(2)}}                       },
    {"a rank outside beside one that works",
     3,                                                   NT_VERDICT_HANG,
     {"rank 1 (", "made no progress"},
     "rank 2",                                                                                                           {{WORLD(2)}, {WORLD(1), .outside = true}, {WORLD(2), .works = true}}                                     },
    {"a rank before any collective",
     2,                                                   NT_VERDICT_HANG,
     {"rank 1 (host h, pid 101, doing 'work', before its first collective) made no"},
     "rank 0",                                                                                                           {{WORLD(1)}, {.outside = true}}                                                                          },
    {"a rank that works",                              2, NT_VERDICT_WAIT, {NULL},                             "rank",   {{WORLD(2)}, {WORLD(1), .outside = true, .works = true}}                                                 },
    {"stopped",
     3,                                                   NT_VERDICT_HANG,
     {"rank 2 (", "is stopped or dead: this was its last heartbeat, 60 s ago"},
     "rank 1",                                                                                                           {{WORLD(2)}, {WORLD(1), .outside = true}, {WORLD(1), .stopped = true}}                                   },
    {"gone",                                           2, NT_VERDICT_HANG, {"rank 1 has no heartbeat file"},   "rank 0", {{WORLD(2)}, {.absent = true}}                                                                           },
};

static struct nt_heartbeat beat_of(const struct seen *r, int32_t rank, bool first) {
    struct nt_heartbeat h = {.present = !r->absent,
                             .pid = 100 + rank,
                             .tick = first || r->stopped ? 1 : 2,
                             .progress = r->works && first ? 6 : 7,
                             .seq = r->seq,
                             .idle_s = LIMIT + 1,
                             .time = r->stopped ? 1000 - 60 : 1000,
                             .host = "h",
                             .doing = "work",
                             .inside = !r->outside,
                             .late = r->late,
                             .whose = r->whose};
    if (r->call) (void)snprintf(h.call, sizeof h.call, "%s", r->call);
    if (r->on) (void)snprintf(h.on, sizeof h.on, "%s", r->on);
    return h;
}

static void check(const struct row *r, int32_t me) {
    struct nt_heartbeat before[MAX_RANKS], now[MAX_RANKS];
    struct nt_strbuf s = NT_STRBUF_INIT;
    for (int32_t i = 0; i < r->size; i++) {
        before[i] = beat_of(&r->rank[i], i, true);
        now[i] = beat_of(&r->rank[i], i, false);
    }
    const struct nt_judge j = {
        .before = before, .now = now, .size = r->size, .me = me, .limit_s = LIMIT, .interval_s = 2, .time = 1000};
    const enum nt_verdict verdict = nt_judge(&j, &s);
    const char *at = nt_strbuf_cstr(&s);
    bool right = verdict == r->verdict && !strstr(at, r->not );
    for (int i = 0; i < 3 && r->says[i]; i++) {
        at = at ? strstr(at, r->says[i]) : NULL;
        right = right && at;
    }
    if (!right) fail_msg("%s, seen by rank %d: verdict %d, \"%s\"", r->what, me, (int)verdict, nt_strbuf_cstr(&s));
    nt_strbuf_release(&s);
}

static void test_table(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) check(&rows[i], 0);
}

/* Whoever judges says the same, but nobody calls itself stopped. */
static void test_judges(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int32_t me = 1; me < rows[i].size; me++)
            if (!rows[i].rank[me].stopped && !rows[i].rank[me].absent) check(&rows[i], me);
}

static void test_stale(void **state) {
    (void)state;
    assert_true(nt_judge_stale_s(300, 0.5) == 150);
    assert_true(nt_judge_stale_s(2, 0.5) == nt_judge_stale_s(1, 1)); /* what a slow write may take */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_judges),
        cmocka_unit_test(test_stale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
