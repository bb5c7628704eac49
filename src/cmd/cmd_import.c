/* nocturne import: JSONL to an HDF5 corpus. */
#include "cmd.h"
#include "corpus_h5.h"
#include "log.h"
#include "transfer.h"

nt_status nt_cmd_import(struct nt_cmd_context *ctx) {
    const struct nt_config *c = ctx->config;
    struct nt_transfer t;
    uint32_t consent = 0;
    if (!c->import_input[0]) return NT_FAIL(NT_E_USAGE, "import: no input given; add --input FILE.jsonl");
    if (!c->import_output[0]) return NT_FAIL(NT_E_USAGE, "import: no output given; add --output FILE.h5");
    NT_TRY(nt_consent_parse(c->import_consent, &consent));
    NT_TRY(nt_import(c->import_input, c->import_output, consent, c, &t));
    if (t.n_errors > 0)
        nt_warn("import", "%lld rows of %lld are bad and were left out, see %s", (long long)t.n_errors,
                (long long)(t.n_rows + t.n_errors), t.errors);
    nt_info("import", "%lld rows to %s, consent: %s", (long long)t.n_rows, c->import_output,
            consent ? c->import_consent : "none");
    return NT_OK;
}
