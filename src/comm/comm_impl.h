/* Inside of the communicators: what comm.c, its back ends and the watchdog share. Nobody else includes this header.
 *
 * comm.c checks arguments, records each call in the trace and skips communicators of one rank; a back end (one row of
 * the table in comm.c: self, mpi) does the transport. Ownership: nt_world_open makes the trace and `world`,
 * nt_world_split makes `tp` and `dp`; the back end's world_close frees them all.
 * Threading: back ends are called by the main thread only; the trace is written by the main thread and read by the
 * watchdog's threads, all fields relaxed atomics (a hanging rank's trace does not change, so it is read whole).
 * Errors: NT_E_COMM with the call and the library's text. */
#ifndef NT_COMM_IMPL_H
#define NT_COMM_IMPL_H

#include "comm.h"
#include <stdatomic.h>

struct nt_comm_trace {
    _Atomic(const char *) what;  /* the call this rank is in, a literal; NULL: outside */
    _Atomic(const char *) last;  /* the newest call, also after its end */
    _Atomic(const char *) on;    /* the communicator of `last`: "world", "tp", "dp" */
    atomic_int_least64_t seq;    /* its number on that communicator: equal on all its ranks when they agree */
    atomic_int_least64_t n_done; /* calls finished on all communicators: progress */
    atomic_int_least64_t late;  /* > 0: this sum in peers' memory, counted from the start, lacks the device of a rank */
    atomic_int_least32_t whose; /* of that one, in world */
};

struct nt_comm_backend;

struct nt_comm {
    const struct nt_comm_backend *be;
    const char *name;
    int32_t rank, size;
    int64_t seq;
    struct nt_comm_trace *trace; /* one per process */
};

struct nt_ticket {
    const struct nt_comm_backend *be;
    struct nt_comm_trace *trace;
    int64_t n_calls;
};

enum nt_comm_op { NT_COMM_MAX, NT_COMM_SUM };

struct nt_comm_backend {
    const char *name;
    nt_status (*world_open)(struct nt_world *w, struct nt_comm_trace *trace); /* fills everything but the split */
    nt_status (*world_split)(struct nt_world *w);                             /* tp_*, dp_* numbers are set already */
    void (*world_close)(struct nt_world *w);
    /* Called for size > 1 only. */
    nt_status (*barrier)(struct nt_comm *c);
    nt_status (*broadcast)(struct nt_comm *c, void *buf, size_t bytes, int32_t root);
    nt_status (*allreduce_f32)(struct nt_comm *c, float *buf, int64_t n);
    nt_status (*allreduce_i64)(struct nt_comm *c, int64_t *buf, int64_t n, enum nt_comm_op op);
    nt_status (*allgather)(struct nt_comm *c, const void *mine, void *all, size_t bytes_each);
    /* Leaves s->base NULL when the node cannot share (on all its ranks); comm.c then takes private memory. */
    nt_status (*shared_open)(struct nt_world *w, size_t bytes, struct nt_shared *s);
    nt_status (*shared_ready)(struct nt_world *w, struct nt_shared *s);
    void (*shared_close)(struct nt_world *w, struct nt_shared *s);
    nt_status (*ticket_open)(struct nt_world *w, struct nt_ticket **out);
    nt_status (*ticket_next)(struct nt_ticket *t, int64_t count, int64_t *first);
    nt_status (*ticket_add)(struct nt_ticket *t, int64_t count, int64_t *before);
    void (*ticket_close)(struct nt_ticket *t);
    void (*progress)(struct nt_world *w);
};

extern const struct nt_comm_backend nt_comm_self, nt_comm_mpi;

/* out += in, element by element: the one addition of every reduction, so its rounding is the same everywhere. */
void nt_comm_add_f32(float *out, const float *in, int64_t n);
void nt_comm_trace_begin(struct nt_comm_trace *t, const char *what, const char *on, int64_t seq);
void nt_comm_trace_end(struct nt_comm_trace *t);

#endif
