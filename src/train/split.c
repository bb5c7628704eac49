#include "split.h"

#include "hash.h"

#include <stdlib.h>
#include <string.h>

static bool drawn(const struct nt_split_rule *rule, const uint8_t person[32]) {
    uint8_t bytes[8 + 32], digest[NT_SHA256_BYTES];
    uint64_t high = 0;
    if (rule->fraction <= 0) return false;
    memcpy(bytes, &rule->salt, 8);
    memcpy(bytes + 8, person, 32);
    nt_sha256(bytes, sizeof bytes, digest);
    for (int i = 0; i < 8; i++) high = high << 8 | digest[i];
    return (double)high < rule->fraction * 18446744073709551616.0;
}

static int by_person(const void *a, const void *b) {
    const struct nt_split_row *x = *(const struct nt_split_row *const *)a, *y = *(const struct nt_split_row *const *)b;
    const int order = memcmp(x->person, y->person, sizeof x->person);
    return order != 0 ? order : x < y ? -1 : x > y;
}

static bool wanted(const struct nt_split_rule *rule, const struct nt_split_row *row) {
    return row->asked || (rule->since_us != 0 && row->created_us != 0 && row->created_us >= rule->since_us);
}

/* any: the person has rows that are not to be trained on. */
static uint8_t side_of(const struct nt_split_row *row, bool evaluated, bool any) {
    if (row->elsewhere) return NT_SIDE_NEITHER;
    if (evaluated) return NT_SIDE_EVAL;
    return any ? NT_SIDE_NEITHER : NT_SIDE_TRAIN;
}

nt_status nt_split_rows(const struct nt_split_rule *rule, const struct nt_split_row *rows, int32_t n, uint8_t *side) {
    if (n == 0) return NT_OK;
    const struct nt_split_row **sorted = calloc((size_t)n, sizeof(void *));
    if (!sorted) return NT_FAIL(NT_E_NOMEM, "no memory to split %d rows", n);
    for (int32_t i = 0; i < n; i++) sorted[i] = &rows[i];
    qsort(sorted, (size_t)n, sizeof(void *), by_person);
    for (int32_t i = 0, end; i < n; i = end) {
        bool any = false;
        for (end = i; end < n && memcmp(sorted[end]->person, sorted[i]->person, sizeof sorted[i]->person) == 0; end++)
            any = any || sorted[end]->elsewhere || wanted(rule, sorted[end]);
        const bool all = drawn(rule, sorted[i]->person);
        for (int32_t k = i; k < end; k++)
            side[sorted[k] - rows] = side_of(sorted[k], all || wanted(rule, sorted[k]), any);
    }
    free(sorted);
    return NT_OK;
}
