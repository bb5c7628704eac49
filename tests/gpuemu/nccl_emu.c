/* libnccl_emu.so: the calls of NCCL that the product uses, across processes of one node, in stream order.
 *
 * Ranks meet in a POSIX shared memory segment named by the unique id. A collective goes through it in rounds of one
 * chunk: wait until all have read the last round, put the own chunk, wait until all have put theirs, take them in rank
 * order (so sums are the same on every rank and every run). No step blocks: the driver asks again, so queries,
 * watchdogs and ncclCommAbort work. A dead peer becomes ncclRemoteError in ncclCommGetAsyncError; the collective then
 * stays pending until the communicator is aborted, as with the real library. All ranks must make the same calls:
 * a rank that makes another one is reported. Ranks on one GPU are refused, and so is the end of a communicator that
 * graphs still hold, for which the real one waits. Of ncclSend and ncclRecv a group must have one of each with every
 * rank, of the same number of elements: that is one more collective here. NT_EMU_NCCL="rank=1,seq=5,fault=die" makes
 * that rank die (or hang) when its fifth collective starts.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "half.h"
#include "nccl_abi.h"
#include "work.h"

enum { MAX_RANKS = 16, CHUNK = 1 << 18, PIECE = CHUNK / MAX_RANKS }; // PIECE: what a chunk has for each rank

struct call { // what must agree between the ranks in each round
    int32_t kind, type, op, root;
    uint64_t count, seq;
};

struct slot {                    // of one rank; written by that rank only
    _Atomic int64_t pid;         // 0: not joined yet; -1: left in good order
    _Atomic uint64_t put, taken; // rounds
    int32_t bus;                 // of its GPU
    struct call call;
    _Alignas(64) uint8_t chunk[CHUNK];
};

struct segment {
    _Atomic int32_t n_joined;
    struct slot slot[MAX_RANKS];
};

struct ncclComm {
    struct segment *segment;
    int32_t rank, size;
    bool joined;
    char name[128];
    uint64_t round, seq;
    _Atomic int32_t refs, aborted, error;
    double checked_ms;
};

struct collective {
    struct ncclComm *comm;
    struct call call;
    const void *send;
    void *receive;
    const void *send_to[MAX_RANKS]; // of NC_ALL_TO_ALL
    void *receive_from[MAX_RANKS];
    size_t n_bytes, at; // of what each rank puts; done so far
    enum { STEP_PUT, STEP_TAKE } step;
    bool hangs;
};

static _Thread_local int32_t group_depth;

static _Thread_local struct { // the sends and receives of the group
    struct ncclComm *comm;
    struct CUstream_st *stream;
    int32_t type, n;
    size_t count;
    const void *send_to[MAX_RANKS];
    void *receive_from[MAX_RANKS];
} group;

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static size_t type_size(int32_t type) {
    switch (type) {
    case NC_INT8:
    case NC_UINT8:
        return 1;
    case NC_F16:
    case NC_BF16:
        return 2;
    case NC_INT32:
    case NC_UINT32:
    case NC_F32:
        return 4;
    case NC_INT64:
    case NC_UINT64:
    case NC_F64:
        return 8;
    default:
        return 0;
    }
}

/* ---- faults on request ---- */

/* The value of "name=" in NT_EMU_NCCL, -1 when it is not there. */
static long fault_number(const char *name) {
    const char *text = getenv("NT_EMU_NCCL"), *at = text == NULL ? NULL : strstr(text, name);
    return at == NULL ? -1 : strtol(at + strlen(name), NULL, 10);
}

/* Whether this collective is to hang; a rank that is to die does not return. */
static bool fault_now(const struct ncclComm *comm) {
    if (fault_number("rank=") != comm->rank || fault_number("seq=") != (long)comm->seq) return false;
    const char *text = getenv("NT_EMU_NCCL");
    if (strstr(text, "fault=die") != NULL) {
        fprintf(stderr, "emu: this process dies, as asked\n");
        raise(SIGKILL);
    }
    return strstr(text, "fault=hang") != NULL;
}

/* ---- peers ---- */

static bool process_gone(int64_t pid) {
    if (kill((pid_t)pid, 0) != 0) return errno == ESRCH;
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    FILE *f = fopen(path, "r");
    if (f == NULL) return true;
    const bool zombie = fscanf(f, "%*d (%*[^)]) %c", &state) == 1 && state == 'Z';
    fclose(f);
    return zombie;
}

static uint64_t reached(const struct slot *slot, bool taken) {
    return taken ? slot->taken : slot->put;
}

/* A rank that has gone although its part is missing: the communicator is in error and nothing of it goes on. The part
 * is looked at once more behind the process, because a rank may do it and leave in between. */
static void look_for_dead(struct ncclComm *comm, bool taken, uint64_t round) {
    if (now_ms() - comm->checked_ms < 50) return;
    comm->checked_ms = now_ms();
    for (int32_t r = 0; r < comm->size; r++) {
        const struct slot *slot = &comm->segment->slot[r];
        const int64_t pid = slot->pid;
        if (r == comm->rank || pid == 0 || reached(slot, taken) >= round) continue;
        if ((pid == -1 || process_gone(pid)) && reached(slot, taken) < round) comm->error = NC_REMOTE_ERROR;
    }
}

static bool all_reached(struct ncclComm *comm, bool taken, uint64_t round) {
    for (int32_t r = 0; r < comm->size; r++)
        if (reached(&comm->segment->slot[r], taken) < round) {
            look_for_dead(comm, taken, round);
            return false;
        }
    return true;
}

/* ---- reductions ---- */

static double load(const uint8_t *p, int32_t type) {
    switch (type) {
    case NC_INT8:
        return *(const int8_t *)p;
    case NC_UINT8:
        return *p;
    case NC_INT32:
        return *(const int32_t *)p;
    case NC_UINT32:
        return *(const uint32_t *)p;
    case NC_F32:
        return (double)*(const float *)p;
    case NC_F64:
        return *(const double *)p;
    case NC_F16:
        return (double)half_from_f16(*(const uint16_t *)p);
    default:
        return (double)half_from_bf16(*(const uint16_t *)p);
    }
}

static void store(uint8_t *p, int32_t type, double value) {
    switch (type) {
    case NC_INT8:
        *(int8_t *)p = (int8_t)value;
        break;
    case NC_UINT8:
        *p = (uint8_t)value;
        break;
    case NC_INT32:
        *(int32_t *)p = (int32_t)value;
        break;
    case NC_UINT32:
        *(uint32_t *)p = (uint32_t)value;
        break;
    case NC_F32:
        *(float *)p = (float)value;
        break;
    case NC_F64:
        *(double *)p = value;
        break;
    case NC_F16:
        *(uint16_t *)p = half_to_f16((float)value);
        break;
    default:
        *(uint16_t *)p = half_to_bf16((float)value);
        break;
    }
}

static double combine(double a, double b, int32_t op) {
    if (op == NC_SUM) return a + b; // exact for what fits in 24 bits; rounded once at the end
    return op == NC_MAX ? (a > b ? a : b) : (a < b ? a : b);
}

static void reduce_chunk(const struct collective *c, size_t n_bytes) {
    const int32_t type = c->call.type;
    const size_t unit = type_size(type);
    const struct segment *segment = c->comm->segment;
    uint8_t *out = (uint8_t *)c->receive + c->at;
    for (size_t i = 0; i < n_bytes; i += unit) {
        double value = load(segment->slot[0].chunk + i, type);
        for (int32_t r = 1; r < c->comm->size; r++)
            value = combine(value, load(segment->slot[r].chunk + i, type), c->call.op);
        store(out + i, type, value);
    }
}

/* ---- one collective, step by step ---- */

static bool same_call(const struct call *a, const struct call *b) {
    return a->kind == b->kind && a->type == b->type && a->op == b->op && a->root == b->root && a->count == b->count &&
           a->seq == b->seq;
}

static void put(struct collective *c, size_t n_bytes) {
    struct slot *mine = &c->comm->segment->slot[c->comm->rank];
    mine->call = c->call;
    if (c->call.kind == NC_ALL_TO_ALL)
        for (int32_t r = 0; r < c->comm->size; r++)
            memcpy(mine->chunk + r * PIECE, (const uint8_t *)c->send_to[r] + c->at, n_bytes);
    else if (c->call.kind != NC_BROADCAST || c->call.root == c->comm->rank)
        memcpy(mine->chunk, (const uint8_t *)c->send + c->at, n_bytes);
    mine->put = c->comm->round + 1;
}

static void take(struct collective *c, size_t n_bytes) {
    const struct segment *segment = c->comm->segment;
    char text[160];
    for (int32_t r = 0; r < c->comm->size; r++)
        if (!same_call(&segment->slot[r].call, &c->call)) {
            snprintf(text, sizeof text, "NCCL: rank %d and rank %d make different calls as their collective %llu",
                     c->comm->rank, r, (unsigned long long)c->call.seq);
            emu_work_fail(text);
            c->comm->error = NC_INVALID_USAGE;
            return;
        }
    if (c->call.kind == NC_ALL_REDUCE)
        reduce_chunk(c, n_bytes);
    else if (c->call.kind == NC_BROADCAST)
        memcpy((uint8_t *)c->receive + c->at, segment->slot[c->call.root].chunk, n_bytes);
    else if (c->call.kind == NC_ALL_TO_ALL)
        for (int32_t r = 0; r < c->comm->size; r++)
            memcpy((uint8_t *)c->receive_from[r] + c->at, segment->slot[r].chunk + c->comm->rank * PIECE, n_bytes);
    else
        for (int32_t r = 0; r < c->comm->size; r++)
            memcpy((uint8_t *)c->receive + (size_t)r * c->n_bytes + c->at, segment->slot[r].chunk, n_bytes);
}

static bool in_range(const struct collective *c) {
    const size_t n_out = c->n_bytes * (c->call.kind == NC_ALL_GATHER ? (size_t)c->comm->size : 1);
    const bool sends = c->call.kind != NC_BROADCAST || c->call.root == c->comm->rank;
    if (c->call.kind != NC_ALL_TO_ALL)
        return (!sends || emu_work_range("NCCL send buffer", c->send, c->n_bytes, 0)) &&
               emu_work_range("NCCL receive buffer", c->receive, n_out, 1);
    for (int32_t r = 0; r < c->comm->size; r++)
        if (!emu_work_range("NCCL send buffer", c->send_to[r], c->n_bytes, 0) ||
            !emu_work_range("NCCL receive buffer", c->receive_from[r], c->n_bytes, 1))
            return false;
    return true;
}

static bool begin(struct collective *c) {
    c->at = 0;
    c->step = STEP_PUT;
    c->call.seq = ++c->comm->seq;
    c->hangs = fault_now(c->comm);
    return in_range(c);
}

static int run(void *arg, int first) {
    struct collective *c = arg;
    struct ncclComm *comm = c->comm;
    if (comm->aborted) return 1;
    if (first && !begin(c)) return 1;
    if (comm->error != NC_SUCCESS || c->hangs) return 0;
    const size_t round = c->call.kind == NC_ALL_TO_ALL ? PIECE : CHUNK;
    while (c->at < c->n_bytes) {
        const size_t left = c->n_bytes - c->at, n = left < round ? left : round;
        if (c->step == STEP_PUT) {
            if (!all_reached(comm, true, comm->round)) return 0;
            put(c, n);
            c->step = STEP_TAKE;
        }
        if (!all_reached(comm, false, comm->round + 1)) return 0;
        take(c, n);
        if (comm->error != NC_SUCCESS) return 1;
        comm->segment->slot[comm->rank].taken = ++comm->round;
        c->at += n;
        c->step = STEP_PUT;
    }
    return 1;
}

static void unref(struct ncclComm *comm) {
    if (atomic_fetch_sub(&comm->refs, 1) > 1) return;
    munmap(comm->segment, sizeof *comm->segment);
    free(comm);
}

static void drop(void *arg) {
    struct collective *c = arg;
    unref(c->comm);
    free(c);
}

static bool shares_gpu(const struct ncclComm *comm) {
    const struct slot *slot = comm->segment->slot;
    for (int32_t r = 0; r < comm->size; r++)
        if (r != comm->rank && slot[r].bus == slot[comm->rank].bus) return true;
    return false;
}

/* NC_SUCCESS when all ranks are there, NC_IN_PROGRESS before. */
static int join_state(struct ncclComm *comm) {
    if (comm->joined || comm->error != NC_SUCCESS) return comm->error;
    if (comm->segment->n_joined < comm->size) {
        look_for_dead(comm, false, 1); // nobody has put anything yet
        return comm->error != NC_SUCCESS ? comm->error : NC_IN_PROGRESS;
    }
    shm_unlink(comm->name); // all have it mapped; the second to say so gets ENOENT
    if (shares_gpu(comm)) {
        fprintf(stderr, "emu: NCCL: rank %d and another one are on one GPU\n", comm->rank);
        return comm->error = NC_INVALID_USAGE;
    }
    if (comm->size > 1) emu_run_when_idle();
    comm->joined = true;
    return NC_SUCCESS;
}

static int enqueue(struct collective made, struct CUstream_st *stream) {
    struct ncclComm *comm = made.comm;
    const struct call call = made.call;
    const size_t unit = type_size(call.type);
    if (comm == NULL || unit == 0 || call.root < 0 || call.root >= comm->size) return NC_INVALID_ARGUMENT;
    if (call.op != NC_SUM && call.op != NC_MAX && call.op != NC_MIN) return NC_INVALID_ARGUMENT;
    if (call.kind == NC_ALL_REDUCE && (call.type == NC_INT64 || call.type == NC_UINT64)) return NC_INVALID_ARGUMENT;
    if (join_state(comm) != NC_SUCCESS) return comm->error != NC_SUCCESS ? comm->error : NC_INVALID_USAGE;
    struct collective *c = malloc(sizeof *c);
    if (c == NULL) return NC_SYSTEM_ERROR;
    *c = made;
    c->n_bytes = call.count * unit;
    comm->refs++;
    return emu_stream_work(stream, run, c, drop) == 0 ? NC_SUCCESS : NC_UNHANDLED_CUDA;
}

int ncclAllReduce(const void *send, void *receive, size_t count, int type, int op, struct ncclComm *comm,
                  struct CUstream_st *stream) {
    const struct call call = {.kind = NC_ALL_REDUCE, .type = type, .op = op, .count = count};
    return enqueue((struct collective){.comm = comm, .call = call, .send = send, .receive = receive}, stream);
}

int ncclAllGather(const void *send, void *receive, size_t count, int type, struct ncclComm *comm,
                  struct CUstream_st *stream) {
    const struct call call = {.kind = NC_ALL_GATHER, .type = type, .count = count};
    return enqueue((struct collective){.comm = comm, .call = call, .send = send, .receive = receive}, stream);
}

int ncclBroadcast(const void *send, void *receive, size_t count, int type, int root, struct ncclComm *comm,
                  struct CUstream_st *stream) {
    const struct call call = {.kind = NC_BROADCAST, .type = type, .root = root, .count = count};
    return enqueue((struct collective){.comm = comm, .call = call, .send = send, .receive = receive}, stream);
}

/* Whether a send or receive is like those of the group before it. */
static bool group_takes(size_t count, int type, int peer, struct ncclComm *comm, struct CUstream_st *stream) {
    if (group_depth == 0 || comm == NULL || peer < 0 || peer >= comm->size) return false;
    if (group.n == 0) {
        group.comm = comm;
        group.stream = stream;
        group.type = type;
        group.count = count;
    }
    return group.comm == comm && group.stream == stream && group.type == type && group.count == count;
}

int ncclSend(const void *send, size_t count, int type, int peer, struct ncclComm *comm, struct CUstream_st *stream) {
    if (!group_takes(count, type, peer, comm, stream) || group.send_to[peer] != NULL) return NC_INVALID_USAGE;
    group.send_to[peer] = send;
    group.n++;
    return NC_SUCCESS;
}

int ncclRecv(void *receive, size_t count, int type, int peer, struct ncclComm *comm, struct CUstream_st *stream) {
    if (!group_takes(count, type, peer, comm, stream) || group.receive_from[peer] != NULL) return NC_INVALID_USAGE;
    group.receive_from[peer] = receive;
    group.n++;
    return NC_SUCCESS;
}

static int exchange(void) {
    struct collective c = {
        .comm = group.comm, .call = {.kind = NC_ALL_TO_ALL, .type = group.type, .count = group.count}
    };
    struct CUstream_st *stream = group.stream;
    const bool whole = group.n == 2 * group.comm->size;
    memcpy(c.send_to, group.send_to, sizeof c.send_to);
    memcpy(c.receive_from, group.receive_from, sizeof c.receive_from);
    memset(&group, 0, sizeof group);
    return whole ? enqueue(c, stream) : NC_INVALID_USAGE;
}

/* ---- communicators ---- */

int ncclGetVersion(int *version) {
    if (version == NULL) return NC_INVALID_ARGUMENT;
    *version = 22809;
    return NC_SUCCESS;
}

int ncclGetUniqueId(struct nc_unique_id *id) {
    uint64_t random[2];
    if (id == NULL || getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) return NC_SYSTEM_ERROR;
    memset(id, 0, sizeof *id);
    snprintf(id->bytes, sizeof id->bytes, "/nt-emu-nccl-%016llx%016llx", (unsigned long long)random[0],
             (unsigned long long)random[1]);
    return NC_SUCCESS;
}

static struct segment *map_segment(const char *name) {
    const int fd = shm_open(name, O_RDWR | O_CREAT, 0600);
    if (fd < 0) return NULL;
    void *p = MAP_FAILED;
    if (ftruncate(fd, sizeof(struct segment)) == 0)
        p = mmap(NULL, sizeof(struct segment), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return p == MAP_FAILED ? NULL : p;
}

int ncclCommInitRankConfig(struct ncclComm **out, int size, struct nc_unique_id id, int rank,
                           const struct nc_config *config) {
    if (out == NULL || size < 1 || size > MAX_RANKS || rank < 0 || rank >= size) return NC_INVALID_ARGUMENT;
    if (memchr(id.bytes, 0, sizeof id.bytes) == NULL || strncmp(id.bytes, "/nt-emu-nccl-", 13) != 0)
        return NC_INVALID_ARGUMENT;
    const int32_t bus = emu_current_bus();
    if (bus == 0) return NC_UNHANDLED_CUDA;
    struct ncclComm *comm = calloc(1, sizeof *comm);
    struct segment *segment = comm == NULL ? NULL : map_segment(id.bytes);
    if (segment == NULL) {
        free(comm);
        return NC_SYSTEM_ERROR;
    }
    *comm = (struct ncclComm){.segment = segment, .rank = rank, .size = size, .refs = 1};
    memcpy(comm->name, id.bytes, sizeof comm->name);
    segment->slot[rank].bus = bus;
    segment->slot[rank].pid = getpid();
    segment->n_joined++;
    *out = comm;
    int state = join_state(comm);
    while (state == NC_IN_PROGRESS && (config == NULL || config->blocking != 0)) {
        usleep(200);
        state = join_state(comm);
    }
    return state;
}

int ncclCommInitRank(struct ncclComm **out, int size, struct nc_unique_id id, int rank) {
    return ncclCommInitRankConfig(out, size, id, rank, NULL);
}

int ncclCommGetAsyncError(struct ncclComm *comm, int *error) {
    if (comm == NULL || error == NULL) return NC_INVALID_ARGUMENT;
    *error = join_state(comm);
    return NC_SUCCESS;
}

static int leave(struct ncclComm *comm, bool abort) {
    if (comm == NULL) return NC_INVALID_ARGUMENT;
    if (abort) comm->aborted = 1;
    if (!abort && comm->refs > 1)
        emu_work_fail("ncclCommDestroy of a communicator that a graph or a stream still holds");
    comm->segment->slot[comm->rank].pid = -1;
    unref(comm);
    return NC_SUCCESS;
}

int ncclCommDestroy(struct ncclComm *comm) {
    return leave(comm, false);
}

int ncclCommAbort(struct ncclComm *comm) {
    return leave(comm, true);
}

int ncclCommFinalize(struct ncclComm *comm) {
    return comm == NULL ? NC_INVALID_ARGUMENT : NC_SUCCESS;
}

int ncclCommCount(const struct ncclComm *comm, int *size) {
    if (comm == NULL || size == NULL) return NC_INVALID_ARGUMENT;
    *size = comm->size;
    return NC_SUCCESS;
}

int ncclCommUserRank(const struct ncclComm *comm, int *rank) {
    if (comm == NULL || rank == NULL) return NC_INVALID_ARGUMENT;
    *rank = comm->rank;
    return NC_SUCCESS;
}

/* ---- groups: collectives are queued at once, which is the same for one communicator a process ---- */

int ncclGroupStart(void) {
    group_depth++;
    return NC_SUCCESS;
}

int ncclGroupEnd(void) {
    if (group_depth == 0) return NC_INVALID_USAGE;
    group_depth--;
    return group_depth == 0 && group.n > 0 ? exchange() : NC_SUCCESS;
}

const char *ncclGetErrorString(int result) {
    switch (result) {
    case NC_SUCCESS:
        return "no error";
    case NC_UNHANDLED_CUDA:
        return "unhandled cuda error";
    case NC_SYSTEM_ERROR:
        return "unhandled system error";
    case NC_INTERNAL_ERROR:
        return "internal error";
    case NC_INVALID_ARGUMENT:
        return "invalid argument";
    case NC_INVALID_USAGE:
        return "invalid usage";
    case NC_REMOTE_ERROR:
        return "remote process exited or there was a network error";
    case NC_IN_PROGRESS:
        return "NCCL operation in progress";
    default:
        return "unknown result code";
    }
}

const char *ncclGetLastError(struct ncclComm *comm) {
    return comm == NULL ? "" : ncclGetErrorString(comm->error);
}
