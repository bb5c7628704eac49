#include "job_memory.h"

void nt_job_memory_init(struct nt_job_memory *m, struct nt_backend *be) {
    *m = (struct nt_job_memory){.be = be, .apart = !nt_backend_is_host(be)};
    nt_arena_init(&m->host, "job");
    nt_arena_init(&m->device, nt_backend_is_host(be) ? "tensors" : "device");
}

size_t nt_job_memory_bytes(const struct nt_job_memory *m) {
    return m->host.used + m->device.used;
}

nt_status nt_arena_bind_backend(struct nt_arena *a, struct nt_backend *be) {
    if (nt_backend_is_host(be)) return nt_arena_bind(a);
    void *memory = NULL;
    const size_t bytes = a->used > 0 ? a->used : 1;
    NT_TRY(be->memory->take(be, bytes, a->name, &memory));
    nt_arena_bind_device(a, memory, bytes);
    return NT_OK;
}

void nt_arena_give(struct nt_arena *a, struct nt_backend *be) {
    if (a->base && a->on_device) be->memory->give(be, a->base, a->size > 0 ? a->size : 1);
    nt_arena_release(a);
}

nt_status nt_job_memory_bind(struct nt_job_memory *m) {
    NT_TRY(nt_arena_bind(&m->host));
    return nt_arena_bind_backend(&m->device, m->be);
}

void nt_job_memory_release(struct nt_job_memory *m) {
    if (!m->be) return;
    nt_arena_release(&m->host);
    nt_arena_give(&m->device, m->be);
    nt_job_memory_init(m, m->be);
}

struct nt_both nt_job_take_both(struct nt_job_memory *m, size_t bytes) {
    struct nt_both b = {.host = nt_arena_take(&m->host, bytes, 1)};
    b.device = m->apart ? nt_arena_take(&m->device, bytes, 1) : b.host;
    return b;
}

nt_status nt_both_push(struct nt_backend *be, const struct nt_both *b, size_t offset, size_t bytes) {
    if (b->host == b->device || bytes == 0) return NT_OK;
    return be->memory->upload(be, (char *)b->device + offset, (const char *)b->host + offset, bytes);
}

nt_status nt_both_pull(struct nt_backend *be, const struct nt_both *b, size_t offset, size_t bytes) {
    if (b->host == b->device || bytes == 0) return NT_OK;
    return be->memory->download(be, (char *)b->host + offset, (const char *)b->device + offset, bytes);
}
