/* The specification of q/k norm, rotary embedding and cache write, in portable C. */
#include "cpu_rope.h"
#include <math.h>

void nt_rope_walk_init(struct nt_rope_walk *w, const struct nt_rope_kv_args *args, int thread, int n_threads) {
    int64_t count = 0, begin, end;
    for (int32_t s = 0; s < args->n_seq; s++) count += args->seqs[s].n_q;
    nt_split(count, count >= (int64_t)NT_ROPE_UNIT * n_threads ? NT_ROPE_UNIT : 1, thread, n_threads, &begin, &end);
    *w = (struct nt_rope_walk){.args = args, .left = end - begin};
    while (w->left > 0 && begin >= args->seqs[w->seq].n_q) begin -= args->seqs[w->seq++].n_q;
    w->next = (int32_t)begin;
}

bool nt_rope_walk_next(struct nt_rope_walk *w, struct nt_rope_run *run) {
    if (w->left <= 0) return false;
    while (w->next >= w->args->seqs[w->seq].n_q) {
        w->seq++;
        w->next = 0;
    }
    const struct nt_attn_seq *seq = &w->args->seqs[w->seq];
    const int32_t pos = seq->pos0 + w->next, room = NT_KV_PAGE - pos % NT_KV_PAGE;
    int32_t n = seq->n_q - w->next;
    if (n > room) n = room;
    if (n > w->left) n = (int32_t)w->left;
    *run = (struct nt_rope_run){
        .row = seq->q_row + w->next,
        .n = n,
        .pos = pos,
        .page = w->args->kv->base + seq->pages[pos / NT_KV_PAGE] * w->args->kv->page_stride,
    };
    w->next += n;
    w->left -= n;
    return true;
}

/* v[d_head] = the normed and rotated head x; cos/sin are the row of the position, or NULL. */
static void rotate_head(const float *x, const float *norm, float eps, const float *cos, const float *sin,
                        int32_t d_head, float *v) {
    const int32_t half = d_head / 2;
    memcpy(v, x, (size_t)d_head * sizeof *v);
    if (norm) {
        float sum = 0;
        for (int32_t i = 0; i < d_head; i++) sum += x[i] * x[i];
        const float s = 1.0f / sqrtf(sum / (float)d_head + eps);
        for (int32_t i = 0; i < d_head; i++) v[i] = x[i] * s * norm[i];
    }
    for (int32_t j = 0; cos && j < half; j++) {
        const float a = v[j], b = v[j + half];
        v[j] = a * cos[j] - b * sin[j];
        v[j + half] = b * cos[j] + a * sin[j];
    }
}

static void store_row(const float *v, int32_t d_head, nt_bf16 *y) {
    for (int32_t i = 0; i < d_head; i++) y[i] = nt_f32_to_bf16(v[i]);
    for (int32_t i = d_head; i < nt_d_pad(d_head); i++) y[i] = 0;
}

static void store_int8_row(const float *v, int32_t d_head, int8_t *y, float *scale) {
    float max = 0;
    bool nan = false;
    for (int32_t i = 0; i < d_head; i++) {
        max = fmaxf(max, fabsf(v[i]));
        nan |= isnan(v[i]);
    }
    *scale = nan ? NAN : max / 127.0f != 0 ? max / 127.0f : 1.0f;
    for (int32_t i = 0; i < d_head; i++) {
        const float q = v[i] / *scale;
        y[i] = isnan(q) ? 0 : (int8_t)lrintf(q);
    }
    for (int32_t i = d_head; i < nt_d_pad(d_head); i++) y[i] = 0;
}

/* One row of K, or of V, into the slot of a head's page. */
static void store_cache(const struct nt_kv_layer *kv, const float *v, nt_bf16 *head, int32_t slot, bool is_v) {
    const int32_t d = kv->d_head, d_pad = nt_d_pad(d), row = (is_v ? NT_KV_PAGE : 0) + slot;
    if (kv->format == NT_KV_ROWS) {
        store_row(v, d, head + row * d_pad);
    } else if (kv->format == NT_KV_ROWS_INT8) {
        store_int8_row(v, d, (int8_t *)head + row * d_pad, (float *)(void *)(head + NT_KV_PAGE * d_pad) + row);
    } else if (is_v) {
        nt_bf16 *to = head + NT_KV_PAGE * d_pad + (slot / 2) * 2 * d_pad + slot % 2;
        for (int32_t i = 0; i < d; i++) to[2 * i] = nt_f32_to_bf16(v[i]);
    } else {
        for (int32_t i = 0; i < d; i++) head[(i / 2) * 2 * NT_KV_PAGE + 2 * slot + i % 2] = nt_f32_to_bf16(v[i]);
    }
}

static void write_kv(const struct nt_rope_kv_args *a, const float *qkv, int32_t pos, const float *cos, const float *sin,
                     nt_bf16 *page) {
    const int32_t d = a->kv->d_head, slot = pos % NT_KV_PAGE;
    for (int32_t h = 0; h < a->kv->n_kv; h++, page += nt_kv_head_elems(a->kv->format, d)) {
        float k[NT_ROPE_MAX_D];
        rotate_head(qkv + (a->n_head + h) * d, a->k_norm, a->eps, cos, sin, d, k);
        store_cache(a->kv, k, page, slot, false);
        store_cache(a->kv, qkv + (a->n_head + a->kv->n_kv + h) * d, page, slot, true);
    }
}

static void rope_thread(void *arg, int thread, int n_threads) {
    const struct nt_rope_kv_args *a = arg;
    const int32_t d = a->kv->d_head, d_pad = nt_d_pad(d), width = (a->n_head + 2 * a->kv->n_kv) * d;
    struct nt_rope_walk walk;
    struct nt_rope_run run;
    nt_rope_walk_init(&walk, a, thread, n_threads);
    while (nt_rope_walk_next(&walk, &run)) {
        for (int32_t i = 0; i < run.n; i++) {
            const int64_t row = run.row + i, angle = (int64_t)(run.pos + i) * (d / 2);
            const float *cos = a->cos ? a->cos + angle : NULL, *sin = a->cos ? a->sin + angle : NULL;
            const float *qkv = a->qkv + row * width;
            for (int32_t h = 0; h < a->n_head; h++) {
                float q[NT_ROPE_MAX_D];
                rotate_head(qkv + h * d, a->q_norm, a->eps, cos, sin, d, q);
                store_row(q, d, a->q + (row * a->n_head + h) * d_pad);
            }
            write_kv(a, qkv, run.pos + i, cos, sin, run.page);
        }
    }
}

nt_status nt_rope_kv_portable(struct nt_backend *be, const struct nt_rope_kv_args *args) {
    NT_CHECK(args->kv->d_head % 2 == 0 && args->kv->d_head <= NT_ROPE_MAX_D);
    struct nt_rope_kv_args a = *args;
    nt_pool_run(be->pool, rope_thread, &a);
    return NT_OK;
}
