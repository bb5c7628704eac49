/* Packing: over all ranks every sequence of a batch exactly once, no row of one sequence in another, targets that are
 * the next token of their own sequence, and a cut that is plain first fit. */
#include "order.h"
#include "packing.h"
#include "train_sets.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH = 24, MAX_SIZE = 5 };

static void must(nt_status st) {
    if (st != NT_OK) fail_msg("%s", nt_error_last()->text);
}

/* The sequence's ids and targets as the set has them, token by token; returns the number of targets. */
static int32_t check_seq(const struct nt_pack_job *job, const struct nt_micro_batch *mb, const struct nt_pack_seq *s) {
    const struct nt_member *m = &job->set->rows[s->example].member[s->member];
    assert_int_equal(job->examples[s->sample], s->example);
    assert_int_equal(s->n_tok, m->n_tok);
    assert_memory_equal(mb->ids + s->row0, m->ids, (size_t)m->n_tok * sizeof *m->ids);
    int32_t at = s->out0;
    for (int32_t r = 0; r < m->n_runs; r++) {
        for (int32_t t = m->runs[r].from; t < m->runs[r].to; t++, at++) {
            assert_int_equal(mb->out_rows[at], s->row0 + t - 1);
            assert_int_equal(mb->targets[at], mb->ids[s->row0 + t]);
            assert_true(mb->weights[at] == m->runs[r].weight);
        }
    }
    assert_int_equal(at - s->out0, s->n_out);
    assert_int_equal(s->n_out, m->n_target);
    return s->n_out;
}

/* Rows and entries follow each other without gap or overlap. */
static void check_micro(const struct nt_pack_job *job, const struct nt_micro_batch *mb) {
    int32_t row = 0, out = 0;
    assert_true(mb->n_tok <= job->budget);
    assert_true(mb->n_seq <= nt_pack_max_seqs(job->set, job->budget));
    for (int32_t i = 0; i < mb->n_seq; i++) {
        assert_int_equal(mb->seqs[i].row0, row);
        assert_int_equal(mb->seqs[i].out0, out);
        row += mb->seqs[i].n_tok;
        out += mb->seqs[i].n_out;
        assert_true(mb->seqs[i].n_out == 0 || mb->out_rows[out - 1] < row - 1);
        assert_true(mb->seqs[i].n_out == 0 || mb->out_rows[mb->seqs[i].out0] >= mb->seqs[i].row0);
    }
    assert_int_equal(row, mb->n_tok);
    assert_int_equal(out, mb->n_out);
    for (int32_t i = 1; i < mb->n_out; i++) assert_true(mb->out_rows[i] > mb->out_rows[i - 1]);
}

/* Which micro-batch first fit puts each sample of the rank into, from the lengths alone. */
static int32_t first_fit(const struct nt_pack_job *job, int32_t *micro_of) {
    int32_t used[BATCH], n = 0;
    for (int32_t i = job->rank; i < job->n_samples; i += job->size) {
        const struct nt_example *e = &job->set->rows[job->examples[i]];
        int32_t len = 0, at = job->packing ? 0 : n;
        for (int32_t k = 0; k < e->n_members; k++) len += e->member[k].n_tok;
        while (at < n && used[at] + len > job->budget) at++;
        if (at == n) used[n++] = 0;
        used[at] += len;
        micro_of[i] = at;
    }
    return n;
}

static void check_rank(const struct nt_pack_job *job, struct nt_pack *pack, int32_t seen[BATCH][NT_MAX_MEMBERS]) {
    int32_t micro_of[BATCH];
    int64_t n_tok = 0, n_out = 0, n_seq = 0;
    must(nt_pack_build(pack, job));
    assert_int_equal(pack->n_micros, first_fit(job, micro_of));
    for (int32_t m = 0; m < pack->n_micros; m++) {
        const struct nt_micro_batch *mb = &pack->micros[m];
        check_micro(job, mb);
        for (int32_t i = 0; i < mb->n_seq; i++) {
            n_out += check_seq(job, mb, &mb->seqs[i]);
            seen[mb->seqs[i].sample][mb->seqs[i].member]++;
            assert_int_equal(mb->seqs[i].sample % job->size, job->rank);
            assert_int_equal(micro_of[mb->seqs[i].sample], m);
        }
        n_tok += mb->n_tok;
        n_seq += mb->n_seq;
    }
    assert_int_equal(n_tok, pack->n_tok);
    assert_int_equal(n_out, pack->n_out);
    assert_int_equal(n_seq, pack->n_seq);
}

static void check_batch(const struct nt_example_set *set, const int32_t *examples, int32_t budget, bool packing) {
    struct nt_pack pack = {0};
    for (int32_t size = 1; size <= MAX_SIZE; size++) {
        int32_t seen[BATCH][NT_MAX_MEMBERS] = {{0}};
        for (int32_t rank = 0; rank < size; rank++) {
            const struct nt_pack_job job = {.set = set,
                                            .examples = examples,
                                            .n_samples = BATCH,
                                            .rank = rank,
                                            .size = size,
                                            .budget = budget,
                                            .packing = packing};
            check_rank(&job, &pack, seen);
        }
        for (int32_t i = 0; i < BATCH; i++) {
            for (int32_t k = 0; k < set->rows[examples[i]].n_members; k++) assert_int_equal(seen[i][k], 1);
        }
    }
    nt_pack_release(&pack);
}

static void test_every_sequence_once(void **state) {
    (void)state;
    static const enum nt_train_kind kinds[] = {NT_TRAIN_SFT, NT_TRAIN_DPO, NT_TRAIN_KTO};
    for (uint64_t seed = 0; seed < 12; seed++) {
        const enum nt_train_kind kind = kinds[seed % 3];
        struct nt_example_set set;
        struct nt_order o;
        int32_t examples[BATCH];
        must(set_make(&set, kind, 40, 15, seed, 10 + (int32_t)seed * 9));
        must(nt_order_open(&o, &set, seed, BATCH));
        for (int64_t cursor = 0; cursor < 3 * BATCH; cursor += BATCH) {
            nt_order_take(&o, cursor, BATCH, examples);
            check_batch(&set, examples, set.longest_row, true);
            check_batch(&set, examples, 3 * set.longest_row, true);
            check_batch(&set, examples, 3 * set.longest_row, false);
        }
        nt_order_close(&o);
        nt_example_set_release(&set);
    }
}

/* Unpacked, each example is alone; packed, the tokens are the same and there are fewer micro-batches. */
static void test_packing_saves(void **state) {
    (void)state;
    struct nt_example_set set;
    int32_t examples[BATCH];
    struct nt_pack packed = {0}, apart = {0};
    must(set_make(&set, NT_TRAIN_DPO, BATCH, 0, 4, 60));
    for (int32_t i = 0; i < BATCH; i++) examples[i] = i;
    struct nt_pack_job job = {
        .set = &set, .examples = examples, .n_samples = BATCH, .size = 1, .budget = 2 * set.longest_row};
    must(nt_pack_build(&apart, &job));
    job.packing = true;
    must(nt_pack_build(&packed, &job));
    assert_int_equal(apart.n_micros, BATCH);
    assert_true(packed.n_micros < BATCH);
    assert_int_equal(apart.n_tok, packed.n_tok);
    assert_int_equal(apart.n_tok, set.n_tok);
    assert_int_equal(apart.n_out, set.n_target);
    assert_true((double)packed.n_tok / ((double)packed.n_micros * job.budget) > 0.6);
    job.budget = set.longest_row - 1;
    assert_int_equal(nt_pack_build(&packed, &job), NT_E_CONFIG);
    assert_non_null(strstr(nt_error_last()->text, "train.micro_batch_tokens"));
    nt_pack_release(&packed);
    nt_pack_release(&apart);
    nt_example_set_release(&set);
}

/* A mismatched sequence is the end of one prompt and the whole completion of another row. */
static void check_mismatched(const struct nt_pack_job *job, const struct nt_micro_batch *mb,
                             const struct nt_pack_seq *s) {
    const struct nt_member *a = &job->set->rows[job->examples[s->sample]].member[0];
    const struct nt_member *b = &job->set->rows[job->examples[job->other[s->sample]]].member[0];
    const int32_t n_completion = b->n_tok - b->n_prompt, n_prompt = s->n_tok - n_completion;
    assert_true(s->n_tok <= job->set->longest);
    assert_true(n_prompt == a->n_prompt || (n_prompt < a->n_prompt && s->n_tok == job->set->longest));
    assert_memory_equal(mb->ids + s->row0, a->ids + a->n_prompt - n_prompt, (size_t)n_prompt * sizeof *mb->ids);
    assert_memory_equal(mb->ids + s->row0 + n_prompt, b->ids + b->n_prompt, (size_t)n_completion * sizeof *mb->ids);
    assert_int_equal(s->n_out, b->n_target - (n_prompt == 0));
    for (int32_t k = s->out0; k < s->out0 + s->n_out; k++) {
        assert_int_equal(mb->targets[k], mb->ids[mb->out_rows[k] + 1]);
        assert_true(mb->out_rows[k] + 1 >= s->row0 + n_prompt);
    }
}

static void test_mismatched(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 6; seed++) {
        struct nt_example_set set;
        struct nt_order o;
        struct nt_pack pack = {0};
        int32_t examples[BATCH], other[BATCH], n_seen = 0;
        must(set_make(&set, NT_TRAIN_KTO, 50, 20, seed, 40));
        must(nt_order_open(&o, &set, seed, BATCH));
        nt_order_take(&o, 0, BATCH, examples);
        nt_order_mismatch(&o, 0, examples, BATCH, other);
        for (int32_t rank = 0; rank < 3; rank++) {
            const struct nt_pack_job job = {.set = &set,
                                            .examples = examples,
                                            .other = other,
                                            .n_samples = BATCH,
                                            .rank = rank,
                                            .size = 3,
                                            .budget = 2 * set.longest,
                                            .packing = true,
                                            .part = NT_PACK_MISMATCH};
            must(nt_pack_build(&pack, &job));
            for (int32_t m = 0; m < pack.n_micros; m++) {
                check_micro(&job, &pack.micros[m]);
                for (int32_t i = 0; i < pack.micros[m].n_seq; i++, n_seen++)
                    check_mismatched(&job, &pack.micros[m], &pack.micros[m].seqs[i]);
            }
        }
        assert_int_equal(n_seen, BATCH);
        nt_pack_release(&pack);
        nt_order_close(&o);
        nt_example_set_release(&set);
    }
}

static void test_normalizer(void **state) {
    (void)state;
    struct nt_example_set set;
    const int32_t examples[] = {2, 0, 3};
    must(set_make(&set, NT_TRAIN_SFT, 6, 0, 4, 20));
    double want = 0;
    for (int i = 0; i < 3; i++) {
        const struct nt_member *m = &set.rows[examples[i]].member[0];
        double tokens = 0;
        for (int32_t r = 0; r < m->n_runs; r++) tokens += (m->runs[r].to - m->runs[r].from) * (r == 0 ? 1 : 0.5);
        want += tokens * (1 + examples[i] % 3);
    }
    assert_true(nt_pack_normalizer(&set, examples, 3) == want);
    nt_example_set_release(&set);
    must(set_make(&set, NT_TRAIN_KTO, 6, 3, 4, 20));
    set.undesirable_weight = 1.5; /* of examples 3, 4, 5: a class's weight raises its part of the mean */
    assert_true(nt_pack_normalizer(&set, examples, 3) == 3 + 1 + 1);
    double good = 0; /* tokens of the desirable ones: mean over tokens, whatever the rows' lengths */
    for (int i = 0; i < 3; i++) {
        const struct nt_example *row = &set.rows[examples[i]];
        good += row->label ? row->weight * nt_member_weight(&row->member[0]) : 0;
    }
    assert_true(good > 0 && nt_pack_mean_target(&set, examples, 3) == good / (3 + 1 + 1));
    nt_example_set_release(&set);
}

/* The digest of a set of one example. */
static void digest_of(enum nt_train_kind kind, const struct nt_example *e, const char *source, double desirable_weight,
                      uint8_t digest[NT_SHA256_BYTES]) {
    struct nt_example_builder *b;
    struct nt_example_set set;
    const int32_t keep = 0;
    const struct nt_example_pick pick = {&keep, &e->weight, 1, desirable_weight, 1};
    must(nt_examples_begin(&b, kind));
    (void)nt_examples_add(b, e, source);
    must(nt_examples_finish(b, &pick, &set));
    memcpy(digest, set.digest, sizeof set.digest);
    nt_example_set_release(&set);
    nt_examples_end(b);
}

/* Two sets that train differently have different digests; where their rows stand in the files is no difference. */
static void test_digest(void **state) {
    (void)state;
    enum { N = 14 };
    const int32_t ids[] = {5, 6, 7, 8}, other_ids[] = {5, 6, 7, 9};
    const struct nt_loss_run runs[] =
        {
            {2, 3, 1   },
            {3, 4, 0.5F}
    },
                             other_runs[] = {{2, 3, 1}, {3, 4, 1}};
    struct nt_example e[N];
    const char *source[N];
    uint8_t digest[N + 1][NT_SHA256_BYTES];
    for (int i = 0; i < N; i++) {
        e[i] = (struct nt_example){.n_members = 1, .weight = 1, .label = true, .created_us = 3};
        e[i].member[0] = (struct nt_member){.ids = ids, .runs = runs, .n_tok = 4, .n_runs = 2, .n_prompt = 2};
        source[i] = "web";
    }
    e[1].weight = 2;
    e[2].label = false;
    e[3].created_us = 4;
    e[4].subject = 1;
    e[5].member[0].ids = other_ids;
    e[6].member[0].runs = other_runs;
    e[7].member[0].n_runs = 1;
    e[8].member[0].n_prompt = 1;
    e[9].member[0].n_tok = 3;
    e[10].n_members = 2;
    e[10].member[1] = e[10].member[0];
    source[11] = "mail";
    for (int i = 0; i < N; i++)
        digest_of(i == 12 ? NT_TRAIN_KTO : NT_TRAIN_SFT, &e[i], source[i], i == 13 ? 2 : 1, digest[i]);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < i; k++) assert_memory_not_equal(digest[i], digest[k], NT_SHA256_BYTES);
    e[0].file = 1;
    e[0].conversation = 7;
    digest_of(NT_TRAIN_SFT, &e[0], source[0], 1, digest[N]);
    assert_memory_equal(digest[N], digest[0], NT_SHA256_BYTES);
}

/* The set is a copy in the order asked for. */
static void test_set(void **state) {
    (void)state;
    struct nt_example_builder *b;
    struct nt_example_set set;
    must(nt_examples_begin(&b, NT_TRAIN_SFT));
    for (int32_t i = 0; i < 5; i++) set_add(b, NT_TRAIN_SFT, i, 3, 20, true);
    const int32_t keep[] = {4, 1};
    const float weights[] = {0.5F, 2};
    const struct nt_example_pick pick = {keep, weights, 2, 1, 1};
    must(nt_examples_finish(b, &pick, &set));
    assert_int_equal(set.n, 2);
    assert_int_equal(set.rows[0].member[0].ids[0], 4 * 4096);
    assert_true(set.rows[1].weight == 2 && nt_example_weight(&set, 0) == 0.5);
    assert_string_equal(set.sources[set.rows[1].source], "odd");
    assert_int_equal(set.n_tok, set.rows[0].member[0].n_tok + set.rows[1].member[0].n_tok);
    nt_examples_end(b);
    assert_int_equal(set.rows[1].member[0].ids[0], 4096); /* outlives the builder */
    nt_example_set_release(&set);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_sequence_once),
        cmocka_unit_test(test_packing_saves),
        cmocka_unit_test(test_mismatched),
        cmocka_unit_test(test_normalizer),
        cmocka_unit_test(test_digest),
        cmocka_unit_test(test_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
