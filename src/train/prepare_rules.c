/* The section train as rules. */
#include "prepare_impl.h"

#include "isotime.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int choice(const char *value, const char *const *names) {
    int i = 0;
    while (strcmp(value, names[i]) != 0) i++;
    return i;
}

static nt_status read_time(const char *key, const char *text, int64_t *us) {
    char *end;
    *us = 0;
    if (!*text) return NT_OK;
    errno = 0;
    const double seconds = strtod(text, &end);
    if (errno == 0 && end != text && !*end && nt_isotime_from_seconds(seconds, us)) return NT_OK;
    if (nt_isotime_parse(text, strlen(text), us)) return NT_OK;
    return NT_FAIL(NT_E_CONFIG,
                   "train.%s = \"%.60s\" is no time; expected 2026-01-31, 2026-01-31T12:00:00Z or unix seconds", key,
                   text);
}

nt_status nt_prep_read_rules(struct nt_prep_rules *r, const struct nt_config *c) {
    static const char *const kinds[] = {"sft", "dpo", "kto"}, *const formats[] = {"auto", "chat", "raw"},
                             *const conflicts[] = {"latest", "majority", "drop"};
    *r = (struct nt_prep_rules){.kind = (enum nt_train_kind)choice(c->train_loss, kinds),
                                .text_format = (enum nt_text_format)choice(c->train_text_format, formats),
                                .conflicts = (enum nt_conflict_rule)choice(c->train_conflicts, conflicts)};
    NT_TRY(read_time("since", c->train_since, &r->since_us));
    NT_TRY(read_time("until", c->train_until, &r->until_us));
    NT_TRY(read_time("eval_since", c->train_eval_since, &r->eval_since_us));
    r->fatal[NT_LEFT_TOO_LONG] = strcmp(c->train_too_long, "error") == 0;
    r->fatal[NT_LEFT_LONG_COMPLETION] = strcmp(c->train_long_completion, "error") == 0;
    r->fatal[NT_LEFT_NO_TARGET] = strcmp(c->train_no_target, "error") == 0;
    r->fatal[NT_LEFT_EMPTY] = strcmp(c->train_empty, "error") == 0;
    r->fatal[NT_LEFT_UNFINISHED] = strcmp(c->train_unfinished, "error") == 0;
    r->fatal[NT_LEFT_REFUSED] = r->fatal[NT_LEFT_TOOLS] = strcmp(c->train_refused, "error") == 0;
    if (r->kind == NT_TRAIN_KTO && c->train_batch_size < 2)
        return NT_FAIL(NT_E_CONFIG, "train.batch_size = %lld: every batch of kto holds both classes; give at least 2",
                       (long long)c->train_batch_size);
    const int64_t budget = c->train_micro_batch_tokens; /* 0: as many as the longest example has */
    if (budget > 0 && budget < c->train_max_length * (r->kind == NT_TRAIN_DPO ? 2 : 1))
        return NT_FAIL(
            NT_E_CONFIG,
            "train.micro_batch_tokens = %lld holds no example of train.max_length = %lld%s; raise the former "
            "or lower the latter",
            (long long)budget, (long long)c->train_max_length,
            r->kind == NT_TRAIN_DPO ? " (a pair has two sequences)" : "");
    return NT_OK;
}

bool nt_prep_source_wanted(const struct nt_config *c, const char *source) {
    const char *list = c->train_source;
    if (!*list) return true;
    for (size_t len; *list; list += len + (list[len] == ',')) {
        list += strspn(list, " ");
        len = strcspn(list, ",");
        if (len == strlen(source) && memcmp(list, source, len) == 0) return true;
    }
    return false;
}
