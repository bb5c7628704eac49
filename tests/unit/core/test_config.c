/* Settings: a table of broken texts with their sentences, --set, precedence, dump and re-read, suggestions. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct broken {
    const char *text;
    const char *says; /* the whole sentence */
};

/* All are NT_E_CONFIG (exit code 78). */
static const struct broken broken_texts[] = {
  /* numbers libconfig would wrap or saturate silently */
    {"sampling: { max_tokens = 3000000000; };",
     "job.cfg:1: sampling.max_tokens: expected an integer from 1 to 1048576, found 3000000000"                                                                                             },
    {"sampling: { max_tokens = 4294967297; };",
     "job.cfg:1: sampling.max_tokens: expected an integer from 1 to 1048576, found 4294967297"                                                                                             },
    {"run: { threads = 0x1FFFFFFFF; };",
     "job.cfg:1: run.threads: expected an integer from 0 to 4096, found 8589934591"                                                                                                        },
    {"run: { threads = 4294967296L; };",
     "job.cfg:1: run.threads: expected an integer from 0 to 4096, found 4294967296"                                                                                                        },
    {"sampling: {\n  seed = 99999999999999999999;\n};",
     "job.cfg:2: 99999999999999999999 does not fit a 64-bit integer (at most 9223372036854775807)"                                                                                         },
    {"sampling: {\n  seed = 99999999999999999999L;\n};",
     "job.cfg:2: 99999999999999999999 does not fit a 64-bit integer (at most 9223372036854775807)"                                                                                         },
    {"sampling: { seed = -1; }",
     "job.cfg:1: sampling.seed: expected an integer from 0 to 9223372036854775807, found -1"                                                                                               },
    {"run: { watchdog_s = 1e400; };",                                                         "job.cfg:1: 1e400 does not fit a 64-bit floating point number"                               },
    {"run: { threads = 12abc; };",                                                            "job.cfg:1: 12abc is not a number"                                                           },
    {"run: { threads = 0b11; };",                                                             "job.cfg:1: 0b11 is not a number"                                                            },
    {"run: { threads = 1_000; };",                                                            "job.cfg:1: 1_000 is not a number"                                                           },
    {"run: { threads = 0x; };",                                                               "job.cfg:1: 0x is not a number"                                                              },
    {"run: { threads = +4; };",                                                               "job.cfg:1: +4: write the number without '+'"                                                },
    {"run: { watchdog_s = 1.2.3; };",                                                         "job.cfg:1: 1.2.3 is not a number"                                                           },
    {"run: { threads = 0000000000000000000000000000000000000000000000000000000000000001; };",
     "job.cfg:1: number of 64 characters, at most 63 are read"                                                                                                                             },
 /* ranges and kinds */
    {"sampling: { top_p = 1.5; };",                                                           "job.cfg:1: sampling.top_p: expected a number from 0 to 1, found 1.5"                        },
    {"sampling: { top_p = -1; };",                                                            "job.cfg:1: sampling.top_p: expected a number from 0 to 1, found -1.0"                       },
    {"sampling: { n = 1.5; };",                                                               "job.cfg:1: sampling.n: expected an integer from 1 to 1024, found 1.5"                       },
    {"sampling: { n = \"2\"; };",                                                             "job.cfg:1: sampling.n: expected an integer from 1 to 1024, found \"2\""                     },
    {"sampling: { n = true; };",                                                              "job.cfg:1: sampling.n: expected an integer from 1 to 1024, found true"                      },
    {"sampling: { n = [1, 2]; };",                                                            "job.cfg:1: sampling.n: expected an integer from 1 to 1024, found an array"                  },
    {"sampling: { n = (1, \"2\"); };",                                                        "job.cfg:1: sampling.n: expected an integer from 1 to 1024, found a list"                    },
    {"sampling: { n: { x = 1; }; };",                                                         "job.cfg:1: sampling.n: expected an integer from 1 to 1024, found a group"                   },
    {"run: { pin = 1; };",                                                                    "job.cfg:1: run.pin: expected true or false, found 1"                                        },
    {"run: { pin = \"true\"; };",                                                             "job.cfg:1: run.pin: expected true or false, found \"true\""                                 },
    {"model: { path = 3; };",                                                                 "job.cfg:1: model.path: expected a string, found 3"                                          },
    {"run: { device = \"gpu\"; };",                                                           "job.cfg:1: run.device: expected one of auto, cpu, cuda, found \"gpu\""                      },
    {"run: { device = \"\"; };",                                                              "job.cfg:1: run.device: expected one of auto, cpu, cuda, found \"\""                         },
    {"run: { isa = \"avx2|avx512\"; };",
     "job.cfg:1: run.isa: expected one of auto, portable, avx2, avx512, found \"avx2|avx512\""                                                                                             },
 /* names */
    {"\n\nsampling: {\n  max_token = 5;\n};",                                                 "job.cfg:4: unknown key sampling.max_token; maybe: sampling.max_tokens?"                     },
    {"generate: { max_tokens = 5; };",                                                        "job.cfg:1: unknown key generate.max_tokens; maybe: sampling.max_tokens?"                    },
    {"generat: { created = 5; };",                                                            "job.cfg:1: unknown key generat; maybe: generate?"                                           },
    {"tp = 2;",                                                                               "job.cfg:1: unknown key tp; maybe: run.tp?"                                                  },
    {"run: { quantum_flux = 2; };",                                                           "job.cfg:1: unknown key run.quantum_flux; `nocturne config` lists all keys"                  },
    {"run = 3;",                                                                              "job.cfg:1: run is a section; expected run: { key = value; };"                               },
    {"run: {\n tp = 1;\n tp = 2;\n};",                                                        "job.cfg:3: this key is set for the second time: tp = 2;"                                    },
    {"run: { tp = 1; };\nrun: { pin = true; };",
     "job.cfg:2: this key is set for the second time: run: { pin = true; };"                                                                                                               },
 /* syntax */
    {"run: { tp 1; };",                                                                       "job.cfg:1: syntax error at or before: run: { tp 1; }; (expected section: { key = value; };)"},
    {"run: {\n tp = 1;\n",
     "job.cfg:4: syntax error at or before: the end of the text (expected section: { key = value; };)"                                                                                     },
    {"run: { tp = ; };",
     "job.cfg:1: syntax error at or before: run: { tp = ; }; (expected section: { key = value; };)"                                                                                        },
    {"run: { device = \"auto\" ] };",
     "job.cfg:1: syntax error at or before: run: { device = \"auto\" ] }; (expected section: { key = value; };)"                                                                           },
    {"sampling.n = 3;",                                                                       "job.cfg:1: syntax error at or before: sampling.n = 3; (expected section: { key = value; };)"},
    {"run: { # ok\n  device = \"cpu;\n};\n",                                                  "job.cfg:2: this string is never closed; expected a '\"' at its end"                         },
    {"\n/* run: {};\n",                                                                       "job.cfg:2: this comment is never closed; expected a \"*/\" at its end"                      },
    {"@include \"other.cfg\"\n",                                                              "job.cfg:1: @include is not supported; put all settings into one file or use --set"          },
};

static void broken_files_are_named(void **state) {
    (void)state;
    assert_true(sizeof broken_texts / sizeof broken_texts[0] >= 20);
    for (size_t i = 0; i < sizeof broken_texts / sizeof broken_texts[0]; i++) {
        struct nt_config c;
        nt_config_init(&c);
        nt_error_clear();
        nt_status st = nt_config_read_text(&c, broken_texts[i].text, "job.cfg");
        if (st != NT_E_CONFIG || strcmp(nt_error_last()->text, broken_texts[i].says) != 0)
            fail_msg("row %zu (%s): code %d, \"%s\"", i, broken_texts[i].text, (int)st, nt_error_last()->text);
        nt_config_release(&c);
    }
    assert_int_equal(nt_status_exit_code(NT_E_CONFIG), 78);
}

static void good_texts(void **state) {
    (void)state;
    struct nt_config c;
    nt_config_init(&c);
    assert_int_equal(c.sampling_max_tokens, 256);
    assert_true(c.run_pin);
    assert_string_equal(c.run_device, "auto");
    static const char text[] = "# comment with 99999999999999999999 and \"\n"
                               "sampling: { max_tokens = 0x10, temperature = 1; top_p = .5;\n"
                               "  /* 1e999 */ seed = 9223372036854775807; presence_penalty = -1.5e0 };\n"
                               "model = { path = \"a // b \\\"c\\\" \" \"d 3000000000\"; };\n"
                               "run: { threads = 010; pin = FALSE; watchdog_s = 3600L; }\n"
                               "// the last line has no end";
    if (nt_config_read_text(&c, text, "job.cfg") != NT_OK) fail_msg("%s", nt_error_last()->text);
    assert_int_equal(c.sampling_max_tokens, 16);
    assert_true(c.sampling_temperature == 1.0);
    assert_true(c.sampling_top_p == 0.5);
    assert_true(c.sampling_presence_penalty == -1.5);
    assert_true(c.sampling_seed == INT64_MAX);
    assert_string_equal(c.model_path, "a // b \"c\" d 3000000000");
    assert_int_equal(c.run_threads, 10);
    assert_false(c.run_pin);
    assert_true(c.run_watchdog_s == 3600);
    assert_int_equal(nt_config_read_text(&c, "", "empty.cfg"), NT_OK);
    assert_int_equal(c.sampling_max_tokens, 16); /* what a later text does not say stays */
    nt_config_release(&c);
}

static void files_are_read_and_named(void **state) {
    (void)state;
    struct nt_config c;
    nt_config_init(&c);
    assert_int_equal(nt_config_read_file(&c, "/no/such.cfg"), NT_E_NOINPUT);
    assert_non_null(strstr(nt_error_last()->text, "/no/such.cfg"));
    char path[] = "/tmp/nt_test_config_XXXXXX";
    FILE *f = fdopen(mkstemp(path), "w");
    (void)fputs("run: { tp = 2; };\n", f);
    (void)fputc('\0', f);
    (void)fclose(f);
    assert_int_equal(nt_config_read_file(&c, path), NT_E_CONFIG);
    char want[128];
    (void)snprintf(want, sizeof want, "%s:2: a NUL byte; expected a text file", path);
    assert_string_equal(nt_error_last()->text, want);
    f = fopen(path, "w");
    (void)fputs("run: { tp = 2; };", f);
    (void)fclose(f);
    assert_int_equal(nt_config_read_file(&c, path), NT_OK);
    assert_int_equal(c.run_tp, 2);
    (void)remove(path);
    nt_config_release(&c);
}

static void set_overrides(void **state) {
    (void)state;
    static const struct broken good[] = {
        {"sampling.max_tokens=7",          NULL},
        {"sampling.top-k=0x20",            NULL},
        {"sampling.presence_penalty=-0.5", NULL},
        {"run.pin=false",                  NULL},
        {"run.device=cpu",                 NULL},
        {"model.path=a=b c",               NULL},
        {"run.watchdog_s=1e3",             NULL},
        {"generate.output=",               NULL},
    };
    static const struct broken bad[] = {
        {"nonsense",                    "--set nonsense: expected section.key=value, for example --set sampling.max_tokens=64"},
        {"=3",                          "--set =3: expected section.key=value, for example --set sampling.max_tokens=64"      },
        {"tp=3",                        "--set: unknown key tp; maybe: run.tp?"                                               },
        {"run.tq=3",                    "--set: unknown key run.tq; maybe: run.tp?"                                           },
        {"run.tp=",                     "--set: run.tp: expected an integer from 1 to 1024, found \"\""                       },
        {"run.tp= 3",                   "--set: run.tp: expected an integer from 1 to 1024, found \" 3\""                     },
        {"run.tp=3x",                   "--set: run.tp: expected an integer from 1 to 1024, found \"3x\""                     },
        {"run.tp=0",                    "--set: run.tp: expected an integer from 1 to 1024, found 0"                          },
        {"run.tp=99999999999999999999",
         "--set: run.tp: expected an integer from 1 to 1024, found \"99999999999999999999\""                                  },
        {"run.tp=0x",                   "--set: run.tp: expected an integer from 1 to 1024, found \"0x\""                     },
        {"run.pin=yes",                 "--set: run.pin: expected true or false, found yes"                                   },
        {"run.pin=",                    "--set: run.pin: expected true or false, found nothing"                               },
        {"sampling.top_p=nan",          "--set: sampling.top_p: expected a number from 0 to 1, found \"nan\""                 },
        {"sampling.top_p=0x1",          "--set: sampling.top_p: expected a number from 0 to 1, found \"0x1\""                 },
        {"sampling.top_p=",             "--set: sampling.top_p: expected a number from 0 to 1, found \"\""                    },
        {"run.watchdog_s=1e999",        "--set: run.watchdog_s: expected a number from 0 to 86400, found \"1e999\""           },
        {"run.device=tpu",              "--set: run.device: expected one of auto, cpu, cuda, found \"tpu\""                   },
    };
    struct nt_config c;
    nt_config_init(&c);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (nt_config_set(&c, good[i].text) != NT_OK) fail_msg("%s: %s", good[i].text, nt_error_last()->text);
    }
    assert_int_equal(c.sampling_max_tokens, 7);
    assert_int_equal(c.sampling_top_k, 32);
    assert_true(c.sampling_presence_penalty == -0.5);
    assert_false(c.run_pin);
    assert_string_equal(c.run_device, "cpu");
    assert_string_equal(c.model_path, "a=b c");
    assert_true(c.run_watchdog_s == 1000);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(nt_config_set(&c, bad[i].text), NT_E_CONFIG);
        assert_string_equal(nt_error_last()->text, bad[i].says);
    }
    assert_int_equal(nt_config_set_key(&c, "run.tp", "x", "--tp"), NT_E_CONFIG);
    assert_string_equal(nt_error_last()->text, "--tp: run.tp: expected an integer from 1 to 1024, found \"x\"");
    assert_int_equal(c.run_tp, 1); /* a refused value changes nothing */
    nt_config_release(&c);
}

static void dump_rereads_to_the_same(void **state) {
    (void)state;
    struct nt_config a, b;
    nt_config_init(&a);
    assert_int_equal(nt_config_set(&a, "model.path=q\"b\\ \t\n\r\f\x01\x7f \xc3\xa4 // # /*"), NT_OK);
    assert_int_equal(nt_config_set(&a, "sampling.seed=9223372036854775807"), NT_OK);
    assert_int_equal(nt_config_set(&a, "sampling.temperature=0.30000000000000004"), NT_OK);
    assert_int_equal(nt_config_set(&a, "sampling.min_p=1e-20"), NT_OK);
    assert_int_equal(nt_config_set(&a, "sampling.presence_penalty=-1"), NT_OK);
    assert_int_equal(nt_config_set(&a, "run.pin=false"), NT_OK);
    for (int docs = 0; docs < 2; docs++) {
        struct nt_strbuf first = NT_STRBUF_INIT, second = NT_STRBUF_INIT;
        nt_config_dump(&a, docs != 0, &first);
        nt_config_init(&b);
        if (nt_config_read_text(&b, first.data, "dump") != NT_OK) fail_msg("%s", nt_error_last()->text);
        assert_string_equal(a.model_path, b.model_path);
        assert_true(a.sampling_temperature == b.sampling_temperature && a.sampling_min_p == b.sampling_min_p);
        nt_config_dump(&b, docs != 0, &second);
        assert_string_equal(first.data, second.data);
        nt_config_release(&b);
        nt_strbuf_release(&first);
        nt_strbuf_release(&second);
    }
    nt_config_release(&a);
}

static void json_and_help_name_every_key(void **state) {
    (void)state;
    struct nt_config c;
    struct nt_strbuf json = NT_STRBUF_INIT, all = NT_STRBUF_INIT, one = NT_STRBUF_INIT;
    nt_config_init(&c);
    nt_config_dump_json(&c, &json);
    nt_config_help(NULL, &all);
    nt_config_help("sampling", &one);
#define NAMED(section, key)                          assert_non_null(strstr(json.data, "\"" #section "." #key "\": "));
#define NT_KEY_STR(section, key, def, doc)           NAMED(section, key)
#define NT_KEY_INT(section, key, def, min, max, doc) NAMED(section, key)
#define NT_KEY_NUM(section, key, def, min, max, doc) NAMED(section, key)
#define NT_KEY_BOOL(section, key, def, doc)          NAMED(section, key)
#define NT_KEY_ENUM(section, key, def, choices, doc) NAMED(section, key)
#include "config_keys.def"
    assert_non_null(strstr(all.data, "  --max-num-seqs N "));
    assert_non_null(strstr(one.data, "  --max-tokens N "));
    assert_non_null(strstr(one.data, "(1 to 1048576; default 256)\n"));
    assert_null(strstr(one.data, "--max-num-seqs"));
    nt_config_release(&c);
    nt_strbuf_release(&json);
    nt_strbuf_release(&all);
    nt_strbuf_release(&one);
}

static void nearest_words(void **state) {
    (void)state;
    static const char *const names[] = {"max_tokens", "min_tokens", "seed", "n"};
    assert_string_equal(nt_nearest("max_tokes", names, 4), "max_tokens");
    assert_string_equal(nt_nearest("mxa_tokens", names, 4), "max_tokens");
    assert_string_equal(nt_nearest("Max-Tokens", names, 4), "max_tokens");
    assert_string_equal(nt_nearest("min_token", names, 4), "min_tokens");
    assert_string_equal(nt_nearest("sed", names, 4), "seed");
    assert_null(nt_nearest("x", names, 4));
    assert_null(nt_nearest("temperature", names, 4));
    assert_null(nt_nearest("", names, 4));
    assert_null(nt_nearest("seed", names, 0));
    char big[200];
    memset(big, 'a', sizeof big);
    big[199] = '\0';
    assert_null(nt_nearest(big, names, 4));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_files_are_named),
        cmocka_unit_test(good_texts),
        cmocka_unit_test(files_are_read_and_named),
        cmocka_unit_test(set_overrides),
        cmocka_unit_test(dump_rereads_to_the_same),
        cmocka_unit_test(json_and_help_name_every_key),
        cmocka_unit_test(nearest_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
