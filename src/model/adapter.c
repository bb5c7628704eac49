#include "adapter.h"
#include "hash.h"
#include "arch_table.h"
#include "rng.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The seven linears: slots of weight and bias, module name, and the dimensions of W = [out, in]. */
static const struct {
    enum nt_slot slot, bias;
    const char *name;
} linears[NT_LINEAR_COUNT] = {
    [NT_LINEAR_Q] = {NT_SLOT_Q,    NT_SLOT_Q_BIAS,    "q_proj"   },
    [NT_LINEAR_K] = {NT_SLOT_K,    NT_SLOT_K_BIAS,    "k_proj"   },
    [NT_LINEAR_V] = {NT_SLOT_V,    NT_SLOT_V_BIAS,    "v_proj"   },
    [NT_LINEAR_O] = {NT_SLOT_O,    NT_SLOT_O_BIAS,    "o_proj"   },
    [NT_LINEAR_GATE] = {NT_SLOT_GATE, NT_SLOT_GATE_BIAS, "gate_proj"},
    [NT_LINEAR_UP] = {NT_SLOT_UP,   NT_SLOT_UP_BIAS,   "up_proj"  },
    [NT_LINEAR_DOWN] = {NT_SLOT_DOWN, NT_SLOT_DOWN_BIAS, "down_proj"},
};

enum nt_slot nt_linear_slot(enum nt_linear linear) {
    return linears[linear].slot;
}

enum nt_slot nt_linear_bias_slot(enum nt_linear linear) {
    return linears[linear].bias;
}

const char *nt_linear_name(enum nt_linear linear) {
    return linears[linear].name;
}

int32_t nt_linear_out(const struct nt_spec *spec, enum nt_linear linear) {
    return (int32_t)nt_spec_dim(spec, nt_arch_find(spec->family)->slots[linears[linear].slot].rows);
}

int32_t nt_linear_in(const struct nt_spec *spec, enum nt_linear linear) {
    return (int32_t)nt_spec_dim(spec, nt_arch_find(spec->family)->slots[linears[linear].slot].cols);
}

static nt_status target_bit(const char *name, size_t len, uint32_t *targets) {
    const bool all = (len == 3 && memcmp(name, "all", 3) == 0) || (len == 10 && memcmp(name, "all-linear", 10) == 0);
    if (all) *targets |= NT_TARGETS_ALL;
    for (int i = 0; i < NT_LINEAR_COUNT && !all; i++) {
        if (strlen(linears[i].name) != len || memcmp(linears[i].name, name, len) != 0) continue;
        *targets |= 1u << i;
        return NT_OK;
    }
    if (all) return NT_OK;
    return NT_FAIL(
        NT_E_CONFIG,
        "target module \"%.*s\" is not known; expected all-linear, or some of q_proj, k_proj, v_proj, o_proj, "
        "gate_proj, up_proj, down_proj",
        (int)(len < 60 ? len : 60), name);
}

nt_status nt_adapter_targets(const char *text, uint32_t *targets) {
    uint32_t bits = 0;
    for (const char *at = text;; at++) {
        while (*at == ' ') at++;
        size_t len = strcspn(at, ",");
        const char *next = at + len;
        while (len > 0 && at[len - 1] == ' ') len--;
        NT_TRY(target_bit(at, len, &bits));
        at = next;
        if (*at == '\0') break;
    }
    *targets = bits;
    return NT_OK;
}

/* Lays the pairs out in data; NULL: counts. Returns the number of floats. */
static int64_t lay_out(struct nt_adapter *a, const struct nt_spec *spec, const uint32_t *targets, float *data) {
    int64_t n = 0;
    for (int32_t layer = 0; layer < spec->n_layer; layer++) {
        for (int i = 0; i < NT_LINEAR_COUNT; i++) {
            if (!(targets[layer] & 1u << i)) continue;
            struct nt_lora *l = &a->lora[layer * NT_LINEAR_COUNT + i];
            l->in = nt_linear_in(spec, (enum nt_linear)i);
            l->out = nt_linear_out(spec, (enum nt_linear)i);
            if (data) {
                l->a = data + n;
                l->b = l->a + (int64_t)a->r * l->in;
            }
            n += (int64_t)a->r * (l->in + l->out);
        }
    }
    return n;
}

nt_status nt_adapter_new_at(const struct nt_spec *spec, int32_t r, double alpha, bool rslora, const uint32_t *targets,
                            struct nt_adapter **out) {
    *out = NULL;
    if (r < 1 || r > NT_ADAPTER_MAX_RANK)
        return NT_FAIL(NT_E_CONFIG, "LoRA rank %d, expected 1 to %d", r, NT_ADAPTER_MAX_RANK);
    if (!(alpha > 0) || !isfinite(alpha))
        return NT_FAIL(NT_E_CONFIG, "LoRA alpha %g, expected a number above 0", alpha);
    uint32_t some = 0;
    for (int32_t layer = 0; layer < spec->n_layer; layer++) some |= targets[layer];
    if (some == 0 || (some & ~(uint32_t)NT_TARGETS_ALL) != 0)
        return NT_FAIL(NT_E_CONFIG, "no target module for the adapter; name at least one, or all");
    struct nt_adapter *a = calloc(1, sizeof *a);
    if (!a) return NT_FAIL(NT_E_NOMEM, "no memory for an adapter");
    a->r = r;
    a->alpha = alpha;
    a->rslora = rslora;
    a->targets = some;
    a->n_layer = spec->n_layer;
    a->lora = calloc((size_t)spec->n_layer * NT_LINEAR_COUNT, sizeof *a->lora);
    if (a->lora) {
        a->n_params = lay_out(a, spec, targets, NULL);
        a->data = calloc((size_t)a->n_params, sizeof *a->data);
    }
    if (!a->data) {
        const nt_status st = NT_FAIL(NT_E_NOMEM, "no memory for the %lld parameters of a LoRA adapter of rank %d",
                                     (long long)a->n_params, r);
        nt_adapter_free(a);
        return st;
    }
    (void)lay_out(a, spec, targets, a->data);
    *out = a;
    return NT_OK;
}

nt_status nt_adapter_new(const struct nt_spec *spec, int32_t r, double alpha, bool rslora, uint32_t targets,
                         struct nt_adapter **out) {
    uint32_t each[NT_MAX_LAYERS];
    for (int32_t layer = 0; layer < spec->n_layer; layer++) each[layer] = targets;
    return nt_adapter_new_at(spec, r, alpha, rslora, each, out);
}

void nt_adapter_free(struct nt_adapter *a) {
    if (!a) return;
    free(a->lora);
    free(a->data);
    free(a);
}

void nt_adapter_init(struct nt_adapter *a, uint64_t seed) {
    static const uint64_t stream0 = 0x4c6f5241ull << 32; /* "LoRA": apart from the streams of sampling and dropout */
    memset(a->data, 0, (size_t)a->n_params * sizeof *a->data);
    for (int32_t i = 0; i < a->n_layer * NT_LINEAR_COUNT; i++) {
        const struct nt_lora *l = &a->lora[i];
        if (!l->a) continue;
        const float bound = (float)(1 / sqrt(l->in));
        const int64_t n = (int64_t)a->r * l->in;
        uint32_t words[4] = {0};
        for (int64_t k = 0; k < n; k++) {
            if (k % 4 == 0) nt_philox(seed, stream0 + (uint64_t)i, (uint64_t)k / 4, words);
            l->a[k] = (2 * nt_unit_float(words[k % 4]) - 1) * bound;
        }
    }
}

double nt_adapter_scale(const struct nt_adapter *a) {
    return a->rslora ? a->alpha / sqrt(a->r) : a->alpha / a->r;
}

struct nt_lora *nt_adapter_at(const struct nt_adapter *a, int32_t layer, enum nt_linear linear) {
    return &a->lora[layer * NT_LINEAR_COUNT + (int32_t)linear];
}

/* All layers have all targets: then the numbers can lie in one way only. */
static bool is_even(const struct nt_adapter *a) {
    for (int32_t i = 0; i < a->n_layer * NT_LINEAR_COUNT; i++)
        if (!a->lora[i].a && (a->targets & 1u << (i % NT_LINEAR_COUNT))) return false;
    return true;
}

void nt_adapter_digest(const struct nt_adapter *a, const uint8_t base[32], uint8_t out[32]) {
    struct {
        uint8_t base[32], numbers[32];
        double scale;
        int64_t r, targets;
    } all = {.scale = nt_adapter_scale(a), .r = a->r, .targets = a->targets};
    memcpy(all.base, base, sizeof all.base);
    nt_sha256(a->data, (size_t)a->n_params * sizeof *a->data, all.numbers);
    nt_sha256(&all, sizeof all, out);
    if (is_even(a)) return;
    struct {
        uint8_t all[32], has[NT_MAX_LAYERS * NT_LINEAR_COUNT];
    } uneven = {0};
    memcpy(uneven.all, out, sizeof uneven.all);
    for (int32_t i = 0; i < a->n_layer * NT_LINEAR_COUNT; i++) uneven.has[i] = a->lora[i].a != NULL;
    nt_sha256(&uneven, sizeof uneven, out);
}
