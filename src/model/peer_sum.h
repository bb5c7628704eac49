/* Small sums over the tensor-parallel ranks of one node, by one kernel that reads the peers' memory.
 *
 * Each rank gives the others a block of its device memory (CUDA IPC): three places for partial sums and the flags of
 * the protocol (kernels/allreduce_p2p_cuda.h). Partial sums are written into the place that nt_peer_sum_place names;
 * the kernel adds all ranks' in rank order, and where a norm follows goes on with it. Used beside NCCL only where that
 * changes no bit: for two ranks, whose sums have one order, and sizes NCCL is slower for. The first sum of a step has
 * the third place for its own and the others alternate, so that no place is used twice in a row, whatever steps follow
 * each other: a sum that goes to NCCL is counted, and the same place before and behind one is safe, because no rank
 * passes a sum of NCCL's before all have come to it.
 * A peer that never comes leaves the kernel waiting, and nothing on the host waits with it: all waits for the stream
 * poll (comm_device.h), the watchdog knows these sums by the name and number they have there and whose device is
 * missing in one, and a rank that fails leaves without waiting for the stream, so the job's end reaches all (nocturne's
 * main). Flags are never set to let a kernel go: what it computed would be nonsense. Ownership: nt_peer_sum_close
 * unmaps and frees; after the stream has come to rest, and where all ranks are there after nt_peer_sum_leave.
 * Threading: the main thread. Errors: open leaves *out NULL where the ranks cannot see each other's memory (nobody uses
 * it then).
 */
#ifndef NT_PEER_SUM_H
#define NT_PEER_SUM_H

#include "backend.h"
#include "comm_device.h"

struct nt_peer_sum;

/* Collective over the tensor-parallel communicator. */
NT_MUST nt_status nt_peer_sum_open(struct nt_backend *be, const struct nt_world *w, struct nt_device_comm *comm,
                                   struct nt_peer_sum **out);
/* Those a job on two GPUs of a node would have, with places that only a backend that counts can use. */
NT_MUST nt_status nt_peer_sum_open_shape(struct nt_backend *be, const struct nt_world *w, struct nt_peer_sum **out);
/* Collective over tp: all have their sums and let go of each other's memory, which may be freed from then on. */
NT_MUST nt_status nt_peer_sum_leave(struct nt_peer_sum *p, struct nt_comm *tp);
void nt_peer_sum_close(struct nt_peer_sum *p);         /* accepts NULL */
size_t nt_peer_sum_bytes(const struct nt_peer_sum *p); /* taken of the backend's memory; accepts NULL */
void nt_peer_sum_step(struct nt_peer_sum *p);          /* the next sum is the first of a step; accepts NULL */
/* Where the next partial sum of n floats is to be written; NULL: it is not one for this way. */
float *nt_peer_sum_place(struct nt_peer_sum *p, int64_t n);
/* out [n] = sum over ranks of what was written to the place. */
NT_MUST nt_status nt_peer_sum_run(struct nt_peer_sum *p, float *out, int64_t n);
/* May the sum and a norm over all of its rows be one launch? Accepts NULL. */
bool nt_peer_sum_fuses(const struct nt_peer_sum *p, int32_t d_model);
/* rmsnorm with that sum, [norm->n_rows, d_model], as its delta: the bits of both calls, and nothing else keeps it. */
NT_MUST nt_status nt_peer_sum_norm(struct nt_peer_sum *p, const struct nt_rmsnorm_args *norm);
/* token [n_row] = the index of the best of all ranks' pairs, written to the place: value [n_row], index [n_row]. */
NT_MUST nt_status nt_peer_sum_best(struct nt_peer_sum *p, int32_t *token, int32_t n_row);

#endif
