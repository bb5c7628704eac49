#include "strbuf.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void nt_strbuf_release(struct nt_strbuf *s) {
    free(s->data);
    *s = (struct nt_strbuf)NT_STRBUF_INIT;
}

void nt_strbuf_reset(struct nt_strbuf *s) {
    s->len = 0;
    if (s->data) s->data[0] = '\0';
}

void nt_strbuf_reserve(struct nt_strbuf *s, size_t extra) {
    size_t need = 0;
    if (__builtin_add_overflow(s->len, extra, &need) || __builtin_add_overflow(need, (size_t)1, &need))
        nt_bug("string of %zu + %zu bytes overflows", s->len, extra);
    if (need <= s->cap) return;
    size_t cap = s->cap < 64 ? 64 : s->cap;
    while (cap < need) {
        if (__builtin_mul_overflow(cap, (size_t)2, &cap)) cap = need;
    }
    char *data = realloc(s->data, cap);
    if (!data) nt_bug("out of memory for a string of %zu bytes", cap);
    if (!s->data) data[0] = '\0';
    s->data = data;
    s->cap = cap;
}

const char *nt_strbuf_cstr(const struct nt_strbuf *s) {
    return s->data ? s->data : "";
}

void nt_strbuf_add(struct nt_strbuf *s, const void *bytes, size_t n) {
    nt_strbuf_reserve(s, n);
    if (n > 0) memcpy(s->data + s->len, bytes, n);
    s->len += n;
    s->data[s->len] = '\0';
}

void nt_strbuf_adds(struct nt_strbuf *s, const char *text) {
    nt_strbuf_add(s, text, strlen(text));
}

void nt_strbuf_addc(struct nt_strbuf *s, char c) {
    nt_strbuf_add(s, &c, 1);
}

void nt_strbuf_addf(struct nt_strbuf *s, const char *fmt, ...) {
    va_list args;
    va_list again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) nt_bug("format \"%s\" failed", fmt);
    nt_strbuf_reserve(s, (size_t)n);
    (void)vsnprintf(s->data + s->len, (size_t)n + 1, fmt, again);
    va_end(again);
    s->len += (size_t)n;
}

static bool continuation(unsigned char c) {
    return (c & 0xC0u) == 0x80u;
}

/* Length of the valid UTF-8 sequence at p (Unicode table 3-7), 0 when there is none. */
static size_t utf8_len(const unsigned char *p, size_t n) {
    unsigned char c = p[0];
    if (c < 0x80) return 1;
    if (c < 0xC2 || c > 0xF4) return 0;
    if (c < 0xE0) return n >= 2 && continuation(p[1]) ? 2 : 0;
    if (n < 3 || !continuation(p[1]) || !continuation(p[2])) return 0;
    if (c < 0xF0) {
        if (c == 0xE0 && p[1] < 0xA0) return 0; /* overlong */
        if (c == 0xED && p[1] > 0x9F) return 0; /* surrogates */
        return 3;
    }
    if (n < 4 || !continuation(p[3])) return 0;
    if (c == 0xF0 && p[1] < 0x90) return 0;
    if (c == 0xF4 && p[1] > 0x8F) return 0; /* above U+10FFFF */
    return 4;
}

/* Bytes one U+FFFD stands for: the longest prefix of a sequence, at least 1 (Unicode 3.9, as Python's "replace"). */
static size_t bad_len(const unsigned char *p, size_t n) {
    unsigned char c = p[0];
    size_t want = c >= 0xF0 && c <= 0xF4 ? 4 : c >= 0xE0 && c < 0xF0 ? 3 : 1;
    if (want == 1 || n < 2 || !continuation(p[1])) return 1;
    bool second_ok = !(c == 0xE0 && p[1] < 0xA0) && !(c == 0xED && p[1] > 0x9F) && !(c == 0xF0 && p[1] < 0x90) &&
                     !(c == 0xF4 && p[1] > 0x8F);
    if (!second_ok) return 1;
    return want == 4 && n >= 3 && continuation(p[2]) ? 3 : 2;
}

static void add_escape(struct nt_strbuf *s, unsigned char c) {
    switch (c) {
    case '"':
        nt_strbuf_adds(s, "\\\"");
        return;
    case '\\':
        nt_strbuf_adds(s, "\\\\");
        return;
    case '\n':
        nt_strbuf_adds(s, "\\n");
        return;
    case '\r':
        nt_strbuf_adds(s, "\\r");
        return;
    case '\t':
        nt_strbuf_adds(s, "\\t");
        return;
    case '\b':
        nt_strbuf_adds(s, "\\b");
        return;
    case '\f':
        nt_strbuf_adds(s, "\\f");
        return;
    default:
        nt_strbuf_addf(s, "\\u%04x", c);
        return;
    }
}

void nt_strbuf_add_json(struct nt_strbuf *s, const char *bytes, size_t n) {
    const unsigned char *p = (const unsigned char *)bytes;
    nt_strbuf_reserve(s, n + 2);
    nt_strbuf_addc(s, '"');
    size_t plain = 0; /* start of the run not yet copied */
    size_t i = 0;
    while (i < n) {
        size_t len = utf8_len(p + i, n - i);
        if (len > 1 || (len == 1 && p[i] >= 0x20 && p[i] != '"' && p[i] != '\\')) {
            i += len;
            continue;
        }
        nt_strbuf_add(s, bytes + plain, i - plain);
        if (len == 0) {
            nt_strbuf_adds(s, "\xEF\xBF\xBD");
            i += bad_len(p + i, n - i);
        } else {
            add_escape(s, p[i]);
            i++;
        }
        plain = i;
    }
    nt_strbuf_add(s, bytes + plain, n - plain);
    nt_strbuf_addc(s, '"');
}

/* The code point of a valid sequence. */
static uint32_t code_point(const unsigned char *p, size_t len) {
    static const unsigned char first[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t c = p[0] & first[len];
    for (size_t i = 1; i < len; i++) c = c << 6 | (p[i] & 0x3fu);
    return c;
}

/* Would it move the cursor, end the line or turn the text around? */
static bool controls(uint32_t c) {
    static const uint32_t ranges[][2] = {
        {0x00,   0x1f  },
        {0x7f,   0x9f  },
        {0x061c, 0x061c},
        {0x200e, 0x200f},
        {0x2028, 0x202e},
        {0x2066, 0x2069},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        if (c >= ranges[i][0] && c <= ranges[i][1]) return true;
    }
    return false;
}

void nt_strbuf_add_shown(struct nt_strbuf *s, const char *bytes, size_t n) {
    const unsigned char *p = (const unsigned char *)bytes;
    for (size_t i = 0, len; i < n; i += len ? len : 1) {
        len = utf8_len(p + i, n - i);
        const uint32_t c = len ? code_point(p + i, len) : p[i];
        if (len && !controls(c))
            nt_strbuf_add(s, p + i, len);
        else if (c == '\n' || c == '\r' || c == '\t')
            nt_strbuf_adds(s, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        else
            nt_strbuf_addf(s, len > 1 ? "\\u%04x" : "\\x%02x", c);
    }
}

/* v in "%e" form with the fewest digits that read back as v; returns how many. A decimal of up to 15 digits survives
 * the way through a normal double, so the shortest one is the 15-digit form without its trailing zeros; else 16 or 17.
 */
static int shortest_digits(double v, char *sci, size_t cap) {
    if (fabs(v) < DBL_MIN) { /* subnormal: fewer digits are carried, so look from 1 on */
        for (int digits = 1; digits < 17; digits++) {
            (void)snprintf(sci, cap, "%.*e", digits - 1, v);
            if (strtod(sci, NULL) == v) return digits;
        }
    }
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(sci, cap, "%.*e", digits - 1, v);
        if (digits == 17 || strtod(sci, NULL) == v) break;
    }
    char *e = strchr(sci, 'e');
    char *end = e;
    while (end[-1] == '0') end--;
    if (end[-1] == '.') end--;
    (void)memmove(end, e, strlen(e) + 1);
    const int sign = sci[0] == '-';
    const int width = (int)(end - sci) - sign;
    return width == 1 ? 1 : width - 1; /* without the point */
}

void nt_strbuf_add_json_num(struct nt_strbuf *s, double v) {
    if (!isfinite(v)) {
        nt_strbuf_adds(s, "null");
        return;
    }
    if (v == 0) {
        nt_strbuf_adds(s, signbit(v) ? "-0.0" : "0.0");
        return;
    }
    char sci[40];
    int digits = shortest_digits(v, sci, sizeof sci);
    /* Python's repr: fixed notation for -4 <= exponent < 16, always with a point or an exponent. */
    char *e = strchr(sci, 'e');
    long exp10 = strtol(e + 1, NULL, 10);
    if (exp10 >= -4 && exp10 < 16) {
        int decimals = digits - 1 - (int)exp10;
        nt_strbuf_addf(s, "%.*f", decimals < 1 ? 1 : decimals, v);
        return;
    }
    nt_strbuf_add(s, sci, (size_t)(e - sci));
    nt_strbuf_addf(s, "e%c%02ld", exp10 < 0 ? '-' : '+', exp10 < 0 ? -exp10 : exp10);
}
