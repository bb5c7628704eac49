/* Collectives on device memory, in the order of a stream: NCCL where its library is there, else through host memory.
 *
 * Opened over a host communicator (which carries NCCL's unique id and stays in use for everything small), for one
 * stream of the backend. A collective returns once it is queued; nt_device_comm_wait returns when the stream has done
 * all of it, nt_device_comm_wait_for when it has come to a point of it. These are the places where a dead or hanging
 * peer shows: they poll the stream and NCCL's asynchronous error, abort the communicator on an error (but where kernels
 * wait in peers' memory), and leave the name and number of the newest collective in the trace, so that the watchdog can
 * name them. Sums of two ranks have one order; for more ranks NCCL's order is fixed by the topology, not by timing;
 * where it must be that of the ranks, who calls gathers and adds (rank_sum.h). A stream may have two communicators, a
 * pair. Others who make kernels of this stream wait for the same ranks (peer_sum.h) have them numbered here, so that
 * all collectives of the stream have one count. Nobody waits on the way out of an error: it goes up to main, which ends
 * the job, and the end of a process takes the kernels that spin along. So nothing that waits for the stream (freeing
 * device memory does too) is called behind an error, and NCCL's communicator is torn down only where all that can spin
 * is its own. Ownership: close frees it, after the stream has come to rest. Threading: the main thread. Errors:
 * NT_E_COMM with NCCL's text. Source: NCCL user guide, "Fault tolerance" and "Communicator creation". */
#ifndef NT_COMM_DEVICE_H
#define NT_COMM_DEVICE_H

#include "comm.h"

struct nt_device_comm;
struct CUstream_st;

/* How the communicator reaches the stream without knowing the backend. */
struct nt_device_stream {
    void *arg;
    struct CUstream_st *(*take)(void *arg);    /* the stream, to queue something on it now */
    nt_status (*query)(void *arg, bool *done); /* has the stream done all of its work */
};

/* Collective over c. *out is NULL when some rank has no NCCL library: the caller then goes through host memory. */
NT_MUST nt_status nt_device_comm_open(struct nt_comm *c, const struct nt_device_stream *stream,
                                      struct nt_device_comm **out);
void nt_device_comm_close(struct nt_device_comm *d); /* accepts NULL */
/* In place sum of buf [n], device memory. */
NT_MUST nt_status nt_device_allreduce_f32(struct nt_device_comm *d, float *buf, int64_t n);
/* to [size, n] = from [n] of every rank, device memory; from may be this rank's part of to. */
NT_MUST nt_status nt_device_allgather_f32(struct nt_device_comm *d, const float *from, float *to, int64_t n);
/* Part r of to [size, n] = this rank's part of rank r's from [size, n]; device memory, apart. */
NT_MUST nt_status nt_device_alltoall_f32(struct nt_device_comm *d, const float *from, float *to, int64_t n);
/* Both are of one stream: who waits with one of them sees the errors of both, and the trace has the newest collective
 * of `second` where that has some under way. */
void nt_device_comm_pair(struct nt_device_comm *first, struct nt_device_comm *second);
/* A collective that a kernel of the caller's was queued for; name is a literal. */
void nt_device_comm_note(struct nt_device_comm *d, const char *name);
/* look is called about once a second while a wait lasts. It may say what it found: the device of this rank of world has
 * not come to the n-th sum that it makes with this one's, where that one waits; n 0: none is behind. */
void nt_device_comm_look(struct nt_device_comm *d, void (*look)(void *arg), void *arg);
void nt_device_comm_late(struct nt_device_comm *d, int32_t rank, int64_t n);
/* Collectives queued so far, and the newest one's name. Those of a captured step are queued when it is launched:
 * whoever captures sets this back, and whoever launches sets it forward. */
struct nt_device_queued {
    int64_t n;
    const char *newest;
};
struct nt_device_queued nt_device_comm_queued(const struct nt_device_comm *d);
void nt_device_comm_set_queued(struct nt_device_comm *d, struct nt_device_queued queued);
NT_MUST nt_status nt_device_comm_wait(struct nt_device_comm *d);
/* Until passed says so; it asks for a point of the same stream. */
NT_MUST nt_status nt_device_comm_wait_for(struct nt_device_comm *d, nt_status (*passed)(void *arg, bool *done),
                                          void *arg);

#endif
