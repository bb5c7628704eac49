/* Prints configs/reference.cfg: every setting with its text, range and default. `ninja reference_cfg` rewrites the
 * file, and the test house/reference_cfg compares it. */
#include "config.h"

#include <stdio.h>

int main(void) {
    struct nt_config config;
    struct nt_strbuf out = NT_STRBUF_INIT;
    nt_config_init(&config);
    nt_strbuf_adds(
        &out, "// All settings with their defaults; generated from src/core/config_keys.def by `ninja reference_cfg`.\n"
              "// Copy the lines you change into a job file; `--set section.key=value` overrides a file.\n\n");
    nt_config_dump(&config, true, &out);
    (void)fputs(nt_strbuf_cstr(&out), stdout);
    nt_config_release(&config);
    nt_strbuf_release(&out);
    return 0;
}
