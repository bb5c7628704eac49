/* Small sums over the tensor-parallel ranks of one node, by one kernel that reads the peers' memory.
 *
 * Each rank gives the others a block of its device memory (CUDA IPC): three places for partial sums and the flags of
 * the protocol (kernels/allreduce_p2p_cuda.h). Partial sums are written into the place that nt_peer_sum_place names;
 * the kernel adds all ranks' in rank order. Used beside NCCL only where that changes no bit: for two ranks, whose sums
 * have one order, and sizes NCCL is slower for. The first sum of a step has the third place for its own and the others
 * alternate, so that two steps, whose number of sums is odd, never use a place twice in a row.
 * Ownership: nt_peer_sum_close unmaps and frees; after the stream has come to rest. Threading: the main thread.
 * Errors: open leaves *out NULL where the ranks cannot see each other's memory (nobody uses it then). */
#ifndef NT_PEER_SUM_H
#define NT_PEER_SUM_H

#include "backend.h"
#include "comm.h"

struct nt_peer_sum;

/* Collective over the tensor-parallel communicator. */
NT_MUST nt_status nt_peer_sum_open(struct nt_backend *be, const struct nt_world *w, struct nt_peer_sum **out);
void nt_peer_sum_close(struct nt_peer_sum *p); /* accepts NULL */
void nt_peer_sum_step(struct nt_peer_sum *p);  /* the next sum is the first of a step; accepts NULL */
/* Where the next partial sum of n floats is to be written; NULL: it is not one for this way. */
float *nt_peer_sum_place(struct nt_peer_sum *p, int64_t n);
/* out [n] = sum over ranks of what was written to the place. */
NT_MUST nt_status nt_peer_sum_run(struct nt_peer_sum *p, float *out, int64_t n);

#endif
