/* Keys of a Hugging Face config.json, range checked (private to src/model).
 *
 * null counts as absent everywhere, because configs write both for "not set". An absent key gives the default, or is an
 * error where the caller has none. config may be NULL (an absent object): all its keys are absent.
 * Ownership: nothing is kept. Threading: no state.
 * Errors: NT_E_DATA "ORIGIN: key "NAME" is ..., expected ..."; origin is the file's path. */
#ifndef NT_HF_CONFIG_H
#define NT_HF_CONFIG_H

#include "json.h"
#include "status.h"
#include <stdbool.h>
#include <stdint.h>

const struct nt_json *nt_hf_get(const struct nt_json *config, const char *key); /* NULL: absent or null */
/* An integer in [min, max]; def < 0: no default. */
NT_MUST nt_status nt_hf_int(const struct nt_json *config, const char *origin, const char *key, int64_t min, int64_t max,
                            int64_t def, int32_t *out);
/* A number in [min, max]; def NAN: no default. */
NT_MUST nt_status nt_hf_num(const struct nt_json *config, const char *origin, const char *key, double min, double max,
                            double def, double *out);
NT_MUST nt_status nt_hf_bool(const struct nt_json *config, const char *origin, const char *key, bool def, bool *out);

#endif
