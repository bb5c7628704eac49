/* Training data: one or more HDF5 corpora opened for a purpose, as records of conversations with their feedback.
 *
 * A record is one conversation that may be seen: its messages, the generations that answered it, the feedback on any of
 * them and the pairs that begin with it. SFT reads the messages, KTO the thumbs, DPO the pairs; which of them a recipe
 * wants, and with what weight, is decided above this layer. The default is deny: a conversation is seen only if its
 * subject consented to the purpose on a stated basis, is not erased, and is within its retention; what is not seen is
 * counted by reason. So is a judgement (an edit is words of its own) whose rater is a subject that does not allow the
 * purpose; raters that are no subject of these files are heard. One subject in several files is one subject: an erasure
 * anywhere counts everywhere, and of two consents the later one. Opening checks everything but the texts (references,
 * ranges, enumerations, ragged offsets); texts are checked (UTF-8, digests) as they are loaded. Lifecycle:
 * nt_dataset_open, nt_dataset_load into a zero-initialised record as often as wanted (it reuses its memory),
 * nt_record_release, nt_dataset_close. Threading: one thread per dataset. Errors: NT_E_DATA naming file, dataset and
 * row. Layout: docs/formats.md. */
#ifndef NT_DATASET_H
#define NT_DATASET_H

#include "corpus_h5.h"
#include "status.h"
#include <stdbool.h>
#include <stdint.h>

/* Why a conversation is not seen. Each counts under the first that applies, in this order. */
enum nt_refusal {
    NT_REFUSED_ERASED,     /* its subject asked for erasure */
    NT_REFUSED_CONSENT,    /* no consent to the purpose, or none on a stated basis */
    NT_REFUSED_RETENTION,  /* its subject's data were to be kept until a time that has passed */
    NT_REFUSED_QUARANTINE, /* its quarantined flag is set */
    NT_N_REFUSALS
};
const char *nt_refusal_name(enum nt_refusal r); /* "erased", "no consent", "past retention", "quarantined" */

/* What the row was in the JSONL it came from. */
enum nt_row_format {
    NT_ROW_MESSAGES,   /* {"messages"} */
    NT_ROW_COMPLETION, /* {"prompt", "completion"} */
    NT_ROW_SHAREGPT,   /* {"conversations"}, also with chosen and rejected, or with kto_tag */
    NT_ROW_ALPACA,     /* {"instruction", "input", "output"}, also with chosen and rejected */
    NT_ROW_PREFERENCE, /* {"chosen", "rejected"}, also with prompt */
    NT_ROW_LABEL,      /* {"prompt", "completion", "label"} */
    NT_ROW_BATCH,      /* an OpenAI Batch request, with what was answered to it */
    NT_N_ROW_FORMATS
};
const char *nt_row_format_name(enum nt_row_format f); /* "messages", "completion", "sharegpt", ... */

enum nt_conv_kind {
    NT_CONV_CHAT,       /* messages with roles, to be rendered with a chat template */
    NT_CONV_TEXT,       /* role "prompt", then role "assistant": texts to be joined as they are */
    NT_CONV_COMPLETION, /* one side of a pair: never a record of its own */
    NT_N_CONV_KINDS
};
enum nt_split { NT_SPLIT_NONE, NT_SPLIT_TRAIN, NT_SPLIT_VALID, NT_SPLIT_TEST, NT_N_SPLITS };
enum nt_basis { /* the ground that a consent stands on */
                NT_BASIS_NONE,
                NT_BASIS_CONSENT,
                NT_BASIS_CONTRACT,
                NT_BASIS_LEGITIMATE_INTEREST,
                NT_BASIS_PUBLIC,
                NT_BASIS_LICENSE,
                NT_BASIS_SYNTHETIC,
                NT_N_BASES
};
enum nt_rater { NT_RATER_END_USER, NT_RATER_ANNOTATOR, NT_RATER_JUDGE, NT_RATER_RULE, NT_N_RATERS };
enum nt_conv_flag {
    NT_CONV_PII_SCANNED = 1,
    NT_CONV_REDACTED = 2,
    NT_CONV_SYNTHETIC = 4,
    NT_CONV_TOXIC = 8,
    NT_CONV_DUP = 16, /* the same content stands earlier in its file */
    NT_CONV_QUARANTINED = 32,
    NT_CONV_TOOLS = 64, /* the row declares tools */
    NT_CONV_FLAGS = 127
};
enum nt_gen_finish {
    NT_GEN_STOP,
    NT_GEN_LENGTH, /* cut off: no example of a whole answer */
    NT_GEN_ERROR,
    NT_GEN_FILTER,
    NT_GEN_TOOL,
    NT_GEN_OTHER,
    NT_N_GEN_FINISH
};
const char *nt_split_name(enum nt_split s); /* "none", "train", "valid", "test" */
const char *nt_basis_name(enum nt_basis b); /* "none", "consent", "contract", "legitimate-interest", ... */
const char *nt_rater_name(enum nt_rater r); /* "end_user", "annotator", "judge", "rule" */

/* What is known of a record without reading its texts. */
struct nt_record_head {
    int32_t file;   /* index into nt_dataset_file */
    int64_t row;    /* conversation in its file */
    int32_t format; /* enum nt_row_format (rowformat.h) of the row it came from; nt_row_format_name */
    enum nt_conv_kind kind;
    uint8_t id[16];
    uint8_t sha256[32];     /* of kind, roles and texts of its messages */
    uint8_t row_sha256[32]; /* of the row: also completions, label, custom_id; equal rows, equal digest */
    int32_t subject;        /* 0-based over all files; equal ids are one subject */
    uint8_t subject_id[16];
    bool anonymous;   /* the row named no subject: such rows share a subject but not a person */
    uint32_t consent; /* bits of enum nt_purpose */
    enum nt_basis basis;
    const char *source, *license; /* "" when none was given; valid while the dataset is open */
    int64_t created_us;           /* microseconds since 1970; 0: unknown */
    enum nt_split split;
    uint32_t flags; /* enum nt_conv_flag */
    bool has_tools; /* the row declares tools, which messages alone do not show */
    int32_t n_messages, n_generations, n_feedback, n_pairs;
};

struct nt_record_text {
    const char *role; /* a constant: "system", "developer", "user", "assistant", "tool", "prompt" */
    const char *text; /* NUL added; what to train on: an edit, if there is one, in place of the original */
    size_t len;
    const char *original; /* NULL: not edited */
    size_t original_len;
    float weight;       /* of its tokens in the loss, 0 to 100; 0 for all but assistants unless given, and for the
                         * assistant's turns in prompts of prompt/completion, pair and labelled rows */
    bool has_more;      /* tool calls, reasoning or other parts that the text does not show */
    bool cut_off;       /* of a generation: its model did not finish it (length, error, filter) */
    int64_t created_us; /* 0: unknown */
    uint8_t sha256[32]; /* of the original */
};

/* An answer that a model gave to the whole of the conversation's messages. */
struct nt_record_generation {
    struct nt_record_text text; /* role "assistant" */
    int32_t choice;
    const char *model; /* "" unknown */
    enum nt_gen_finish finish;
};

enum nt_target { NT_TARGET_MESSAGE, NT_TARGET_GENERATION, NT_TARGET_CONVERSATION, NT_N_TARGETS };
enum nt_feedback_kind {
    NT_FEEDBACK_THUMB,  /* value +1 or -1 */
    NT_FEEDBACK_RATING, /* value from 0 (worst of its scale) to 1 (best) */
    NT_FEEDBACK_EDIT,   /* edit: the text as it should have been */
    NT_N_FEEDBACK_KINDS
};

struct nt_record_feedback {
    enum nt_target target_kind;
    int32_t target; /* index among the record's messages or generations; 0 for the conversation */
    enum nt_feedback_kind kind;
    float value;
    const char *comment, *edit; /* "" when none */
    size_t comment_len, edit_len;
    bool anonymous; /* no rater was named */
    uint8_t rater[16];
    enum nt_rater source;
    float weight;       /* 1 unless given */
    int64_t created_us; /* 0: unknown */
    int64_t row;        /* in its file: later rows are later words where times are equal */
};

enum nt_pair_origin { NT_PAIR_DATASET, NT_PAIR_FEEDBACK, NT_N_PAIR_ORIGINS };

struct nt_record_pair {
    int32_t n_prompt;                               /* the prompt is the record's first n_prompt messages */
    const struct nt_record_text *chosen, *rejected; /* usually one assistant message each */
    int32_t n_chosen, n_rejected;
    float margin; /* NaN: not given */
    float weight;
    enum nt_pair_origin origin;
    bool anonymous;
    uint8_t rater[16];
    enum nt_rater source;
    int64_t created_us;
    int64_t row;
};

/* A conversation with everything that hangs on it. Of several edits of one text the latest (created, then row) is in
 * force. Pointers are valid until the next load into the same record, or its release. */
struct nt_record {
    struct nt_record_head head;
    struct nt_record_text *messages;          // [head.n_messages]
    struct nt_record_generation *generations; // [head.n_generations]
    struct nt_record_feedback *feedback;      // [head.n_feedback] in file order
    struct nt_record_pair *pairs;             // [head.n_pairs] in file order
    struct nt_record_memory *memory;          /* owns all of it */
};

struct nt_dataset_file {
    const char *path;
    char uuid[37], content_sha256[65];
    const char *license;                    /* of the file; "" none */
    int64_t n_conversations;                /* without completions */
    int64_t n_seen, refused[NT_N_REFUSALS]; /* add up to n_conversations */
};

struct nt_dataset;
/* paths: corpora, or directories whose *.h5 are taken in order of their names. purpose must not be NT_PURPOSE_ANY
 * unless the owner of the files asks (export, inspect). now_us: what retention is held against; 0: the clock. */
NT_MUST nt_status nt_dataset_open(struct nt_dataset **out, const char *const *paths, int32_t n_paths,
                                  enum nt_purpose purpose, int64_t now_us);
void nt_dataset_close(struct nt_dataset *d); /* accepts NULL */
int32_t nt_dataset_n_files(const struct nt_dataset *d);
const struct nt_dataset_file *nt_dataset_file(const struct nt_dataset *d, int32_t file);
int64_t nt_dataset_refused(const struct nt_dataset *d, enum nt_refusal r); /* over all files */
int64_t nt_dataset_n_records(const struct nt_dataset *d); /* those that may be seen, in order of files and rows */
int32_t nt_dataset_n_subjects(const struct nt_dataset *d);
/* Feedback and pairs whose rater is a subject that is refused for this reason: nt_dataset_load leaves them out. */
int64_t nt_dataset_n_unheard(const struct nt_dataset *d, enum nt_refusal r);
/* SHA-256 over the files' content digests in order: what the data were, whatever the files are called. */
void nt_dataset_digest(const struct nt_dataset *d, uint8_t digest[32]);

NT_MUST nt_status nt_dataset_head(struct nt_dataset *d, int64_t record, struct nt_record_head *head);
/* Cheapest in ascending order. On failure r is as after release. */
NT_MUST nt_status nt_dataset_load(struct nt_dataset *d, int64_t record, struct nt_record *r);
void nt_record_release(struct nt_record *r);

/* The completion that a feedback is about, and its prompt: the record's first *n_prompt messages. NULL: the feedback is
 * about the conversation as a whole. Where the text was edited, what was judged is `original`. */
const struct nt_record_text *nt_record_completion(const struct nt_record *r, const struct nt_record_feedback *f,
                                                  int32_t *n_prompt);

#endif
