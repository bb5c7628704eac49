/* A rank's part of a global batch, cut into micro-batches of at most `budget` tokens.
 *
 * Sequences lie behind each other without padding (variable-length attention: nt_attn_seq per sequence). All members of
 * an example go into one micro-batch. First fit: each example, in the order of the batch, goes into the first
 * micro-batch with room; micro-batches keep the order in which they were begun. The cut follows from the examples, the
 * budget and the rank's share alone.
 * Parts: NT_PACK_TRAIN the examples themselves; NT_PACK_MISMATCH (kto) the prompt of a sample with the completion of
 * another one (nt_order_mismatch), its prompt cut from the left where the set's longest sequence would be exceeded.
 * Ownership: a pack owns and reuses its memory; zero-initialise, nt_pack_build as often as wanted, nt_pack_release.
 * Pointers are valid until the next build. Threading: one thread. Errors: NT_E_CONFIG for an example larger than the
 * budget (preparation has checked it before). */
#ifndef NT_PACKING_H
#define NT_PACKING_H

#include "examples.h"

enum nt_pack_part { NT_PACK_TRAIN, NT_PACK_MISMATCH };

struct nt_pack_seq {
    int32_t row0, n_tok; /* token rows row0 .. row0 + n_tok - 1 of the micro-batch; positions from 0 */
    int32_t out0, n_out; /* its entries in out_rows, targets and weights */
    int32_t sample;      /* index in the global batch; its position in the order is cursor + sample */
    int32_t example;     /* index in the set */
    int32_t member;      /* NT_CHOSEN, NT_REJECTED */
};

struct nt_micro_batch {
    const int32_t *ids;             // [n_tok]
    const struct nt_pack_seq *seqs; // [n_seq] rows in order, covering 0 .. n_tok - 1
    const int32_t *out_rows;        // [n_out] rows that predict a target, ascending
    const int32_t *targets;         // [n_out] the token that row must predict
    const float *weights;           // [n_out] weight of the target within its row
    int32_t n_tok, n_seq, n_out;
};

struct nt_pack_job {
    const struct nt_example_set *set;
    const int32_t *examples; // [n_samples] the global batch, of nt_order_take
    const int32_t *other;    // [n_samples] of nt_order_mismatch; NULL but for NT_PACK_MISMATCH
    int32_t n_samples;
    int32_t rank, size; /* data parallel: samples i with i % size == rank */
    int32_t budget;     /* tokens of a micro-batch */
    bool packing;       /* false: one example per micro-batch */
    enum nt_pack_part part;
};

struct nt_pack {
    const struct nt_micro_batch *micros; // [n_micros]
    int32_t n_micros;
    int64_t n_tok, n_out, n_seq; /* over all of them: n_tok / (n_micros * budget) is the utilisation */
    struct nt_pack_memory *memory;
};

NT_MUST nt_status nt_pack_build(struct nt_pack *p, const struct nt_pack_job *job);
void nt_pack_release(struct nt_pack *p); /* accepts zeroed */
/* No micro-batch of the set has more sequences (tokens and targets: at most budget). */
int32_t nt_pack_max_seqs(const struct nt_example_set *set, int32_t budget);
/* What the losses of a global batch are divided by, in sample order and so the same on every rank: sft the sum of row
 * weight times target weights, dpo and kto the sum of row weights; the class weights of kto are no part of it, as in
 * TRL's mean over rows. */
double nt_pack_normalizer(const struct nt_example_set *set, const int32_t *examples, int32_t n);
/* Target weights of the chosen (kto: of the desirable) members by row weight, divided by the row weights of all: what
 * makes of the members' sums, divided by it and averaged over rows, the mean over their tokens. 0: no such member. */
double nt_pack_mean_target(const struct nt_example_set *set, const int32_t *examples, int32_t n);

#endif
