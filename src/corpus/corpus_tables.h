/* What writer and reader of the HDF5 corpus must agree on: names, enumerations, the version.
 *
 * The datasets themselves are listed in corpus_write.c (open_tables) and corpus_read.c (open_tables), in the same
 * order, and described in docs/formats.md. Minor versions add columns, which readers ignore; a major version is
 * refused. No state, no ownership, no errors; constants and one lookup for both sides. Source of the schema: our own;
 * ragged columns follow Arrow's LargeUtf8 (int64 offsets), attributes follow anndata. */
#ifndef NT_CORPUS_TABLES_H
#define NT_CORPUS_TABLES_H

#define NT_CORPUS_ENCODING "nocturne-corpus"
#define NT_CORPUS_VERSION  "1.0.0"
#define NT_CORPUS_ROLES    "system,developer,user,assistant,tool,prompt"

enum {
    NT_CORPUS_ID = 16,    /* bytes of an id */
    NT_CORPUS_PROMPT = 5, /* role of the text of a completion request */
    NT_CORPUS_N_ROLES = 6,
};

int nt_corpus_role(const char *name); /* index into NT_CORPUS_ROLES; -1: none (NULL included) */
const char *nt_corpus_role_name(int role);

#endif
