#include "hf_config.h"
#include <math.h>

const struct nt_json *nt_hf_get(const struct nt_json *config, const char *key) {
    const struct nt_json *v = nt_json_get(config, key);
    return nt_json_is(v, NT_JSON_NULL) ? NULL : v;
}

nt_status nt_hf_int(const struct nt_json *config, const char *origin, const char *key, int64_t min, int64_t max,
                    int64_t def, int32_t *out) {
    const struct nt_json *v = nt_hf_get(config, key);
    if (!v && def >= 0) {
        *out = (int32_t)def;
        return NT_OK;
    }
    const int64_t x = nt_json_int(v, INT64_MIN);
    if (!v || x < min || x > max)
        return NT_FAIL(NT_E_DATA, "%s: key \"%s\" is %s, expected an integer from %lld to %lld", origin, key,
                       !v               ? "missing"
                       : x == INT64_MIN ? nt_json_type_name(v)
                                        : "out of range",
                       (long long)min, (long long)max);
    *out = (int32_t)x;
    return NT_OK;
}

nt_status nt_hf_num(const struct nt_json *config, const char *origin, const char *key, double min, double max,
                    double def, double *out) {
    const struct nt_json *v = nt_hf_get(config, key);
    if (!v && !isnan(def)) {
        *out = def;
        return NT_OK;
    }
    const double x = nt_json_num(v, NAN);
    if (!(x >= min && x <= max))
        return NT_FAIL(NT_E_DATA, "%s: key \"%s\" is %s, expected a number from %g to %g", origin, key,
                       !v         ? "missing"
                       : isnan(x) ? nt_json_type_name(v)
                                  : "out of range",
                       min, max);
    *out = x;
    return NT_OK;
}

nt_status nt_hf_bool(const struct nt_json *config, const char *origin, const char *key, bool def, bool *out) {
    const struct nt_json *v = nt_hf_get(config, key);
    if (v && !nt_json_is(v, NT_JSON_BOOL))
        return NT_FAIL(NT_E_DATA, "%s: key \"%s\" is %s, expected true or false", origin, key, nt_json_type_name(v));
    *out = nt_json_bool(v, def);
    return NT_OK;
}
