#include "shard.h"
#include "pool.h"
#include <string.h>

static int32_t round_up(int32_t n, int32_t unit) {
    return (n + unit - 1) / unit * unit;
}

static void split(int32_t count, int32_t unit, int32_t rank, int32_t size, int32_t *first, int32_t *n) {
    int64_t begin = 0, end = 0;
    nt_split(count, unit, rank, size, &begin, &end);
    *first = (int32_t)begin;
    *n = (int32_t)(end - begin);
}

int32_t nt_shard_most(const struct nt_spec *spec) {
    const int32_t ff_units = round_up(spec->d_ff, NT_FF_UNIT) / NT_FF_UNIT;
    const int32_t vocab_units = round_up(spec->n_vocab, NT_VOCAB_UNIT) / NT_VOCAB_UNIT;
    const int32_t most = spec->n_head < ff_units ? spec->n_head : ff_units;
    return vocab_units < most ? vocab_units : most;
}

nt_status nt_shard_plan(const struct nt_spec *spec, int32_t rank, int32_t size, struct nt_shard *out) {
    memset(out, 0, sizeof *out);
    const int32_t most = nt_shard_most(spec);
    if (size > most)
        return NT_FAIL(NT_E_CONFIG,
                       "run.tp is %d, expected at most %d for this model (%d heads, d_ff %d, vocabulary %d)", size,
                       most, spec->n_head, spec->d_ff, spec->n_vocab);
    out->rank = rank;
    out->size = size;
    const int32_t group = spec->n_head / spec->n_kv;
    if (size <= spec->n_kv) {
        split(spec->n_kv, 1, rank, size, &out->kv0, &out->n_kv);
        out->head0 = out->kv0 * group;
        out->n_head = out->n_kv * group;
    } else {
        split(spec->n_head, 1, rank, size, &out->head0, &out->n_head);
        out->kv0 = out->head0 / group;
        out->n_kv = (out->head0 + out->n_head - 1) / group - out->kv0 + 1;
    }
    for (int32_t h = 0; h < out->n_head; h++) out->kv_of_head[h] = (out->head0 + h) / group - out->kv0;
    split(spec->d_ff, NT_FF_UNIT, rank, size, &out->ff0, &out->n_ff);
    out->ff_pad = round_up(out->n_ff, NT_FF_UNIT);
    split(spec->n_vocab, NT_VOCAB_UNIT, rank, size, &out->vocab0, &out->n_vocab);
    return NT_OK;
}
