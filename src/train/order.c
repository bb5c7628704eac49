#include "order.h"

#include "rng.h"

#include <stdlib.h>
#include <string.h>

/* Philox streams: one per use and class, so that no two draws share a number. */
enum { STREAM_ORDER = 0x4F524400, STREAM_MISMATCH = 0x4D495300 };

/* ---- permutations ---- */

/* A uniform number below n: the product's high half, rejected where the low half would favour some values. */
static uint32_t below(uint64_t seed, uint64_t stream, uint64_t *index, uint32_t n) {
    const uint32_t threshold = (0u - n) % n;
    for (;;) {
        uint32_t w[4];
        nt_philox(seed, stream, (*index)++, w);
        for (int i = 0; i < 4; i++) {
            uint64_t product = (uint64_t)w[i] * n;
            if ((uint32_t)product >= threshold) return (uint32_t)(product >> 32);
        }
    }
}

static void shuffle(const struct nt_order *o, struct nt_order_class *c, int64_t pass) {
    if (c->pass == pass) return;
    const uint64_t stream = ((uint64_t)pass << 32) | (uint64_t)(STREAM_ORDER + (c - o->classes));
    uint64_t index = 0;
    memcpy(c->order, c->members, (size_t)c->n * sizeof *c->order);
    for (int32_t i = c->n - 1; i > 0; i--) {
        const uint32_t k = below(o->seed, stream, &index, (uint32_t)i + 1);
        const int32_t held = c->order[i];
        c->order[i] = c->order[k];
        c->order[k] = held;
    }
    c->pass = pass;
}

static int32_t of_class(struct nt_order *o, int32_t k, int64_t i) {
    struct nt_order_class *c = &o->classes[k];
    shuffle(o, c, i / c->n);
    return c->order[i % c->n];
}

/* ---- opening ---- */

static nt_status take_class(struct nt_order *o, int32_t k, int32_t n, bool any, bool label) {
    struct nt_order_class *c = &o->classes[k];
    *c = (struct nt_order_class){.n = n, .pass = -1};
    c->members = calloc((size_t)n, sizeof *c->members);
    c->order = calloc((size_t)n, sizeof *c->order);
    if (!c->members || !c->order) return NT_FAIL(NT_E_NOMEM, "no memory to order %d training rows", n);
    int32_t at = 0;
    for (int32_t i = 0; i < o->set->n; i++) {
        if (any || o->set->rows[i].label == label) c->members[at++] = i;
    }
    return NT_OK;
}

static nt_status take_classes(struct nt_order *o) {
    const int32_t good = o->set->n_desirable, bad = o->set->n - good;
    const bool small = good <= bad; /* label of the smaller class */
    const int32_t n_small = small ? good : bad;
    if (n_small == 0)
        return NT_FAIL(NT_E_DATA,
                       "%d desirable and %d undesirable rows to train on; kto needs both: add feedback of the other "
                       "kind, or train with sft",
                       good, bad);
    if (o->batch < 2)
        return NT_FAIL(NT_E_CONFIG, "train.batch_size = %d: every batch of kto holds both classes; give at least 2",
                       o->batch);
    o->n_classes = 2;
    o->repeated = (int64_t)n_small * o->batch < o->set->n;
    NT_TRY(take_class(o, 0, n_small, false, small));
    return take_class(o, 1, o->set->n - n_small, false, !small);
}

nt_status nt_order_open(struct nt_order *o, const struct nt_example_set *set, uint64_t seed, int32_t batch) {
    *o = (struct nt_order){.set = set, .seed = seed, .batch = batch, .n_classes = 1};
    if (set->n == 0) return NT_FAIL(NT_E_DATA, "no rows to train on");
    const nt_status st = set->kind == NT_TRAIN_KTO ? take_classes(o) : take_class(o, 0, set->n, true, true);
    if (st != NT_OK) nt_order_close(o);
    return st;
}

void nt_order_close(struct nt_order *o) {
    for (int i = 0; i < 2; i++) {
        free(o->classes[i].members);
        free(o->classes[i].order);
    }
    *o = (struct nt_order){0};
}

/* ---- positions ---- */

int64_t nt_order_epoch(const struct nt_order *o, int64_t position) {
    return position / o->set->n;
}

/* Rows of the smaller class among positions 0 .. p - 1: floor(p n0 / n), or one at the head of every batch. */
static int64_t small_before(const struct nt_order *o, int64_t p) {
    if (o->repeated) return (p + o->batch - 1) / o->batch;
    const int64_t n = o->set->n, n0 = o->classes[0].n;
    return p / n * n0 + p % n * n0 / n;
}

static int32_t at_position(struct nt_order *o, int64_t p) {
    if (o->n_classes == 0) return (int32_t)p;
    if (o->n_classes == 1) return of_class(o, 0, p);
    const int64_t before = small_before(o, p);
    if (small_before(o, p + 1) > before) return of_class(o, 0, before);
    return of_class(o, 1, p - before);
}

void nt_order_take(struct nt_order *o, int64_t cursor, int32_t n, int32_t *examples) {
    for (int32_t i = 0; i < n; i++) examples[i] = at_position(o, cursor + i);
}

void nt_order_mismatch(const struct nt_order *o, int64_t cursor, const int32_t *examples, int32_t n, int32_t *other) {
    if (n < 2) {
        if (n == 1) other[0] = -1;
        return;
    }
    uint64_t index = (uint64_t)cursor << 8;
    const int32_t shift = 1 + (int32_t)below(o->seed, STREAM_MISMATCH, &index, (uint32_t)n - 1);
    for (int32_t i = 0; i < n; i++) {
        const uint64_t own = o->set->rows[examples[i]].member[0].completion_hash;
        other[i] = -1;
        for (int32_t step = 0; step < n && other[i] < 0; step++) {
            const int32_t j = (int32_t)(((int64_t)i + shift + step) % n);
            if (o->set->rows[examples[j]].member[0].completion_hash != own) other[i] = j;
        }
    }
}

void nt_order_shares(int32_t n_desirable, int32_t n_undesirable, int32_t batch, double *desirable,
                     double *undesirable) {
    const double n = (double)n_desirable + n_undesirable;
    const int32_t small = n_desirable < n_undesirable ? n_desirable : n_undesirable;
    double share = small / n;
    if (small > 0 && (double)small * batch < n) share = 1.0 / batch;
    *desirable = n_desirable <= n_undesirable ? share : 1 - share;
    *undesirable = 1 - *desirable;
}
