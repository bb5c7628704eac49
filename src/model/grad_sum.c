#include "grad_sum.h"
#include "ops_bwd.h"
#include <stdlib.h>
#include <string.h>

/* ---- in host memory -------------------------------------------------------------------------------------------- */

/* Every rank has a part of the row's gradient: whole [the longest row] is where they meet. */
static nt_status sum_row(const struct nt_params *p, const struct nt_param *row, float *whole) {
    const int64_t n = nt_param_logical_count(row);
    struct nt_params_view v;
    memset(whole, 0, (size_t)n * sizeof *whole);
    NT_TRY(nt_comm_agree(p->world->tp, nt_params_view_open(p, p->grad, row->at, nt_param_count(row), &v)));
    nt_param_place(row, v.host, 0, whole);
    const nt_status st = nt_comm_allreduce_f32(p->world->tp, whole, n);
    if (st == NT_OK) nt_param_take(row, whole, v.host);
    const nt_status closed = nt_params_view_close(p, &v, st == NT_OK);
    return st == NT_OK ? closed : st;
}

static nt_status tp_in_host(const struct nt_params *p) {
    int64_t most = 0;
    for (int32_t i = 0; i < p->n; i++)
        if (p->rows[i].summed && nt_param_logical_count(&p->rows[i]) > most) most = nt_param_logical_count(&p->rows[i]);
    if (most == 0) return NT_OK;
    float *whole = malloc((size_t)most * sizeof *whole);
    nt_status st = whole ? NT_OK : NT_FAIL(NT_E_NOMEM, "no memory to sum %lld gradients", (long long)most);
    st = nt_comm_agree(p->world->tp, st);
    for (int32_t i = 0; i < p->n && st == NT_OK; i++)
        if (p->rows[i].summed) st = sum_row(p, &p->rows[i], whole);
    free(whole);
    return st;
}

static nt_status dp_in_host(const struct nt_params *p) {
    enum { PIECE = 1 << 24 }; /* floats of a device's gradients at a time */
    const int64_t piece = nt_backend_is_host(p->be) ? p->n_floats : PIECE;
    for (int64_t at = 0; at < p->n_floats; at += piece) {
        const int64_t n = p->n_floats - at < piece ? p->n_floats - at : piece;
        struct nt_params_view v;
        NT_TRY(nt_comm_agree(p->world->dp, nt_params_view_open(p, p->grad, at, n, &v)));
        const nt_status st = nt_comm_allreduce_f32(p->world->dp, v.host, n);
        NT_TRY(nt_params_view_close(p, &v, true));
        NT_TRY(st);
    }
    return NT_OK;
}

/* ---- on devices ------------------------------------------------------------------------------------------------ */

/* Numbers that are summed over tp together: rows of which every rank has all, one behind the other; or a row of which
 * ranks have different heads. Equal on all ranks of tp. */
struct run {
    const struct nt_param *row; /* the first */
    int64_t n;
    bool heads;
};

static bool has_heads(const struct nt_param *row) {
    const bool kv =
        row->slot == NT_SLOT_K || row->slot == NT_SLOT_V || row->slot == NT_SLOT_K_BIAS || row->slot == NT_SLOT_V_BIAS;
    return kv && row->part != NT_PARAM_A;
}

/* The next one, from row *next on. */
static bool next_run(const struct nt_params *p, int32_t *next, struct run *out) {
    while (*next < p->n && !p->rows[*next].summed) (*next)++;
    if (*next == p->n) return false;
    const struct nt_param *row = &p->rows[(*next)++];
    *out = (struct run){.row = row, .n = nt_param_logical_count(row), .heads = has_heads(row)};
    for (; *next < p->n && !out->heads; (*next)++) {
        const struct nt_param *more = &p->rows[*next];
        if (!more->summed || has_heads(more) || more->at != row->at + out->n) break;
        out->n += nt_param_count(more);
    }
    return true;
}

static int32_t heads_here(const struct nt_grad_sum *s, const struct nt_param *row) {
    return row->rows * (row->cols / s->d_head);
}

/* Heads to their places among zeros, and the sum's back. */
static nt_status sum_heads(const struct nt_grad_sum *s, const struct nt_param *row) {
    const struct nt_params *p = s->p;
    const int64_t bytes = (int64_t)s->d_head * (int64_t)sizeof *s->whole, n = nt_param_logical_count(row);
    const struct nt_scatter_args out = {.from = p->grad + row->at,
                                        .to = s->whole,
                                        .rows = s->heads,
                                        .bytes = bytes,
                                        .n_rows = heads_here(s, row),
                                        .n_to = (int32_t)(n / s->d_head)};
    const struct nt_gather_args back = {
        .from = s->whole, .to = p->grad + row->at, .rows = s->heads, .bytes = bytes, .n_rows = out.n_rows};
    NT_TRY(p->be->ops.scatter(p->be, &out));
    NT_TRY(nt_rank_sum(&s->tp, s->whole, n));
    return p->be->ops.gather(p->be, &back);
}

static nt_status tp_on_device(const struct nt_grad_sum *s) {
    struct run run;
    for (int32_t next = 0; next_run(s->p, &next, &run);)
        NT_TRY(run.heads ? sum_heads(s, run.row) : nt_rank_sum(&s->tp, s->p->grad + run.row->at, run.n));
    return NT_OK;
}

nt_status nt_grad_sum(const struct nt_grad_sum *s) {
    const struct nt_params *p = s->p;
    NT_TRY(s->tp.comm ? tp_on_device(s) : tp_in_host(p));
    if (p->world->dp_size == 1) return NT_OK;
    return s->dp.comm ? nt_rank_sum(&s->dp, p->grad, p->n_floats) : dp_in_host(p);
}

/* ---- their memory ---------------------------------------------------------------------------------------------- */

static int64_t n_parts(const struct nt_grad_sum *s) {
    return s->tp.room > s->dp.room ? s->tp.room : s->dp.room;
}

/* Of the tensor-parallel sums. */
static int64_t measure_runs(struct nt_grad_sum *s) {
    struct run run;
    int64_t most = 0;
    for (int32_t next = 0; next_run(s->p, &next, &run);) {
        if (run.n > most) most = run.n;
        if (!run.heads) continue;
        if (run.n > s->n_whole) s->n_whole = run.n;
        if (heads_here(s, run.row) > s->n_heads) s->n_heads = heads_here(s, run.row);
    }
    return most;
}

/* All rows with heads have the same ones, so the list of a short row begins the list of a long one. */
static nt_status list_heads(const struct nt_grad_sum *s) {
    struct nt_backend *be = s->p->be;
    int32_t next = 0;
    struct run run;
    while (next_run(s->p, &next, &run) && !run.heads) {
    }
    const int32_t mine = run.row->cols / s->d_head, all = run.row->out_size / s->d_head;
    int32_t *heads = malloc((size_t)s->n_heads * sizeof *heads);
    if (!heads) return NT_FAIL(NT_E_NOMEM, "no memory for %lld heads of gradients", (long long)s->n_heads);
    for (int32_t i = 0; i < (int32_t)s->n_heads; i++) heads[i] = i / mine * all + run.row->out0 / s->d_head + i % mine;
    const nt_status st = be->memory->upload(be, s->heads, heads, (size_t)s->n_heads * sizeof *heads);
    free(heads);
    return st;
}

static nt_status take(const struct nt_grad_sum *s, int64_t n, void **out) {
    struct nt_backend *be = s->p->be;
    return n > 0 ? be->memory->take(be, (size_t)n * sizeof(float), "sums of gradients", out) : NT_OK;
}

nt_status nt_grad_sum_open(struct nt_grad_sum *s, const struct nt_params *p, int32_t d_head, struct nt_device_comm *tp,
                           struct nt_device_comm *dp) {
    const struct nt_world *w = p->world;
    *s = (struct nt_grad_sum){.p = p, .d_head = d_head};
    s->tp = (struct nt_rank_sum){.be = p->be, .comm = tp, .rank = w->tp_rank, .size = w->tp_size};
    s->dp = (struct nt_rank_sum){.be = p->be, .comm = dp, .rank = w->dp_rank, .size = w->dp_size};
    if (tp) s->tp.room = nt_rank_sum_room(w->tp_size, measure_runs(s));
    if (dp) s->dp.room = nt_rank_sum_room(w->dp_size, p->n_floats);
    NT_TRY(take(s, n_parts(s), (void **)&s->parts));
    NT_TRY(take(s, s->n_whole, (void **)&s->whole));
    NT_TRY(take(s, s->n_heads, (void **)&s->heads));
    s->tp.parts = s->dp.parts = s->parts;
    return s->n_heads > 0 ? list_heads(s) : NT_OK;
}

static void give(const struct nt_grad_sum *s, void *memory, int64_t n) {
    if (memory) s->p->be->memory->give(s->p->be, memory, (size_t)n * sizeof(float));
}

void nt_grad_sum_close(struct nt_grad_sum *s) {
    give(s, s->parts, n_parts(s));
    give(s, s->whole, s->n_whole);
    give(s, s->heads, s->n_heads);
    *s = (struct nt_grad_sum){0};
}

size_t nt_grad_sum_bytes(const struct nt_grad_sum *s) {
    return (size_t)(n_parts(s) + s->n_whole + s->n_heads) * sizeof(float);
}
