/* The specification of truncated sampling, in portable C: thresholds found digit by digit, no sort, no memory. */
#include "cpu_bodies.h"
#include "cpu_logits.h"
#include "cpu_math.h"
#include "rng.h"
#include <math.h>

/* A logit and its index as one word: the larger word is the better logit, and no two words of a row are equal. */
static uint64_t word_of(float y, int32_t index) {
    const uint32_t bits = nt_bits_of_float(y + 0.0f); /* -0 + 0 is +0 */
    const uint32_t key = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)key << 32 | (uint32_t)~index;
}

/* 2^40 exp(y - best), rounded down. */
static uint64_t mass_of(float y, float best) {
    return (uint64_t)(nt_exp2_neg((y - best) * NT_LOG2E) * 0x1p40f);
}

struct row {
    const float *x;
    float inv_temp, best;
    int32_t n;
};

static float scaled(const struct row *r, int32_t v) {
    return r->x[v] * r->inv_temp;
}

/* The largest T for which the words from T up weigh at least `need`, each weighing its mass, or 1; 0: none do. Only
 * words from `from` up count. One digit of 8 bits at a time, the sums of its values first. */
static uint64_t threshold(const struct row *r, uint64_t from, bool by_mass, uint64_t need) {
    uint64_t prefix = 0, mask = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        uint64_t weight[256] = {0};
        for (int32_t v = 0; v < r->n; v++) {
            const float y = scaled(r, v);
            const uint64_t word = word_of(y, v);
            if (word >= from && (word & mask) == prefix)
                weight[word >> shift & 255] += by_mass ? mass_of(y, r->best) : 1;
        }
        int digit = 255;
        while (digit >= 0 && weight[digit] < need) need -= weight[digit--];
        if (digit < 0) return 0;
        prefix |= (uint64_t)digit << shift;
        mask |= (uint64_t)255 << shift;
    }
    return prefix;
}

/* Sum over the row, block by block. */
static uint64_t mass_of_all(const struct row *r) {
    uint64_t total = 0;
    for (int32_t begin = 0; begin < r->n; begin += NT_SAMPLE_BLOCK) {
        const int32_t end = r->n - begin < NT_SAMPLE_BLOCK ? r->n : begin + NT_SAMPLE_BLOCK;
        float best = scaled(r, begin);
        for (int32_t v = begin + 1; v < end; v++) best = scaled(r, v) > best ? scaled(r, v) : best;
        if (best == -INFINITY) continue;
        uint64_t sum = 0;
        for (int32_t v = begin; v < end; v++) sum += mass_of(scaled(r, v), best);
        total += (uint64_t)((unsigned __int128)sum * mass_of(best, r->best) >> 40);
    }
    return total;
}

static uint64_t mass_from(const struct row *r, uint64_t from) {
    uint64_t sum = 0;
    for (int32_t v = 0; v < r->n; v++)
        if (word_of(scaled(r, v), v) >= from) sum += mass_of(scaled(r, v), r->best);
    return sum;
}

/* The lowest word that may be drawn; never above that of the best. */
static uint64_t lowest_word(const struct row *r, uint64_t best_word, int32_t top_k, float top_p, float min_p) {
    const bool limited = top_k > 0 && top_k < r->n;
    uint64_t low = limited ? threshold(r, 0, false, (uint64_t)top_k) : 0;
    if (top_p < 1) {
        const uint64_t sum = limited ? mass_from(r, low) : mass_of_all(r);
        const uint64_t need = (uint64_t)((double)top_p * (double)sum);
        const uint64_t cut = threshold(r, low, true, need > 0 ? need : 1);
        if (cut > low) low = cut;
    }
    const float floor_value = min_p > 0 ? r->best + nt_log_pos(min_p) : -INFINITY;
    const uint64_t floor_word = (word_of(floor_value, -1) & ~(uint64_t)0xffffffffu) + (min_p > 0 ? 0 : 1ull << 32);
    if (floor_word > low) low = floor_word;
    return low < best_word ? low : best_word;
}

static int32_t draw(const struct row *r, uint64_t low, uint64_t seed, uint64_t stream) {
    float best = 0;
    int32_t at = -1;
    uint32_t word[4];
    for (int32_t v = 0; v < r->n; v++) {
        const float y = scaled(r, v);
        if (word_of(y, v) < low) continue;
        nt_philox(seed, stream, (uint64_t)(v >> 2), word);
        const float sum = y - nt_log_pos(-nt_log_pos(nt_unit_float(word[v & 3])));
        if (at >= 0 && !(sum > best)) continue;
        best = sum;
        at = v;
    }
    return at;
}

static int32_t sample_row(const struct nt_logit_sample_args *a, int64_t i) {
    const float inv_temp = a->inv_temp[i];
    struct row r = {a->logits + i * a->ld, inv_temp == 0.0f ? 1.0f : inv_temp, 0, a->n_vocab};
    int32_t argmax = 0;
    for (int32_t v = 0; v < r.n; v++) {
        const float y = scaled(&r, v);
        if (v > 0 && !nt_logit_above(y, r.best)) continue;
        r.best = y;
        argmax = v;
    }
    if (!isfinite(r.best)) return -1;
    if (inv_temp == 0.0f) return argmax;
    const uint64_t low = lowest_word(&r, word_of(r.best, argmax), a->top_k[i], a->top_p[i], a->min_p[i]);
    return draw(&r, low, a->seed[i], a->stream[i]);
}

static void sample_thread(void *arg, int thread, int n_threads) {
    const struct nt_logit_sample_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++) a->index[r] = sample_row(a, r);
}

nt_status nt_logit_sample_portable(struct nt_backend *be, const struct nt_logit_sample_args *args) {
    struct nt_logit_sample_args a = *args;
    nt_pool_run(be->pool, sample_thread, &a);
    return NT_OK;
}
