#include "train_card.h"

#include "adapter.h"
#include "clock.h"
#include "pool.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static void add_name(struct nt_strbuf *s, const char *name) {
    const char last = s->len ? s->data[s->len - 1] : '{';
    nt_strbuf_adds(s, last == '{' ? "" : ", ");
    nt_strbuf_add_json(s, name, strlen(name));
    nt_strbuf_adds(s, ": ");
}

static void add_str(struct nt_strbuf *s, const char *name, const char *v) {
    add_name(s, name);
    nt_strbuf_add_json(s, v, strlen(v));
}

static void add_int(struct nt_strbuf *s, const char *name, int64_t v) {
    add_name(s, name);
    nt_strbuf_addf(s, "%" PRId64, v);
}

static void add_num(struct nt_strbuf *s, const char *name, double v) {
    add_name(s, name);
    nt_strbuf_add_json_num(s, v);
}

static void add_bool(struct nt_strbuf *s, const char *name, bool v) {
    add_name(s, name);
    nt_strbuf_adds(s, v ? "true" : "false");
}

static void add_hex(struct nt_strbuf *s, const char *name, const uint8_t *digest) {
    char hex[NT_SHA256_HEX];
    nt_hex(digest, NT_SHA256_BYTES, hex);
    add_str(s, name, hex);
}

static void open_object(struct nt_strbuf *s, const char *name) {
    add_name(s, name);
    nt_strbuf_addc(s, '{');
}

static void add_model(const struct nt_train_facts *f, struct nt_strbuf *s) {
    const struct nt_train_job *j = f->job;
    open_object(s, "base");
    add_str(s, "path", j->config->model_path);
    add_str(s, "family", nt_model_spec(j->model)->family);
    add_hex(s, "sha256", j->model_digest);
    nt_strbuf_addc(s, '}');
    open_object(s, "tokenizer");
    add_hex(s, "sha256", j->tokenizer_digest);
    add_str(s, "chat", j->chat ? j->chat->name : "");
    nt_strbuf_addc(s, '}');
    add_hex(s, "job_sha256", f->result->job_digest);
    if (strcmp(j->config->train_loss, "sft") != 0) {
        add_str(s, "reference", j->config->train_reference);
        add_hex(s, "reference_sha256", f->result->reference_digest);
    }
    if (!j->config->train_init_adapter[0]) return;
    add_str(s, "init_adapter", j->config->train_init_adapter);
    add_hex(s, "init_adapter_sha256", f->result->init_digest);
}

static void add_adapter(const struct nt_train_facts *f, struct nt_strbuf *s) {
    const struct nt_adapter *a = f->result->adapter;
    add_int(s, "trained_parameters", a ? a->n_params : nt_training_count(f->result->training));
    if (!a) return;
    open_object(s, "adapter");
    add_int(s, "r", a->r);
    add_num(s, "alpha", a->alpha);
    add_bool(s, "rslora", a->rslora);
    add_num(s, "scale", nt_adapter_scale(a));
    add_num(s, "dropout", a->dropout);
    add_name(s, "target_modules");
    nt_strbuf_addc(s, '[');
    const char *comma = "";
    for (int i = 0; i < NT_LINEAR_COUNT; i++) {
        if (!(a->targets & 1u << i)) continue;
        nt_strbuf_addf(s, "%s\"%s\"", comma, nt_linear_name((enum nt_linear)i));
        comma = ", ";
    }
    nt_strbuf_adds(s, "]}");
}

static void add_run(const struct nt_train_facts *f, struct nt_strbuf *s) {
    const struct nt_train_result *r = f->result;
    const struct nt_world *w = f->job->world;
    open_object(s, "run");
    add_int(s, "steps", r->n_steps);
    add_int(s, "samples", r->n_samples);
    add_int(s, "tokens", r->n_tokens);
    add_int(s, "skipped_steps", r->n_skipped);
    add_num(s, "seconds", r->seconds);
    add_num(s, "tokens_per_s", r->tokens_per_s);
    add_num(s, "mfu", r->mfu);
    add_num(s, "peak_flops", r->roof.flops > 0 ? r->roof.flops : NAN);
    add_str(s, "peak_source", nt_train_roof_source(&r->roof));
    add_int(s, "ranks", w->size);
    add_int(s, "tp", w->tp_size);
    add_int(s, "dp", w->dp_size);
    add_int(s, "threads", nt_pool_size(f->job->backend->pool));
    add_str(s, "device", f->job->backend->name);
    add_str(s, "isa", f->job->backend->level);
    add_num(s, "finished_unix", nt_unix_time());
    nt_strbuf_addc(s, '}');
}

/* First and last of a figure; a run that was resumed knows its beginning from the history only. */
static double first_of(const struct nt_history *h, enum nt_history_figure i) {
    return h && h->figure[i].n > 0 ? h->figure[i].y[0] : NAN;
}

static double last_of(const struct nt_history *h, enum nt_history_figure i) {
    return h && h->figure[i].n > 0 ? h->figure[i].y[h->figure[i].n - 1] : NAN;
}

static void add_results(const struct nt_train_facts *f, const struct nt_history *h, struct nt_strbuf *s) {
    const double first = f->result->eval_loss_first;
    open_object(s, "results");
    add_num(s, "train_loss_first", first_of(h, NT_HISTORY_LOSS));
    add_num(s, "train_loss", f->result->train_loss);
    add_num(s, "eval_loss_first", isfinite(first) ? first : first_of(h, NT_HISTORY_EVAL_LOSS));
    add_num(s, "eval_loss", f->result->eval_loss);
    add_num(s, "eval_margin_first", first_of(h, NT_HISTORY_EVAL_MARGIN));
    add_num(s, "eval_margin", last_of(h, NT_HISTORY_EVAL_MARGIN));
    add_num(s, "eval_accuracy", last_of(h, NT_HISTORY_EVAL_ACCURACY));
    nt_strbuf_addc(s, '}');
}

/* Every setting of the sections that decide what is computed. */
static nt_status add_settings(const struct nt_config *c, struct nt_strbuf *s) {
    struct nt_strbuf all = NT_STRBUF_INIT;
    struct nt_json *doc = NULL;
    nt_config_dump_json(c, &all);
    const nt_status st = nt_json_parse(nt_strbuf_cstr(&all), all.len, "settings", &doc);
    open_object(s, "settings");
    for (void *it = nt_json_first(doc); it; it = nt_json_next(doc, it)) {
        const char *key = nt_json_key(it);
        if (strncmp(key, "train.", 6) != 0 && strncmp(key, "model.", 6) != 0) continue;
        add_name(s, key);
        nt_json_dump(nt_json_value(it), s);
    }
    nt_strbuf_addc(s, '}');
    nt_json_free(doc);
    nt_strbuf_release(&all);
    return st;
}

nt_status nt_train_card_json(const struct nt_train_facts *f, const struct nt_history *history, struct nt_strbuf *s) {
    nt_strbuf_addc(s, '{');
    add_str(s, "kind", "training_card");
    open_object(s, "program");
    add_str(s, "name", "nocturne");
    add_str(s, "version", f->version);
    add_str(s, "commit", f->commit);
    nt_strbuf_addc(s, '}');
    add_str(s, "method", f->job->config->train_method);
    add_str(s, "loss", f->job->config->train_loss);
    if (strcmp(f->job->config->train_loss, "dpo") == 0) add_str(s, "loss_type", f->job->config->train_loss_type);
    add_model(f, s);
    add_adapter(f, s);
    add_run(f, s);
    add_results(f, history, s);
    add_name(s, "data");
    nt_prepare_json(&f->result->data.report, s);
    const nt_status st = add_settings(f->job->config, s);
    nt_strbuf_adds(s, "}\n");
    return st;
}

/* ---- text for people --------------------------------------------------------------------------------------------- */

static void print_int(int64_t v, char *buf, size_t cap) {
    char digits[24];
    const int n = snprintf(digits, sizeof digits, "%" PRId64, v);
    size_t at = 0;
    for (int i = 0; i < n && at + 2 < cap; i++) {
        const bool comma = i > 0 && (n - i) % 3 == 0 && digits[i - 1] != '-';
        if (comma) buf[at++] = ',';
        buf[at++] = digits[i];
    }
    buf[at] = '\0';
}

static void print_value(const struct nt_json *v, char *buf, size_t cap) {
    const char *text = nt_json_str(v, NULL);
    buf[0] = '\0';
    if (text)
        (void)snprintf(buf, cap, "%s", text);
    else if (nt_json_is(v, NT_JSON_INT))
        print_int(nt_json_int(v, 0), buf, cap);
    else if (nt_json_is(v, NT_JSON_REAL) && fabs(nt_json_num(v, 0)) >= 1e4 && fabs(nt_json_num(v, 0)) < 1e15)
        print_int(llround(nt_json_num(v, 0)), buf, cap);
    else if (nt_json_is(v, NT_JSON_REAL))
        (void)snprintf(buf, cap, "%.4g", nt_json_num(v, 0));
    else if (nt_json_is(v, NT_JSON_BOOL))
        (void)snprintf(buf, cap, "%s", nt_json_bool(v, false) ? "yes" : "no");
    size_t at = 0;
    for (size_t i = 0; i < nt_json_len(v) && nt_json_is(v, NT_JSON_ARRAY) && at < cap; i++) {
        const char *item = nt_json_str(nt_json_at(v, i), NULL);
        const int n = snprintf(buf + at, cap - at, "%s%s", i ? ", " : "", item ? item : "");
        at += n > 0 ? (size_t)n : 0;
    }
}

void nt_train_card_setting(const struct nt_json *v, struct nt_strbuf *out) {
    if (nt_json_str(v, NULL))
        nt_strbuf_adds(out, nt_json_str(v, NULL));
    else if (nt_json_is(v, NT_JSON_BOOL))
        nt_strbuf_adds(out, nt_json_bool(v, false) ? "yes" : "no");
    else
        nt_json_dump(v, out);
}

const char *nt_train_card_text(const struct nt_json *card, const char *path, char *buf, size_t cap) {
    char key[64];
    const struct nt_json *v = card;
    for (const char *at = path; v && *at;) {
        const size_t n = strcspn(at, ".");
        NT_CHECK(n < sizeof key);
        memcpy(key, at, n);
        key[n] = '\0';
        v = nt_json_get(v, key);
        at += n + (at[n] == '.');
    }
    print_value(v, buf, cap);
    return buf;
}

/* ---- Markdown ---------------------------------------------------------------------------------------------------- */

/* A table cell: no bar and no line end may break the row; markup stays text. */
static void add_cell(struct nt_strbuf *s, const char *text) {
    struct nt_strbuf shown = NT_STRBUF_INIT;
    nt_strbuf_add_shown(&shown, text, strlen(text));
    for (const char *c = nt_strbuf_cstr(&shown); *c; c++) {
        if (strchr("|\\`*_<>[]", *c)) nt_strbuf_addc(s, '\\');
        nt_strbuf_addc(s, *c);
    }
    nt_strbuf_release(&shown);
}

static void add_row(const struct nt_json *card, const char *name, const char *path, struct nt_strbuf *s) {
    char text[512];
    if (!nt_train_card_text(card, path, text, sizeof text)[0]) return;
    nt_strbuf_addf(s, "| %s | ", name);
    add_cell(s, text);
    nt_strbuf_adds(s, " |\n");
}

struct row {
    const char *name, *path;
};

static void add_rows(const struct nt_json *card, const char *title, const struct row *rows, size_t n,
                     struct nt_strbuf *s) {
    nt_strbuf_addf(s, "## %s\n\n| | |\n| --- | --- |\n", title);
    for (size_t i = 0; i < n; i++) add_row(card, rows[i].name, rows[i].path, s);
    nt_strbuf_addc(s, '\n');
}

static void add_sources(const struct nt_json *card, struct nt_strbuf *s) {
    const struct nt_json *list = nt_json_get(nt_json_get(card, "data"), "sources");
    if (nt_json_len(list) == 0) return;
    nt_strbuf_adds(
        s, "| source | ground | consent to | rows trained on | held out |\n| --- | --- | --- | ---: | ---: |\n");
    for (size_t i = 0; i < nt_json_len(list); i++) {
        static const char *const keys[] = {"source", "basis", "consent", "train", "eval"};
        nt_strbuf_addc(s, '|');
        for (int k = 0; k < 5; k++) {
            char text[256];
            print_value(nt_json_get(nt_json_at(list, i), keys[k]), text, sizeof text);
            nt_strbuf_addc(s, ' ');
            add_cell(s, text[0] ? text : "unnamed");
            nt_strbuf_adds(s, " |");
        }
        nt_strbuf_addc(s, '\n');
    }
    nt_strbuf_addc(s, '\n');
}

/* Members of an object as rows; of counts, those that are 0 are left out. */
static void add_members(const struct nt_json *object, const char *head, bool counts, struct nt_strbuf *s) {
    const size_t start = s->len;
    nt_strbuf_addf(s, "%s\n", head);
    const size_t first = s->len;
    for (void *it = nt_json_first(object); it; it = nt_json_next(object, it)) {
        const struct nt_json *v = nt_json_value(it);
        struct nt_strbuf text = NT_STRBUF_INIT;
        char count[256];
        if (counts && nt_json_int(v, 1) == 0) continue;
        if (counts)
            print_value(v, count, sizeof count);
        else
            nt_train_card_setting(v, &text);
        nt_strbuf_adds(s, "| ");
        add_cell(s, nt_json_key(it));
        nt_strbuf_adds(s, " | ");
        add_cell(s, counts ? count : nt_strbuf_cstr(&text));
        nt_strbuf_adds(s, " |\n");
        nt_strbuf_release(&text);
    }
    if (s->len == first)
        s->len = start; // nothing to tell
    else
        nt_strbuf_addc(s, '\n');
    s->data[s->len] = '\0';
}

void nt_train_card_md(const struct nt_json *card, struct nt_strbuf *s) {
    static const struct row results[] = {
        {"held-out loss before",         "results.eval_loss_first"  },
        {"held-out loss after",          "results.eval_loss"        },
        {"training loss, first step",    "results.train_loss_first" },
        {"training loss, last steps",    "results.train_loss"       },
        {"held-out margin before",       "results.eval_margin_first"},
        {"held-out margin after",        "results.eval_margin"      },
        {"held-out pairs the right way", "results.eval_accuracy"    },
        {"steps",                        "run.steps"                },
        {"steps left out",               "run.skipped_steps"        },
        {"samples",                      "run.samples"              },
        {"tokens",                       "run.tokens"               },
        {"tokens per second",            "run.tokens_per_s"         },
        {"part of the bf16 peak",        "run.mfu"                  },
        {"bf16 peak, FLOP/s",            "run.peak_flops"           },
        {"this peak is",                 "run.peak_source"          },
    };
    static const struct row model[] = {
        {"base",               "base.path"             },
        {"family",             "base.family"           },
        {"base sha256",        "base.sha256"           },
        {"tokenizer sha256",   "tokenizer.sha256"      },
        {"chat format",        "tokenizer.chat"        },
        {"method",             "method"                },
        {"loss",               "loss"                  },
        {"form of the loss",   "loss_type"             },
        {"reference",          "reference"             },
        {"reference sha256",   "reference_sha256"      },
        {"begun from",         "init_adapter"          },
        {"its sha256",         "init_adapter_sha256"   },
        {"rank",               "adapter.r"             },
        {"alpha",              "adapter.alpha"         },
        {"scale",              "adapter.scale"         },
        {"dropout",            "adapter.dropout"       },
        {"modules",            "adapter.target_modules"},
        {"trained parameters", "trained_parameters"    },
        {"job sha256",         "job_sha256"            },
        {"nocturne",           "program.commit"        },
    };
    static const struct row data[] = {
        {"oldest row",                           "data.first_created"      },
        {"newest row",                           "data.last_created"       },
        {"rows without a time",                  "data.undated"            },
        {"rows trained on",                      "data.train"              },
        {"rows held out",                        "data.eval"               },
        {"conversations trained on",             "data.conversations_train"},
        {"conversations held out",               "data.conversations_eval" },
        {"subjects trained on",                  "data.subjects_train"     },
        {"subjects held out",                    "data.subjects_eval"      },
        {"rows trained on that name no subject", "data.nameless_train"     },
        {"rows held out that name no subject",   "data.nameless_eval"      },
        {"tokens",                               "data.tokens"             },
        {"targets",                              "data.targets"            },
        {"data sha256",                          "data.dataset_sha256"     },
        {"training set sha256",                  "data.train_sha256"       },
        {"held-out set sha256",                  "data.eval_sha256"        },
    };
    add_rows(card, "Results", results, sizeof results / sizeof *results, s);
    add_rows(card, "Model", model, sizeof model / sizeof *model, s);
    add_rows(card, "Data", data, sizeof data / sizeof *data, s);
    add_sources(card, s);
    add_members(nt_json_get(nt_json_get(card, "data"), "left_out"), "| left out because | rows |\n| --- | ---: |", true,
                s);
    add_members(nt_json_get(nt_json_get(card, "data"), "unheard"),
                "| judgements not heard, for their raters | number |\n| --- | ---: |", true, s);
    nt_strbuf_adds(s, "## Settings\n\n");
    add_members(nt_json_get(card, "settings"), "| setting | value |\n| --- | --- |", false, s);
}
