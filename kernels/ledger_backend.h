/* The ledger: a backend whose ops add up their cost (ops_cost.h) instead of computing.
 *
 * A model opened on it runs its real forward, so a plan made of the ledger cannot differ from what a job does: the same
 * ops, with the same shapes, in the same order. Its memory has addresses only: taken memory is reserved, never backed,
 * and neither uploads nor downloads move anything (a download leaves the caller's bytes). For the code above it is
 * host memory of the format asked for, so the caller's own sequences reach the attention op, which reads their lengths.
 * Ownership: nt_ledger_close ends it; the sums may be read, copied and zeroed at any time between ops.
 * Threading: as any backend, one thread at a time. Errors: opening cannot fail; NT_E_NOMEM where the address space is
 * limited (ulimit -v). */
#ifndef NT_LEDGER_BACKEND_H
#define NT_LEDGER_BACKEND_H

#include "backend.h"
#include "ops_cost.h"

struct nt_ledger {
    struct nt_cost op[NT_OP_COUNT];
    struct nt_cost decode_attention; /* the part of op[NT_OP_attention] of sequences with one token */
    struct nt_peer_tally {           /* of what is taken from peers' memory: sums, and the best of pairs */
        int64_t sums, fused;         /* all; those that are part of an rmsnorm (a row of op) and need no launch */
        int64_t local;               /* launches on pairs that a communicator has gathered before */
        double elements;             /* floats summed; a row of pairs is about one */
    } peer;
};

struct nt_ledger_backend {
    struct nt_backend be; /* first: the bodies find the ledger through it */
    struct nt_ledger sums;
    size_t available; /* bytes that the memory claims to have */
};

/* available: bytes of the planned device. The pool is for host work (rotary tables); it must outlive the backend. */
void nt_ledger_open(struct nt_ledger_backend *l, enum nt_weight_format weights, enum nt_kv_format kv, size_t available,
                    struct nt_pool *pool);
void nt_ledger_close(struct nt_ledger_backend *l);
/* Sum over all ops. */
struct nt_cost nt_ledger_total(const struct nt_ledger *l);

#endif
