/* nocturne score: log-likelihood per row and perplexity. */
#include "cmd.h"
#include "fileio.h"
#include "log.h"
#include "score.h"
#include "watch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double perplexity(double logprob, int64_t n) {
    return n > 0 ? exp(-logprob / (double)n) : NAN;
}

static void add_figures(struct nt_strbuf *s, int64_t n_tokens, double logprob) {
    nt_strbuf_addf(s, "\"n_tokens\":%lld,\"logprob\":", (long long)n_tokens);
    nt_strbuf_add_json_num(s, logprob);
    nt_strbuf_adds(s, ",\"perplexity\":");
    nt_strbuf_add_json_num(s, perplexity(logprob, n_tokens));
}

static void add_error(struct nt_strbuf *s, const struct nt_score_error *e) {
    nt_strbuf_adds(s, "\"error\":");
    nt_strbuf_add_json(s, e->text, strlen(e->text));
    if (e->line > 0) nt_strbuf_addf(s, ",\"line\":%lld", (long long)e->line);
}

static void add_rows(struct nt_strbuf *s, const struct nt_score_total *t) {
    const struct nt_score_error *e = t->errors;
    for (int64_t i = 0; i < t->n_rows; i++) {
        const struct nt_row_score *r = &t->rows[i];
        nt_strbuf_addf(s, "{\"row\":%lld,", (long long)r->row);
        if (r->n_tokens < 0)
            add_error(s, e++);
        else
            add_figures(s, r->n_tokens, r->logprob);
        nt_strbuf_adds(s, "}\n");
    }
}

static nt_status write_file(const char *dir, const char *name, const struct nt_strbuf *text) {
    char path[4096];
    NT_TRY(nt_path_join(path, sizeof path, dir, name));
    return nt_publish_bytes(path, nt_strbuf_cstr(text), text->len, NT_PUBLISH_REPLACE);
}

static nt_status write_files(const char *dir, const struct nt_score_total *t) {
    struct nt_strbuf rows = NT_STRBUF_INIT, summary = NT_STRBUF_INIT;
    add_rows(&rows, t);
    nt_strbuf_addf(&summary, "{\"rows\":%lld,\"errors\":%lld,", (long long)t->n_rows, (long long)t->n_errors);
    add_figures(&summary, t->n_tokens, t->logprob);
    nt_strbuf_adds(&summary, "}\n");
    nt_status st = nt_mkdir_p(dir);
    if (st == NT_OK) st = write_file(dir, "scores.jsonl", &rows);
    if (st == NT_OK) st = write_file(dir, "summary.json", &summary);
    nt_strbuf_release(&rows);
    nt_strbuf_release(&summary);
    return st;
}

/* A text of which nothing could be scored is no success: a gate must not pass on it. */
static nt_status report(const struct nt_config *c, const struct nt_score_total *t) {
    enum { SHOWN = 10 };
    for (int64_t i = 0; i < t->n_errors && i < SHOWN; i++)
        nt_warn("score", "row %lld, line %lld: %s", (long long)t->errors[i].row, (long long)t->errors[i].line,
                t->errors[i].text);
    if (t->n_errors > SHOWN) nt_warn("score", "%lld more rows with errors", (long long)(t->n_errors - SHOWN));
    printf("rows %lld\nerrors %lld\ntokens %lld\nlogprob %.6f\nperplexity %.6f\ntokens/s %.1f\n", (long long)t->n_rows,
           (long long)t->n_errors, (long long)t->n_tokens, t->logprob, perplexity(t->logprob, t->n_tokens),
           t->seconds > 0 ? (double)t->n_tokens / t->seconds : 0.0);
    if (c->score_output[0]) NT_TRY(write_files(c->score_output, t));
    if (t->n_tokens > 0) return NT_OK;
    return NT_FAIL(NT_E_DATA, "%s: no token could be scored in %lld rows, so there is no perplexity", c->score_input,
                   (long long)t->n_rows);
}

static nt_status score(struct nt_cmd_context *ctx, struct nt_watchdog *watchdog) {
    const struct nt_config *c = ctx->config;
    struct nt_session session;
    struct nt_score_total total = {0};
    NT_TRY(nt_session_open(&session, ctx->world, c));
    nt_status st = nt_score_run(&session, c->score_input, watchdog, &total);
    if (st == NT_OK) st = nt_comm_agree(ctx->world->world, ctx->world->rank == 0 ? report(c, &total) : NT_OK);
    free(total.rows);
    free(total.errors);
    nt_watchdog_beat(watchdog, "closing");
    /* Closing is collective (shared weights): a rank that failed alone must not wait there for ranks that work. */
    if (st == NT_OK || ctx->world->size == 1) nt_session_close(&session);
    return st;
}

nt_status nt_cmd_score(struct nt_cmd_context *ctx) {
    const struct nt_config *c = ctx->config;
    struct nt_watch watch;
    if (!c->score_input[0]) return NT_FAIL(NT_E_USAGE, "score: no input given; add --input texts.jsonl");
    if (!nt_file_exists(c->score_input)) return NT_FAIL(NT_E_NOINPUT, "%s: no such input file", c->score_input);
    NT_TRY(nt_watch_open(&watch, ctx->world, c->score_output, c->run_watchdog_s));
    const nt_status st = score(ctx, watch.dog);
    nt_watch_close(&watch);
    return st;
}
