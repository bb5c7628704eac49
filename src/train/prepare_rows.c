/* Records to rows. A first pass hears what was said about completions (sft, kto) or pairs (dpo); when that is settled,
 * a second pass makes the rows: of kto and dpo one per vote that carries its thing, of sft one per conversation or
 * generation, whose turns weigh what their verdicts say. Both passes walk through the opinions of a record in the same
 * order, so the votes' numbers match. */
#include "prepare_impl.h"

#include "tok_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What somebody said. kto and sft: side[0] is good or not; dpo: side[0] is better than side[1]. */
struct opinion {
    int32_t n_prompt; /* messages of the record before the sides */
    struct side {
        const struct nt_record_text *texts;
        int32_t n;
        bool original; /* the text as it was before it was edited */
    } side[2];
    int32_t n_sides; /* 0: about the conversation as a whole */
    bool good;
    float weight;
    int64_t created_us;
};

typedef nt_status opinion_fn(struct nt_prep *p, const struct opinion *o);

struct slice {
    const char *s;
    size_t n;
};

static struct slice text_of(const struct nt_prep *p, const struct nt_record_text *t, bool original) {
    if (t->original && (original || !p->c->train_edits)) return (struct slice){t->original, t->original_len};
    return (struct slice){t->text, t->len};
}

static bool is_assistant(const struct nt_record_text *t) {
    return strcmp(t->role, "assistant") == 0;
}

/* Would teach to stop in the middle of a sentence; the edit of such an answer is whole. */
static bool is_cut_off(const struct nt_prep *p, const struct nt_record_text *t, bool original) {
    return t->cut_off && (original || !t->original || !p->c->train_edits);
}

/* ---- keys ---- */

static void digest_text(struct nt_sha256 *sha, const char *role, struct slice text) {
    const uint64_t len = text.n;
    nt_sha256_add(sha, role, strlen(role) + 1);
    nt_sha256_add(sha, &len, sizeof len);
    nt_sha256_add(sha, text.s, text.n);
}

static nt_status digest_texts(const struct nt_prep *p, const struct nt_record_text *texts, int32_t n, bool original,
                              uint8_t digest[NT_SHA256_BYTES]) {
    struct nt_sha256 *sha;
    NT_TRY(nt_sha256_new(&sha));
    for (int32_t i = 0; i < n; i++) digest_text(sha, texts[i].role, text_of(p, &texts[i], original));
    nt_sha256_finish(sha, digest);
    return NT_OK;
}

/* Names what the opinion is about; *first (or NULL): of a pair, side[0] comes first in it. */
static nt_status key_of(const struct nt_prep *p, const struct opinion *o, uint8_t key[NT_VOTE_KEY], bool *first) {
    uint8_t all[1 + 3 * NT_SHA256_BYTES] = {(uint8_t)o->n_sides}, digest[NT_SHA256_BYTES];
    uint8_t *sides = all + 1 + NT_SHA256_BYTES;
    NT_TRY(digest_texts(p, p->record.messages, o->n_prompt, false, all + 1));
    for (int32_t i = 0; i < o->n_sides; i++)
        NT_TRY(digest_texts(p, o->side[i].texts, o->side[i].n, o->side[i].original, sides + i * NT_SHA256_BYTES));
    const bool in_order = memcmp(sides, sides + NT_SHA256_BYTES, NT_SHA256_BYTES) <= 0;
    if (first) *first = in_order;
    if (o->n_sides == 2 && !in_order) {
        memcpy(digest, sides, NT_SHA256_BYTES);
        memcpy(sides, sides + NT_SHA256_BYTES, NT_SHA256_BYTES);
        memcpy(sides + NT_SHA256_BYTES, digest, NT_SHA256_BYTES);
    }
    nt_sha256(all, sizeof all, digest);
    memcpy(key, digest, NT_VOTE_KEY);
    return NT_OK;
}

/* ---- answers of split test ---- */

static bool is_tested(const struct nt_prep *p, const uint8_t key[NT_VOTE_KEY]) {
    return p->n_tested > 0 &&
           bsearch(key, p->tested_keys, (size_t)p->n_tested, sizeof *p->tested_keys, nt_prep_by_key) != NULL;
}

/* As it is, and as it was before it was edited. */
static nt_status add_tested(struct nt_prep *p, int32_t n_prompt, const struct nt_record_text *texts, int32_t n) {
    nt_tok_grow((void **)&p->tested_keys, &p->cap_tested, p->n_tested + 2, sizeof *p->tested_keys);
    for (int original = 0; original < 2; original++) {
        const struct opinion o = {.n_prompt = n_prompt, .side = {{texts, n, original}}, .n_sides = 1};
        NT_TRY(key_of(p, &o, p->tested_keys[p->n_tested++], NULL));
    }
    return NT_OK;
}

/* Every answer of the record. */
static nt_status add_all_tested(struct nt_prep *p) {
    const struct nt_record *r = &p->record;
    for (int32_t i = 0; i < r->head.n_messages; i++) {
        if (is_assistant(&r->messages[i])) NT_TRY(add_tested(p, i, &r->messages[i], 1));
    }
    for (int32_t i = 0; i < r->head.n_generations; i++)
        NT_TRY(add_tested(p, r->head.n_messages, &r->generations[i].text, 1));
    for (int32_t i = 0; i < r->head.n_pairs; i++) {
        const struct nt_record_pair *pair = &r->pairs[i];
        NT_TRY(add_tested(p, pair->n_prompt, pair->chosen, pair->n_chosen));
        NT_TRY(add_tested(p, pair->n_prompt, pair->rejected, pair->n_rejected));
    }
    return NT_OK;
}

/* A side of an opinion, as add_tested names it. */
static nt_status look_for_tested(struct nt_prep *p, const struct opinion *o, int32_t k) {
    const struct opinion one = {.n_prompt = o->n_prompt, .side = {o->side[k]}, .n_sides = 1};
    uint8_t key[NT_VOTE_KEY];
    NT_TRY(key_of(p, &one, key, NULL));
    p->tested = p->tested || is_tested(p, key);
    return NT_OK;
}

/* ---- opinions of a record ---- */

/* The edit that is in force for a text, among the record's feedback. */
static const struct nt_record_feedback *edit_of(const struct nt_record *r, const struct nt_record_text *t) {
    const struct nt_record_feedback *found = NULL;
    for (int32_t i = 0; i < r->head.n_feedback; i++) {
        const struct nt_record_feedback *f = &r->feedback[i];
        int32_t n_prompt;
        if (f->kind != NT_FEEDBACK_EDIT || nt_record_completion(r, f, &n_prompt) != t) continue;
        if (f->edit_len == t->len && memcmp(f->edit, t->text, t->len) == 0) found = f;
    }
    return found;
}

static bool changes(const struct nt_record_text *t) {
    return t->len != t->original_len || memcmp(t->text, t->original, t->len) != 0;
}

/* An edited answer is good, and better than what it replaces; an edit that leaves it as it was says that it is good. */
static nt_status hear_edit(struct nt_prep *p, const struct nt_record_text *t, int32_t n_prompt, opinion_fn *fn) {
    if (!t->original || !p->c->train_edits) return NT_OK;
    const struct nt_record_feedback *f = edit_of(&p->record, t);
    struct opinion o = {
        .n_prompt = n_prompt,
        .side = {{t, 1, false}, {t, 1, true}},
        .n_sides = 2,
        .good = true,
        .weight = f ? f->weight : 1,
        .created_us = f ? f->created_us : p->record.head.created_us
    };
    if (!(o.weight > 0)) return NT_OK;
    if (p->rules.kind == NT_TRAIN_DPO) return fn(p, &o);
    o.n_sides = 1;
    NT_TRY(fn(p, &o));
    if (!changes(t)) return NT_OK;
    o.side[0].original = true;
    o.good = false;
    return fn(p, &o);
}

static nt_status hear_edits(struct nt_prep *p, opinion_fn *fn) {
    const struct nt_record *r = &p->record;
    for (int32_t i = 0; i < r->head.n_messages; i++) {
        if (is_assistant(&r->messages[i])) NT_TRY(hear_edit(p, &r->messages[i], i, fn));
    }
    for (int32_t i = 0; i < r->head.n_generations; i++)
        NT_TRY(hear_edit(p, &r->generations[i].text, r->head.n_messages, fn));
    return NT_OK;
}

static nt_status hear_feedback(struct nt_prep *p, const struct nt_record_feedback *f, opinion_fn *fn) {
    const struct nt_record *r = &p->record;
    if (f->kind == NT_FEEDBACK_EDIT || !(f->weight > 0)) return NT_OK;
    const double value = f->kind == NT_FEEDBACK_THUMB ? (f->value + 1) / 2 : f->value;
    struct opinion o = {.n_sides = 1,
                        .good = value >= p->c->train_min_rating,
                        .weight = f->weight,
                        .created_us = f->created_us ? f->created_us : r->head.created_us};
    o.side[0] = (struct side){nt_record_completion(r, f, &o.n_prompt), 1, true};
    if (!o.side[0].texts && p->rules.kind == NT_TRAIN_SFT) {
        o.n_sides = 0;
        o.n_prompt = r->head.n_messages;
        return fn(p, &o);
    }
    if (!o.side[0].texts) { /* a conversation is judged by how it ends */
        o.n_prompt = r->head.n_messages - 1;
        if (o.n_prompt < 0) return NT_OK;
        o.side[0].texts = &r->messages[o.n_prompt];
    }
    return is_assistant(o.side[0].texts) ? fn(p, &o) : NT_OK;
}

static nt_status hear_pair(struct nt_prep *p, const struct nt_record_pair *pair, opinion_fn *fn) {
    const struct opinion o = {
        .n_prompt = pair->n_prompt,
        .side = {{pair->chosen, pair->n_chosen, false}, {pair->rejected, pair->n_rejected, false}},
        .n_sides = 2,
        .good = true,
        .weight = pair->weight,
        .created_us = pair->created_us ? pair->created_us : p->record.head.created_us
    };
    return pair->weight > 0 ? fn(p, &o) : NT_OK;
}

static nt_status each_opinion(struct nt_prep *p, opinion_fn *fn) {
    const struct nt_record *r = &p->record;
    if (p->rules.kind == NT_TRAIN_DPO) {
        for (int32_t i = 0; i < r->head.n_pairs; i++) NT_TRY(hear_pair(p, &r->pairs[i], fn));
    } else {
        for (int32_t i = 0; i < r->head.n_feedback; i++) NT_TRY(hear_feedback(p, &r->feedback[i], fn));
    }
    return hear_edits(p, fn);
}

static bool in_window(const struct nt_prep *p, int64_t created_us) {
    const struct nt_prep_rules *r = &p->rules;
    if (r->since_us && created_us < r->since_us) return false;
    return !r->until_us || (created_us && created_us < r->until_us);
}

/* Of sft the window is one of conversations, and what was said of them later still holds. */
static bool is_heard(const struct nt_prep *p, const struct opinion *o) {
    return p->rules.kind == NT_TRAIN_SFT || in_window(p, o->created_us);
}

static nt_status vote(struct nt_prep *p, const struct opinion *o) {
    uint8_t key[NT_VOTE_KEY];
    bool first;
    if (!is_heard(p, o)) return NT_OK;
    NT_TRY(key_of(p, o, key, &first));
    nt_votes_add(&p->votes, key, o->n_sides == 2 ? first : o->good, o->weight, o->created_us);
    return NT_OK;
}

/* ---- rows ---- */

void nt_prep_leave(struct nt_prep *p, enum nt_left_out reason, const char *why) {
    if (p->report->left_out[reason]++ > 0 || !why) return;
    const struct nt_record_head *h = &p->record.head;
    (void)snprintf(p->first[reason], sizeof p->first[reason], "%s, conversation %lld: %.200s",
                   nt_dataset_file(p->in->dataset, h->file)->path, (long long)h->row, why);
}

/* Rows of one source whose subjects agreed to the same on the same ground. */
static int32_t group_of(struct nt_prep *p) {
    const struct nt_record_head *h = &p->record.head;
    struct nt_prepare_report *rep = p->report;
    for (int32_t i = 0; i < rep->n_sources; i++) {
        const struct nt_source_count *s = &rep->sources[i];
        if (s->basis == h->basis && s->consent == h->consent && strcmp(s->source, h->source) == 0) return i;
    }
    struct nt_source_count *grown = realloc(rep->sources, (size_t)(rep->n_sources + 1) * sizeof *grown);
    char *name = strdup(h->source);
    if (!grown || !name) nt_bug("no memory for %d sources", rep->n_sources);
    rep->sources = grown;
    grown[rep->n_sources] = (struct nt_source_count){.source = name, .basis = h->basis, .consent = h->consent};
    return rep->n_sources++;
}

/* Who a row is from; rows that name nobody go by what their conversation begins with. */
static nt_status person_of(const struct nt_prep *p, uint8_t person[32]) {
    const struct nt_record *r = &p->record;
    int32_t n = 0;
    if (!r->head.anonymous) {
        memset(person, 0, 32);
        memcpy(person, r->head.subject_id, sizeof r->head.subject_id);
        return NT_OK;
    }
    while (n < r->head.n_messages && !is_assistant(&r->messages[n])) n++;
    return digest_texts(p, r->messages, n, false, person);
}

static void key_of_member(const struct nt_member *m, bool weighed, uint8_t key[NT_VOTE_KEY]) {
    for (int i = 0; i < NT_VOTE_KEY; i += 8) {
        uint64_t h = nt_xxh64(m->ids, (size_t)m->n_tok * sizeof *m->ids, (uint64_t)i);
        if (weighed) h = nt_xxh64(m->runs, (size_t)m->n_runs * sizeof *m->runs, h);
        memcpy(key + i, &h, 8);
    }
}

/* The same for a pair and for its members the other way round; returns whether member 0 comes first in it. */
static bool key_of_example(const struct nt_example *e, bool weighed, uint8_t key[NT_VOTE_KEY]) {
    uint8_t part[NT_MAX_MEMBERS][NT_VOTE_KEY] = {{0}};
    for (int32_t k = 0; k < e->n_members; k++) key_of_member(&e->member[k], weighed, part[k]);
    const bool first = e->n_members == 1 || memcmp(part[0], part[1], NT_VOTE_KEY) <= 0;
    for (int i = 0; i < NT_VOTE_KEY; i += 8) {
        const uint64_t h = nt_xxh64(part[!first], NT_VOTE_KEY, nt_xxh64(part[first], NT_VOTE_KEY, (uint64_t)i));
        memcpy(key + i, &h, 8);
    }
    return first;
}

static struct nt_member member_of(const struct nt_sequence *q) {
    return (struct nt_member){.ids = q->ids.data,
                              .runs = q->runs,
                              .n_tok = (int32_t)q->ids.len,
                              .n_runs = (int32_t)q->n_runs,
                              .n_prompt = q->n_prompt};
}

static bool too_short(const struct nt_prep *p, const struct nt_example *e) {
    for (int32_t k = 0; k < e->n_members; k++) {
        int64_t n = 0;
        for (int32_t i = 0; i < e->member[k].n_runs; i++) n += e->member[k].runs[i].to - e->member[k].runs[i].from;
        if (n < p->c->train_min_length) return true;
    }
    return false;
}

static nt_status add_row(struct nt_prep *p, struct nt_example *e) {
    const struct nt_record_head *h = &p->record.head;
    if (too_short(p, e)) {
        nt_prep_leave(p, NT_LEFT_SHORT, NULL);
        return NT_OK;
    }
    uint8_t words[NT_VOTE_KEY];
    e->subject = h->anonymous ? -1 : h->subject;
    e->file = h->file;
    e->conversation = h->row;
    struct nt_prep_row row = {.created_us = e->created_us,
                              .talk = p->n_talks,
                              .weight = e->weight,
                              .asked = h->split == NT_SPLIT_VALID,
                              .tested = p->tested,
                              .left = -1};
    row.group = group_of(p);
    NT_TRY(person_of(p, row.person));
    (void)key_of_example(e, true, row.key);
    row.good = e->n_members == 1 ? e->label : key_of_example(e, false, words);
    nt_tok_grow((void **)&p->rows, &p->cap_rows, p->n_rows + 1, sizeof *p->rows);
    p->rows[p->n_rows++] = row;
    (void)nt_examples_add(p->builder, e, h->source);
    return NT_OK;
}

static enum nt_left_out reason_of(enum nt_fit fit) {
    switch (fit) {
    case NT_FIT_TOO_LONG:
        return NT_LEFT_TOO_LONG;
    case NT_FIT_LONG_COMPLETION:
        return NT_LEFT_LONG_COMPLETION;
    case NT_FIT_REFUSED:
        return NT_LEFT_REFUSED;
    default:
        return NT_LEFT_NO_TARGET;
    }
}

/* ---- turns ---- */

static bool is_blank(struct slice text) {
    for (size_t i = 0; i < text.n; i++) {
        if (!strchr(" \t\r\n", text.s[i]) || text.s[i] == '\0') return false;
    }
    return true;
}

/* Appends texts to the scratch of side k as turns, which weigh nothing yet. */
static struct nt_turn *put_turns(struct nt_prep *p, int32_t k, int32_t at, const struct nt_record_text *texts,
                                 int32_t n, bool original, bool raw) {
    nt_tok_grow((void **)&p->turns[k], &p->cap_turns[k], at + n, sizeof *p->turns[k]);
    for (int32_t i = 0; i < n; i++) {
        const struct slice text = text_of(p, &texts[i], original);
        const char *role = strcmp(texts[i].role, "prompt") == 0 && !raw ? "user" : texts[i].role;
        p->turns[k][at + i] = (struct nt_turn){.role = role, .text = text.s, .len = text.n};
    }
    return p->turns[k];
}

/* Plain texts are joined as they are where there is no chat format, or where the settings say so. */
static bool is_raw(const struct nt_prep *p) {
    const struct nt_chat *chat = p->in->chat;
    if (p->record.head.kind != NT_CONV_TEXT || p->rules.text_format == NT_TEXT_CHAT) return false;
    return p->rules.text_format == NT_TEXT_RAW || !chat || strcmp(chat->name, "plain") == 0;
}

static bool has_tools(const struct nt_record *r, int32_t n_prompt, const struct nt_record_text *texts, int32_t n) {
    for (int32_t i = 0; i < n_prompt; i++) {
        if (r->messages[i].has_more) return true;
    }
    for (int32_t i = 0; i < n; i++) {
        if (texts[i].has_more) return true;
    }
    return r->head.has_tools;
}

/* ---- kto and dpo: a row per opinion ---- */

/* What the first row of a reason is said to have, where the reason may end the job; else NULL. */
static const char *why_of(enum nt_left_out reason) {
    switch (reason) {
    case NT_LEFT_TOOLS:
        return "tools or tool calls, which the chat formats do not print";
    case NT_LEFT_EMPTY:
        return "a completion without text";
    case NT_LEFT_UNFINISHED:
        return "an answer whose finish reason is not that it was finished";
    case NT_LEFT_NO_TARGET:
        return "no assistant message with text and a weight above 0";
    default:
        return NULL;
    }
}

/* A reason to leave the row out before it is rendered, or -1. */
static int fault_of(const struct nt_prep *p, const struct opinion *o, const struct nt_vote *v) {
    if (v->fate != NT_FATE_CARRIES) return v->fate == NT_FATE_CONFLICT ? NT_LEFT_CONFLICT : NT_LEFT_DUPLICATE;
    struct slice last[2] = {
        {NULL, 0}
    };
    for (int32_t k = 0; k < o->n_sides; k++) {
        const struct side *s = &o->side[k];
        if (s->n == 0) return NT_LEFT_EMPTY;
        last[k] = text_of(p, &s->texts[s->n - 1], s->original);
        if (is_blank(last[k])) return NT_LEFT_EMPTY;
        if (k == 0 && is_cut_off(p, &s->texts[s->n - 1], s->original)) return NT_LEFT_UNFINISHED; /* a worse may be */
        if (has_tools(&p->record, o->n_prompt, s->texts, s->n)) return NT_LEFT_TOOLS;
    }
    if (o->n_sides == 2 && o->side[0].n == 1 && o->side[1].n == 1 && last[0].n == last[1].n &&
        memcmp(last[0].s, last[1].s, last[0].n) == 0)
        return NT_LEFT_SAME;
    return -1;
}

static bool same_tokens(const struct nt_member *a, const struct nt_member *b) {
    return a->n_tok == b->n_tok && memcmp(a->ids, b->ids, (size_t)a->n_tok * sizeof *a->ids) == 0;
}

static nt_status row_of_opinion(struct nt_prep *p, const struct opinion *o) {
    p->report->n_candidates++;
    p->heard = true;
    if (!is_heard(p, o)) {
        nt_prep_leave(p, NT_LEFT_TIME, NULL);
        return NT_OK;
    }
    const struct nt_vote *v = &p->votes.votes[p->next_vote++];
    const int fault = fault_of(p, o, v);
    if (fault >= 0) {
        nt_prep_leave(p, (enum nt_left_out)fault, why_of((enum nt_left_out)fault));
        return NT_OK;
    }
    struct nt_talk talks[2];
    const bool raw = is_raw(p);
    p->tested = false;
    for (int32_t k = 0; k < o->n_sides; k++) {
        NT_TRY(look_for_tested(p, o, k));
        const struct side *s = &o->side[k];
        (void)put_turns(p, k, 0, p->record.messages, o->n_prompt, false, raw);
        struct nt_turn *turns = put_turns(p, k, o->n_prompt, s->texts, s->n, s->original, raw);
        for (int32_t i = 0; i < s->n; i++) turns[o->n_prompt + i].weight = 1;
        talks[k] = (struct nt_talk){turns, o->n_prompt + s->n};
    }
    enum nt_fit fit;
    NT_TRY(nt_render_completions(&p->render, talks, o->n_sides, raw, &p->sequences, &fit));
    if (fit != NT_FIT_OK) {
        nt_prep_leave(p, reason_of(fit), p->render.why);
        return NT_OK;
    }
    struct nt_example e = {.n_members = o->n_sides,
                           .weight = v->weight,
                           .label = p->rules.kind != NT_TRAIN_KTO || o->good,
                           .created_us = o->created_us};
    for (int32_t k = 0; k < o->n_sides; k++) e.member[k] = member_of(&p->sequences.at[k]);
    if (o->n_sides == 2 && same_tokens(&e.member[0], &e.member[1])) { /* the end that tells them apart was cut */
        nt_prep_leave(p, NT_LEFT_SAME, NULL);
        return NT_OK;
    }
    p->n_talks++;
    return add_row(p, &e);
}

/* ---- sft: a row per conversation and per generation ---- */

/* Why turns lost their weight: the reason of a row that has none left is the first of these. */
struct losses {
    bool rated, disputed, unrated, blank;
};

/* What an assistant's turn weighs after all that was said about it. */
static nt_status weigh(struct nt_prep *p, int32_t n_prompt, const struct nt_record_text *t, struct nt_turn *turn,
                       struct losses *lost) {
    const struct opinion o = {.n_prompt = n_prompt, .side = {{t, 1, false}}, .n_sides = 1};
    uint8_t key[NT_VOTE_KEY];
    turn->weight = is_assistant(t) ? t->weight : 0;
    if (turn->weight == 0) return NT_OK;
    if (is_blank((struct slice){turn->text, turn->len})) {
        lost->blank = true;
        turn->weight = 0;
        return NT_OK;
    }
    NT_TRY(key_of(p, &o, key, NULL));
    const struct nt_verdict *v = nt_votes_find(&p->votes, key);
    lost->unrated = lost->unrated || (!v && p->c->train_rated_only);
    lost->rated = lost->rated || (v && v->holds && !v->good);
    lost->disputed = lost->disputed || (v && !v->holds);
    if (v)
        turn->weight *= v->holds && v->good ? v->weight : 0;
    else if (p->c->train_rated_only)
        turn->weight = 0;
    p->tested = p->tested || (turn->weight > 0 && is_tested(p, key));
    return NT_OK;
}

static enum nt_left_out loss_of(const struct losses *lost) {
    if (lost->rated) return NT_LEFT_RATING;
    if (lost->disputed) return NT_LEFT_CONFLICT;
    if (lost->unrated) return NT_LEFT_UNRATED;
    return lost->blank ? NT_LEFT_EMPTY : NT_LEFT_NO_TARGET;
}

static nt_status add_sequences(struct nt_prep *p, int64_t created_us) {
    p->report->n_candidates += p->sequences.n - 1;
    p->n_talks++;
    for (int64_t i = 0; i < p->sequences.n; i++) {
        struct nt_example e = {.n_members = 1, .weight = 1, .label = true, .created_us = created_us};
        e.member[0] = member_of(&p->sequences.at[i]);
        if (e.member[0].n_runs > 0)
            NT_TRY(add_row(p, &e));
        else
            nt_prep_leave(p, e.member[0].n_tok == p->render.max_length ? NT_LEFT_LONG_COMPLETION : NT_LEFT_EMPTY,
                          why_of(NT_LEFT_EMPTY));
    }
    return NT_OK;
}

/* The conversation's messages, and behind them an answer or NULL. */
static nt_status row_of_talk(struct nt_prep *p, const struct nt_record_generation *answer) {
    const struct nt_record *r = &p->record;
    const int32_t n_messages = r->head.n_messages;
    const int64_t created_us = answer && answer->text.created_us ? answer->text.created_us : r->head.created_us;
    const bool raw = is_raw(p);
    struct losses lost = {0};
    float sum = 0;
    p->report->n_candidates++;
    if (!in_window(p, created_us)) {
        nt_prep_leave(p, NT_LEFT_TIME, NULL);
        return NT_OK;
    }
    p->tested = false;
    struct nt_turn *turns = put_turns(p, 0, 0, r->messages, n_messages, false, raw);
    for (int32_t i = 0; i < n_messages && !answer; i++) NT_TRY(weigh(p, i, &r->messages[i], &turns[i], &lost));
    if (answer) {
        turns = put_turns(p, 0, n_messages, &answer->text, 1, false, raw);
        NT_TRY(weigh(p, n_messages, &answer->text, &turns[n_messages], &lost));
    }
    const int32_t n = n_messages + (answer != NULL);
    for (int32_t i = 0; i < n; i++) sum += turns[i].weight;
    if (sum == 0) {
        const enum nt_left_out reason = loss_of(&lost);
        nt_prep_leave(p, reason, why_of(reason));
        return NT_OK;
    }
    if (has_tools(r, n_messages, answer ? &answer->text : NULL, answer != NULL)) {
        nt_prep_leave(p, NT_LEFT_TOOLS, why_of(NT_LEFT_TOOLS));
        return NT_OK;
    }
    enum nt_fit fit;
    NT_TRY(nt_render_talk(&p->render, turns, n, raw, &p->sequences, &fit));
    if (fit == NT_FIT_OK) return add_sequences(p, created_us);
    nt_prep_leave(p, reason_of(fit), p->render.why);
    return NT_OK;
}

/* Formats whose rows are meant to be learned from as conversations: one without a target is a mistake. */
static bool is_talk(const struct nt_record *r) {
    for (int32_t i = 0; i < r->head.n_messages; i++) {
        if (is_assistant(&r->messages[i]) && r->messages[i].weight > 0) return true;
    }
    return r->head.n_pairs == 0 && r->head.format != NT_ROW_BATCH && r->head.format != NT_ROW_PREFERENCE;
}

static nt_status rows_of_talk(struct nt_prep *p) {
    const struct nt_record *r = &p->record;
    const struct opinion whole = {.n_prompt = r->head.n_messages};
    uint8_t key[NT_VOTE_KEY];
    if (!is_talk(r) && r->head.n_generations == 0) {
        nt_prep_leave(p, NT_LEFT_NO_MATERIAL, NULL);
        return NT_OK;
    }
    NT_TRY(key_of(p, &whole, key, NULL));
    const struct nt_verdict *v = nt_votes_find(&p->votes, key);
    if (v && !(v->holds && v->good)) {
        p->report->n_candidates++;
        nt_prep_leave(p, v->holds ? NT_LEFT_RATING : NT_LEFT_CONFLICT, NULL);
        return NT_OK;
    }
    if (is_talk(r)) NT_TRY(row_of_talk(p, NULL));
    for (int32_t i = 0; i < r->head.n_generations; i++) {
        if (!is_cut_off(p, &r->generations[i].text, false)) {
            NT_TRY(row_of_talk(p, &r->generations[i]));
        } else {
            p->report->n_candidates++;
            nt_prep_leave(p, NT_LEFT_UNFINISHED, why_of(NT_LEFT_UNFINISHED));
        }
    }
    return NT_OK;
}

/* ---- passes ---- */

/* The record is of split test: neither other records of whoever it is from nor the same words of others are trained on.
 */
static nt_status add_tester(struct nt_prep *p) {
    NT_TRY(nt_dataset_load(p->in->dataset, p->at, &p->record));
    nt_tok_grow((void **)&p->testers, &p->cap_testers, p->n_testers + 1, sizeof *p->testers);
    NT_TRY(person_of(p, p->testers[p->n_testers++]));
    nt_prep_leave(p, NT_LEFT_SPLIT, NULL);
    return add_all_tested(p);
}

/* Loads record i if its head says so; *wanted false: it is left out. */
static nt_status load(struct nt_prep *p, int64_t i, bool count, bool *wanted) {
    struct nt_record_head h;
    nt_beat(p->in->beat);
    p->at = i;
    NT_TRY(nt_dataset_head(p->in->dataset, i, &h));
    const bool split = h.split != NT_SPLIT_TEST, source = nt_prep_source_wanted(p->c, h.source);
    *wanted = split && source;
    if (count && split && !source) nt_prep_leave(p, NT_LEFT_SOURCE, NULL);
    return *wanted ? nt_dataset_load(p->in->dataset, i, &p->record) : NT_OK;
}

nt_status nt_prep_gather(struct nt_prep *p) {
    const int64_t n = nt_dataset_n_records(p->in->dataset);
    for (int64_t i = 0; i < n; i++) {
        struct nt_record_head h;
        bool wanted;
        NT_TRY(nt_dataset_head(p->in->dataset, i, &h));
        if (h.split == NT_SPLIT_TEST) {
            p->at = i;
            NT_TRY(add_tester(p));
            continue;
        }
        if (h.n_feedback == 0 && h.n_pairs == 0) continue; /* nothing was said; an edit is feedback too */
        NT_TRY(load(p, i, false, &wanted));
        if (wanted) NT_TRY(each_opinion(p, vote));
    }
    if (p->n_tested > 0) qsort(p->tested_keys, (size_t)p->n_tested, sizeof *p->tested_keys, nt_prep_by_key);
    nt_votes_settle(&p->votes, p->rules.conflicts);
    p->report->n_votes = p->votes.n;
    p->report->n_conflicts = p->votes.n_conflicts;
    return NT_OK;
}

static nt_status rows_of_record(struct nt_prep *p) {
    if (p->rules.kind == NT_TRAIN_SFT) return rows_of_talk(p);
    p->heard = false;
    if (p->record.head.n_feedback > 0 || p->record.head.n_pairs > 0) NT_TRY(each_opinion(p, row_of_opinion));
    if (!p->heard) nt_prep_leave(p, NT_LEFT_NO_MATERIAL, NULL);
    return NT_OK;
}

nt_status nt_prep_make_rows(struct nt_prep *p) {
    const int64_t n = nt_dataset_n_records(p->in->dataset);
    for (int64_t i = 0; i < n; i++) {
        bool wanted;
        NT_TRY(load(p, i, true, &wanted));
        if (wanted) NT_TRY(rows_of_record(p));
    }
    return NT_OK;
}
