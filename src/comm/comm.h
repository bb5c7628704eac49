/* Communicators: the few collectives the program needs, over `self` or MPI (NCCL will be a further row).
 *
 * nt_world is made once by main and split into world = dp x tp: ranks with the same dp index hold one model copy
 * (tp neighbours are consecutive world ranks). Collectives are called in the same order by all ranks of a communicator.
 * Reductions sum in rank order 0..size-1, so every rank gets the same bits (fixed order, same for any arrival time).
 * Each collective records itself (name, sequence number) for the watchdog. Errors: NT_E_COMM with the MPI text. */
#ifndef NT_COMM_H
#define NT_COMM_H

#include "status.h"
#include <stdbool.h>
#include <stdint.h>

struct nt_comm; /* opaque */

struct nt_world {
    struct nt_comm *world, *tp, *dp; /* dp: ranks of equal tp index, one per model copy */
    int32_t rank, size;              /* in world */
    int32_t tp_rank, tp_size, dp_rank, dp_size;
    int32_t node_rank, node_size; /* ranks on this node */
    char host[256];
};

/* Initialises MPI when the process was started by mpirun/srun (env.h), else a world of one `self` without MPI. tp must
 * divide the size. */
NT_MUST nt_status nt_world_open(struct nt_world *w);
NT_MUST nt_status nt_world_split(struct nt_world *w, int32_t tp); /* once, after the config is known */
void nt_world_close(struct nt_world *w);                          /* MPI_Finalize */
/* Ends all ranks at once (MPI_Abort); the one way out of a failed parallel run. Only main.c and the watchdog call it.
 */
_Noreturn void nt_world_abort(int exit_code);

int32_t nt_comm_rank(const struct nt_comm *c);
int32_t nt_comm_size(const struct nt_comm *c);
NT_MUST nt_status nt_comm_barrier(struct nt_comm *c);
NT_MUST nt_status nt_comm_broadcast(struct nt_comm *c, void *buf, size_t bytes, int32_t root);
NT_MUST nt_status nt_comm_allreduce_f32(struct nt_comm *c, float *buf, int64_t n);       /* in place sum, rank order */
NT_MUST nt_status nt_comm_allreduce_max_i64(struct nt_comm *c, int64_t *buf, int64_t n); /* in place */
NT_MUST nt_status nt_comm_allreduce_sum_i64(struct nt_comm *c, int64_t *buf, int64_t n); /* in place */
NT_MUST nt_status nt_comm_allgather(struct nt_comm *c, const void *mine, void *all, size_t bytes_each);
/* Agreement after a step that may fail on some ranks only: every rank passes its status; if any failed, every rank
 * returns failure (the first failing rank's sentence is broadcast), so nobody is left waiting. */
NT_MUST nt_status nt_comm_agree(struct nt_comm *c, nt_status mine);

/* Memory shared by the ranks of one node that have the same tp index (packed weights). Every caller gets the same
 * bytes; *leader is true on the one rank that fills it (then nt_shared_ready on all). 64-byte aligned. Falls back to
 * private memory (leader true everywhere) when the node cannot share. */
struct nt_shared {
    void *base;
    size_t bytes;
    bool leader;
    void *impl;
};
NT_MUST nt_status nt_shared_open(struct nt_world *w, size_t bytes, struct nt_shared *s);
NT_MUST nt_status nt_shared_ready(struct nt_world *w, struct nt_shared *s);
void nt_shared_close(struct nt_world *w, struct nt_shared *s);

/* A counter on world rank 0, used in one of two ways. On one node it is an atomic in shared memory. Between nodes rank
 * 0 serves it by messages in nt_comm_progress and in its waits on world and dp, so only ranks with tp_rank 0 may use
 * it. Collective open (after nt_world_split) and close.
 *
 * nt_ticket_next hands out ranges: each call returns the first of the next `count` values. No value is handed out twice
 * and, when all ranks go on until they get one past the end, none is left out. A rank always asks for the same count;
 * its ranges come in rising order. A rank may hold a few ranges ahead: one that stops early leaves them undone, and a
 * resume finds them. nt_ticket_add adds count (or 0: only looks) and never waits; *before is the sum before it, exact
 * on rank 0 and on one node, between nodes as this rank last heard it. */
struct nt_ticket;
NT_MUST nt_status nt_ticket_open(struct nt_world *w, struct nt_ticket **out);
NT_MUST nt_status nt_ticket_next(struct nt_ticket *t, int64_t count, int64_t *first);
NT_MUST nt_status nt_ticket_add(struct nt_ticket *t, int64_t count, int64_t *before);
void nt_ticket_close(struct nt_ticket *t); /* accepts NULL */
/* Long work of this rank between collectives goes on: progress for the watchdog. Any thread, cheap. */
void nt_comm_beat(struct nt_world *w);
void nt_comm_progress(struct nt_world *w); /* call once per step: lets rank 0 serve the others' tickets */

#endif
