/* What truncation keeps of a row's best, and the draw among it, on the host. */
#include "cpu_math.h"
#include "rng.h"
#include "sampler_parts.h"
#include <math.h>

static float gumbel(uint64_t seed, uint64_t stream, int32_t id) {
    uint32_t w[4];
    nt_philox(seed, stream, (uint64_t)id >> 2, w);
    return -nt_log_pos(-nt_log_pos(nt_unit_float(w[id & 3]))); /* the bits of the logit_gumbel op */
}

int32_t nt_sample_keep(const struct nt_sampling *p, const struct nt_pair *best, int32_t k, bool all_seen, float total) {
    int32_t keep = k;
    bool decided = all_seen;
    if (p->top_k > k && !all_seen) return 0;
    if (p->top_k > 0) {
        keep = p->top_k < k ? p->top_k : k;
        decided = true;
        total = 0;
        for (int32_t i = 0; i < keep; i++) total += expf(best[i].value - best[0].value);
    }
    if (p->top_p < 1) {
        float mass = 0;
        for (int32_t i = 0; i < keep; i++) {
            mass += expf(best[i].value - best[0].value);
            if (mass >= p->top_p * total) {
                keep = i + 1;
                decided = true;
            }
        }
    }
    if (p->min_p > 0) {
        const float floor_value = best[0].value + logf(p->min_p);
        for (int32_t i = 1; i < keep; i++) {
            if (best[i].value < floor_value) {
                keep = i;
                decided = true;
            }
        }
    }
    while (keep > 1 && best[keep - 1].value == -INFINITY) keep--;
    return decided ? keep : 0;
}

int32_t nt_sample_draw(const struct nt_sample_in *in, const struct nt_pair *best, int32_t keep) {
    struct nt_pair win = {-INFINITY, best[0].id};
    for (int32_t i = 0; i < keep; i++) {
        const struct nt_pair c = {best[i].value + gumbel(in->seed, in->stream, best[i].id), best[i].id};
        if (nt_pair_better(c, win)) win = c;
    }
    return win.id;
}

nt_status nt_sampler_draw_long(struct nt_sampler *s, const float *row, const struct nt_sample_in *in, float total,
                               int32_t *token) {
    int32_t keep = 0;
    for (int32_t k = 8 * NT_SAMPLER_K; keep == 0; k *= 8) {
        if (k > s->n_vocab) k = s->n_vocab;
        NT_TRY(nt_sampler_topk(s, row, 1, k));
        keep = nt_sample_keep(in->params, s->merged, k, k == s->n_vocab, total);
    }
    *token = nt_sample_draw(in, s->merged, keep);
    return NT_OK;
}
