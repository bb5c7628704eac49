/* Normalizer: Unicode forms (utf8proc), Prepend, Replace, in the order of the file. */
#include "tok_internal.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* No character below U+0300 changes under NFC or has a combining class. */
static bool composed_already(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] >= 0xCC) return false;
    }
    return true;
}

static bool ascii_only(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] >= 0x80) return false;
    }
    return true;
}

static nt_status unicode_form(const struct nt_tokenizer *t, int options, const char *text, size_t len,
                              struct nt_strbuf *out) {
    bool nfc = (options & UTF8PROC_COMPOSE) && !(options & UTF8PROC_COMPAT);
    if (nfc ? composed_already(text, len) : ascii_only(text, len)) {
        nt_strbuf_add(out, text, len);
        return NT_OK;
    }
    utf8proc_uint8_t *made = NULL;
    utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, &made, (utf8proc_option_t)options);
    if (n < 0)
        return NT_FAIL(n == UTF8PROC_ERROR_NOMEM ? NT_E_NOMEM : NT_E_DATA, "%s: Unicode normalization failed: %s",
                       t->origin, utf8proc_errmsg(n));
    nt_strbuf_add(out, made, (size_t)n);
    free(made);
    return NT_OK;
}

static void replace(const struct nt_tok_norm *step, const char *text, size_t len, struct nt_strbuf *out) {
    size_t done = 0;
    while (done < len) {
        const char *hit = memmem(text + done, len - done, step->from, step->from_len);
        size_t n = hit ? (size_t)(hit - text) - done : len - done;
        nt_strbuf_add(out, text + done, n);
        done += n;
        if (hit) {
            nt_strbuf_add(out, step->to, step->to_len);
            done += step->from_len;
        }
    }
}

nt_status nt_tok_normalize(const struct nt_tokenizer *t, const char *text, size_t len, struct nt_strbuf *out,
                           struct nt_strbuf *tmp) {
    nt_strbuf_reset(out);
    if (t->n_norm == 0) {
        nt_strbuf_add(out, text, len);
        return NT_OK;
    }
    for (int32_t i = 0; i < t->n_norm; i++) {
        const struct nt_tok_norm *step = &t->norm[i];
        const char *in = text;
        size_t n = len;
        if (i > 0) {
            struct nt_strbuf swap = *out;
            *out = *tmp;
            *tmp = swap;
            in = nt_strbuf_cstr(tmp);
            n = tmp->len;
        }
        nt_strbuf_reset(out);
        switch (step->kind) {
        case NT_TOK_NORM_UNICODE:
            NT_TRY(unicode_form(t, step->unicode, in, n, out));
            break;
        case NT_TOK_NORM_PREPEND:
            if (n > 0) nt_strbuf_add(out, step->to, step->to_len);
            nt_strbuf_add(out, in, n);
            break;
        case NT_TOK_NORM_REPLACE:
            replace(step, in, n, out);
            break;
        }
        if (out->len > NT_TOK_MAX_TEXT)
            return NT_FAIL(NT_E_DATA, "%s: the normalized text is longer than %d bytes", t->origin, NT_TOK_MAX_TEXT);
    }
    return NT_OK;
}
