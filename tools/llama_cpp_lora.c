/* llama_cpp_lora MODEL.gguf LORA.gguf IN.bin OUT.bin: llama.cpp's logits with a GGUF LoRA adapter applied.
 *
 * Built by hand against a llama.cpp tree, for tests/golden/train/check_adapter.py; not part of the program:
 *   cc -O2 -I llama.cpp/include -I llama.cpp/ggml/include tools/llama_cpp_lora.c -L llama.cpp/build/bin -lllama
 *      -lggml -lggml-base -Wl,-rpath,llama.cpp/build/bin -o llama_cpp_lora
 * IN.bin and OUT.bin have the layout of golden.bin in tools/make_logit_golden.py; the logits of IN.bin are replaced.
 * LORA.gguf "-" applies none. The model's tokenizer is not read, the KV cache is float32, flash attention is off. */
#include <llama.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 16 << 20, MAX_TOK = 4096 };

/* The logits of one prompt at the wanted positions, written over those of the file. */
static int run(struct llama_context *ctx, const int32_t *ids, int32_t n_tok, const int32_t *pos, int32_t n_pos,
               int32_t n_vocab, float *logits) {
    struct llama_batch batch = llama_batch_init(n_tok, 0, 1);
    batch.n_tokens = n_tok;
    for (int32_t i = 0; i < n_tok; i++) {
        batch.token[i] = ids[i];
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    llama_memory_clear(llama_get_memory(ctx), true);
    const int failed = llama_decode(ctx, batch);
    for (int32_t i = 0; i < n_pos && !failed; i++)
        memcpy(logits + (int64_t)i * n_vocab, llama_get_logits_ith(ctx, pos[i]), sizeof(float) * (size_t)n_vocab);
    llama_batch_free(batch);
    return failed;
}

static struct llama_context *open_context(const char *model_path, const char *lora_path) {
    struct llama_model_kv_override no_vocab[2] = {{.tag = LLAMA_KV_OVERRIDE_TYPE_STR}};
    snprintf(no_vocab[0].key, sizeof no_vocab[0].key, "tokenizer.ggml.model");
    snprintf(no_vocab[0].val_str, sizeof no_vocab[0].val_str, "no_vocab");
    struct llama_model_params model_params = llama_model_default_params();
    model_params.kv_overrides = no_vocab;
    struct llama_model *model = llama_model_load_from_file(model_path, model_params);
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = MAX_TOK;
    params.n_threads = params.n_threads_batch = 2;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    struct llama_context *ctx = model ? llama_init_from_model(model, params) : NULL;
    if (!ctx || strcmp(lora_path, "-") == 0) return ctx;
    struct llama_adapter_lora *lora = llama_adapter_lora_init(model, lora_path);
    float scale = 1;
    return lora && llama_set_adapters_lora(ctx, &lora, 1, &scale) == 0 ? ctx : NULL;
}

/* Walks the prompts of the file in memory. */
static int run_all(struct llama_context *ctx, int32_t *data, size_t n_int) {
    const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx)));
    if (data[2] != n_vocab) return fprintf(stderr, "%d logits in the file, %d in the model\n", data[2], n_vocab);
    size_t at = 3;
    for (int32_t i = 0; i < data[1]; i++) {
        const int32_t *head = data + at;
        if (at + 2 > n_int || head[0] < 1 || head[0] > MAX_TOK || head[1] < 0 || head[1] > head[0]) return 1;
        const size_t logits = at + 2 + (size_t)head[0] + (size_t)head[1];
        at = logits + (size_t)head[1] * (size_t)n_vocab;
        if (at > n_int) return 1;
        if (run(ctx, head + 2, head[0], head + 2 + head[0], head[1], n_vocab, (float *)(void *)(data + logits)))
            return 1;
    }
    return at == n_int ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: llama_cpp_lora MODEL.gguf LORA.gguf IN.bin OUT.bin\n");
        return 2;
    }
    int32_t *data = malloc(MAX_BYTES);
    FILE *f = fopen(argv[3], "rb");
    if (!data || !f) return 1;
    const size_t n_int = fread(data, 4, MAX_BYTES / 4, f);
    fclose(f);
    if (n_int < 3 || memcmp(data, "NTLG", 4) != 0) return 1;
    llama_backend_init();
    struct llama_context *ctx = open_context(argv[1], argv[2]);
    if (!ctx || run_all(ctx, data, n_int)) return 1;
    f = fopen(argv[4], "wb");
    if (!f || fwrite(data, 4, n_int, f) != n_int) return 1;
    return fclose(f) ? 1 : 0;
}
