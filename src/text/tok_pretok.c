/* Pre-tokenization: each component cuts every range of the one before it. */
#include "tok_internal.h"

#include <string.h>

static void push_range(struct nt_tok_scratch *s, size_t start, size_t end) {
    if (start == end) return;
    if (s->n_range == s->cap_range) {
        nt_tok_grow((void **)&s->ranges, &s->cap_range, s->n_range + 1, sizeof *s->ranges);
    }
    s->ranges[s->n_range++] = (struct nt_tok_range){start, end};
}

/* Takes the reference's list of (range, is match) one by one and joins by behaviour. */
struct joiner {
    enum nt_tok_split behavior;
    struct nt_tok_range hold; /* not yet pushed */
    bool holding, previous_match;
};

static void join(struct joiner *j, struct nt_tok_scratch *s, size_t start, size_t end, bool match) {
    bool extend = false;
    switch (j->behavior) {
    case NT_TOK_ISOLATED:
        push_range(s, start, end);
        return;
    case NT_TOK_REMOVED:
        if (!match) push_range(s, start, end);
        return;
    case NT_TOK_MERGED_PREVIOUS: /* a match joins what is left of it unless that is a match */
        extend = match && !j->previous_match;
        break;
    case NT_TOK_MERGED_NEXT: /* mirrored: a match is joined by what is right of it unless that is a match */
        extend = j->holding && j->previous_match && !match;
        break;
    case NT_TOK_CONTIGUOUS:
        extend = match == j->previous_match;
        break;
    }
    if (extend && j->holding) {
        j->hold.end = end;
    } else {
        if (j->holding) push_range(s, j->hold.start, j->hold.end);
        j->hold = (struct nt_tok_range){start, end};
        j->holding = true;
    }
    j->previous_match = match;
}

static nt_status match_at(const struct nt_tokenizer *t, const struct nt_tok_pre *pre, struct nt_tok_scratch *s,
                          const char *text, size_t len, size_t from, size_t *start, size_t *end) {
    int rc = pre->jit ? pcre2_jit_match(pre->code, (PCRE2_SPTR)text, len, from, 0, s->match_data, s->match_context)
                      : pcre2_match(pre->code, (PCRE2_SPTR)text, len, from, PCRE2_NO_UTF_CHECK, s->match_data,
                                    s->match_context);
    if (rc == PCRE2_ERROR_NOMATCH) {
        *start = *end = len;
        return NT_OK;
    }
    if (rc < 0) {
        PCRE2_UCHAR why[160] = "";
        (void)pcre2_get_error_message(rc, why, sizeof why);
        return NT_FAIL(NT_E_DATA, "%s: the pre-tokenizer pattern failed on a text of %zu bytes: %s", t->origin, len,
                       (const char *)why);
    }
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(s->match_data);
    *start = at[0];
    *end = at[1];
    if (*end < *start) *end = *start; /* \K is refused by the translator; look-behind cannot do this */
    return NT_OK;
}

static nt_status split_range(const struct nt_tokenizer *t, const struct nt_tok_pre *pre, struct nt_tok_scratch *s,
                             struct nt_tok_range r) {
    const char *text = s->norm.data + r.start;
    size_t len = r.end - r.start, done = 0, from = 0;
    struct joiner j = {.behavior = pre->behavior};
    while (from < len) {
        size_t start, end;
        NT_TRY(match_at(t, pre, s, text, len, from, &start, &end));
        if (start == len) break;
        if (end == start) { /* an empty match cuts nothing */
            from = start + nt_utf8_len((unsigned char)text[start]);
            continue;
        }
        if (start > done) join(&j, s, r.start + done, r.start + start, pre->invert);
        join(&j, s, r.start + start, r.start + end, !pre->invert);
        done = from = end;
    }
    if (done < len) join(&j, s, r.start + done, r.end, pre->invert);
    if (j.holding) push_range(s, j.hold.start, j.hold.end);
    return NT_OK;
}

/* Metaspace: blanks become marks, a mark is put before the text, and words begin at marks. */
static void metaspace_range(const struct nt_tok_pre *pre, struct nt_tok_scratch *s, struct nt_tok_range r, bool first) {
    const char *text = s->norm.data + r.start;
    size_t len = r.end - r.start, begin = s->pre.len;
    bool marked =
        len > 0 && (text[0] == ' ' || (len >= pre->marker_len && memcmp(text, pre->marker, pre->marker_len) == 0));
    bool want = pre->prepend == NT_TOK_PREPEND_ALWAYS || (pre->prepend == NT_TOK_PREPEND_FIRST && first);
    if (want && !marked) nt_strbuf_add(&s->pre, pre->marker, pre->marker_len);
    for (size_t i = 0; i < len;) {
        const char *blank = memchr(text + i, ' ', len - i);
        size_t n = blank ? (size_t)(blank - text) - i : len - i;
        nt_strbuf_add(&s->pre, text + i, n);
        i += n;
        if (blank) {
            nt_strbuf_add(&s->pre, pre->marker, pre->marker_len);
            i++;
        }
    }
    size_t end = s->pre.len;
    if (pre->split) {
        for (size_t i = begin; i < end;) {
            size_t from = i + (end - i >= pre->marker_len && memcmp(s->pre.data + i, pre->marker, pre->marker_len) == 0
                                   ? pre->marker_len
                                   : 0);
            const char *mark = from < end ? memmem(s->pre.data + from, end - from, pre->marker, pre->marker_len) : NULL;
            size_t next = mark ? (size_t)(mark - s->pre.data) : end;
            push_range(s, i, next);
            i = next;
        }
    } else {
        push_range(s, begin, end);
    }
}

static void prefix_space_range(struct nt_tok_scratch *s, struct nt_tok_range r) {
    size_t begin = s->pre.len;
    if (s->norm.data[r.start] != ' ') nt_strbuf_addc(&s->pre, ' ');
    nt_strbuf_add(&s->pre, s->norm.data + r.start, r.end - r.start);
    push_range(s, begin, s->pre.len);
}

nt_status nt_tok_pretokenize(const struct nt_tokenizer *t, struct nt_tok_scratch *s, size_t start, size_t end,
                             bool at_start) {
    s->n_range = 0;
    push_range(s, start, end);
    for (int32_t i = 0; i < t->n_pre; i++) {
        const struct nt_tok_pre *pre = &t->pre[i];
        struct nt_tok_range *swap = s->ranges;
        int64_t n = s->n_range, cap = s->cap_range;
        s->ranges = s->ranges_tmp;
        s->cap_range = s->cap_range_tmp;
        s->ranges_tmp = swap;
        s->cap_range_tmp = cap;
        s->n_range = 0;
        bool rewrites = pre->kind != NT_TOK_PRE_SPLIT;
        if (rewrites) nt_strbuf_reset(&s->pre);
        for (int64_t k = 0; k < n; k++) {
            struct nt_tok_range r = s->ranges_tmp[k];
            if (pre->kind == NT_TOK_PRE_SPLIT)
                NT_TRY(split_range(t, pre, s, r));
            else if (pre->kind == NT_TOK_PRE_METASPACE)
                metaspace_range(pre, s, r, at_start && r.start == start);
            else
                prefix_space_range(s, r);
        }
        if (rewrites) {
            struct nt_strbuf text = s->norm;
            s->norm = s->pre;
            s->pre = text;
            start = 0;
            if (s->norm.len > NT_TOK_MAX_TEXT)
                return NT_FAIL(NT_E_DATA, "%s: the pre-tokenized text is longer than %d bytes", t->origin,
                               NT_TOK_MAX_TEXT);
        }
    }
    return NT_OK;
}
