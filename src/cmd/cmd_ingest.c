/* nocturne ingest: JSONL to an HDF5 corpus, of requests for generate or of rows to train on. */
#include "cmd.h"
#include "corpus_h5.h"
#include "ingest.h"
#include "log.h"
#include "transfer.h"

/* The corpus is there all the same: exit status 65 says that it has not everything. */
static nt_status left_out(const struct nt_config *c, int64_t n_errors, int64_t n_rows, const char *errors) {
    if (n_errors == 0) return NT_OK;
    return NT_FAIL(NT_E_DATA, "%s%s: %lld bad rows were left out, see %s; the other %lld are in %s", c->ingest_input,
                   c->ingest_responses[0] ? " with its answers and feedback" : "", (long long)n_errors, errors,
                   (long long)n_rows, c->ingest_output);
}

static nt_status ingest_requests(const struct nt_config *c) {
    struct nt_transfer t;
    uint32_t consent = 0;
    const char *words = c->ingest_consent[0] ? c->ingest_consent : "generate";
    NT_TRY(nt_consent_parse(words, &consent));
    if (c->ingest_responses[0] || c->ingest_feedback[0])
        return NT_FAIL(NT_E_USAGE, "ingest: responses and feedback make rows to train on; add --format batch");
    NT_TRY(nt_import(c->ingest_input, c->ingest_output, consent, c, &t));
    nt_info("ingest", "%lld requests to %s, consent: %s", (long long)t.n_rows, c->ingest_output,
            consent ? words : "none");
    return left_out(c, t.n_errors, t.n_rows, t.errors);
}

static nt_status ingest_rows(const struct nt_config *c, enum nt_row_format format) {
    struct nt_ingest_report r;
    NT_TRY(nt_ingest(c, format, "nocturne " NT_VERSION " " NT_COMMIT, &r));
    nt_info("ingest", "%lld rows (%s) to %s: %lld answers, %lld feedback, %lld pairs", (long long)r.n_rows,
            nt_row_format_name(format), c->ingest_output, (long long)r.n_answers, (long long)r.n_feedback,
            (long long)r.n_pairs);
    if (r.n_duplicates > 0)
        nt_info("ingest", "%lld rows have the content of an earlier one: %s", (long long)r.n_duplicates,
                c->ingest_duplicates);
    if (r.n_repeats > 0)
        nt_warn("ingest",
                "the completions of %lld rows begin with their prompt, which is there twice then; if they are whole "
                "texts, leave \"prompt\" out (chosen and rejected are split where they part) or cut it off",
                (long long)r.n_repeats);
    if (r.n_unread > 0)
        nt_warn("ingest",
                "%lld rows have words in \"%s\", which this format does not read; where the model should see them, "
                "put them into the messages, or into \"prompt\"",
                (long long)r.n_unread, r.unread);
    if (r.n_unanswered > 0) nt_info("ingest", "%lld requests have no answer", (long long)r.n_unanswered);
    if (r.n_without_consent > 0)
        nt_warn("ingest",
                "%lld rows have no consent and no job will see them; if you may use them, say for what and on what "
                "basis: --consent train --basis ...",
                (long long)r.n_without_consent);
    return left_out(c, r.n_errors, r.n_rows, r.errors);
}

nt_status nt_cmd_ingest(struct nt_cmd_context *ctx) {
    const struct nt_config *c = ctx->config;
    enum nt_row_format format = NT_ROW_MESSAGES;
    bool request = false;
    if (!c->ingest_input[0]) return NT_FAIL(NT_E_USAGE, "ingest: no input given; add --input FILE.jsonl");
    if (!c->ingest_output[0]) return NT_FAIL(NT_E_USAGE, "ingest: no output given; add --output FILE.h5");
    NT_TRY(nt_ingest_detect(c, &format, &request));
    return request ? ingest_requests(c) : ingest_rows(c, format);
}
