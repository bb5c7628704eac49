/* Sums of gradients over ranks: over tp those that are parts, then all over dp. Private to src/model.
 *
 * Ranks are added in order, in f32: the same bits on all ranks, in host memory and on devices. On devices that NCCL
 * connects nothing goes through the host (rank_sum.h); the others, and CPUs, take the host's communicator. With more
 * tensor-parallel ranks than KV heads, ranks hold different heads of the keys' and values' gradients: those meet as
 * heads of the whole. The memory for all this is taken by open and counted by bytes; nothing is taken in a step.
 * Ownership: the struct's own arrays; parameters and communicators are borrowed. One thread. Errors: those of
 * communicators, device and memory. */
#ifndef NT_GRAD_SUM_H
#define NT_GRAD_SUM_H

#include "params.h"
#include "rank_sum.h"

struct nt_grad_sum {
    const struct nt_params *p;
    struct nt_rank_sum tp, dp;
    float *parts;   // [the larger room of both]
    float *whole;   // [n_whole] gradients of all heads of a tensor
    int32_t *heads; // [n_heads] where this rank's heads are among all, row by row
    int64_t n_whole, n_heads;
    int32_t d_head;
};

/* Of parameters with all their arrays. tp, dp: the devices' communicators, NULL for sums in host memory. Of all ranks
 * with the same settings. */
NT_MUST nt_status nt_grad_sum_open(struct nt_grad_sum *s, const struct nt_params *p, int32_t d_head,
                                   struct nt_device_comm *tp, struct nt_device_comm *dp);
void nt_grad_sum_close(struct nt_grad_sum *s);         /* accepts a zeroed struct */
size_t nt_grad_sum_bytes(const struct nt_grad_sum *s); /* of the backend's memory */
/* Sums the gradients. Collective over tp and dp; on devices it returns once it is queued. */
NT_MUST nt_status nt_grad_sum(const struct nt_grad_sum *s);

#endif
