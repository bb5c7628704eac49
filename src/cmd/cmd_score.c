/* nocturne score: log-likelihood per row and perplexity. */
#include "cmd.h"
#include "fileio.h"
#include "log.h"
#include "score.h"
#include "stop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static double perplexity(double logprob, int64_t n) {
    return n > 0 ? exp(-logprob / (double)n) : NAN;
}

static void add_figures(struct nt_strbuf *s, int64_t n_tokens, double logprob) {
    nt_strbuf_addf(s, "\"n_tokens\":%lld,\"logprob\":", (long long)n_tokens);
    nt_strbuf_add_json_num(s, logprob);
    nt_strbuf_adds(s, ",\"perplexity\":");
    nt_strbuf_add_json_num(s, perplexity(logprob, n_tokens));
}

static nt_status write_files(const char *dir, const struct nt_score_total *t) {
    char path[4096];
    struct nt_strbuf s = NT_STRBUF_INIT;
    for (int64_t i = 0; i < t->n_rows; i++) {
        const struct nt_row_score *r = &t->rows[i];
        nt_strbuf_addf(&s, "{\"row\":%lld,", (long long)r->row);
        if (r->n_tokens < 0)
            nt_strbuf_adds(&s, "\"error\":\"not scored; the log says why\"");
        else
            add_figures(&s, r->n_tokens, r->logprob);
        nt_strbuf_adds(&s, "}\n");
    }
    NT_TRY(nt_mkdir_p(dir));
    NT_TRY(nt_path_join(path, sizeof path, dir, "scores.jsonl"));
    nt_status st = nt_publish_bytes(path, nt_strbuf_cstr(&s), s.len, NT_PUBLISH_REPLACE);
    nt_strbuf_reset(&s);
    nt_strbuf_addf(&s, "{\"rows\":%lld,\"errors\":%lld,", (long long)t->n_rows, (long long)t->n_errors);
    add_figures(&s, t->n_tokens, t->logprob);
    nt_strbuf_adds(&s, "}\n");
    if (st == NT_OK) st = nt_path_join(path, sizeof path, dir, "summary.json");
    if (st == NT_OK) st = nt_publish_bytes(path, nt_strbuf_cstr(&s), s.len, NT_PUBLISH_REPLACE);
    nt_strbuf_release(&s);
    return st;
}

static nt_status report(const struct nt_config *c, const struct nt_score_total *t) {
    printf("rows %lld\nerrors %lld\ntokens %lld\nlogprob %.6f\nperplexity %.6f\ntokens/s %.1f\n", (long long)t->n_rows,
           (long long)t->n_errors, (long long)t->n_tokens, t->logprob, perplexity(t->logprob, t->n_tokens),
           t->seconds > 0 ? (double)t->n_tokens / t->seconds : 0.0);
    return c->score_output[0] ? write_files(c->score_output, t) : NT_OK;
}

nt_status nt_cmd_score(struct nt_cmd_context *ctx) {
    const struct nt_config *c = ctx->config;
    if (!c->score_input[0]) return NT_FAIL(NT_E_USAGE, "score: no input given; add --input texts.jsonl");
    if (!nt_file_exists(c->score_input)) return NT_FAIL(NT_E_NOINPUT, "%s: no such input file", c->score_input);
    struct nt_session session;
    struct nt_score_total total = {0};
    NT_TRY(nt_session_open(&session, ctx->world, c));
    nt_status st = nt_score_run(&session, c->score_input, &total);
    if (st == NT_OK) st = nt_comm_agree(ctx->world->world, ctx->world->rank == 0 ? report(c, &total) : NT_OK);
    free(total.rows);
    /* Closing is collective (shared weights): a rank that failed alone must not wait there for ranks that work. */
    if (st == NT_OK || ctx->world->size == 1) nt_session_close(&session);
    return st;
}
