/* The steps of preparation, in the order prepare.h gives, and the sets at their end. */
#include "prepare_impl.h"

#include "log.h"
#include "order.h"
#include "split.h"
#include "tok_list.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double us_per_day = 86400e6;

/* ---- opening ---- */

static void release_prep(struct nt_prep *p) {
    nt_record_release(&p->record);
    nt_votes_release(&p->votes);
    nt_sequences_release(&p->sequences);
    nt_render_close(&p->render);
    nt_examples_end(p->builder);
    free(p->turns[0]);
    free(p->turns[1]);
    free(p->rows);
    free(p->testers);
    free(p->tested_keys);
}

static int32_t max_length(const struct nt_prepare_input *in) {
    const int64_t wanted = in->config->train_max_length;
    if (wanted <= in->max_len) return (int32_t)wanted;
    nt_info("prepare", "train.max_length %lld: the model has %d positions, which is the longest then",
            (long long)wanted, in->max_len);
    return in->max_len;
}

static nt_status open_prep(struct nt_prep *p, const struct nt_prepare_input *in, struct nt_prepare_report *report) {
    const struct nt_config *c = in->config;
    uint8_t digest[NT_SHA256_BYTES];
    *p = (struct nt_prep){.in = in, .c = c, .report = report};
    NT_TRY(nt_prep_read_rules(&p->rules, c));
    p->render = (struct nt_render){.tok = in->tok,
                                   .chat = in->chat,
                                   .no_chat = in->chat_error,
                                   .max_length = max_length(in),
                                   .cut_prompt = strcmp(c->train_too_long, "truncate") == 0,
                                   .cut_completion = strcmp(c->train_long_completion, "truncate") == 0,
                                   .train_on_eos = c->train_train_on_eos};
    NT_TRY(nt_render_open(&p->render));
    NT_TRY(nt_examples_begin(&p->builder, p->rules.kind));
    report->kind = p->rules.kind;
    report->n_records = nt_dataset_n_records(in->dataset);
    report->n_conversations = report->n_records;
    for (int i = 0; i < NT_N_REFUSALS; i++) {
        report->unheard[i] = nt_dataset_n_unheard(in->dataset, (enum nt_refusal)i);
        report->refused[i] = nt_dataset_refused(in->dataset, (enum nt_refusal)i);
        report->n_conversations += report->refused[i];
    }
    nt_dataset_digest(in->dataset, digest);
    nt_hex(digest, sizeof digest, report->dataset_sha256);
    report->by_time = in->config->train_half_life_days > 0 || in->config->train_eval_since[0] != '\0';
    (void)snprintf(report->chat, sizeof report->chat, "%s", in->chat ? in->chat->name : "");
    return NT_OK;
}

/* ---- what ends the job ---- */

static const struct {
    enum nt_left_out reason;
    const char *what, *remedy;
} fatal_rows[] = {
    {NT_LEFT_NO_TARGET,       "have no token to train on",
     "give them an assistant message, or leave them out with train.no_target = drop"                                                                       },
    {NT_LEFT_EMPTY,           "have an empty completion",                                  "give them an answer, or leave them out with train.empty = drop"},
    {NT_LEFT_UNFINISHED,      "have an answer that was not finished",                      "leave them out with train.unfinished = drop"                   },
    {NT_LEFT_REFUSED,         "cannot be shown in the model's chat format",
     "mend them, choose another format with model.chat, or leave them out with train.refused = drop"                                                       },
    {NT_LEFT_TOOLS,           "use tools, which the chat formats do not print yet",        "leave them out with train.refused = drop"                      },
    {NT_LEFT_TOO_LONG,        "are longer than train.max_length",                          "raise it, or set train.too_long = truncate or drop"            },
    {NT_LEFT_LONG_COMPLETION, "have a completion that does not fit into train.max_length",
     "raise it, or set train.long_completion = drop or truncate"                                                                                           },
};

static nt_status end_on_fatal(const struct nt_prep *p) {
    for (size_t i = 0; i < sizeof fatal_rows / sizeof fatal_rows[0]; i++) {
        const enum nt_left_out r = fatal_rows[i].reason;
        const int64_t n = p->report->left_out[r];
        if (n > 0 && p->rules.fatal[r])
            return NT_FAIL(NT_E_DATA, "%lld of %lld rows %s; %s. The first is %s", (long long)n,
                           (long long)p->report->n_candidates, fatal_rows[i].what, fatal_rows[i].remedy, p->first[r]);
    }
    return NT_OK;
}

/* "12 duplicate, 3 too long" */
static void list_left_out(const struct nt_prepare_report *r, struct nt_strbuf *out) {
    for (int i = 0; i < NT_N_REFUSALS; i++) {
        if (r->refused[i] > 0)
            nt_strbuf_addf(out, "%s%lld %s", out->len ? ", " : "", (long long)r->refused[i],
                           nt_refusal_name((enum nt_refusal)i));
    }
    for (int i = 0; i < NT_N_LEFT_OUT; i++) {
        if (r->left_out[i] > 0)
            nt_strbuf_addf(out, "%s%lld %s", out->len ? ", " : "", (long long)r->left_out[i],
                           nt_left_out_text((enum nt_left_out)i));
    }
    for (int i = 0; i < NT_N_REFUSALS; i++) {
        if (r->unheard[i] > 0)
            nt_strbuf_addf(out, "%s%lld judgements by raters: %s", out->len ? ", " : "", (long long)r->unheard[i],
                           nt_refusal_name((enum nt_refusal)i));
    }
}

static nt_status end_on_empty(const struct nt_prep *p) {
    const struct nt_prepare_report *r = p->report;
    const bool eval = p->c->train_eval_fraction > 0 || p->rules.eval_since_us != 0;
    if (r->n_train > 0 && (r->n_eval > 0 || !eval)) return NT_OK;
    struct nt_strbuf why = NT_STRBUF_INIT;
    nt_status st;
    list_left_out(r, &why);
    if (r->n_train > 0)
        st = NT_FAIL(NT_E_DATA,
                     "nothing is held out of %lld rows of %d subjects; raise train.eval_fraction, set "
                     "train.eval_since earlier, or set neither",
                     (long long)r->n_train, r->n_subjects_train);
    else
        st = NT_FAIL(
            NT_E_DATA,
            "nothing to train on: %lld conversations in train.input, %lld rows held out for evaluation; left out: "
            "%.500s. Consent is given at ingestion; filters are the settings of section train",
            (long long)r->n_conversations, (long long)r->n_eval, why.len ? nt_strbuf_cstr(&why) : "none");
    nt_strbuf_release(&why);
    return st;
}

/* ---- filters over all rows ---- */

static void leave_row(struct nt_prep *p, struct nt_prep_row *row, enum nt_left_out reason) {
    row->left = (int16_t)reason;
    p->report->left_out[reason]++;
}

/* An order over the kept rows; returns their number. */
static int64_t sort_rows(const struct nt_prep *p, struct nt_prep_row **sorted,
                         int (*compare)(const void *, const void *)) {
    int64_t n = 0;
    for (int64_t i = 0; i < p->n_rows; i++) {
        if (p->rows[i].left < 0) sorted[n++] = &p->rows[i];
    }
    qsort(sorted, (size_t)n, sizeof(void *), compare);
    return n;
}

static int by_key(const void *a, const void *b) {
    const struct nt_prep_row *x = *(struct nt_prep_row *const *)a, *y = *(struct nt_prep_row *const *)b;
    const int order = memcmp(x->key, y->key, sizeof x->key);
    if (order != 0) return order;
    if (x->asked != y->asked) return x->asked ? -1 : 1; /* what the corpus holds out is not trained on as another's */
    return x < y ? -1 : x > y;
}

static int by_person_newest(const void *a, const void *b) {
    const struct nt_prep_row *x = *(struct nt_prep_row *const *)a, *y = *(struct nt_prep_row *const *)b;
    const int order = memcmp(x->person, y->person, sizeof x->person);
    if (order != 0) return order;
    if (x->created_us != y->created_us) return x->created_us > y->created_us ? -1 : 1;
    return x < y ? -1 : x > y;
}

static bool is_anonymous(const struct nt_prep *p, const struct nt_prep_row *row) {
    return nt_examples_at(p->builder, (int32_t)(row - p->rows)).subject < 0;
}

/* Which of n rows with the same tokens hold: 1 the good ones, 0 the others (of pairs: the other way round), -1 none.
 * They disagree where what told them apart was cut off. */
static int verdict_of(const struct nt_prep *p, struct nt_prep_row **rows, int64_t n) {
    double weight[2] = {0, 0};
    const struct nt_prep_row *latest = rows[0];
    for (int64_t i = 0; i < n; i++) {
        weight[rows[i]->good] += rows[i]->weight;
        if (rows[i]->created_us > latest->created_us || (rows[i]->created_us == latest->created_us && rows[i] > latest))
            latest = rows[i];
    }
    const bool disputed = weight[0] > 0 && weight[1] > 0;
    if (!disputed || p->rules.conflicts == NT_CONFLICT_LATEST) return latest->good;
    if (p->rules.conflicts == NT_CONFLICT_DROP || weight[0] == weight[1]) return -1;
    return weight[1] > weight[0];
}

static void drop_duplicates(struct nt_prep *p, struct nt_prep_row **sorted) {
    const int64_t n = sort_rows(p, sorted, by_key);
    for (int64_t i = 0, end; i < n; i = end) {
        bool kept = false;
        for (end = i + 1; end < n && memcmp(sorted[end]->key, sorted[i]->key, sizeof sorted[i]->key) == 0;) end++;
        const int verdict = verdict_of(p, sorted + i, end - i);
        for (int64_t k = i; k < end; k++) {
            const bool holds = sorted[k]->good == verdict;
            if (!holds || kept) leave_row(p, sorted[k], holds ? NT_LEFT_DUPLICATE : NT_LEFT_CONFLICT);
            kept = kept || holds;
        }
    }
}

static void cap_subjects(struct nt_prep *p, struct nt_prep_row **sorted) {
    if (p->c->train_max_per_subject == 0) return;
    const int64_t n = sort_rows(p, sorted, by_person_newest);
    int64_t of_person = 0; /* conversations and answers, however many rows the chat format makes of each */
    for (int64_t i = 0; i < n; i++) {
        const bool same = i > 0 && memcmp(sorted[i - 1]->person, sorted[i]->person, sizeof sorted[i]->person) == 0;
        if (!same) of_person = 0;
        of_person += !same || sorted[i - 1]->talk != sorted[i]->talk;
        if (of_person > p->c->train_max_per_subject && !is_anonymous(p, sorted[i]))
            leave_row(p, sorted[i], NT_LEFT_SUBJECT_CAP);
    }
}

static nt_status split_rows(struct nt_prep *p, struct nt_prep_row **sorted) {
    const struct nt_split_rule rule = {
        .fraction = p->c->train_eval_fraction, .salt = (uint64_t)p->c->train_seed, .since_us = p->rules.eval_since_us};
    const int32_t n = (int32_t)sort_rows(p, sorted, by_person_newest);
    const int32_t n_all = n + (int32_t)p->n_testers;
    struct nt_split_row *rows = calloc((size_t)n_all + 1, sizeof *rows);
    uint8_t *side = calloc((size_t)n_all + 1, 1);
    nt_status st = NT_OK;
    if (!rows || !side) st = NT_FAIL(NT_E_NOMEM, "no memory to split %d rows", n_all);
    for (int32_t i = 0; i < n && st == NT_OK; i++) {
        rows[i] = (struct nt_split_row){.created_us = sorted[i]->created_us, .asked = sorted[i]->asked};
        memcpy(rows[i].person, sorted[i]->person, sizeof rows[i].person);
    }
    for (int32_t i = n; i < n_all && st == NT_OK; i++) {
        rows[i].elsewhere = true;
        memcpy(rows[i].person, p->testers[i - n], sizeof rows[i].person);
    }
    if (st == NT_OK) st = nt_split_rows(&rule, rows, n_all, side);
    for (int32_t i = 0; i < n && st == NT_OK; i++) {
        sorted[i]->side = side[i];
        if (side[i] == NT_SIDE_NEITHER) leave_row(p, sorted[i], NT_LEFT_HELD_OUT);
    }
    free(rows);
    free(side);
    return st;
}

struct targets {
    uint8_t (*keys)[NT_VOTE_KEY]; // [n] of ends of runs: the tokens up to there
    int64_t n, cap;
};

/* A token that ends the text may stand behind the last turn alone, so it does not tell targets apart. */
static void key_of_target(const struct nt_prep *p, const struct nt_member *m, int32_t run, uint8_t key[NT_VOTE_KEY]) {
    const int32_t to = m->runs[run].to, n = m->ids[to - 1] == p->render.eos ? to - 1 : to;
    for (int i = 0; i < NT_VOTE_KEY; i += 8) {
        const uint64_t h = nt_xxh64(m->ids, (size_t)n * sizeof *m->ids, (uint64_t)i);
        memcpy(key + i, &h, 8);
    }
}

static void add_targets(const struct nt_prep *p, int64_t row, struct targets *t) {
    const struct nt_example e = nt_examples_at(p->builder, (int32_t)row);
    for (int32_t k = 0; k < e.n_members; k++) {
        const struct nt_member *m = &e.member[k];
        nt_tok_grow((void **)&t->keys, &t->cap, t->n + m->n_runs, sizeof *t->keys);
        for (int32_t i = 0; i < m->n_runs; i++) key_of_target(p, m, i, t->keys[t->n++]);
    }
}

static bool has_target_of(const struct nt_prep *p, int64_t row, const struct targets *t) {
    const struct nt_example e = nt_examples_at(p->builder, (int32_t)row);
    for (int32_t k = 0; k < e.n_members; k++) {
        for (int32_t i = 0; i < e.member[k].n_runs; i++) {
            uint8_t key[NT_VOTE_KEY];
            key_of_target(p, &e.member[k], i, key);
            if (bsearch(key, t->keys, (size_t)t->n, sizeof *t->keys, nt_prep_by_key)) return true;
        }
    }
    return false;
}

/* Whoever it is from, and however its turns are weighed: an answer that is held out is not trained on behind the same
 * tokens, be the rest of its conversation longer, shorter or another. Nor is one that is kept for a test. */
static void drop_evaluated(struct nt_prep *p) {
    struct targets held = {0};
    for (int64_t i = 0; i < p->n_rows; i++) {
        if (p->rows[i].left < 0 && p->rows[i].side == NT_SIDE_EVAL) add_targets(p, i, &held);
    }
    if (held.n > 0) qsort(held.keys, (size_t)held.n, sizeof *held.keys, nt_prep_by_key);
    for (int64_t i = 0; i < p->n_rows; i++) {
        struct nt_prep_row *row = &p->rows[i];
        if (row->left >= 0 || row->side != NT_SIDE_TRAIN) continue;
        if (held.n > 0 && has_target_of(p, i, &held))
            leave_row(p, row, NT_LEFT_EVALUATED);
        else if (row->tested)
            leave_row(p, row, NT_LEFT_TESTED);
    }
    free(held.keys);
}

static void count_subjects(struct nt_prep *p, struct nt_prep_row **sorted) {
    const int64_t n = sort_rows(p, sorted, by_person_newest);
    bool any[3] = {false}; /* of the person at work, by side */
    for (int64_t i = 0; i < n; i++) {
        if (!is_anonymous(p, sorted[i]))
            any[sorted[i]->side] = true;
        else if (sorted[i]->side == NT_SIDE_TRAIN)
            p->report->n_nameless_train++;
        else
            p->report->n_nameless_eval += sorted[i]->side == NT_SIDE_EVAL;
        if (i + 1 < n && memcmp(sorted[i + 1]->person, sorted[i]->person, sizeof sorted[i]->person) == 0) continue;
        p->report->n_subjects_train += any[NT_SIDE_TRAIN];
        p->report->n_subjects_eval += any[NT_SIDE_EVAL];
        memset(any, 0, sizeof any);
    }
}

/* ---- weights ---- */

static void decay(struct nt_prep *p) {
    int64_t newest = 0;
    for (int64_t i = 0; i < p->n_rows; i++) {
        const struct nt_prep_row *row = &p->rows[i];
        if (row->left >= 0 || row->side != NT_SIDE_TRAIN) continue;
        p->report->n_undated += row->created_us == 0;
        if (row->created_us > newest) newest = row->created_us;
    }
    if (!(p->c->train_half_life_days > 0)) return;
    for (int64_t i = 0; i < p->n_rows; i++) {
        struct nt_prep_row *row = &p->rows[i];
        if (row->left >= 0 || row->side != NT_SIDE_TRAIN || row->created_us == 0) continue;
        const double days = (double)(newest - row->created_us) / us_per_day;
        row->weight = (float)(row->weight * exp2(-days / p->c->train_half_life_days));
        if (row->weight < FLT_MIN) leave_row(p, row, NT_LEFT_DECAYED); /* a batch of nothing else had no mean */
    }
}

/* Where the ratio of effective weights is to lie (Ethayarajh et al. 2024, KTO). */
static const double ratio_least = 1, ratio_most = 4.0 / 3;

/* The factor that brings ratio into the range, 1 if it lies there. */
static double into_range(double ratio) {
    if (ratio < ratio_least) return ratio_least / ratio;
    return ratio > ratio_most ? ratio_most / ratio : 1;
}

/* Effective weight of a class: mean weight of its rows, times how often they are served, times its factor. A factor
 * that is not given raises the weaker class, never lowers the stronger one. */
static void weigh_classes(struct nt_prep *p) {
    struct nt_prepare_report *r = p->report;
    double served[2], sum[2] = {0, 0};
    int32_t n[2] = {0, 0};
    r->desirable_weight = r->undesirable_weight = 1;
    if (p->rules.kind != NT_TRAIN_KTO) return;
    for (int64_t i = 0; i < p->n_rows; i++) {
        const struct nt_prep_row *row = &p->rows[i];
        if (row->left >= 0 || row->side != NT_SIDE_TRAIN) continue;
        const bool label = nt_examples_at(p->builder, (int32_t)i).label;
        sum[label] += row->weight;
        n[label]++;
    }
    r->n_desirable = n[1];
    r->n_undesirable = n[0];
    if (n[0] == 0 || n[1] == 0) return; /* both_classes says so */
    nt_order_shares(n[1], n[0], (int32_t)p->c->train_batch_size, &served[1], &served[0]);
    r->desirable_sum = sum[1] / n[1] * served[1];
    r->undesirable_sum = sum[0] / n[0] * served[0];
    double good = p->c->train_desirable_weight, bad = p->c->train_undesirable_weight;
    const double ratio = r->desirable_sum / r->undesirable_sum * (good > 0 ? good : 1) / (bad > 0 ? bad : 1);
    const double factor = into_range(ratio);
    if (good == 0) good = bad > 0 || factor > 1 ? factor : 1;
    if (bad == 0) bad = p->c->train_desirable_weight > 0 || factor < 1 ? 1 / factor : 1;
    r->desirable_weight = good;
    r->undesirable_weight = bad;
    r->class_ratio = r->desirable_sum * good / (r->undesirable_sum * bad);
}

/* ---- sets ---- */

static nt_status make_set(struct nt_prep *p, enum nt_side side, struct nt_example_set *set) {
    int32_t *keep = calloc((size_t)p->n_rows + 1, sizeof *keep);
    float *weights = calloc((size_t)p->n_rows + 1, sizeof *weights);
    struct nt_example_pick pick = {.examples = keep,
                                   .weights = weights,
                                   .desirable_weight = p->report->desirable_weight,
                                   .undesirable_weight = p->report->undesirable_weight};
    nt_status st = NT_OK;
    if (!keep || !weights) st = NT_FAIL(NT_E_NOMEM, "no memory for a set of %lld rows", (long long)p->n_rows);
    for (int64_t i = 0; i < p->n_rows && st == NT_OK; i++) {
        const struct nt_prep_row *row = &p->rows[i];
        if (row->left >= 0 || row->side != side) continue;
        keep[pick.n] = (int32_t)i;
        weights[pick.n++] = row->weight;
    }
    if (st == NT_OK && pick.n > 0) st = nt_examples_finish(p->builder, &pick, set);
    free(keep);
    free(weights);
    return st;
}

/* Rows stand in the order of their conversations. */
static void count_conversations(struct nt_prep *p) {
    struct {
        int32_t file;
        int64_t conversation, n;
    } side[2] = {
        {-1, 0, 0},
        {-1, 0, 0}
    };
    for (int64_t i = 0; i < p->n_rows; i++) {
        const struct nt_example e = nt_examples_at(p->builder, (int32_t)i);
        if (p->rows[i].left >= 0) continue;
        const int k = p->rows[i].side == NT_SIDE_EVAL;
        side[k].n += side[k].file != e.file || side[k].conversation != e.conversation;
        side[k].file = e.file;
        side[k].conversation = e.conversation;
    }
    p->report->n_talks_train = side[0].n;
    p->report->n_talks_eval = side[1].n;
}

static void count_rows(struct nt_prep *p) {
    struct nt_prepare_report *r = p->report;
    for (int64_t i = 0; i < p->n_rows; i++) {
        const struct nt_prep_row *row = &p->rows[i];
        if (row->left >= 0) continue;
        const bool train = row->side == NT_SIDE_TRAIN;
        *(train ? &r->n_train : &r->n_eval) += 1;
        *(train ? &r->sources[row->group].n_train : &r->sources[row->group].n_eval) += 1;
        if (!train || row->created_us == 0) continue;
        if (r->first_us == 0 || row->created_us < r->first_us) r->first_us = row->created_us;
        if (row->created_us > r->last_us) r->last_us = row->created_us;
    }
    count_conversations(p);
    r->n_prompts_cut = p->render.n_prompts_cut;
    r->n_completions_cut = p->render.n_completions_cut;
    r->n_split = p->render.n_split;
    r->n_apart = p->render.n_apart;
    r->n_sequences = p->render.n_sequences;
    r->n_ended = p->render.n_ended;
}

static nt_status filter_rows(struct nt_prep *p) {
    if (p->n_rows > INT32_MAX)
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%lld rows to train on; a run holds %d, select some by train.since or train.source",
                       (long long)p->n_rows, INT32_MAX);
    struct nt_prep_row **sorted = calloc((size_t)p->n_rows + 1, sizeof(void *));
    if (!sorted) return NT_FAIL(NT_E_NOMEM, "no memory to filter %lld rows", (long long)p->n_rows);
    drop_duplicates(p, sorted);
    cap_subjects(p, sorted);
    const nt_status st = split_rows(p, sorted);
    if (st == NT_OK) {
        drop_evaluated(p);
        decay(p);
        count_subjects(p, sorted);
    }
    free(sorted);
    return st;
}

static nt_status make_sets(struct nt_prep *p, struct nt_prepared *out) {
    struct nt_prepare_report *r = p->report;
    NT_TRY(make_set(p, NT_SIDE_TRAIN, &out->train));
    NT_TRY(make_set(p, NT_SIDE_EVAL, &out->eval));
    out->train.kind = out->eval.kind = p->rules.kind;
    r->n_tok = out->train.n_tok;
    r->n_target = out->train.n_target;
    nt_hex(out->train.digest, NT_SHA256_BYTES, r->train_sha256);
    if (out->eval.n > 0) nt_hex(out->eval.digest, NT_SHA256_BYTES, r->eval_sha256);
    return NT_OK;
}

static nt_status both_classes(const struct nt_prep *p) {
    const struct nt_prepare_report *r = p->report;
    if (r->kind != NT_TRAIN_KTO || (r->n_desirable > 0 && r->n_undesirable > 0)) return NT_OK;
    return NT_FAIL(NT_E_DATA,
                   "%lld desirable and %lld undesirable rows to train on; kto needs both: add feedback of the other "
                   "kind, move train.min_rating, or train with sft",
                   (long long)r->n_desirable, (long long)r->n_undesirable);
}

static nt_status name_files(const struct nt_dataset *d, struct nt_prepared *out) {
    const int32_t n = nt_dataset_n_files(d);
    out->files = calloc((size_t)n + 1, sizeof *out->files);
    for (; out->files && out->n_files < n; out->n_files++) {
        out->files[out->n_files] = strdup(nt_dataset_file(d, out->n_files)->path);
        if (!out->files[out->n_files]) break;
    }
    return out->n_files == n ? NT_OK : NT_FAIL(NT_E_NOMEM, "no memory for the names of %d files", n);
}

static nt_status prepare(struct nt_prep *p, const struct nt_prepare_input *in, struct nt_prepared *out) {
    NT_TRY(open_prep(p, in, &out->report));
    NT_TRY(name_files(in->dataset, out));
    NT_TRY(nt_prep_gather(p));
    NT_TRY(nt_prep_make_rows(p));
    NT_TRY(end_on_fatal(p));
    NT_TRY(filter_rows(p));
    count_rows(p);
    weigh_classes(p);
    NT_TRY(end_on_empty(p));
    NT_TRY(both_classes(p));
    return make_sets(p, out);
}

nt_status nt_prepare_run(const struct nt_prepare_input *in, struct nt_prepared *out) {
    struct nt_prep p = {0};
    *out = (struct nt_prepared){0};
    const nt_status st = prepare(&p, in, out);
    release_prep(&p);
    if (st != NT_OK) {
        nt_example_set_release(&out->train);
        nt_example_set_release(&out->eval);
    }
    return st;
}

void nt_prepared_release(struct nt_prepared *p) {
    nt_example_set_release(&p->train);
    nt_example_set_release(&p->eval);
    for (int32_t i = 0; i < p->n_files; i++) free(p->files[i]);
    free(p->files);
    for (int32_t i = 0; i < p->report.n_sources; i++) free((char *)p->report.sources[i].source);
    free(p->report.sources);
    *p = (struct nt_prepared){0};
}
