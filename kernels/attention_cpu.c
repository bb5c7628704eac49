/* The specification of attention over the paged cache, in portable C: one query row after the other. */
#include "cpu_attention.h"
#include "cpu_math.h"
#include <math.h>

struct row {
    const nt_bf16 *q;
    int32_t first, last; /* visible positions, inclusive */
    float max, sum;
    float out[NT_ATTN_MAX_D];
};

/* s[j] = scale * q . k[j], for the whole page. */
static void page_scores(const struct row *row, const nt_bf16 *k, int32_t d_head, float scale, float s[NT_KV_PAGE]) {
    for (int32_t j = 0; j < NT_KV_PAGE; j++) s[j] = 0;
    for (int32_t p = 0; p < d_head / 2; p++, k += 2 * NT_KV_PAGE) {
        const float q0 = nt_bf16_to_f32(row->q[2 * p]), q1 = nt_bf16_to_f32(row->q[2 * p + 1]);
        for (int32_t j = 0; j < NT_KV_PAGE; j++) {
            s[j] += q0 * nt_bf16_to_f32(k[2 * j]);
            s[j] += q1 * nt_bf16_to_f32(k[2 * j + 1]);
        }
    }
    for (int32_t j = 0; j < NT_KV_PAGE; j++) s[j] *= scale;
}

/* One block of the online softmax over slots [lo, hi). */
static void row_page(struct row *row, const nt_bf16 *page, int32_t d_head, float scale, int32_t lo, int32_t hi) {
    const int32_t d_pad = nt_d_pad(d_head);
    const nt_bf16 *v = page + NT_KV_PAGE * d_pad;
    float s[NT_KV_PAGE], max = row->max;
    page_scores(row, page, d_head, scale, s);
    for (int32_t j = lo; j < hi; j++) max = s[j] > max || isnan(s[j]) ? s[j] : max;
    const float base = max == -INFINITY ? 0.0f : max; /* all scores -Inf so far: exp(-Inf - 0), not exp(-Inf + Inf) */
    const float alpha = nt_exp2_neg((row->max - base) * NT_LOG2E);
    row->max = max;
    row->sum *= alpha;
    for (int32_t i = 0; i < d_head; i++) row->out[i] *= alpha;
    for (int32_t j = lo; j < hi; j++) {
        const float e = nt_exp2_neg((s[j] - base) * NT_LOG2E), p = nt_bf16_to_f32(nt_f32_to_bf16(e));
        const nt_bf16 *vj = v + (j / 2) * 2 * d_pad + j % 2;
        row->sum += e;
        for (int32_t i = 0; i < d_head; i++) row->out[i] += p * nt_bf16_to_f32(vj[2 * i]);
    }
}

static void attend_row(const struct nt_attention_args *a, const struct nt_attn_item *it, int32_t tok, int32_t head) {
    const int32_t d = a->kv->d_head, pos = it->seq->pos0 + tok;
    const int64_t t = it->seq->q_row + tok;
    struct row row = {
        .q = a->q + (t * a->n_head + head) * nt_d_pad(d),
        .first = nt_attn_first(a, pos),
        .last = pos,
        .max = -INFINITY,
    };
    for (int32_t page = row.first / NT_KV_PAGE; page <= row.last / NT_KV_PAGE; page++) {
        const int32_t lo = row.first - page * NT_KV_PAGE, hi = row.last - page * NT_KV_PAGE + 1;
        row_page(&row, nt_attn_page(a, it, page), d, a->scale, lo > 0 ? lo : 0, hi < NT_KV_PAGE ? hi : NT_KV_PAGE);
    }
    nt_bf16 *out = a->out + t * a->ldo + head * d;
    for (int32_t i = 0; i < d; i++) out[i] = nt_f32_to_bf16(row.out[i] / row.sum);
}

static void attend_item(const struct nt_attention_args *a, const struct nt_attn_item *it,
                        const struct nt_attn_item *ahead, void *scratch, const void *context) {
    (void)ahead;
    (void)scratch;
    (void)context;
    for (int32_t tok = it->tok0; tok < it->tok0 + it->n_tok; tok++)
        for (int32_t head = it->head0; head < it->head0 + it->n_group; head++) attend_row(a, it, tok, head);
}

nt_status nt_attention_portable(struct nt_backend *be, const struct nt_attention_args *args) {
    NT_CHECK(args->kv->d_head % 2 == 0 && args->kv->d_head <= NT_ATTN_MAX_D);
    nt_attn_run(be, args, 16, attend_item, NULL);
    return NT_OK;
}
