/* A row of training data in one of the customary JSON shapes, as messages, completions and label.
 *
 * The shapes are rows of a table in train_row_formats.c: OpenAI's and TRL's "messages", "prompt"/"completion",
 * "chosen"/ "rejected" and "label", ShareGPT and Alpaca as LLaMA-Factory reads them, and OpenAI Batch requests. Texts
 * are copied into one buffer; for each, a reference remembers which string of the document it came from (shell.h). What
 * cannot be represented is an error of the row, never ignored. Shapes and rules: docs/formats.md. Lifecycle:
 * zero-initialise, nt_train_row_parse (which resets), nt_train_row_release. The document must outlive the use of refs.
 * Threading: plain data. Errors: row->error, one sentence without the line. */
#ifndef NT_TRAIN_ROW_H
#define NT_TRAIN_ROW_H

#include "dataset_writer.h"
#include "shell.h"

struct nt_row_message {
    const char *role; /* a constant */
    size_t at, len;   /* in row->text */
    float weight;
    bool has_more;
};

struct nt_row_list {
    struct nt_row_message *m; // [n]
    int32_t n, cap;
};

struct nt_train_row {
    enum nt_row_format format;
    enum nt_conv_kind kind;
    struct nt_row_list messages, chosen, rejected; /* the last two empty: no pair */
    int label;                                     /* of the last message: 1, 0; -1: none */
    float margin;                                  /* NaN: none */
    bool has_tools;
    bool repeats;       /* strings: the completions begin with the prompt, which is there twice then */
    const char *unread; /* a field with words that this format does not read; NULL: none */
    struct nt_strbuf text;
    struct nt_text_refs refs;
    char error[320]; /* "" good */
};

void nt_train_row_parse(struct nt_train_row *row, const struct nt_json *doc, enum nt_row_format format);
void nt_train_row_release(struct nt_train_row *row);
/* The format that a row is in by its keys; false: none of them. *request: rather a request for generate (messages that
 * end with a question, a prompt alone, a Batch line). */
bool nt_train_row_detect(const struct nt_json *doc, enum nt_row_format *format, bool *request);
/* Digest of everything that training would see: equal rows, equal digest. salt: e.g. a custom_id, or "". */
void nt_train_row_digest(const struct nt_train_row *row, const char *salt, uint8_t digest[32]);
/* The list as the writer wants it; pointers into row->text. out: [list->n]. */
void nt_train_row_messages(const struct nt_train_row *row, const struct nt_row_list *list, struct nt_new_message *out);

/* ---- for the formats ---- */

/* Always false, for return; the first sentence stays. */
bool nt_train_row_reject(struct nt_train_row *row, const char *fmt, ...) NT_PRINTF(2, 3);
/* A message whose text is this string; table: 'm', 'c' or 'r', the list it goes to. */
bool nt_train_row_say(struct nt_train_row *row, char table, const char *role, const struct nt_json *text, float weight,
                      const char *where);
/* A list of {"role", "content"} messages; assistant_weight where they give none. */
bool nt_train_row_chat(struct nt_train_row *row, char table, const struct nt_json *list, float assistant_weight,
                       const char *where);
/* Its "weight" where m has one; *weight as it was otherwise. */
bool nt_train_row_weight(struct nt_train_row *row, const struct nt_json *m, const char *where, float *weight);
/* A message's content: a string, parts of text, or null beside tool calls. Gives its text and references. */
bool nt_train_row_content(struct nt_train_row *row, char table, int32_t index, const struct nt_json *message,
                          const char *where, struct nt_row_message *to);
struct nt_row_list *nt_train_row_list(struct nt_train_row *row, char table);
struct nt_row_message *nt_train_row_append(struct nt_row_list *list, const char *role, float weight);

#endif
