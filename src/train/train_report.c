#include "train_report.h"

#include "chart.h"
#include "fileio.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- curves ------------------------------------------------------------------------------------------------------ */

/* figure: raw values, faint, under their mean; eval: held-out values as points; NT_HISTORY_COUNT: none. */
static const struct curve {
    const char *title, *about;
    enum nt_history_figure figure, eval;
    bool smooth, may_log, from_zero;
} curves[] = {
    {"Loss",                        "Of each step, their running mean, and of the held-out rows.", NT_HISTORY_LOSS,         NT_HISTORY_EVAL_LOSS, true,
     false,                                                                                                                                                     false},
    {"Learning rate",               "",                                                            NT_HISTORY_LR,           NT_HISTORY_COUNT,     false, false, true },
    {"Gradient norm",               "Euclidean, of all gradients, before clipping.",               NT_HISTORY_GRAD_NORM,    NT_HISTORY_COUNT,     true,
     true,                                                                                                                                                      true },
    {"Preference margin",           "Reward of the better side less that of the worse.",           NT_HISTORY_MARGIN,
     NT_HISTORY_EVAL_MARGIN,                                                                                                                      true,  false, false},
    {"Pairs the right way round",   "Share of pairs whose chosen side has the larger reward.",     NT_HISTORY_ACCURACY,
     NT_HISTORY_EVAL_ACCURACY,                                                                                                                    true,  false, true },
    {"Distance from the reference", "The estimate that the KTO loss is measured against.",         NT_HISTORY_KL,
     NT_HISTORY_COUNT,                                                                                                                            true,  false, true },
    {"Throughput",                  "Tokens per second over all ranks.",                           NT_HISTORY_TOKENS_PER_S, NT_HISTORY_COUNT,     true,  false, true },
};
enum { N_CURVES = sizeof curves / sizeof *curves, MIN_SMOOTHED = 20 };

static void add_chart(const struct curve *c, const struct nt_history *h, const double *mean, struct nt_strbuf *s) {
    const struct nt_history_series *raw = &h->figure[c->figure];
    struct nt_chart chart = {.title = c->title, .x_name = "step", .may_log = c->may_log, .from_zero = c->from_zero};
    const bool smooth = mean != NULL;
    chart.series[chart.n_series++] = (struct nt_chart_series){
        .name = smooth ? "steps" : "training", .x = raw->x, .y = raw->y, .n = raw->n, .faint = smooth};
    if (smooth)
        chart.series[chart.n_series++] = (struct nt_chart_series){.name = "mean", .x = raw->x, .y = mean, .n = raw->n};
    if (c->eval != NT_HISTORY_COUNT && h->figure[c->eval].n > 0) {
        const struct nt_history_series *eval = &h->figure[c->eval];
        chart.series[chart.n_series++] = (struct nt_chart_series){
            .name = "held out", .x = eval->x, .y = eval->y, .n = eval->n, .points = eval->n <= 200};
    }
    nt_strbuf_addf(s, "<section><h2>%s</h2>\n", c->title);
    if (c->about[0]) nt_strbuf_addf(s, "<p>%s</p>\n", c->about);
    nt_chart_svg(&chart, s);
    nt_strbuf_adds(s, "</section>\n");
}

static nt_status add_curves(const struct nt_history *h, struct nt_strbuf *s) {
    for (int i = 0; i < N_CURVES; i++) {
        const struct nt_history_series *raw = &h->figure[curves[i].figure];
        if (raw->n == 0 && (curves[i].eval == NT_HISTORY_COUNT || h->figure[curves[i].eval].n == 0)) continue;
        double *mean = NULL;
        if (curves[i].smooth && raw->n >= MIN_SMOOTHED) {
            mean = malloc((size_t)raw->n * sizeof *mean);
            if (!mean) return NT_FAIL(NT_E_NOMEM, "no memory for the curves of %lld steps", (long long)raw->n);
            nt_history_smooth(raw, fmax(3, 0.02 * (double)raw->n), mean);
        }
        add_chart(&curves[i], h, mean, s);
        free(mean);
    }
    return NT_OK;
}

/* ---- the page ---------------------------------------------------------------------------------------------------- */

static void add_style(struct nt_strbuf *s) {
    nt_strbuf_adds(s, "<style>\n");
    nt_chart_css(s);
    nt_strbuf_adds(
        s, "body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:60rem;color:var(--ink);background:var(--paper);"
           "font:16px/1.5 system-ui,-apple-system,\"Segoe UI\",\"DejaVu Sans\",sans-serif}\n"
           "h1{font-size:1.6rem;margin:.2rem 0}h2{font-size:1.1rem;margin:2.2rem 0 .2rem}"
           "p{color:var(--dim);margin:.1rem 0 .6rem}\n"
           ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.7rem;margin:1.3rem 0}\n"
           ".tiles div{background:var(--card);border-radius:.5rem;padding:.6rem .8rem}"
           ".tiles b{display:block;font-size:1.25rem;font-weight:600}.tiles span{color:var(--dim);font-size:.85rem}\n"
           ".wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;width:100%}"
           "td,th{border-top:1px solid var(--grid);padding:.25rem .8rem .25rem 0;text-align:left;"
           "vertical-align:top;overflow-wrap:anywhere}"
           "th{color:var(--dim);font-weight:500}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\n"
           "@media print{body{max-width:none}section{break-inside:avoid}}\n</style>\n");
}

struct fact {
    const char *name, *path;
};

static void add_tiles(const struct nt_json *card, struct nt_strbuf *s) {
    static const struct fact tiles[] = {
        {"held-out loss before",     "results.eval_loss_first"  },
        {"held-out loss after",      "results.eval_loss"        },
        {"training loss at the end", "results.train_loss"       },
        {"held-out margin before",   "results.eval_margin_first"},
        {"held-out margin after",    "results.eval_margin"      },
        {"steps",                    "run.steps"                },
        {"rows trained on",          "data.train"               },
        {"tokens",                   "run.tokens"               },
        {"tokens per second",        "run.tokens_per_s"         },
    };
    char text[256];
    nt_strbuf_adds(s, "<div class=\"tiles\">\n");
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++) {
        if (!nt_train_card_text(card, tiles[i].path, text, sizeof text)[0]) continue;
        nt_strbuf_adds(s, "<div><b>");
        nt_chart_escape(s, text);
        nt_strbuf_addf(s, "</b><span>%s</span></div>\n", tiles[i].name);
    }
    nt_strbuf_adds(s, "</div>\n");
}

static void add_pair(struct nt_strbuf *s, const char *name, const char *value) {
    nt_strbuf_adds(s, "<tr><th>");
    nt_chart_escape(s, name);
    nt_strbuf_adds(s, "</th><td>");
    nt_chart_escape(s, value);
    nt_strbuf_adds(s, "</td></tr>\n");
}

static void open_table(struct nt_strbuf *s, const char *title) {
    nt_strbuf_addf(s, "<section><h2>%s</h2>\n<div class=\"wide\"><table>\n", title);
}

static void close_table(struct nt_strbuf *s) {
    nt_strbuf_adds(s, "</table></div></section>\n");
}

static void add_facts(const struct nt_json *card, struct nt_strbuf *s) {
    static const struct fact facts[] = {
        {"Base model",            "base.path"             },
        {"Base sha256",           "base.sha256"           },
        {"Tokenizer sha256",      "tokenizer.sha256"      },
        {"Method",                "method"                },
        {"Loss",                  "loss"                  },
        {"Reference",             "reference"             },
        {"Rank",                  "adapter.r"             },
        {"Alpha",                 "adapter.alpha"         },
        {"Modules",               "adapter.target_modules"},
        {"Trained parameters",    "trained_parameters"    },
        {"Steps left out",        "run.skipped_steps"     },
        {"Oldest row",            "data.first_created"    },
        {"Newest row",            "data.last_created"     },
        {"Rows held out",         "data.eval"             },
        {"Subjects",              "data.subjects_train"   },
        {"Data sha256",           "data.dataset_sha256"   },
        {"Job sha256",            "job_sha256"            },
        {"Ranks",                 "run.ranks"             },
        {"Device",                "run.isa"               },
        {"Seconds",               "run.seconds"           },
        {"Part of the bf16 peak", "run.mfu"               },
        {"bf16 peak, FLOP/s",     "run.peak_flops"        },
        {"This peak is",          "run.peak_source"       },
        {"Nocturne",              "program.commit"        },
    };
    char text[512];
    open_table(s, "The run");
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        if (nt_train_card_text(card, facts[i].path, text, sizeof text)[0]) add_pair(s, facts[i].name, text);
    }
    close_table(s);
}

static void add_sources(const struct nt_json *card, struct nt_strbuf *s) {
    static const char *const keys[] = {"source", "basis", "consent", "train", "eval"};
    const struct nt_json *list = nt_json_get(nt_json_get(card, "data"), "sources");
    char text[256];
    if (nt_json_len(list) == 0) return;
    open_table(s, "Rows by source and consent");
    nt_strbuf_adds(s, "<tr><th>source</th><th>ground</th><th>consent to</th><th class=\"n\">trained on</th>"
                      "<th class=\"n\">held out</th></tr>\n");
    for (size_t i = 0; i < nt_json_len(list); i++) {
        nt_strbuf_adds(s, "<tr>");
        for (int k = 0; k < 5; k++) {
            nt_strbuf_addf(s, "<td%s>", k > 2 ? " class=\"n\"" : "");
            nt_train_card_text(nt_json_at(list, i), keys[k], text, sizeof text);
            nt_chart_escape(s, text[0] ? text : "unnamed");
            nt_strbuf_adds(s, "</td>");
        }
        nt_strbuf_adds(s, "</tr>\n");
    }
    close_table(s);
}

/* Members of an object as rows; of counts, those that are 0 are left out. */
static void add_members(const struct nt_json *object, const char *title, bool counts, struct nt_strbuf *s) {
    bool open = false;
    for (void *it = nt_json_first(object); it; it = nt_json_next(object, it)) {
        struct nt_strbuf text = NT_STRBUF_INIT;
        if (counts && nt_json_int(nt_json_value(it), 1) == 0) continue;
        if (!open) open_table(s, title);
        open = true;
        nt_train_card_setting(nt_json_value(it), &text);
        add_pair(s, nt_json_key(it), nt_strbuf_cstr(&text));
        nt_strbuf_release(&text);
    }
    if (open) close_table(s);
}

nt_status nt_train_report_html(const struct nt_json *card, const struct nt_history *h, struct nt_strbuf *s) {
    char base[256], loss[64];
    nt_train_card_text(card, "base.path", base, sizeof base);
    nt_train_card_text(card, "loss", loss, sizeof loss);
    const char *slash = strrchr(base, '/'), *name = slash && slash[1] ? slash + 1 : base;
    nt_strbuf_adds(s, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
                      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                      "<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
    nt_chart_escape(s, name);
    nt_strbuf_adds(s, ": fine-tuning</title>\n");
    add_style(s);
    nt_strbuf_adds(s, "</head><body>\n<h1>");
    nt_chart_escape(s, name);
    nt_strbuf_adds(s, "</h1>\n<p>Fine-tuned by nocturne, loss ");
    nt_chart_escape(s, loss);
    nt_strbuf_adds(s, ".</p>\n");
    add_tiles(card, s);
    NT_TRY(add_curves(h, s));
    add_facts(card, s);
    add_sources(card, s);
    add_members(nt_json_get(nt_json_get(card, "data"), "left_out"), "Left out, by reason", true, s);
    add_members(nt_json_get(card, "settings"), "Settings", false, s);
    nt_strbuf_adds(s, "</body></html>\n");
    return NT_OK;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static nt_status put(const char *dir, const char *name, const struct nt_strbuf *text) {
    char path[PATH_MAX];
    NT_TRY(nt_path_join(path, sizeof path, dir, name));
    return nt_publish_bytes(path, nt_strbuf_cstr(text), text->len, NT_PUBLISH_REPLACE);
}

static nt_status write_pages(const struct nt_json *card, const struct nt_history *h, const char *dir,
                             struct nt_strbuf *md) {
    struct nt_strbuf page = NT_STRBUF_INIT, html = NT_STRBUF_INIT;
    nt_status st = nt_train_report_html(card, h, &html);
    nt_strbuf_adds(&page, "# Training card\n\n");
    nt_train_card_md(card, &page);
    if (md) nt_train_card_md(card, md);
    if (st == NT_OK) st = put(dir, "training_card.md", &page);
    if (st == NT_OK) st = put(dir, "report.html", &html);
    nt_strbuf_release(&page);
    nt_strbuf_release(&html);
    return st;
}

nt_status nt_train_report_write(const struct nt_train_facts *f, const char *dir, struct nt_strbuf *md) {
    char path[PATH_MAX];
    struct nt_history h;
    struct nt_json *card = NULL;
    struct nt_strbuf json = NT_STRBUF_INIT;
    NT_TRY(nt_path_join(path, sizeof path, dir, "metrics.jsonl"));
    NT_TRY(nt_history_read(path, &h));
    nt_status st = nt_train_card_json(f, &h, &json);
    if (st == NT_OK) st = nt_json_parse(nt_strbuf_cstr(&json), json.len, "training_card.json", &card);
    if (st == NT_OK) st = put(dir, "training_card.json", &json);
    if (st == NT_OK) st = write_pages(card, &h, dir, md);
    nt_json_free(card);
    nt_strbuf_release(&json);
    nt_history_release(&h);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}
