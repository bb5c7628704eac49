#include "dataset_cells.h"

#include "hash.h"
#include "tok_utf8.h"
#include <inttypes.h>
#include <string.h>

nt_status nt_dsfile_get(struct nt_dsfile *f, enum nt_col col, int64_t row, void *out) {
    return nt_h5_get(f->col[col], row, out);
}

nt_status nt_dsfile_text(struct nt_dsfile *f, enum nt_col col, int64_t row, struct nt_strbuf *out) {
    const size_t before = out->len;
    NT_TRY(nt_h5_text_get(&f->text[col], row, out));
    if (nt_utf8_valid(nt_strbuf_cstr(out) + before, out->len - before)) return NT_OK;
    return NT_FAIL(NT_E_DATA, "%s: %s[%" PRId64 "] is not valid UTF-8", f->path, nt_col_rows[col].path, row);
}

nt_status nt_dsfile_digested(struct nt_dsfile *f, enum nt_col col, enum nt_col sha, int64_t row, struct nt_strbuf *out,
                             uint8_t digest[NT_SHA256_BYTES]) {
    uint8_t made[NT_SHA256_BYTES];
    const size_t before = out->len;
    NT_TRY(nt_dsfile_text(f, col, row, out));
    NT_TRY(nt_dsfile_get(f, sha, row, digest));
    nt_sha256(nt_strbuf_cstr(out) + before, out->len - before, made);
    if (memcmp(made, digest, sizeof made) == 0) return NT_OK;
    return NT_FAIL(NT_E_DATA, "%s: %s[%" PRId64 "] is not the text that %s was made of", f->path, nt_col_rows[col].path,
                   row, nt_col_rows[sha].path);
}

nt_status nt_dsfile_subject(struct nt_dsfile *f, int32_t subject, uint8_t id[NT_CORPUS_ID],
                            struct nt_subject_facts *facts) {
    uint8_t basis = 0;
    *facts = (struct nt_subject_facts){0};
    NT_TRY(nt_dsfile_get(f, NT_C_SUBJECT_ID, subject, id));
    NT_TRY(nt_dsfile_get(f, NT_C_SUBJECT_CONSENT, subject, &facts->consent));
    NT_TRY(nt_dsfile_get(f, NT_C_SUBJECT_BASIS, subject, &basis));
    NT_TRY(nt_dsfile_get(f, NT_C_SUBJECT_VERSION, subject, &facts->version));
    NT_TRY(nt_dsfile_get(f, NT_C_SUBJECT_KEY, subject, &facts->key_id));
    NT_TRY(nt_dsfile_get(f, NT_C_SUBJECT_UPDATED, subject, &facts->updated_us));
    NT_TRY(nt_dsfile_get(f, NT_C_SUBJECT_RETENTION, subject, &facts->retention_until_us));
    NT_TRY(nt_dsfile_get(f, NT_C_SUBJECT_ERASED, subject, &facts->erased_us));
    facts->basis = (enum nt_basis)basis;
    return NT_OK;
}

const char *nt_dsfile_name(const struct nt_dsfile_names *names, int32_t i) {
    return i < 0 ? "" : names->text.data + names->at[i];
}

nt_status nt_dsfile_feedback_conv(struct nt_dsfile *f, int64_t feedback, int64_t *conv) {
    uint8_t kind = 0;
    int64_t target = 0;
    NT_TRY(nt_dsfile_get(f, NT_C_FB_TARGET_KIND, feedback, &kind));
    NT_TRY(nt_dsfile_get(f, NT_C_FB_TARGET, feedback, &target));
    *conv = target;
    if (kind == NT_TARGET_GENERATION) return nt_dsfile_get(f, NT_C_GEN_CONV, target, conv);
    if (kind == NT_TARGET_CONVERSATION) return NT_OK;
    int64_t low = 0, high = f->n[NT_T_CONVERSATIONS]; /* msg_ptr[low] <= target < msg_ptr[high] */
    while (high - low > 1) {
        const int64_t mid = low + (high - low) / 2;
        if (f->msg_ptr[mid] <= target)
            low = mid;
        else
            high = mid;
    }
    *conv = low;
    return NT_OK;
}
