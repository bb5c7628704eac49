#include "tok_utf8.h"

#include <string.h>
#include <utf8proc.h>

/* Bounds of the second byte: E0 ED F0 F4 exclude overlong forms, surrogates and values past U+10FFFF. */
static bool second_ok(unsigned char first, unsigned char second) {
    unsigned char lo = 0x80, hi = 0xBF;
    if (first == 0xE0) lo = 0xA0;
    if (first == 0xED) hi = 0x9F;
    if (first == 0xF0) lo = 0x90;
    if (first == 0xF4) hi = 0x8F;
    return second >= lo && second <= hi;
}

enum nt_utf8_kind nt_utf8_look(const char *s, size_t n, size_t *len, uint32_t *cp) {
    const unsigned char *u = (const unsigned char *)s;
    unsigned char c = u[0];
    *len = 1;
    if (c < 0x80) {
        if (cp) *cp = c;
        return NT_UTF8_OK;
    }
    if (c < 0xC2 || c > 0xF4) return NT_UTF8_BAD;
    size_t need = nt_utf8_len(c);
    if (n < 2) return NT_UTF8_CUT;
    if (!second_ok(c, u[1])) return NT_UTF8_BAD;
    uint32_t v = need == 2 ? c & 0x1Fu : need == 3 ? c & 0x0Fu : c & 0x07u;
    v = v << 6 | (u[1] & 0x3Fu);
    for (size_t i = 2; i < need; i++) {
        *len = i;
        if (i == n) return NT_UTF8_CUT;
        if ((u[i] & 0xC0) != 0x80) return NT_UTF8_BAD;
        v = v << 6 | (u[i] & 0x3Fu);
    }
    *len = need;
    if (cp) *cp = v;
    return NT_UTF8_OK;
}

/* Bytes from the start that are valid. */
static size_t valid_prefix(const char *s, size_t n) {
    size_t i = 0;
    while (i < n) {
        uint64_t w;
        if (i + 8 <= n && (memcpy(&w, s + i, 8), (w & 0x8080808080808080u) == 0)) {
            i += 8;
            continue;
        }
        size_t len;
        if (nt_utf8_look(s + i, n - i, &len, NULL) != NT_UTF8_OK) break;
        i += len;
    }
    return i;
}

bool nt_utf8_valid(const char *s, size_t n) {
    return valid_prefix(s, n) == n;
}

size_t nt_utf8_add_lossy_head(struct nt_strbuf *out, const char *s, size_t n) {
    size_t done = 0;
    while (done < n) {
        size_t good = valid_prefix(s + done, n - done);
        nt_strbuf_add(out, s + done, good);
        done += good;
        if (done == n) break;
        size_t len;
        if (nt_utf8_look(s + done, n - done, &len, NULL) == NT_UTF8_CUT) break;
        nt_strbuf_add(out, "\xEF\xBF\xBD", 3);
        done += len;
    }
    return done;
}

void nt_utf8_add_lossy(struct nt_strbuf *out, const char *s, size_t n) {
    if (nt_utf8_add_lossy_head(out, s, n) < n) nt_strbuf_add(out, "\xEF\xBF\xBD", 3);
}

void nt_utf8_put(struct nt_strbuf *out, uint32_t cp) {
    utf8proc_uint8_t buf[4];
    utf8proc_ssize_t n = utf8proc_encode_char((utf8proc_int32_t)cp, buf);
    if (n > 0) nt_strbuf_add(out, buf, (size_t)n);
}

bool nt_cp_is_space(uint32_t cp) {
    if (cp <= 0x20) return cp == 0x20 || (cp >= 0x09 && cp <= 0x0D);
    return cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

/* UTS 18 \w: Alphabetic, M, Nd, Pc, Join_Control. Alphabetic beyond L, Nl and M are the circled and squared letters. */
bool nt_cp_is_word(uint32_t cp) {
    if (cp == 0x200C || cp == 0x200D) return true;
    if ((cp >= 0x24B6 && cp <= 0x24E9) || (cp >= 0x1F130 && cp <= 0x1F149) || (cp >= 0x1F150 && cp <= 0x1F169) ||
        (cp >= 0x1F170 && cp <= 0x1F189))
        return true;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return false;
    }
}
