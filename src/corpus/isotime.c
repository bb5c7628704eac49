#include "isotime.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const int64_t us_per_s = 1000000, us_per_day = (int64_t)86400 * 1000000,
                     max_us = (int64_t)2932897 * 86400 * 1000000;

/* Days since 1970-01-01. */
static int64_t days_from_date(int64_t y, int64_t m, int64_t d) {
    y -= m <= 2;
    const int64_t era = y / 400, year = y - era * 400;
    const int64_t day = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    return era * 146097 + year * 365 + year / 4 - year / 100 + day - 719468;
}

static int days_in_month(int64_t y, int64_t m) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    return days[m - 1] + (m == 2 && leap);
}

struct scan {
    const char *s, *end;
};

/* Exactly n digits. */
static bool digits(struct scan *c, int n, int64_t *v) {
    *v = 0;
    for (int i = 0; i < n; i++) {
        if (c->s == c->end || *c->s < '0' || *c->s > '9') return false;
        *v = *v * 10 + (*c->s++ - '0');
    }
    return true;
}

static bool sign(struct scan *c, const char *any, char *which) {
    if (c->s == c->end || !strchr(any, *c->s) || *c->s == '\0') return false;
    *which = *c->s++;
    return true;
}

static bool scan_fraction(struct scan *c, int64_t *us) {
    char unused = 0;
    int64_t scale = us_per_s / 10, digit = 0;
    if (!sign(c, ".", &unused)) return true;
    if (!digits(c, 1, &digit)) return false;
    do {
        *us += digit * scale;
        scale /= 10;
    } while (digits(c, 1, &digit));
    return true;
}

static bool scan_zone(struct scan *c, int64_t *us) {
    char which = 0;
    int64_t h = 0, m = 0;
    if (c->s == c->end) return true;
    if (!sign(c, "Zz+-", &which)) return false;
    if (which == 'Z' || which == 'z') return true;
    if (!digits(c, 2, &h) || !sign(c, ":", &(char){0}) || !digits(c, 2, &m) || h > 23 || m > 59) return false;
    *us -= (which == '+' ? 1 : -1) * (h * 60 + m) * 60 * us_per_s;
    return true;
}

static bool scan_clock(struct scan *c, int64_t *us) {
    char unused = 0;
    int64_t h = 0, m = 0, s = 0;
    if (!digits(c, 2, &h) || !sign(c, ":", &unused) || !digits(c, 2, &m) || !sign(c, ":", &unused) || !digits(c, 2, &s))
        return false;
    if (h > 23 || m > 59 || s > 59) return false;
    *us += ((h * 60 + m) * 60 + s) * us_per_s;
    return scan_fraction(c, us) && scan_zone(c, us);
}

bool nt_isotime_parse(const char *text, size_t len, int64_t *us) {
    struct scan c = {text, text + len};
    char unused = 0;
    int64_t y = 0, m = 0, d = 0, t = 0;
    if (!digits(&c, 4, &y) || !sign(&c, "-", &unused) || !digits(&c, 2, &m) || !sign(&c, "-", &unused) ||
        !digits(&c, 2, &d))
        return false;
    if (y < 1970 || m < 1 || m > 12 || d < 1 || d > days_in_month(y, m)) return false;
    t = days_from_date(y, m, d) * us_per_day;
    if (c.s < c.end && (!sign(&c, "Tt ", &unused) || !scan_clock(&c, &t))) return false;
    if (c.s != c.end || t < 0 || t >= max_us) return false;
    *us = t;
    return true;
}

bool nt_isotime_from_seconds(double seconds, int64_t *us) {
    if (!(seconds >= 0 && seconds * 1e6 < (double)max_us)) return false;
    *us = llround(seconds * 1e6);
    return true;
}

void nt_isotime_print(int64_t us, char text[NT_ISOTIME_TEXT]) {
    const int64_t days = us / us_per_day, s = us / us_per_s % 86400, z = days + 719468;
    const int64_t era = z / 146097, day = z - era * 146097;
    const int64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    const int64_t of_year = day - (365 * year + year / 4 - year / 100), month = (5 * of_year + 2) / 153;
    const int64_t m = month + (month < 10 ? 3 : -9), y = year + era * 400 + (m <= 2);
    (void)snprintf(text, NT_ISOTIME_TEXT, "%04d-%02d-%02dT%02d:%02d:%02dZ", (int)y, (int)m,
                   (int)(of_year - (153 * month + 2) / 5 + 1), (int)(s / 3600), (int)(s / 60 % 60), (int)(s % 60));
}
