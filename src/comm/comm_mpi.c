/* The MPI back end. Open MPI 4.1 in mind, nothing of it required.
 *
 * MPI_THREAD_FUNNELED: the main thread makes all calls, but for MPI_Abort. Errors return (MPI_ERRORS_RETURN) and become
 * sentences. MPI promises no order of additions in MPI_Allreduce, so float sums are made here from data movement alone:
 * few bytes are gathered everywhere and added, many are added slice by slice, each slice on one rank, always in the
 * order of the ranks. Both ways do the same additions, so both give the same bits. */
#include "comm_impl.h"
#include <limits.h>
#include <mpi.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    CHUNK_FLOATS = 1 << 20,    /* bounds the scratch memory and keeps counts far from INT_MAX */
    GATHER_BYTES = 64 << 10,   /* up to this many received bytes latency decides, not traffic */
    BROADCAST_BYTES = 1 << 30, /* per call: counts are int */
    ABORT_GRACE_S = 5,         /* MPI_Abort that does not return by then is cut short by SIGALRM */
    TICKETS_AHEAD = 4,         /* reserved per rank: more would leave rows to a busy rank at the end of a job */
    LINGER_US = 200,           /* rank 0 serves until nobody asked for so long: a rank that fills up asks often */
    WAIT_SPINS = 1000,
    SHARED_SLACK_BYTES = 1024 * 1024, /* page rounding and the state of the window */
};

struct mpi_comm {
    struct nt_comm base;
    MPI_Comm handle;
    int *counts, *displs, *sends, *send_displs; // [size] each, one block
    float *scratch;
    size_t scratch_bytes;
    MPI_Comm node, share;       /* of the world only: ranks of this node; those of them with my tp index */
    struct mpi_ticket *tickets; /* of the world only: the open counters that rank 0 serves by messages */
    struct mpi_comm *served;    /* the world, where rank 0 is a member and must serve while it waits; else NULL */
};

struct mpi_shared {
    MPI_Win win;
    MPI_Comm share; /* borrowed */
};

/* On one node a counter is a window (an atomic in shared memory). Between nodes it is not: one-sided calls need a
 * transport with RDMA (Debian's Open MPI refuses windows over TCP), so rank 0 answers messages, in nt_comm_progress and
 * whenever it waits for the others. A rank asks for some ranges ahead, so that an answer is there when it needs one. */
struct mpi_ticket {
    struct nt_ticket base;
    struct mpi_comm *world;
    MPI_Win win; /* MPI_WIN_NULL: by messages */
    int64_t *counter;
    MPI_Comm comm;
    struct mpi_ticket *next_open;
    int64_t value;                    /* rank 0: the counter; others: the sum as last heard (nt_ticket_add) */
    MPI_Request asked[TICKETS_AHEAD]; /* answers on their way, oldest at head; nt_ticket_add uses the first only */
    int64_t answers[TICKETS_AHEAD], asked_count;
    int head;
};

struct ticket_request {
    int64_t count, wants_answer;
};

static nt_status mpi_fail(int rc, const char *call, const char *file, int line) {
    char text[MPI_MAX_ERROR_STRING + 1] = "";
    int len = 0;
    if (MPI_Error_string(rc, text, &len) != MPI_SUCCESS) len = 0;
    text[len] = 0;
    const size_t name_len = strcspn(call, "(");
    return nt_fail_at(NT_E_COMM, file, line,
                      "%.*s failed: %s; the ranks can no longer work together, start the job again", (int)name_len,
                      call, len > 0 ? text : "unknown MPI error");
}

#define NT_MPI(call)                                                                                                   \
    do {                                                                                                               \
        const int nt_rc_ = (call);                                                                                     \
        if (nt_rc_ != MPI_SUCCESS) return mpi_fail(nt_rc_, #call, __FILE__, __LINE__);                                 \
    } while (0)

static nt_status serve_tickets(struct mpi_comm *world, int64_t *n_served);

static struct mpi_comm *self_of(struct nt_comm *c) {
    return (struct mpi_comm *)c;
}

/* ---- world ---- */

/* Takes over the handle. */
static nt_status comm_new(MPI_Comm handle, const char *name, struct nt_comm_trace *trace, struct nt_comm **out) {
    int rank = 0, size = 1;
    NT_MPI(MPI_Comm_set_errhandler(handle, MPI_ERRORS_RETURN));
    NT_MPI(MPI_Comm_rank(handle, &rank));
    NT_MPI(MPI_Comm_size(handle, &size));
    struct mpi_comm *c = calloc(1, sizeof *c);
    int *counts = calloc(4 * (size_t)size, sizeof *counts);
    if (c == NULL || counts == NULL) {
        free(c);
        free(counts);
        return NT_FAIL(NT_E_NOMEM, "no memory for a communicator of %d ranks", size);
    }
    c->base = (struct nt_comm){.be = &nt_comm_mpi, .name = name, .rank = rank, .size = size, .trace = trace};
    c->handle = handle;
    c->counts = counts;
    c->displs = counts + size;
    c->sends = counts + 2 * (size_t)size;
    c->send_displs = counts + 3 * (size_t)size;
    c->node = c->share = MPI_COMM_NULL;
    *out = &c->base;
    return NT_OK;
}

static void comm_free(struct nt_comm *base) {
    if (base == NULL) return;
    struct mpi_comm *c = self_of(base);
    if (c->share != MPI_COMM_NULL) (void)MPI_Comm_free(&c->share);
    if (c->node != MPI_COMM_NULL) (void)MPI_Comm_free(&c->node);
    (void)MPI_Comm_free(&c->handle);
    free(c->scratch);
    free(c->counts);
    free(c);
}

static nt_status mpi_world_open(struct nt_world *w, struct nt_comm_trace *trace) {
    int provided = MPI_THREAD_SINGLE;
    NT_MPI(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided));
    if (provided < MPI_THREAD_FUNNELED)
        return NT_FAIL(NT_E_COMM,
                       "this MPI library has no MPI_THREAD_FUNNELED (level %d), but worker threads need it; "
                       "use an MPI built with thread support",
                       provided);
    NT_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    NT_MPI(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN));
    MPI_Comm handle;
    NT_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &handle));
    NT_TRY(comm_new(handle, "world", trace, &w->world));
    w->rank = w->world->rank;
    w->size = w->world->size;
    struct mpi_comm *world = self_of(w->world);
    world->served = world;
    NT_MPI(MPI_Comm_split_type(handle, MPI_COMM_TYPE_SHARED, w->rank, MPI_INFO_NULL, &world->node));
    NT_MPI(MPI_Comm_set_errhandler(world->node, MPI_ERRORS_RETURN));
    int rank = 0, size = 1;
    NT_MPI(MPI_Comm_rank(world->node, &rank));
    NT_MPI(MPI_Comm_size(world->node, &size));
    w->node_rank = rank;
    w->node_size = size;
    if (gethostname(w->host, sizeof w->host - 1) != 0) w->host[0] = 0;
    return NT_OK;
}

static nt_status mpi_world_split(struct nt_world *w) {
    struct mpi_comm *world = self_of(w->world);
    MPI_Comm tp, dp;
    NT_MPI(MPI_Comm_split(world->handle, w->dp_rank, w->rank, &tp));
    NT_TRY(comm_new(tp, "tp", w->world->trace, &w->tp));
    NT_MPI(MPI_Comm_split(world->handle, w->tp_rank, w->rank, &dp));
    NT_TRY(comm_new(dp, "dp", w->world->trace, &w->dp));
    if (w->tp_rank == 0) self_of(w->dp)->served = world;
    NT_MPI(MPI_Comm_split(world->node, w->tp_rank, w->rank, &world->share));
    NT_MPI(MPI_Comm_set_errhandler(world->share, MPI_ERRORS_RETURN));
    return NT_OK;
}

static void mpi_world_close(struct nt_world *w) {
    comm_free(w->dp);
    comm_free(w->tp);
    comm_free(w->world);
    (void)MPI_Finalize();
}

_Noreturn void nt_world_abort(int exit_code) {
    int up = 0, down = 0;
    if (MPI_Initialized(&up) == MPI_SUCCESS && up && MPI_Finalized(&down) == MPI_SUCCESS && !down) {
        /* The main thread may be stuck inside MPI and this call with it: then the alarm kills this process, and the
         * launcher, which sees a rank die, the others. */
        sigset_t alarm_only;
        (void)sigemptyset(&alarm_only);
        (void)sigaddset(&alarm_only, SIGALRM);
        (void)signal(SIGALRM, SIG_DFL);
        (void)pthread_sigmask(SIG_UNBLOCK, &alarm_only, NULL);
        (void)alarm(ABORT_GRACE_S);
        (void)MPI_Abort(MPI_COMM_WORLD, exit_code);
    }
    _exit(exit_code);
}

/* ---- collectives ---- */

/* While rank 0 answers ticket messages it must not block for ranks that may still ask: all wait here first, where rank
 * 0 goes on answering. Collectives of tp need none of it: a step is short and only tp rank 0 asks. */
static nt_status meet(struct nt_comm *base) {
    const struct mpi_comm *c = self_of(base);
    if (c->served == NULL || c->served->tickets == NULL) return NT_OK;
    MPI_Request all_here;
    NT_MPI(MPI_Ibarrier(c->handle, &all_here));
    if (c->served->base.rank != 0) {
        NT_MPI(MPI_Wait(&all_here, MPI_STATUS_IGNORE));
        return NT_OK;
    }
    int done = 0;
    int64_t n_served = 0;
    for (int64_t spins = 0; !done; spins++) {
        NT_TRY(serve_tickets(c->served, &n_served));
        NT_MPI(MPI_Test(&all_here, &done, MPI_STATUS_IGNORE));
        if (!done && spins > WAIT_SPINS) (void)usleep(50); /* the wait may be long, and the core is wanted */
    }
    return NT_OK;
}

static nt_status mpi_barrier(struct nt_comm *c) {
    NT_TRY(meet(c));
    NT_MPI(MPI_Barrier(self_of(c)->handle));
    return NT_OK;
}

static nt_status mpi_broadcast(struct nt_comm *c, void *buf, size_t bytes, int32_t root) {
    NT_TRY(meet(c));
    uint8_t *at = buf;
    while (bytes > 0) {
        const int n = bytes < BROADCAST_BYTES ? (int)bytes : BROADCAST_BYTES;
        NT_MPI(MPI_Bcast(at, n, MPI_BYTE, root, self_of(c)->handle));
        at += n;
        bytes -= (size_t)n;
    }
    return NT_OK;
}

static nt_status mpi_allgather(struct nt_comm *c, const void *mine, void *all, size_t bytes_each) {
    if (bytes_each > INT_MAX)
        return NT_FAIL(NT_E_COMM, "allgather of %zu bytes per rank; expected at most %d", bytes_each, INT_MAX);
    NT_TRY(meet(c));
    const int n = (int)bytes_each;
    NT_MPI(MPI_Allgather(mine, n, MPI_BYTE, all, n, MPI_BYTE, self_of(c)->handle));
    return NT_OK;
}

static nt_status mpi_allreduce_i64(struct nt_comm *c, int64_t *buf, int64_t n, enum nt_comm_op op) {
    NT_TRY(meet(c));
    for (int64_t at = 0; at < n; at += CHUNK_FLOATS) {
        const int len = n - at < CHUNK_FLOATS ? (int)(n - at) : CHUNK_FLOATS;
        NT_MPI(MPI_Allreduce(MPI_IN_PLACE, buf + at, len, MPI_INT64_T, op == NT_COMM_MAX ? MPI_MAX : MPI_SUM,
                             self_of(c)->handle));
    }
    return NT_OK;
}

static nt_status need_scratch(struct mpi_comm *c, size_t n_floats) {
    const size_t bytes = n_floats * sizeof(float);
    if (bytes <= c->scratch_bytes) return NT_OK;
    free(c->scratch);
    c->scratch = NULL;
    c->scratch_bytes = 0;
    c->scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (c->scratch == NULL) return NT_FAIL(NT_E_NOMEM, "no memory for %zu bytes to add up over ranks", bytes);
    c->scratch_bytes = bytes;
    return NT_OK;
}

/* scratch [size, n] -> out [n], added in the order of the ranks. */
static void add_rows(const struct mpi_comm *c, float *out, int n) {
    memcpy(out, c->scratch, (size_t)n * sizeof *out);
    for (int r = 1; r < c->base.size; r++) nt_comm_add_f32(out, c->scratch + (size_t)r * (size_t)n, n);
}

static nt_status sum_gathered(struct mpi_comm *c, float *buf, int n) {
    NT_TRY(need_scratch(c, (size_t)c->base.size * (size_t)n));
    NT_MPI(MPI_Allgather(buf, n, MPI_FLOAT, c->scratch, n, MPI_FLOAT, c->handle));
    add_rows(c, buf, n);
    return NT_OK;
}

/* Rank i adds slice i of all ranks, then the sums are gathered. */
static nt_status sum_sliced(struct mpi_comm *c, float *buf, int n) {
    const int size = c->base.size, rank = c->base.rank;
    for (int i = 0; i < size; i++) {
        c->send_displs[i] = (int)((int64_t)n * i / size);
        c->sends[i] = (int)((int64_t)n * (i + 1) / size) - c->send_displs[i];
    }
    const int mine = c->sends[rank];
    for (int i = 0; i < size; i++) {
        c->counts[i] = mine;
        c->displs[i] = i * mine;
    }
    NT_TRY(need_scratch(c, (size_t)size * (size_t)mine));
    NT_MPI(MPI_Alltoallv(buf, c->sends, c->send_displs, MPI_FLOAT, c->scratch, c->counts, c->displs, MPI_FLOAT,
                         c->handle));
    if (mine > 0) add_rows(c, buf + c->send_displs[rank], mine);
    NT_MPI(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, buf, c->sends, c->send_displs, MPI_FLOAT, c->handle));
    return NT_OK;
}

static nt_status mpi_allreduce_f32(struct nt_comm *base, float *buf, int64_t n) {
    struct mpi_comm *c = self_of(base);
    NT_TRY(meet(base));
    for (int64_t at = 0; at < n; at += CHUNK_FLOATS) {
        const int len = n - at < CHUNK_FLOATS ? (int)(n - at) : CHUNK_FLOATS;
        /* Between two ranks both ways move the same bytes and gathering needs one message less. */
        const bool gather = c->base.size == 2 || (int64_t)len * 4 * (c->base.size - 1) <= GATHER_BYTES;
        NT_TRY(gather ? sum_gathered(c, buf + at, len) : sum_sliced(c, buf + at, len));
    }
    return NT_OK;
}

/* ---- shared memory of a node ---- */

/* The window lives in a file of /dev/shm; where that is too small, the pages would be missing at the first write
 * (SIGBUS), so the leader looks first and all follow. */
static nt_status room_for_window(MPI_Comm share, size_t bytes, bool leader, bool *room) {
    int ok = 1;
    struct statvfs fs;
    if (leader && statvfs("/dev/shm", &fs) == 0) {
        size_t need;
        ok = !__builtin_add_overflow(bytes, (size_t)SHARED_SLACK_BYTES, &need) &&
             need / fs.f_frsize < (size_t)fs.f_bavail;
    }
    NT_MPI(MPI_Bcast(&ok, 1, MPI_INT, 0, share));
    *room = ok != 0;
    return NT_OK;
}

static nt_status window_open(MPI_Comm share, size_t bytes, bool leader, struct nt_shared *s) {
    MPI_Win win = MPI_WIN_NULL;
    void *mine = NULL;
    /* MPI aligns to 8 bytes only: take 64 more and start at a multiple. */
    NT_MPI(MPI_Win_allocate_shared(leader ? (MPI_Aint)(bytes + 64) : 0, 1, MPI_INFO_NULL, share, &mine, &win));
    NT_MPI(MPI_Win_set_errhandler(win, MPI_ERRORS_RETURN));
    MPI_Aint size = 0;
    int unit = 1;
    uint8_t *base = NULL;
    NT_MPI(MPI_Win_shared_query(win, 0, &size, &unit, &base));
    /* The same offset on all ranks: mappings begin at pages, so what aligns one aligns all; the check is for all. */
    int64_t skip = (int64_t)(-(uintptr_t)base & 63);
    NT_MPI(MPI_Bcast(&skip, 1, MPI_INT64_T, 0, share));
    int aligned = ((uintptr_t)(base + skip) & 63) == 0;
    NT_MPI(MPI_Allreduce(MPI_IN_PLACE, &aligned, 1, MPI_INT, MPI_LAND, share));
    struct mpi_shared *impl = aligned ? malloc(sizeof *impl) : NULL;
    int usable = impl != NULL;
    NT_MPI(MPI_Allreduce(MPI_IN_PLACE, &usable, 1, MPI_INT, MPI_LAND, share));
    if (!usable) {
        free(impl);
        NT_MPI(MPI_Win_free(&win));
        return NT_OK;
    }
    NT_MPI(MPI_Win_lock_all(MPI_MODE_NOCHECK, win));
    *impl = (struct mpi_shared){.win = win, .share = share};
    s->base = base + skip;
    s->leader = leader;
    s->impl = impl;
    return NT_OK;
}

static nt_status mpi_shared_open(struct nt_world *w, size_t bytes, struct nt_shared *s) {
    const MPI_Comm share = self_of(w->world)->share;
    int rank = 0, size = 1;
    NT_MPI(MPI_Comm_rank(share, &rank));
    NT_MPI(MPI_Comm_size(share, &size));
    if (size == 1) return NT_OK;
    bool room = false;
    NT_TRY(room_for_window(share, bytes, rank == 0, &room));
    if (room) NT_TRY(window_open(share, bytes, rank == 0, s));
    return NT_OK;
}

static nt_status mpi_shared_ready(struct nt_world *w, struct nt_shared *s) {
    (void)w;
    const struct mpi_shared *impl = s->impl;
    NT_MPI(MPI_Win_sync(impl->win)); /* leader: my stores before the barrier */
    NT_MPI(MPI_Barrier(impl->share));
    NT_MPI(MPI_Win_sync(impl->win)); /* others: no load from before it */
    return NT_OK;
}

static void mpi_shared_close(struct nt_world *w, struct nt_shared *s) {
    (void)w;
    struct mpi_shared *impl = s->impl;
    (void)MPI_Win_unlock_all(impl->win);
    (void)MPI_Win_free(&impl->win);
    free(impl);
}

/* ---- tickets ---- */

static nt_status ticket_window(struct mpi_ticket *t) {
    const bool home = t->world->base.rank == 0;
    NT_MPI(MPI_Win_allocate(home ? (MPI_Aint)sizeof(int64_t) : 0, (int)sizeof(int64_t), MPI_INFO_NULL, t->world->handle,
                            &t->counter, &t->win));
    NT_MPI(MPI_Win_set_errhandler(t->win, MPI_ERRORS_RETURN));
    NT_MPI(MPI_Win_lock_all(0, t->win));
    if (home) *t->counter = 0;
    NT_MPI(MPI_Win_sync(t->win));
    NT_MPI(MPI_Barrier(t->world->handle));
    return NT_OK;
}

static nt_status ticket_messages(struct mpi_ticket *t) {
    NT_TRY(meet(&t->world->base));
    NT_MPI(MPI_Comm_dup(t->world->handle, &t->comm));
    NT_MPI(MPI_Comm_set_errhandler(t->comm, MPI_ERRORS_RETURN));
    t->next_open = t->world->tickets;
    t->world->tickets = t;
    return NT_OK;
}

static nt_status mpi_ticket_open(struct nt_world *w, struct nt_ticket **out) {
    struct mpi_ticket *t = calloc(1, sizeof *t);
    if (t == NULL) return NT_FAIL(NT_E_NOMEM, "no memory for the ticket counter");
    t->world = self_of(w->world);
    t->win = MPI_WIN_NULL;
    t->comm = MPI_COMM_NULL;
    for (int i = 0; i < TICKETS_AHEAD; i++) t->asked[i] = MPI_REQUEST_NULL;
    /* The same on all ranks: a node that holds them all is everybody's node. After an error the job ends: no cleanup.
     */
    NT_TRY(w->node_size == w->size ? ticket_window(t) : ticket_messages(t));
    *out = &t->base;
    return NT_OK;
}

/* Answers what has arrived. */
static nt_status serve_tickets(struct mpi_comm *world, int64_t *n_served) {
    for (struct mpi_ticket *t = world->tickets; t != NULL; t = t->next_open) {
        for (int found = 1; found;) {
            struct ticket_request ask;
            MPI_Status from;
            NT_MPI(MPI_Iprobe(MPI_ANY_SOURCE, 0, t->comm, &found, &from));
            if (!found) break;
            NT_MPI(MPI_Recv(&ask, 2, MPI_INT64_T, from.MPI_SOURCE, 0, t->comm, MPI_STATUS_IGNORE));
            /* 8 bytes go eagerly: this does not wait */
            if (ask.wants_answer) NT_MPI(MPI_Send(&t->value, 1, MPI_INT64_T, from.MPI_SOURCE, 1, t->comm));
            t->value += ask.count;
            ++*n_served;
        }
    }
    return NT_OK;
}

static nt_status ask_ticket(struct mpi_ticket *t, int slot, int64_t count) {
    const struct ticket_request ask = {.count = count, .wants_answer = 1};
    NT_MPI(MPI_Irecv(&t->answers[slot], 1, MPI_INT64_T, 0, 1, t->comm, &t->asked[slot]));
    NT_MPI(MPI_Send(&ask, 2, MPI_INT64_T, 0, 0, t->comm));
    return NT_OK;
}

static nt_status home_ticket(struct mpi_ticket *t, int64_t count, int64_t *value) {
    int64_t n_served = 0;
    NT_TRY(serve_tickets(t->world, &n_served));
    *value = t->value;
    t->value += count;
    return NT_OK;
}

static nt_status ticket_by_message(struct mpi_ticket *t, int64_t count, int64_t *first) {
    if (t->world->base.rank == 0) return home_ticket(t, count, first);
    for (int i = 0; i < TICKETS_AHEAD && t->asked_count == 0; i++) NT_TRY(ask_ticket(t, i, count));
    if (t->asked_count == 0) t->asked_count = count;
    NT_CHECK(count == t->asked_count); /* the contract: what was asked for ahead is never lost */
    NT_MPI(MPI_Wait(&t->asked[t->head], MPI_STATUS_IGNORE));
    *first = t->answers[t->head];
    NT_TRY(ask_ticket(t, t->head, count));
    t->head = (t->head + 1) % TICKETS_AHEAD;
    return NT_OK;
}

static nt_status add_by_message(struct mpi_ticket *t, int64_t count, int64_t *before) {
    if (t->world->base.rank == 0) return home_ticket(t, count, before);
    int here = 1;
    NT_MPI(MPI_Test(&t->asked[0], &here, MPI_STATUS_IGNORE)); /* also true when nothing was asked */
    if (here) {
        t->value = t->answers[0];
        *before = t->value;
        return ask_ticket(t, 0, count);
    }
    *before = t->value;
    const struct ticket_request ask = {.count = count};
    if (count != 0) NT_MPI(MPI_Send(&ask, 2, MPI_INT64_T, 0, 0, t->comm));
    return NT_OK;
}

static nt_status ticket_one_sided(struct mpi_ticket *t, int64_t count, int64_t *value) {
    NT_MPI(MPI_Fetch_and_op(&count, value, MPI_INT64_T, 0, 0, MPI_SUM, t->win));
    NT_MPI(MPI_Win_flush(0, t->win));
    return NT_OK;
}

static nt_status mpi_ticket_next(struct nt_ticket *ticket, int64_t count, int64_t *first) {
    struct mpi_ticket *t = (struct mpi_ticket *)ticket;
    return t->win != MPI_WIN_NULL ? ticket_one_sided(t, count, first) : ticket_by_message(t, count, first);
}

static nt_status mpi_ticket_add(struct nt_ticket *ticket, int64_t count, int64_t *before) {
    struct mpi_ticket *t = (struct mpi_ticket *)ticket;
    return t->win != MPI_WIN_NULL ? ticket_one_sided(t, count, before) : add_by_message(t, count, before);
}

static void mpi_ticket_close(struct nt_ticket *ticket) {
    struct mpi_ticket *t = (struct mpi_ticket *)ticket;
    if (t->win != MPI_WIN_NULL) {
        (void)MPI_Win_unlock_all(t->win);
        (void)MPI_Win_free(&t->win);
        free(t);
        return;
    }
    (void)MPI_Waitall(TICKETS_AHEAD, t->asked, MPI_STATUSES_IGNORE);
    (void)meet(&t->world->base); /* rank 0 serves until all are here */
    struct mpi_ticket **at = &t->world->tickets;
    while (*at != t) at = &(*at)->next_open;
    *at = t->next_open;
    (void)MPI_Comm_free(&t->comm);
    free(t);
}

/* Serves until nobody asked for a moment; without messages it only lets MPI serve one-sided calls. */
static void mpi_progress(struct nt_world *w) {
    struct mpi_comm *world = self_of(w->world);
    if (world->tickets == NULL || w->rank != 0) {
        int flag = 0;
        (void)MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, world->handle, &flag, MPI_STATUS_IGNORE);
        return;
    }
    int64_t n_served = 0, before = -1;
    double quiet_since = MPI_Wtime();
    while (n_served != before || (n_served > 0 && MPI_Wtime() - quiet_since < LINGER_US * 1e-6)) {
        if (n_served != before) quiet_since = MPI_Wtime();
        before = n_served;
        if (serve_tickets(world, &n_served) != NT_OK) {
            nt_error_clear(); /* the next collective fails with its own sentence */
            return;
        }
    }
}

const struct nt_comm_backend nt_comm_mpi = {
    .name = "mpi",
    .world_open = mpi_world_open,
    .world_split = mpi_world_split,
    .world_close = mpi_world_close,
    .barrier = mpi_barrier,
    .broadcast = mpi_broadcast,
    .allreduce_f32 = mpi_allreduce_f32,
    .allreduce_i64 = mpi_allreduce_i64,
    .allgather = mpi_allgather,
    .shared_open = mpi_shared_open,
    .shared_ready = mpi_shared_ready,
    .shared_close = mpi_shared_close,
    .ticket_open = mpi_ticket_open,
    .ticket_next = mpi_ticket_next,
    .ticket_add = mpi_ticket_add,
    .ticket_close = mpi_ticket_close,
    .progress = mpi_progress,
};
