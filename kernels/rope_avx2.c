/* q/k norm, rotary embedding and cache write, 8 pairs at a time. */
#include "cpu_rope.h"
#include "cpu_rows.h"
#include "cpu_vec.h"
#include <math.h>

struct angles {
    const float *cos, *sin; // [d_head / 2], NULL: no rotation
};

/* 1 / rms of the head; halves a and b of each pair are added up in registers of their own. */
static __m256 head_scale(const float *x, int32_t half, float eps) {
    __m256 sa = _mm256_setzero_ps(), sb = _mm256_setzero_ps();
    for (int32_t j = 0; j < half; j += 8) {
        const __m256 a = nt_v8_load(x + j, half - j), b = nt_v8_load(x + half + j, half - j);
        sa = _mm256_fmadd_ps(a, a, sa);
        sb = _mm256_fmadd_ps(b, b, sb);
    }
    const float sum = nt_v8_sum_lanes(_mm256_add_ps(sa, sb));
    return _mm256_set1_ps(1.0f / sqrtf(sum / (float)(2 * half) + eps));
}

/* y[d_pad] = bf16 of the normed and rotated head x[d_head]. */
static void rotate_head(const float *x, const float *norm, float eps, struct angles an, int32_t d_head, nt_bf16 *y) {
    const int32_t half = d_head / 2;
    const __m256 s = norm ? head_scale(x, half, eps) : _mm256_set1_ps(1.0f);
    for (int32_t j = 0; j < half; j += 8) {
        __m256 a = nt_v8_load(x + j, half - j), b = nt_v8_load(x + half + j, half - j);
        if (norm) {
            a = _mm256_mul_ps(_mm256_mul_ps(a, s), nt_v8_load(norm + j, half - j));
            b = _mm256_mul_ps(_mm256_mul_ps(b, s), nt_v8_load(norm + half + j, half - j));
        }
        if (an.cos) {
            const __m256 c = nt_v8_load(an.cos + j, half - j), si = nt_v8_load(an.sin + j, half - j);
            const __m256 turned = _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, si));
            b = _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, si));
            a = turned;
        }
        nt_v8_store_bf16(y + j, half - j, a);
        nt_v8_store_bf16(y + half + j, half - j, b);
    }
    for (int32_t i = d_head; i < nt_d_pad(d_head); i++) y[i] = 0;
}

static void write_kv(const struct nt_rope_kv_args *a, const float *qkv, int32_t slot, struct angles an, nt_bf16 *page) {
    const int32_t d = a->kv->d_head, d_pad = nt_d_pad(d);
    for (int32_t h = 0; h < a->kv->n_kv; h++, page += nt_kv_head_elems(NT_KV_PAIRED, d)) {
        nt_bf16 k[NT_ROPE_MAX_D];
        rotate_head(qkv + (a->n_head + h) * d, a->k_norm, a->eps, an, d, k);
        for (int32_t pair = 0; pair < d / 2; pair++)
            memcpy(page + (pair * NT_KV_PAGE + slot) * 2, k + 2 * pair, 2 * sizeof *k);
        const float *v = qkv + (a->n_head + a->kv->n_kv + h) * d;
        nt_bf16 *to = page + NT_KV_PAGE * d_pad + (slot / 2) * 2 * d_pad + slot % 2;
        for (int32_t i = 0; i < d; i++) to[2 * i] = nt_f32_to_bf16(v[i]);
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
            const struct angles an = {a->cos ? a->cos + angle : NULL, a->cos ? a->sin + angle : NULL};
            const float *qkv = a->qkv + row * width;
            for (int32_t h = 0; h < a->n_head; h++)
                rotate_head(qkv + h * d, a->q_norm, a->eps, an, d, a->q + (row * a->n_head + h) * d_pad);
            write_kv(a, qkv, (run.pos + i) % NT_KV_PAGE, an, run.page);
        }
    }
}

nt_status nt_rope_kv_avx2(struct nt_backend *be, const struct nt_rope_kv_args *args) {
    if (args->kv->format != NT_KV_PAIRED) return nt_rope_kv_portable(be, args); /* the layouts of GPUs */
    NT_CHECK(args->kv->d_head % 2 == 0 && args->kv->d_head <= NT_ROPE_MAX_D);
    struct nt_rope_kv_args a = *args;
    nt_rows_run(be, rope_thread, &a, args->n_tok, (int64_t)(args->n_head + 2 * args->kv->n_kv) * args->kv->d_head);
    return NT_OK;
}
