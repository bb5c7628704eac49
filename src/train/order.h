/* The order of training: position -> example, from (seed, epoch) alone, and the cursor that counts samples.
 *
 * Positions 0, 1, 2 ... run through one permutation of the set per epoch, without end: position p belongs to epoch
 * p / n. The global batch at cursor c is positions c .. c + B - 1, so the state of the order is one number, whatever
 * the world size, and a changed batch size resumes too. Data-parallel rank d of D takes the samples i of the batch with
 * i % D == d (packing.h); nothing else depends on D.
 * kto: each class runs through permutations of its own, and classes alternate as evenly as their sizes allow, so that
 * every batch holds both; where the smaller class has less than one row per batch, it is repeated sooner: once per
 * batch (`repeated` says so). In either case an example is seen once per pass over its class.
 * Permutations: Fisher-Yates (Durstenfeld 1964) with Philox (rng.h), unbiased by rejection (Lemire 2019).
 * Ownership: the order owns its permutations and borrows the set. Threading: one thread. Errors: NT_E_DATA for an empty
 * set or class, NT_E_CONFIG for a batch that cannot hold both classes. */
#ifndef NT_ORDER_H
#define NT_ORDER_H

#include "examples.h"

struct nt_order_class {
    int32_t *members; // [n] examples of the class
    int32_t *order;   // [n] permutation of pass `pass`
    int32_t n;
    int64_t pass; /* -1: none yet */
};

struct nt_order {
    const struct nt_example_set *set;
    uint64_t seed;
    int32_t batch;     /* B, samples of a global batch */
    int32_t n_classes; /* kto: 2, class 0 the smaller one; else 1; 0 (evaluation): rows as they stand, each once */
    struct nt_order_class classes[2];
    bool repeated; /* the smaller class is seen more than once per epoch */
};

NT_MUST nt_status nt_order_open(struct nt_order *o, const struct nt_example_set *set, uint64_t seed, int32_t batch);
void nt_order_close(struct nt_order *o); /* accepts zeroed */
int64_t nt_order_epoch(const struct nt_order *o, int64_t position);
/* Examples of positions cursor .. cursor + n - 1. Any cursor; ascending ones are cheap. */
void nt_order_take(struct nt_order *o, int64_t cursor, int32_t n, int32_t *examples);

/* kto: for each sample of a batch the sample whose completion follows its prompt in the estimate of the divergence:
 * never one with the same completion; -1 where the batch has no other. A function of (seed, cursor, examples). */
void nt_order_mismatch(const struct nt_order *o, int64_t cursor, const int32_t *examples, int32_t n, int32_t *other);

/* Rows of each class per row of the set as the order serves them: what the class weights are computed from. */
void nt_order_shares(int32_t n_desirable, int32_t n_undesirable, int32_t batch, double *desirable, double *undesirable);

#endif
