#include "judge.h"
#include <string.h>

enum {
    MAX_NAMED = 8,
    STALE_S = 4, /* at least: one slow write to a busy file system is no death, however small the limit */
};

double nt_judge_stale_s(double limit_s, double limits) {
    return limit_s * limits > STALE_S ? limit_s * limits : STALE_S;
}

/* ---- pieces of the sentence ---- */

void nt_judge_describe(struct nt_strbuf *s, int32_t rank, const struct nt_heartbeat *h) {
    nt_strbuf_addf(s, "rank %d (host %s, pid %lld, doing '%s', ", rank, h->host, (long long)h->pid, h->doing);
    if (h->call[0] == 0)
        nt_strbuf_adds(s, "before its first collective)");
    else
        nt_strbuf_addf(s, "%s %s #%lld on %s)", h->inside ? "in" : "after", h->call, (long long)h->seq, h->on);
}

void nt_judge_add_stopped(struct nt_strbuf *s, int32_t rank, const struct nt_heartbeat *h, double time) {
    if (h->present) {
        nt_judge_describe(s, rank, h);
        nt_strbuf_addf(s, " is stopped or dead: this was its last heartbeat, %.0f s ago; ", time - h->time);
    } else {
        nt_strbuf_addf(s, "rank %d has no heartbeat file: it ended or never started its work; ", rank);
    }
}

/* Every device that a rank waits for, once. */
static void add_late(struct nt_strbuf *s, const struct nt_heartbeat *h, int32_t size) {
    for (int32_t r = 0; r < size; r++) {
        int32_t first = 0;
        while (first < r && (h[first].late == 0 || h[first].whose != h[r].whose)) first++;
        if (h[r].late == 0 || first < r) continue;
        nt_strbuf_addf(s,
                       "the device of rank %d has not come to sum %lld in the peers' memory, where the other waits; ",
                       (int)h[r].whose, (long long)h[r].late);
    }
}

/* ---- what is seen ---- */

static bool any_late(const struct nt_heartbeat *h, int32_t size) {
    int32_t r = 0;
    while (r < size && h[r].late == 0) r++;
    return r < size;
}

static bool same_call(const struct nt_heartbeat *h, int32_t size) {
    int32_t n = 0;
    while (n < size && h[n].seq == h[0].seq && strcmp(h[n].call, h[0].call) == 0 && strcmp(h[n].on, h[0].on) == 0) n++;
    return n == size;
}

static bool is_stale(const struct nt_judge *j, int32_t r) {
    const struct nt_heartbeat *a = &j->before[r], *b = &j->now[r];
    if (r == j->me) return false;
    if (!a->present && !b->present) return true;
    return a->present && b->present && a->tick == b->tick && j->time - b->time > nt_judge_stale_s(j->limit_s, 0.5);
}

static bool is_still(const struct nt_judge *j, int32_t r) {
    return j->now[r].idle_s >= j->limit_s - 3 * j->interval_s && j->before[r].progress == j->now[r].progress;
}

/* ---- the verdict ---- */

static bool name_stale(const struct nt_judge *j, struct nt_strbuf *s) {
    bool any = false;
    for (int32_t r = 0; r < j->size; r++) {
        if (!is_stale(j, r)) continue;
        nt_judge_add_stopped(s, r, &j->now[r], j->time);
        any = true;
    }
    return any;
}

/* Ranks that stand still where nobody keeps them. */
static bool name_still(const struct nt_judge *j, struct nt_strbuf *s) {
    bool any = false;
    for (int32_t r = 0; r < j->size; r++) {
        if (!is_still(j, r) || j->now[r].inside) continue;
        nt_judge_describe(s, r, &j->now[r]);
        nt_strbuf_addf(s, " made no progress for %.0f s; ", j->now[r].idle_s);
        any = true;
    }
    return any;
}

static void name_all(const struct nt_judge *j, struct nt_strbuf *s) {
    const struct nt_heartbeat *h = j->now;
    nt_strbuf_adds(s, same_call(h, j->size)  ? "all ranks wait in one collective that does not end: "
                      : any_late(h, j->size) ? "all ranks wait for a device: "
                                             : "all ranks wait in collectives that do not meet: ");
    for (int32_t r = 0; r < j->size && r < MAX_NAMED; r++) {
        nt_judge_describe(s, r, &h[r]);
        nt_strbuf_adds(s, "; ");
    }
    add_late(s, h, j->size);
}

enum nt_verdict nt_judge(const struct nt_judge *j, struct nt_strbuf *s) {
    if (name_stale(j, s) || name_still(j, s)) return NT_VERDICT_HANG;
    for (int32_t r = 0; r < j->size; r++)
        if (!is_still(j, r)) return NT_VERDICT_WAIT;
    name_all(j, s);
    return NT_VERDICT_HANG;
}
