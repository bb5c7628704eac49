/* Sums over ranks on their devices, ranks in order: the bits of the host's sums (comm.h), and no host memory.
 *
 * NCCL moves, op sum_parts adds. What two ranks have, or what is short, every rank gathers whole and adds; of more,
 * each rank gets everybody's part of a slice, adds it, and the slices are gathered: 2 (n - 1) / n of the numbers travel
 * instead of n - 1 times. Both make the same additions. All in the order of the stream: a sum returns once it is
 * queued, and who waits for the stream watches the ranks (comm_device.h). Where numbers meet is the owner's memory,
 * [room], which sums of one stream share. Threading: one thread. Errors: those of the communicator and of the device.
 */
#ifndef NT_RANK_SUM_H
#define NT_RANK_SUM_H

#include "backend.h"
#include "comm_device.h"

struct nt_rank_sum {
    struct nt_backend *be;       /* borrowed */
    struct nt_device_comm *comm; /* borrowed; NULL: the ranks sum in host memory */
    float *parts;                // [room]
    int64_t room;
    int32_t rank, size;
};

/* The room that sums of up to n numbers are given: at most 64 MiB, and the same on all ranks that sum. */
int64_t nt_rank_sum_room(int32_t size, int64_t n);
/* x [n] = the sum of x over all ranks of comm, which have the same n and room. */
NT_MUST nt_status nt_rank_sum(const struct nt_rank_sum *s, float *x, int64_t n);

#endif
