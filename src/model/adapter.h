/* A LoRA adapter in logical form: for any of the seven linears of each layer a pair A [r, in], B [out, r] on the host,
 * in float32 and in Hugging Face's row order, whole (not cut by tensor-parallel rank).
 *
 *   y = x W^T + s (x A^T) B^T,   W' = W + s B A,   s = alpha / r, or alpha / sqrt(r) with rsLoRA (Hu et al. 2021,
 *   Kalajdzievski 2023). One rank and one alpha for the whole adapter: what PEFT, vLLM and llama.cpp all load.
 * All parameters lie in one block (data), layer by layer, linear by linear, A before B: the flat vector of an
 * optimizer. Files: a PEFT directory (adapter_io.h) and a GGUF adapter.
 * Ownership: nt_adapter_new and nt_adapter_read give an adapter that nt_adapter_free frees; plain data, so threads may
 * read it together and write disjoint parts. Errors: NT_E_CONFIG for targets and ranks that make no adapter,
 * NT_E_NOMEM.
 */
#ifndef NT_ADAPTER_H
#define NT_ADAPTER_H

#include "spec.h"

enum nt_linear {
    NT_LINEAR_Q,
    NT_LINEAR_K,
    NT_LINEAR_V,
    NT_LINEAR_O,
    NT_LINEAR_GATE,
    NT_LINEAR_UP,
    NT_LINEAR_DOWN,
    NT_LINEAR_COUNT
};
enum { NT_TARGETS_ALL = (1 << NT_LINEAR_COUNT) - 1, NT_ADAPTER_MAX_RANK = 4096 };

enum nt_slot nt_linear_slot(enum nt_linear linear);                       /* NT_SLOT_Q ... NT_SLOT_DOWN */
enum nt_slot nt_linear_bias_slot(enum nt_linear linear);                  /* NT_SLOT_Q_BIAS ... NT_SLOT_DOWN_BIAS */
const char *nt_linear_name(enum nt_linear linear);                        /* "q_proj" ... "down_proj" */
int32_t nt_linear_out(const struct nt_spec *spec, enum nt_linear linear); /* rows of W and B */
int32_t nt_linear_in(const struct nt_spec *spec, enum nt_linear linear);  /* columns of W and A */

/* "all", "all-linear", or names separated by commas ("q_proj,v_proj"), to bits 1 << enum nt_linear. */
NT_MUST nt_status nt_adapter_targets(const char *text, uint32_t *targets);

struct nt_lora {
    float *a; // [r, in]; NULL: this linear has no adapter
    float *b; // [out, r]
    int32_t in, out;
};

struct nt_adapter {
    int32_t r, n_layer;
    double alpha, dropout;
    bool rslora;
    uint32_t targets;     /* linears that some layer has */
    struct nt_lora *lora; // [n_layer, NT_LINEAR_COUNT]
    float *data;          // [n_params]
    int64_t n_params;
    char base[256];               /* name or path of the base model, for the card; "" unknown */
    bool has_base, has_tokenizer; /* the digests are known */
    uint8_t base_digest[32], tokenizer_digest[32];
};

/* Zeros for every layer and every linear of targets. alpha > 0, r from 1 to NT_ADAPTER_MAX_RANK. */
NT_MUST nt_status nt_adapter_new(const struct nt_spec *spec, int32_t r, double alpha, bool rslora, uint32_t targets,
                                 struct nt_adapter **out);
/* The same with the linears of each layer: targets [n_layer]. */
NT_MUST nt_status nt_adapter_new_at(const struct nt_spec *spec, int32_t r, double alpha, bool rslora,
                                    const uint32_t *targets, struct nt_adapter **out);
void nt_adapter_free(struct nt_adapter *a); /* accepts NULL */

/* A uniform in (-1/sqrt(in), 1/sqrt(in)) (Kaiming with a = sqrt(5)), a pure function of seed, layer, linear and
 * element; B = 0. */
void nt_adapter_init(struct nt_adapter *a, uint64_t seed);

/* out = SHA-256 of base, the digest of a model, and all that the adapter changes in it; out may be base. */
void nt_adapter_digest(const struct nt_adapter *a, const uint8_t base[32], uint8_t out[32]);

double nt_adapter_scale(const struct nt_adapter *a);                                             /* s */
struct nt_lora *nt_adapter_at(const struct nt_adapter *a, int32_t layer, enum nt_linear linear); /* a == NULL: absent */

#endif
