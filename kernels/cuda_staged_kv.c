#include "cuda_staged_kv.h"
#include <math.h>
#include <string.h>

/* One head of one page. */
struct head {
    nt_bf16 *paired;
    int32_t d, d_pad;
    enum nt_kv_format format;
};

static int64_t paired_at(const struct head *h, int64_t slot, bool v, int64_t i) {
    return v ? (int64_t)NT_KV_PAGE * h->d_pad + (slot / 2 * h->d_pad + i) * 2 + slot % 2
             : (i / 2 * NT_KV_PAGE + slot) * 2 + i % 2;
}

/* Where a slot lies in the image of its head, in bytes: its row, and its scale. */
static size_t row_at(const struct head *h, int64_t slot, bool v) {
    const size_t element = h->format == NT_KV_ROWS_INT8 ? 1 : sizeof(nt_bf16);
    return (size_t)(((v ? NT_KV_PAGE : 0) + slot) * h->d_pad) * element;
}

static size_t scale_at(const struct head *h, int64_t slot, bool v) {
    return (size_t)(2 * NT_KV_PAGE) * (size_t)h->d_pad + (size_t)((v ? NT_KV_PAGE : 0) + slot) * sizeof(float);
}

static void quantize(const struct head *h, int64_t slot, bool v, char *image) {
    float max = 0;
    for (int32_t i = 0; i < h->d; i++) max = fmaxf(max, fabsf(nt_bf16_to_f32(h->paired[paired_at(h, slot, v, i)])));
    const float scale = max > 0 ? max / 127 : 1;
    int8_t *row = (int8_t *)image + row_at(h, slot, v);
    for (int32_t i = 0; i < h->d_pad; i++)
        row[i] = i < h->d ? (int8_t)rintf(nt_bf16_to_f32(h->paired[paired_at(h, slot, v, i)]) / scale) : 0;
    memcpy(image + scale_at(h, slot, v), &scale, sizeof scale);
}

static void slot_to_image(const struct head *h, int64_t slot, bool v, char *image) {
    if (h->format == NT_KV_ROWS_INT8) {
        quantize(h, slot, v, image);
        return;
    }
    nt_bf16 *row = (nt_bf16 *)(void *)(image + row_at(h, slot, v));
    for (int32_t i = 0; i < h->d_pad; i++) row[i] = h->paired[paired_at(h, slot, v, i)];
}

/* Paired pages keep their padding columns, which no op of a CPU writes. */
/* Without the padding columns: bodies of a GPU write zeros there, those of CPUs leave the page's own. */
static void slot_to_host(const struct head *h, int64_t slot, bool v, const char *before, const char *after) {
    const size_t at = row_at(h, slot, v), scale_pos = scale_at(h, slot, v);
    if (h->format == NT_KV_ROWS) {
        const nt_bf16 *row = (const nt_bf16 *)(const void *)(after + at);
        for (int32_t i = 0; i < h->d; i++) h->paired[paired_at(h, slot, v, i)] = row[i];
        return;
    }
    if (memcmp(before + at, after + at, (size_t)h->d_pad) == 0 &&
        memcmp(before + scale_pos, after + scale_pos, sizeof(float)) == 0) {
        return;
    }
    float scale;
    memcpy(&scale, after + scale_pos, sizeof scale);
    for (int32_t i = 0; i < h->d; i++)
        h->paired[paired_at(h, slot, v, i)] = nt_f32_to_bf16(scale * (float)((const int8_t *)after)[at + (size_t)i]);
}

static int64_t gap(const struct nt_kv_layer *kv) {
    return kv->page_stride - kv->n_kv * nt_kv_head_elems(kv->format, kv->d_head);
}

int64_t nt_staged_stride(const struct nt_kv_layer *kv, enum nt_kv_format format) {
    return kv->n_kv * nt_kv_head_elems(format, kv->d_head) + gap(kv);
}

int64_t nt_staged_elems(const struct nt_kv_layer *kv, enum nt_kv_format format, int64_t n_pages) {
    return n_pages > 0 ? n_pages * nt_staged_stride(kv, format) - gap(kv) : 0;
}

/* The heads of all pages, and the gaps between pages; after NULL: to the device. */
static void convert(const struct nt_kv_layer *kv, enum nt_kv_format format, int64_t n_pages, nt_bf16 *image,
                    const nt_bf16 *before, const nt_bf16 *after) {
    NT_CHECK(format != NT_KV_PAIRED && (kv->format == NT_KV_PAIRED || kv->format == format));
    if (kv->format == format) {
        const size_t bytes = (size_t)nt_staged_elems(kv, format, n_pages) * sizeof *image;
        if (bytes > 0) memcpy(after ? kv->base : image, after ? after : kv->base, bytes);
        return;
    }
    const int64_t stride = nt_staged_stride(kv, format), elems = nt_kv_head_elems(format, kv->d_head);
    for (int64_t page = 0; page < n_pages; page++) {
        for (int32_t n = 0; n < kv->n_kv; n++) {
            const struct head h = {kv->base + page * kv->page_stride + n * nt_kv_head_elems(NT_KV_PAIRED, kv->d_head),
                                   kv->d_head, nt_d_pad(kv->d_head), format};
            const int64_t at = page * stride + n * elems;
            for (int64_t slot = 0; slot < 2 * NT_KV_PAGE; slot++) {
                if (after)
                    slot_to_host(&h, slot / 2, slot % 2, (const char *)(before + at), (const char *)(after + at));
                else
                    slot_to_image(&h, slot / 2, slot % 2, (char *)(image + at));
            }
        }
        if (page + 1 == n_pages) break;
        nt_bf16 *host_gap = kv->base + (page + 1) * kv->page_stride - gap(kv);
        const int64_t at = (page + 1) * stride - gap(kv);
        if (after)
            memcpy(host_gap, after + at, (size_t)gap(kv) * sizeof *after);
        else
            memcpy(image + at, host_gap, (size_t)gap(kv) * sizeof *image);
    }
}

void nt_staged_to_device(const struct nt_kv_layer *kv, enum nt_kv_format format, int64_t n_pages, nt_bf16 *image) {
    convert(kv, format, n_pages, image, NULL, NULL);
}

void nt_staged_to_host(const struct nt_kv_layer *kv, enum nt_kv_format format, int64_t n_pages, const nt_bf16 *before,
                       const nt_bf16 *after) {
    convert(kv, format, n_pages, NULL, before, after);
}
