/* The memory of a job: counted, printed and checked before its first step.
 *
 * Device memory is the weights, the workspace of the kernels, what peers read of it, in training the trained numbers
 * with their gradients and moments and the room for sums of gradients (all taken before) and the job's arena: cache,
 * activations, logits. The arena is checked against what is free and taken in one piece; nothing is taken later.
 * Counted and taken bytes are compared, so a block beside the plan ends the job instead of hiding. Not ours to count:
 * the driver's context and what NCCL and cuBLASLt keep for themselves. On a CPU all of it is memory of the node, shared
 * by its ranks. Ownership: borrows all. Threading: main thread. Errors: NT_E_NOMEM with the settings to lower;
 * NT_E_INTERNAL when counted and taken differ.
 */
#ifndef NT_MEMORY_PLAN_H
#define NT_MEMORY_PLAN_H

#include "model.h"

struct nt_memory_plan {
    const struct nt_world *world;
    const struct nt_model *model;
    struct nt_job_memory *memory; /* counted */
    int32_t n_page;               /* of the cache, part of it */
    size_t trained;               /* bytes of trained numbers, 0: no training */
    const char *remedy;           /* settings to lower, for errors */
};

/* Free for this rank: of its device, or its share of the node. */
size_t nt_memory_plan_free(const struct nt_backend *be, const struct nt_world *w);
/* Prints the plan; NT_E_NOMEM when it does not fit. */
NT_MUST nt_status nt_memory_plan_check(const struct nt_memory_plan *p);
/* Binds the memory (job_memory.h) and compares. */
NT_MUST nt_status nt_memory_plan_bind(const struct nt_memory_plan *p);
/* The one and then the other. */
NT_MUST nt_status nt_memory_plan_take(const struct nt_memory_plan *p);

#endif
