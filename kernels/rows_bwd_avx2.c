/* Dropout, 32 columns of random words at a time. */
#include "cpu_philox.h"
#include "cpu_rows.h"
#include "ops_bwd.h"

/* Columns c .. c + 7 (left of them); keep: all ones where they are kept. */
static inline void drop8(const struct nt_dropout_args *a, int64_t t, int32_t c, __m256 keep, __m256 f) {
    const int32_t left = a->n_col - c;
    if (a->add) {
        float *sum = (float *)a->y + t * a->ldy + c;
        const __m256 x = _mm256_and_ps(keep, nt_v8_load((const float *)a->x + t * a->ldx + c, left));
        const __m256 old = nt_v8_load(sum, left), new = _mm256_add_ps(old, _mm256_mul_ps(x, f));
        nt_v8_store(sum, left, _mm256_blendv_ps(old, new, keep));
        return;
    }
    const nt_bf16 *x = (const nt_bf16 *)a->x + t * a->ldx + c;
    nt_bf16 part[8] = {0};
    if (left < 8) memcpy(part, x, (size_t)left * sizeof *x);
    const __m256 kept = _mm256_and_ps(keep, _mm256_mul_ps(nt_v8_load_bf16(left < 8 ? part : x), f));
    nt_v8_store_bf16((nt_bf16 *)a->y + t * a->ldy + c, left, kept);
}

static void dropout_thread(void *arg, int thread, int n_threads) {
    const struct nt_dropout_args *a = arg;
    const __m256 f = _mm256_set1_ps(1.0f / (1.0f - a->p)), p = _mm256_set1_ps(a->p);
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int64_t t = begin; t < end; t++)
        for (int32_t c = 0; c < a->n_col; c += 32) {
            __m256i word[4];
            nt_v8_philox(a->seed, a->stream[t], (uint32_t)(a->first + c) / 4, word);
            for (int j = 0; j < 4 && c + 8 * j < a->n_col; j++)
                drop8(a, t, c + 8 * j, _mm256_cmp_ps(nt_v8_unit(word[j]), p, _CMP_GE_OQ), f);
        }
}

nt_status nt_dropout_avx2(struct nt_backend *be, const struct nt_dropout_args *args) {
    NT_CHECK(args->p >= 0 && args->p < 1 && args->first % 4 == 0);
    struct nt_dropout_args a = *args;
    nt_rows_run(be, dropout_thread, &a, args->n_row, args->n_col);
    return NT_OK;
}
