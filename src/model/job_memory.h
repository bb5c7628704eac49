/* The memory of a job: what host code uses, and what the ops use (backend.h), each an arena with a counting pass.
 *
 * On a CPU backend both are host memory. Use: init, run the layout functions (they count), bind, run them again.
 * nt_job_take_both gives a block that host code and ops exchange: the same address on a CPU, two blocks on a device,
 * made equal by push (host to device) and pull (device to host; waits). Ownership: release frees both arenas. One
 * thread. Errors: NT_E_NOMEM names the arena; errors of the device's copies. */
#ifndef NT_JOB_MEMORY_H
#define NT_JOB_MEMORY_H

#include "arena.h"
#include "backend.h"

struct nt_job_memory {
    struct nt_backend *be; /* borrowed */
    bool apart;            /* ops do not see host memory. A plan sets it to count what a device would hold */
    struct nt_arena host, device;
};

void nt_job_memory_init(struct nt_job_memory *m, struct nt_backend *be);
size_t nt_job_memory_bytes(const struct nt_job_memory *m); /* counted, both arenas */
NT_MUST nt_status nt_job_memory_bind(struct nt_job_memory *m);
void nt_job_memory_release(struct nt_job_memory *m); /* accepts a zeroed struct; forgets what was counted */

/* An arena in the backend's memory: counted before, released by nt_arena_give. */
NT_MUST nt_status nt_arena_bind_backend(struct nt_arena *a, struct nt_backend *be);
void nt_arena_give(struct nt_arena *a, struct nt_backend *be);

struct nt_both {
    void *host, *device; /* NULL while counting */
};
struct nt_both nt_job_take_both(struct nt_job_memory *m, size_t bytes);
NT_MUST nt_status nt_both_push(struct nt_backend *be, const struct nt_both *b, size_t offset, size_t bytes);
NT_MUST nt_status nt_both_pull(struct nt_backend *be, const struct nt_both *b, size_t offset, size_t bytes);

#endif
