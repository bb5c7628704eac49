/* nocturne merge: base and LoRA adapter to a bf16 Hugging Face directory, and what the rounding left of the delta. */
#include "cmd.h"
#include "log.h"
#include "merge.h"
#include "pool.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Below this much of the delta, or above this much rounding error beside it, merging is the wrong way to serve it. */
static const double enough_kept = 0.5, much_noise = 1;

static void warn_of_loss(const struct nt_merge_report *r) {
    const double kept = nt_merge_kept(&r->total), noise = nt_merge_noise(&r->total);
    if (isnan(kept))
        nt_warn("merge", "the adapter adds nothing: every B A is zero; the merged model is the base");
    else if (kept < enough_kept || noise > much_noise)
        nt_warn("merge",
                "%.0f %% of the delta came through the rounding to bf16, with an error of %.2f times its size: serve "
                "the adapter beside the base instead of merging it",
                100 * kept, noise);
}

static void print_report(const struct nt_config *c, const struct nt_merge_report *r) {
    struct nt_strbuf s = NT_STRBUF_INIT;
    if (strcmp(c->merge_format, "json") == 0) {
        nt_merge_report_json(r, &s);
    } else {
        nt_strbuf_addf(&s, "%s: %lld tensors, %.1f MiB in %d files, rank %d, scale %g, %.1f s\n\n", c->merge_output,
                       (long long)r->n_tensors, (double)r->n_bytes / 1048576.0, r->n_files, r->r, r->scale, r->seconds);
        nt_merge_report_md(r, &s);
    }
    fputs(nt_strbuf_cstr(&s), stdout);
    nt_strbuf_release(&s);
}

nt_status nt_cmd_merge(struct nt_cmd_context *ctx) {
    const struct nt_config *c = ctx->config;
    if (!c->model_path[0]) return NT_FAIL(NT_E_USAGE, "merge: no model given; add --model FILE.gguf or a directory");
    if (!c->merge_adapter[0]) return NT_FAIL(NT_E_USAGE, "merge: no adapter given; add --adapter DIR");
    if (!c->merge_output[0]) return NT_FAIL(NT_E_USAGE, "merge: no output given; add --output DIR");
    struct nt_merge_report report;
    struct nt_merge_job job = {.model = c->model_path,
                               .adapter = c->merge_adapter,
                               .output = c->merge_output,
                               .shard_bytes = (int64_t)(c->merge_shard_gb * 1e9),
                               .any_base = c->merge_any_base,
                               .world = ctx->world};
    NT_TRY(nt_pool_new(&job.pool, (int)c->run_threads, c->run_pin, ctx->world->node_rank, ctx->world->node_size));
    const nt_status st = nt_merge_run(&job, &report);
    nt_pool_free(job.pool);
    NT_TRY(st);
    print_report(c, &report);
    warn_of_loss(&report);
    return NT_OK;
}
