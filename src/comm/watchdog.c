#include "watchdog.h"
#include "clock.h"
#include "comm_impl.h"
#include "fileio.h"
#include "judge.h"
#include "log.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, READ_GRACE_S = 8 };

struct nt_watchdog {
    const struct nt_world *w;
    const struct nt_comm_trace *trace;
    double limit_s, interval_s;
    char dir[PATH_BYTES], path[PATH_BYTES]; /* empty: no heartbeat files */
    _Atomic(const char *) doing;
    atomic_int_least64_t n_beats;
    atomic_int_least64_t idle_ms; /* of this rank, as the guard sees it */
    pthread_t heart, guard;
    bool heart_runs;
    pthread_mutex_t lock; /* of the stop flags */
    pthread_cond_t wake;
    bool stop_heart, stop_guard;
};

/* ---- clock ---- */

/* Waits seconds or until *stop; true when stopped. */
static bool wait_or_stop(struct nt_watchdog *d, const bool *stop, double seconds) {
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    const int64_t ns = until.tv_nsec + (int64_t)(seconds * 1e9);
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    (void)pthread_mutex_lock(&d->lock);
    int rc = 0;
    while (!*stop && rc != ETIMEDOUT) rc = pthread_cond_timedwait(&d->wake, &d->lock, &until);
    const bool stopped = *stop;
    (void)pthread_mutex_unlock(&d->lock);
    return stopped;
}

/* Counts seconds in which a number does not change. One step counts two intervals at most: when the whole process was
 * stopped (scontrol suspend, SIGSTOP), the clock ran on but nobody hung. */
struct stillness {
    int64_t value;
    double since, at;
};

static double stillness_update(struct stillness *s, int64_t value, double interval_s) {
    const double now = nt_now();
    const double step = now - s->at < 2 * interval_s ? now - s->at : 2 * interval_s;
    s->at = now;
    s->since = value == s->value ? s->since + step : 0;
    s->value = value;
    return s->since;
}

/* ---- what this rank and the others are doing ---- */

static int64_t own_progress(const struct nt_watchdog *d) {
    return atomic_load_explicit(&d->n_beats, memory_order_relaxed) +
           atomic_load_explicit(&d->trace->n_done, memory_order_relaxed);
}

static void copy_literal(char *out, size_t cap, const char *text) {
    (void)snprintf(out, cap, "%s", text != NULL ? text : "");
}

static void own_heartbeat(const struct nt_watchdog *d, int64_t tick, struct nt_heartbeat *h) {
    memset(h, 0, sizeof *h);
    h->present = true;
    h->pid = (int64_t)getpid();
    h->tick = tick;
    h->progress = own_progress(d);
    h->seq = atomic_load_explicit(&d->trace->seq, memory_order_relaxed);
    h->idle_s = (double)atomic_load_explicit(&d->idle_ms, memory_order_relaxed) / 1000;
    h->time = nt_unix_time();
    copy_literal(h->host, sizeof h->host, d->w->host);
    copy_literal(h->doing, sizeof h->doing, atomic_load_explicit(&d->doing, memory_order_relaxed));
    copy_literal(h->call, sizeof h->call, atomic_load_explicit(&d->trace->last, memory_order_relaxed));
    copy_literal(h->on, sizeof h->on, atomic_load_explicit(&d->trace->on, memory_order_relaxed));
    h->inside = atomic_load_explicit(&d->trace->what, memory_order_relaxed) != NULL;
    h->late = atomic_load_explicit(&d->trace->late, memory_order_relaxed);
    h->whose = atomic_load_explicit(&d->trace->whose, memory_order_relaxed);
}

static void read_rank(const struct nt_watchdog *d, int32_t rank, struct nt_heartbeat *h) {
    char path[PATH_BYTES];
    memset(h, 0, sizeof *h);
    if (nt_heartbeat_path(path, sizeof path, d->dir, rank)) nt_heartbeat_read(path, h);
}

/* ---- the end ---- */

/* Reading heartbeats may hang with the file system that made the ranks hang: the alarm ends this process then. */
static void arm_alarm(unsigned int seconds) {
    sigset_t alarm_only;
    (void)sigemptyset(&alarm_only);
    (void)sigaddset(&alarm_only, SIGALRM);
    (void)signal(SIGALRM, SIG_DFL);
    (void)pthread_sigmask(SIG_UNBLOCK, &alarm_only, NULL);
    (void)alarm(seconds);
}

static _Noreturn void end_job(const char *sentence) {
    nt_log_at(NT_LOG_ERROR, "watchdog", "%s", sentence);
    nt_world_abort(nt_status_exit_code(NT_E_COMM));
}

/* This rank stood still for the limit: returns when it waits for a rank that works, else ends the job. */
static void suspect(struct nt_watchdog *d) {
    const int32_t size = d->w->size;
    struct nt_strbuf own = NT_STRBUF_INIT, found = NT_STRBUF_INIT;
    struct nt_heartbeat mine;
    own_heartbeat(d, 0, &mine);
    nt_judge_describe(&own, d->w->rank, &mine);
    nt_strbuf_addf(&own, mine.inside ? ", which waited %.0f s" : ", which made no progress for %.0f s", mine.idle_s);
    if (d->path[0] == 0 && size > 1 &&
        mine.inside) { /* whom it waits for cannot be seen: that rank's own watchdog speaks */
        nt_warn("watchdog", "%s", nt_strbuf_cstr(&own));
        nt_strbuf_release(&own);
        return;
    }
    struct nt_heartbeat *a = d->path[0] != 0 && size > 1 ? calloc(2 * (size_t)size, sizeof *a) : NULL;
    if (a == NULL) {
        nt_strbuf_addf(&own, "; the limit run.watchdog_s is %.0f s; the job ends, start it again to resume",
                       d->limit_s);
        end_job(nt_strbuf_cstr(&own));
    }
    arm_alarm((unsigned int)(READ_GRACE_S + 2 * d->interval_s));
    struct nt_heartbeat *b = a + size;
    for (int32_t r = 0; r < size; r++) read_rank(d, r, &a[r]);
    const bool stopped = wait_or_stop(d, &d->stop_guard, 2.5 * d->interval_s);
    for (int32_t r = 0; r < size; r++) read_rank(d, r, &b[r]);
    a[d->w->rank] = mine;
    own_heartbeat(d, 0, &b[d->w->rank]);
    const struct nt_judge judge = {.before = a,
                                   .now = b,
                                   .size = size,
                                   .me = d->w->rank,
                                   .limit_s = d->limit_s,
                                   .interval_s = d->interval_s,
                                   .time = nt_unix_time()};
    const bool over = stopped || own_progress(d) != mine.progress;
    if (!over && nt_judge(&judge, &found) == NT_VERDICT_HANG) {
        nt_strbuf_addf(&found,
                       "noticed by %s; the limit run.watchdog_s is %.0f s; the job ends, start it again to resume",
                       nt_strbuf_cstr(&own), d->limit_s);
        end_job(nt_strbuf_cstr(&found));
    }
    (void)alarm(0);
    if (!over) nt_warn("watchdog", "%s for ranks that still work", nt_strbuf_cstr(&own));
    free(a);
    nt_strbuf_release(&found);
    nt_strbuf_release(&own);
}

/* ---- threads ---- */

static void *guard_main(void *arg) {
    struct nt_watchdog *d = arg;
    struct stillness still = {.value = -1, .at = nt_now()};
    while (!wait_or_stop(d, &d->stop_guard, d->interval_s)) {
        const double idle_s = stillness_update(&still, own_progress(d), d->interval_s);
        atomic_store_explicit(&d->idle_ms, (int64_t)(idle_s * 1000), memory_order_relaxed);
        if (idle_s < d->limit_s) continue;
        suspect(d);
        still.since = 0;
        still.at = nt_now();
    }
    return NULL;
}

/* Each rank watches the next one: a stopped rank is found also where nobody waits for it. */
static void watch_next(const struct nt_watchdog *d, struct stillness *still) {
    const int32_t next = (d->w->rank + 1) % d->w->size;
    struct nt_heartbeat h;
    read_rank(d, next, &h);
    if (!h.present) { /* not started yet or ended in order */
        *still = (struct stillness){.value = -1, .at = nt_now()};
        return;
    }
    if (stillness_update(still, h.tick, d->interval_s) < nt_judge_stale_s(d->limit_s, 1)) return;
    struct nt_strbuf s = NT_STRBUF_INIT;
    nt_judge_add_stopped(&s, next, &h, nt_unix_time());
    nt_strbuf_addf(
        &s, "noticed by rank %d (host %s); the limit run.watchdog_s is %.0f s; the job ends, start it again to resume",
        d->w->rank, d->w->host, d->limit_s);
    end_job(nt_strbuf_cstr(&s));
}

static void *heart_main(void *arg) {
    struct nt_watchdog *d = arg;
    struct stillness next = {.value = -1, .at = nt_now()};
    struct nt_heartbeat h;
    bool warned = false;
    int64_t tick = 0;
    do {
        own_heartbeat(d, ++tick, &h);
        if (nt_heartbeat_write(d->path, &h) != NT_OK && !warned) {
            nt_warn("watchdog", "%s", nt_error_last()->text);
            warned = true;
        }
        if (d->w->size > 1) watch_next(d, &next);
    } while (!wait_or_stop(d, &d->stop_heart, d->interval_s));
    return NULL;
}

static nt_status start_thread(pthread_t *t, void *(*fn)(void *), struct nt_watchdog *d) {
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for the main thread */
    const int rc = pthread_create(t, NULL, fn, d);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) return NT_FAIL(NT_E_SYSTEM, "cannot start the watchdog thread: %s", strerror(rc));
    return NT_OK;
}

static void stop_thread(struct nt_watchdog *d, bool *flag, pthread_t t) {
    (void)pthread_mutex_lock(&d->lock);
    *flag = true;
    (void)pthread_cond_broadcast(&d->wake);
    (void)pthread_mutex_unlock(&d->lock);
    (void)pthread_join(t, NULL);
}

static nt_status prepare_dir(struct nt_watchdog *d, const char *dir) {
    const int n = snprintf(d->dir, sizeof d->dir, "%s", dir);
    if (n < 0 || (size_t)n >= sizeof d->dir || !nt_heartbeat_path(d->path, sizeof d->path, dir, d->w->rank))
        return NT_FAIL(NT_E_USAGE, "%s: the path is too long; expected fewer than %d bytes", dir, PATH_BYTES);
    char folder[PATH_BYTES];
    NT_TRY(nt_path_join(folder, sizeof folder, dir, ".heartbeat"));
    NT_TRY(nt_mkdir_p(folder));
    return NT_OK;
}

static void release(struct nt_watchdog *d) {
    (void)pthread_cond_destroy(&d->wake);
    (void)pthread_mutex_destroy(&d->lock);
    free(d);
}

nt_status nt_watchdog_start(struct nt_watchdog **out, const struct nt_world *w, const char *dir, double limit_s) {
    *out = NULL;
    if (limit_s <= 0) return NT_OK;
    struct nt_watchdog *d = calloc(1, sizeof *d);
    if (d == NULL) return NT_FAIL(NT_E_NOMEM, "no memory for the watchdog");
    d->w = w;
    d->trace = w->world->trace;
    d->limit_s = limit_s;
    d->interval_s = limit_s / 5 < 2 ? limit_s / 5 : 2;
    atomic_store(&d->doing, "start");
    (void)pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&d->wake, &attr);
    (void)pthread_condattr_destroy(&attr);

    nt_status st = NT_OK;
    if (dir != NULL) NT_TRY_GOTO(st, fail_dir, prepare_dir(d, dir));
    NT_TRY_GOTO(st, fail_dir, start_thread(&d->guard, guard_main, d));
    if (dir != NULL) NT_TRY_GOTO(st, fail_heart, start_thread(&d->heart, heart_main, d));
    d->heart_runs = dir != NULL;
    *out = d;
    return NT_OK;

fail_heart:
    stop_thread(d, &d->stop_guard, d->guard);
fail_dir:
    release(d);
    return st;
}

void nt_watchdog_beat(struct nt_watchdog *d, const char *doing) {
    if (d == NULL) return;
    atomic_store_explicit(&d->doing, doing, memory_order_relaxed);
    atomic_fetch_add_explicit(&d->n_beats, 1, memory_order_relaxed);
}

void nt_watchdog_stop(struct nt_watchdog *d) {
    if (d == NULL) return;
    if (d->heart_runs) {
        stop_thread(d, &d->stop_heart, d->heart); /* the guard goes on: this may wait for a hanging file system */
        (void)unlink(d->path);
        char folder[PATH_BYTES];
        if (nt_path_join(folder, sizeof folder, d->dir, ".heartbeat") == NT_OK)
            (void)rmdir(folder); /* by the last rank */
    }
    stop_thread(d, &d->stop_guard, d->guard);
    release(d);
}
