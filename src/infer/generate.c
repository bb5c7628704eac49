#include "generate.h"

#include "clock.h"
#include "env.h"
#include "log.h"
#include "metrics.h"
#include "stop.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_NEW = 256 };

/* What the leader of a tensor-parallel group tells its group before each step. */
struct turn {
    int64_t stop, exhausted, n_new;
    int64_t rows[MAX_NEW];
};

struct loop {
    struct nt_generate_job *job;
    struct nt_world *world;
    const struct nt_config *config;
    struct nt_engine *engine;
    struct nt_reader *reader;
    struct nt_journal *journal;                     /* leaders */
    struct nt_ticket *rows, *done, *tokens, *stops; /* shared counters on rank 0 */
    uint8_t *is_done;                               // [n_rows / 8 + 1]
    int64_t next_ticket, counted_tokens, counted_done, my_done;
    bool exhausted;
    int64_t stopping, announced; /* enum nt_stop_level: in force; what all groups were told */
    double deadline, last_sync, last_count, start, stop_begun;
    struct nt_progress progress;
};

static bool is_leader(const struct loop *l) {
    return l->world->tp_rank == 0;
}
static bool row_is_done(const struct loop *l, int64_t row) {
    return l->is_done[row >> 3] >> (row & 7) & 1;
}

/* ---- rows ---- */

/* Takes rows while the engine has room, never more than a fair part of what is left, so that small jobs spread. */
static nt_status take_rows(struct loop *l, struct turn *t) {
    const int64_t n_rows = l->job->n_rows;
    int64_t room = nt_engine_room(l->engine);
    const int64_t left = n_rows - l->next_ticket;
    const int64_t fair = left / (2 * l->world->dp_size) + 1;
    room = room < fair ? room : fair;
    while (!l->exhausted && t->n_new < room && t->n_new < MAX_NEW) {
        int64_t row;
        NT_TRY(nt_ticket_next(l->rows, 1, &row));
        l->next_ticket = row;
        l->exhausted = row >= n_rows;
        if (!l->exhausted && !row_is_done(l, row)) t->rows[t->n_new++] = row;
    }
    t->exhausted = l->exhausted;
    return NT_OK;
}

/* A stop of one group is a stop of all: it is announced on a shared counter that every leader reads now and then. Its
 * low half counts the groups that drain, its high half those that are in a hurry. */
static nt_status check_stop(struct loop *l, bool look, int64_t asked) {
    const int64_t urgent = (int64_t)1 << 32;
    int64_t before;
    if (asked > l->stopping) l->stopping = asked;
    if (l->stopping > l->announced) {
        l->announced = l->stopping;
        nt_info("generate", "stopping%s: %s", l->stopping == NT_STOP_URGENT ? " at once" : "",
                nt_stop_level(l->deadline) ? nt_stop_reason() : "a signal to another rank of the group");
        return nt_ticket_add(l->stops, l->stopping == NT_STOP_URGENT ? urgent : 1, &before);
    }
    if (l->stopping < NT_STOP_URGENT && look && l->world->dp_size > 1) {
        NT_TRY(nt_ticket_add(l->stops, 0, &before));
        const int64_t told = before >= urgent ? NT_STOP_URGENT : before > 0 ? NT_STOP_DRAIN : NT_STOP_NONE;
        if (told > l->stopping) l->stopping = l->announced = told;
    }
    return NT_OK;
}

/* A stopping group takes no new rows; those in work get some time to finish, since a resume would begin them anew. */
static bool drained(const struct loop *l) {
    return nt_engine_active(l->engine) == 0 || l->stopping == NT_STOP_URGENT ||
           nt_now() - l->stop_begun >= l->config->run_drain_s;
}

static nt_status next_turn(struct loop *l, bool look, struct turn *t) {
    t->stop = t->n_new = t->exhausted = 0;
    nt_status st = NT_OK;
    int64_t asked = nt_stop_level(l->deadline);
    if (l->world->tp_size > 1) NT_TRY(nt_comm_allreduce_max_i64(l->world->tp, &asked, 1)); /* any rank may be told */
    if (is_leader(l)) {
        st = check_stop(l, look, asked);
        if (l->stopping && l->stop_begun == 0) l->stop_begun = nt_now();
        if (st == NT_OK && !l->stopping) st = take_rows(l, t);
        t->stop = l->stopping && drained(l);
    }
    NT_TRY(st);
    if (l->world->tp_size == 1) return NT_OK;
    return nt_comm_broadcast(l->world->tp, t, offsetof(struct turn, rows) + (size_t)MAX_NEW * sizeof *t->rows, 0);
}

static nt_status add_rows(struct loop *l, const struct turn *t) {
    for (int64_t i = 0; i < t->n_new; i++) {
        struct nt_request req = {0};
        NT_TRY(nt_reader_row(l->reader, t->rows[i], &req));
        const nt_status st = nt_engine_add(l->engine, &req);
        nt_request_release(&req);
        NT_TRY(st);
    }
    return NT_OK;
}

static nt_status save_rows(struct loop *l) {
    struct nt_result result;
    while (nt_engine_pop(l->engine, &result)) {
        const nt_status st = is_leader(l) ? nt_journal_append(l->journal, &result) : NT_OK;
        nt_result_release(&result);
        NT_TRY(st);
        l->my_done++;
    }
    return NT_OK;
}

/* ---- bookkeeping between steps ---- */

static double my_tokens(const struct loop *l) {
    const struct nt_engine_stats *s = nt_engine_stats(l->engine);
    return (double)(s->prompt_tokens + s->answer_tokens);
}

/* Adds this group's work to the shared counters; rank 0 shows the sum. */
static nt_status count_work(struct loop *l) {
    int64_t done, tokens;
    const int64_t mine = (int64_t)my_tokens(l);
    NT_TRY(nt_ticket_add(l->tokens, mine - l->counted_tokens, &tokens));
    NT_TRY(nt_ticket_add(l->done, l->my_done - l->counted_done, &done));
    tokens += mine - l->counted_tokens;
    done += l->my_done - l->counted_done;
    l->counted_tokens = mine;
    l->counted_done = l->my_done;
    if (l->world->rank == 0) nt_progress_update(&l->progress, l->job->n_resumed + done, (double)tokens, NULL);
    return NT_OK;
}

static void write_metrics(struct loop *l) {
    const struct nt_engine_stats *s = nt_engine_stats(l->engine);
    nt_metrics_event(
        l->job->metrics, "progress", NT_INT("rows_done", l->my_done), NT_INT("prompt_tokens", s->prompt_tokens),
        NT_INT("answer_tokens", s->answer_tokens), NT_INT("steps", s->steps), NT_INT("steps_ahead", s->steps_ahead),
        NT_NUM("forward_s", s->forward_s), NT_NUM("sample_s", s->sample_s), NT_NUM("elapsed_s", nt_now() - l->start));
}

/* Every step is cheap; syncs and counting happen at their intervals. *look: shared counters are due. */
static nt_status between_steps(struct loop *l, bool *look) {
    const double now = nt_now();
    nt_watchdog_beat(l->job->watchdog, "generating");
    nt_comm_progress(l->world);
    *look = now - l->last_count >= 0.25;
    if (!is_leader(l)) return NT_OK;
    if (now - l->last_sync >= l->config->generate_checkpoint_s) {
        NT_TRY(nt_journal_sync(l->journal));
        l->last_sync = now;
        if (l->world->rank == 0) write_metrics(l);
    }
    if (*look) {
        l->last_count = now;
        return count_work(l);
    }
    return NT_OK;
}

static nt_status work(struct loop *l) {
    struct turn *t = calloc(1, sizeof *t);
    if (!t) return NT_FAIL(NT_E_NOMEM, "no memory for the job loop");
    bool look = true;
    nt_status st;
    for (;;) {
        NT_TRY_GOTO(st, out, next_turn(l, look, t));
        if (t->stop) break;
        NT_TRY_GOTO(st, out, add_rows(l, t));
        NT_TRY_GOTO(st, out, save_rows(l)); /* refused rows are finished at once */
        if (t->exhausted && nt_engine_active(l->engine) == 0) break;
        NT_TRY_GOTO(st, out, nt_engine_step(l->engine));
        NT_TRY_GOTO(st, out, save_rows(l));
        NT_TRY_GOTO(st, out, between_steps(l, &look));
    }
    if (is_leader(l)) {
        NT_TRY_GOTO(st, out, nt_journal_sync(l->journal));
        st = count_work(l);
    }
out:
    free(t);
    return st;
}

/* ---- start and end ---- */

/* Rank 0 reads the journals; everybody gets the bitmap. */
static nt_status load_done(struct loop *l) {
    struct nt_generate_job *job = l->job;
    const size_t bytes = (size_t)(job->n_rows / 8 + 1);
    l->is_done = calloc(bytes, 1);
    nt_status st =
        l->is_done ? NT_OK : NT_FAIL(NT_E_NOMEM, "no memory for the map of %lld rows", (long long)job->n_rows);
    if (st == NT_OK && l->world->rank == 0)
        st = nt_journal_scan(job->dir, job->job_digest, job->n_rows, l->is_done, &job->n_resumed);
    NT_TRY(nt_comm_agree(l->world->world, st));
    NT_TRY(nt_comm_broadcast(l->world->world, &job->n_resumed, sizeof job->n_resumed, 0));
    return nt_comm_broadcast(l->world->world, l->is_done, bytes, 0);
}

static nt_status open_files(struct loop *l) {
    NT_TRY(nt_reader_open(&l->reader, l->job->input, l->config));
    return is_leader(l) ? nt_journal_open(&l->journal, l->job->dir, l->job->job_digest) : NT_OK;
}

static nt_status open_loop(struct loop *l) {
    struct nt_generate_job *job = l->job;
    NT_TRY(load_done(l));
    if (job->n_resumed > 0)
        nt_info("generate", "resuming: %lld of %lld rows are done", (long long)job->n_resumed, (long long)job->n_rows);
    const struct nt_engine_config ec = nt_session_engine_config(job->session);
    NT_TRY(nt_engine_new(&l->engine, &ec));
    NT_TRY(nt_comm_agree(l->world->world, open_files(l)));
    NT_TRY(nt_ticket_open(l->world, &l->rows));
    NT_TRY(nt_ticket_open(l->world, &l->done));
    NT_TRY(nt_ticket_open(l->world, &l->tokens));
    NT_TRY(nt_ticket_open(l->world, &l->stops));
    const int64_t end_time = nt_env_slurm_job_end_time();
    if (end_time < 0 && l->world->rank == 0)
        nt_warn("generate", "SLURM_JOB_END_TIME is not a number of seconds: the job will not stop before its end");
    l->deadline = end_time > 0 ? (double)end_time - l->config->run_stop_margin_s : 0;
    l->start = l->last_sync = nt_now();
    if (l->world->rank == 0)
        nt_progress_begin(&l->progress, "rows", "tok/s", job->n_resumed, job->n_rows, l->config->run_log_interval_s);
    return NT_OK;
}

static void close_loop(struct loop *l) {
    if (l->journal && nt_journal_close(l->journal) != NT_OK) nt_warn("generate", "%s", nt_error_last()->text);
    if (l->stops) nt_ticket_close(l->stops);
    if (l->tokens) nt_ticket_close(l->tokens);
    if (l->done) nt_ticket_close(l->done);
    if (l->rows) nt_ticket_close(l->rows);
    nt_reader_close(l->reader);
    nt_engine_free(l->engine);
    free(l->is_done);
}

/* Totals over all groups; every rank learns whether the job is complete. */
static nt_status total(struct loop *l) {
    struct nt_generate_job *job = l->job;
    const struct nt_engine_stats *s = nt_engine_stats(l->engine);
    const int64_t lead = is_leader(l);
    int64_t sums[4] = {lead * l->my_done, lead * s->usage_prompt, lead * s->usage_answer, lead * s->steps};
    int64_t stopped = l->stopping > 0;
    NT_TRY(nt_comm_allreduce_sum_i64(l->world->world, sums, 4));
    NT_TRY(nt_comm_allreduce_max_i64(l->world->world, &stopped, 1));
    job->n_done = job->n_resumed + sums[0];
    job->prompt_tokens = sums[1];
    job->answer_tokens = sums[2];
    job->steps = sums[3];
    job->stats = *s;
    job->generate_s = nt_now() - l->start;
    if (l->world->rank == 0) {
        write_metrics(l);
        nt_progress_end(&l->progress, job->n_done, (double)(sums[1] + sums[2]));
    }
    if (job->n_done == job->n_rows) return NT_OK;
    if (!stopped)
        return NT_FAIL(NT_E_INTERNAL, "%lld of %lld rows are done though nothing stopped the job",
                       (long long)job->n_done, (long long)job->n_rows);
    return NT_FAIL(NT_E_STOPPED, "stopped after %lld of %lld rows; the same command resumes", (long long)job->n_done,
                   (long long)job->n_rows);
}

nt_status nt_generate_run(struct nt_generate_job *job) {
    struct loop l = {.job = job, .world = job->session->world, .config = job->session->config};
    nt_status st = open_loop(&l);
    if (st == NT_OK) st = work(&l);
    if (st == NT_OK && l.journal) {
        st = nt_journal_close(l.journal);
        l.journal = NULL;
    }
    if (st == NT_OK) st = nt_engine_settle(l.engine);
    if (st == NT_OK) st = total(&l);
    /* Closing is collective: after an error of this rank alone, the process ends and takes the job along. */
    if (st == NT_OK || st == NT_E_STOPPED || l.world->size == 1) close_loop(&l);
    return st;
}
