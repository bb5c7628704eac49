#include "hf_files.h"
#include "fileio.h"
#include "json.h"
#include "log.h"
#include "spec_bind.h"
#include "spec_write.h"
#include "strbuf.h"
#include "tensor_source.h"
#include "tokload.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE = 256 << 20 };

static nt_status put(const char *dir, const char *name, const char *text, size_t len) {
    char path[PATH_MAX];
    NT_TRY(nt_path_join(path, sizeof path, dir, name));
    return nt_publish_bytes(path, text, len, NT_PUBLISH_NEW);
}

/* --- from a directory --------------------------------------------------------------------------------------------- */

static const char *const copied[] = {
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "tekken.json",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
    "USE_POLICY.md",
};

static bool is_dtype_key(const char *key) {
    return strcmp(key, "torch_dtype") == 0 || strcmp(key, "dtype") == 0;
}

/* Whoever loads the copy as its config says must get bfloat16; where it says so already, it stays byte for byte. */
static nt_status copy_config(const char *from, const char *text, size_t len, const char *dir) {
    struct nt_json *doc = NULL;
    NT_TRY(nt_json_parse_wide(text, len, from, &doc));
    bool other = false, said = false;
    struct nt_strbuf s = NT_STRBUF_INIT;
    nt_strbuf_addc(&s, '{');
    for (void *it = nt_json_first(doc); it; it = nt_json_next(doc, it)) {
        const bool dtype = is_dtype_key(nt_json_key(it));
        const char *value = nt_json_str(nt_json_value(it), NULL);
        nt_strbuf_adds(&s, s.len > 1 ? ",\n  " : "\n  ");
        nt_strbuf_add_json(&s, nt_json_key(it), strlen(nt_json_key(it)));
        nt_strbuf_adds(&s, ": ");
        if (dtype)
            nt_strbuf_adds(&s, "\"bfloat16\"");
        else
            nt_json_dump(nt_json_value(it), &s);
        said = said || dtype;
        other = other || (dtype && (!value || strcmp(value, "bfloat16") != 0));
    }
    if (!said) nt_strbuf_adds(&s, ",\n  \"torch_dtype\": \"bfloat16\"");
    nt_strbuf_adds(&s, "\n}\n");
    const nt_status st = said && !other ? put(dir, "config.json", text, len) : put(dir, "config.json", s.data, s.len);
    nt_strbuf_release(&s);
    nt_json_free(doc);
    return st;
}

static nt_status copy_file(const char *from_dir, const char *name, const char *dir) {
    char from[PATH_MAX], *text = NULL;
    size_t len = 0;
    NT_TRY(nt_path_join(from, sizeof from, from_dir, name));
    NT_TRY(nt_file_read(from, MAX_FILE, &text, &len));
    const nt_status st =
        strcmp(name, "config.json") == 0 ? copy_config(from, text, len, dir) : put(dir, name, text, len);
    free(text);
    return st;
}

static nt_status from_directory(const char *from_dir, const char *dir, bool *no_tokenizer) {
    char path[PATH_MAX];
    *no_tokenizer = true;
    NT_TRY(copy_file(from_dir, "config.json", dir));
    for (size_t i = 0; i < sizeof copied / sizeof *copied; i++) {
        NT_TRY(nt_path_join(path, sizeof path, from_dir, copied[i]));
        if (!nt_file_exists(path)) continue;
        if (strcmp(copied[i], "tokenizer.json") == 0) *no_tokenizer = false;
        NT_TRY(copy_file(from_dir, copied[i], dir));
    }
    return NT_OK;
}

/* --- from GGUF ---------------------------------------------------------------------------------------------------- */

static nt_status write_tokenizer(const char *path, const char *dir, bool *no_tokenizer) {
    struct nt_strbuf tokenizer = NT_STRBUF_INIT, config = NT_STRBUF_INIT;
    nt_status st = nt_tokenizer_gguf_to_hf(path, &tokenizer, &config);
    *no_tokenizer = st == NT_E_UNSUPPORTED;
    if (*no_tokenizer) {
        nt_warn("merge", "%s", nt_error_last()->text);
        nt_error_clear();
        st = NT_OK;
    } else {
        if (st == NT_OK) st = put(dir, "tokenizer.json", tokenizer.data, tokenizer.len);
        if (st == NT_OK) st = put(dir, "tokenizer_config.json", config.data, config.len);
    }
    nt_strbuf_release(&tokenizer);
    nt_strbuf_release(&config);
    return st;
}

static nt_status from_gguf(const struct nt_tensor_source *src, const struct nt_spec *spec, const struct nt_binding *b,
                           const char *dir, bool *no_tokenizer) {
    float factors[NT_MAX_D_HEAD / 2];
    const struct nt_tensor_info *freqs = nt_binding_get(b, 0, NT_SLOT_ROPE_FREQS);
    struct nt_strbuf config = NT_STRBUF_INIT, generation = NT_STRBUF_INIT;
    nt_status st = NT_OK;
    if (freqs) st = nt_tensor_source_read(src, freqs, 0, spec->d_head / 2, NT_READ_F32, factors);
    if (st == NT_OK) st = nt_spec_write_hf(spec, freqs ? factors : NULL, src->path, &config, &generation);
    if (st == NT_OK) st = put(dir, "config.json", config.data, config.len);
    if (st == NT_OK) st = put(dir, "generation_config.json", generation.data, generation.len);
    if (st == NT_OK) st = write_tokenizer(src->path, dir, no_tokenizer);
    nt_strbuf_release(&config);
    nt_strbuf_release(&generation);
    return st;
}

nt_status nt_hf_files_write(const struct nt_tensor_source *src, const struct nt_spec *spec, const struct nt_binding *b,
                            const char *dir, bool *no_tokenizer) {
    return src->gguf ? from_gguf(src, spec, b, dir, no_tokenizer) : from_directory(src->path, dir, no_tokenizer);
}
