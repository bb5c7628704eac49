/* Line charts as inline SVG: axes with round ticks, a grid, a legend; no scripts, no fonts, no other files.
 *
 * A chart is one <svg> with a viewBox, so that it scales with the page; colours are classes of the style that
 * nt_chart_css gives once per page, for light and dark screens. Values that are not finite are gaps. Longer series than
 * the chart has columns are drawn by the extremes of each column, so a spike is never smoothed away. Vertical axes that
 * span more than 1 : 50 of positive numbers are logarithmic where the caller allows it.
 * Ticks: steps of 1, 2 or 5 times a power of ten (Heckbert, "Nice numbers for graph labels", Graphics Gems 1990).
 * Ownership: appends to the caller's string; series are borrowed. Threading: pure. Errors: none. */
#ifndef NT_CHART_H
#define NT_CHART_H

#include "strbuf.h"
#include <stdbool.h>
#include <stdint.h>

enum { NT_CHART_MAX_SERIES = 4, NT_CHART_MAX_TICKS = 16 };

struct nt_chart_series {
    const char *name;    /* in the legend */
    const double *x, *y; // [n] x ascending
    int64_t n;
    bool faint;  /* drawn thin behind the others: raw values under their mean */
    bool points; /* each value is marked, and told to who points at it; without it only values without neighbours are */
};

struct nt_chart {
    const char *title;  /* for screen readers */
    const char *x_name; /* under the axis */
    bool may_log;       /* the vertical axis may be logarithmic */
    bool from_zero;     /* the vertical axis begins at 0 */
    struct nt_chart_series series[NT_CHART_MAX_SERIES];
    int32_t n_series;
};

void nt_chart_css(struct nt_strbuf *out);
/* A sentence in place of the curves where no series has a value. */
void nt_chart_svg(const struct nt_chart *c, struct nt_strbuf *out);

/* At most NT_CHART_MAX_TICKS round numbers that lie in [lo, hi], about `want` of them; returns their number. */
int32_t nt_chart_ticks(double lo, double hi, int32_t want, double ticks[NT_CHART_MAX_TICKS], double *step);
/* "0.25", "1500", "2e-4": as many digits as the step asks for. */
const char *nt_chart_label(double v, double step, char *buf, size_t cap);
/* &, <, >, " and ' escaped; bytes that are no UTF-8 and control characters become U+FFFD. */
void nt_chart_escape(struct nt_strbuf *out, const char *text);

#endif
