/* What the rope_kv bodies of all instruction sets share: the walk over a thread's share of the tokens.
 *
 * Tokens are counted in the order of the sequences; a share begins at a multiple of NT_ROPE_UNIT when there are enough
 * of them, so that two threads seldom write into one cache line. (They may: every store covers only its own elements.)
 * No state of its own; each thread has its walk. */
#ifndef NT_CPU_ROPE_H
#define NT_CPU_ROPE_H

#include "cpu_bodies.h"

enum { NT_ROPE_UNIT = 16, NT_ROPE_MAX_D = 512 };

struct nt_rope_walk {
    const struct nt_rope_kv_args *args;
    int64_t left;      /* tokens still to do */
    int32_t seq, next; /* sequence, and its next token */
};

void nt_rope_walk_init(struct nt_rope_walk *w, const struct nt_rope_kv_args *args, int thread, int n_threads);

/* A run of consecutive tokens of one sequence within one page. */
struct nt_rope_run {
    int32_t row, n, pos; /* first row of qkv and q, count, first position */
    nt_bf16 *page;
};
bool nt_rope_walk_next(struct nt_rope_walk *w, struct nt_rope_run *run);

#endif
