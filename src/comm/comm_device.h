/* Collectives on device memory, in the order of a stream: NCCL where its library is there, else through host memory.
 *
 * Opened over a host communicator (which carries NCCL's unique id and stays in use for everything small), for one
 * stream of the backend. A collective returns once it is queued; nt_device_comm_wait returns when the stream has done
 * all of it, and is the one place where a dead or hanging peer shows: it polls the stream and NCCL's asynchronous
 * error, aborts the communicator on an error, and leaves the collective's name and number in the trace, so that the
 * watchdog can name them. Sums of two ranks have one order; for more ranks NCCL's order is fixed by the topology, not
 * by timing. Ownership: close frees it, after the stream has come to rest. Threading: the main thread. Errors:
 * NT_E_COMM with NCCL's text. Source: NCCL user guide, "Fault tolerance" and "Communicator creation". */
#ifndef NT_COMM_DEVICE_H
#define NT_COMM_DEVICE_H

#include "comm.h"

struct nt_device_comm;
struct CUstream_st;

/* How the communicator reaches the stream without knowing the backend. */
struct nt_device_stream {
    struct CUstream_st *stream;
    void *arg;
    nt_status (*query)(void *arg, bool *done); /* has the stream done all of its work */
};

/* Collective over c. *out is NULL when some rank has no NCCL library: the caller then goes through host memory. */
NT_MUST nt_status nt_device_comm_open(struct nt_comm *c, const struct nt_device_stream *stream,
                                      struct nt_device_comm **out);
void nt_device_comm_close(struct nt_device_comm *d); /* accepts NULL */
/* In place sum of buf [n], device memory. */
NT_MUST nt_status nt_device_allreduce_f32(struct nt_device_comm *d, float *buf, int64_t n);
NT_MUST nt_status nt_device_comm_wait(struct nt_device_comm *d);

#endif
