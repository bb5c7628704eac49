#include "pool.h"

#include "clock.h"
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A word threads wait on: they spin for a bounded time, then sleep in the kernel until it changes. */
struct gate {
    _Alignas(64) atomic_uint word;
    atomic_int sleepers;
};

struct worker {
    struct nt_pool *pool;
    pthread_t thread;
    int index;
};

struct nt_pool {
    int n_threads;
    int n_started; /* workers, without the caller */
    double spin_s;
    bool pinned;
    cpu_set_t caller_cpus; /* to restore when the pool ends */
    struct worker *workers;

    nt_pool_fn *fn; /* written before start changes, NULL: end */
    void *arg;
    bool running;

    struct gate start;   /* number of runs begun */
    struct gate done;    /* number of runs finished */
    struct gate barrier; /* number of barriers passed */
    _Alignas(64) atomic_int n_busy;
    _Alignas(64) atomic_int n_arrived;
    _Alignas(64) atomic_llong ticket;
};

static inline void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void gate_wait(struct gate *g, unsigned old, double spin_s) {
    double until = 0;
    for (int i = 0;; i++) {
        if (atomic_load_explicit(&g->word, memory_order_acquire) != old) return;
        cpu_relax();
        if (i % 64 != 63) continue;
        double now = nt_now();
        if (until == 0) until = now + spin_s;
        if (now >= until) break;
    }
    /* Counted as a sleeper before the kernel compares the word: gate_open changes the word before it looks for
     * sleepers, so either it sees us and wakes, or the kernel sees the new word and does not sleep. */
    atomic_fetch_add(&g->sleepers, 1);
    while (atomic_load(&g->word) == old) (void)syscall(SYS_futex, &g->word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&g->sleepers, 1);
}

static void gate_open(struct gate *g) {
    atomic_fetch_add(&g->word, 1u);
    if (atomic_load(&g->sleepers) > 0) (void)syscall(SYS_futex, &g->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void *worker_main(void *arg) {
    const struct worker *w = arg;
    struct nt_pool *p = w->pool;
    for (unsigned seen = 0;; seen++) {
        gate_wait(&p->start, seen, p->spin_s);
        if (!p->fn) return NULL;
        p->fn(p->arg, w->index, p->n_threads);
        if (atomic_fetch_sub(&p->n_busy, 1) == 1) gate_open(&p->done);
    }
}

/* CPUs of this rank's threads, and whether each thread may be bound to one. Launchers often divide the node already:
 * our set is then smaller than the one of our parent (mpirun, slurmstepd), which stands for the node. */
static int choose_cpus(cpu_set_t *cpus, int rank_on_node, int ranks_on_node, bool *exact) {
    cpu_set_t ours, parent;
    *exact = true;
    CPU_ZERO(cpus);
    if (sched_getaffinity(0, sizeof ours, &ours) != 0) { /* more than 1024 CPUs: no binding */
        *exact = false;
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        return online > ranks_on_node ? (int)(online / ranks_on_node) : 1;
    }
    int n_ours = CPU_COUNT(&ours);
    int n_node = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (sched_getaffinity(getppid(), sizeof parent, &parent) == 0 && CPU_COUNT(&parent) >= n_ours)
        n_node = CPU_COUNT(&parent);
    if (n_ours * ranks_on_node <= n_node) { /* all ours */
        *cpus = ours;
        return n_ours;
    }
    if (n_ours < n_node) { /* shared with some ranks, we do not know which: right number, no binding */
        *exact = false;
        int n = n_node / ranks_on_node;
        return n < 1 ? 1 : n < n_ours ? n : n_ours;
    }
    /* shared with all ranks of the node: take our slice */
    int n = n_ours / ranks_on_node;
    if (n == 0) { /* more ranks than CPUs */
        *exact = false;
        return 1;
    }
    int skip = n * rank_on_node, left = n;
    for (size_t cpu = 0; cpu < CPU_SETSIZE && left > 0; cpu++) {
        if (!CPU_ISSET(cpu, &ours) || skip-- > 0) continue;
        CPU_SET(cpu, cpus);
        left--;
    }
    return n;
}

static void pin_thread(pthread_t thread, const cpu_set_t *cpus, int index) {
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, cpus) || index-- > 0) continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        (void)pthread_setaffinity_np(thread, sizeof one, &one); /* a wish: slower without */
        return;
    }
}

/* Signals belong to the main thread: workers are born with all of them blocked. */
static nt_status start_workers(struct nt_pool *p, const cpu_set_t *cpus) {
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    nt_status status = NT_OK;
    for (int i = 1; i < p->n_threads; i++) {
        struct worker *w = &p->workers[i];
        *w = (struct worker){.pool = p, .index = i};
        int e = pthread_create(&w->thread, NULL, worker_main, w);
        if (e != 0) {
            status = NT_FAIL(NT_E_SYSTEM, "cannot start thread %d of %d: %s; lower run.threads or raise ulimit -u",
                             i + 1, p->n_threads, strerror(e));
            break;
        }
        p->n_started++;
        if (p->pinned) pin_thread(w->thread, cpus, i);
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

nt_status nt_pool_new(struct nt_pool **out, int n_threads, bool pin, int rank_on_node, int ranks_on_node) {
    NT_CHECK(n_threads >= 0 && ranks_on_node >= 1 && rank_on_node >= 0 && rank_on_node < ranks_on_node);
    cpu_set_t cpus;
    bool exact = false;
    int n_cpus = choose_cpus(&cpus, rank_on_node, ranks_on_node, &exact);
    if (n_threads == 0) n_threads = n_cpus;

    struct nt_pool *p = aligned_alloc(64, sizeof *p);
    struct worker *workers = calloc((size_t)n_threads, sizeof *workers);
    if (!p || !workers) {
        free(p);
        free(workers);
        return NT_FAIL(NT_E_NOMEM, "no memory for a pool of %d threads", n_threads);
    }
    memset(p, 0, sizeof *p);
    p->workers = workers;
    p->n_threads = n_threads;
    /* Two threads on one CPU: the one that spins keeps the one it waits for from running. */
    p->spin_s = n_threads <= n_cpus ? 100e-6 : 2e-6;
    p->pinned = pin && exact && n_threads > 1 && n_threads <= n_cpus &&
                sched_getaffinity(0, sizeof p->caller_cpus, &p->caller_cpus) == 0;
    nt_status status = start_workers(p, &cpus);
    if (status != NT_OK) {
        p->pinned = false;
        nt_pool_free(p);
        return nt_trail_at(status, __FILE__, __LINE__);
    }
    if (p->pinned) pin_thread(pthread_self(), &cpus, 0);
    *out = p;
    return NT_OK;
}

void nt_pool_free(struct nt_pool *p) {
    if (!p) return;
    NT_CHECK(!p->running);
    p->fn = NULL;
    gate_open(&p->start);
    for (int i = 1; i <= p->n_started; i++) (void)pthread_join(p->workers[i].thread, NULL);
    if (p->pinned) (void)sched_setaffinity(0, sizeof p->caller_cpus, &p->caller_cpus);
    free(p->workers);
    free(p);
}

int nt_pool_size(const struct nt_pool *p) {
    return p->n_threads;
}

void nt_pool_run(struct nt_pool *p, nt_pool_fn *fn, void *arg) {
    NT_CHECK(fn != NULL && !p->running);
    p->running = true;
    atomic_store_explicit(&p->ticket, 0, memory_order_relaxed);
    if (p->n_threads > 1) {
        p->fn = fn;
        p->arg = arg;
        unsigned finished = atomic_load_explicit(&p->done.word, memory_order_relaxed);
        atomic_store_explicit(&p->n_busy, p->n_threads, memory_order_relaxed);
        gate_open(&p->start);
        fn(arg, 0, p->n_threads);
        if (atomic_fetch_sub(&p->n_busy, 1) == 1)
            gate_open(&p->done);
        else
            gate_wait(&p->done, finished, p->spin_s);
    } else {
        fn(arg, 0, 1);
    }
    p->running = false;
}

int64_t nt_pool_next(struct nt_pool *p, int64_t n) {
    int64_t i = atomic_fetch_add_explicit(&p->ticket, 1, memory_order_relaxed);
    return i < n ? i : -1;
}

void nt_pool_barrier(struct nt_pool *p) {
    if (p->n_threads == 1) return;
    unsigned passed = atomic_load_explicit(&p->barrier.word, memory_order_relaxed);
    if (atomic_fetch_add(&p->n_arrived, 1) == p->n_threads - 1) {
        atomic_store_explicit(&p->n_arrived, 0, memory_order_relaxed);
        gate_open(&p->barrier);
    } else {
        gate_wait(&p->barrier, passed, p->spin_s);
    }
}

void nt_split(int64_t count, int64_t unit, int i, int n, int64_t *begin, int64_t *end) {
    int64_t units = count / unit + (count % unit != 0);
    int64_t each = units / n, more = units % n; /* the first `more` parts have one unit more */
    int64_t first = each * i + (i < more ? i : more);
    int64_t last = first + each + (i < more ? 1 : 0);
    *begin = first < units ? first * unit : count;
    *end = last < units ? last * unit : count;
}
