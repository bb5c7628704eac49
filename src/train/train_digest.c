#include "train_digest.h"
#include "hash.h"
#include "json.h"
#include "strbuf.h"
#include <string.h>

static bool changes_updates(const char *key) {
    static const char *const free_keys[] = {"train.input",
                                            "train.output",
                                            "train.fresh",
                                            "train.save_steps",
                                            "train.save_total_limit",
                                            "train.eval_steps",
                                            "train.micro_batch_tokens",
                                            "train.packing",
                                            "train.recompute",
                                            "train.reference_cache",
                                            "train.init_adapter", /* as digests */
                                            "train.reference",
                                            "train.logit_rows"};
    if (strcmp(key, "model.chat") == 0 || strcmp(key, "model.weight_dtype") == 0) return true;
    if (strncmp(key, "train.", 6) != 0) return false;
    for (size_t i = 0; i < sizeof free_keys / sizeof *free_keys; i++)
        if (strcmp(key, free_keys[i]) == 0) return false;
    return true;
}

static void add_hex(struct nt_strbuf *s, const char *key, const uint8_t digest[32]) {
    char hex[NT_SHA256_HEX];
    nt_hex(digest, NT_SHA256_BYTES, hex);
    nt_strbuf_addf(s, "%s %s\n", key, hex);
}

nt_status nt_train_digest(const struct nt_train_job *job, const struct nt_train_result *r, uint8_t out[32]) {
    struct nt_strbuf all = NT_STRBUF_INIT, text = NT_STRBUF_INIT;
    struct nt_json *settings = NULL;
    nt_config_dump_json(job->config, &all);
    const nt_status st = nt_json_parse(nt_strbuf_cstr(&all), all.len, "settings", &settings);
    if (st == NT_OK) {
        add_hex(&text, "model", job->model_digest);
        add_hex(&text, "tokenizer", job->tokenizer_digest);
        add_hex(&text, "init", r->init_digest);
        add_hex(&text, "reference", r->reference_digest);
        add_hex(&text, "train", r->data.train.digest);
        add_hex(&text, "eval", r->data.eval.digest);
        for (void *it = nt_json_first(settings); it; it = nt_json_next(settings, it)) {
            if (!changes_updates(nt_json_key(it))) continue;
            nt_strbuf_addf(&text, "%s ", nt_json_key(it));
            nt_json_dump(nt_json_value(it), &text);
            nt_strbuf_addc(&text, '\n');
        }
        nt_sha256(nt_strbuf_cstr(&text), text.len, out);
    }
    nt_json_free(settings);
    nt_strbuf_release(&all);
    nt_strbuf_release(&text);
    return st;
}
