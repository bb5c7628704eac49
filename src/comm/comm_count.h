/* A world that does not exist: one process that stands for rank 0 of a tensor-parallel group of any size, and counts.
 *
 * Collectives on its tp communicator return at once and leave the data alone; what they would have moved is added to
 * the tally. So a plan can run the real forward of one rank of eight. Only what forwards use is counted: all-reduces of
 * floats; the others succeed (an allgather repeats the caller's part). There is no dp group and nothing is shared.
 * Ownership: nt_world_close ends it as any world; the tally belongs to the caller and outlives it.
 * Threading: one thread. Errors: NT_E_NOMEM. */
#ifndef NT_COMM_COUNT_H
#define NT_COMM_COUNT_H

#include "comm.h"

struct nt_comm_tally {
    int64_t calls;
    double elements;     /* floats summed, over all calls */
    double max_elements; /* of the largest call */
};

/* Needs no nt_world_split. */
NT_MUST nt_status nt_world_open_counted(struct nt_world *w, int32_t tp, struct nt_comm_tally *tally);

#endif
