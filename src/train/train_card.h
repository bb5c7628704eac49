/* The training card: what was trained, on what, how, and what came of it; the one source of the pages made from it.
 *
 * The JSON object (docs/formats.md) holds digests of base, tokenizer, data and job, the window and sources of the data
 * with the ground of consent, every row left out by reason, losses, margins, hyper-parameters and speed. The Markdown
 * is made from the JSON alone: it stands in training_card.md and in the adapter's README.md. Members that the card
 * lacks are left out of the page. Texts of the data (source names) are escaped; no training text is in the card.
 * Ownership: appends to the caller's strings. Threading: none. Errors: NT_E_NOMEM. */
#ifndef NT_TRAIN_CARD_H
#define NT_TRAIN_CARD_H

#include "history.h"
#include "json.h"
#include "trainer.h"

struct nt_train_facts {
    const struct nt_train_job *job;
    const struct nt_train_result *result;
    const char *version, *commit; /* of the program */
};

/* history may be NULL. */
NT_MUST nt_status nt_train_card_json(const struct nt_train_facts *f, const struct nt_history *history,
                                     struct nt_strbuf *out);
void nt_train_card_md(const struct nt_json *card, struct nt_strbuf *out); /* sections, no title */

/* A setting as it was given: all its digits, all its text. */
void nt_train_card_setting(const struct nt_json *v, struct nt_strbuf *out);
/* A member by its path, "run.steps": as text for people ("1,234", "0.0315", "yes", "a, b"), "" when absent or null. */
const char *nt_train_card_text(const struct nt_json *card, const char *path, char *buf, size_t cap);

#endif
