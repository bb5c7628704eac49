/* nocturne export: an HDF5 corpus or results.h5 to JSONL. */
#include "cmd.h"
#include "log.h"
#include "transfer.h"

nt_status nt_cmd_export(struct nt_cmd_context *ctx) {
    const struct nt_config *c = ctx->config;
    struct nt_transfer t;
    if (!c->export_input[0]) return NT_FAIL(NT_E_USAGE, "export: no input given; add --input FILE.h5");
    if (!c->export_output[0]) return NT_FAIL(NT_E_USAGE, "export: no output given; add --output FILE.jsonl");
    NT_TRY(nt_export(c->export_input, c->export_output, &t));
    nt_info("export", "%lld rows to %s", (long long)t.n_rows, c->export_output);
    if (t.n_erased > 0) nt_info("export", "%lld lines of erased subjects were left out", (long long)t.n_erased);
    return NT_OK;
}
