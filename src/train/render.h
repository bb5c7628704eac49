/* Conversations to training sequences: the model's chat format, and targets on what the assistant says only.
 *
 * Rule: the tokens before a completion are those that generate would have sent for it (the messages before, with the
 * generation prompt), and the completion is what the format prints for the answer, up to and with its end-of-turn
 * token. Tokens come from the whole text wherever that leaves the prompt's tokens as they are; else the completion is
 * cut off and encoded apart, as a model would have produced it. Turns of one conversation share a sequence while the
 * prompt of the next begins with the tokens of the last; where a format rewrites earlier turns (Qwen3 drops thoughts),
 * or the sequence would grow too long, the next turn begins a sequence of its own. Text of messages is never parsed for
 * control tokens.
 * Texts without a format are joined as they are: prompt, completion, end-of-text token.
 * Too long: the prompt is cut from the left (a leading bos stays), or the row is refused, as told. A completion is cut
 * only when told so, and counted.
 * Ownership: a render borrows tokenizer and format; sequences own their memory (nt_sequences_release). One thread.
 * Errors: NT_E_DATA only for what ends the job; a row's own fault is a verdict (enum nt_fit) and a sentence. */
#ifndef NT_RENDER_H
#define NT_RENDER_H

#include "chat.h"
#include "examples.h"
#include "tokenizer.h"

struct nt_turn {
    const char *role, *text;
    size_t len;
    float weight; /* of its tokens in the loss; counts for assistants only */
};

enum nt_fit {
    NT_FIT_OK,
    NT_FIT_NO_TARGET,       /* nothing to train on */
    NT_FIT_REFUSED,         /* the format has no place for such a conversation: see why */
    NT_FIT_TOO_LONG,        /* longer than max_length, and cut_prompt is off */
    NT_FIT_LONG_COMPLETION, /* the completion alone is, and cut_completion is off */
};

struct nt_render {
    const struct nt_tokenizer *tok;
    const struct nt_chat *chat; /* NULL: texts are joined as they are */
    int32_t max_length;
    bool cut_prompt, cut_completion, train_on_eos;
    /* Counted: */
    int64_t n_prompts_cut, n_completions_cut;
    int64_t n_sequences, n_ended; /* sequences, and those whose last target ends a turn or text */
    int64_t n_split;              /* sequences begun because the format rewrites earlier turns, or for length */
    int64_t n_apart;              /* completions encoded apart from their prompt */
    char why[NT_ERROR_TEXT];      /* of the last verdict but OK */
};

struct nt_sequence {
    struct nt_ids ids;
    struct nt_loss_run *runs;
    int32_t n_runs, cap_runs, n_prompt;
};
struct nt_sequences {
    struct nt_sequence *at; // [n], of which cap own memory
    int32_t n, cap;
};
void nt_sequences_release(struct nt_sequences *s);

/* A conversation whose assistant turns of weight > 0 are targets: one sequence, or more where turns are split. */
NT_MUST nt_status nt_render_talk(struct nt_render *r, const struct nt_turn *turns, int32_t n, struct nt_sequences *out,
                                 enum nt_fit *fit);
/* Completions of one prompt: turns[0 .. n_prompt) and then one completion each, as a sequence each over one and the
 * same prompt. */
NT_MUST nt_status nt_render_completions(struct nt_render *r, const struct nt_turn *prompt, int32_t n_prompt,
                                        const struct nt_turn *completions, int32_t n, struct nt_sequences *out,
                                        enum nt_fit *fit);

#endif
