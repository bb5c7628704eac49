#include "comm_impl.h"
#include "env.h"
#include "log.h"
#include <stdlib.h>
#include <string.h>

static const struct nt_comm_backend *const backend_table[] = {&nt_comm_self, &nt_comm_mpi};

/* ---- trace ---- */

void nt_comm_trace_begin(struct nt_comm_trace *t, const char *what, const char *on, int64_t seq) {
    atomic_store_explicit(&t->on, on, memory_order_relaxed);
    atomic_store_explicit(&t->seq, seq, memory_order_relaxed);
    atomic_store_explicit(&t->last, what, memory_order_relaxed);
    atomic_store_explicit(&t->what, what, memory_order_relaxed);
}

void nt_comm_trace_end(struct nt_comm_trace *t) {
    atomic_store_explicit(&t->what, NULL, memory_order_relaxed);
    atomic_fetch_add_explicit(&t->n_done, 1, memory_order_relaxed);
}

static void begin(struct nt_comm *c, const char *what) {
    c->seq++;
    nt_comm_trace_begin(c->trace, what, c->name, c->seq);
}

static nt_status end(struct nt_comm *c, nt_status st) {
    /* A failed call stays in the trace: the sentence of the watchdog may still need it. */
    if (st == NT_OK) nt_comm_trace_end(c->trace);
    return st;
}

/* ---- world ---- */

nt_status nt_world_open(struct nt_world *w) {
    memset(w, 0, sizeof *w);
    const bool mpi = nt_env_launched_by_mpi();
    const int n_tasks = nt_env_slurm_step_tasks();
    if (!mpi && n_tasks > 1) /* Each task would take itself for the whole world and all would write the same output. */
        return NT_FAIL(NT_E_COMM,
                       "srun started %d tasks without MPI, so they cannot find each other; expected srun --mpi=pmix "
                       "(see srun --mpi=list), or mpirun",
                       n_tasks);
    struct nt_comm_trace *trace = calloc(1, sizeof *trace);
    if (trace == NULL) return NT_FAIL(NT_E_NOMEM, "no memory for the record of collectives");
    const nt_status st = backend_table[mpi]->world_open(w, trace);
    if (st != NT_OK) free(trace);
    NT_TRY(st);
    return NT_OK;
}

nt_status nt_world_split(struct nt_world *w, int32_t tp) {
    NT_CHECK(w->world != NULL && w->tp == NULL);
    if (tp < 1 || w->size % tp != 0)
        return NT_FAIL(NT_E_CONFIG,
                       "run.tp is %d, but there are %d ranks; expected a divisor of the number of ranks: start a "
                       "multiple of %d ranks or change --tp",
                       tp, w->size, tp < 1 ? 1 : tp);
    w->tp_size = tp;
    w->tp_rank = w->rank % tp;
    w->dp_size = w->size / tp;
    w->dp_rank = w->rank / tp;
    NT_TRY(w->world->be->world_split(w));
    return NT_OK;
}

void nt_world_close(struct nt_world *w) {
    if (w->world == NULL) return;
    struct nt_comm_trace *trace = w->world->trace;
    w->world->be->world_close(w);
    free(trace);
    memset(w, 0, sizeof *w);
}

/* ---- collectives ---- */

int32_t nt_comm_rank(const struct nt_comm *c) {
    return c->rank;
}
int32_t nt_comm_size(const struct nt_comm *c) {
    return c->size;
}

nt_status nt_comm_barrier(struct nt_comm *c) {
    begin(c, "barrier");
    NT_TRY(end(c, c->size == 1 ? NT_OK : c->be->barrier(c)));
    return NT_OK;
}

nt_status nt_comm_broadcast(struct nt_comm *c, void *buf, size_t bytes, int32_t root) {
    NT_CHECK(root >= 0 && root < c->size);
    begin(c, "broadcast");
    NT_TRY(end(c, c->size == 1 ? NT_OK : c->be->broadcast(c, buf, bytes, root)));
    return NT_OK;
}

void nt_comm_add_f32(float *restrict out, const float *restrict in, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] += in[i];
}

nt_status nt_comm_allreduce_f32(struct nt_comm *c, float *buf, int64_t n) {
    NT_CHECK(n >= 0);
    begin(c, "allreduce_f32");
    NT_TRY(end(c, c->size == 1 ? NT_OK : c->be->allreduce_f32(c, buf, n)));
    return NT_OK;
}

nt_status nt_comm_allreduce_max_i64(struct nt_comm *c, int64_t *buf, int64_t n) {
    NT_CHECK(n >= 0);
    begin(c, "allreduce_max_i64");
    NT_TRY(end(c, c->size == 1 ? NT_OK : c->be->allreduce_i64(c, buf, n, NT_COMM_MAX)));
    return NT_OK;
}

nt_status nt_comm_allreduce_sum_i64(struct nt_comm *c, int64_t *buf, int64_t n) {
    NT_CHECK(n >= 0);
    begin(c, "allreduce_sum_i64");
    NT_TRY(end(c, c->size == 1 ? NT_OK : c->be->allreduce_i64(c, buf, n, NT_COMM_SUM)));
    return NT_OK;
}

nt_status nt_comm_allgather(struct nt_comm *c, const void *mine, void *all, size_t bytes_each) {
    begin(c, "allgather");
    if (c->size == 1) {
        if (bytes_each > 0) memmove(all, mine, bytes_each);
        return end(c, NT_OK);
    }
    NT_TRY(end(c, c->be->allgather(c, mine, all, bytes_each)));
    return NT_OK;
}

/* The rank whose failure all report: the first real failure, else the first that stopped at a checkpoint, else -1. */
static int32_t first_failure(const int32_t *codes, int32_t size) {
    int32_t stopped = -1;
    for (int32_t i = 0; i < size; i++) {
        if (codes[i] == NT_OK) continue;
        if (codes[i] != NT_E_STOPPED) return i;
        if (stopped < 0) stopped = i;
    }
    return stopped;
}

nt_status nt_comm_agree(struct nt_comm *c, nt_status mine) {
    if (c->size == 1) return mine == NT_OK ? NT_OK : nt_trail_at(mine, __FILE__, __LINE__);
    int32_t *codes = malloc((size_t)c->size * sizeof *codes);
    if (codes == NULL) return NT_FAIL(NT_E_NOMEM, "no memory for %d status codes", c->size);
    const int32_t code = (int32_t)mine;
    const nt_status st = nt_comm_allgather(c, &code, codes, sizeof code);
    const int32_t who = st == NT_OK ? first_failure(codes, c->size) : -1;
    const nt_status result = who >= 0 ? (nt_status)codes[who] : NT_OK;
    free(codes);
    NT_TRY(st);
    if (who < 0) return NT_OK;

    char text[NT_ERROR_TEXT] = "";
    const struct nt_error *own = nt_error_last();
    if (mine != NT_OK && own->code == mine) memcpy(text, own->text, sizeof text);
    char theirs[NT_ERROR_TEXT];
    memcpy(theirs, text, sizeof theirs);
    NT_TRY(nt_comm_broadcast(c, theirs, sizeof theirs, who));
    if (who == c->rank) return nt_trail_at(mine, __FILE__, __LINE__);
    theirs[sizeof theirs - 1] = 0;
    const bool other_cause = mine != NT_OK && mine != NT_E_STOPPED && strcmp(text, theirs) != 0;
    if (other_cause) nt_warn("comm", "this rank failed too: %s", text[0] != 0 ? text : nt_status_text(mine));
    (void)NT_FAIL(result, "rank %d of %s: %.900s", who, c->name, theirs[0] != 0 ? theirs : nt_status_text(result));
    nt_error_mark_heard(); /* that rank prints it */
    return result;
}

/* ---- shared memory ---- */

static nt_status private_memory(size_t bytes, struct nt_shared *s) {
    size_t padded;
    if (__builtin_add_overflow(bytes, (size_t)63, &padded)) return NT_FAIL(NT_E_NOMEM, "%zu bytes is too much", bytes);
    padded = padded / 64 * 64;
    s->base = aligned_alloc(64, padded > 0 ? padded : 64);
    if (s->base == NULL) return NT_FAIL(NT_E_NOMEM, "no memory for %zu bytes of packed weights", bytes);
    s->leader = true;
    return NT_OK;
}

nt_status nt_shared_open(struct nt_world *w, size_t bytes, struct nt_shared *s) {
    NT_CHECK(w->tp != NULL);
    memset(s, 0, sizeof *s);
    s->bytes = bytes;
    begin(w->world, "shared_open");
    NT_TRY(w->world->be->shared_open(w, bytes, s));
    if (s->base == NULL) NT_TRY(private_memory(bytes, s));
    return end(w->world, NT_OK);
}

nt_status nt_shared_ready(struct nt_world *w, struct nt_shared *s) {
    begin(w->world, "shared_ready");
    NT_TRY(end(w->world, s->impl == NULL ? NT_OK : w->world->be->shared_ready(w, s)));
    return NT_OK;
}

void nt_shared_close(struct nt_world *w, struct nt_shared *s) {
    if (s->base == NULL) return;
    if (s->impl != NULL)
        w->world->be->shared_close(w, s);
    else
        free(s->base);
    memset(s, 0, sizeof *s);
}

/* ---- tickets ---- */

nt_status nt_ticket_open(struct nt_world *w, struct nt_ticket **out) {
    struct nt_ticket *t = NULL;
    begin(w->world, "ticket_open");
    NT_TRY(end(w->world, w->world->be->ticket_open(w, &t)));
    t->be = w->world->be;
    t->trace = w->world->trace;
    *out = t;
    return NT_OK;
}

nt_status nt_ticket_next(struct nt_ticket *t, int64_t count, int64_t *first) {
    NT_CHECK(count >= 0);
    nt_comm_trace_begin(t->trace, "ticket_next", "world", ++t->n_calls);
    NT_TRY(t->be->ticket_next(t, count, first));
    nt_comm_trace_end(t->trace);
    return NT_OK;
}

nt_status nt_ticket_add(struct nt_ticket *t, int64_t count, int64_t *before) {
    nt_comm_trace_begin(t->trace, "ticket_add", "world", ++t->n_calls);
    NT_TRY(t->be->ticket_add(t, count, before));
    nt_comm_trace_end(t->trace);
    return NT_OK;
}

void nt_ticket_close(struct nt_ticket *t) {
    if (t != NULL) t->be->ticket_close(t);
}

void nt_comm_beat(struct nt_world *w) {
    atomic_fetch_add_explicit(&w->world->trace->n_done, 1, memory_order_relaxed);
}

void nt_comm_progress(struct nt_world *w) {
    if (w->size > 1) w->world->be->progress(w);
}
