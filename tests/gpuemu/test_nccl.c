/* The stand-in of NCCL: collectives of three processes, in stream order, in graphs, and when a rank dies or hangs. */
#include <signal.h>
#include <sys/mman.h>

#include "nccl_abi.h"
#include "test_emu.h"

enum { SIZE = 3, N = 100000 }; // more than one chunk

static struct nc_unique_id id;

static void *pointer(CUdeviceptr p) {
    return (void *)(uintptr_t)p;
}

static float value_at(int rank, int i) {
    return (float)(rank + 1) * 0.25f + (float)(i % 7);
}

static struct ncclComm *join(int rank) {
    struct ncclComm *comm = NULL;
    start_on(rank);
    CHECK(ncclCommInitRank(&comm, SIZE, id, rank) == NC_SUCCESS);
    return comm;
}

/* Runs body(rank) in SIZE processes; what each of them exits with. */
static void ranks(void (*body)(int), int status[SIZE]) {
    pid_t child[SIZE];
    CHECK(ncclGetUniqueId(&id) == NC_SUCCESS);
    for (int r = 0; r < SIZE; r++)
        if ((child[r] = fork()) == 0) {
            body(r);
            exit(0);
        }
    for (int r = 0; r < SIZE; r++) {
        int s = 0;
        CHECK(waitpid(child[r], &s, 0) == child[r]);
        status[r] = WIFEXITED(s) ? WEXITSTATUS(s) : -WTERMSIG(s);
    }
}

static void expect_all(void (*body)(int), int wanted) {
    int status[SIZE];
    ranks(body, status);
    for (int r = 0; r < SIZE; r++) CHECK(status[r] == wanted);
}

static CUdeviceptr values(int rank, CUstream stream) {
    const CUdeviceptr p = device_bytes(4 * N);
    float *host = malloc(4 * N);
    for (int i = 0; i < N; i++) host[i] = value_at(rank, i);
    OK(cuMemcpyHtoDAsync(p, host, 4 * N, stream));
    free(host);
    return p;
}

static void sum_and_max(int rank) {
    struct ncclComm *comm = join(rank);
    CUstream stream = new_stream();
    const CUdeviceptr in = values(rank, stream), sum = device_bytes(4 * N), max = device_bytes(4 * N);
    float *out = malloc(4 * N);
    CHECK(ncclAllReduce(pointer(in), pointer(sum), N, NC_F32, NC_SUM, comm, stream) == NC_SUCCESS);
    CHECK(ncclAllReduce(pointer(in), pointer(max), N, NC_F32, NC_MAX, comm, stream) == NC_SUCCESS);
    OK(cuStreamSynchronize(stream));
    OK(cuMemcpyDtoH(out, sum, 4 * N));
    for (int i = 0; i < N; i++) CHECK(out[i] == value_at(0, i) + value_at(1, i) + value_at(2, i));
    OK(cuMemcpyDtoH(out, max, 4 * N));
    for (int i = 0; i < N; i++) CHECK(out[i] == value_at(2, i));
    free(out);
    CHECK(ncclCommDestroy(comm) == NC_SUCCESS);
}
static void all_reduce(void) {
    expect_all(sum_and_max, 0);
}

static void gather_rank(int rank) {
    struct ncclComm *comm = join(rank);
    CUstream stream = new_stream();
    const CUdeviceptr in = values(rank, stream), out = device_bytes(4 * N * SIZE);
    float *host = malloc(4 * N * SIZE);
    CHECK(ncclGroupStart() == NC_SUCCESS);
    CHECK(ncclAllGather(pointer(in), pointer(out), N, NC_F32, comm, stream) == NC_SUCCESS);
    CHECK(ncclBroadcast(pointer(in), pointer(in), N, NC_F32, 1, comm, stream) == NC_SUCCESS);
    CHECK(ncclGroupEnd() == NC_SUCCESS);
    OK(cuStreamSynchronize(stream));
    OK(cuMemcpyDtoH(host, out, 4 * N * SIZE));
    for (int r = 0; r < SIZE; r++)
        for (int i = 0; i < N; i++) CHECK(host[r * N + i] == value_at(r, i));
    OK(cuMemcpyDtoH(host, in, 4 * N));
    for (int i = 0; i < N; i++) CHECK(host[i] == value_at(1, i));
    free(host);
    CHECK(ncclCommDestroy(comm) == NC_SUCCESS);
}
static void all_gather_and_broadcast(void) {
    expect_all(gather_rank, 0);
}

/* What rank r sends to rank q is its own values from q * EACH on. */
static void exchange_rank(int rank) {
    enum { EACH = N / SIZE };
    struct ncclComm *comm = join(rank);
    CUstream stream = new_stream();
    const CUdeviceptr in = values(rank, stream), out = device_bytes(4 * EACH * SIZE);
    float *host = malloc(4 * EACH * SIZE);
    CHECK(ncclSend(pointer(in), EACH, NC_F32, 0, comm, stream) == NC_INVALID_USAGE);
    for (int lacking = 1; lacking >= 0; lacking--) {
        CHECK(ncclGroupStart() == NC_SUCCESS);
        for (int r = lacking; r < SIZE; r++) {
            CHECK(ncclSend(pointer(in + 4u * EACH * (unsigned)r), EACH, NC_F32, r, comm, stream) == NC_SUCCESS);
            CHECK(ncclRecv(pointer(out + 4u * EACH * (unsigned)r), EACH, NC_F32, r, comm, stream) == NC_SUCCESS);
        }
        CHECK(ncclGroupEnd() == (lacking ? NC_INVALID_USAGE : NC_SUCCESS));
    }
    OK(cuStreamSynchronize(stream));
    OK(cuMemcpyDtoH(host, out, 4 * EACH * SIZE));
    for (int r = 0; r < SIZE; r++)
        for (int i = 0; i < EACH; i++) CHECK(host[r * EACH + i] == value_at(r, rank * EACH + i));
    free(host);
    CHECK(ncclCommDestroy(comm) == NC_SUCCESS);
}
static void all_to_all(void) {
    expect_all(exchange_rank, 0);
}

static void halves_rank(int rank) {
    struct ncclComm *comm = join(rank);
    CUstream stream = new_stream();
    const CUdeviceptr p = device_bytes(4);
    const uint16_t in[2] = {0x3f80, (uint16_t)(0x3c00 + rank)}; // bf16 1, f16 about 1
    uint16_t out[2];
    OK(cuMemcpyHtoDAsync(p, in, 4, stream));
    CHECK(ncclAllReduce(pointer(p), pointer(p), 1, NC_BF16, NC_SUM, comm, stream) == NC_SUCCESS);
    CHECK(ncclAllReduce(pointer(p + 2), pointer(p + 2), 1, NC_F16, NC_MAX, comm, stream) == NC_SUCCESS);
    OK(cuStreamSynchronize(stream));
    OK(cuMemcpyDtoH(out, p, 4));
    CHECK(out[0] == 0x4040 && out[1] == 0x3c02);
    CHECK(ncclCommDestroy(comm) == NC_SUCCESS);
}
static void half_types(void) {
    expect_all(halves_rank, 0);
}

static void graph_rank(int rank) {
    struct ncclComm *comm = join(rank);
    CUstream stream = new_stream();
    const CUdeviceptr p = device_bytes(4);
    const float one = 1;
    float out = 0;
    CUgraph graph = NULL;
    CUgraphExec exec = NULL;
    OK(cuMemcpyHtoDAsync(p, &one, 4, stream));
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    CHECK(ncclAllReduce(pointer(p), pointer(p), 1, NC_F32, NC_SUM, comm, stream) == NC_SUCCESS);
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < 3; i++) OK(cuGraphLaunch(exec, stream));
    OK(cuStreamSynchronize(stream));
    OK(cuMemcpyDtoH(&out, p, 4));
    CHECK(out == SIZE * SIZE * SIZE);
    OK(cuGraphExecDestroy(exec));
    OK(cuGraphDestroy(graph));
    CHECK(ncclCommDestroy(comm) == NC_SUCCESS);
}
static void inside_a_graph(void) {
    expect_all(graph_rank, 0);
}

/* The last rank queues its part and then only waits for a message of the others: idle time must run the queue. */
static int pipe_ends[2];
static void idle_rank(int rank) {
    struct ncclComm *comm = join(rank);
    CUstream stream = new_stream();
    const CUdeviceptr in = values(rank, stream), sum = device_bytes(4 * N);
    char byte = 0;
    CHECK(ncclAllReduce(pointer(in), pointer(sum), N, NC_F32, NC_SUM, comm, stream) == NC_SUCCESS);
    if (rank < SIZE - 1) {
        OK(cuStreamSynchronize(stream));
        CHECK(write(pipe_ends[1], "x", 1) == 1);
    } else
        for (int i = 0; i < SIZE - 1; i++) CHECK(read(pipe_ends[0], &byte, 1) == 1);
    OK(cuStreamSynchronize(stream));
    CHECK(ncclCommDestroy(comm) == NC_SUCCESS);
}
static void queued_work_runs_in_idle_time(void) {
    CHECK(pipe(pipe_ends) == 0);
    expect_all(idle_rank, 0);
}

static void different_rank(int rank) {
    struct ncclComm *comm = join(rank);
    CUstream stream = new_stream();
    const CUdeviceptr in = values(rank, stream), sum = device_bytes(4 * N);
    CHECK(ncclAllReduce(pointer(in), pointer(sum), rank == 1 ? N - 1 : N, NC_F32, NC_SUM, comm, stream) == NC_SUCCESS);
    CHECK(cuStreamSynchronize(stream) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("make different calls"));
}
static void different_calls_are_reported(void) {
    expect_all(different_rank, 0);
}

/* Non-blocking join, polling, abort: how the product survives a peer's death. */
static void survivor(int rank) {
    struct nc_config config = {.size = sizeof config, .blocking = 0};
    struct ncclComm *comm = NULL;
    int error = NC_IN_PROGRESS;
    start_on(rank);
    CUstream stream = new_stream();
    const CUdeviceptr in = values(rank, stream), sum = device_bytes(4 * N);
    error = ncclCommInitRankConfig(&comm, SIZE, id, rank, &config);
    while (error == NC_IN_PROGRESS) CHECK(ncclCommGetAsyncError(comm, &error) == NC_SUCCESS);
    CHECK(error == NC_SUCCESS);
    for (int i = 0; i < 3; i++)
        CHECK(ncclAllReduce(pointer(in), pointer(sum), N, NC_F32, NC_SUM, comm, stream) == NC_SUCCESS);
    while (cuStreamQuery(stream) == CUDA_ERROR_NOT_READY && error == NC_SUCCESS) {
        CHECK(ncclCommGetAsyncError(comm, &error) == NC_SUCCESS);
        usleep(1000);
    }
    CHECK(error == NC_REMOTE_ERROR);
    CHECK(ncclCommAbort(comm) == NC_SUCCESS);
    OK(cuStreamSynchronize(stream));
}
static void a_peer_dies(void) {
    int status[SIZE];
    setenv("NT_EMU_NCCL", "rank=1,seq=2,fault=die", 1);
    ranks(survivor, status);
    CHECK(status[0] == 0 && status[1] == -SIGKILL && status[2] == 0);
}

static void hanging(int rank) {
    struct ncclComm *comm = join(rank);
    CUstream stream = new_stream();
    const CUdeviceptr in = values(rank, stream), sum = device_bytes(4 * N);
    int error = NC_SUCCESS, n = 0;
    CHECK(ncclAllReduce(pointer(in), pointer(sum), N, NC_F32, NC_SUM, comm, stream) == NC_SUCCESS);
    while (cuStreamQuery(stream) == CUDA_ERROR_NOT_READY && error == NC_SUCCESS && n < 200) {
        CHECK(ncclCommGetAsyncError(comm, &error) == NC_SUCCESS);
        usleep(1000);
        n++;
    }
    if (rank == 2) CHECK(n == 200); // the others may see it leave before that
    CHECK(ncclCommAbort(comm) == NC_SUCCESS);
    OK(cuStreamSynchronize(stream));
}
static void a_peer_hangs(void) {
    int status[SIZE];
    setenv("NT_EMU_NCCL", "rank=2,seq=1,fault=hang", 1);
    ranks(hanging, status);
    CHECK(status[2] == 0);
}

static void crowded_rank(int rank) {
    struct ncclComm *comm = NULL;
    start_on(rank);
    CHECK(ncclCommInitRank(&comm, SIZE, id, rank) == NC_INVALID_USAGE);
    CHECK(ncclCommAbort(comm) == NC_SUCCESS);
}
static void ranks_on_one_gpu_are_refused(void) {
    expect_all(crowded_rank, 0);
}

static void early_rank(int rank) {
    struct ncclComm *comm = join(rank);
    CUstream stream = new_stream();
    CUgraph graph = NULL;
    const CUdeviceptr p = device_bytes(4);
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    CHECK(ncclAllReduce(pointer(p), pointer(p), 1, NC_F32, NC_SUM, comm, stream) == NC_SUCCESS);
    OK(cuStreamEndCapture(stream, &graph));
    CHECK(ncclCommDestroy(comm) == NC_SUCCESS);
    CHECK(reported("ncclCommDestroy of a communicator that a graph or a stream still holds"));
    OK(cuGraphDestroy(graph));
}
static void graphs_end_before_their_communicator(void) {
    expect_all(early_rank, 0);
}

static const struct row rows[] = {
    ROW("devices=3,streams=late", all_reduce),
    ROW("devices=3,streams=early", all_reduce),
    ROW("devices=3,streams=late,hostguard=1", all_gather_and_broadcast),
    ROW("devices=3,streams=random", all_gather_and_broadcast),
    ROW("devices=3,streams=late,hostguard=1", all_to_all),
    ROW("devices=3,streams=random", all_to_all),
    ROW("devices=3,streams=late", half_types),
    ROW("devices=3,streams=late", inside_a_graph),
    ROW("devices=3,mig=1", ranks_on_one_gpu_are_refused),
    ROW("devices=3,streams=late", graphs_end_before_their_communicator),
    ROW("devices=3,streams=late", queued_work_runs_in_idle_time),
    ROW("devices=3,streams=late", different_calls_are_reported),
    ROW("devices=3,streams=late", a_peer_dies),
    ROW("devices=3,streams=late", a_peer_hangs),
};

int main(void) {
    return run_rows(rows, sizeof rows / sizeof rows[0]);
}
