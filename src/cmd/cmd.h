/* Subcommands: one row in cmd_table.c, one file cmd_<name>.c with one entry.
 *
 * A command gets the world (already open), its settings (defaults, then --config, then flags in command line order) and
 * its positional arguments. It returns a status; main.c prints the sentence and ends the process. stdout carries the
 * command's answer, stderr the log. Commands that are not `parallel` refuse to
 * start with more than one rank. */
#ifndef NT_CMD_H
#define NT_CMD_H

#include "comm.h"
#include "config.h"
#include "status.h"

struct nt_cmd;
struct nt_cmd_context {
    struct nt_world *world;
    struct nt_config *config;
    const struct nt_cmd *cmd;
    const char *const *args; /* positional */
    int n_args;
};

struct nt_flag_alias {
    const char *flag, *key; /* "model" (for --model), "model.path" */
};

struct nt_cmd {
    const char *name, *args, *doc; /* "generate", "", "one line" */
    nt_status (*run)(struct nt_cmd_context *ctx);
    const char *sections[5];          /* --some-key is looked up as section.some_key in this order; NULL ended */
    struct nt_flag_alias aliases[12]; /* shorter or customary names; {NULL, NULL} ended */
    int min_args, max_args;
    bool parallel;
};

extern const struct nt_cmd nt_cmd_table[];
extern const int nt_cmd_count;

/* Parses "nocturne CMD ..." into cfg and positionals (pointers into argv). *help is set for -h/--help and `help`. */
NT_MUST nt_status nt_cmd_parse(int argc, char **argv, const struct nt_cmd **cmd, struct nt_config *cfg,
                               const char **args, int max_args, int *n_args, bool *help);
void nt_cmd_usage(const struct nt_cmd *cmd, struct nt_strbuf *out); /* NULL: the program's */

/* A line on stdout, shown as nt_strbuf_add_shown has it: names from files are safe to print. */
void nt_print(const char *fmt, ...) NT_PRINTF(1, 2);

nt_status nt_cmd_generate(struct nt_cmd_context *ctx);
nt_status nt_cmd_score(struct nt_cmd_context *ctx);
nt_status nt_cmd_finetune(struct nt_cmd_context *ctx);
nt_status nt_cmd_inspect(struct nt_cmd_context *ctx);
nt_status nt_cmd_doctor(struct nt_cmd_context *ctx);
nt_status nt_cmd_config(struct nt_cmd_context *ctx);
nt_status nt_cmd_bench(struct nt_cmd_context *ctx);
nt_status nt_cmd_plan(struct nt_cmd_context *ctx);
nt_status nt_cmd_ingest(struct nt_cmd_context *ctx);
nt_status nt_cmd_merge(struct nt_cmd_context *ctx);
nt_status nt_cmd_export(struct nt_cmd_context *ctx);

#endif
