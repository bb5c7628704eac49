/* Made-up training sets for the tests of order and packing: random lengths, tokens that name their example.
 *
 * Token t of member k of example i is i * 4096 + k * 2048 + t, so a token in the wrong place is seen at once. Targets
 * are the completion, in one run or two. Ownership: the caller releases the set. Deterministic in seed. */
#ifndef NT_TRAIN_SETS_H
#define NT_TRAIN_SETS_H

#include "examples.h"
#include "rng.h"

#include <string.h>

enum { SET_MAX_TOK = 2048 };

static inline uint32_t set_draw(uint64_t seed, uint64_t index, uint32_t n) {
    uint32_t w[4];
    nt_philox(seed, 99, index, w);
    return w[0] % n;
}

static inline void set_add(struct nt_example_builder *b, enum nt_train_kind kind, int32_t i, uint64_t seed,
                           int32_t longest, bool label) {
    int32_t ids[NT_MAX_MEMBERS][SET_MAX_TOK];
    struct nt_loss_run runs[NT_MAX_MEMBERS][2];
    struct nt_example e = {.n_members = kind == NT_TRAIN_DPO ? 2 : 1, .weight = 1, .label = label, .subject = i};
    const int32_t n_prompt = 1 + (int32_t)set_draw(seed, (uint64_t)i * 8, (uint32_t)longest / 2);
    for (int32_t k = 0; k < e.n_members; k++) {
        const uint64_t at = (uint64_t)(i * 8 + k + 1);
        const int32_t n = n_prompt + 1 + (int32_t)set_draw(seed, at, (uint32_t)(longest - n_prompt));
        for (int32_t t = 0; t < n; t++) ids[k][t] = i * 4096 + (t < n_prompt ? 0 : k) * 2048 + t;
        const int32_t half = n - n_prompt > 3 ? n_prompt + (n - n_prompt) / 2 : n;
        runs[k][0] = (struct nt_loss_run){n_prompt, half, 1};
        runs[k][1] = (struct nt_loss_run){half + 1, n, 0.5F};
        e.member[k] = (struct nt_member){
            .ids = ids[k], .runs = runs[k], .n_tok = n, .n_runs = half < n ? 2 : 1, .n_prompt = n_prompt};
    }
    (void)nt_examples_add(b, &e, i % 2 ? "odd" : "even");
}

/* kto: the first n_desirable examples are desirable. */
static inline nt_status set_make(struct nt_example_set *set, enum nt_train_kind kind, int32_t n, int32_t n_desirable,
                                 uint64_t seed, int32_t longest) {
    struct nt_example_builder *b;
    int32_t keep[4096];
    float weights[4096];
    NT_TRY(nt_examples_begin(&b, kind));
    for (int32_t i = 0; i < n; i++) {
        set_add(b, kind, i, seed, longest, kind != NT_TRAIN_KTO || i < n_desirable);
        keep[i] = i;
        weights[i] = 1.0F + (float)(i % 3);
    }
    const struct nt_example_pick pick = {keep, weights, n, 1, 1};
    const nt_status st = nt_examples_finish(b, &pick, set);
    nt_examples_end(b);
    return st;
}

#endif
