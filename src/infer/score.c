#include "score.h"

#include "clock.h"
#include "log.h"
#include "memory_plan.h"
#include "pages.h"
#include "score_rows.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { STEP_TOKENS = 512, MAX_OPEN = 64 };

/* A row in work: its tokens, window by window. Tokens are forwarded up to the last one but one: that one predicts the
 * end. */
struct text {
    struct nt_score_row row;
    int64_t index;
    int32_t base;     /* first token of the window in ids */
    int32_t n_cached; /* tokens of the window forwarded */
    int32_t n_pages, *pages;
    int64_t n_scored;
    double logprob;
};

struct score {
    struct nt_session *session;
    struct nt_score_rows *rows;
    struct nt_ticket *ticket;
    struct nt_watchdog *watchdog;
    struct nt_job_memory memory;
    struct nt_pages pages;
    struct text *open; // [MAX_OPEN]
    int32_t n_open, window;
    bool exhausted;
    int32_t *ids, *out_rows;          // [STEP_TOKENS]
    int32_t *target;                  // [STEP_TOKENS] the token each logit row should predict
    struct text **owner;              // [STEP_TOKENS]
    struct nt_attn_seq *batch;        // [MAX_OPEN]
    float *logits;                    // [STEP_TOKENS, ld]
    struct nt_both stats, ids_wanted; // [3, STEP_TOKENS] max, sum and chosen logit; [STEP_TOKENS] of this shard
    struct nt_row_score *done;        // [n_done], grown
    struct nt_score_error *errors;    // [n_errors], grown
    int64_t n_done, cap_done, n_errors, cap_errors, n_tokens;
    struct nt_progress progress;
};

static int32_t page_count(const struct score *s) {
    return 2 * nt_pages_for(s->window) + MAX_OPEN;
}

static nt_status layout(struct score *s) {
    struct nt_arena *a = &s->memory.host;
    const int32_t n_page = page_count(s);
    const struct nt_step_limits max = {.tok = STEP_TOKENS, .out = STEP_TOKENS, .seq = MAX_OPEN, .pages = n_page};
    NT_TRY(nt_pages_layout(&s->pages, &s->memory, s->session->model, n_page));
    NT_TRY(nt_model_layout(s->session->model, &s->memory, &max));
    s->open = NT_TAKE(a, struct text, MAX_OPEN);
    s->batch = NT_TAKE(a, struct nt_attn_seq, MAX_OPEN);
    s->ids = NT_TAKE(a, int32_t, STEP_TOKENS);
    s->out_rows = NT_TAKE(a, int32_t, STEP_TOKENS);
    s->target = NT_TAKE(a, int32_t, STEP_TOKENS);
    s->owner = NT_TAKE(a, struct text *, STEP_TOKENS);
    s->stats = nt_job_take_both(&s->memory, 3 * STEP_TOKENS * sizeof(float));
    s->ids_wanted = nt_job_take_both(&s->memory, STEP_TOKENS * sizeof(int32_t));
    s->logits = NT_TAKE(&s->memory.device, float, (int64_t)STEP_TOKENS *nt_model_logit_ld(s->session->model));
    return NT_OK;
}

static int32_t window_len(const struct score *s, const struct text *t) {
    const int64_t left = t->row.ids.len - 1 - t->base; /* inputs left; the last token is only predicted */
    return (int32_t)(left < s->window ? left : s->window);
}

static void keep_error(struct score *s, const struct text *t) {
    if (s->n_errors == s->cap_errors) {
        s->cap_errors = s->cap_errors ? 2 * s->cap_errors : 64;
        s->errors = realloc(s->errors, (size_t)s->cap_errors * sizeof *s->errors);
        NT_CHECK(s->errors);
    }
    struct nt_score_error *e = &s->errors[s->n_errors++];
    *e = (struct nt_score_error){.row = t->index, .line = t->row.line};
    const size_t len = strlen(t->row.error);
    memcpy(e->text, t->row.error, len < sizeof e->text ? len : sizeof e->text - 1);
}

static void keep_score(struct score *s, const struct text *t) {
    if (s->n_done == s->cap_done) {
        s->cap_done = s->cap_done ? 2 * s->cap_done : 1024;
        s->done = realloc(s->done, (size_t)s->cap_done * sizeof *s->done);
        NT_CHECK(s->done);
    }
    if (t->row.error) keep_error(s, t);
    s->done[s->n_done++] = (struct nt_row_score){
        .row = t->index, .n_tokens = t->row.error ? -1 : t->n_scored, .logprob = t->row.error ? 0 : t->logprob};
    if (!t->row.error) s->n_tokens += t->n_scored;
}

static void close_text(struct text *t) {
    nt_ids_release(&t->row.ids);
    free(t->row.error);
    free(t->pages);
}

/* ---- rows in ---- */

static nt_status next_row(struct score *s, struct text *t) {
    struct nt_world *w = s->session->world;
    int64_t row = 0;
    bool end = false;
    if (w->tp_rank == 0) NT_TRY(nt_ticket_next(s->ticket, 1, &row));
    NT_TRY(nt_comm_broadcast(w->tp, &row, sizeof row, 0));
    *t = (struct text){.index = row};
    NT_TRY(nt_score_rows_get(s->rows, row, &t->row, &end));
    s->exhausted = end;
    return NT_OK;
}

static nt_status fill(struct score *s) {
    while (!s->exhausted && s->n_open < MAX_OPEN) {
        if (s->pages.n_free < nt_pages_for(s->window)) return NT_OK;
        struct text t;
        NT_TRY(next_row(s, &t));
        if (s->exhausted) return NT_OK;
        if (t.row.error || t.row.ids.len <= t.row.first) {
            keep_score(s, &t);
            close_text(&t);
            continue;
        }
        t.n_pages = nt_pages_for(window_len(s, &t));
        t.pages = malloc((size_t)t.n_pages * sizeof *t.pages);
        NT_CHECK(t.pages && nt_pages_take(&s->pages, t.n_pages, t.pages));
        s->open[s->n_open++] = t;
    }
    return NT_OK;
}

/* ---- a step ---- */

static struct nt_batch compose(struct score *s) {
    struct nt_batch b = {.ids = s->ids, .seqs = s->batch, .out_rows = s->out_rows};
    for (int32_t i = 0; i < s->n_open && b.n_tok < STEP_TOKENS; i++) {
        struct text *t = &s->open[i];
        int32_t n = window_len(s, t) - t->n_cached;
        n = n < STEP_TOKENS - b.n_tok ? n : STEP_TOKENS - b.n_tok;
        s->batch[b.n_seq++] = (struct nt_attn_seq){.q_row = b.n_tok, .n_q = n, .pos0 = t->n_cached, .pages = t->pages};
        for (int32_t j = 0; j < n; j++) {
            const int64_t at = t->base + t->n_cached + j;
            s->ids[b.n_tok + j] = t->row.ids.data[at];
            if (at + 1 < t->row.first) continue;
            s->owner[b.n_out] = t;
            s->target[b.n_out] = t->row.ids.data[at + 1];
            s->out_rows[b.n_out++] = b.n_tok + j;
        }
        b.n_tok += n;
        t->n_cached += n;
    }
    return b;
}

/* The row is an error: no figure that could not be computed counts. */
static void break_down(struct text *t) {
    if (t->row.error) return;
    t->row.error = strdup("logits that are not finite: the model's weights or its numeric range are at fault");
    NT_CHECK(t->row.error);
}

struct part {
    float max, sum, chosen;
};

/* This shard's maximum, sum of exponentials and target logit of each row. */
static nt_status shard_parts(struct score *s, int32_t n, struct part *mine) {
    struct nt_backend *be = &s->session->backend;
    const struct nt_model *m = s->session->model;
    const int64_t ld = nt_model_logit_ld(m);
    const int32_t first = nt_model_vocab_first(m), count = nt_model_vocab_count(m);
    float *at = s->stats.device;
    const float *got = s->stats.host;
    int32_t *wanted = s->ids_wanted.host;
    for (int32_t r = 0; r < n; r++) wanted[r] = s->target[r] - first;
    NT_TRY(nt_both_push(be, &s->ids_wanted, 0, (size_t)n * sizeof *wanted));
    const struct nt_logit_stats_args stats = {
        .logits = s->logits, .ld = ld, .max = at, .sum_exp = at + STEP_TOKENS, .n_row = n, .n_vocab = count};
    NT_TRY(be->ops.logit_stats(be, &stats));
    const struct nt_logit_pick_args pick = {.logits = s->logits,
                                            .ld = ld,
                                            .id = s->ids_wanted.device,
                                            .value = at + 2 * STEP_TOKENS,
                                            .n_row = n,
                                            .n_vocab = count};
    NT_TRY(be->ops.logit_pick(be, &pick));
    NT_TRY(nt_both_pull(be, &s->stats, 0, 3 * STEP_TOKENS * sizeof(float)));
    for (int32_t r = 0; r < n; r++) mine[r] = (struct part){got[r], got[STEP_TOKENS + r], got[2 * STEP_TOKENS + r]};
    return NT_OK;
}

/* log-probability of each target from this shard's rows and all shards' sums. */
static nt_status add_logprobs(struct score *s, int32_t n) {
    struct nt_comm *tp = s->session->world->tp;
    const int32_t size = nt_comm_size(tp);
    struct part *mine = malloc((size_t)n * sizeof *mine * (size_t)(size + 1));
    if (!mine) return NT_FAIL(NT_E_NOMEM, "no memory for %d scores", n);
    struct part *all = mine + n;
    nt_status st = shard_parts(s, n, mine);
    if (st == NT_OK) st = nt_comm_allgather(tp, mine, all, (size_t)n * sizeof *mine);
    for (int32_t r = 0; r < n && st == NT_OK; r++) {
        struct part t = all[r];
        for (int32_t k = 1; k < size; k++) {
            const struct part *p = &all[(int64_t)k * n + r];
            const float top = fmaxf(t.max, p->max);
            t.sum = t.sum * expf(t.max - top) + p->sum * expf(p->max - top);
            t.max = top;
            t.chosen = fmaxf(t.chosen, p->chosen);
        }
        const double logprob = (double)t.chosen - ((double)t.max + log((double)t.sum));
        if (!isfinite(logprob)) break_down(s->owner[r]);
        s->owner[r]->logprob += logprob;
        s->owner[r]->n_scored++;
    }
    free(mine);
    return st;
}

/* Closes texts whose windows are through and opens the next window of the others. */
static void advance(struct score *s) {
    int32_t kept = 0;
    for (int32_t i = 0; i < s->n_open; i++) {
        struct text t = s->open[i];
        if (t.n_cached == window_len(s, &t)) {
            t.base += t.n_cached;
            t.n_cached = 0;
        }
        if (t.base < t.row.ids.len - 1) {
            s->open[kept++] = t;
            continue;
        }
        nt_pages_give(&s->pages, t.pages, t.n_pages);
        keep_score(s, &t);
        close_text(&t);
    }
    s->n_open = kept;
}

static nt_status work(struct score *s) {
    for (;;) {
        NT_TRY(fill(s));
        if (s->n_open == 0) return NT_OK;
        const struct nt_batch b = compose(s);
        NT_TRY(nt_model_forward(s->session->model, &b, &s->pages.pool, s->logits));
        if (b.n_out > 0) NT_TRY(add_logprobs(s, b.n_out));
        advance(s);
        nt_watchdog_beat(s->watchdog, "scoring");
        nt_comm_progress(s->session->world);
        if (s->session->world->rank == 0) nt_progress_update(&s->progress, s->n_done, (double)s->n_tokens, NULL);
    }
}

/* ---- gathering ---- */

/* Leaders' lists of items of `bytes` to every rank, padded to the longest with zeroed items whose int64 row, their
 * first member, is -1. *all has (longest + 1) * ranks items, or NULL after an error. */
static nt_status gather_list(struct nt_world *w, const void *mine, int64_t n, size_t bytes, void **all,
                             int64_t *n_all) {
    const int64_t none = -1;
    int64_t longest = w->tp_rank == 0 ? n : 0;
    *all = NULL;
    NT_TRY(nt_comm_allreduce_max_i64(w->world, &longest, 1));
    const size_t items = (size_t)longest + 1;
    char *part = calloc(items, bytes);
    char *list = calloc(items * (size_t)w->size, bytes);
    nt_status st = part && list ? NT_OK : NT_FAIL(NT_E_NOMEM, "no memory to gather %zu scores", items);
    for (size_t i = 0; st == NT_OK && i < items; i++) memcpy(part + i * bytes, &none, sizeof none);
    if (st == NT_OK && w->tp_rank == 0 && n > 0) memcpy(part, mine, (size_t)n * bytes);
    st = nt_comm_agree(w->world, st);
    if (st == NT_OK) st = nt_comm_allgather(w->world, part, list, items * bytes);
    free(part);
    if (st == NT_OK) {
        *n_all = (int64_t)items * w->size;
        *all = list;
    } else {
        free(list);
    }
    return st;
}

/* Both structs begin with their row. */
_Static_assert(offsetof(struct nt_row_score, row) == 0 && offsetof(struct nt_score_error, row) == 0, "row comes first");

static int by_row(const void *a, const void *b) {
    int64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

/* Sorts by row and drops the padding; the number left. */
static int64_t settle(void *list, int64_t n, size_t bytes) {
    int64_t padding = 0, row;
    qsort(list, (size_t)n, bytes, by_row);
    while (padding < n && (memcpy(&row, (char *)list + (size_t)padding * bytes, sizeof row), row < 0)) padding++;
    memmove(list, (char *)list + (size_t)padding * bytes, (size_t)(n - padding) * bytes);
    return n - padding;
}

static nt_status gather(struct score *s, struct nt_score_total *total) {
    struct nt_world *w = s->session->world;
    void *rows = NULL, *errors = NULL;
    int64_t n_rows = 0, n_errors = 0;
    nt_status st = gather_list(w, s->done, s->n_done, sizeof *s->done, &rows, &n_rows);
    if (st == NT_OK) st = gather_list(w, s->errors, s->n_errors, sizeof *s->errors, &errors, &n_errors);
    if (st != NT_OK) {
        free(rows);
        return st;
    }
    total->rows = rows;
    total->errors = errors;
    total->n_rows = settle(rows, n_rows, sizeof *total->rows);
    total->n_errors = settle(errors, n_errors, sizeof *total->errors);
    for (int64_t i = 0; i < total->n_rows; i++) {
        if (total->rows[i].n_tokens > 0) total->n_tokens += total->rows[i].n_tokens;
        total->logprob += total->rows[i].logprob;
    }
    return NT_OK;
}

static nt_status open_score(struct score *s, const char *input) {
    struct nt_world *w = s->session->world;
    nt_job_memory_init(&s->memory, &s->session->backend);
    const struct nt_memory_plan plan = {.world = w,
                                        .model = s->session->model,
                                        .memory = &s->memory,
                                        .n_page = page_count(s),
                                        .remedy = "score.window"};
    nt_status st = layout(s);
    if (st == NT_OK) st = nt_memory_plan_take(&plan);
    if (st == NT_OK) st = layout(s);
    if (st == NT_OK) st = nt_score_rows_open(&s->rows, s->session, input);
    NT_TRY(nt_comm_agree(w->world, st));
    return nt_ticket_open(w, &s->ticket);
}

static void close_score(struct score *s) {
    if (s->ticket) nt_ticket_close(s->ticket);
    nt_score_rows_close(s->rows);
    for (int32_t i = 0; i < s->n_open; i++) close_text(&s->open[i]);
    nt_job_memory_release(&s->memory);
    free(s->done);
    free(s->errors);
}

nt_status nt_score_run(struct nt_session *session, const char *input, struct nt_watchdog *watchdog,
                       struct nt_score_total *total) {
    struct score s = {.session = session, .watchdog = watchdog};
    const double start = nt_now();
    *total = (struct nt_score_total){0};
    const int64_t window = session->config->score_window;
    s.window = (int32_t)(window < session->max_len ? window : session->max_len);
    nt_status st = open_score(&s, input);
    if (session->world->rank == 0)
        nt_progress_begin(&s.progress, "rows", "tok/s", 0, 0, session->config->run_log_interval_s);
    if (st == NT_OK) st = work(&s);
    if (st == NT_OK) st = gather(&s, total);
    if (session->world->rank == 0) nt_progress_end(&s.progress, s.n_done, (double)s.n_tokens);
    total->seconds = nt_now() - start;
    if (st == NT_OK || session->world->size == 1) close_score(&s);
    return st;
}
