#include "ops.h"
#include <math.h>
#include <string.h>

static int64_t round_up(int64_t x, int64_t unit) {
    return (x + unit - 1) / unit * unit;
}

static int64_t k_pad(enum nt_weight_format format, int32_t k) {
    return round_up(k, format == NT_WEIGHT_BF16_ROWS ? 8 : 2);
}

static int64_t n_groups(int32_t k) {
    return round_up(k, NT_INT4_GROUP) / NT_INT4_GROUP;
}

const char *nt_weight_format_name(enum nt_weight_format format) {
    static const char *const names[] = {"bf16", "bf16", "int4", "int8"};
    _Static_assert(sizeof names / sizeof names[0] == NT_WEIGHT_FORMAT_COUNT, "a name per format");
    NT_CHECK(format < NT_WEIGHT_FORMAT_COUNT);
    return names[format];
}

size_t nt_packed_bytes(enum nt_weight_format format, int32_t n, int32_t k) {
    NT_CHECK(format < NT_WEIGHT_FORMAT_COUNT && n > 0 && k > 0);
    if (nt_weight_is_quantized(format))
        return (size_t)(round_up(n, NT_PANEL) / NT_PANEL * n_groups(k) * nt_packed_block_bytes(format));
    return (size_t)(round_up(n, NT_PANEL) * k_pad(format, k)) * sizeof(nt_bf16);
}

/* Rows from row0 on that a part's rows lie in. */
static int64_t part_extent(const struct nt_packed_part *p) {
    return p->run == 0 || p->n == 0 ? p->n : (int64_t)(p->n - 1) / p->run * 2 * p->run + (p->n - 1) % p->run + 1;
}

void nt_packed_check_parts(const struct nt_packed *w) {
    int32_t k = 0;
    NT_CHECK(w->n_part >= 0 && w->n_part <= NT_PACKED_PARTS);
    for (int i = 0; i < w->n_part; i++) {
        const struct nt_packed_part *p = &w->part[i];
        NT_CHECK(p->k > 0 && p->k % 2 == 0 && p->row0 >= 0 && p->n >= 0);
        NT_CHECK(p->run == 0 || (p->run == NT_PANEL / 2 && p->row0 % p->run == 0));
        NT_CHECK(p->row0 + part_extent(p) <= w->n);
        k += p->k;
    }
    NT_CHECK(w->n_part == 0 || k == w->k);
}

static void pack_in_panel(nt_bf16 *data, int32_t row, const nt_bf16 *values, int32_t k) {
    nt_bf16 *lane = data + (row / NT_PANEL * (round_up(k, 2) / 2) * NT_PANEL + row % NT_PANEL) * 2;
    for (int64_t i = 0; i < k; i++) lane[i / 2 * NT_PANEL * 2 + i % 2] = values[i];
}

/* ---- quantized ---- */

enum { INT4_HALF = NT_PANEL * NT_INT4_GROUP / 4, INT4_SCALES = 2 * INT4_HALF, INT4_ZERO = 8 };
enum { INT8_SCALES = NT_PANEL * NT_INT4_GROUP };
_Static_assert(INT4_SCALES + 2 * NT_PANEL == NT_INT4_BLOCK, "nibbles and scales of a block");
_Static_assert(INT8_SCALES + 2 * NT_PANEL == NT_INT8_BLOCK, "bytes and scales of a block");

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

/* Place of (row in the panel, k in the group) in a block of INT8. */
static int32_t int8_place(int32_t row, int32_t k) {
    return (k / 2 * NT_PANEL + row) * 2 + k % 2;
}

static void put_int4(unsigned char *block, int32_t row, int32_t k, int32_t q) {
    int32_t shift;
    unsigned char *at = block + int4_place(row, k, &shift);
    *at = (unsigned char)((*at & (0xf0 >> shift)) | (q + INT4_ZERO) << shift);
}
static void put_int8(unsigned char *block, int32_t row, int32_t k, int32_t q) {
    block[int8_place(row, k)] = (unsigned char)q;
}
static int8_t get_int4(const unsigned char *block, int32_t row, int32_t k) {
    int32_t shift;
    const int32_t at = int4_place(row, k, &shift);
    return (int8_t)((block[at] >> shift & 15) - INT4_ZERO);
}
static int8_t get_int8(const unsigned char *block, int32_t row, int32_t k) {
    return (int8_t)block[int8_place(row, k)];
}

/* One row per quantized format. */
struct quantized {
    int32_t bytes, scales, most; /* of a block, where in it; the largest q */
    void (*put)(unsigned char *block, int32_t row, int32_t k, int32_t q);
    int8_t (*get)(const unsigned char *block, int32_t row, int32_t k);
};
static const struct quantized *quantized(enum nt_weight_format format) {
    static const struct quantized int4 = {NT_INT4_BLOCK, INT4_SCALES, 7, put_int4, get_int4};
    static const struct quantized int8 = {NT_INT8_BLOCK, INT8_SCALES, 127, put_int8, get_int8};
    NT_CHECK(nt_weight_is_quantized(format));
    return format == NT_WEIGHT_INT4 ? &int4 : &int8;
}

int32_t nt_packed_block_bytes(enum nt_weight_format format) {
    return quantized(format)->bytes;
}

const unsigned char *nt_packed_block(const struct nt_packed *w, int32_t panel, int32_t group) {
    return (const unsigned char *)w->data + (panel * n_groups(w->k) + group) * nt_packed_block_bytes(w->format);
}

static float scale_of(const nt_bf16 *values, int32_t count, int32_t largest) {
    float most = 0;
    for (int32_t i = 0; i < count; i++) {
        const float v = fabsf(nt_bf16_to_f32(values[i]));
        if (!isfinite(v)) return NAN;
        if (v > most) most = v;
    }
    return nt_bf16_to_f32(nt_f32_to_bf16(most / (float)largest));
}

/* Halves to even, by the default rounding; 0 with a scale of 0 or NaN. */
static int32_t nearest(float value, float scale, int32_t most) {
    if (!(scale > 0)) return 0;
    const float q = rintf(value / scale);
    return q > (float)most ? most : q < (float)-most ? -most : (int32_t)q;
}

static void pack_in_blocks(const struct nt_packed *w, unsigned char *data, int32_t row, const nt_bf16 *values) {
    const struct quantized *f = quantized(w->format);
    const int64_t groups = n_groups(w->k);
    for (int64_t g = 0; g < groups; g++) {
        unsigned char *block = data + (row / NT_PANEL * groups + g) * f->bytes;
        const int32_t first = (int32_t)g * NT_INT4_GROUP, left = w->k - first;
        const int32_t count = left < NT_INT4_GROUP ? left : NT_INT4_GROUP;
        const float scale = scale_of(values + first, count, f->most);
        for (int32_t i = 0; i < NT_INT4_GROUP; i++)
            f->put(block, row % NT_PANEL, i,
                   i < count ? nearest(nt_bf16_to_f32(values[first + i]), scale, f->most) : 0);
        const nt_bf16 stored = nt_f32_to_bf16(scale);
        memcpy(block + f->scales + row % NT_PANEL * (int32_t)sizeof stored, &stored, sizeof stored);
    }
}

void nt_unpack_block(const struct nt_packed *w, int32_t panel, int32_t group, int8_t q[NT_INT4_GROUP][NT_PANEL],
                     float scale[NT_PANEL]) {
    const struct quantized *f = quantized(w->format);
    const unsigned char *block = nt_packed_block(w, panel, group);
    for (int32_t k = 0; k < NT_INT4_GROUP; k++)
        for (int32_t row = 0; row < NT_PANEL; row++) q[k][row] = f->get(block, row, k);
    for (int32_t row = 0; row < NT_PANEL; row++) {
        nt_bf16 stored;
        memcpy(&stored, block + f->scales + row * (int32_t)sizeof stored, sizeof stored);
        scale[row] = nt_bf16_to_f32(stored);
    }
}

void nt_unpack_pairs(const struct nt_packed *w, int32_t panel, int32_t group, nt_bf16 *to) {
    int8_t q[NT_INT4_GROUP][NT_PANEL];
    float scale[NT_PANEL];
    nt_unpack_block(w, panel, group, q, scale);
    for (int32_t k = 0; k < NT_INT4_GROUP; k++)
        for (int32_t row = 0; row < NT_PANEL; row++)
            to[(k / 2 * NT_PANEL + row) * 2 + k % 2] = nt_f32_to_bf16(scale[row] * (float)q[k][row]);
}

void nt_pack_row(const struct nt_packed *w, void *data, int32_t row, const nt_bf16 *values) {
    NT_CHECK(w->format < NT_WEIGHT_FORMAT_COUNT && row >= 0 && row < w->n);
    if (w->format == NT_WEIGHT_BF16)
        pack_in_panel(data, row, values, w->k);
    else if (nt_weight_is_quantized(w->format))
        pack_in_blocks(w, data, row, values);
    else
        memcpy((nt_bf16 *)data + row * k_pad(w->format, w->k), values, (size_t)w->k * sizeof *values);
}

void nt_unpack_row(const struct nt_packed *w, int32_t row, nt_bf16 *values) {
    NT_CHECK(!nt_weight_is_quantized(w->format) && row >= 0 && row < w->n);
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
