#include "result.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the journal is little endian");
_Static_assert(sizeof(float) == 4, "the journal holds IEEE binary32");

enum { NO_ERROR = -1, HAS_LOGPROB = 1 };

/* Fixed front of a record body; every field is naturally aligned, so there is no padding. */
struct front {
    int64_t row;
    int32_t n_top;
    uint32_t flags; /* HAS_LOGPROB of any choice */
    uint8_t digest[32];
    int32_t status, n_prompt, n_choice, error_len; /* error_len NO_ERROR: none */
};
struct choice_front {
    int32_t finish, n_tok, n_top;
    uint32_t flags;
    uint64_t text_len;
};
_Static_assert(sizeof(struct front) == 64 && sizeof(struct choice_front) == 24, "layout of docs/formats.md");

const char *nt_finish_name(enum nt_finish f) {
    static const char *const names[] = {"stop", "length", "error"};
    return names[f];
}

void nt_result_release(struct nt_result *r) {
    for (int32_t i = 0; r->choice && i < r->n_choice; i++) {
        struct nt_choice *c = &r->choice[i];
        free(c->tok);
        free(c->logprob);
        free(c->top_id);
        free(c->top_lp);
        free(c->text);
    }
    free(r->choice);
    free(r->error);
    *r = (struct nt_result){0};
}

void nt_result_encode(const struct nt_result *r, struct nt_strbuf *out) {
    const size_t error_len = r->error ? strlen(r->error) : 0;
    NT_CHECK(error_len <= INT32_MAX && r->n_choice >= 0);
    struct front f = {.row = r->row,
                      .status = r->status,
                      .n_prompt = r->n_prompt,
                      .n_choice = r->n_choice,
                      .error_len = r->error ? (int32_t)error_len : NO_ERROR};
    memcpy(f.digest, r->digest, sizeof f.digest);
    for (int32_t i = 0; i < r->n_choice; i++) {
        if (r->choice[i].n_top > f.n_top) f.n_top = r->choice[i].n_top;
        if (r->choice[i].logprob) f.flags = HAS_LOGPROB;
    }
    nt_strbuf_add(out, &f, sizeof f);
    nt_strbuf_add(out, r->error ? r->error : "", error_len);
    for (int32_t i = 0; i < r->n_choice; i++) {
        const struct nt_choice *c = &r->choice[i];
        NT_CHECK(c->n_tok >= 0 && c->n_top >= 0);
        const struct choice_front cf = {.finish = (int32_t)c->finish,
                                        .n_tok = c->n_tok,
                                        .n_top = c->n_top,
                                        .flags = c->logprob ? HAS_LOGPROB : 0,
                                        .text_len = c->text_len};
        const size_t n = (size_t)c->n_tok, n_top = n * (size_t)c->n_top;
        nt_strbuf_add(out, &cf, sizeof cf);
        nt_strbuf_add(out, c->tok, n * sizeof *c->tok);
        if (c->logprob) nt_strbuf_add(out, c->logprob, n * sizeof *c->logprob);
        nt_strbuf_add(out, c->top_id, n_top * sizeof *c->top_id);
        nt_strbuf_add(out, c->top_lp, n_top * sizeof *c->top_lp);
        nt_strbuf_add(out, c->text, c->text_len);
    }
}

bool nt_result_peek(const void *bytes, size_t n, struct nt_result_head *head) {
    struct front f;
    if (n < sizeof f) return false;
    memcpy(&f, bytes, sizeof f);
    *head = (struct nt_result_head){.row = f.row, .n_top = f.n_top, .has_logprob = (f.flags & HAS_LOGPROB) != 0};
    return f.row >= 0 && f.n_top >= 0;
}

/* A window over the bytes not yet decoded. */
struct cursor {
    const uint8_t *at;
    size_t left;
    const char *origin;
    int64_t offset, size;
};

static nt_status fail_short(const struct cursor *c, const char *what, uint64_t want) {
    return NT_FAIL(NT_E_DATA,
                   "%s: record at offset %" PRId64 ": %s needs %" PRIu64 " bytes, %zu of %" PRId64
                   " are left; start with --fresh",
                   c->origin, c->offset, what, want, c->left, c->size);
}

/* n elements of size bytes as a new block with one byte to spare; NULL for n == 0 unless text. */
static nt_status take(struct cursor *c, const char *what, uint64_t n, size_t size, bool text, void *out) {
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(n, (uint64_t)size, &bytes) || bytes > c->left) return fail_short(c, what, bytes);
    void *block = NULL;
    if (bytes > 0 || text) {
        block = malloc(bytes + 1);
        if (!block) return NT_FAIL(NT_E_NOMEM, "%s: no memory for %" PRIu64 " bytes of %s", c->origin, bytes, what);
        memcpy(block, c->at, bytes);
        ((char *)block)[bytes] = '\0';
    }
    c->at += bytes;
    c->left -= bytes;
    memcpy(out, &block, sizeof block);
    return NT_OK;
}

static nt_status take_front(struct cursor *c, const char *what, void *out, size_t n) {
    if (c->left < n) return fail_short(c, what, n);
    memcpy(out, c->at, n);
    c->at += n;
    c->left -= n;
    return NT_OK;
}

static nt_status decode_choice(struct cursor *c, struct nt_choice *out) {
    struct choice_front f;
    NT_TRY(take_front(c, "a choice", &f, sizeof f));
    if (f.finish < NT_FINISH_STOP || f.finish > NT_FINISH_ERROR || f.n_tok < 0 || f.n_top < 0)
        return NT_FAIL(NT_E_DATA,
                       "%s: record at offset %" PRId64 ": choice with finish %d, %d tokens, %d alternatives; "
                       "start with --fresh",
                       c->origin, c->offset, f.finish, f.n_tok, f.n_top);
    *out = (struct nt_choice){.finish = (enum nt_finish)f.finish, .n_tok = f.n_tok, .n_top = f.n_top};
    const uint64_t n = (uint64_t)f.n_tok, n_top = n * (uint64_t)f.n_top; /* below 2^62 */
    NT_TRY(take(c, "tokens", n, sizeof *out->tok, false, &out->tok));
    if (f.flags & HAS_LOGPROB) NT_TRY(take(c, "logprobs", n, sizeof *out->logprob, true, &out->logprob));
    NT_TRY(take(c, "top ids", n_top, sizeof *out->top_id, false, &out->top_id));
    NT_TRY(take(c, "top logprobs", n_top, sizeof *out->top_lp, false, &out->top_lp));
    NT_TRY(take(c, "text", f.text_len, 1, true, &out->text));
    out->text_len = f.text_len;
    return NT_OK;
}

static nt_status decode(struct cursor *c, struct nt_result *out) {
    struct front f;
    NT_TRY(take_front(c, "the front", &f, sizeof f));
    /* A choice takes at least its front, so this also bounds the allocation. */
    if (f.row < 0 || f.n_choice < 0 || (uint64_t)f.n_choice > c->left / sizeof(struct choice_front) ||
        f.error_len < NO_ERROR)
        return NT_FAIL(NT_E_DATA,
                       "%s: record at offset %" PRId64 ": row %" PRId64
                       " with %d choices, error of %d bytes, in %" PRId64 " bytes; start with --fresh",
                       c->origin, c->offset, f.row, f.n_choice, f.error_len, c->size);
    out->row = f.row;
    out->status = f.status;
    out->n_prompt = f.n_prompt;
    memcpy(out->digest, f.digest, sizeof out->digest);
    if (f.error_len != NO_ERROR) NT_TRY(take(c, "the error", (uint64_t)f.error_len, 1, true, &out->error));
    if (out->error && strlen(out->error) != (size_t)f.error_len)
        return NT_FAIL(NT_E_DATA, "%s: record at offset %" PRId64 ": error text with a NUL byte; start with --fresh",
                       c->origin, c->offset);
    if (f.n_choice > 0) {
        out->choice = calloc((size_t)f.n_choice, sizeof *out->choice);
        if (!out->choice) return NT_FAIL(NT_E_NOMEM, "%s: no memory for %d choices", c->origin, f.n_choice);
    }
    out->n_choice = f.n_choice;
    for (int32_t i = 0; i < f.n_choice; i++) NT_TRY(decode_choice(c, &out->choice[i]));
    if (c->left > 0)
        return NT_FAIL(NT_E_DATA, "%s: record at offset %" PRId64 ": %zu bytes too many; start with --fresh", c->origin,
                       c->offset, c->left);
    return NT_OK;
}

nt_status nt_result_decode(const void *bytes, size_t n, const char *origin, int64_t offset, struct nt_result *out) {
    struct cursor c = {.at = bytes, .left = n, .origin = origin, .offset = offset, .size = (int64_t)n};
    *out = (struct nt_result){0};
    const nt_status st = decode(&c, out);
    if (st != NT_OK) {
        nt_result_release(out);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    return NT_OK;
}
