/* The order of logits, and the heap of the k best, shared by the bodies of all instruction sets.
 *
 * NaN is above every number (so that a broken row is seen, and the first NaN wins); among equals the lower index is
 * better. -0 equals +0. The heap lives in the caller's output rows: value[0], index[0] is the worst of the kept ones.
 */
#ifndef NT_CPU_LOGITS_H
#define NT_CPU_LOGITS_H

#include "ops.h"
#include <math.h>

/* a before b, indexes aside. */
static inline bool nt_logit_above(float a, float b) {
    return a > b || (isnan(a) && !isnan(b));
}
static inline bool nt_logit_better(float a, int32_t ia, float b, int32_t ib) {
    return nt_logit_above(a, b) || (!nt_logit_above(b, a) && ia < ib);
}

void nt_topk_heapify(float *value, int32_t *index, int32_t k);
void nt_topk_replace_worst(float *value, int32_t *index, int32_t k, float v, int32_t i);
void nt_topk_sort(float *value, int32_t *index, int32_t k); /* heap -> best first */

/* One row of the portable bodies: also what tuned bodies fall back to on a row with a NaN. */
void nt_logit_stats_row(const struct nt_logit_stats_args *a, int64_t r);
void nt_logit_gumbel_row(const struct nt_logit_gumbel_args *a, int64_t r);

#endif
