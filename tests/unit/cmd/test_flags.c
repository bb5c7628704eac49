/* The command line: flags are keys, files come first, wrong words are named with what was meant. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cmd.h"

#include <stdio.h>
#include <string.h>

enum { MAX = 32 };

static nt_status parse(struct nt_config *cfg, const struct nt_cmd **cmd, bool *help, const char *line) {
    static char text[512];
    char *argv[MAX];
    const char *args[MAX];
    int argc = 0, n_args;
    snprintf(text, sizeof text, "nocturne %s", line);
    for (char *at = text, *end; *at; at = end) {
        while (*at == ' ') *at++ = 0;
        end = at + strcspn(at, " ");
        if (end > at) argv[argc++] = at;
    }
    nt_config_init(cfg);
    nt_error_clear();
    return nt_cmd_parse(argc, argv, cmd, cfg, args, MAX, &n_args, help);
}

static void flags_set_their_keys(void **state) {
    struct nt_config cfg;
    const struct nt_cmd *cmd;
    bool help;
    (void)state;
    assert_int_equal(parse(&cfg, &cmd, &help,
                           "generate --model m.gguf --input a.jsonl --output=out --tp 2 --max-num-seqs 8 --top_p 0.5 "
                           "--fresh --set sampling.seed=7"),
                     NT_OK);
    assert_string_equal(cmd->name, "generate");
    assert_false(help);
    assert_string_equal(cfg.model_path, "m.gguf");
    assert_string_equal(cfg.generate_input, "a.jsonl");
    assert_string_equal(cfg.generate_output, "out");
    assert_int_equal(cfg.run_tp, 2);
    assert_int_equal(cfg.generate_max_num_seqs, 8);
    assert_true(cfg.sampling_top_p == 0.5);
    assert_true(cfg.generate_fresh);
    assert_int_equal(cfg.sampling_seed, 7);
    nt_config_release(&cfg);
}

static void flags_beat_the_file_wherever_it_stands(void **state) {
    const char *path = "test_flags.cfg";
    struct nt_config cfg;
    const struct nt_cmd *cmd;
    bool help;
    (void)state;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("run: { tp = 4; threads = 3; };\n", f);
    fclose(f);
    assert_int_equal(parse(&cfg, &cmd, &help, "generate --tp 2 --config test_flags.cfg"), NT_OK);
    assert_int_equal(cfg.run_tp, 2);
    assert_int_equal(cfg.run_threads, 3);
    nt_config_release(&cfg);
    remove(path);
}

static void wrong_lines_are_named(void **state) {
    static const struct {
        const char *line, *part;
    } rows[] = {
        {"generat --input x",                  "maybe: generate?"                 },
        {"generate --inptu x",                 "maybe: --input?"                  },
        {"generate --max-num-seq 3",           "maybe: --max_num_seqs?"           },
        {"generate --input",                   "--input needs a value"            },
        {"generate --tp",                      "--tp needs a value"               },
        {"generate --tp x",                    "--tp"                             },
        {"generate --top-p 1.5",               "--top-p"                          },
        {"generate stray",                     "unexpected argument \"stray\""    },
        {"inspect",                            "needs PATH"                       },
        {"bench gemm ops",                     "unexpected argument \"ops\""      },
        {"generate --set sampling.sed=1",      "maybe: sampling.seed?"            },
        {"generate --config no-such-file.cfg", "no-such-file.cfg"                 },
        {"generate --config",                  "--config needs a file"            },
        {"generate --fresh=maybe",             "--fresh"                          },
        {"frobnicate",                         "unknown subcommand \"frobnicate\""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct nt_config cfg;
        const struct nt_cmd *cmd;
        bool help;
        const nt_status st = parse(&cfg, &cmd, &help, rows[i].line);
        if (st == NT_OK || !strstr(nt_error_last()->text, rows[i].part))
            fail_msg("%s: got \"%s\", expected \"%s\"", rows[i].line, nt_error_last()->text, rows[i].part);
        assert_int_not_equal(nt_status_exit_code(st), 0);
        nt_config_release(&cfg);
    }
}

static void every_command_explains_itself(void **state) {
    (void)state;
    for (int i = 0; i < nt_cmd_count; i++) {
        struct nt_strbuf s = NT_STRBUF_INIT;
        struct nt_config cfg;
        const struct nt_cmd *cmd;
        bool help;
        char line[64];
        snprintf(line, sizeof line, "%s --help", nt_cmd_table[i].name);
        assert_int_equal(parse(&cfg, &cmd, &help, line), NT_OK);
        assert_true(help);
        nt_cmd_usage(cmd, &s);
        assert_non_null(strstr(nt_strbuf_cstr(&s), nt_cmd_table[i].doc));
        for (int k = 0; nt_cmd_table[i].sections[k]; k++)
            assert_non_null(strstr(nt_strbuf_cstr(&s), nt_cmd_table[i].sections[k]));
        nt_strbuf_release(&s);
        nt_config_release(&cfg);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_set_their_keys),
        cmocka_unit_test(flags_beat_the_file_wherever_it_stands),
        cmocka_unit_test(wrong_lines_are_named),
        cmocka_unit_test(every_command_explains_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
