#include "ops.h"
#include <math.h>
#include <string.h>

static int64_t round_up(int64_t x, int64_t unit) {
    return (x + unit - 1) / unit * unit;
}

static int64_t k_pad(enum nt_weight_format format, int32_t k) {
    return round_up(k, format == NT_WEIGHT_BF16_ROWS ? 8 : 2);
}

static int64_t int4_groups(int32_t k) {
    return round_up(k, NT_INT4_GROUP) / NT_INT4_GROUP;
}

size_t nt_packed_bytes(enum nt_weight_format format, int32_t n, int32_t k) {
    NT_CHECK(format < NT_WEIGHT_FORMAT_COUNT && n > 0 && k > 0);
    if (format == NT_WEIGHT_INT4) return (size_t)(round_up(n, NT_PANEL) / NT_PANEL * int4_groups(k) * NT_INT4_BLOCK);
    return (size_t)(round_up(n, NT_PANEL) * k_pad(format, k)) * sizeof(nt_bf16);
}

static void pack_in_panel(nt_bf16 *data, int32_t row, const nt_bf16 *values, int32_t k) {
    nt_bf16 *lane = data + (row / NT_PANEL * (round_up(k, 2) / 2) * NT_PANEL + row % NT_PANEL) * 2;
    for (int64_t i = 0; i < k; i++) lane[i / 2 * NT_PANEL * 2 + i % 2] = values[i];
}

/* ---- INT4 ---- */

enum { INT4_HALF = NT_PANEL * NT_INT4_GROUP / 4, INT4_SCALES = 2 * INT4_HALF, INT4_ZERO = 8 };
_Static_assert(INT4_SCALES + 2 * NT_PANEL == NT_INT4_BLOCK, "nibbles and scales of a block");

/* Place of (row in the panel, k in the group) in a block: byte, and shift in it.
 * A lane of a warp feeds mma.m16n8k16 with 16 bytes for 16 rows and 64 of k: two halves of the group [k / 64], in each
 * two quarters [row / 16] of 32 lanes of 16 bytes. Lane 4 (row % 8) + k % 8 / 2. Its four words: two for rows % 16 < 8
 * and two for the others, [k % 64 / 32]. A word has the four registers of two steps [k % 32 / 16][k % 16 / 8]: register
 * i has its even k in nibble i and its odd k in nibble i + 4, so that a shift and a mask give both. */
static int32_t int4_place(int32_t row, int32_t k, int32_t *shift) {
    const int32_t lane = 4 * (row % 8) + k % 8 / 2;
    const int32_t word = 2 * (row % 16 / 8) + k % 64 / 32, reg = 2 * (k % 32 / 16) + k % 16 / 8;
    const int32_t nibble = reg + 4 * (k % 2);
    *shift = 4 * (nibble % 2);
    return k / 64 * INT4_HALF + row / 16 * (INT4_HALF / 2) + lane * 16 + word * 4 + nibble / 2;
}

static float int4_scale(const nt_bf16 *values, int32_t count) {
    float most = 0;
    for (int32_t i = 0; i < count; i++) {
        const float v = fabsf(nt_bf16_to_f32(values[i]));
        if (!isfinite(v)) return NAN;
        if (v > most) most = v;
    }
    return nt_bf16_to_f32(nt_f32_to_bf16(most / 7));
}

/* Halves to even, by the default rounding; 0 with a scale of 0 or NaN. */
static int32_t int4_round(float value, float scale) {
    if (!(scale > 0)) return 0;
    const float q = rintf(value / scale);
    return q > 7 ? 7 : q < -7 ? -7 : (int32_t)q;
}

static void pack_in_blocks(unsigned char *data, int32_t row, const nt_bf16 *values, int32_t k) {
    const int64_t groups = int4_groups(k);
    for (int64_t g = 0; g < groups; g++) {
        unsigned char *block = data + (row / NT_PANEL * groups + g) * NT_INT4_BLOCK;
        const int32_t first = (int32_t)g * NT_INT4_GROUP, count = k - first < NT_INT4_GROUP ? k - first : NT_INT4_GROUP;
        const float scale = int4_scale(values + first, count);
        for (int32_t i = 0; i < NT_INT4_GROUP; i++) {
            int32_t shift;
            unsigned char *at = block + int4_place(row % NT_PANEL, i, &shift);
            const int32_t q = i < count ? int4_round(nt_bf16_to_f32(values[first + i]), scale) : 0;
            *at = (unsigned char)((*at & (0xf0 >> shift)) | (q + INT4_ZERO) << shift);
        }
        const nt_bf16 stored = nt_f32_to_bf16(scale);
        memcpy(block + INT4_SCALES + row % NT_PANEL * (int32_t)sizeof stored, &stored, sizeof stored);
    }
}

void nt_unpack_int4(const struct nt_packed *w, int32_t panel, int32_t group, int8_t q[NT_INT4_GROUP][NT_PANEL],
                    float scale[NT_PANEL]) {
    NT_CHECK(w->format == NT_WEIGHT_INT4);
    const unsigned char *block = (const unsigned char *)w->data + (panel * int4_groups(w->k) + group) * NT_INT4_BLOCK;
    for (int32_t k = 0; k < NT_INT4_GROUP; k++) {
        for (int32_t row = 0; row < NT_PANEL; row++) {
            int32_t shift;
            const int32_t at = int4_place(row, k, &shift);
            q[k][row] = (int8_t)((block[at] >> shift & 15) - INT4_ZERO);
        }
    }
    for (int32_t row = 0; row < NT_PANEL; row++) {
        nt_bf16 stored;
        memcpy(&stored, block + INT4_SCALES + row * (int32_t)sizeof stored, sizeof stored);
        scale[row] = nt_bf16_to_f32(stored);
    }
}

void nt_pack_row(const struct nt_packed *w, void *data, int32_t row, const nt_bf16 *values) {
    NT_CHECK(w->format < NT_WEIGHT_FORMAT_COUNT && row >= 0 && row < w->n);
    if (w->format == NT_WEIGHT_BF16)
        pack_in_panel(data, row, values, w->k);
    else if (w->format == NT_WEIGHT_INT4)
        pack_in_blocks(data, row, values, w->k);
    else
        memcpy((nt_bf16 *)data + row * k_pad(w->format, w->k), values, (size_t)w->k * sizeof *values);
}

void nt_unpack_row(const struct nt_packed *w, int32_t row, nt_bf16 *values) {
    NT_CHECK(w->format != NT_WEIGHT_INT4 && row >= 0 && row < w->n);
    const nt_bf16 *data = w->data;
    const nt_bf16 *lane = data + (row / NT_PANEL * (round_up(w->k, 2) / 2) * NT_PANEL + row % NT_PANEL) * 2;
    for (int64_t i = 0; i < w->k; i++)
        values[i] =
            w->format == NT_WEIGHT_BF16 ? lane[i / 2 * NT_PANEL * 2 + i % 2] : data[row * k_pad(w->format, w->k) + i];
}

int32_t nt_packed_gate_row(int32_t j) {
    return j / (NT_PANEL / 2) * NT_PANEL + j % (NT_PANEL / 2);
}
int32_t nt_packed_up_row(int32_t j) {
    return nt_packed_gate_row(j) + NT_PANEL / 2;
}
