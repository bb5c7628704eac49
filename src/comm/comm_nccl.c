#include "comm_device.h"
#include "clock.h"
#include "comm_impl.h"
#include "gpu_api.h"
#include "log.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct nt_device_comm {
    struct nt_comm *host;
    struct nt_device_stream stream;
    struct nt_gpu_nccl nccl;
    void *comm; /* ncclComm_t */
    struct nt_device_queued queued;
    int64_t waited; /* those of them that a wait has seen done */
    bool noted;     /* some were others' */
    struct nt_device_comm *pair;
    bool later; /* the second of the pair */
    void (*look)(void *arg);
    void *look_arg;
};

enum { LOOK_EVERY_S = 1 };

/* The newest collective is named with its number, by which the logs of ranks can be compared. */
static nt_status fail(const struct nt_device_comm *d, int error, const char *call) {
    const char *what = d->nccl.ncclGetErrorString(error), *more = d->comm ? d->nccl.ncclGetLastError(d->comm) : NULL;
    const bool adds = more && more[0] && strcmp(more, what) != 0;
    char number[32] = "";
    if (call == d->queued.newest) (void)snprintf(number, sizeof number, " #%lld", (long long)d->queued.n);
    return NT_FAIL(NT_E_COMM, "NCCL, rank %d of %s: %s%s: %s%s%s", d->host->rank, d->host->name, call, number, what,
                   adds ? ": " : "", adds ? more : "");
}

static void pause_briefly(void) {
    const struct timespec t = {.tv_nsec = 20000};
    (void)nanosleep(&t, NULL);
}

/* A communicator that does not block answers "in progress" until its connections stand. */
static nt_status settle(struct nt_device_comm *d, int result, const char *call) {
    while (result == NT_NCCL_IN_PROGRESS) {
        int now = NT_NCCL_OK;
        pause_briefly();
        result = d->nccl.ncclCommGetAsyncError(d->comm, &now);
        if (result == NT_NCCL_OK) result = now;
    }
    return result == NT_NCCL_OK ? NT_OK : fail(d, result, call);
}

/* Every rank has the library, or none uses it. */
static nt_status everyone_has(struct nt_device_comm *d, bool *all) {
    int64_t without = nt_gpu_nccl_open(&d->nccl) != NT_OK;
    if (without) {
        if (d->host->rank == 0)
            nt_warn("comm", "%s; sums over the ranks of %s go through host memory, which is slow",
                    nt_error_last()->text, d->host->name);
        nt_error_clear();
    }
    NT_TRY(nt_comm_allreduce_max_i64(d->host, &without, 1));
    *all = !without;
    return NT_OK;
}

static nt_status connect_ranks(struct nt_device_comm *d) {
    struct nt_nccl_unique_id id = {0};
    nt_status st = NT_OK;
    if (d->host->rank == 0) {
        const int error = d->nccl.ncclGetUniqueId(&id);
        if (error != NT_NCCL_OK) st = fail(d, error, "ncclGetUniqueId");
    }
    NT_TRY(nt_comm_agree(d->host, st));
    NT_TRY(nt_comm_broadcast(d->host, &id, sizeof id, 0));
    struct nt_nccl_config config = {
        .size = sizeof config, .magic = NT_NCCL_CONFIG_MAGIC, .version = NT_NCCL_CONFIG_VERSION};
    nt_comm_trace_begin(d->host->trace, "ncclCommInitRank", d->host->name, ++d->host->seq);
    const int result = d->nccl.ncclCommInitRankConfig(&d->comm, d->host->size, id, d->host->rank, &config);
    st = settle(d, result, "ncclCommInitRank");
    if (st == NT_OK) nt_comm_trace_end(d->host->trace);
    return nt_comm_agree(d->host, st);
}

nt_status nt_device_comm_open(struct nt_comm *c, const struct nt_device_stream *stream, struct nt_device_comm **out) {
    *out = NULL;
    struct nt_device_comm *d = calloc(1, sizeof *d);
    NT_TRY(nt_comm_agree(c, d ? NT_OK : NT_FAIL(NT_E_NOMEM, "no memory for a device communicator")));
    d->host = c;
    d->stream = *stream;
    bool all = false;
    nt_status st = everyone_has(d, &all);
    if (st == NT_OK && all) st = connect_ranks(d);
    if (st != NT_OK || !all) {
        nt_device_comm_close(d);
        return st;
    }
    int version = 0; /* 22809: 2.28.9 */
    (void)d->nccl.ncclGetVersion(&version);
    nt_info("comm", "NCCL %d.%d.%d (%s) over %d ranks of %s", version / 10000, version / 100 % 100, version % 100,
            d->nccl.library, c->size, c->name);
    *out = d;
    return NT_OK;
}

void nt_device_comm_close(struct nt_device_comm *d) {
    if (!d) return;
    if (d->pair) d->pair->pair = NULL;
    if (d->comm) (void)d->nccl.ncclCommDestroy(d->comm);
    free(d);
}

static bool is_fine(int result) {
    return result == NT_NCCL_OK || result == NT_NCCL_IN_PROGRESS;
}

static void count(struct nt_device_comm *d, const char *name) {
    d->queued.n++;
    d->queued.newest = name;
}

static nt_status queue(struct nt_device_comm *d, int result, const char *call) {
    count(d, call);
    return settle(d, result, call);
}

void nt_device_comm_note(struct nt_device_comm *d, const char *name) {
    count(d, name);
    d->noted = true;
}

nt_status nt_device_allreduce_f32(struct nt_device_comm *d, float *buf, int64_t n) {
    const int result = d->nccl.ncclAllReduce(buf, buf, (size_t)n, NT_NCCL_FLOAT32, NT_NCCL_SUM, d->comm,
                                             d->stream.take(d->stream.arg));
    return queue(d, result, "ncclAllReduce");
}

nt_status nt_device_allgather_f32(struct nt_device_comm *d, const float *from, float *to, int64_t n) {
    const int result =
        d->nccl.ncclAllGather(from, to, (size_t)n, NT_NCCL_FLOAT32, d->comm, d->stream.take(d->stream.arg));
    return queue(d, result, "ncclAllGather");
}

nt_status nt_device_alltoall_f32(struct nt_device_comm *d, const float *from, float *to, int64_t n) {
    struct CUstream_st *stream = d->stream.take(d->stream.arg);
    int result = d->nccl.ncclGroupStart();
    for (int32_t r = 0; r < d->host->size && is_fine(result); r++) {
        result = d->nccl.ncclSend(from + r * n, (size_t)n, NT_NCCL_FLOAT32, r, d->comm, stream);
        if (is_fine(result)) result = d->nccl.ncclRecv(to + r * n, (size_t)n, NT_NCCL_FLOAT32, r, d->comm, stream);
    }
    const int ended = d->nccl.ncclGroupEnd();
    return queue(d, is_fine(result) ? ended : result, "ncclSend, ncclRecv");
}

void nt_device_comm_pair(struct nt_device_comm *first, struct nt_device_comm *second) {
    first->pair = second;
    second->pair = first;
    first->later = false;
    second->later = true;
}

void nt_device_comm_look(struct nt_device_comm *d, void (*look)(void *arg), void *arg) {
    d->look = look;
    d->look_arg = arg;
}

void nt_device_comm_late(struct nt_device_comm *d, int32_t rank, int64_t n) {
    atomic_store_explicit(&d->host->trace->whose, rank, memory_order_relaxed);
    atomic_store_explicit(&d->host->trace->late, n, memory_order_relaxed);
}

static void look_again(const struct nt_device_comm *d, double *looked) {
    if (!d->look || nt_now() - *looked < LOOK_EVERY_S) return;
    d->look(d->look_arg);
    *looked = nt_now();
}

struct nt_device_queued nt_device_comm_queued(const struct nt_device_comm *d) {
    return d->queued;
}
void nt_device_comm_set_queued(struct nt_device_comm *d, struct nt_device_queued queued) {
    d->queued = queued;
}

/* An error of the communicator: its kernels spin for a peer that will not come, so it is torn down first. Not where a
 * kernel of others may spin before them in the stream: tearing down waits for what the stream has begun. */
static nt_status give_up(struct nt_device_comm *d, int error) {
    const nt_status st = fail(d, error, d->queued.newest ? d->queued.newest : "NCCL");
    if (d->noted || d->pair) return st;
    (void)d->nccl.ncclCommAbort(d->comm);
    d->comm = NULL;
    return st;
}

static nt_status look_for_errors(struct nt_device_comm *d) {
    int error = NT_NCCL_OK;
    const int result = d->nccl.ncclCommGetAsyncError(d->comm, &error);
    if (result != NT_NCCL_OK) return give_up(d, result);
    return is_fine(error) ? NT_OK : give_up(d, error);
}

static bool is_under_way(const struct nt_device_comm *d) {
    return d->queued.n > d->waited;
}

/* Whose newest collective the trace is to have. */
static struct nt_device_comm *named(struct nt_device_comm *d) {
    struct nt_device_comm *pair = d->pair;
    return pair && is_under_way(pair) && (pair->later || !is_under_way(d)) ? pair : d;
}

nt_status nt_device_comm_wait_for(struct nt_device_comm *d, nt_status (*passed)(void *arg, bool *done), void *arg) {
    if (!d->comm) return NT_FAIL(NT_E_COMM, "the device communicator of %s was aborted", d->host->name);
    const struct nt_device_comm *newest = named(d);
    const bool traced = is_under_way(newest);
    if (traced) nt_comm_trace_begin(newest->host->trace, newest->queued.newest, newest->host->name, newest->queued.n);
    double looked = nt_now();
    for (bool done = false; !done; done ? (void)0 : pause_briefly()) {
        look_again(d, &looked);
        NT_TRY(look_for_errors(d));
        if (d->pair) NT_TRY(look_for_errors(d->pair));
        NT_TRY(passed(arg, &done));
    }
    nt_device_comm_late(d, 0, 0);
    if (traced) nt_comm_trace_end(newest->host->trace);
    return NT_OK;
}

nt_status nt_device_comm_wait(struct nt_device_comm *d) {
    NT_TRY(nt_device_comm_wait_for(d, d->stream.query, d->stream.arg));
    d->waited = d->queued.n;
    if (d->pair) d->pair->waited = d->pair->queued.n;
    return NT_OK;
}
