/* Dropout, 64 columns of random words at a time. */
#include "cpu_philox.h"
#include "cpu_rows.h"
#include "ops_bwd.h"

/* As nt_f32_to_bf16, denormals too. */
static inline __m256i to_bf16(__m512 x) {
    const __m512i bits = _mm512_castps_si512(x),
                  odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(up, nan, quiet), 16));
}

static void dropout_row(const struct nt_dropout_args *a, int64_t t, __m512 f) {
    const nt_bf16 *x = (const nt_bf16 *)a->x + t * a->ldx;
    const float *dx = (const float *)a->x + t * a->ldx;
    nt_bf16 *y = (nt_bf16 *)a->y + t * a->ldy;
    float *sum = (float *)a->y + t * a->ldy;
    for (int32_t c0 = 0; c0 < a->n_col; c0 += 64) {
        __m512i word[4];
        nt_v16_philox(a->seed, a->stream[t], (uint32_t)(a->first + c0) / 4, word);
        for (int j = 0; j < 4; j++) {
            const int32_t c = c0 + 16 * j;
            const __mmask16 inside = nt_v16_mask(a->n_col - c);
            const __mmask16 keep =
                _mm512_mask_cmp_ps_mask(inside, nt_v16_unit(word[j]), _mm512_set1_ps(a->p), _CMP_GE_OQ);
            if (!inside) break;
            if (a->add) {
                const __m512 step = _mm512_mul_ps(_mm512_maskz_loadu_ps(keep, dx + c), f);
                _mm512_mask_storeu_ps(sum + c, keep, _mm512_add_ps(_mm512_maskz_loadu_ps(keep, sum + c), step));
            } else {
                const __m512 kept = _mm512_mul_ps(nt_v16_load_bf16(x + c, keep), f);
                _mm256_mask_storeu_epi16(y + c, inside, _mm256_maskz_mov_epi16(keep, to_bf16(kept)));
            }
        }
    }
}

static void dropout_thread(void *arg, int thread, int n_threads) {
    const struct nt_dropout_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int64_t t = begin; t < end; t++) dropout_row(a, t, _mm512_set1_ps(1.0f / (1.0f - a->p)));
}

nt_status nt_dropout_avx512(struct nt_backend *be, const struct nt_dropout_args *args) {
    NT_CHECK(args->p >= 0 && args->p < 1 && args->first % 4 == 0);
    struct nt_dropout_args a = *args;
    nt_rows_run(be, dropout_thread, &a, args->n_row, args->n_col);
    return NT_OK;
}
