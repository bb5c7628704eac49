/* What a generate job would do on GPUs that need not be there: memory, sequences, work and time of a step.
 *
 * The real forward of one rank runs on the ledger (ledger_backend.h) with an unbacked model; nothing else in here knows
 * what a layer is. Workload: endless rows of `in` prompt and `out` answer tokens, all queued.
 * Memory per GPU: 92 % of it, less 2 GB for activations, context and libraries, less the weights, is the KV cache. It
 * holds B = cache / ((in + out/2) * bytes per position) sequences of mean length; fewer are decoded together where the
 * activations of their step would not fit what is left: inputs, logits and what tokens are drawn with are counted too.
 * A step decodes B rows at position in + out/2 and prefills B * in / out prompt tokens beside them, so B answer tokens
 * per step. Ideal seconds: products max(FLOP / peak, weight bytes / bandwidth); attention of prefill and of decode
 * likewise, with cache bytes; all-reduces max(delay, 2 (n-1)/n bytes / link); the rest (activations stay in caches) the
 * stored bytes they touch. One after the other. Overlapped: the largest of all FLOP, all bytes, all communication.
 * Practical: peaks times the factors of gpu_table.h, and every op also reads and writes its activations in memory.
 * Ownership: plain data. Threading: one thread per call. Errors: NT_E_CONFIG (tp does not divide the model, sequences
 * too long), NT_E_NOMEM; a plan that does not fit is no error (fits). */
#ifndef NT_PLAN_H
#define NT_PLAN_H

#include "gpu_table.h"
#include "ledger_backend.h"
#include "spec.h"

struct nt_plan_precision {
    const char *name, *doc;
    enum nt_weight_format weights;
    enum nt_kv_format kv;
    enum nt_weight_format blocks; /* the blocks' matrices */
};
/* From the most exact to the smallest. */
const struct nt_plan_precision *nt_plan_precisions(int32_t *n);

struct nt_plan_job {
    const struct nt_spec *spec;
    const struct nt_gpu *gpu;
    const struct nt_plan_precision *precision;
    int32_t tp, in, out;
    int32_t seqs;       /* decoded together; 0: as many as fit */
    int32_t wire_bytes; /* of one all-reduced element: 4 as the model sends them, 2 for a bf16 exchange */
};

/* Rows of a step: the ops, attention in two parts, and the all-reduces. */
enum { NT_PLAN_PREFILL_ATTENTION = NT_OP_attention };
enum { NT_PLAN_DECODE_ATTENTION = NT_OP_COUNT, NT_PLAN_ALLREDUCE, NT_PLAN_ROWS };
const char *nt_plan_row_name(int32_t row);

struct nt_plan_row {
    struct nt_cost cost; /* all-reduce: bytes over the link as read_bytes */
    double ideal_s, practical_s;
};

/* One forward of one rank, with its sampling (statistics and one draw per row of logits). */
struct nt_plan_step {
    int32_t n_decode, n_prefill; /* tokens */
    double outputs;              /* answer tokens it stands for */
    struct nt_plan_row row[NT_PLAN_ROWS];
    struct nt_cost total; /* without the all-reduces' bytes, with their launches */
    double ideal_s, practical_s, overlapped_s;
};

struct nt_plan {
    bool fits;
    double weight_bytes, kv_bytes, activation_bytes, position_bytes; /* per GPU; cache bytes of one position */
    double seqs;                                                     /* decoded together, not rounded */
    double cached_seqs;                                              /* B */
    int32_t admitted;   /* sequences whose whole prompt and answer are reserved, as the engine admits them */
    double kv_occupied; /* mean fraction of the cache that is in use when seqs, but at most those, run */
    struct nt_plan_step mixed, decode, prefill;
    double ideal, practical, overlapped; /* answer tokens per second and GPU */
};

NT_MUST nt_status nt_plan_make(const struct nt_plan_job *job, struct nt_plan *plan);
/* Prompt tokens per second and GPU of the prefill step. */
double nt_plan_prefill_rate(const struct nt_plan_job *job, const struct nt_plan *plan);

#endif
