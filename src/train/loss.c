#include "loss.h"
#include <math.h>
#include <string.h>

/* log sigmoid(x) and sigmoid(x) without overflow. */
static double log_sigmoid(double x) {
    return x < 0 ? x - log1p(exp(x)) : -log1p(exp(-x));
}
static double sigmoid(double x) {
    return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x));
}

static double ratio(const struct nt_loss_in *in, int i) {
    return in->logp[i] - in->reference[i];
}

static void add_sft(const struct nt_loss_settings *s, const struct nt_loss_in *in, struct nt_loss_out *out) {
    if (s->sft_weight <= 0) return;
    out->loss -= s->sft_weight * in->logp[NT_CHOSEN] / in->mean_target;
    out->d[NT_CHOSEN] -= s->sft_weight / in->mean_target;
}

static void sft(const struct nt_loss_settings *s, const struct nt_loss_in *in, struct nt_loss_out *out) {
    (void)s;
    *out = (struct nt_loss_out){.loss = -in->logp[0], .d = {-1}};
}

/* What all forms of dpo share: dh is d loss / d (x[0] - x[1]). */
static void pair(const struct nt_loss_settings *s, const struct nt_loss_in *in, double loss, double dh,
                 struct nt_loss_out *out) {
    *out = (struct nt_loss_out){
        .loss = loss, .d = {dh, -dh}
    };
    for (int i = 0; i < NT_MAX_MEMBERS; i++) out->reward[i] = s->beta * ratio(in, i);
}

static void dpo_sigmoid(const struct nt_loss_settings *s, const struct nt_loss_in *in, struct nt_loss_out *out) {
    const double z = s->beta * (ratio(in, NT_CHOSEN) - ratio(in, NT_REJECTED)), flip = s->label_smoothing;
    const double loss = -(1 - flip) * log_sigmoid(z) - flip * log_sigmoid(-z);
    pair(s, in, loss, s->beta * (flip * sigmoid(z) - (1 - flip) * sigmoid(-z)), out);
    add_sft(s, in, out);
}

static void dpo_ipo(const struct nt_loss_settings *s, const struct nt_loss_in *in, struct nt_loss_out *out) {
    const double h =
        ratio(in, NT_CHOSEN) / in->n_target[NT_CHOSEN] - ratio(in, NT_REJECTED) / in->n_target[NT_REJECTED];
    const double off = h - 1 / (2 * s->beta);
    pair(s, in, off * off, 2 * off, out);
    for (int i = 0; i < NT_MAX_MEMBERS; i++) out->d[i] /= in->n_target[i];
    add_sft(s, in, out);
}

static void dpo_hinge(const struct nt_loss_settings *s, const struct nt_loss_in *in, struct nt_loss_out *out) {
    const double z = s->beta * (ratio(in, NT_CHOSEN) - ratio(in, NT_REJECTED));
    pair(s, in, z < 1 ? 1 - z : 0, z < 1 ? -s->beta : 0, out);
    add_sft(s, in, out);
}

static void kto(const struct nt_loss_settings *s, const struct nt_loss_in *in, struct nt_loss_out *out) {
    const double sign = in->desirable ? 1 : -1, z = sign * s->beta * (ratio(in, 0) - in->kl);
    const double p = sigmoid(z);
    *out = (struct nt_loss_out){.loss = sigmoid(-z), .d = {-sign * s->beta * p * (1 - p)}};
    out->reward[0] = s->beta * ratio(in, 0);
    if (in->desirable) add_sft(s, in, out);
}

const struct nt_loss nt_losses[] = {
    {.name = "sft",         .kind = NT_TRAIN_SFT, .n_members = 1,    .token_sum = true, .run = sft        },
    { .name = "dpo",    .type = "sigmoid", .kind = NT_TRAIN_DPO,    .n_members = 2, .reference = true, .run = dpo_sigmoid},
    { .name = "dpo",        .type = "ipo", .kind = NT_TRAIN_DPO,    .n_members = 2, .reference = true,     .run = dpo_ipo},
    { .name = "dpo",      .type = "hinge", .kind = NT_TRAIN_DPO,    .n_members = 2, .reference = true,   .run = dpo_hinge},
    { .name = "kto", .kind = NT_TRAIN_KTO,       .n_members = 1, .reference = true,        .kl = true,         .run = kto},
};
const int32_t nt_loss_count = (int32_t)(sizeof nt_losses / sizeof *nt_losses);

const struct nt_loss *nt_loss_find(const char *name, const char *type) {
    for (int32_t i = 0; i < nt_loss_count; i++)
        if (strcmp(nt_losses[i].name, name) == 0 && (!nt_losses[i].type || strcmp(nt_losses[i].type, type) == 0))
            return &nt_losses[i];
    return NULL;
}
