/* What generate, score and bench open first: threads, backend, model, tokenizer and chat format.
 *
 * Ownership: nt_session_close releases all of it; zero-initialise before open. nt_session_engine_config
 * gives the engine's view of it. Errors are agreed on by all ranks of the world.
 * Threading: opened, used and closed by the main thread; the pool's threads see only what ops hand them. */
#ifndef NT_SESSION_H
#define NT_SESSION_H

#include "engine.h"
#include "tokload.h"

struct nt_session {
    struct nt_world *world;
    const struct nt_config *config;
    struct nt_pool *pool;
    struct nt_backend backend;
    struct nt_model *model;
    struct nt_tok_bundle text;
    struct nt_chat chat;
    bool has_chat;
    char chat_error[NT_ERROR_TEXT];
    uint8_t model_digest[32], tokenizer_digest[32];
    int32_t max_len;
    double load_s;
};

enum nt_device { NT_DEVICE_CPU, NT_DEVICE_CUDA };
/* run.device as a decision all ranks share: auto is cuda only where every rank has a device. Collective over the world.
 */
NT_MUST nt_status nt_device_choose(const struct nt_config *c, const struct nt_world *w, enum nt_device *out);
NT_MUST nt_status nt_backend_from_config(const struct nt_config *c, const struct nt_world *w, enum nt_device device,
                                         struct nt_pool **pool, struct nt_backend *be);
NT_MUST nt_status nt_session_open(struct nt_session *s, struct nt_world *w, const struct nt_config *c);
void nt_session_close(struct nt_session *s);
struct nt_engine_config nt_session_engine_config(const struct nt_session *s);

#endif
