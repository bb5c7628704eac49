#include "peer_sum.h"

#ifdef NT_HAVE_CUDA
#include "allreduce_p2p_cuda.h"
#include "cuda_backend.h"
#include "gpu_api.h"
#include "log.h"
#include <stdlib.h>
#include <string.h>

enum { PLACES = 3, FIRST_PLACE = PLACES - 1 };

/* A rank's block of device memory. */
enum {
    FLAGS_AT = PLACES * NT_P2P_MAX_BYTES,
    EPOCH_AT = FLAGS_AT + NT_P2P_FLAGS * (int)sizeof(uint32_t),
    BLOCK_BYTES = EPOCH_AT + NT_P2P_BLOCKS * (int)sizeof(uint32_t),
};

struct nt_peer_sum {
    struct nt_backend *be;
    int32_t rank, size;
    char *block[NT_P2P_RANKS]; /* of every rank, as this one sees it */
    int32_t n_mapped;
    int32_t call; /* in the step */
};

struct offer {
    CUipcMemHandle handle;
    char host[256];
    int32_t usable;
};

static bool can_share(const struct nt_gpu_driver *d) {
    return d->cuIpcGetMemHandle && d->cuIpcOpenMemHandle && d->cuIpcCloseMemHandle;
}

static void make_offer(struct nt_peer_sum *p, const struct nt_world *w, struct offer *mine) {
    const struct nt_gpu_driver *d = p->be->cuda->driver;
    void *block = NULL;
    memcpy(mine->host, w->host, sizeof mine->host);
    if (!can_share(d) || p->be->memory->take(p->be, BLOCK_BYTES, "sums over peers", &block) != NT_OK) {
        nt_error_clear();
        return;
    }
    p->block[p->rank] = block;
    mine->usable = d->cuIpcGetMemHandle(&mine->handle, (CUdeviceptr)(uintptr_t)block) == CUDA_SUCCESS;
}

static bool map_peers(struct nt_peer_sum *p, const struct offer *all) {
    const struct nt_gpu_driver *d = p->be->cuda->driver;
    for (int32_t r = 0; r < p->size; r++) {
        if (!all[r].usable || strcmp(all[r].host, all[p->rank].host) != 0) return false;
        CUdeviceptr at = 0;
        if (r == p->rank) continue;
        if (d->cuIpcOpenMemHandle(&at, all[r].handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS) != CUDA_SUCCESS) return false;
        p->block[r] = (char *)(uintptr_t)at;
        p->n_mapped++;
    }
    return true;
}

static nt_status exchange(struct nt_peer_sum *p, const struct nt_world *w, bool *everywhere) {
    struct offer mine = {0}, all[NT_P2P_RANKS];
    make_offer(p, w, &mine);
    NT_TRY(p->be->memory->wait(p->be)); /* the block is zero before anybody sees it */
    NT_TRY(nt_comm_allgather(w->tp, &mine, all, sizeof mine));
    int64_t without = !map_peers(p, all);
    NT_TRY(nt_comm_allreduce_max_i64(w->tp, &without, 1));
    *everywhere = !without;
    return NT_OK;
}

nt_status nt_peer_sum_open(struct nt_backend *be, const struct nt_world *w, struct nt_peer_sum **out) {
    *out = NULL;
    if (w->tp_size != 2) return NT_OK;
    struct nt_peer_sum *p = calloc(1, sizeof *p);
    NT_TRY(nt_comm_agree(w->tp, p ? NT_OK : NT_FAIL(NT_E_NOMEM, "no memory for the sums over peers")));
    p->be = be;
    p->rank = w->tp_rank;
    p->size = w->tp_size;
    bool everywhere = false;
    const nt_status st = exchange(p, w, &everywhere);
    if (st != NT_OK || !everywhere) {
        nt_peer_sum_close(p);
        return st;
    }
    nt_info("comm", "sums up to %d KiB are taken from the peers' memory", NT_P2P_MAX_BYTES >> 10);
    *out = p;
    return NT_OK;
}

void nt_peer_sum_close(struct nt_peer_sum *p) {
    if (!p) return;
    for (int32_t r = 0; r < p->size; r++)
        if (r != p->rank && p->block[r])
            (void)p->be->cuda->driver->cuIpcCloseMemHandle((CUdeviceptr)(uintptr_t)p->block[r]);
    p->be->memory->give(p->be, p->block[p->rank], BLOCK_BYTES);
    free(p);
}

void nt_peer_sum_step(struct nt_peer_sum *p) {
    if (p) p->call = 0;
}

static size_t place_of(const struct nt_peer_sum *p) {
    return (size_t)NT_P2P_MAX_BYTES * (size_t)(p->call == 0 ? FIRST_PLACE : (p->call - 1) % 2);
}

float *nt_peer_sum_place(struct nt_peer_sum *p, int64_t n) {
    if (!p || n % 4 != 0 || n * (int64_t)sizeof(float) > NT_P2P_MAX_BYTES) return NULL;
    return (float *)(void *)(p->block[p->rank] + place_of(p));
}

nt_status nt_peer_sum_run(struct nt_peer_sum *p, float *out, int64_t n) {
    struct nt_allreduce_p2p_args args = {
        .group = {.rank = p->rank, .size = p->size},
          .out = out, .count = n
    };
    for (int32_t r = 0; r < p->size; r++) {
        args.group.from[r] = (const float *)(void *)(p->block[r] + place_of(p));
        args.group.flags[r] = (uint32_t *)(void *)(p->block[r] + FLAGS_AT);
    }
    args.group.epoch = (uint32_t *)(void *)(p->block[p->rank] + EPOCH_AT);
    p->call++;
    return nt_allreduce_p2p_cuda(p->be, &args);
}

#else /* a build without CUDA has no device whose sums these could be */

nt_status nt_peer_sum_open(struct nt_backend *be, const struct nt_world *w, struct nt_peer_sum **out) {
    (void)be;
    (void)w;
    *out = NULL;
    return NT_OK;
}
void nt_peer_sum_close(struct nt_peer_sum *p) {
    (void)p;
}
void nt_peer_sum_step(struct nt_peer_sum *p) {
    (void)p;
}
float *nt_peer_sum_place(struct nt_peer_sum *p, int64_t n) {
    (void)p;
    (void)n;
    return NULL;
}
nt_status nt_peer_sum_run(struct nt_peer_sum *p, float *out, int64_t n) {
    (void)p;
    (void)out;
    (void)n;
    return NT_FAIL(NT_E_INTERNAL, "a sum over peers in a build without CUDA");
}
#endif
