/* nocturne config: the settings in force as a file that reads back to the same; with FILE also a check of it. */
#include "cmd.h"

#include <stdio.h>

nt_status nt_cmd_config(struct nt_cmd_context *ctx) {
    if (ctx->n_args == 1) NT_TRY(nt_config_read_file(ctx->config, ctx->args[0]));
    struct nt_strbuf text = NT_STRBUF_INIT;
    nt_config_dump(ctx->config, true, &text);
    fputs(nt_strbuf_cstr(&text), stdout);
    nt_strbuf_release(&text);
    return NT_OK;
}
