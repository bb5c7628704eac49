#include "dataset_check.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

enum { BLOCK = 8192 };

/* ---- one column ---- */

static nt_status bad(const struct nt_dsfile *f, const char *path, int64_t row, double value, double low, double high) {
    return NT_FAIL(NT_E_DATA, "%s: %s[%" PRId64 "] is %.17g, expected %.17g to %.17g", f->path, path, row, value, low,
                   high);
}

/* Bounds of integers, by the column's check. */
static void bounds(const struct nt_dsfile *f, const struct nt_col_row *r, int64_t *low, int64_t *high) {
    *low = r->check == NT_CHECK_REF_OR_NONE ? -1 : 0;
    switch (r->check) {
    case NT_CHECK_BELOW:
        *high = (int64_t)r->arg - 1;
        break;
    case NT_CHECK_REF:
    case NT_CHECK_REF_OR_NONE:
        *high = f->n[r->arg] - 1;
        break;
    case NT_CHECK_PTR:
        *high = f->n[r->arg];
        break;
    default:
        *high = NT_MAX_TIME_US - 1;
        break;
    }
}

static int64_t int_at(const void *rows, enum nt_h5_type type, int64_t i) {
    switch (type) {
    case NT_H5_U8:
        return ((const uint8_t *)rows)[i];
    case NT_H5_U16:
        return ((const uint16_t *)rows)[i];
    case NT_H5_U32:
        return ((const uint32_t *)rows)[i];
    case NT_H5_I32:
        return ((const int32_t *)rows)[i];
    default:
        return ((const int64_t *)rows)[i];
    }
}

static nt_status check_ints(struct nt_dsfile *f, const struct nt_col_row *r, struct nt_h5_array *a, void *block) {
    const int64_t n = nt_h5_rows(a);
    int64_t low = 0, high = 0, before = 0;
    bounds(f, r, &low, &high);
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t m = n - first < BLOCK ? n - first : BLOCK;
        NT_TRY(nt_h5_read(a, first, m, block));
        for (int64_t i = 0; i < m; i++) {
            const int64_t v = int_at(block, r->type, i);
            if (v < low || v > high) return bad(f, r->path, first + i, (double)v, (double)low, (double)high);
            if (r->check != NT_CHECK_PTR) continue;
            if (v < before || (first + i == 0 && v != 0))
                return NT_FAIL(NT_E_DATA,
                               "%s: %s[%" PRId64 "] is %" PRId64 " after %" PRId64 ", expected ascending from 0",
                               f->path, r->path, first + i, v, before);
            before = v;
        }
    }
    if (r->check == NT_CHECK_PTR && before != high)
        return NT_FAIL(NT_E_DATA, "%s: %s ends at %" PRId64 ", expected %" PRId64, f->path, r->path, before, high);
    return NT_OK;
}

static nt_status check_floats(struct nt_dsfile *f, const struct nt_col_row *r, struct nt_h5_array *a, float *block) {
    const int64_t n = nt_h5_rows(a);
    const double high = r->check == NT_CHECK_WEIGHT ? (double)NT_MAX_WEIGHT : HUGE_VAL,
                 low = r->check == NT_CHECK_WEIGHT ? 0 : -HUGE_VAL;
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t m = n - first < BLOCK ? n - first : BLOCK;
        NT_TRY(nt_h5_read(a, first, m, block));
        for (int64_t i = 0; i < m; i++) {
            const double v = (double)block[i];
            if (!isfinite(v) || v < low || v > high) return bad(f, r->path, first + i, v, low, high);
        }
    }
    return NT_OK;
}

/* Offsets ascend from 0 to the end of data: no entry overlaps another, no byte is hidden between them. */
static nt_status check_ragged(struct nt_dsfile *f, enum nt_col c, int64_t *block) {
    struct nt_h5_text *t = &f->text[c];
    const int64_t n = nt_h5_rows(t->ptr), high = nt_h5_rows(t->data);
    int64_t before = 0;
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t m = n - first < BLOCK ? n - first : BLOCK;
        NT_TRY(nt_h5_read(t->ptr, first, m, block));
        for (int64_t i = 0; i < m; i++) {
            if (block[i] < before || (first + i == 0 && block[i] != 0))
                return NT_FAIL(NT_E_DATA,
                               "%s: %s/ptr[%" PRId64 "] is %" PRId64 " after %" PRId64 ", expected ascending from 0",
                               f->path, nt_col_rows[c].path, first + i, block[i], before);
            before = block[i];
        }
    }
    if (before == high) return NT_OK;
    return NT_FAIL(NT_E_DATA, "%s: %s/ptr ends at %" PRId64 ", but data has %" PRId64 " bytes", f->path,
                   nt_col_rows[c].path, before, high);
}

nt_status nt_dataset_check_columns(struct nt_dsfile *f) {
    nt_status st = NT_OK;
    void *block = malloc(BLOCK * sizeof(int64_t));
    if (!block) return NT_FAIL(NT_E_NOMEM, "%s: no memory to check it", f->path);
    for (int c = 0; c < NT_N_COLS && st == NT_OK; c++) {
        const struct nt_col_row *r = &nt_col_rows[c];
        if (r->check == NT_CHECK_TEXT)
            st = check_ragged(f, (enum nt_col)c, block);
        else if (r->check == NT_CHECK_WEIGHT || r->check == NT_CHECK_VALUE)
            st = check_floats(f, r, f->col[c], block);
        else if (r->check != NT_CHECK_NONE && r->check != NT_CHECK_ANY_F32)
            st = check_ints(f, r, f->col[c], block);
    }
    free(block);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

/* ---- between tables ---- */

static nt_status in_range(const struct nt_dsfile *f, enum nt_col col, int64_t row, int64_t value, int64_t high) {
    if (value >= 0 && value <= high) return NT_OK;
    return bad(f, nt_col_rows[col].path, row, (double)value, 0, (double)high);
}

static nt_status check_feedback(struct nt_dsfile *f, int64_t i) {
    uint8_t target_kind = 0, kind = 0;
    int64_t target = 0;
    float value = 0;
    const enum nt_table tables[NT_N_TARGETS] = {NT_T_MESSAGES, NT_T_GENERATIONS, NT_T_CONVERSATIONS};
    NT_TRY(nt_dsfile_get(f, NT_C_FB_TARGET_KIND, i, &target_kind));
    NT_TRY(nt_dsfile_get(f, NT_C_FB_TARGET, i, &target));
    NT_TRY(nt_dsfile_get(f, NT_C_FB_KIND, i, &kind));
    NT_TRY(nt_dsfile_get(f, NT_C_FB_VALUE, i, &value));
    NT_TRY(in_range(f, NT_C_FB_TARGET, i, target, f->n[tables[target_kind]] - 1));
    if (kind == NT_FEEDBACK_THUMB && value != 1 && value != -1)
        return NT_FAIL(NT_E_DATA, "%s: /feedback/value[%" PRId64 "] is %g, expected 1 or -1 of a thumb", f->path, i,
                       (double)value);
    if (kind == NT_FEEDBACK_RATING && !(value >= 0 && value <= 1))
        return bad(f, "/feedback/value", i, (double)value, 0, 1);
    return NT_OK;
}

static nt_status check_side(struct nt_dsfile *f, int64_t i, enum nt_col col, uint8_t kind, int64_t conv) {
    int64_t side = 0, side_conv = 0;
    const char *path = nt_col_rows[col].path;
    NT_TRY(nt_dsfile_get(f, col, i, &side));
    NT_TRY(in_range(f, col, i, side, f->n[kind == NT_SIDE_GENERATION ? NT_T_GENERATIONS : NT_T_CONVERSATIONS] - 1));
    if (kind == NT_SIDE_GENERATION) {
        NT_TRY(nt_dsfile_get(f, NT_C_GEN_CONV, side, &side_conv));
        if (side_conv == conv) return NT_OK;
        return NT_FAIL(NT_E_DATA, "%s: %s[%" PRId64 "] is a generation of conversation %" PRId64 ", expected %" PRId64,
                       f->path, path, i, side_conv, conv);
    }
    if (f->conv_kind[side] == NT_CONV_COMPLETION && f->subject[side] == f->subject[conv]) return NT_OK;
    return NT_FAIL(NT_E_DATA,
                   "%s: %s[%" PRId64 "] is conversation %" PRId64 ", expected a completion of the prompt's subject",
                   f->path, path, i, side);
}

static nt_status check_pair(struct nt_dsfile *f, int64_t i) {
    int64_t conv = 0, upto = 0;
    uint8_t kind = 0;
    NT_TRY(nt_dsfile_get(f, NT_C_PREF_CONV, i, &conv));
    NT_TRY(nt_dsfile_get(f, NT_C_PREF_UPTO, i, &upto));
    NT_TRY(nt_dsfile_get(f, NT_C_PREF_KIND, i, &kind));
    NT_TRY(in_range(f, NT_C_PREF_UPTO, i, upto, f->msg_ptr[conv + 1] - f->msg_ptr[conv]));
    NT_TRY(check_side(f, i, NT_C_PREF_CHOSEN, kind, conv));
    return check_side(f, i, NT_C_PREF_REJECTED, kind, conv);
}

nt_status nt_dataset_check_links(struct nt_dsfile *f) {
    for (int64_t i = 0; i < f->n[NT_T_CONVERSATIONS]; i++)
        NT_TRY(in_range(f, NT_C_CONV_MSG_PTR, i, f->msg_ptr[i + 1] - f->msg_ptr[i], INT32_MAX));
    for (int64_t i = 0; i < f->n[NT_T_FEEDBACK]; i++) NT_TRY(check_feedback(f, i));
    for (int64_t i = 0; i < f->n[NT_T_PREFERENCES]; i++) NT_TRY(check_pair(f, i));
    return NT_OK;
}
