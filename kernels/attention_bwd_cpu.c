/* The specification of the gradient of attention over whole sequences, in portable C: one query row after the other. */
#include "cpu_attention.h"
#include "cpu_math.h"
#include "ops_bwd.h"

/* One query row; K and V rows are read one at a time. */
struct row {
    const struct nt_attention_bwd_args *args;
    const struct nt_attn_seq *seq;
    const nt_bf16 *q;
    int32_t kv_head, first, last; /* visible positions, inclusive */
    float dout[NT_ATTN_MAX_D], dq[NT_ATTN_MAX_D];
    float lse, delta;
};

/* A row of K or of V as floats. */
static void load_row(const struct row *r, int32_t pos, bool is_v, float *to) {
    const struct nt_kv_layer *kv = r->args->kv;
    const int32_t d = kv->d_head, d_pad = nt_d_pad(d), slot = pos % NT_KV_PAGE;
    const nt_bf16 *from = nt_attn_page(kv, r->seq, pos / NT_KV_PAGE, r->kv_head) + (is_v ? NT_KV_PAGE * d_pad : 0);
    for (int32_t i = 0; i < d; i++) {
        int32_t at = slot * d_pad + i;
        if (kv->format == NT_KV_PAIRED)
            at = is_v ? slot / 2 * 2 * d_pad + 2 * i + slot % 2 : i / 2 * 2 * NT_KV_PAGE + 2 * slot + i % 2;
        to[i] = nt_bf16_to_f32(from[at]);
    }
}

static float score(const struct row *r, const float *k) {
    float dot = 0;
    for (int32_t i = 0; i < r->args->kv->d_head; i++) dot += nt_bf16_to_f32(r->q[i]) * k[i];
    return dot * r->args->scale;
}

/* P; a score that another body rounded may stand a little over the lse. */
static float probability(const struct row *r, float s) {
    const float x = s * NT_LOG2E - r->lse;
    return nt_exp2_neg(x > 0 ? 0 : x);
}

static void row_init(struct row *r, int64_t tok, int32_t head) {
    const struct nt_attention_bwd_args *a = r->args;
    const int32_t d = a->kv->d_head, pos = (int32_t)tok;
    const int64_t t = r->seq->q_row + tok;
    const nt_bf16 *out = a->out + t * a->ldo + head * d;
    const float *dout = a->dout + t * a->lddo + head * d;
    r->q = a->q + (t * a->n_head + head) * nt_d_pad(d);
    r->first = nt_attn_first(a->window, pos);
    r->last = pos;
    r->lse = a->lse[t * a->n_head + head];
    r->delta = 0;
    for (int32_t i = 0; i < d; i++) {
        r->dout[i] = nt_bf16_to_f32(nt_f32_to_bf16(dout[i]));
        r->delta += nt_bf16_to_f32(out[i]) * r->dout[i];
        r->dq[i] = 0;
    }
}

/* One key: its part of dq, and the row's part of its dk and dv. */
static void row_key(struct row *r, int32_t pos, float *dk, float *dv) {
    const int32_t d = r->args->kv->d_head;
    float k[NT_ATTN_MAX_D], v[NT_ATTN_MAX_D], dp = 0;
    load_row(r, pos, false, k);
    load_row(r, pos, true, v);
    for (int32_t i = 0; i < d; i++) dp += r->dout[i] * v[i];
    const float p = probability(r, score(r, k));
    const float ds = r->args->scale * p * (dp - r->delta);
    const float p16 = nt_bf16_to_f32(nt_f32_to_bf16(p)), ds16 = nt_bf16_to_f32(nt_f32_to_bf16(ds));
    for (int32_t i = 0; i < d; i++) {
        r->dq[i] += ds16 * k[i];
        dv[i] += p16 * r->dout[i];
        dk[i] += ds16 * nt_bf16_to_f32(r->q[i]);
    }
}

static void head_bwd(const struct nt_attention_bwd_args *a, const struct nt_attn_seq *seq, int32_t kv_head) {
    const int32_t d = a->kv->d_head, n_kv = a->kv->n_kv;
    const int64_t width = (int64_t)(a->n_head + 2 * n_kv) * d;
    float *dq = a->dqkv + seq->q_row * width, *dk = dq + (a->n_head + kv_head) * d, *dv = dk + n_kv * d;
    for (int64_t t = 0; t < seq->n_q; t++) {
        memset(dk + t * width, 0, (size_t)d * sizeof *dk);
        memset(dv + t * width, 0, (size_t)d * sizeof *dv);
    }
    for (int64_t t = 0; t < seq->n_q; t++) {
        for (int32_t head = 0; head < a->n_head; head++) {
            if (a->kv_of_head[head] != kv_head) continue;
            struct row r = {.args = a, .seq = seq, .kv_head = kv_head};
            row_init(&r, t, head);
            for (int32_t p = r.first; p <= r.last; p++) row_key(&r, p, dk + p * width, dv + p * width);
            for (int32_t i = 0; i < d; i++) dq[t * width + head * d + i] = r.dq[i];
        }
    }
}

struct run {
    const struct nt_attention_bwd_args *args;
    struct nt_backend *be;
};

static void heads_thread(void *arg, int thread, int n_threads) {
    const struct run *run = arg;
    const struct nt_attention_bwd_args *a = run->args;
    const int64_t n = (int64_t)a->n_seq * a->kv->n_kv;
    (void)thread;
    (void)n_threads;
    for (int64_t i; (i = nt_pool_next(run->be->pool, n)) >= 0;)
        head_bwd(a, &a->seqs[i / a->kv->n_kv], (int32_t)(i % a->kv->n_kv));
}

nt_status nt_attention_bwd_portable(struct nt_backend *be, const struct nt_attention_bwd_args *args) {
    NT_CHECK(args->kv->d_head % 2 == 0 && args->kv->d_head <= NT_ATTN_MAX_D && args->kv->format != NT_KV_ROWS_INT8);
    for (int32_t s = 0; s < args->n_seq; s++) NT_CHECK(args->seqs[s].pos0 == 0);
    struct run run = {args, be};
    nt_pool_run(be->pool, heads_thread, &run);
    return NT_OK;
}
