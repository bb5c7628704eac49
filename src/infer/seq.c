#include "seq.h"

#include <stdlib.h>
#include <string.h>

void nt_seq_init(struct nt_seq *s, const struct nt_sampling *params, int32_t choice, uint64_t seed,
                 const struct nt_ids *prompt, int32_t limit) {
    *s = (struct nt_seq){
        .params = params, .choice = choice, .seed = seed, .n_prompt = (int32_t)prompt->len, .limit = limit};
    nt_ids_append(&s->ids, prompt->data, prompt->len);
    nt_detok_init(&s->detok, true);
    s->use_penalty = nt_penalty_needed(params);
    for (int64_t i = 0; nt_penalty_of_prompt(params) && i < prompt->len; i++)
        nt_penalty_see(&s->penalty, prompt->data[i], 0);
}

void nt_seq_release(struct nt_seq *s) {
    nt_ids_release(&s->ids);
    nt_detok_release(&s->detok);
    nt_strbuf_release(&s->text);
    nt_penalty_release(&s->penalty);
    free(s->pages);
    free(s->masked);
    free(s->logprob);
    free(s->top_id);
    free(s->top_lp);
    *s = (struct nt_seq){0};
}

static bool has_id(const int32_t *ids, int32_t n, int32_t id) {
    for (int32_t i = 0; i < n; i++)
        if (ids[i] == id) return true;
    return false;
}

/* Before min_tokens neither the model's stops nor the row's own may be chosen. */
static void fill_masked(struct nt_seq *s, const int32_t *stops, int32_t n_stops) {
    s->n_masked = n_stops + s->params->n_stop_ids;
    s->masked = malloc((size_t)(s->n_masked ? s->n_masked : 1) * sizeof *s->masked);
    NT_CHECK(s->masked);
    if (n_stops) memcpy(s->masked, stops, (size_t)n_stops * sizeof *stops);
    if (s->params->n_stop_ids)
        memcpy(s->masked + n_stops, s->params->stop_ids, (size_t)s->params->n_stop_ids * sizeof *stops);
}

void nt_seq_sample_in(struct nt_seq *s, int32_t pending_row, const int32_t *stops, int32_t n_stops,
                      struct nt_sample_in *in) {
    const bool pending = pending_row >= 0;
    const int32_t answer = nt_seq_n_answer(s) + pending;
    const bool too_short = answer < s->params->min_tokens;
    if (too_short && !s->masked) fill_masked(s, stops, n_stops);
    *in = (struct nt_sample_in){.params = s->params,
                                .penalty = s->use_penalty ? &s->penalty : NULL,
                                .by_host = s->by_host,
                                .pending = pending,
                                .pending_row = pending_row,
                                .masked = s->masked,
                                .n_masked = too_short ? s->n_masked : 0,
                                .seed = s->seed,
                                .stream = ((uint64_t)(uint32_t)s->choice << 32) | (uint32_t)answer};
}

static void keep_logprobs(struct nt_seq *s, const struct nt_sample_out *out, int32_t at) {
    if (s->params->top_logprobs < 0) return;
    const int32_t top = out->n_top;
    if (at >= s->cap_lp) {
        s->n_top = top;
        s->cap_lp = s->cap_lp ? 2 * s->cap_lp : 64;
        const size_t cap = (size_t)s->cap_lp, cap_top = cap * (size_t)(top ? top : 1);
        s->logprob = realloc(s->logprob, cap * sizeof *s->logprob);
        s->top_id = realloc(s->top_id, cap_top * sizeof *s->top_id);
        s->top_lp = realloc(s->top_lp, cap_top * sizeof *s->top_lp);
        NT_CHECK(s->logprob && s->top_id && s->top_lp);
    }
    s->logprob[at] = out->logprob;
    for (int32_t i = 0; i < top; i++) {
        s->top_id[at * top + i] = (uint32_t)out->top_id[i];
        s->top_lp[at * top + i] = out->top_lp[i];
    }
}

/* Looks for stop strings that end in the text added since `from`; cuts the text at the earliest. */
static bool hit_stop_string(struct nt_seq *s, size_t from) {
    const struct nt_sampling *p = s->params;
    const char *text = nt_strbuf_cstr(&s->text);
    size_t cut = SIZE_MAX;
    for (int32_t i = 0; i < p->n_stop; i++) {
        const size_t len = strlen(p->stop[i]);
        if (len == 0) continue;
        const size_t start = from > len - 1 ? from - (len - 1) : 0;
        const char *at = s->text.len > start ? memmem(text + start, s->text.len - start, p->stop[i], len) : NULL;
        if (!at) continue;
        const size_t end = (size_t)(at - text) + (p->include_stop ? len : 0);
        if (end < cut) cut = end;
    }
    if (cut == SIZE_MAX) return false;
    s->text.len = cut;
    if (s->text.data) s->text.data[cut] = 0;
    return true;
}

static void end(struct nt_seq *s, enum nt_finish why) {
    s->done = true;
    s->finish = why;
}

void nt_seq_accept(struct nt_seq *s, const struct nt_tokenizer *tok, const int32_t *stops, int32_t n_stops,
                   const struct nt_sample_out *out) {
    const struct nt_sampling *p = s->params;
    const size_t from = s->text.len;
    const int32_t answer = nt_seq_n_answer(s);
    if (out->failed) {
        end(s, NT_FINISH_ERROR);
        return;
    }
    if (answer >= p->min_tokens &&
        ((!p->ignore_eos && has_id(stops, n_stops, out->token)) || has_id(p->stop_ids, p->n_stop_ids, out->token))) {
        nt_detok_finish(&s->detok, tok, &s->text);
        end(s, NT_FINISH_STOP);
        return;
    }
    keep_logprobs(s, out, answer);
    nt_ids_push(&s->ids, out->token);
    if (s->use_penalty) nt_penalty_see(&s->penalty, out->token, 1);
    nt_detok_step(&s->detok, tok, out->token, &s->text);
    const bool full = answer + 1 >= p->max_tokens || s->ids.len >= s->limit;
    if (full) nt_detok_finish(&s->detok, tok, &s->text);
    if (answer + 1 >= p->min_tokens && hit_stop_string(s, from))
        end(s, NT_FINISH_STOP);
    else if (full)
        end(s, NT_FINISH_LENGTH);
}

void nt_seq_take_choice(struct nt_seq *s, struct nt_choice *c) {
    const int32_t n = nt_seq_n_answer(s);
    *c = (struct nt_choice){.finish = s->finish, .n_tok = n, .n_top = n ? s->n_top : 0, .text_len = s->text.len};
    c->tok = malloc((size_t)(n ? n : 1) * sizeof *c->tok);
    c->text = malloc(s->text.len + 1);
    NT_CHECK(c->tok && c->text);
    for (int32_t i = 0; i < n; i++) c->tok[i] = (uint32_t)s->ids.data[s->n_prompt + i];
    memcpy(c->text, nt_strbuf_cstr(&s->text), s->text.len + 1);
    if (s->params->top_logprobs >= 0) {
        c->logprob = s->logprob ? s->logprob : calloc(1, sizeof *c->logprob);
        NT_CHECK(c->logprob);
        s->logprob = NULL;
        if (c->n_top) {
            c->top_id = s->top_id;
            c->top_lp = s->top_lp;
            s->top_id = NULL;
            s->top_lp = NULL;
        }
    }
}
