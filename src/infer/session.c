#include "session.h"

#include "clock.h"
#include "log.h"

#include <string.h>

nt_status nt_backend_from_config(const struct nt_config *c, const struct nt_world *w, struct nt_pool **pool,
                                 struct nt_backend *be) {
    enum nt_isa isa;
    NT_TRY(nt_isa_choose(c->run_isa, &isa));
    NT_TRY(nt_pool_new(pool, (int)c->run_threads, c->run_pin, w->node_rank, w->node_size));
    const nt_status st = nt_backend_open_cpu(be, isa, *pool);
    if (st != NT_OK) {
        nt_pool_free(*pool);
        *pool = NULL;
    }
    return st;
}

/* A model without a usable template still completes plain prompts; chat rows then carry this sentence. */
static nt_status open_chat(struct nt_session *s) {
    const nt_status st = nt_chat_open(&s->chat, s->config->model_chat, s->text.chat_template, s->text.chat_template_len,
                                      s->text.tok, s->config->model_path);
    s->has_chat = st == NT_OK;
    if (s->has_chat) return NT_OK;
    if (strcmp(s->config->model_chat, "auto") != 0) return st;
    memcpy(s->chat_error, nt_error_last()->text, sizeof s->chat_error);
    nt_error_clear();
    nt_warn("chat", "%s", s->chat_error);
    return NT_OK;
}

static nt_status open_parts(struct nt_session *s) {
    const struct nt_config *c = s->config;
    if (!c->model_path[0])
        return NT_FAIL(NT_E_USAGE, "no model given; add --model PATH (a GGUF file or a Hugging Face directory)");
    NT_TRY(nt_backend_from_config(c, s->world, &s->pool, &s->backend));
    NT_TRY(nt_tokenizer_load(c->model_path, &s->text));
    NT_TRY(open_chat(s));
    nt_tokenizer_digest(s->text.tok, s->tokenizer_digest);
    return NT_OK;
}

nt_status nt_session_open(struct nt_session *s, struct nt_world *w, const struct nt_config *c) {
    const double start = nt_now();
    *s = (struct nt_session){.world = w, .config = c};
    nt_status st = nt_comm_agree(w->world, open_parts(s));
    if (st == NT_OK) st = nt_comm_agree(w->world, nt_model_open(&s->model, c->model_path, w, &s->backend));
    if (st != NT_OK) {
        nt_session_close(s);
        return st;
    }
    nt_model_digest(s->model, s->model_digest);
    const int32_t model_len = nt_model_spec(s->model)->max_len;
    s->max_len = c->model_max_len > 0 && c->model_max_len < model_len ? (int32_t)c->model_max_len : model_len;
    nt_model_limit_len(s->model, s->max_len);
    if (c->model_max_len > model_len)
        nt_warn("model", "model.max_len %lld exceeds the model's own %d: using %d", (long long)c->model_max_len,
                model_len, model_len);
    s->load_s = nt_now() - start;
    nt_info("model", "%s loaded in %.1f s, %d ranks (tp %d, dp %d), %d threads each, isa %s",
            nt_model_spec(s->model)->family, s->load_s, w->size, w->tp_size, w->dp_size, nt_pool_size(s->pool),
            nt_isa_name(s->backend.isa));
    return NT_OK;
}

void nt_session_close(struct nt_session *s) {
    nt_model_close(s->model);
    nt_tok_bundle_release(&s->text);
    if (s->backend.name) nt_backend_close(&s->backend);
    nt_pool_free(s->pool);
    *s = (struct nt_session){0};
}

struct nt_engine_config nt_session_engine_config(const struct nt_session *s) {
    const struct nt_config *c = s->config;
    return (struct nt_engine_config){.world = s->world,
                                     .backend = (struct nt_backend *)&s->backend,
                                     .model = s->model,
                                     .tok = s->text.tok,
                                     .chat = s->has_chat ? &s->chat : NULL,
                                     .chat_error = s->chat_error,
                                     .max_seqs = (int32_t)c->generate_max_num_seqs,
                                     .max_tokens_per_step = (int32_t)c->generate_max_num_batched_tokens,
                                     .max_len = s->max_len,
                                     .kv_bytes = (size_t)(c->generate_kv_memory_gib * 1073741824.0)};
}
