/* make_llama_golden MODEL.gguf ALICE.txt > llama.json: what llama.cpp expects next at 64 places of 16 texts.
 *
 * For tests/jobs/test_golden_text.sh. Built by hand against a llama.cpp tree; not part of the cmake build:
 *   cc -O2 -I llama.cpp/include -I llama.cpp/ggml/include tests/golden/make_llama_golden.c -L llama.cpp/build/bin
 *      -lllama -Wl,-rpath,llama.cpp/build/bin -lm -o make_llama_golden
 * llama.json was made with llama.cpp commit 3f545becc (CPU backend, -march=native with AVX512_BF16) from
 *   llama-quantize --allow-requantize SmolLM2-135M-Instruct.Q4_1.gguf smollm2-BF16.gguf BF16
 * which gives, tensor by tensor, the same bf16 weights that nocturne loads from the Q4_1 file. ALICE.txt is
 * data/alice.txt. Flash attention is off; the KV cache is float32, and bf16 in a second run. Token ids are llama.cpp's
 * own. tools/make_greedy_golden.py places then adds what float32 makes of the same places.
 *
 * Per text "ids"; per place "at" (how many of the ids come before it), the "top" 20 tokens, and their "llama"
 * log-probs. */
#include <llama.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_TOP = 20, N_PLACE = 4, MAX_TOK = 2048, MAX_TEXT = 1 << 16 };

static const char *const texts[] = {
    "The capital of France is Paris. The capital of Italy is Rome. The capital of Japan is",
    "Water boils at 100 degrees Celsius at sea level, but on a high mountain it boils at a lower temperature because",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n - 2)\n\nprint(",
    "#include <stdio.h>\n\nint main(void) {\n    for (int i = 0; i < 10; i++) {\n        printf(\"%d\\n\", i);\n    "
    "}\n",
    "1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377,",
    "SELECT name, COUNT(*) FROM orders JOIN customers ON orders.customer_id = customers.id GROUP BY",
    "Le chat est assis sur la table et regarde par la fen\303\252tre. Il fait beau aujourd'hui, et les oiseaux",
    "Der schnelle braune Fuchs springt \303\274ber den faulen Hund. Danach l\303\244uft er zur\303\274ck in den",
    "\346\235\261\344\272\254\343\201\257\346\227\245\346\234\254\343\201\256\351\246\226\351\203\275\343\201\247\343"
    "\201\231\343\200\202 Tokyo is the capital of Japan. \360\237\227\274\360\237\227\276",
    "Once upon a time, in a small village by the sea, there lived an old fisherman who had never caught a single fish. "
    "Every morning he rowed out before sunrise, and every evening he came home with an empty net. One day,",
    "{\"name\": \"Ada Lovelace\", \"born\": 1815, \"died\": 1852, \"known_for\": [\"mathematics\", \"computing\"], \"",
    "<html>\n  <head>\n    <title>Tides</title>\n  </head>\n  <body>\n    <h1>What causes the tides?</h1>\n    <p>",
    "Question: If a train travels 60 miles in 1.5 hours, what is its average speed?\nAnswer: The average speed is",
    "To bake bread you need flour, water, salt and yeast. First, mix the flour and the salt in a large bowl. Second,",
    "    \n\n\t\tIndented    text   with     odd      spaces,\r\nand a line that ends\r\n",
};
enum { N_TEXT = sizeof texts / sizeof *texts };

struct output {
    int32_t n; /* texts so far */
    int32_t n_vocab;
};

static void print_string(const char *s) {
    putchar('"');
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20)
            printf("\\u%04x", (unsigned)*s);
        else
            printf(*s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
    }
    putchar('"');
}

/* The likeliest tokens by repeated search: 20 passes over 49,152 logits are soon done. */
static void find_top(const float *logits, int32_t n_vocab, int32_t *top) {
    for (int32_t k = 0; k < N_TOP; k++) {
        top[k] = -1;
        for (int32_t v = 0; v < n_vocab; v++) {
            int32_t j = 0;
            while (j < k && top[j] != v) j++;
            if (j == k && (top[k] < 0 || logits[v] > logits[top[k]])) top[k] = v;
        }
    }
}

static void print_logprobs(const char *key, const float *logits, int32_t n_vocab, const int32_t *top) {
    double sum = 0;
    for (int32_t v = 0; v < n_vocab; v++) sum += exp((double)logits[v] - (double)logits[top[0]]);
    for (int32_t k = 0; k < N_TOP; k++)
        printf("%s%.5f", k ? "," : key, (double)logits[top[k]] - (double)logits[top[0]] - log(sum));
}

static void print_place(const float *logits, const float *bf16_kv, int32_t n_vocab, int32_t at) {
    int32_t top[N_TOP];
    find_top(logits, n_vocab, top);
    printf("  {\"at\":%d", at);
    for (int32_t k = 0; k < N_TOP; k++) printf("%s%d", k ? "," : ",\"top\":[", top[k]);
    print_logprobs("],\"llama\":[", logits, n_vocab, top);
    print_logprobs("],\"llama_bf16_kv\":[", bf16_kv, n_vocab, top);
    printf("]}");
}

/* A context that has read the ids, in one batch, and has logits at the places marked by want. */
static struct llama_context *decode(struct llama_model *model, enum ggml_type kv, const int32_t *ids,
                                    const int8_t *want, int32_t n) {
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = MAX_TOK;
    params.n_threads = params.n_threads_batch = 1;
    params.type_k = params.type_v = kv;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    struct llama_context *ctx = llama_init_from_model(model, params);
    if (!ctx) return NULL;
    struct llama_batch batch = llama_batch_init(n, 0, 1);
    batch.n_tokens = n;
    for (int32_t i = 0; i < n; i++) {
        batch.token[i] = ids[i];
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = want[i];
    }
    const int32_t rc = llama_decode(ctx, batch);
    llama_batch_free(batch);
    if (rc == 0) return ctx;
    llama_free(ctx);
    return NULL;
}

static int run(struct llama_model *model, const char *text, struct output *out) {
    static int32_t ids[MAX_TOK];
    static int8_t want[MAX_TOK];
    const int32_t n =
        llama_tokenize(llama_model_get_vocab(model), text, (int32_t)strlen(text), ids, MAX_TOK, true, false);
    if (n < N_PLACE) return 1;
    for (int32_t i = 0; i < n; i++) want[i] = (i + 1) * N_PLACE / n != i * N_PLACE / n; /* after every quarter */
    struct llama_context *full = decode(model, GGML_TYPE_F32, ids, want, n);
    struct llama_context *half = decode(model, GGML_TYPE_BF16, ids, want, n);
    if (!full || !half) return 1;
    printf("%s{\"text\":", out->n++ ? ",\n" : "");
    print_string(text);
    printf(",\n \"ids\":[");
    for (int32_t i = 0; i < n; i++) printf("%s%d", i ? "," : "", ids[i]);
    printf("],\n \"places\":[\n");
    for (int32_t i = 0, k = 0; i < n; i++) {
        if (!want[i]) continue;
        printf(k++ ? ",\n" : "");
        print_place(llama_get_logits_ith(full, i), llama_get_logits_ith(half, i), out->n_vocab, i + 1);
    }
    printf("]}");
    llama_free(full);
    llama_free(half);
    return 0;
}

int main(int argc, char **argv) {
    static char alice[MAX_TEXT];
    FILE *f = argc == 3 ? fopen(argv[2], "rb") : NULL;
    if (!f) {
        fprintf(stderr, "usage: make_llama_golden MODEL.gguf ALICE.txt > llama.json\n");
        return 2;
    }
    alice[fread(alice, 1, 3200, f)] = '\0'; /* about 750 tokens: several pages and chunks */
    fclose(f);
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) return 1;
    struct output out = {.n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model))};
    printf("{\"made_by\": \"tests/golden/make_llama_golden.c\", \"versions\": {\"llama.cpp\": \"3f545becc\"}, "
           "\"rows\": [\n");
    for (int32_t i = 0; i < N_TEXT; i++)
        if (run(model, texts[i], &out)) return 1;
    if (run(model, alice, &out)) return 1;
    printf("\n]}\n");
    llama_model_free(model);
    return 0;
}
