/* nocturne generate: prompts in, OpenAI Batch responses and an HDF5 file out, exactly once per row. */
#include "clock.h"
#include "cmd.h"
#include "complete.h"
#include "fileio.h"
#include "log.h"
#include "manifest.h"
#include "metrics.h"
#include "stop.h"
#include "watch.h"

#include <string.h>
#include <sys/stat.h>
#include <stdlib.h>

struct generate {
    struct nt_session session;
    struct nt_metrics metrics;
    struct nt_generate_job job;
    uint8_t input_digest[32];
    struct nt_watch watch;
    bool complete; /* the directory already holds this job's results */
};

static nt_status check_arguments(const struct nt_config *c) {
    if (!c->generate_input[0]) return NT_FAIL(NT_E_USAGE, "generate: no input given; add --input prompts.jsonl");
    if (!c->generate_output[0]) return NT_FAIL(NT_E_USAGE, "generate: no output directory given; add --output DIR");
    if (!nt_file_exists(c->generate_input)) return NT_FAIL(NT_E_NOINPUT, "%s: no such input file", c->generate_input);
    struct stat info;
    if (stat(c->generate_input, &info) == 0 && !S_ISREG(info.st_mode))
        return NT_FAIL(NT_E_NOINPUT,
                       "%s is not a regular file: a job reads its input again when it resumes; store it first",
                       c->generate_input);
    return NT_OK;
}

static void beat(void *world) {
    nt_comm_beat(world);
}

/* Rank 0 alone: the directory, the input's identity, the job's identity. */
static nt_status prepare(struct generate *g) {
    const struct nt_config *c = g->session.config;
    const struct nt_beat alive = {beat, g->session.world};
    NT_TRY(nt_reader_scan_watched(g->job.input, &g->job.n_rows, g->input_digest, &alive)); /* before any discard */
    if (g->job.n_rows == 0) nt_warn("generate", "%s has no rows", g->job.input);
    if (c->generate_fresh) NT_TRY(nt_journal_discard(g->job.dir));
    NT_TRY(nt_job_digest(&g->session, g->input_digest, g->job.job_digest));
    NT_TRY(nt_complete_find(g->job.dir, g->job.job_digest, &g->complete));
    if (g->complete) return NT_OK;
    NT_TRY(nt_manifest_write_job(&g->job, g->input_digest));
    char path[4096];
    NT_TRY(nt_path_join(path, sizeof path, g->job.dir, "metrics.jsonl"));
    return nt_metrics_open(&g->metrics, path, 0);
}

static nt_status share(struct generate *g) {
    struct nt_comm *world = g->session.world->world;
    NT_TRY(nt_comm_broadcast(world, &g->complete, sizeof g->complete, 0));
    NT_TRY(nt_comm_broadcast(world, &g->job.n_rows, sizeof g->job.n_rows, 0));
    NT_TRY(nt_comm_broadcast(world, g->input_digest, sizeof g->input_digest, 0));
    return nt_comm_broadcast(world, g->job.job_digest, sizeof g->job.job_digest, 0);
}

static const char *piece(void *tok, uint32_t id, size_t *len) {
    return nt_tokenizer_piece(tok, (int32_t)id, len);
}

static const char *model_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static nt_status finish(struct generate *g) {
    const struct nt_config *c = g->session.config;
    const double start = nt_now();
    struct nt_finish_info info = {
        .input = g->job.input,
        .dir = g->job.dir,
        .model_name = model_name(c->model_path),
        .job_digest = g->job.job_digest,
        .n_rows = g->job.n_rows,
        .created = c->generate_created,
        .config = c,
        .piece = piece,
        .piece_arg = g->session.text.tok,
        .beat = {beat, g->session.world}
    };
    NT_TRY(nt_results_finish(&info));
    NT_TRY(nt_manifest_write_run(&g->job, g->input_digest, info.n_error, nt_now() - start));
    nt_metrics_event(&g->metrics, "complete", NT_INT("rows", g->job.n_rows), NT_INT("errors", info.n_error),
                     NT_INT("prompt_tokens", g->job.prompt_tokens), NT_INT("answer_tokens", g->job.answer_tokens),
                     NT_NUM("generate_s", g->job.generate_s), NT_NUM("finish_s", nt_now() - start));
    NT_TRY(nt_complete_write(g->job.dir, g->job.job_digest));
    nt_info("generate", "complete: %lld rows, %lld errors, %lld + %lld tokens in %.1f s (%.0f tok/s); %s/results.jsonl",
            (long long)g->job.n_rows, (long long)info.n_error, (long long)g->job.prompt_tokens,
            (long long)g->job.answer_tokens, g->job.generate_s,
            g->job.generate_s > 0 ? (double)(g->job.prompt_tokens + g->job.answer_tokens) / g->job.generate_s : 0.0,
            g->job.dir);
    return NT_OK;
}

static nt_status run_job(struct generate *g) {
    struct nt_world *w = g->session.world;
    NT_TRY(nt_comm_agree(w->world, w->rank == 0 ? prepare(g) : NT_OK));
    NT_TRY(share(g));
    if (g->complete) {
        nt_info("generate", "%s is complete already; --fresh starts over", g->job.dir);
        return nt_comm_agree(w->world, w->rank == 0 ? nt_complete_write(g->job.dir, g->job.job_digest) : NT_OK);
    }
    NT_TRY(nt_generate_run(&g->job));
    return nt_comm_agree(w->world, w->rank == 0 ? finish(g) : NT_OK);
}

nt_status nt_cmd_generate(struct nt_cmd_context *ctx) {
    struct generate g = {.metrics = {.fd = -1}};
    NT_TRY(check_arguments(ctx->config));
    nt_stop_install();
    NT_TRY(nt_watch_open(&g.watch, ctx->world, ctx->config->generate_output, ctx->config->run_watchdog_s));
    nt_status st = nt_session_open(&g.session, ctx->world, ctx->config);
    if (st != NT_OK) {
        nt_watch_close(&g.watch);
        return st;
    }
    g.job = (struct nt_generate_job){.session = &g.session,
                                     .metrics = &g.metrics,
                                     .watchdog = g.watch.dog,
                                     .input = ctx->config->generate_input,
                                     .dir = ctx->config->generate_output};
    st = run_job(&g);
    nt_metrics_close(&g.metrics);
    nt_watchdog_beat(g.watch.dog, "closing");
    /* Closing is collective (shared weights): a rank that failed alone must not wait there for ranks that work. */
    if (st == NT_OK || st == NT_E_STOPPED || ctx->world->size == 1) nt_session_close(&g.session);
    nt_watch_close(&g.watch);
    return st;
}
