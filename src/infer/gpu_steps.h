/* Whole steps of models without weights on a GPU: a decode step and a prefill through the real forward.
 *
 * The model of a spec is opened on the device (model_shape.h) and its weights and cache are filled with random data, so
 * nothing is read from a disk. Steps go through nt_model_forward: a decode step is the captured graph with its upload
 * of inputs, a prefill one prompt; both end in greedy tokens that the head draws. The time of a step is the median over
 * groups of steps, by events; where launches begin early (cuda_launch.h) also of the same step with each launch behind
 * the end of the one before, which must draw the same tokens. The ideal is the ledger's: the same forward counted by
 * ledger_backend.h, each op at the larger of its FLOPs over the measured matrix rate (products, attention) and its
 * stored bytes over the measured copy bandwidth. A model or step that does not fit the free memory is a row with a
 * sentence, not an error. Ownership: the list is the caller's. Threading: as the backend. Errors: those of the forward
 * and of the driver. */
#ifndef NT_GPU_STEPS_H
#define NT_GPU_STEPS_H

#include "comm.h"
#include "cuda_bench.h"
#include "spec.h"

enum { NT_GPU_STEPS_MAX = 32, NT_GPU_STEP_SKIPPED = 200 };

struct nt_gpu_step {
    const char *model;
    bool prefill;
    int32_t n_seq, n_tok; /* tokens of the step */
    int32_t context;      /* positions a decoded token sees; tokens of the prompt */
    double seconds, ideal_s;
    double one_by_one_s;           /* without early launches; 0: there are none */
    bool wrong;                    /* it drew other tokens then */
    double weight_bytes, kv_bytes; /* weights; cache of the step's sequences */
    struct nt_cost cost;           /* of the ledger, launches included */
    char skipped[NT_GPU_STEP_SKIPPED];
};
struct nt_gpu_steps {
    int32_t n;
    struct nt_gpu_step row[NT_GPU_STEPS_MAX];
};

struct nt_gpu_steps_job {
    const char *model; /* name for the rows; outlives them */
    const struct nt_spec *spec;
    struct nt_world *world; /* of one tensor-parallel rank */
    const struct nt_cuda_bench_sizes *sizes;
    const struct nt_cuda_ceilings *ceilings;
};
/* Appends the decode steps of sizes->decode and one prefill. */
NT_MUST nt_status nt_gpu_steps_run(const struct nt_gpu_steps_job *job, struct nt_backend *be, struct nt_gpu_steps *out);

#endif
