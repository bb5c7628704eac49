/* The losses, one row each: from log-probabilities of an example to its loss and what that depends on them.
 *
 * An example has one member (sft, kto) or two (dpo: 0 chosen, 1 rejected). logp is the sum over the member's targets of
 * weight * log p under the model in training, reference the same under the reference model. out->d[i] = d loss / d
 * logp[i]: the backward multiplies it with each target's weight. Everything is per example, before its own weight and
 * before the division by the batch. With x = logp - reference:
 *   sft           -logp
 *   dpo sigmoid   -(1 - s) log sigmoid(b h) - s log sigmoid(-b h), h = x[0] - x[1], s = smoothing   (Rafailov 2023)
 *   dpo ipo       (h - 1 / (2 b))^2 with x per target token                                          (Azar 2023)
 *   dpo hinge     max(0, 1 - b h)                                                                    (Zhao 2023, SLiC)
 *   kto           1 - sigmoid(b (x - kl)) if desirable, else 1 - sigmoid(b (kl - x)); kl >= 0 is the batch's estimate,
 *                 a constant                                                                         (Ethayarajh 2024)
 * and, for dpo and kto, sft_weight * (-logp / mean_target) of the chosen or desirable member: over the batch, the mean
 * over the tokens of these members. Names and forms as in TRL.
 * Pure functions. */
#ifndef NT_LOSS_H
#define NT_LOSS_H

#include "examples.h"

struct nt_loss_settings {
    double beta, label_smoothing, sft_weight;
};

struct nt_loss_in {
    double logp[NT_MAX_MEMBERS], reference[NT_MAX_MEMBERS];
    double n_target[NT_MAX_MEMBERS]; /* sum of target weights, > 0 */
    double mean_target;              /* chosen or desirable targets of the batch, divided by its rows (packing.h) */
    bool desirable;                  /* kto */
    double kl;                       /* kto */
};
struct nt_loss_out {
    double loss, d[NT_MAX_MEMBERS];
    double reward[NT_MAX_MEMBERS]; /* b x; 0 for sft */
};

struct nt_loss {
    const char *name, *type; /* train.loss and train.loss_type; type NULL: any */
    enum nt_train_kind kind;
    int32_t n_members;
    bool reference; /* needs the reference's log-probabilities */
    bool kl;        /* needs the estimate from mismatched pairs */
    bool token_sum; /* the batch is divided by target weights, not by rows */
    void (*run)(const struct nt_loss_settings *s, const struct nt_loss_in *in, struct nt_loss_out *out);
};
extern const struct nt_loss nt_losses[];
extern const int32_t nt_loss_count;
const struct nt_loss *nt_loss_find(const char *name, const char *type); /* NULL: no such row */

#endif
