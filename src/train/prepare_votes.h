/* What people said about completions and pairs, and what holds where they disagree.
 *
 * A vote is for or against one thing, named by a key of 16 bytes (prepare_rows.c makes them of the texts, so that the
 * same answer to the same prompt is one thing wherever it stands). Votes are numbered as they are added; settling
 * decides per key: the latest (time, then number) holds, the heavier side does, or a dispute leaves neither. Of the
 * votes for what holds the last one carries the thing, with the mean of their weights.
 * Ownership: nt_votes_release frees. Threading: one thread. Errors: none but memory, which is nt_bug. */
#ifndef NT_PREPARE_VOTES_H
#define NT_PREPARE_VOTES_H

#include <stdbool.h>
#include <stdint.h>

enum nt_conflict_rule { NT_CONFLICT_LATEST, NT_CONFLICT_MAJORITY, NT_CONFLICT_DROP };
enum nt_fate { NT_FATE_CARRIES, NT_FATE_DUPLICATE, NT_FATE_CONFLICT };
enum { NT_VOTE_KEY = 16 };

struct nt_vote {
    uint8_t key[NT_VOTE_KEY];
    int64_t created_us; /* 0: unknown, before all others */
    float weight;       /* > 0; after settling, of the one that carries: the mean of its side */
    bool good;
    enum nt_fate fate;
};

struct nt_verdict {
    uint8_t key[NT_VOTE_KEY];
    bool holds; /* false: disputed, neither side */
    bool good;
    float weight;
};

struct nt_votes {
    struct nt_vote *votes;       // [n] in the order added
    struct nt_verdict *verdicts; // [n_verdicts] by ascending key
    int64_t n, cap, n_verdicts, n_conflicts;
};

void nt_votes_add(struct nt_votes *v, const uint8_t key[NT_VOTE_KEY], bool good, float weight, int64_t created_us);
void nt_votes_settle(struct nt_votes *v, enum nt_conflict_rule rule);
const struct nt_verdict *nt_votes_find(const struct nt_votes *v, const uint8_t key[NT_VOTE_KEY]); /* NULL: no vote */
void nt_votes_release(struct nt_votes *v);

#endif
