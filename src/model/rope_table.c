#include "rope_table.h"
#include <math.h>

/* The divisor is rounded to float, so that a model reads the same from config.json and from rope_freqs.weight. */
static double llama3_divisor(const struct nt_spec *spec, double freq) {
    const double wavelen = 2 * M_PI / freq, len = spec->rope.original_max_len;
    const double low = spec->rope.low_freq_factor, high = spec->rope.high_freq_factor;
    if (wavelen < len / high) return 1;
    if (wavelen > len / low) return spec->rope.factor;
    const double s = (len / wavelen - low) / (high - low);
    return (double)(float)(1 / ((1 - s) / spec->rope.factor + s));
}

/* The (fractional) index of the frequency that turns `turns` times within the original length. */
static double yarn_index(const struct nt_spec *spec, double turns) {
    return spec->d_head * log(spec->rope.original_max_len / (turns * 2 * M_PI)) / (2 * log(spec->rope.theta));
}

static double yarn_scale(const struct nt_spec *spec, double freq, int32_t j) {
    double low = yarn_index(spec, spec->rope.beta_fast), high = yarn_index(spec, spec->rope.beta_slow);
    if (!spec->rope.no_truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, spec->d_head - 1);
    if (low == high) high += 0.001;
    const double ramp = fmin(fmax((j - low) / (high - low), 0), 1);
    return freq / spec->rope.factor * ramp + freq * (1 - ramp);
}

double nt_rope_inv_freq(const struct nt_spec *spec, const float *freq_factors, double *inv_freq) {
    for (int32_t j = 0; j < spec->d_head / 2; j++) {
        const double freq = pow(spec->rope.theta, -2.0 * j / spec->d_head);
        switch (spec->rope.scaling) {
        case NT_ROPE_NONE:
            inv_freq[j] = freq;
            break;
        case NT_ROPE_LINEAR:
            inv_freq[j] = freq / spec->rope.factor;
            break;
        case NT_ROPE_LLAMA3:
            inv_freq[j] = freq / llama3_divisor(spec, freq);
            break;
        case NT_ROPE_YARN:
            inv_freq[j] = yarn_scale(spec, freq, j);
            break;
        case NT_ROPE_FREQ_FACTORS:
            inv_freq[j] = freq / (double)freq_factors[j];
            break;
        }
    }
    return spec->rope.scaling == NT_ROPE_YARN ? spec->rope.attention_factor : 1;
}

void nt_rope_fill(const double *inv_freq, double scale, int32_t n_half, int32_t pos0, int32_t pos1, float *cos_table,
                  float *sin_table) {
    for (int64_t pos = pos0; pos < pos1; pos++) {
        for (int32_t j = 0; j < n_half; j++) {
            cos_table[pos * n_half + j] = (float)(cos((double)pos * inv_freq[j]) * scale);
            sin_table[pos * n_half + j] = (float)(sin((double)pos * inv_freq[j]) * scale);
        }
    }
}
