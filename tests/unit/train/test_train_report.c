/* Charts, histories and the training card: ticks and labels, curves that keep spikes and gaps, what a file with faults
 * still tells, and pages that hold the card's figures and nobody's markup. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "chart.h"
#include "fileio.h"
#include "train_report.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/nt-report-XXXXXX";

static void must(nt_status st) {
    if (st != NT_OK) print_message("%s\n", nt_error_last()->text);
    assert_int_equal(st, NT_OK);
}

static int count(const char *text, const char *what) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)); at += strlen(what)) n++;
    return n;
}

/* ---- charts ---- */

static void test_ticks(void **state) {
    (void)state;
    static const double spans[][2] = {
        {0,    1       },
        {0,    2e-4    },
        {-3,   7       },
        {2.31, 2.34    },
        {0,    12345   },
        {1e-9, 3e-9    },
        {-1e6, 1e6     },
        {5,    5.001   },
        {0.95, 1.05    },
        {1e15, 1e15 + 8}
    };
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) {
        double ticks[NT_CHART_MAX_TICKS], step = 0;
        char a[40], b[40];
        const double lo = spans[i][0], hi = spans[i][1];
        const int32_t n = nt_chart_ticks(lo, hi, 5, ticks, &step);
        assert_in_range(n, 2, 11);
        const double lead = step / pow(10, floor(log10(step) + 1e-9));
        assert_true(fabs(lead - 1) < 1e-6 || fabs(lead - 2) < 1e-6 || fabs(lead - 5) < 1e-6);
        for (int32_t k = 0; k < n; k++) {
            assert_true(ticks[k] >= lo - 1e-6 * step && ticks[k] <= hi + 1e-6 * step);
            if (k > 0) assert_true(fabs(ticks[k] - ticks[k - 1] - step) < 1e-6 * step);
            if (k == 0 || i == 9) continue; // 16 digits are more than a label has
            nt_chart_label(ticks[k - 1], step, a, sizeof a);
            nt_chart_label(ticks[k], step, b, sizeof b);
            assert_string_not_equal(a, b); // neighbours are told apart
            assert_true(fabs(strtod(b, NULL) - ticks[k]) < 1e-6 * step);
        }
    }
}

static void test_labels(void **state) {
    (void)state;
    static const struct {
        double v, step;
        const char *want;
    } cases[] = {
        {0,     1,     "0"     },
        {1.5,   0.5,   "1.5"   },
        {2,     1,     "2"     },
        {1500,  500,   "1500"  },
        {0.25,  0.05,  "0.25"  },
        {2e-4,  5e-5,  "2.0e-4"},
        {1e-4,  1e-4,  "1e-4"  },
        {-2,    1,     "-2"    },
        {2e6,   1e6,   "2e6"   },
        {2.5e6, 5e5,   "2.5e6" },
        {0.002, 0.001, "0.002" }
    };
    char buf[40];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(nt_chart_label(cases[i].v, cases[i].step, buf, sizeof buf), cases[i].want);
}

static void test_escape(void **state) {
    (void)state;
    struct nt_strbuf s = NT_STRBUF_INIT;
    nt_chart_escape(&s, "<a href='x'>\"&\xC3\xA9\x01\xFF\xE4\xB8\xF0\x9F\x98\x80");
    assert_string_equal(s.data, "&lt;a href=&#39;x&#39;&gt;&quot;&amp;\xC3\xA9\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
                                "\xEF\xBF\xBD\xF0\x9F\x98\x80");
    nt_strbuf_release(&s);
}

/* Smallest and largest y of the points of the first path of class c0. */
static void span_of_curve(const char *svg, double *low, double *high, int *n) {
    const char *at = strstr(svg, "<path class=\"c0");
    assert_non_null(at);
    at = strstr(at, "d=\"") + 3;
    *low = INFINITY, *high = -INFINITY, *n = 0;
    while (*at == 'M' || *at == 'L') {
        char *end = NULL;
        (void)strtod(at + 1, &end);
        const double y = strtod(end, &end);
        *low = fmin(*low, y);
        *high = fmax(*high, y);
        (*n)++;
        at = end;
    }
    assert_int_equal(*at, '"');
}

static void test_curves(void **state) {
    (void)state;
    enum { N = 20000 };
    static double x[N], y[N];
    struct nt_strbuf s = NT_STRBUF_INIT;
    struct nt_chart c = {.title = "a \"title\"", .x_name = "step", .n_series = 1};
    double low, high;
    int n;
    for (int i = 0; i < N; i++) {
        x[i] = i;
        y[i] = 1;
    }
    y[12345] = 9; // one spike in 20,000 steps
    c.series[0] = (struct nt_chart_series){.name = "a", .x = x, .y = y, .n = N};
    nt_chart_svg(&c, &s);
    span_of_curve(s.data, &low, &high, &n);
    assert_true(high - low > 150); // of 194 pixels: the spike is there
    assert_in_range(n, 600, 3500); // and not every step has its own point
    assert_int_equal(count(s.data, "&quot;title&quot;"), 1);
    assert_true(s.len < 60000);

    nt_strbuf_reset(&s);
    y[100] = NAN;
    y[200] = INFINITY;
    c.series[0].n = 300;
    nt_chart_svg(&c, &s);
    assert_null(strstr(s.data, "nan"));
    assert_null(strstr(s.data, "inf"));
    const char *d = strstr(strstr(s.data, "class=\"c0"), "d=\"");
    int moves = 0;
    for (; *d != '/'; d++) moves += *d == 'M';
    assert_int_equal(moves, 3); // a gap is no line

    nt_strbuf_reset(&s);
    for (int i = 0; i < 300; i++) y[i] = exp(-0.05 * i);
    c.may_log = true;
    nt_chart_svg(&c, &s);
    assert_non_null(strstr(s.data, "log scale"));
    span_of_curve(s.data, &low, &high, &n);
    assert_true(high - low > 150);

    nt_strbuf_reset(&s);
    c.series[0].n = 1; // a run of one step: a point, as its line has no length
    nt_chart_svg(&c, &s);
    assert_int_equal(count(s.data, "<circle"), 1);
    assert_null(strstr(s.data, "nan"));
    nt_strbuf_reset(&s);
    c.series[0].n = 5;
    y[1] = y[3] = NAN; // a value between gaps is a point, and so are those beside them
    nt_chart_svg(&c, &s);
    assert_int_equal(count(s.data, "<circle"), 3);
    nt_strbuf_reset(&s);
    y[0] = NAN;
    c.series[0].n = 1;
    nt_chart_svg(&c, &s);
    assert_non_null(strstr(s.data, "no values"));

    nt_strbuf_reset(&s);
    for (int i = 0; i < 3; i++) y[i] = 0.5 - 1e-7 * i; // rounding is no slope, and its digits fit beside the axis
    c.series[0].n = 3;
    nt_chart_svg(&c, &s);
    span_of_curve(s.data, &low, &high, &n);
    assert_true(high - low < 1);
    for (const char *at = s.data; (at = strstr(at, "text-anchor=\"end\">")); at += 18)
        assert_in_range(strcspn(at + 18, "<"), 1, 8);

    nt_strbuf_reset(&s);
    for (int i = 0; i < 50; i++) y[i] = 0; // a constant
    c.series[0].n = 50;
    c.series[0].points = true;
    nt_chart_svg(&c, &s);
    assert_int_equal(count(s.data, "<circle"), 50);
    assert_null(strstr(s.data, "nan"));
    nt_strbuf_release(&s);
}

/* ---- history ---- */

static void write_metrics(const char *text) {
    char path[256];
    must(nt_path_join(path, sizeof path, dir, "metrics.jsonl"));
    must(nt_publish_bytes(path, text, strlen(text), NT_PUBLISH_REPLACE));
}

static void test_history(void **state) {
    (void)state;
    struct nt_history h;
    char path[256];
    must(nt_path_join(path, sizeof path, dir, "metrics.jsonl"));
    must(nt_history_read(path, &h)); // no file
    assert_int_equal(h.figure[NT_HISTORY_LOSS].n, 0);
    write_metrics("{\"event\":\"eval\",\"step\":0,\"eval_loss\":3.5,\"margin\":null}\n"
                  "{\"event\":\"step\",\"step\":1,\"loss\":3,\"lr\":0.1,\"margin\":null}\n"
                  "{\"event\":\"step\",\"step\":2,\"loss\":2,\"lr\":0.2}\n"
                  "{\"event\":\"stop\",\"step\":2,\"loss\":77}\n"
                  "this is no line\n"
                  "{\"event\":\"step\",\"step\":2,\"loss\":2.5,\"lr\":0.2}\n" // made again after a resume
                  "{\"event\":\"step\",\"step\":3,\"loss\":null,\"lr\":0.3}\n"
                  "{\"event\":\"step\",\"step\":4,\"loss\":1.5,\"lr\":0.");
    must(nt_history_read(path, &h));
    const struct nt_history_series *loss = &h.figure[NT_HISTORY_LOSS], *lr = &h.figure[NT_HISTORY_LR];
    assert_int_equal(loss->n, 2);
    assert_true(loss->x[0] == 1 && loss->y[0] == 3 && loss->x[1] == 2 && loss->y[1] == 2.5);
    assert_int_equal(lr->n, 3);
    assert_int_equal(h.figure[NT_HISTORY_EVAL_LOSS].n, 1);
    assert_int_equal(h.figure[NT_HISTORY_MARGIN].n, 0);
    assert_int_equal(h.figure[NT_HISTORY_EVAL_MARGIN].n, 0);
    double mean[2];
    nt_history_smooth(loss, 1, mean);
    assert_true(mean[0] == 3 && fabs(mean[1] - (0.5 * 3 + 2.5) / 1.5) < 1e-12);
    nt_history_release(&h);
    (void)unlink(path);
}

/* ---- the pages ---- */

static const char card_text[] =
    "{\"kind\": \"training_card\", \"method\": \"lora\", \"loss\": \"kto\", \"reference\": \"base\","
    " \"program\": {\"commit\": \"abc123\"}, \"base\": {\"path\": \"models/base<1>.gguf\", \"family\": \"llama\","
    " \"sha256\": \"ff00\"}, \"adapter\": {\"r\": 16, \"alpha\": 32.5, \"target_modules\": [\"q_proj\", \"v_proj\"]},"
    " \"trained_parameters\": 4884480, \"run\": {\"steps\": 120, \"skipped_steps\": 7, \"tokens\": 1234567,"
    " \"mfu\": 0.7123, \"tokens_per_s\": 38653.36},"
    " \"results\": {\"eval_loss_first\": 2.5, \"eval_loss\": 1.25, \"eval_margin\": null},"
    " \"data\": {\"train\": 300, \"first_created\": \"2026-01-31T00:00:00Z\", \"sources\": [{\"source\": \"chat|<b>\","
    " \"basis\": \"consent\", \"consent\": \"train\", \"train\": 250, \"eval\": 12}, {\"source\": \"\", \"basis\":"
    " \"contract\", \"consent\": \"train\", \"train\": 50, \"eval\": 0}],"
    " \"left_out\": {\"too long\": 3, \"duplicate\": 0}}, \"settings\": {\"train.learning_rate\": 0.0002,"
    " \"train.adam_beta2\": 0.99999, \"train.seed\": 1234567,"
    " \"train.packing\": true}}";

static void read_card(struct nt_json **card) {
    must(nt_json_parse(card_text, sizeof card_text - 1, "card", card));
}

static void test_card(void **state) {
    (void)state;
    struct nt_json *card = NULL;
    struct nt_strbuf s = NT_STRBUF_INIT;
    char buf[64];
    read_card(&card);
    assert_string_equal(nt_train_card_text(card, "run.tokens", buf, sizeof buf), "1,234,567");
    assert_string_equal(nt_train_card_text(card, "adapter.target_modules", buf, sizeof buf), "q_proj, v_proj");
    assert_string_equal(nt_train_card_text(card, "adapter.alpha", buf, sizeof buf), "32.5");
    assert_string_equal(nt_train_card_text(card, "results.eval_margin", buf, sizeof buf), "");
    assert_string_equal(nt_train_card_text(card, "no.such.thing", buf, sizeof buf), "");
    nt_train_card_md(card, &s);
    static const char *const wanted[] = {"| held-out loss before | 2.5 |",
                                         "| held-out loss after | 1.25 |",
                                         "| trained parameters | 4,884,480 |",
                                         "| chat\\|\\<b\\> | consent | train | 250 | 12 |",
                                         "| unnamed | contract | train | 50 | 0 |",
                                         "| too long | 3 |",
                                         "| tokens per second | 38,653 |",
                                         "| train.adam\\_beta2 | 0.99999 |",
                                         "| train.seed | 1234567 |",
                                         "| train.learning\\_rate | 0.0002 |",
                                         "| train.packing | yes |",
                                         "| oldest row | 2026-01-31T00:00:00Z |"};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        if (!strstr(s.data, wanted[i])) print_message("missing: %s\n%s", wanted[i], s.data);
        assert_non_null(strstr(s.data, wanted[i]));
    }
    assert_null(strstr(s.data, "duplicate")); // a count of zero
    assert_null(strstr(s.data, "margin"));    // not measured
    nt_strbuf_release(&s);
    nt_json_free(card);
}

/* Both pages have all of a setting's text. */
static void test_long_setting(void **state) {
    (void)state;
    struct nt_strbuf json = NT_STRBUF_INIT, md = NT_STRBUF_INIT, html = NT_STRBUF_INIT;
    const struct nt_history none = {0};
    struct nt_json *card = NULL;
    char list[2000] = "";
    for (int i = 0; i < 100; i++)
        (void)snprintf(list + strlen(list), sizeof list - strlen(list), "data/file-%d.h5,", i);
    nt_strbuf_addf(&json, "{\"settings\": {\"train.input\": \"%s\"}}", list);
    must(nt_json_parse(json.data, json.len, "card", &card));
    nt_train_card_md(card, &md);
    must(nt_train_report_html(card, &none, &html));
    assert_non_null(strstr(md.data, list));
    assert_non_null(strstr(html.data, list));
    nt_json_free(card);
    nt_strbuf_release(&json);
    nt_strbuf_release(&md);
    nt_strbuf_release(&html);
}

/* A run of n steps; margins only where the loss has them. */
static void write_run(int n, bool margins) {
    struct nt_strbuf s = NT_STRBUF_INIT;
    for (int i = 0; i <= n; i++) {
        const double loss = 1.2 + 1.3 * exp(-i / 25.0) + 0.15 * sin(i * 12.9898) * cos(i * 4.1);
        if (i > 0)
            nt_strbuf_addf(&s,
                           "{\"event\":\"step\",\"step\":%d,\"loss\":%.4f,\"lr\":%.3e,\"grad_norm\":%.4f,\"margin\":%s,"
                           "\"tokens_per_s\":%.1f}\n",
                           i, loss, 2e-4 * fmin(1, i / 10.0) * 0.5 * (1 + cos(3.14159 * i / n)),
                           0.6 + 3 * exp(-i / 8.0) + 0.2 * fabs(sin(i * 7.7)) + (i == n / 2 ? 60 : 0),
                           margins ? i % 7 ? "0.25" : "-0.5" : "null", 620 + 30 * sin(i * 3.3));
        if (i % 20 == 0)
            nt_strbuf_addf(&s, "{\"event\":\"eval\",\"step\":%d,\"eval_loss\":%.4f,\"margin\":%s}\n", i,
                           1.25 + 1.25 * exp(-i / 25.0), margins ? "0.125" : "null");
    }
    write_metrics(nt_strbuf_cstr(&s));
    nt_strbuf_release(&s);
}

static void test_html(void **state) {
    (void)state;
    for (int margins = 0; margins < 2; margins++) {
        struct nt_json *card = NULL;
        struct nt_history h;
        struct nt_strbuf s = NT_STRBUF_INIT;
        char path[256];
        must(nt_path_join(path, sizeof path, dir, "metrics.jsonl"));
        write_run(120, margins);
        read_card(&card);
        must(nt_history_read(path, &h));
        must(nt_train_report_html(card, &h, &s));
        assert_int_equal(count(s.data, "<svg"), 4 + margins); // loss, rate, norm, margin, throughput
        assert_int_equal(count(s.data, "<svg"), count(s.data, "</svg>"));
        assert_int_equal(count(s.data, "<section"), count(s.data, "</section>"));
        assert_int_equal(count(s.data, "<table"), count(s.data, "</table>"));
        assert_int_equal(count(s.data, "Preference margin</h2>"), margins);
        static const char *const foreign[] = {"<script", "http://", "https://", "url(",
                                              "@import", "<img",    "<link",    "nan"};
        for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) assert_null(strstr(s.data, foreign[i]));
        assert_null(strstr(s.data, "base<1>"));
        assert_null(strstr(s.data, "<b>.gguf"));
        assert_non_null(strstr(s.data, "base&lt;1&gt;.gguf"));
        assert_non_null(strstr(s.data, "chat|&lt;b&gt;"));
        assert_non_null(strstr(s.data, "1,234,567"));
        assert_non_null(strstr(s.data, "<th>Steps left out</th><td>7</td>"));
        assert_non_null(strstr(s.data, "<th>train.packing</th><td>yes</td>"));
        assert_int_equal(count(s.data, "<circle"), margins ? 14 : 7); // evaluations
        nt_strbuf_release(&s);
        nt_history_release(&h);
        nt_json_free(card);
        (void)unlink(path);
    }
}

static int make_dir(void **state) {
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state) {
    (void)state;
    return rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ticks),        cmocka_unit_test(test_labels),  cmocka_unit_test(test_escape),
        cmocka_unit_test(test_curves),       cmocka_unit_test(test_history), cmocka_unit_test(test_card),
        cmocka_unit_test(test_long_setting), cmocka_unit_test(test_html),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
