#include "penalty.h"

#include <stdlib.h>

bool nt_penalty_needed(const struct nt_sampling *s) {
    return s->repetition_penalty != 1.0f || s->presence_penalty != 0.0f || s->frequency_penalty != 0.0f;
}

bool nt_penalty_of_prompt(const struct nt_sampling *s) {
    return s->repetition_penalty != 1.0f;
}

static int32_t slot_of(const struct nt_penalty *p, int32_t id) {
    uint32_t i = (uint32_t)id * 2654435761u & (uint32_t)(p->cap - 1);
    while (p->id[i] >= 0 && p->id[i] != id) i = (i + 1) & (uint32_t)(p->cap - 1);
    return (int32_t)i;
}

static void grow(struct nt_penalty *p) {
    struct nt_penalty bigger = {.cap = p->cap ? 2 * p->cap : 64, .len = p->len};
    bigger.id = malloc((size_t)bigger.cap * sizeof *bigger.id);
    bigger.count = calloc((size_t)bigger.cap, sizeof *bigger.count);
    NT_CHECK(bigger.id && bigger.count);
    for (int32_t i = 0; i < bigger.cap; i++) bigger.id[i] = -1;
    for (int32_t i = 0; i < p->cap; i++) {
        if (p->id[i] < 0) continue;
        const int32_t s = slot_of(&bigger, p->id[i]);
        bigger.id[s] = p->id[i];
        bigger.count[s] = p->count[i];
    }
    nt_penalty_release(p);
    *p = bigger;
}

void nt_penalty_see(struct nt_penalty *p, int32_t id, int32_t times) {
    if (2 * (p->len + 1) > p->cap) grow(p);
    const int32_t s = slot_of(p, id);
    if (p->id[s] < 0) {
        p->id[s] = id;
        p->len++;
    }
    p->count[s] += times;
}

void nt_penalty_release(struct nt_penalty *p) {
    free(p->id);
    free(p->count);
    *p = (struct nt_penalty){0};
}
