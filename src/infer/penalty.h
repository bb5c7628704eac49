/* What a sequence has said so far, for penalties: each distinct token with its count in the answer.
 *
 * An open-addressing table; tokens of the prompt count 0: the repetition penalty sees them, presence and frequency do
 * not, so without it they stay out and no step carries them to a device.
 * The formulae are those of the op that applies it, logit_penalty (ops.h). Ownership: the table's arrays are its own.
 * Threading: one thread. Errors: none; out of memory ends the program. */
#ifndef NT_PENALTY_H
#define NT_PENALTY_H

#include "request.h"

struct nt_penalty {
    int32_t *id;    // [cap], -1: free
    int32_t *count; // [cap]
    int32_t cap, len;
};

bool nt_penalty_needed(const struct nt_sampling *s);
bool nt_penalty_of_prompt(const struct nt_sampling *s);               /* are tokens of the prompt to be seen? */
void nt_penalty_see(struct nt_penalty *p, int32_t id, int32_t times); /* times 0: prompt, 1: one more in the answer */
void nt_penalty_release(struct nt_penalty *p);

#endif
