#include "ledger_backend.h"
#include "draw_pairs_cuda.h"
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

_Static_assert(offsetof(struct nt_ledger_backend, be) == 0, "the bodies find the ledger by its backend");

static struct nt_ledger_backend *ledger_of(const struct nt_backend *be) {
    return (struct nt_ledger_backend *)(uintptr_t)be;
}

/* ---- bodies ---- */

#define NT_OP(name, doc)                                                                                               \
    static nt_status count_##name(struct nt_backend *be, const struct nt_##name##_args *args) {                        \
        nt_cost_add(&ledger_of(be)->sums.op[NT_OP_##name], nt_op_cost_##name(args));                                   \
        return NT_OK;                                                                                                  \
    }
#include "ops.def"
#undef NT_OP

static nt_status count_attention_parts(struct nt_backend *be, const struct nt_attention_args *args) {
    nt_cost_add(&ledger_of(be)->sums.decode_attention, nt_attention_cost(args).decode);
    return count_attention(be, args);
}

static nt_status count_peer_sum(struct nt_backend *be, const struct nt_allreduce_p2p_args *args) {
    struct nt_peer_tally *t = &ledger_of(be)->sums.peer;
    t->sums++;
    t->elements += (double)args->count;
    return NT_OK;
}

static nt_status count_peer_norm(struct nt_backend *be, const struct nt_allreduce_norm_p2p_args *args) {
    struct nt_peer_tally *t = &ledger_of(be)->sums.peer;
    struct nt_rmsnorm_args norm = args->norm;
    t->sums++;
    t->fused++;
    t->elements += (double)norm.n_rows * norm.d_model;
    norm.delta = norm.x; /* only asked whether there is one */
    return count_rmsnorm(be, &norm);
}

static nt_status count_best_pairs(struct nt_backend *be, const struct nt_best_pairs_args *args) {
    struct nt_peer_tally *t = &ledger_of(be)->sums.peer;
    t->sums++;
    t->local += args->gathered != NULL;
    t->elements += args->n_row; /* a pair to each rank is half of what the sum of two numbers moves */
    return NT_OK;
}

static nt_status count_draw_pairs(struct nt_backend *be, const struct nt_draw_pairs_args *args) {
    struct nt_peer_tally *t = &ledger_of(be)->sums.peer;
    t->sums++;
    t->local++;
    for (int32_t r = 0; r < args->size; r++)
        t->elements += (double)nt_draw_floats(args->n_row, args->have[r]) / 2 / args->size;
    return NT_OK;
}

static const struct nt_peer_ops count_peers = {
    .sum = count_peer_sum, .norm = count_peer_norm, .best = count_best_pairs, .draw = count_draw_pairs};

/* ---- memory without backing ---- */

static nt_status reserve(struct nt_backend *be, size_t bytes, const char *what, void **out) {
    (void)be;
    void *p = mmap(NULL, bytes > 0 ? bytes : 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NT_FAIL(NT_E_NOMEM, "no addresses for %zu bytes of %s (%s); see ulimit -v", bytes, what,
                       strerror(errno));
    *out = p;
    return NT_OK;
}

static void give(struct nt_backend *be, void *memory, size_t bytes) {
    (void)be;
    if (memory) (void)munmap(memory, bytes > 0 ? bytes : 1);
}

static size_t available(const struct nt_backend *be) {
    return ledger_of(be)->available;
}

static nt_status no_copy(struct nt_backend *be, void *to, const void *from, size_t bytes) {
    (void)be;
    (void)to;
    (void)from;
    (void)bytes;
    return NT_OK;
}

static nt_status no_zero(struct nt_backend *be, void *to, size_t bytes) {
    return no_copy(be, to, NULL, bytes);
}

static nt_status no_wait(struct nt_backend *be) {
    (void)be;
    return NT_OK;
}

static nt_status all_done(struct nt_backend *be, bool *done) {
    (void)be;
    *done = true;
    return NT_OK;
}

static const struct nt_memory no_memory = {.take = reserve,
                                           .give = give,
                                           .available = available,
                                           .upload = no_copy,
                                           .download = no_copy,
                                           .zero = no_zero,
                                           .wait = no_wait,
                                           .query = all_done};

/* ---- open, close, sum ---- */

void nt_ledger_open(struct nt_ledger_backend *l, enum nt_weight_format weights, enum nt_kv_format kv, size_t bytes,
                    struct nt_pool *pool) {
    *l = (struct nt_ledger_backend){
        .be = {.name = "ledger",
               .memory = &no_memory,
               .weight_format = weights,
               .block_format = weights,
               .kv_format = kv,
               .pool = pool},
        .available = bytes
    };
#define NT_OP(name, doc) l->be.ops.name = count_##name;
#include "ops.def"
#undef NT_OP
    l->be.ops.attention = count_attention_parts;
    l->be.peer_ops = &count_peers;
}

void nt_ledger_close(struct nt_ledger_backend *l) {
    *l = (struct nt_ledger_backend){0};
}

struct nt_cost nt_ledger_total(const struct nt_ledger *l) {
    struct nt_cost sum = {0};
    for (int i = 0; i < NT_OP_COUNT; i++) nt_cost_add(&sum, l->op[i]);
    return sum;
}
