#include "render.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One conversation at work. */
struct job {
    struct nt_render *r;
    const struct nt_turn *turns;
    struct nt_message *messages; // [n] the same for the chat format
    int32_t n;
    bool raw;
    struct nt_sequences *out;
    enum nt_fit fit;
};

/* ---- memory ---- */

void nt_sequences_release(struct nt_sequences *s) {
    for (int64_t i = 0; i < s->cap; i++) {
        nt_ids_release(&s->at[i].ids);
        free(s->at[i].runs);
    }
    free(s->at);
    *s = (struct nt_sequences){0};
}

static struct nt_sequence *new_sequence(struct nt_sequences *s) {
    if (s->n == s->cap) {
        const int64_t old = s->cap;
        nt_tok_grow((void **)&s->at, &s->cap, s->n + 1, sizeof *s->at);
        memset(s->at + old, 0, (size_t)(s->cap - old) * sizeof *s->at);
    }
    struct nt_sequence *q = &s->at[s->n++];
    nt_ids_reset(&q->ids);
    q->n_runs = 0;
    q->n_prompt = 0;
    return q;
}

/* ---- opening ---- */

static void add_stop(struct nt_render *r, int32_t id) {
    if (id >= 0 && r->n_stops < NT_RENDER_MAX_STOPS) r->stops[r->n_stops++] = id;
}

nt_status nt_render_open(struct nt_render *r) {
    r->bos = nt_tokenizer_bos(r->tok);
    r->eos = nt_tokenizer_eos(r->tok);
    int64_t n_stops;
    const int32_t *stops = nt_tokenizer_stops(r->tok, &n_stops);
    if (r->chat) r->n_stops = (int32_t)nt_chat_stops(r->chat, r->tok, r->stops, NT_RENDER_MAX_STOPS);
    add_stop(r, r->eos);
    for (int64_t i = 0; i < n_stops; i++) add_stop(r, stops[i]);
    nt_ids_reset(&r->whole);
    NT_TRY(nt_tokenizer_encode(r->tok, "", 0, NT_TOK_ADD_SPECIAL, &r->whole));
    const int64_t n = r->whole.len;
    r->strip_eos = n > 0 && r->eos >= 0 && r->whole.data[n - 1] == r->eos && (n > 1 || r->bos != r->eos);
    return NT_OK;
}

void nt_render_close(struct nt_render *r) {
    nt_ids_release(&r->prompt);
    nt_ids_release(&r->whole);
    nt_ids_release(&r->apart);
}

static bool is_stop(const struct nt_render *r, int32_t id) {
    for (int32_t i = 0; i < r->n_stops; i++) {
        if (r->stops[i] == id) return true;
    }
    return false;
}

/* ---- verdicts ---- */

static void NT_PRINTF(3, 4) verdict(struct job *j, enum nt_fit fit, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(j->r->why, sizeof j->r->why, fmt, args);
    va_end(args);
    j->fit = fit;
}

/* What format or tokenizer say of the row's data is the row's fault. */
static nt_status row_fault(struct job *j, nt_status st) {
    if (st != NT_E_DATA) return st;
    verdict(j, NT_FIT_REFUSED, "%s", nt_error_last()->text);
    nt_error_clear();
    return NT_OK;
}

/* ---- one completion: prompt and whole as tokens ---- */

static bool is_target(const struct nt_turn *t) {
    return t->weight > 0 && strcmp(t->role, "assistant") == 0;
}

static bool starts_with(const struct nt_ids *ids, const struct nt_ids *head) {
    return head->len <= ids->len &&
           (head->len == 0 || memcmp(ids->data, head->data, (size_t)head->len * sizeof *head->data) == 0);
}

/* The spans of the answer of turn i are moved to the front; returns their number. */
static int64_t keep_answer(struct nt_chat_prompt *p, int32_t i) {
    int64_t n = 0;
    for (int64_t k = 0; k < p->n; k++) {
        if (p->answer[k] == i + 1) p->spans[n++] = p->spans[k];
    }
    return n;
}

static nt_status encode_chat(struct job *j, int32_t i) {
    struct nt_render *r = j->r;
    struct nt_chat_prompt before = {0}, after = {0};
    struct nt_tok_span *both = NULL;
    nt_status st;
    NT_TRY_GOTO(st, release, nt_chat_render(r->chat, j->messages, i, true, &before));
    NT_TRY_GOTO(st, release, nt_chat_render(r->chat, j->messages, i + 1, false, &after));
    const int64_t n_answer = keep_answer(&after, i);
    both = calloc((size_t)(before.n + n_answer + 1), sizeof *both);
    if (!both) {
        st = NT_FAIL(NT_E_NOMEM, "no memory to render a conversation");
        goto release;
    }
    if (before.n) memcpy(both, before.spans, (size_t)before.n * sizeof *both);
    if (n_answer) memcpy(both + before.n, after.spans, (size_t)n_answer * sizeof *both);
    NT_TRY_GOTO(st, release, nt_tokenizer_encode_spans(r->tok, both, before.n, 0, &r->prompt));
    NT_TRY_GOTO(st, release, nt_tokenizer_encode_spans(r->tok, both, before.n + n_answer, 0, &r->whole));
    if (!starts_with(&r->whole, &r->prompt))
        NT_TRY_GOTO(st, release, nt_tokenizer_encode_spans(r->tok, after.spans, n_answer, 0, &r->apart));
release:
    free(both);
    nt_chat_prompt_release(&before);
    nt_chat_prompt_release(&after);
    return st;
}

static nt_status encode_text(const struct nt_render *r, const struct nt_strbuf *text, struct nt_ids *ids) {
    NT_TRY(nt_tokenizer_encode(r->tok, nt_strbuf_cstr(text), text->len, NT_TOK_ADD_SPECIAL, ids));
    if (r->strip_eos && ids->len > 0) ids->len--;
    return NT_OK;
}

static nt_status encode_raw(struct job *j, int32_t i) {
    struct nt_render *r = j->r;
    struct nt_strbuf text = NT_STRBUF_INIT;
    nt_status st;
    for (int32_t k = 0; k < i; k++) nt_strbuf_add(&text, j->turns[k].text, j->turns[k].len);
    NT_TRY_GOTO(st, release, encode_text(r, &text, &r->prompt));
    nt_strbuf_add(&text, j->turns[i].text, j->turns[i].len);
    NT_TRY_GOTO(st, release, encode_text(r, &text, &r->whole));
    if (!starts_with(&r->whole, &r->prompt))
        NT_TRY_GOTO(st, release, nt_tokenizer_encode(r->tok, j->turns[i].text, j->turns[i].len, 0, &r->apart));
release:
    nt_strbuf_release(&text);
    return st;
}

static bool same_text(const struct nt_tokenizer *tok, const struct nt_ids *a, const struct nt_ids *b) {
    struct nt_strbuf x = NT_STRBUF_INIT, y = NT_STRBUF_INIT;
    nt_tokenizer_decode(tok, a->data, a->len, false, &x);
    nt_tokenizer_decode(tok, b->data, b->len, false, &y);
    const bool same = x.len == y.len && memcmp(nt_strbuf_cstr(&x), nt_strbuf_cstr(&y), x.len) == 0;
    nt_strbuf_release(&x);
    nt_strbuf_release(&y);
    return same;
}

/* r->prompt and r->whole for the answer of turn i, whole beginning with prompt. Where a token joins both, the answer is
 * taken apart if that leaves the text as it is (a tokenizer may begin every text with a blank), else the token counts
 * as the answer's. */
static nt_status encode_answer(struct job *j, int32_t i) {
    struct nt_render *r = j->r;
    nt_ids_reset(&r->prompt);
    nt_ids_reset(&r->whole);
    nt_ids_reset(&r->apart);
    NT_TRY(row_fault(j, j->raw ? encode_raw(j, i) : encode_chat(j, i)));
    if (j->fit != NT_FIT_OK || starts_with(&r->whole, &r->prompt)) return NT_OK;
    const int64_t n_prompt = r->prompt.len;
    nt_ids_append(&r->prompt, r->apart.data, r->apart.len);
    if (same_text(r->tok, &r->prompt, &r->whole)) {
        nt_ids_reset(&r->whole);
        nt_ids_append(&r->whole, r->prompt.data, r->prompt.len);
        r->prompt.len = n_prompt;
        r->n_apart++;
        return NT_OK;
    }
    int64_t common = 0;
    while (common < n_prompt && common < r->whole.len && r->prompt.data[common] == r->whole.data[common]) common++;
    r->prompt.len = common;
    return NT_OK;
}

/* ---- sequences ---- */

static void add_run(struct nt_sequence *q, int64_t from, int64_t to, float weight) {
    if (from < 1) from = 1;
    if (from >= to) return;
    nt_tok_grow((void **)&q->runs, &q->cap_runs, q->n_runs + 1, sizeof *q->runs);
    q->runs[q->n_runs++] = (struct nt_loss_run){(int32_t)from, (int32_t)to, weight};
}

/* A text whose end no token marks, gets the end-of-text token, so that the model learns to stop. */
static void end_sequence(struct nt_render *r, struct nt_sequence *q) {
    const int64_t n = q->ids.len;
    if (n == 0 || q->n_runs == 0 || !r->train_on_eos || r->eos < 0) return;
    struct nt_loss_run *last = &q->runs[q->n_runs - 1];
    if (last->to != n || is_stop(r, q->ids.data[n - 1])) return;
    nt_ids_push(&q->ids, r->eos);
    last->to++;
}

static void put_answer(struct nt_render *r, struct nt_sequence *q, float weight) {
    int64_t to = r->whole.len;
    if (q->ids.len == 0) q->n_prompt = (int32_t)r->prompt.len;
    nt_ids_reset(&q->ids);
    nt_ids_append(&q->ids, r->whole.data, r->whole.len);
    if (to > r->prompt.len && !r->train_on_eos && is_stop(r, r->whole.data[to - 1])) to--;
    add_run(q, r->prompt.len, to, weight);
}

/* All targets of the conversation; nothing is cut yet. */
static nt_status make_sequences(struct job *j) {
    struct nt_render *r = j->r;
    struct nt_sequence *q = NULL;
    for (int32_t i = 0; i < j->n && j->fit == NT_FIT_OK; i++) {
        if (!is_target(&j->turns[i])) continue;
        NT_TRY(encode_answer(j, i));
        if (j->fit != NT_FIT_OK) break;
        if (!q || r->whole.len > r->max_length || !starts_with(&r->prompt, &q->ids)) {
            if (q) {
                end_sequence(r, q);
                r->n_split++;
            }
            q = new_sequence(j->out);
        }
        put_answer(r, q, j->turns[i].weight);
    }
    if (q) end_sequence(r, q);
    return NT_OK;
}

static nt_status make_talk(struct job *j) {
    const int64_t first = j->out->n;
    if (!j->raw && !j->r->chat) {
        verdict(j, NT_FIT_REFUSED, "%s", j->r->no_chat ? j->r->no_chat : "the model has no chat format");
        return NT_OK;
    }
    j->messages = calloc((size_t)j->n + 1, sizeof *j->messages);
    if (!j->messages) return NT_FAIL(NT_E_NOMEM, "no memory to render a conversation of %d messages", j->n);
    for (int32_t i = 0; i < j->n; i++)
        j->messages[i] = (struct nt_message){j->turns[i].role, j->turns[i].text, j->turns[i].len};
    const nt_status st = make_sequences(j);
    free(j->messages);
    NT_TRY(st);
    bool any = false;
    for (int64_t i = first; i < j->out->n; i++) any = any || j->out->at[i].n_runs > 0;
    if (j->fit == NT_FIT_OK && !any)
        verdict(j, NT_FIT_NO_TARGET, "no assistant message with text and a weight above 0");
    return NT_OK;
}

/* ---- length ---- */

/* Tokens [at, at + n) of the prompt leave. */
static void cut_prompt(struct nt_sequence *q, int64_t at, int64_t n) {
    memmove(q->ids.data + at, q->ids.data + at + n, (size_t)(q->ids.len - at - n) * sizeof *q->ids.data);
    q->ids.len -= n;
    q->n_prompt -= (int32_t)n;
    for (int64_t i = 0; i < q->n_runs; i++) {
        q->runs[i].from -= (int32_t)n;
        q->runs[i].to -= (int32_t)n;
    }
}

static void cut_end(struct nt_sequence *q, int64_t len) {
    q->ids.len = len;
    while (q->n_runs > 0 && q->runs[q->n_runs - 1].from >= len) q->n_runs--;
    if (q->n_runs > 0 && q->runs[q->n_runs - 1].to > len) q->runs[q->n_runs - 1].to = (int32_t)len;
}

/* The sequences over one prompt lose the same tokens of it. */
static void fit_group(struct job *j, struct nt_sequence *q, int64_t n) {
    struct nt_render *r = j->r;
    int64_t over = 0, n_prompt = q[0].n_prompt, longest = 0;
    for (int64_t i = 0; i < n; i++) {
        if (q[i].ids.len > longest) longest = q[i].ids.len;
        if (q[i].n_prompt < n_prompt) n_prompt = q[i].n_prompt;
    }
    over = longest - r->max_length;
    if (over <= 0) return;
    if (!r->cut_prompt) {
        verdict(j, NT_FIT_TOO_LONG, "%lld tokens, more than max_length %d", (long long)longest, r->max_length);
        return;
    }
    const int64_t keep = n_prompt > 0 && q[0].ids.data[0] == r->bos ? 1 : 0;
    const int64_t spare = n_prompt > 1 ? n_prompt - 1 : 0; /* one token is left to predict from */
    if (over > spare && !r->cut_completion) {
        verdict(j, NT_FIT_LONG_COMPLETION,
                "a completion of %lld tokens and a token to begin from, more than max_length %d",
                (long long)(longest - n_prompt), r->max_length);
        return;
    }
    /* A completion that is too long by itself leaves the prompt half of the room. */
    const int64_t half = spare > r->max_length / 2 ? spare - r->max_length / 2 : 0;
    const int64_t cut = over <= spare ? over : half;
    for (int64_t i = 0; i < n; i++) {
        cut_prompt(&q[i], keep, cut);
        r->n_prompts_cut += cut > 0;
        if (q[i].ids.len <= r->max_length) continue;
        cut_end(&q[i], r->max_length);
        r->n_completions_cut++;
    }
}

/* Adds the sequences to the counts of r, or takes the counts of a refused row back. */
static void count(struct nt_render *r, const struct nt_render *before, const struct job *j) {
    const struct nt_sequences *s = j->out;
    if (j->fit != NT_FIT_OK) {
        r->n_prompts_cut = before->n_prompts_cut;
        r->n_completions_cut = before->n_completions_cut;
        r->n_split = before->n_split;
        r->n_apart = before->n_apart;
        return;
    }
    for (int64_t i = 0; i < s->n; i++) {
        const struct nt_sequence *q = &s->at[i];
        const int64_t len = q->ids.len;
        r->n_sequences++;
        r->n_ended += q->n_runs > 0 && q->runs[q->n_runs - 1].to == len && is_stop(r, q->ids.data[len - 1]);
    }
}

nt_status nt_render_talk(struct nt_render *r, const struct nt_turn *turns, int32_t n, bool raw,
                         struct nt_sequences *out, enum nt_fit *fit) {
    const struct nt_render before = *r;
    struct job j = {.r = r, .turns = turns, .n = n, .raw = raw, .out = out};
    out->n = 0;
    NT_TRY(make_talk(&j));
    for (int64_t i = 0; i < out->n && j.fit == NT_FIT_OK; i++) fit_group(&j, &out->at[i], 1);
    count(r, &before, &j);
    *fit = j.fit;
    return NT_OK;
}

nt_status nt_render_completions(struct nt_render *r, const struct nt_talk *talks, int32_t n, bool raw,
                                struct nt_sequences *out, enum nt_fit *fit) {
    const struct nt_render before = *r;
    struct job j = {.r = r, .raw = raw, .out = out};
    out->n = 0;
    for (int32_t i = 0; i < n && j.fit == NT_FIT_OK; i++) {
        j.turns = talks[i].turns;
        j.n = talks[i].n;
        NT_TRY(make_talk(&j));
        if (j.fit == NT_FIT_OK && out->n != i + 1)
            verdict(&j, NT_FIT_REFUSED,
                    "a completion of several turns, which the chat format does not keep in one sequence of max_length "
                    "%d",
                    r->max_length);
    }
    if (j.fit == NT_FIT_OK) fit_group(&j, out->at, out->n);
    count(r, &before, &j);
    *fit = j.fit;
    return NT_OK;
}
