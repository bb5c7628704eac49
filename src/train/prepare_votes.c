#include "prepare_votes.h"

#include "status.h"
#include "tok_list.h"

#include <stdlib.h>
#include <string.h>

void nt_votes_add(struct nt_votes *v, const uint8_t key[NT_VOTE_KEY], bool good, float weight, int64_t created_us) {
    nt_tok_grow((void **)&v->votes, &v->cap, v->n + 1, sizeof *v->votes);
    struct nt_vote *vote = &v->votes[v->n++];
    *vote = (struct nt_vote){.good = good, .weight = weight, .created_us = created_us};
    memcpy(vote->key, key, NT_VOTE_KEY);
}

void nt_votes_release(struct nt_votes *v) {
    free(v->votes);
    free(v->verdicts);
    *v = (struct nt_votes){0};
}

/* By key, then time, then number: the array's addresses ascend with the numbers. */
static int compare(const void *a, const void *b) {
    const struct nt_vote *x = *(struct nt_vote *const *)a, *y = *(struct nt_vote *const *)b;
    const int by_key = memcmp(x->key, y->key, NT_VOTE_KEY);
    if (by_key != 0) return by_key;
    if (x->created_us != y->created_us) return x->created_us < y->created_us ? -1 : 1;
    return x < y ? -1 : x > y;
}

/* The votes of one key, ascending in time. */
static struct nt_verdict settle(struct nt_vote **votes, int64_t n, enum nt_conflict_rule rule, bool *disputed) {
    double weight[2] = {0, 0};
    int64_t count[2] = {0, 0};
    for (int64_t i = 0; i < n; i++) {
        weight[votes[i]->good] += votes[i]->weight;
        count[votes[i]->good]++;
    }
    *disputed = count[0] > 0 && count[1] > 0;
    struct nt_verdict verdict = {.holds = true, .good = votes[n - 1]->good};
    memcpy(verdict.key, votes[0]->key, NT_VOTE_KEY);
    if (*disputed && rule == NT_CONFLICT_MAJORITY) {
        verdict.holds = weight[0] != weight[1];
        verdict.good = weight[1] > weight[0];
    } else if (*disputed && rule == NT_CONFLICT_DROP) {
        verdict.holds = false;
    }
    verdict.weight = (float)(weight[verdict.good] / (double)count[verdict.good]);
    bool carried = false;
    for (int64_t i = n - 1; i >= 0; i--) {
        if (!verdict.holds || votes[i]->good != verdict.good) {
            votes[i]->fate = NT_FATE_CONFLICT;
        } else if (carried) {
            votes[i]->fate = NT_FATE_DUPLICATE;
        } else {
            votes[i]->fate = NT_FATE_CARRIES;
            votes[i]->weight = verdict.weight;
            carried = true;
        }
    }
    return verdict;
}

void nt_votes_settle(struct nt_votes *v, enum nt_conflict_rule rule) {
    if (v->n == 0) return;
    struct nt_vote **sorted = calloc((size_t)v->n, sizeof(void *));
    v->verdicts = calloc((size_t)v->n, sizeof *v->verdicts);
    if (!sorted || !v->verdicts) nt_bug("no memory to settle %lld votes", (long long)v->n);
    for (int64_t i = 0; i < v->n; i++) sorted[i] = &v->votes[i];
    qsort(sorted, (size_t)v->n, sizeof(void *), compare);
    for (int64_t i = 0, end; i < v->n; i = end) {
        for (end = i + 1; end < v->n && memcmp(sorted[end]->key, sorted[i]->key, NT_VOTE_KEY) == 0;) end++;
        bool disputed;
        v->verdicts[v->n_verdicts++] = settle(sorted + i, end - i, rule, &disputed);
        v->n_conflicts += disputed;
    }
    free(sorted);
}

static int find(const void *key, const void *verdict) {
    return memcmp(key, ((const struct nt_verdict *)verdict)->key, NT_VOTE_KEY);
}

const struct nt_verdict *nt_votes_find(const struct nt_votes *v, const uint8_t key[NT_VOTE_KEY]) {
    if (v->n_verdicts == 0) return NULL;
    return bsearch(key, v->verdicts, (size_t)v->n_verdicts, sizeof *v->verdicts, find);
}
