/* nocturne: offline LLM jobs on clusters. Every rank runs this; the subcommand table is in cmd/cmd_table.c.
 *
 * The only place that ends the process: prints the failure's sentence and trail once, then takes all ranks along. */
#include "cmd.h"
#include "env.h"
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ARGS = 8 };

static _Noreturn void die_of_bug(const char *file, int line, const char *text) {
    fprintf(stderr, "nocturne: internal error at %s:%d: %s (please report this)\n", file, line, text);
    nt_world_abort(nt_status_exit_code(NT_E_INTERNAL));
}

static void bug_hook(const char *file, int line, const char *text) {
    die_of_bug(file, line, text);
}

static void print_failure(const struct nt_world *w) {
    const struct nt_error *err = nt_error_last();
    struct nt_strbuf text = NT_STRBUF_INIT;
    nt_strbuf_add_shown(&text, err->text, strlen(err->text));
    if (w->size > 1)
        fprintf(stderr, "nocturne: rank %d on %s: %s\n", w->rank, w->host, nt_strbuf_cstr(&text));
    else
        fprintf(stderr, "nocturne: %s\n", nt_strbuf_cstr(&text));
    nt_strbuf_release(&text);
    for (int i = 0; i < err->n_trail && nt_log_debug_on("trail"); i++)
        fprintf(stderr, "  at %s:%d\n", err->trail[i].file, err->trail[i].line);
}

static void print_usage(const struct nt_world *w, const struct nt_cmd *cmd) {
    struct nt_strbuf text = NT_STRBUF_INIT;
    nt_cmd_usage(cmd, &text);
    if (w->rank == 0) fputs(nt_strbuf_cstr(&text), stdout);
    nt_strbuf_release(&text);
}

/* Parses on every rank, agrees, runs. *agreed: all ranks hold the same status. */
static nt_status run(struct nt_world *w, int argc, char **argv, bool *agreed) {
    struct nt_config cfg;
    const struct nt_cmd *cmd;
    const char *args[MAX_ARGS];
    int n_args;
    bool help;
    nt_config_init(&cfg);
    *agreed = true;
    nt_status st = nt_comm_agree(w->world, nt_cmd_parse(argc, argv, &cmd, &cfg, args, MAX_ARGS, &n_args, &help));
    if (st == NT_OK && help) print_usage(w, cmd);
    if (st == NT_OK && !help && !cmd->parallel && w->size > 1)
        st =
            NT_FAIL(NT_E_USAGE, "%s runs in one process, but %d ranks were started; start it without mpirun or srun -n",
                    cmd->name, w->size);
    if (st == NT_OK && !help) {
        st = nt_world_split(w, cmd->parallel ? (int32_t)cfg.run_tp : 1);
        struct nt_cmd_context ctx = {w, &cfg, cmd, args, n_args};
        *agreed = st != NT_OK;
        if (st == NT_OK) st = cmd->run(&ctx);
    }
    nt_config_release(&cfg);
    return st;
}

int main(int argc, char **argv) {
    struct nt_world world = {0};
    nt_bug_set_hook(bug_hook);
    nt_status st = nt_world_open(&world);
    if (st != NT_OK) {
        fprintf(stderr, "nocturne: %s\n", nt_error_last()->text);
        return nt_status_exit_code(st);
    }
    nt_log_init(world.rank, world.size, false);
    bool agreed;
    st = run(&world, argc, argv, &agreed);
    const int code = nt_status_exit_code(st);
    /* A stop at a checkpoint is decided by all ranks together; any other failure may be this rank's alone. */
    if (st == NT_E_STOPPED) agreed = true;
    const bool heard = nt_error_last()->heard; /* another rank's cause: it prints it, and gets the time to */
    if (st != NT_OK && (agreed ? world.rank == 0 : !heard)) print_failure(&world);
    if (st != NT_OK && !agreed && heard && world.size > 1) sleep(2);
    if (st != NT_OK && !agreed && world.size > 1) nt_world_abort(code);
    nt_world_close(&world);
    return code;
}
