/* The rows of config_keys.def as a table, shared by the three files of the config module; others use config.h.
 *
 * A row knows where its field lies in struct nt_config; the assign functions check a value against the row and store
 * it. `where` opens error sentences: "job.cfg:12" or "--set".
 * Ownership: rows are constants; assigned strings are copied into the config. Threading: constants only.
 * Errors: NT_E_CONFIG with where, key, what was expected and what was found. */
#ifndef NT_CONFIG_ROWS_H
#define NT_CONFIG_ROWS_H

#include "config.h"
#include "status.h"
#include <stddef.h>

enum nt_config_kind { NT_CONFIG_STR, NT_CONFIG_INT, NT_CONFIG_NUM, NT_CONFIG_BOOL, NT_CONFIG_ENUM };

struct nt_config_row {
    const char *section, *key, *doc;
    enum nt_config_kind kind;
    size_t offset;             /* of the field in struct nt_config */
    const char *str, *choices; /* STR, ENUM: default; ENUM: "a|b|c" */
    int64_t i, i_min, i_max;   /* INT, BOOL: default; range */
    double num, n_min, n_max;  /* NUM */
};

extern const struct nt_config_row nt_config_rows[];
extern const int nt_config_n_rows;

const struct nt_config_row *nt_config_find_row(const char *section, const char *key); /* or NULL */
bool nt_config_has_section(const char *section);
/* NT_E_CONFIG: "where: unknown key section.key; maybe: x?" (section NULL: the name stands alone). */
NT_MUST nt_status nt_config_unknown(const char *where, const char *section, const char *key);

NT_MUST nt_status nt_config_put_int(struct nt_config *c, const struct nt_config_row *r, int64_t v, const char *where);
NT_MUST nt_status nt_config_put_num(struct nt_config *c, const struct nt_config_row *r, double v, const char *where);
NT_MUST nt_status nt_config_put_str(struct nt_config *c, const struct nt_config_row *r, const char *v,
                                    const char *where); /* STR and ENUM */
NT_MUST nt_status nt_config_put_bool(struct nt_config *c, const struct nt_config_row *r, bool v, const char *where);
/* The sentence for a value of the wrong kind or out of range; found: how errors show it. */
NT_MUST nt_status nt_config_refuse(const struct nt_config_row *r, const char *where, const char *found);
/* "an integer from 1 to 64", "one of a, b, c" ... */
void nt_config_describe(const struct nt_config_row *r, struct nt_strbuf *out);

#endif
