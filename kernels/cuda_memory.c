#include "cuda_parts.h"
#include <stdlib.h>
#include <string.h>

/* Uploads go through a ring of pinned memory cut into segments: small ones fill a segment together, and a segment is
 * used again when the event recorded behind its last copy has passed. So an upload waits for the device only when the
 * whole ring is under way. Downloads alternate between two pinned halves. */
enum { N_SEGMENTS = 16, SEGMENT = 1 << 20, HALF = 2 << 20, UPLOAD_ALIGN = 64 };

struct nt_cuda_staging {
    char *up;    /* [N_SEGMENTS][SEGMENT] */
    char *down;  /* [2][HALF] */
    char *slots; /* [NT_DOWNLOAD_SLOTS][NT_DOWNLOAD_SLOT_BYTES] */
    CUevent left[N_SEGMENTS], arrived[2], slot_filled[NT_DOWNLOAD_SLOTS];
    bool under_way[N_SEGMENTS]; /* left was recorded and not waited for */
    int segment;                /* being filled */
    size_t used;                /* bytes of it */
};

static CUdeviceptr device_address(const void *p) {
    return (CUdeviceptr)(uintptr_t)p;
}

/* ---- staging ---- */

static nt_status open_staging(struct nt_cuda *cuda) {
    const struct nt_gpu_driver *d = cuda->driver;
    struct nt_cuda_staging *s = cuda->staging = calloc(1, sizeof *s);
    if (!s) return NT_FAIL(NT_E_NOMEM, "no memory for the staging of the CUDA backend");
    void *p = NULL;
    NT_TRY(NT_CU(d, cuMemHostAlloc(&p, (size_t)N_SEGMENTS * SEGMENT, 0)));
    s->up = p;
    NT_TRY(NT_CU(d, cuMemHostAlloc(&p, (size_t)2 * HALF, 0)));
    s->down = p;
    NT_TRY(NT_CU(d, cuMemHostAlloc(&p, (size_t)NT_DOWNLOAD_SLOTS * NT_DOWNLOAD_SLOT_BYTES, 0)));
    s->slots = p;
    for (int i = 0; i < NT_DOWNLOAD_SLOTS; i++)
        NT_TRY(NT_CU(d, cuEventCreate(&s->slot_filled[i], CU_EVENT_DISABLE_TIMING)));
    for (int i = 0; i < N_SEGMENTS; i++) NT_TRY(NT_CU(d, cuEventCreate(&s->left[i], CU_EVENT_DISABLE_TIMING)));
    for (int i = 0; i < 2; i++) NT_TRY(NT_CU(d, cuEventCreate(&s->arrived[i], CU_EVENT_DISABLE_TIMING)));
    return NT_OK;
}

static void close_staging(struct nt_cuda *cuda) {
    const struct nt_gpu_driver *d = cuda->driver;
    struct nt_cuda_staging *s = cuda->staging;
    if (!s) return;
    for (int i = 0; i < N_SEGMENTS; i++)
        if (s->left[i]) (void)d->cuEventDestroy(s->left[i]);
    for (int i = 0; i < 2; i++)
        if (s->arrived[i]) (void)d->cuEventDestroy(s->arrived[i]);
    for (int i = 0; i < NT_DOWNLOAD_SLOTS; i++)
        if (s->slot_filled[i]) (void)d->cuEventDestroy(s->slot_filled[i]);
    if (s->slots) (void)d->cuMemFreeHost(s->slots);
    if (s->up) (void)d->cuMemFreeHost(s->up);
    if (s->down) (void)d->cuMemFreeHost(s->down);
    free(s);
    cuda->staging = NULL;
}

struct upload {
    const struct nt_gpu_driver *driver;
    CUevent left;
};

static nt_status upload_left(void *upload, bool *done) {
    const struct upload *u = upload;
    return nt_cuda_event_passed(u->driver, u->left, done);
}

static nt_status wait_for_upload(struct nt_backend *be, CUevent left) {
    struct upload u = {.driver = be->cuda->driver, .left = left};
    if (be->watch) NT_TRY(be->watch(be->watch_arg, upload_left, &u));
    NT_TRY(NT_CU(u.driver, cuEventSynchronize(left)));
    return NT_OK;
}

/* Room for up to `bytes` in the ring: the pointer, and how many fit at once. */
static nt_status ring_room(struct nt_backend *be, size_t bytes, char **out, size_t *room) {
    struct nt_cuda *cuda = be->cuda;
    const struct nt_gpu_driver *d = cuda->driver;
    struct nt_cuda_staging *s = cuda->staging;
    if (s->used > 0 && SEGMENT - s->used < bytes) { /* a fresh segment keeps a copy in one piece */
        NT_TRY(NT_CU(d, cuEventRecord(s->left[s->segment], nt_cuda_stream(cuda))));
        s->under_way[s->segment] = true;
        s->segment = (s->segment + 1) % N_SEGMENTS;
        s->used = 0;
        if (s->under_way[s->segment]) NT_TRY(wait_for_upload(be, s->left[s->segment]));
        s->under_way[s->segment] = false;
    }
    *out = s->up + (size_t)s->segment * SEGMENT + s->used;
    *room = SEGMENT - s->used < bytes ? SEGMENT - s->used : bytes;
    s->used += (*room + UPLOAD_ALIGN - 1) / UPLOAD_ALIGN * UPLOAD_ALIGN;
    return NT_OK;
}

/* ---- the table ---- */

static nt_status cuda_zero(struct nt_backend *be, void *to, size_t bytes) {
    if (bytes == 0) return NT_OK;
    NT_TRY(NT_CU(be->cuda->driver, cuMemsetD8Async(device_address(to), 0, bytes, nt_cuda_stream(be->cuda))));
    return NT_OK;
}

static void cuda_give(struct nt_backend *be, void *memory, size_t bytes) {
    if (!memory) return;
    (void)be->cuda->driver->cuMemFree(device_address(memory));
    be->cuda->taken -= bytes;
}

static size_t free_bytes(const struct nt_cuda *cuda) {
    size_t available = 0, total = 0;
    return cuda->driver->cuMemGetInfo(&available, &total) == CUDA_SUCCESS ? available : 0;
}

static nt_status allocate(struct nt_cuda *cuda, size_t bytes, const char *what, void **out) {
    CUdeviceptr p = 0;
    const CUresult result = cuda->driver->cuMemAlloc(&p, bytes > 0 ? bytes : 1);
    if (result == CUDA_ERROR_OUT_OF_MEMORY) {
        return NT_FAIL(NT_E_NOMEM,
                       "no device memory for %zu bytes of %s: %zu of %zu bytes of %s are free; does another process "
                       "have them?",
                       bytes, what, free_bytes(cuda), cuda->facts.memory, cuda->facts.name);
    }
    if (result != CUDA_SUCCESS) return nt_gpu_fail(cuda->driver, result, "cuMemAlloc", __FILE__, __LINE__);
    *out = (void *)(uintptr_t)p;
    cuda->taken += bytes;
    return NT_OK;
}

/* Exactly `bytes`, so that a kernel that reads past them can be found. */
static nt_status cuda_take(struct nt_backend *be, size_t bytes, const char *what, void **out) {
    struct nt_cuda *cuda = be->cuda;
    *out = NULL;
    if (cuda->capturing) return NT_FAIL(NT_E_INTERNAL, "memory for %s was asked for inside a captured step", what);
    NT_TRY(allocate(cuda, bytes, what, out));
    const nt_status st = cuda_zero(be, *out, bytes);
    if (st == NT_OK) return NT_OK;
    cuda_give(be, *out, bytes);
    *out = NULL;
    return nt_trail_at(st, __FILE__, __LINE__);
}

static size_t cuda_available(const struct nt_backend *be) {
    const struct nt_cuda *cuda = be->cuda;
    const size_t available = free_bytes(cuda);
    if (cuda->quota == 0) return available;
    const size_t left = cuda->quota > cuda->taken ? cuda->quota - cuda->taken : 0;
    return left < available ? left : available;
}

void nt_cuda_share(struct nt_backend *be, int32_t n_rank, bool crowded, bool copies) {
    be->cuda->quota = n_rank > 1 ? be->cuda->taken + be->memory->available(be) / (size_t)n_rank : 0;
    be->cuda->crowded = crowded;
    be->cuda->crowded_copies = copies;
}

static nt_status cuda_upload(struct nt_backend *be, void *to, const void *from, size_t bytes) {
    struct nt_cuda *cuda = be->cuda;
    if (cuda->capturing) return NT_FAIL(NT_E_INTERNAL, "an upload inside a captured step");
    for (size_t done = 0; done < bytes;) {
        char *staged = NULL;
        size_t n = 0;
        NT_TRY(ring_room(be, bytes - done, &staged, &n));
        memcpy(staged, (const char *)from + done, n);
        NT_TRY(NT_CU(cuda->driver, cuMemcpyHtoDAsync(device_address(to) + done, staged, n, nt_cuda_stream(cuda))));
        done += n;
    }
    return NT_OK;
}

static nt_status start_download(struct nt_cuda *cuda, int half, const void *from, size_t bytes) {
    struct nt_cuda_staging *s = cuda->staging;
    char *to = s->down + (size_t)half * HALF;
    NT_TRY(NT_CU(cuda->driver, cuMemcpyDtoHAsync(to, device_address(from), bytes, nt_cuda_stream(cuda))));
    NT_TRY(NT_CU(cuda->driver, cuEventRecord(s->arrived[half], nt_cuda_stream(cuda))));
    return NT_OK;
}

static size_t piece(size_t bytes, size_t at) {
    return bytes - at < HALF ? bytes - at : HALF;
}

static nt_status cuda_download(struct nt_backend *be, void *to, const void *from, size_t bytes) {
    struct nt_cuda *cuda = be->cuda;
    struct nt_cuda_staging *s = cuda->staging;
    if (cuda->capturing) return NT_FAIL(NT_E_INTERNAL, "a download inside a captured step");
    if (bytes == 0) return NT_OK;
    if (be->watch) NT_TRY(be->watch(be->watch_arg, NULL, NULL));
    NT_TRY(start_download(cuda, 0, from, piece(bytes, 0)));
    int half = 0;
    for (size_t at = 0; at < bytes; at += HALF, half ^= 1) {
        const size_t next = at + HALF;
        if (next < bytes) NT_TRY(start_download(cuda, half ^ 1, (const char *)from + next, piece(bytes, next)));
        NT_TRY(NT_CU(cuda->driver, cuEventSynchronize(s->arrived[half])));
        memcpy((char *)to + at, s->down + (size_t)half * HALF, piece(bytes, at));
    }
    return NT_OK;
}

static nt_status cuda_start_download(struct nt_backend *be, int slot, const void *from, size_t bytes) {
    struct nt_cuda *cuda = be->cuda;
    NT_CHECK(slot >= 0 && slot < NT_DOWNLOAD_SLOTS && bytes <= NT_DOWNLOAD_SLOT_BYTES && !cuda->capturing);
    char *to = cuda->staging->slots + (size_t)slot * NT_DOWNLOAD_SLOT_BYTES;
    NT_TRY(NT_CU(cuda->driver, cuMemcpyDtoHAsync(to, device_address(from), bytes, nt_cuda_stream(cuda))));
    NT_TRY(NT_CU(cuda->driver, cuEventRecord(cuda->staging->slot_filled[slot], nt_cuda_stream(cuda))));
    return NT_OK;
}

static nt_status cuda_finish_download(struct nt_backend *be, int slot, void *to, size_t bytes) {
    const struct nt_cuda *cuda = be->cuda;
    NT_TRY(NT_CU(cuda->driver, cuEventSynchronize(cuda->staging->slot_filled[slot])));
    memcpy(to, cuda->staging->slots + (size_t)slot * NT_DOWNLOAD_SLOT_BYTES, bytes);
    return NT_OK;
}

static nt_status cuda_wait(struct nt_backend *be) {
    if (be->cuda->capturing) return NT_FAIL(NT_E_INTERNAL, "a wait inside a captured step");
    if (be->watch) NT_TRY(be->watch(be->watch_arg, NULL, NULL));
    NT_TRY(NT_CU(be->cuda->driver, cuStreamSynchronize(be->cuda->stream)));
    return NT_OK;
}

static nt_status cuda_query(struct nt_backend *be, bool *done) {
    const struct nt_gpu_driver *d = be->cuda->driver;
    const CUresult result = d->cuStreamQuery(be->cuda->stream);
    *done = result == CUDA_SUCCESS;
    if (result == CUDA_SUCCESS || result == CUDA_ERROR_NOT_READY) return NT_OK;
    return nt_gpu_fail(d, result, "cuStreamQuery", __FILE__, __LINE__);
}

static const struct nt_memory cuda_memory = {.take = cuda_take,
                                             .give = cuda_give,
                                             .available = cuda_available,
                                             .upload = cuda_upload,
                                             .download = cuda_download,
                                             .start_download = cuda_start_download,
                                             .finish_download = cuda_finish_download,
                                             .zero = cuda_zero,
                                             .wait = cuda_wait,
                                             .query = cuda_query};

const struct nt_memory *nt_cuda_memory(void) {
    return &cuda_memory;
}

nt_status nt_cuda_open_memory(struct nt_cuda *cuda) {
    NT_TRY(open_staging(cuda));
    NT_TRY(allocate(cuda, NT_CUDA_WORKSPACE_BYTES, "workspace", &cuda->workspace));
    cuda->workspace_bytes = NT_CUDA_WORKSPACE_BYTES;
    return NT_OK;
}

void nt_cuda_close_memory(struct nt_cuda *cuda) {
    close_staging(cuda);
    if (cuda->workspace) (void)cuda->driver->cuMemFree(device_address(cuda->workspace));
    cuda->workspace = NULL;
}
