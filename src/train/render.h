/* Conversations to training sequences: the model's chat format, and targets on what the assistant says only.
 *
 * Rule: the tokens before a completion are those that generate would have sent for it (the messages before, with the
 * generation prompt), and the completion is what the format prints for the answer, up to and with its end-of-turn
 * token. Tokens come from the whole text wherever that leaves the prompt's tokens as they are; else the completion is
 * encoded apart, as a model would have produced it. Turns of one conversation share a sequence while the prompt of the
 * next begins with the tokens of the last; where a format rewrites earlier turns (Qwen3 drops thoughts), or the
 * sequence would grow longer than max_length, the next turn begins a sequence of its own. Text of messages is never
 * parsed for control tokens. Raw texts are joined as they are; where no token ends a turn, end-of-text does.
 * Too long: the prompt is cut from the left (a leading bos stays), or the row is refused, as told. A completion is cut
 * only when told so, and counted.
 * Ownership: a render borrows tokenizer and format; sequences own their memory (nt_sequences_release). One thread.
 * Errors: a row's own fault is a verdict (enum nt_fit) and a sentence in `why`, not a status. */
#ifndef NT_RENDER_H
#define NT_RENDER_H

#include "chat.h"
#include "examples.h"
#include "tokenizer.h"

struct nt_turn {
    const char *role, *text; /* role "prompt" in raw texts */
    size_t len;
    float weight; /* of its tokens in the loss; counts for assistants only */
};

enum nt_fit {
    NT_FIT_OK,
    NT_FIT_NO_TARGET,       /* nothing to train on */
    NT_FIT_REFUSED,         /* the format has no place for such a conversation */
    NT_FIT_TOO_LONG,        /* longer than max_length, and cut_prompt is off */
    NT_FIT_LONG_COMPLETION, /* the completion alone is, and cut_completion is off */
};

enum { NT_RENDER_MAX_STOPS = 24 };

struct nt_render {
    const struct nt_tokenizer *tok;
    const struct nt_chat *chat; /* NULL: raw texts only */
    const char *no_chat;        /* with chat NULL: why, for the verdict of rows that need one */
    int32_t max_length;
    bool cut_prompt, cut_completion, train_on_eos;
    /* Counted: */
    int64_t n_prompts_cut, n_completions_cut;
    int64_t n_sequences, n_ended; /* made, and those whose last target ends a turn or text */
    int64_t n_split;              /* sequences begun because the format rewrites earlier turns, or for length */
    int64_t n_apart;              /* completions encoded apart from their prompt */
    char why[NT_ERROR_TEXT];      /* of the last verdict but OK */
    /* Filled in by nt_render_open: */
    int32_t stops[NT_RENDER_MAX_STOPS], n_stops, bos, eos;
    bool strip_eos; /* the tokenizer ends every text with eos, also a prompt */
    struct nt_ids prompt, whole, apart;
};
/* After tok, chat, no_chat, max_length and the switches are set. */
NT_MUST nt_status nt_render_open(struct nt_render *r);
void nt_render_close(struct nt_render *r); /* accepts zeroed */

struct nt_sequence {
    struct nt_ids ids;
    struct nt_loss_run *runs; // [n_runs]
    int64_t n_runs, cap_runs;
    int32_t n_prompt; /* tokens before the first completion */
};
struct nt_sequences {
    struct nt_sequence *at; // [n]; the rest up to cap keeps its memory
    int64_t n, cap;
};
void nt_sequences_release(struct nt_sequences *s);

/* A conversation (raw: texts) whose assistant turns of weight > 0 are targets: one sequence, or more where turns are
 * split. out holds them until the next call. */
NT_MUST nt_status nt_render_talk(struct nt_render *r, const struct nt_turn *turns, int32_t n, bool raw,
                                 struct nt_sequences *out, enum nt_fit *fit);

struct nt_talk {
    const struct nt_turn *turns; // [n]
    int32_t n;
};
/* Several ways to go on from one prompt (the same turns before the first target in each): a sequence each, their
 * prompts cut to the same tokens. */
NT_MUST nt_status nt_render_completions(struct nt_render *r, const struct nt_talk *talks, int32_t n, bool raw,
                                        struct nt_sequences *out, enum nt_fit *fit);

#endif
