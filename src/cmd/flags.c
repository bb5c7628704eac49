/* The command line: every flag is a setting's key or an alias of one, so help, file and flags cannot disagree. */
#include "cmd.h"

#include <string.h>

struct key_row {
    const char *section, *key;
    bool is_bool;
};

static const struct key_row key_rows[] = {
#define NT_KEY_STR(section, key, def, doc)           {#section, #key, false},
#define NT_KEY_INT(section, key, def, min, max, doc) {#section, #key, false},
#define NT_KEY_NUM(section, key, def, min, max, doc) {#section, #key, false},
#define NT_KEY_BOOL(section, key, def, doc)          {#section, #key, true},
#define NT_KEY_ENUM(section, key, def, choices, doc) {#section, #key, false},
#include "config_keys.def"
#undef NT_KEY_STR
#undef NT_KEY_INT
#undef NT_KEY_NUM
#undef NT_KEY_BOOL
#undef NT_KEY_ENUM
};

enum { N_KEYS = sizeof key_rows / sizeof *key_rows, MAX_FLAG = 64, MAX_NAMES = 128 };

/* "max-num-seqs" against "max_num_seqs". */
static bool same_name(const char *flag, size_t len, const char *key) {
    if (strlen(key) != len) return false;
    for (size_t i = 0; i < len; i++)
        if (flag[i] != key[i] && !(flag[i] == '-' && key[i] == '_')) return false;
    return true;
}

static const struct key_row *find_key(const char *section, const char *flag, size_t len) {
    for (int i = 0; i < N_KEYS; i++)
        if (strcmp(key_rows[i].section, section) == 0 && same_name(flag, len, key_rows[i].key)) return &key_rows[i];
    return NULL;
}

static const struct key_row *find_flag(const struct nt_cmd *cmd, const char *flag, size_t len) {
    for (const struct nt_flag_alias *a = cmd->aliases; a->flag; a++) {
        if (!same_name(flag, len, a->flag)) continue;
        const char *dot = strchr(a->key, '.');
        char section[MAX_FLAG];
        memcpy(section, a->key, (size_t)(dot - a->key));
        section[dot - a->key] = 0;
        return find_key(section, dot + 1, strlen(dot + 1));
    }
    for (int s = 0; cmd->sections[s]; s++) {
        const struct key_row *row = find_key(cmd->sections[s], flag, len);
        if (row) return row;
    }
    return NULL;
}

static nt_status unknown_flag(const struct nt_cmd *cmd, const char *flag) {
    const char *names[MAX_NAMES] = {"config", "set", "help"};
    int n = 3;
    for (const struct nt_flag_alias *a = cmd->aliases; a->flag && n < MAX_NAMES; a++) names[n++] = a->flag;
    for (int i = 0; i < N_KEYS && n < MAX_NAMES; i++)
        for (int s = 0; cmd->sections[s]; s++)
            if (strcmp(cmd->sections[s], key_rows[i].section) == 0 && n < MAX_NAMES) names[n++] = key_rows[i].key;
    const char *near = nt_nearest(flag, names, n);
    return NT_FAIL(NT_E_USAGE, "%s: unknown flag --%s%s%s%s; `nocturne %s --help` lists them", cmd->name, flag,
                   near ? " (maybe: --" : "", near ? near : "", near ? "?)" : "", cmd->name);
}

/* One "--flag[=value]"; *i moves past a separate value. */
static nt_status parse_flag(const struct nt_cmd *cmd, struct nt_config *cfg, int argc, char **argv, int *i) {
    const char *flag = argv[*i] + (argv[*i][1] == '-' ? 2 : 1);
    const char *eq = strchr(flag, '=');
    const size_t len = eq ? (size_t)(eq - flag) : strlen(flag);
    char name[MAX_FLAG];
    if (len == 0 || len >= sizeof name) return NT_FAIL(NT_E_USAGE, "%s: malformed flag \"%s\"", cmd->name, argv[*i]);
    memcpy(name, flag, len);
    name[len] = 0;
    const bool is_file = strcmp(name, "config") == 0, is_set = strcmp(name, "set") == 0;
    const struct key_row *row = is_file || is_set ? NULL : find_flag(cmd, flag, len);
    if (!is_file && !is_set && !row) return unknown_flag(cmd, name);
    const char *value = eq ? eq + 1 : NULL;
    if (!value && row && row->is_bool) value = "true";
    if (!value) {
        if (*i + 1 >= argc) return NT_FAIL(NT_E_USAGE, "%s: flag --%s needs a value", cmd->name, name);
        value = argv[++*i];
    }
    if (is_file) return NT_OK; /* read in the first pass */
    if (is_set) return nt_config_set(cfg, value);
    char key[2 * MAX_FLAG], origin[MAX_FLAG + 2];
    const size_t ns = strlen(row->section), nk = strlen(row->key);
    memcpy(key, row->section, ns);
    key[ns] = '.';
    memcpy(key + ns + 1, row->key, nk + 1);
    memcpy(origin, "--", 2);
    memcpy(origin + 2, name, len + 1);
    return nt_config_set_key(cfg, key, value, origin);
}

/* --config files come before every flag, wherever they stand. */
static nt_status read_config_files(const struct nt_cmd *cmd, struct nt_config *cfg, int argc, char **argv) {
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--config") == 0) {
            if (i + 1 >= argc) return NT_FAIL(NT_E_USAGE, "%s: flag --config needs a file", cmd->name);
            NT_TRY(nt_config_read_file(cfg, argv[++i]));
        } else if (strncmp(argv[i], "--config=", 9) == 0) {
            NT_TRY(nt_config_read_file(cfg, argv[i] + 9));
        }
    }
    return NT_OK;
}

static nt_status find_command(const char *name, const struct nt_cmd **cmd) {
    const char *names[32];
    for (int i = 0; i < nt_cmd_count; i++) {
        if (strcmp(nt_cmd_table[i].name, name) == 0) {
            *cmd = &nt_cmd_table[i];
            return NT_OK;
        }
        names[i] = nt_cmd_table[i].name;
    }
    const char *near = nt_nearest(name, names, nt_cmd_count);
    return NT_FAIL(NT_E_USAGE, "unknown subcommand \"%s\"%s%s%s; `nocturne --help` lists them", name,
                   near ? " (maybe: " : "", near ? near : "", near ? "?)" : "");
}

static bool is_help(const char *arg) {
    return strcmp(arg, "-h") == 0 || strcmp(arg, "--help") == 0 || strcmp(arg, "help") == 0;
}

nt_status nt_cmd_parse(int argc, char **argv, const struct nt_cmd **cmd, struct nt_config *cfg, const char **args,
                       int max_args, int *n_args, bool *help) {
    *cmd = NULL;
    *help = argc < 2 || is_help(argv[1]);
    *n_args = 0;
    if (argc < 2) return NT_OK;
    if (*help && argc == 2) return NT_OK;
    NT_TRY(find_command(argv[*help ? 2 : 1], cmd));
    if (*help) return NT_OK;
    for (int i = 2; i < argc; i++)
        if (is_help(argv[i]) && argv[i][0] == '-') *help = true;
    if (*help) return NT_OK;
    NT_TRY(read_config_files(*cmd, cfg, argc, argv));
    for (int i = 2; i < argc; i++) {
        if (argv[i][0] == '-' && argv[i][1]) {
            NT_TRY(parse_flag(*cmd, cfg, argc, argv, &i));
        } else {
            if (*n_args >= (*cmd)->max_args || *n_args >= max_args)
                return NT_FAIL(NT_E_USAGE, "%s: unexpected argument \"%s\"", (*cmd)->name, argv[i]);
            args[(*n_args)++] = argv[i];
        }
    }
    if (*n_args < (*cmd)->min_args)
        return NT_FAIL(NT_E_USAGE, "%s: needs %s; `nocturne %s --help` explains", (*cmd)->name, (*cmd)->args,
                       (*cmd)->name);
    return NT_OK;
}

static void program_usage(struct nt_strbuf *out) {
    nt_strbuf_adds(out, "nocturne: offline LLM jobs on clusters\n\nusage: nocturne SUBCOMMAND [--flag value ...]\n\n");
    for (int i = 0; i < nt_cmd_count; i++)
        nt_strbuf_addf(out, "  %-10s %s\n", nt_cmd_table[i].name, nt_cmd_table[i].doc);
    nt_strbuf_adds(out, "\n`nocturne SUBCOMMAND --help` lists its flags; `nocturne config` prints every setting.\n");
}

void nt_cmd_usage(const struct nt_cmd *cmd, struct nt_strbuf *out) {
    if (!cmd) {
        program_usage(out);
        return;
    }
    nt_strbuf_addf(
        out,
        "nocturne %s: %s\n\nusage: nocturne %s %s%s[--config FILE] [--set section.key=value] [--flag value ...]\n\n",
        cmd->name, cmd->doc, cmd->name, cmd->args ? cmd->args : "", cmd->args ? " " : "");
    nt_strbuf_adds(out, "A setting section.key of the sections below is also the flag --key (with - or _).\n");
    for (const struct nt_flag_alias *a = cmd->aliases; a->flag; a++)
        nt_strbuf_addf(out, "  --%-22s same as --set %s=...\n", a->flag, a->key);
    for (int s = 0; cmd->sections[s]; s++) {
        nt_strbuf_addc(out, '\n');
        nt_config_help(cmd->sections[s], out);
    }
}
