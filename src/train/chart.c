#include "chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 720, HEIGHT = 260, LEFT = 62, RIGHT = 14, TOP = 26, BOTTOM = 40 };
enum { PLOT_W = WIDTH - LEFT - RIGHT, PLOT_H = HEIGHT - TOP - BOTTOM };
static const double LEVEL = 1e-4;

/* ---- ticks ------------------------------------------------------------------------------------------------------- */

static double nice_step(double raw) {
    const double power = pow(10, floor(log10(raw))), f = raw / power;
    return power * (f <= 1.0000001 ? 1 : f <= 2.0000001 ? 2 : f <= 5.0000001 ? 5 : 10);
}

int32_t nt_chart_ticks(double lo, double hi, int32_t want, double ticks[NT_CHART_MAX_TICKS], double *step) {
    int32_t n = 0;
    *step = nice_step((hi - lo) / want);
    const double first = ceil(lo / *step - 1e-9), last = floor(hi / *step + 1e-9);
    for (double k = first; k <= last && n < NT_CHART_MAX_TICKS; k++) ticks[n++] = k == 0 ? 0 : k * *step;
    return n;
}

const char *nt_chart_label(double v, double step, char *buf, size_t cap) {
    const double size = fmax(fabs(v), fabs(step));
    if (v == 0) {
        (void)snprintf(buf, cap, "0");
    } else if (size < 0.001 || size >= 1e6) {
        int exponent = (int)floor(log10(fabs(v)) + 1e-9);
        const int digits = (int)fmax(0, exponent - floor(log10(step) + 1e-9));
        (void)snprintf(buf, cap, "%.*fe%d", digits, v / pow(10, exponent), exponent);
    } else {
        const int digits = (int)fmax(0, -floor(log10(step) + 1e-9));
        (void)snprintf(buf, cap, "%.*f", digits, v);
    }
    return buf;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

/* Length of the UTF-8 sequence at s; 0: none begins here. */
static size_t sequence_len(const unsigned char *s) {
    const size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc2 ? 2 : 0;
    if (s[0] >= 0xf5) return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    return n;
}

void nt_chart_escape(struct nt_strbuf *out, const char *text) {
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        const size_t n = sequence_len(s);
        const char *entity = *s == '&'    ? "&amp;"
                             : *s == '<'  ? "&lt;"
                             : *s == '>'  ? "&gt;"
                             : *s == '"'  ? "&quot;"
                             : *s == '\'' ? "&#39;"
                                          : NULL;
        if (entity)
            nt_strbuf_adds(out, entity);
        else if (n == 0 || (*s < 0x20 && *s != '\n' && *s != '\t') || *s == 0x7f)
            nt_strbuf_adds(out, "\xEF\xBF\xBD");
        else
            nt_strbuf_add(out, s, n);
        s += n > 0 ? n : 1;
    }
}

/* ---- the frame --------------------------------------------------------------------------------------------------- */

struct frame {
    double x0, x1, y0, y1; /* the values at the edges; y in log10 when log */
    bool log;
};

static double at_x(const struct frame *f, double x) {
    return LEFT + (x - f->x0) / (f->x1 - f->x0) * PLOT_W;
}

static double at_y(const struct frame *f, double y) {
    return TOP + (f->y1 - (f->log ? log10(y) : y)) / (f->y1 - f->y0) * PLOT_H;
}

static bool drawable(const struct frame *f, double y) {
    return isfinite(y) && (!f->log || y > 0);
}

static int64_t extremes(const struct nt_chart *c, struct frame *f) {
    int64_t n = 0;
    *f = (struct frame){INFINITY, -INFINITY, INFINITY, -INFINITY, false};
    for (int32_t i = 0; i < c->n_series; i++) {
        for (int64_t k = 0; k < c->series[i].n; k++) {
            const double x = c->series[i].x[k], y = c->series[i].y[k];
            if (!isfinite(x) || !isfinite(y)) continue;
            f->x0 = fmin(f->x0, x);
            f->x1 = fmax(f->x1, x);
            f->y0 = fmin(f->y0, y);
            f->y1 = fmax(f->y1, y);
            n++;
        }
    }
    return n;
}

/* Room above and below the curves, and a scale. What varies by less than LEVEL of its size is level: its ticks would
 * have more digits than there is room for, and its rounding would look like a slope. */
static void set_frame(const struct nt_chart *c, struct frame *f) {
    f->log = c->may_log && f->y0 > 0 && f->y1 / f->y0 > 50;
    if (f->log) {
        f->y0 = log10(f->y0);
        f->y1 = log10(f->y1);
    } else if (c->from_zero && f->y0 > 0) {
        f->y0 = 0;
    }
    if (f->x0 > 0 && f->x0 < 0.1 * f->x1) f->x0 = 0; // so that the charts of a page share their axis
    if (f->x1 <= f->x0) {
        f->x0 -= 1;
        f->x1 += 1;
    }
    const double span = f->y1 - f->y0, size = fmax(fabs(f->y0), fabs(f->y1));
    const double room = span > LEVEL * size ? 0.06 * span : size > 0 ? 0.5 * size : 1;
    if (!(c->from_zero && f->y0 == 0)) f->y0 -= room;
    f->y1 += room;
}

/* Ticks of the vertical axis; of a logarithmic one 1, 2, 5 times powers of ten, or the powers alone. */
static int32_t y_ticks(const struct frame *f, double *ticks, double *step) {
    static const double in_decade[] = {1, 2, 5};
    if (!f->log) return nt_chart_ticks(f->y0, f->y1, 5, ticks, step);
    int32_t n = 0;
    const int32_t each = f->y1 - f->y0 > 3 ? 1 : 3;
    const int skip = (int)ceil((f->y1 - f->y0) / 8);
    for (double e = floor(f->y0); e <= f->y1 && n < NT_CHART_MAX_TICKS; e += each == 1 ? skip : 1) {
        for (int32_t k = 0; k < each && n < NT_CHART_MAX_TICKS; k++) {
            const double v = in_decade[k] * pow(10, e);
            if (log10(v) >= f->y0 && log10(v) <= f->y1) ticks[n++] = v;
        }
    }
    *step = 0; // of each tick its own
    return n;
}

static void draw_axes(const struct nt_chart *c, const struct frame *f, struct nt_strbuf *out) {
    double ticks[NT_CHART_MAX_TICKS], step = 1;
    char label[40];
    int32_t n = y_ticks(f, ticks, &step);
    for (int32_t i = 0; i < n; i++) {
        const double y = at_y(f, ticks[i]);
        nt_strbuf_addf(out, "<path class=\"grid\" d=\"M%d %.1fH%d\"/>", LEFT, y, LEFT + PLOT_W);
        nt_strbuf_addf(
            out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", LEFT - 7, y + 4,
            nt_chart_label(ticks[i], f->log ? pow(10, floor(log10(ticks[i]) + 1e-9)) : step, label, sizeof label));
    }
    n = nt_chart_ticks(f->x0, f->x1, 8, ticks, &step);
    for (int32_t i = 0; i < n; i++) {
        if (step < 1 && ticks[i] != floor(ticks[i])) continue; // there is no half step
        const double x = at_x(f, ticks[i]);
        nt_strbuf_addf(out, "<path class=\"axis\" d=\"M%.1f %dv5\"/>", x, TOP + PLOT_H);
        nt_strbuf_addf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", x, TOP + PLOT_H + 18,
                       nt_chart_label(ticks[i], fmax(step, 1), label, sizeof label));
    }
    nt_strbuf_addf(out, "<path class=\"axis\" d=\"M%d %dV%dH%d\"/>\n", LEFT, TOP, TOP + PLOT_H, LEFT + PLOT_W);
    nt_strbuf_addf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", LEFT + PLOT_W / 2, HEIGHT - 4);
    nt_chart_escape(out, c->x_name);
    nt_strbuf_adds(out, "</text>\n");
    if (f->log) nt_strbuf_addf(out, "<text x=\"%d\" y=\"%d\">log scale</text>\n", LEFT, TOP - 10);
}

/* ---- curves ------------------------------------------------------------------------------------------------------ */

struct pen {
    struct nt_strbuf *out;
    bool down;
};

static void pen_to(struct pen *p, double x, double y) {
    nt_strbuf_addf(p->out, "%s%.1f %.1f", p->down ? "L" : "M", x, y);
    p->down = true;
}

/* One column of a curve: where it enters, its extremes, where it leaves. */
struct column {
    double x, first, low, high, last;
    int64_t n;
};

static void draw_column(struct pen *p, const struct frame *f, const struct column *c) {
    if (c->n == 0) return;
    pen_to(p, c->x, at_y(f, c->first));
    if (c->n > 2 && c->low != c->high) {
        pen_to(p, c->x, at_y(f, c->low));
        pen_to(p, c->x, at_y(f, c->high));
    }
    if (c->n > 1) pen_to(p, c->x, at_y(f, c->last));
}

static void draw_curve(const struct nt_chart_series *s, const struct frame *f, int32_t color, struct nt_strbuf *out) {
    struct pen p = {.out = out};
    struct column c = {.n = 0};
    nt_strbuf_addf(out, "<path class=\"c%d%s\" d=\"", color, s->faint ? " faint" : "");
    for (int64_t k = 0; k < s->n; k++) {
        const double x = isfinite(s->x[k]) ? at_x(f, s->x[k]) : NAN, y = s->y[k];
        const bool gap = !isfinite(x) || !drawable(f, y);
        if (c.n > 0 && (gap || x - c.x >= 0.7)) {
            draw_column(&p, f, &c);
            c.n = 0;
        }
        if (gap) {
            p.down = false;
            continue;
        }
        if (c.n++ == 0) c = (struct column){.x = x, .first = y, .low = y, .high = y, .n = 1};
        c.low = fmin(c.low, y);
        c.high = fmax(c.high, y);
        c.last = y;
    }
    draw_column(&p, f, &c);
    nt_strbuf_adds(out, "\"/>\n");
}

/* A value without neighbours: a line from it leads nowhere. */
static bool is_lone(const struct nt_chart_series *s, const struct frame *f, int64_t k) {
    return (k == 0 || !drawable(f, s->y[k - 1])) && (k + 1 == s->n || !drawable(f, s->y[k + 1]));
}

static void draw_points(const struct nt_chart *c, const struct nt_chart_series *s, const struct frame *f, int32_t color,
                        struct nt_strbuf *out) {
    for (int64_t k = 0; k < s->n; k++) {
        if (!isfinite(s->x[k]) || !drawable(f, s->y[k]) || !(s->points || is_lone(s, f, k))) continue;
        nt_strbuf_addf(out, "<circle class=\"p%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>", color, at_x(f, s->x[k]),
                       at_y(f, s->y[k]));
        nt_chart_escape(out, c->x_name);
        nt_strbuf_addf(out, " %.10g: %.6g</title></circle>\n", s->x[k], s->y[k]);
    }
}

/* At the top right, from the right. */
static void draw_legend(const struct nt_chart *c, struct nt_strbuf *out) {
    double x = WIDTH - RIGHT;
    for (int32_t i = c->n_series - 1; i >= 0 && c->n_series > 1; i--) {
        x -= 7.0 * (double)strlen(c->series[i].name) + 8; // about the width of the name
        nt_strbuf_addf(out, "<text x=\"%.0f\" y=\"%d\">", x, TOP - 10);
        nt_chart_escape(out, c->series[i].name);
        nt_strbuf_addf(out, "</text><path class=\"c%d%s\" d=\"M%.0f %dh18\"/>\n", i, c->series[i].faint ? " faint" : "",
                       x - 24, TOP - 14);
        x -= 34;
    }
}

void nt_chart_svg(const struct nt_chart *c, struct nt_strbuf *out) {
    struct frame f;
    NT_CHECK(c->n_series <= NT_CHART_MAX_SERIES);
    const int64_t n = extremes(c, &f);
    nt_strbuf_addf(out, "<svg class=\"chart\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, HEIGHT);
    nt_chart_escape(out, c->title);
    nt_strbuf_adds(out, "\">\n");
    if (n == 0) {
        nt_strbuf_addf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">no values</text>\n", WIDTH / 2, HEIGHT / 2);
    } else {
        set_frame(c, &f);
        draw_axes(c, &f, out);
        for (int32_t i = 0; i < c->n_series; i++) draw_curve(&c->series[i], &f, i, out);
        for (int32_t i = 0; i < c->n_series; i++) draw_points(c, &c->series[i], &f, i, out);
        draw_legend(c, out);
    }
    nt_strbuf_adds(out, "</svg>\n");
}

void nt_chart_css(struct nt_strbuf *out) {
    nt_strbuf_adds(out,
                   ":root{--ink:#1b1f24;--dim:#5b6570;--grid:#e3e7eb;--paper:#fff;--card:#f6f8fa;--c0:#1f6fc4;"
                   "--c1:#c8560a;--c2:#2c8a4b;--c3:#8a4fbf}\n"
                   "@media(prefers-color-scheme:dark){:root{--ink:#e4e8ec;--dim:#9aa5b1;--grid:#2c333b;--paper:#14181d;"
                   "--card:#1c2229;--c0:#5ea5ee;--c1:#f0924a;--c2:#5fc183;--c3:#b98ae6}}\n"
                   ".chart{display:block;width:100%;height:auto}\n"
                   ".chart text{fill:var(--dim);font:12px system-ui,-apple-system,\"Segoe UI\",\"DejaVu "
                   "Sans\",sans-serif}\n"
                   ".chart path{fill:none;stroke-linejoin:round;stroke-linecap:round;stroke-width:1.8}\n"
                   ".chart .grid{stroke:var(--grid);stroke-width:1}\n"
                   ".chart .axis{stroke:var(--dim);stroke-width:1}\n");
    for (int i = 0; i < NT_CHART_MAX_SERIES; i++)
        nt_strbuf_addf(out, ".chart .c%d{stroke:var(--c%d)}.chart .p%d{fill:var(--c%d)}\n", i, i, i, i);
    nt_strbuf_adds(out, ".chart .faint{stroke-width:1;opacity:.45}\n");
}
