/* Rotary frequencies and the cos/sin tables of a model.
 *
 * inv_freq[j] = theta^(-2j/d_head), j < d_head/2 (Su et al. 2021), scaled as the model says: linear (Chen et al. 2023),
 * llama3 (per-frequency divisor, as transformers and as GGUF's rope_freqs.weight), YaRN (Peng et al. 2023; ramp bounds
 * as in transformers). All in double; tables are rounded to float once: cos(pos * inv_freq) * attention factor.
 * No ownership, no errors, thread safe. */
#ifndef NT_ROPE_TABLE_H
#define NT_ROPE_TABLE_H

#include "spec.h"

/* freq_factors: [d_head/2], the divisors of rope_freqs.weight; only read for NT_ROPE_FREQ_FACTORS. Returns the factor
 * on cos and sin (1 unless YaRN). */
double nt_rope_inv_freq(const struct nt_spec *spec, const float *freq_factors, double *inv_freq); // [d_head/2]
/* Rows [pos0, pos1) of both tables. */
void nt_rope_fill(const double *inv_freq, double scale, int32_t n_half, int32_t pos0, int32_t pos1, float *cos_table,
                  float *sin_table); // [pos1, n_half]

#endif
