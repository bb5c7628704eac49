/* What became of every row: log lines, and members of the training card. */
#include "prepare_impl.h"

#include "isotime.h"
#include "log.h"

#include <string.h>

static const struct {
    const char *text;
    bool of_records;
} reasons[] = {
#define X(name, of_records, text) {text, of_records},
    NT_LEFT_OUT_LIST(X)
#undef X
};

static const char *const kind_names[] = {"sft", "dpo", "kto"};

const char *nt_left_out_text(enum nt_left_out r) {
    return reasons[r].text;
}

/* "generate,train" */
static void list_consent(uint32_t consent, struct nt_strbuf *out) {
    static const struct {
        uint32_t bit;
        const char *name;
    } purposes[] = {
        {NT_PURPOSE_GENERATE, "generate"},
        {NT_PURPOSE_TRAIN,    "train"   },
        {NT_PURPOSE_DISTILL,  "distill" },
        {NT_PURPOSE_PUBLISH,  "publish" },
    };
    const size_t start = out->len;
    for (size_t i = 0; i < sizeof purposes / sizeof purposes[0]; i++) {
        if (consent & purposes[i].bit) nt_strbuf_addf(out, "%s%s", out->len > start ? "," : "", purposes[i].name);
    }
}

static void print_time(int64_t us, char text[NT_ISOTIME_TEXT]) {
    if (us != 0)
        nt_isotime_print(us, text);
    else
        memcpy(text, "unknown", sizeof "unknown");
}

/* ---- log ---- */

static void log_counts(const struct nt_prepare_report *r) {
    nt_info("prepare", "conversations %lld, seen %lld", (long long)r->n_conversations, (long long)r->n_records);
    for (int i = 0; i < NT_N_REFUSALS; i++) {
        if (r->refused[i] > 0)
            nt_info("prepare", "%10lld conversations not seen: %s", (long long)r->refused[i],
                    nt_refusal_name((enum nt_refusal)i));
    }
    for (int i = 0; i < NT_N_REFUSALS; i++) {
        if (r->unheard[i] > 0)
            nt_info("prepare", "%10lld judgements not heard, for their raters: %s", (long long)r->unheard[i],
                    nt_refusal_name((enum nt_refusal)i));
    }
    for (int i = 0; i < NT_N_LEFT_OUT; i++) {
        if (r->left_out[i] > 0)
            nt_info("prepare", "%10lld %s left out: %s", (long long)r->left_out[i],
                    reasons[i].of_records ? "conversations" : "rows", reasons[i].text);
    }
    nt_info("prepare", "%10lld rows of %d subjects to train on, %lld of %d held out", (long long)r->n_train,
            r->n_subjects_train, (long long)r->n_eval, r->n_subjects_eval);
    if (r->n_talks_train + r->n_talks_eval != r->n_train + r->n_eval)
        nt_info("prepare", "%10lld conversations these rows are of, %lld those held out", (long long)r->n_talks_train,
                (long long)r->n_talks_eval);
    if (r->n_nameless_train + r->n_nameless_eval > 0)
        nt_info("prepare", "%10lld of these rows name no subject, %lld of those held out",
                (long long)r->n_nameless_train, (long long)r->n_nameless_eval);
    for (int32_t i = 0; i < r->n_sources; i++) {
        const struct nt_source_count *s = &r->sources[i];
        struct nt_strbuf consent = NT_STRBUF_INIT;
        list_consent(s->consent, &consent);
        nt_info("prepare", "%10lld rows from source %s (ground: %s; consent to %s), %lld held out",
                (long long)s->n_train, *s->source ? s->source : "unnamed", nt_basis_name(s->basis),
                nt_strbuf_cstr(&consent), (long long)s->n_eval);
        nt_strbuf_release(&consent);
    }
}

void nt_prepare_log(const struct nt_prepare_report *r) {
    char first[NT_ISOTIME_TEXT], last[NT_ISOTIME_TEXT];
    log_counts(r);
    if (r->n_votes > 0)
        nt_info("prepare", "votes %lld, in dispute about %lld answers", (long long)r->n_votes,
                (long long)r->n_conflicts);
    if (r->n_prompts_cut + r->n_completions_cut + r->n_split + r->n_apart > 0)
        nt_info("prepare", "prompts cut %lld, completions cut %lld, turns split off %lld, completions apart %lld",
                (long long)r->n_prompts_cut, (long long)r->n_completions_cut, (long long)r->n_split,
                (long long)r->n_apart);
    if (r->n_completions_cut > 0)
        nt_warn("prepare", "%lld completions were cut at train.max_length: their ends are not learned",
                (long long)r->n_completions_cut);
    if (r->n_ended < r->n_sequences)
        nt_info("prepare", "%lld of %lld sequences end without an end-of-turn token to learn",
                (long long)(r->n_sequences - r->n_ended), (long long)r->n_sequences);
    print_time(r->first_us, first);
    print_time(r->last_us, last);
    nt_info("prepare", "tokens %lld, targets %lld, rows from %s to %s, %lld without a time", (long long)r->n_tok,
            (long long)r->n_target, first, last, (long long)r->n_undated);
    if (r->by_time && r->n_undated > 0)
        nt_warn("prepare",
                "%lld rows have no time: train.half_life_days and train.eval_since pass over them; ingest them with "
                "--created, or with times of their own",
                (long long)r->n_undated);
    if (r->kind != NT_TRAIN_KTO) return;
    nt_info("prepare", "desirable %lld x %.6g, undesirable %lld x %.6g, effective ratio %.4g (wanted: 1 to 1.333)",
            (long long)r->n_desirable, r->desirable_weight, (long long)r->n_undesirable, r->undesirable_weight,
            r->class_ratio);
    if (r->class_ratio > 0 && (r->class_ratio < 0.999 || r->class_ratio > 1.334))
        nt_warn("prepare",
                "the effective ratio of the classes is %.4g; set train.desirable_weight and "
                "train.undesirable_weight to 0 to have them computed",
                r->class_ratio);
}

/* ---- json ---- */

static void add_name(struct nt_strbuf *out, const char *name) {
    nt_strbuf_adds(out, ", ");
    nt_strbuf_add_json(out, name, strlen(name));
    nt_strbuf_adds(out, ": ");
}

static void add_int(struct nt_strbuf *out, const char *name, int64_t v) {
    add_name(out, name);
    nt_strbuf_addf(out, "%lld", (long long)v);
}

static void add_num(struct nt_strbuf *out, const char *name, double v) {
    add_name(out, name);
    nt_strbuf_add_json_num(out, v);
}

static void add_str(struct nt_strbuf *out, const char *name, const char *v) {
    add_name(out, name);
    nt_strbuf_add_json(out, v, strlen(v));
}

static void add_time(struct nt_strbuf *out, const char *name, int64_t us) {
    char text[NT_ISOTIME_TEXT];
    if (us == 0) {
        add_name(out, name);
        nt_strbuf_adds(out, "null");
        return;
    }
    nt_isotime_print(us, text);
    add_str(out, name, text);
}

static void add_sources(struct nt_strbuf *out, const struct nt_prepare_report *r) {
    add_name(out, "sources");
    nt_strbuf_addc(out, '[');
    for (int32_t i = 0; i < r->n_sources; i++) {
        const struct nt_source_count *s = &r->sources[i];
        struct nt_strbuf consent = NT_STRBUF_INIT;
        list_consent(s->consent, &consent);
        nt_strbuf_adds(out, i ? ", {\"source\": " : "{\"source\": ");
        nt_strbuf_add_json(out, s->source, strlen(s->source));
        add_str(out, "basis", nt_basis_name(s->basis));
        add_str(out, "consent", nt_strbuf_cstr(&consent));
        add_int(out, "train", s->n_train);
        add_int(out, "eval", s->n_eval);
        nt_strbuf_addc(out, '}');
        nt_strbuf_release(&consent);
    }
    nt_strbuf_addc(out, ']');
}

static void add_left_out(struct nt_strbuf *out, const struct nt_prepare_report *r) {
    add_name(out, "left_out");
    nt_strbuf_addc(out, '{');
    const size_t first = out->len;
    for (int i = 0; i < NT_N_REFUSALS + NT_N_LEFT_OUT; i++) {
        const bool refusal = i < NT_N_REFUSALS;
        const char *name = refusal ? nt_refusal_name((enum nt_refusal)i) : reasons[i - NT_N_REFUSALS].text;
        const int64_t n = refusal ? r->refused[i] : r->left_out[i - NT_N_REFUSALS];
        if (out->len > first) nt_strbuf_adds(out, ", ");
        nt_strbuf_add_json(out, name, strlen(name));
        nt_strbuf_addf(out, ": %lld", (long long)n);
    }
    nt_strbuf_addc(out, '}');
}

/* What their own rows are refused for, raters are not heard for; a quarantine is of rows alone. */
static void add_unheard(struct nt_strbuf *out, const struct nt_prepare_report *r) {
    add_name(out, "unheard");
    for (int i = 0; i < NT_REFUSED_QUARANTINE; i++) {
        const char *name = nt_refusal_name((enum nt_refusal)i);
        nt_strbuf_adds(out, i ? ", " : "{");
        nt_strbuf_add_json(out, name, strlen(name));
        nt_strbuf_addf(out, ": %lld", (long long)r->unheard[i]);
    }
    nt_strbuf_addc(out, '}');
}

void nt_prepare_json(const struct nt_prepare_report *r, struct nt_strbuf *out) {
    nt_strbuf_addf(out, "{\"loss\": \"%s\"", kind_names[r->kind]);
    add_time(out, "first_created", r->first_us);
    add_time(out, "last_created", r->last_us);
    add_int(out, "undated", r->n_undated);
    add_int(out, "conversations", r->n_conversations);
    add_int(out, "seen", r->n_records);
    add_int(out, "candidates", r->n_candidates);
    add_int(out, "train", r->n_train);
    add_int(out, "eval", r->n_eval);
    add_int(out, "conversations_train", r->n_talks_train);
    add_int(out, "conversations_eval", r->n_talks_eval);
    add_int(out, "subjects_train", r->n_subjects_train);
    add_int(out, "subjects_eval", r->n_subjects_eval);
    add_int(out, "nameless_train", r->n_nameless_train);
    add_int(out, "nameless_eval", r->n_nameless_eval);
    add_sources(out, r);
    add_left_out(out, r);
    add_int(out, "votes", r->n_votes);
    add_int(out, "conflicts", r->n_conflicts);
    add_unheard(out, r);
    add_int(out, "prompts_cut", r->n_prompts_cut);
    add_int(out, "completions_cut", r->n_completions_cut);
    add_int(out, "turns_split_off", r->n_split);
    add_int(out, "completions_apart", r->n_apart);
    add_int(out, "sequences", r->n_sequences);
    add_int(out, "sequences_ended", r->n_ended);
    add_int(out, "tokens", r->n_tok);
    add_int(out, "targets", r->n_target);
    if (r->kind == NT_TRAIN_KTO) {
        add_int(out, "desirable", r->n_desirable);
        add_int(out, "undesirable", r->n_undesirable);
        add_num(out, "desirable_weight", r->desirable_weight);
        add_num(out, "undesirable_weight", r->undesirable_weight);
        add_num(out, "class_ratio", r->class_ratio);
    }
    add_str(out, "chat_format", r->chat);
    add_str(out, "dataset_sha256", r->dataset_sha256);
    add_str(out, "train_sha256", r->train_sha256);
    add_str(out, "eval_sha256", r->eval_sha256);
    nt_strbuf_addc(out, '}');
}
