/* Sums and choices over peer memory by two processes, each with an emulated device of its own: that a rank waits for
 * what its peer has not written yet. In turns one of them is late; then the other one's kernel is there first. Every
 * call has numbers of its own, so what is read too early is wrong. */
#include "allreduce_p2p_cuda.h"
#include "cuda_fixture.h"
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#if !defined NT_HAVE_CUDA || !defined NT_CUDA_EMU

int main(void) {
    return 0; /* nothing to run on */
}

#else

#include "gpu_api.h"

enum { RANKS = 2, CALLS = 24, COUNT = 3000, ROWS = COUNT / 2, LATE_US = 30000 };
enum { PLACES = 2, FLAGS_AT = PLACES * COUNT, EPOCH_AT = FLAGS_AT + NT_P2P_FLAGS, WORDS = EPOCH_AT + NT_P2P_BLOCKS };

#undef OK
#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != NT_OK) {                                                                                         \
            (void)fprintf(stderr, "%s\n", nt_error_last()->text);                                                      \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

static void exchange(int to, int from, const void *mine, void *theirs, size_t bytes) {
    if (write(to, mine, bytes) != (ssize_t)bytes || read(from, theirs, bytes) != (ssize_t)bytes) _exit(1);
}

static float part(int32_t rank, int32_t call, int32_t i) {
    return (float)((i * 7 + call * 13 + rank * 5) % 101 - 50);
}

/* Calls take turns: sums of COUNT numbers, and choices among ROWS pairs whose index is 1000 * rank + call. */
static bool is_sum(int32_t call) {
    return call % 3 != 2;
}

static void fill(int32_t rank, int32_t call, float *to) {
    int32_t *index = (int32_t *)(void *)(to + ROWS);
    for (int32_t i = 0; i < COUNT; i++) to[i] = part(rank, call, i);
    for (int32_t i = 0; i < ROWS && !is_sum(call); i++) index[i] = 1000 * rank + call;
}

static bool right(int32_t call, const void *out) {
    for (int32_t i = 0; i < (is_sum(call) ? COUNT : ROWS); i++) {
        const float a = part(0, call, i), b = part(1, call, i);
        if (is_sum(call) ? ((const float *)out)[i] != a + b : ((const int32_t *)out)[i] != (b > a ? 1000 : 0) + call)
            return false;
    }
    return true;
}

static void open_group(int32_t rank, int to, int from, float *block[RANKS]) {
    CUipcMemHandle mine, theirs;
    CUdeviceptr peer = 0;
    void *own = NULL;
    if (open_device(rank) != 0) _exit(1);
    OK(be.memory->take(&be, WORDS * sizeof(float), "a test", &own));
    OK(be.memory->wait(&be)); /* zero before the peer sees it */
    OK(NT_CU(be.cuda->driver, cuIpcGetMemHandle(&mine, (CUdeviceptr)(uintptr_t)own)));
    exchange(to, from, &mine, &theirs, sizeof mine);
    OK(NT_CU(be.cuda->driver, cuIpcOpenMemHandle(&peer, theirs, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS)));
    block[rank] = own;
    block[1 - rank] = (float *)(uintptr_t)peer;
}

static nt_status run_call(const struct nt_p2p_group *group, int32_t call, void *out) {
    const struct nt_allreduce_p2p_args sum = {.group = *group, .out = out, .count = COUNT};
    const struct nt_best_pairs_args best = {.group = *group, .token = out, .n_row = ROWS};
    return is_sum(call) ? be.peer_ops->sum(&be, &sum) : be.peer_ops->best(&be, &best);
}

static int run_rank(int32_t rank, int to, int from) {
    float *block[RANKS], host[COUNT];
    void *out = NULL;
    int32_t n_wrong = 0;
    open_group(rank, to, from, block);
    OK(be.memory->take(&be, sizeof host, "a test", &out));
    for (int32_t call = 0; call < CALLS; call++) {
        struct nt_p2p_group group = {.rank = rank, .size = RANKS};
        for (int32_t r = 0; r < RANKS; r++) {
            group.from[r] = block[r] + call % PLACES * COUNT;
            group.flags[r] = (uint32_t *)(void *)(block[r] + FLAGS_AT);
        }
        group.epoch = (uint32_t *)(void *)(block[rank] + EPOCH_AT);
        if (call / 2 % 3 == rank) (void)usleep(LATE_US);
        fill(rank, call, host);
        OK(be.memory->upload(&be, block[rank] + call % PLACES * COUNT, host, sizeof host));
        OK(run_call(&group, call, out));
        OK(be.memory->download(&be, host, out, sizeof host));
        if (right(call, host)) continue; /* a wrong one goes on as well: the peer waits for this rank */
        (void)fprintf(stderr, "rank %d: call %d took what the peer had not written\n", rank, call);
        n_wrong++;
    }
    exchange(to, from, &n_wrong, host, sizeof n_wrong); /* the peer may still read this rank's memory */
    OK(NT_CU(be.cuda->driver, cuIpcCloseMemHandle((CUdeviceptr)(uintptr_t)block[1 - rank])));
    be.memory->give(&be, block[rank], WORDS * sizeof(float));
    be.memory->give(&be, out, sizeof host);
    nt_backend_close(&be);
    return n_wrong > 0;
}

int main(void) {
    int pipes[RANKS][2]; /* [r]: what rank r reads */
    pid_t child[RANKS];
    const char *more = getenv("NT_EMU");
    char options[4096];
    (void)snprintf(options, sizeof options, "devices=2%s%s", more ? "," : "", more ? more : "");
    setenv("NT_EMU", options, 1);
    for (int r = 0; r < RANKS; r++)
        if (pipe(pipes[r]) != 0) return 1;
    for (int32_t r = 0; r < RANKS; r++) {
        child[r] = fork();
        if (child[r] < 0) return 1;
        if (child[r] == 0) exit(run_rank(r, pipes[1 - r][1], pipes[r][0]));
    }
    int failed = 0;
    for (int n = 0; n < RANKS; n++) {
        int status = 0;
        const pid_t ended = wait(&status);
        if (status == 0) continue;
        failed = 1; /* the other one may wait for it for good */
        for (int r = 0; r < RANKS; r++)
            if (child[r] != ended) (void)kill(child[r], SIGKILL);
    }
    return failed;
}

#endif
