/* q/k norm, rotary embedding and cache write, 16 pairs at a time. */
#include "cpu_rope.h"
#include "cpu_rows.h"
#include "cpu_vec.h"
#include <math.h>

struct angles {
    const float *cos, *sin; // [d_head / 2], NULL: no rotation
};

/* 1 / rms of the head; halves a and b of each pair are added up in registers of their own. */
static __m512 head_scale(const float *x, int32_t half, float eps) {
    __m512 sa = _mm512_setzero_ps(), sb = _mm512_setzero_ps();
    for (int32_t j = 0; j < half; j += 16) {
        const __mmask16 mask = nt_v16_mask(half - j);
        const __m512 a = _mm512_maskz_loadu_ps(mask, x + j), b = _mm512_maskz_loadu_ps(mask, x + half + j);
        sa = _mm512_fmadd_ps(a, a, sa);
        sb = _mm512_fmadd_ps(b, b, sb);
    }
    const float sum = nt_v16_sum_lanes(_mm512_add_ps(sa, sb));
    return _mm512_set1_ps(1.0f / sqrtf(sum / (float)(2 * half) + eps));
}

/* y[d_pad] = bf16 of the normed and rotated head x[d_head]. */
static void rotate_head(const float *x, const float *norm, float eps, struct angles an, int32_t d_head, nt_bf16 *y) {
    const int32_t half = d_head / 2;
    const __m512 s = norm ? head_scale(x, half, eps) : _mm512_set1_ps(1.0f);
    for (int32_t j = 0; j < half; j += 16) {
        const __mmask16 mask = nt_v16_mask(half - j);
        __m512 a = _mm512_maskz_loadu_ps(mask, x + j), b = _mm512_maskz_loadu_ps(mask, x + half + j);
        if (norm) {
            a = _mm512_mul_ps(_mm512_mul_ps(a, s), _mm512_maskz_loadu_ps(mask, norm + j));
            b = _mm512_mul_ps(_mm512_mul_ps(b, s), _mm512_maskz_loadu_ps(mask, norm + half + j));
        }
        if (an.cos) {
            const __m512 c = _mm512_maskz_loadu_ps(mask, an.cos + j), si = _mm512_maskz_loadu_ps(mask, an.sin + j);
            const __m512 turned = _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, si));
            b = _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, si));
            a = turned;
        }
        nt_v16_store_bf16(y + j, mask, a);
        nt_v16_store_bf16(y + half + j, mask, b);
    }
    for (int32_t i = d_head; i < nt_d_pad(d_head); i++) y[i] = 0;
}

/* A V row into its half of the position pairs; the other half is left alone. */
static void write_v(const float *v, int32_t d, int32_t odd, nt_bf16 *to) {
    for (int32_t i = 0; i < d; i += 16) {
        const __mmask16 mask = nt_v16_mask(d - i);
        const __m512i narrow = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, v + i)));
        const __m512i placed = odd ? _mm512_slli_epi32(narrow, 16) : narrow;
        const __mmask32 spread = _pdep_u32(mask, 0x55555555u) << (odd ? 1 : 0);
        _mm512_mask_storeu_epi16(to + 2 * i, spread, placed);
    }
}

static void write_kv(const struct nt_rope_kv_args *a, const float *qkv, int32_t slot, struct angles an, nt_bf16 *page) {
    const int32_t d = a->kv->d_head, d_pad = nt_d_pad(d);
    for (int32_t h = 0; h < a->kv->n_kv; h++, page += nt_kv_head_elems(NT_KV_PAIRED, d)) {
        nt_bf16 k[NT_ROPE_MAX_D] __attribute__((aligned(64)));
        rotate_head(qkv + (a->n_head + h) * d, a->k_norm, a->eps, an, d, k);
        for (int32_t pair = 0; pair < d / 2; pair++)
            memcpy(page + (pair * NT_KV_PAGE + slot) * 2, k + 2 * pair, 2 * sizeof *k);
        write_v(qkv + (a->n_head + a->kv->n_kv + h) * d, d, slot % 2,
                page + NT_KV_PAGE * d_pad + (slot / 2) * 2 * d_pad);
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

nt_status nt_rope_kv_avx512(struct nt_backend *be, const struct nt_rope_kv_args *args) {
    if (args->kv->format != NT_KV_PAIRED) return nt_rope_kv_portable(be, args); /* the layouts of GPUs */
    NT_CHECK(args->kv->d_head % 2 == 0 && args->kv->d_head <= NT_ROPE_MAX_D);
    struct nt_rope_kv_args a = *args;
    nt_rows_run(be, rope_thread, &a, args->n_tok, (int64_t)(args->n_head + 2 * args->kv->n_kv) * args->kv->d_head);
    return NT_OK;
}
