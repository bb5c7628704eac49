/* The specification of attention over the paged cache in each of its formats, in portable C: one query row after the
 * other. */
#include "cpu_attention.h"
#include "cpu_math.h"
#include <math.h>

struct row {
    const nt_bf16 *q;
    int32_t first, last; /* visible positions, inclusive */
    float max, sum;
    float out[NT_ATTN_MAX_D];
};

/* K and V of one page and KV head. */
struct page_view {
    enum nt_kv_format format;
    int32_t d_head;
    const nt_bf16 *k, *v;           // PAIRED, ROWS
    const int8_t *k8, *v8;          // ROWS_INT8
    const float *k_scale, *v_scale; // [NT_KV_PAGE]
};

static struct page_view view_page(const struct nt_attention_args *a, const struct nt_attn_item *it, int32_t page) {
    const struct nt_kv_layer *kv = a->kv;
    const int64_t half = (int64_t)NT_KV_PAGE * nt_d_pad(kv->d_head);
    const nt_bf16 *base = nt_attn_page(kv, it->seq, page, it->kv_head);
    if (kv->format != NT_KV_ROWS_INT8)
        return (struct page_view){.format = kv->format, .d_head = kv->d_head, .k = base, .v = base + half};
    const int8_t *bytes = (const int8_t *)base;
    const float *scales = (const float *)(const void *)(bytes + 2 * half);
    return (struct page_view){.format = kv->format,
                              .d_head = kv->d_head,
                              .k8 = bytes,
                              .v8 = bytes + half,
                              .k_scale = scales,
                              .v_scale = scales + NT_KV_PAGE};
}

/* s[j] = scale * q . k[j], for the whole page. */
static void paired_scores(const struct row *row, const struct page_view *pv, float scale, float s[NT_KV_PAGE]) {
    const nt_bf16 *k = pv->k;
    for (int32_t j = 0; j < NT_KV_PAGE; j++) s[j] = 0;
    for (int32_t p = 0; p < pv->d_head / 2; p++, k += 2 * NT_KV_PAGE) {
        const float q0 = nt_bf16_to_f32(row->q[2 * p]), q1 = nt_bf16_to_f32(row->q[2 * p + 1]);
        for (int32_t j = 0; j < NT_KV_PAGE; j++) {
            s[j] += q0 * nt_bf16_to_f32(k[2 * j]);
            s[j] += q1 * nt_bf16_to_f32(k[2 * j + 1]);
        }
    }
    for (int32_t j = 0; j < NT_KV_PAGE; j++) s[j] *= scale;
}

/* The same for slots [lo, hi) of a cache in rows, where other slots hold anything. */
static void rows_scores(const struct row *row, const struct page_view *pv, float scale, int32_t lo, int32_t hi,
                        float s[NT_KV_PAGE]) {
    const int32_t d_pad = nt_d_pad(pv->d_head);
    for (int32_t j = lo; j < hi; j++) {
        float dot = 0;
        if (pv->format == NT_KV_ROWS) {
            for (int32_t i = 0; i < pv->d_head; i++)
                dot += nt_bf16_to_f32(row->q[i]) * nt_bf16_to_f32(pv->k[j * d_pad + i]);
            s[j] = dot * scale;
        } else {
            for (int32_t i = 0; i < pv->d_head; i++) dot += nt_bf16_to_f32(row->q[i]) * (float)pv->k8[j * d_pad + i];
            s[j] = dot * (pv->k_scale[j] * scale);
        }
    }
}

/* out += bf16(e) * v of slot j; int8: bf16(e * v_scale), nothing where e is 0. */
static void add_value(struct row *row, const struct page_view *pv, int32_t j, float e) {
    const int32_t d = pv->d_head, d_pad = nt_d_pad(d);
    if (pv->format == NT_KV_ROWS_INT8) {
        const float p = e == 0 ? 0.0f : nt_bf16_to_f32(nt_f32_to_bf16(e * pv->v_scale[j]));
        for (int32_t i = 0; i < d; i++) row->out[i] += p * (float)pv->v8[j * d_pad + i];
        return;
    }
    const bool paired = pv->format == NT_KV_PAIRED;
    const nt_bf16 *v = pv->v + (paired ? j / 2 * 2 * d_pad + j % 2 : j * d_pad);
    const int32_t step = paired ? 2 : 1;
    const float p = nt_bf16_to_f32(nt_f32_to_bf16(e));
    for (int32_t i = 0; i < d; i++) row->out[i] += p * nt_bf16_to_f32(v[i * step]);
}

/* One block of the online softmax over slots [lo, hi). */
static void row_page(struct row *row, const struct page_view *pv, float scale, int32_t lo, int32_t hi) {
    float s[NT_KV_PAGE], max = row->max;
    if (pv->format == NT_KV_PAIRED)
        paired_scores(row, pv, scale, s);
    else
        rows_scores(row, pv, scale, lo, hi, s);
    for (int32_t j = lo; j < hi; j++) max = s[j] > max || isnan(s[j]) ? s[j] : max;
    const float base = max == -INFINITY ? 0.0f : max; /* all scores -Inf so far: exp(-Inf - 0), not exp(-Inf + Inf) */
    const float alpha = nt_exp2_neg((row->max - base) * NT_LOG2E);
    row->max = max;
    row->sum *= alpha;
    for (int32_t i = 0; i < pv->d_head; i++) row->out[i] *= alpha;
    for (int32_t j = lo; j < hi; j++) {
        const float e = nt_exp2_neg((s[j] - base) * NT_LOG2E);
        row->sum += e;
        add_value(row, pv, j, e);
    }
}

static void attend_row(const struct nt_attention_args *a, const struct nt_attn_item *it, int32_t tok, int32_t head) {
    const int32_t d = a->kv->d_head, pos = it->seq->pos0 + tok;
    const int64_t t = it->seq->q_row + tok;
    struct row row = {
        .q = a->q + (t * a->n_head + head) * nt_d_pad(d),
        .first = nt_attn_first(a->window, pos),
        .last = pos,
        .max = -INFINITY,
    };
    for (int32_t page = row.first / NT_KV_PAGE; page <= row.last / NT_KV_PAGE; page++) {
        const int32_t lo = row.first - page * NT_KV_PAGE, hi = row.last - page * NT_KV_PAGE + 1;
        const struct page_view pv = view_page(a, it, page);
        row_page(&row, &pv, a->scale, lo > 0 ? lo : 0, hi < NT_KV_PAGE ? hi : NT_KV_PAGE);
    }
    nt_bf16 *out = a->out + t * a->ldo + head * d;
    for (int32_t i = 0; i < d; i++) out[i] = nt_f32_to_bf16(row.out[i] / row.sum);
    if (a->lse) a->lse[t * a->n_head + head] = nt_attn_lse(row.max * NT_LOG2E, row.sum);
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
