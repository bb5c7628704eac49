#include "peer_sum.h"

#include "allreduce_p2p_cuda.h"
#include <stdlib.h>

enum { PLACES = 3, FIRST_PLACE = PLACES - 1 };

/* A rank's block of device memory. */
enum {
    FLAGS_AT = PLACES * NT_P2P_MAX_BYTES,
    EPOCH_AT = FLAGS_AT + NT_P2P_FLAGS * (int)sizeof(uint32_t),
    BLOCK_BYTES = EPOCH_AT + NT_P2P_BLOCKS * (int)sizeof(uint32_t),
};

struct nt_peer_sum {
    struct nt_backend *be;
    struct nt_device_comm *comm; /* numbers them; NULL: nobody waits for them */
    int32_t rank, size;
    int32_t first;             /* rank of world that is rank 0 here */
    char *block[NT_P2P_RANKS]; /* of every rank, as this one sees it */
    bool mapped[NT_P2P_RANKS]; /* and to be unmapped */
    int32_t call;              /* in the step, those of NCCL counted */
};

static nt_status make(struct nt_backend *be, const struct nt_world *w, struct nt_peer_sum **out) {
    struct nt_peer_sum *p = *out = calloc(1, sizeof *p);
    if (!p) return NT_FAIL(NT_E_NOMEM, "no memory for the sums over peers");
    p->be = be;
    p->rank = w->tp_rank;
    p->size = w->tp_size;
    p->first = w->rank - w->tp_rank;
    return NT_OK;
}

/* ---- blocks of memory and their exchange ---- */

#ifdef NT_HAVE_CUDA
#include "cuda_backend.h"
#include "gpu_api.h"
#include "log.h"
#include <string.h>

struct offer {
    CUipcMemHandle handle;
    char host[256];
    unsigned char uuid[16]; /* of the device */
    int32_t usable;
};
enum { MARK = sizeof((struct offer *)0)->uuid, LEFT_AT = NT_P2P_MAX_BYTES /* in the second place, a mark a rank */ };

static bool can_share(const struct nt_gpu_driver *d) {
    return d->cuIpcGetMemHandle && d->cuIpcOpenMemHandle && d->cuIpcCloseMemHandle;
}

static void make_offer(struct nt_peer_sum *p, const struct nt_world *w, struct offer *mine) {
    const struct nt_gpu_driver *d = p->be->cuda->driver;
    void *block = NULL;
    memcpy(mine->host, w->host, sizeof mine->host);
    memcpy(mine->uuid, p->be->cuda->facts.uuid, sizeof mine->uuid);
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
        p->mapped[r] = true;
    }
    return true;
}

static void unmap(struct nt_peer_sum *p) {
    for (int32_t r = 0; r < p->size; r++) {
        if (p->mapped[r]) (void)p->be->cuda->driver->cuIpcCloseMemHandle((CUdeviceptr)(uintptr_t)p->block[r]);
        p->mapped[r] = false;
    }
}

/* Whose device is behind: each says in this rank's memory which call it has come to. The copy runs beside the stream,
 * which a kernel that waits may hold; where the device does not even copy, the watchdog goes on without the answer. */
static void look(void *arg) {
    const struct nt_peer_sum *p = arg;
    const struct nt_cuda *cuda = p->be->cuda;
    uint32_t came[NT_P2P_RANKS];
    const CUdeviceptr flags = (CUdeviceptr)(uintptr_t)(p->block[p->rank] + FLAGS_AT);
    if (cuda->driver->cuMemcpyDtoHAsync(came, flags, sizeof came, cuda->copy) != CUDA_SUCCESS) return;
    if (cuda->driver->cuStreamSynchronize(cuda->copy) != CUDA_SUCCESS) return;
    int32_t last = 0, best = 0;
    for (int32_t r = 1; r < p->size; r++) {
        if ((int32_t)(came[r] - came[last]) < 0) last = r;
        if ((int32_t)(came[r] - came[best]) > 0) best = r;
    }
    nt_device_comm_late(p->comm, p->first + last, last == best ? 0 : (int64_t)came[best]);
}

/* Machines exist that map the memory of a GPU into another and then do not carry what is written (an IOMMU between PCIe
 * ports): a kernel would wait there for ever. So each leaves a mark with each, in places that no sum has had yet. */
static nt_status leave_marks(struct nt_peer_sum *p, const struct offer *all) {
    const struct nt_memory *m = p->be->memory;
    for (int32_t r = 0; r < p->size; r++)
        NT_TRY(m->upload(p->be, p->block[r] + LEFT_AT + p->rank * MARK, all[p->rank].uuid, MARK));
    return m->wait(p->be);
}
static nt_status find_marks(struct nt_peer_sum *p, const struct offer *all, bool *found) {
    for (int32_t r = 0; r < p->size; r++) {
        unsigned char left[MARK], there[MARK];
        NT_TRY(p->be->memory->download(p->be, left, p->block[p->rank] + LEFT_AT + r * MARK, MARK));
        NT_TRY(p->be->memory->download(p->be, there, p->block[r] + LEFT_AT + r * MARK, MARK));
        *found &= memcmp(left, all[r].uuid, MARK) == 0 && memcmp(there, all[r].uuid, MARK) == 0;
    }
    return NT_OK;
}

/* All ranks' memory is mapped. */
static nt_status try_peers(struct nt_peer_sum *p, const struct nt_world *w, const struct offer *all, bool *right) {
    *right = true;
    NT_TRY(nt_comm_agree(w->tp, leave_marks(p, all)));
    NT_TRY(nt_comm_agree(w->tp, find_marks(p, all, right)));
    int64_t wrong = !*right;
    NT_TRY(nt_comm_allreduce_max_i64(w->tp, &wrong, 1));
    *right = !wrong;
    if (wrong && p->rank == 0)
        nt_warn(
            "comm",
            "the GPUs of %s map each other's memory, but what is written there does not arrive (PCIe access control "
            "or an IOMMU?): sums go over NCCL alone; NCCL_P2P_DISABLE=1 if they hang",
            all[0].host);
    return NT_OK;
}

static nt_status exchange(struct nt_peer_sum *p, const struct nt_world *w, bool *everywhere) {
    struct offer mine = {0}, all[NT_P2P_RANKS];
    make_offer(p, w, &mine);
    NT_TRY(p->be->memory->wait(p->be)); /* the block is zero before anybody sees it */
    NT_TRY(nt_comm_allgather(w->tp, &mine, all, sizeof mine));
    int64_t without = !map_peers(p, all);
    NT_TRY(nt_comm_allreduce_max_i64(w->tp, &without, 1));
    *everywhere = !without;
    if (!without) NT_TRY(try_peers(p, w, all, everywhere));
    if (*everywhere) return NT_OK;
    unmap(p);
    return nt_comm_agree(w->tp, NT_OK); /* none frees what another has mapped */
}

nt_status nt_peer_sum_open(struct nt_backend *be, const struct nt_world *w, struct nt_device_comm *comm,
                           struct nt_peer_sum **out) {
    *out = NULL;
    if (w->tp_size != 2) return NT_OK;
    struct nt_peer_sum *p = NULL;
    NT_TRY(nt_comm_agree(w->tp, make(be, w, &p)));
    p->comm = comm;
    bool everywhere = false;
    const nt_status st = exchange(p, w, &everywhere);
    if (st != NT_OK || !everywhere) {
        nt_peer_sum_close(p);
        return st;
    }
    nt_device_comm_look(comm, look, p);
    nt_info("comm", "sums up to %d KiB are taken from the peers' memory", NT_P2P_MAX_BYTES >> 10);
    *out = p;
    return NT_OK;
}

#else /* a build without CUDA has no device whose sums these could be */

nt_status nt_peer_sum_open(struct nt_backend *be, const struct nt_world *w, struct nt_device_comm *comm,
                           struct nt_peer_sum **out) {
    (void)be;
    (void)w;
    (void)comm;
    *out = NULL;
    return NT_OK;
}

static void unmap(struct nt_peer_sum *p) {
    (void)p;
}
#endif

nt_status nt_peer_sum_open_shape(struct nt_backend *be, const struct nt_world *w, struct nt_peer_sum **out) {
    struct nt_peer_sum *p = NULL;
    void *block = NULL;
    *out = NULL;
    if (w->tp_size != 2 || !be->peer_ops) return NT_OK;
    nt_status st = make(be, w, &p);
    if (st == NT_OK) st = be->memory->take(be, BLOCK_BYTES, "sums over peers", &block);
    if (st != NT_OK) {
        nt_peer_sum_close(p);
        return st;
    }
    for (int32_t r = 0; r < p->size; r++) p->block[r] = block;
    *out = p;
    return NT_OK;
}

nt_status nt_peer_sum_leave(struct nt_peer_sum *p, struct nt_comm *tp) {
    const nt_status st = p->be->memory->wait(p->be);
    unmap(p);
    return nt_comm_agree(tp, st); /* also a rank whose device is lost comes here: the others do not wait for it */
}

void nt_peer_sum_close(struct nt_peer_sum *p) {
    if (!p) return;
    if (p->comm) nt_device_comm_look(p->comm, NULL, NULL);
    unmap(p);
    p->be->memory->give(p->be, p->block[p->rank], BLOCK_BYTES);
    free(p);
}

size_t nt_peer_sum_bytes(const struct nt_peer_sum *p) {
    return p ? BLOCK_BYTES : 0;
}

/* ---- sums ---- */

void nt_peer_sum_step(struct nt_peer_sum *p) {
    if (p) p->call = 0;
}

static size_t place_of(const struct nt_peer_sum *p) {
    return (size_t)NT_P2P_MAX_BYTES * (size_t)(p->call == 0 ? FIRST_PLACE : (p->call - 1) % 2);
}

float *nt_peer_sum_place(struct nt_peer_sum *p, int64_t n) {
    if (!p) return NULL;
    if (n % 4 != 0 || n * (int64_t)sizeof(float) > NT_P2P_MAX_BYTES) {
        p->call++; /* it has a number all the same, or the only sum of a step here would have the place of the next */
        return NULL;
    }
    return (float *)(void *)(p->block[p->rank] + place_of(p));
}

/* The group of the next call, which the watchdog is to know by this name. */
static struct nt_p2p_group next_group(struct nt_peer_sum *p, const char *name) {
    struct nt_p2p_group g = {.rank = p->rank, .size = p->size};
    for (int32_t r = 0; r < p->size; r++) {
        g.from[r] = (const float *)(void *)(p->block[r] + place_of(p));
        g.flags[r] = (uint32_t *)(void *)(p->block[r] + FLAGS_AT);
    }
    g.epoch = (uint32_t *)(void *)(p->block[p->rank] + EPOCH_AT);
    p->call++;
    if (p->comm) nt_device_comm_note(p->comm, name);
    return g;
}

nt_status nt_peer_sum_run(struct nt_peer_sum *p, float *out, int64_t n) {
    const struct nt_allreduce_p2p_args args = {.group = next_group(p, "peer sum"), .out = out, .count = n};
    return p->be->peer_ops->sum(p->be, &args);
}

bool nt_peer_sum_fuses(const struct nt_peer_sum *p, int32_t d_model) {
    return p && nt_allreduce_norm_p2p_takes(d_model);
}

nt_status nt_peer_sum_norm(struct nt_peer_sum *p, const struct nt_rmsnorm_args *norm) {
    const struct nt_allreduce_norm_p2p_args args = {.group = next_group(p, "peer sum"), .norm = *norm};
    return p->be->peer_ops->norm(p->be, &args);
}

nt_status nt_peer_sum_best(struct nt_peer_sum *p, int32_t *token, int32_t n_row) {
    const struct nt_best_pairs_args args = {.group = next_group(p, "peer choice"), .token = token, .n_row = n_row};
    return p->be->peer_ops->best(p->be, &args);
}
