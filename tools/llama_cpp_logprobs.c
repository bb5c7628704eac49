/* llama_cpp_logprobs MODEL.gguf REAL.bin OUT.bin: what llama.cpp thinks of the tokens of tests/golden/real.bin.
 *
 * Built by hand against a llama.cpp tree, for tools/make_logit_golden.py --llama; not part of the program:
 *   cc -O2 -I llama.cpp/include -I llama.cpp/ggml/include tools/llama_cpp_logprobs.c -L llama.cpp/build/bin -lllama
 *      -Wl,-rpath,llama.cpp/build/bin -lm -o llama_cpp_logprobs
 * The KV cache is float32 and flash attention is off. OUT.bin: f32 logprob[n - 1] | i32 best[n - 1]. */
#include <llama.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHUNK = 256, MAX_TOK = 8192 };

static int32_t read_ids(const char *path, int32_t *ids) {
    int32_t head[2] = {0, 0};
    FILE *f = fopen(path, "rb");
    if (!f || fread(head, 4, 2, f) != 2 || head[1] < 2 || head[1] > MAX_TOK) return 0;
    const size_t n = fread(ids, 4, (size_t)head[1], f);
    fclose(f);
    return n == (size_t)head[1] ? head[1] : 0;
}

static void judge(const float *logits, int32_t n_vocab, int32_t next, float *logprob, int32_t *best) {
    *best = 0;
    for (int32_t v = 1; v < n_vocab; v++)
        if (logits[v] > logits[*best]) *best = v;
    double sum = 0;
    for (int32_t v = 0; v < n_vocab; v++) sum += exp((double)logits[v] - (double)logits[*best]);
    *logprob = (float)((double)logits[next] - (double)logits[*best] - log(sum));
}

static int run(struct llama_context *ctx, const int32_t *ids, int32_t n_tok, int32_t n_vocab, float *logprob,
               int32_t *best) {
    struct llama_batch batch = llama_batch_init(CHUNK, 0, 1);
    for (int32_t at = 0; at < n_tok - 1; at += CHUNK) {
        batch.n_tokens = n_tok - 1 - at < CHUNK ? n_tok - 1 - at : CHUNK;
        for (int32_t i = 0; i < batch.n_tokens; i++) {
            batch.token[i] = ids[at + i];
            batch.pos[i] = at + i;
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i] = 1;
        }
        if (llama_decode(ctx, batch)) return 1;
        for (int32_t i = 0; i < batch.n_tokens; i++)
            judge(llama_get_logits_ith(ctx, i), n_vocab, ids[at + i + 1], &logprob[at + i], &best[at + i]);
    }
    llama_batch_free(batch);
    return 0;
}

int main(int argc, char **argv) {
    static int32_t ids[MAX_TOK], best[MAX_TOK];
    static float logprob[MAX_TOK];
    const int32_t n = argc == 4 ? read_ids(argv[2], ids) : 0;
    if (n == 0) {
        fprintf(stderr, "usage: llama_cpp_logprobs MODEL.gguf REAL.bin OUT.bin\n");
        return 2;
    }
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = MAX_TOK;
    params.n_batch = params.n_ubatch = CHUNK;
    params.n_threads = params.n_threads_batch = 2;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    struct llama_context *ctx = model ? llama_init_from_model(model, params) : NULL;
    if (!ctx) return 1;
    if (run(ctx, ids, n, llama_vocab_n_tokens(llama_model_get_vocab(model)), logprob, best)) return 1;
    FILE *f = fopen(argv[3], "wb");
    if (!f) return 1;
    fwrite(logprob, 4, (size_t)(n - 1), f);
    fwrite(best, 4, (size_t)(n - 1), f);
    return fclose(f) ? 1 : 0;
}
