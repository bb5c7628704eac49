/* Counters of each kernel: sectors per request against the ideal, shared-memory bank passes against the ideal, and
 * executed instructions by class, PTX line and place in the source. Written as one JSON line per kernel: numbers a test
 * can compare. Global: distinct 32-byte sectors of a warp's access; ideal = ceil(distinct bytes / 32). Shared: a
 * request is split into 32, 16 or 8 lanes (up to 4, 8, 16 bytes each); passes = most distinct 4-byte words in one of
 * the 32 banks; ideal 1 per part.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"
#include "emu.h"

struct line {
    char *text, *file; // copied: the module can be gone when the file is written
    int32_t ptx_line, source_line;
    int64_t executed, requests, cost, ideal; // cost: sectors or passes
    bool shared, write;
};

struct counts { // of one kernel
    char *kernel;
    int64_t n_launch, by_class[EMU_N_CLASS];
    struct line *line; // [n_line], by instr->number
    int32_t n_line;
    struct counts *next;
};

static struct counts *all_counts;

static const char *const class_names[EMU_N_CLASS] = {
    [EMU_CLASS_ALU] = "alu",       [EMU_CLASS_FLOAT] = "float",   [EMU_CLASS_SPECIAL] = "special",
    [EMU_CLASS_BRANCH] = "branch", [EMU_CLASS_GLOBAL] = "global", [EMU_CLASS_SHARED] = "shared",
    [EMU_CLASS_LOCAL] = "local",   [EMU_CLASS_CONST] = "const",   [EMU_CLASS_ATOMIC] = "atomic",
    [EMU_CLASS_COPY] = "copy",     [EMU_CLASS_TENSOR] = "tensor", [EMU_CLASS_BARRIER] = "barrier",
    [EMU_CLASS_WARP] = "warp",     [EMU_CLASS_OTHER] = "other",
};

static bool wanted(void) {
    return emu_options()->count != NULL;
}

/* The counters of a kernel name: modules loaded twice share them. */
static struct counts *counts_of(struct emu_kernel *kernel) {
    if (kernel->count != NULL) return kernel->count;
    struct counts *c = all_counts;
    while (c != NULL && strcmp(c->kernel, kernel->name) != 0) c = c->next;
    if (c == NULL) {
        c = calloc(1, sizeof *c);
        if (c == NULL) return NULL;
        c->kernel = strdup(kernel->name);
        c->next = all_counts;
        all_counts = c;
    }
    kernel->count = c;
    return c;
}

static struct line *line_of(struct counts *c, const struct emu_instr *instr) {
    if (instr->number >= c->n_line) {
        const int32_t n = (instr->number / 256 + 1) * 256;
        struct line *grown = realloc(c->line, (size_t)n * sizeof *grown);
        if (grown == NULL) return NULL;
        memset(grown + c->n_line, 0, (size_t)(n - c->n_line) * sizeof *grown);
        c->line = grown;
        c->n_line = n;
    }
    struct line *line = &c->line[instr->number];
    if (line->text == NULL && instr->text != NULL) line->text = strdup(instr->text);
    if (line->file == NULL && instr->file != NULL) line->file = strdup(instr->file);
    line->ptx_line = instr->ptx_line;
    line->source_line = instr->line;
    return line;
}

static struct line *find_line(const struct emu_where *where, struct counts **counts) {
    const struct emu_block *block = where->thread != NULL ? where->thread->block : where->block;
    *counts = counts_of(block->launch->kernel);
    return *counts == NULL || where->instr == NULL ? NULL : line_of(*counts, where->instr);
}

void emu_count_launch(struct emu_kernel *kernel) {
    struct counts *c = wanted() ? counts_of(kernel) : NULL;
    if (c != NULL) c->n_launch++;
}

void emu_count_instr(const struct emu_where *where, int64_t n) {
    struct counts *c = NULL;
    struct line *line = wanted() ? find_line(where, &c) : NULL;
    if (line == NULL) return;
    line->executed += n;
    c->by_class[where->instr->opcode_class] += n;
}

/* ---- costs ---- */

static int by_value(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int32_t distinct(uint64_t *value, int32_t n) {
    if (n == 0) return 0;
    qsort(value, (size_t)n, sizeof *value, by_value);
    int32_t n_distinct = 1;
    for (int32_t i = 1; i < n; i++) n_distinct += value[i] != value[i - 1];
    return n_distinct;
}

static void global_cost(uint32_t mask, const uint64_t address[32], int32_t size, int64_t *sectors, int64_t *ideal) {
    uint64_t sector[64], start[32];
    int32_t n_sector = 0, n_start = 0;
    for (int lane = 0; lane < 32; lane++) {
        if (!(mask >> lane & 1)) continue;
        start[n_start++] = address[lane];
        const uint64_t first = address[lane] / 32, last = (address[lane] + (uint64_t)size - 1) / 32;
        sector[n_sector++] = first;
        if (last != first) sector[n_sector++] = last;
    }
    *sectors = distinct(sector, n_sector);
    *ideal = ((int64_t)distinct(start, n_start) * size + 31) / 32;
}

static int64_t bank_passes(uint32_t mask, const uint64_t address[32], int32_t size, int first, int n) {
    uint64_t word[32 * 4];
    int32_t n_word = 0, most = 0, in_bank[32] = {0};
    for (int lane = first; lane < first + n; lane++)
        for (int32_t at = 0; (mask >> lane & 1) && at < size; at += 4)
            word[n_word++] = (address[lane] + (uint64_t)at) / 4;
    qsort(word, (size_t)n_word, sizeof *word, by_value);
    for (int32_t i = 0; i < n_word; i++) {
        if (i > 0 && word[i] == word[i - 1]) continue;
        const int32_t passes = ++in_bank[word[i] % 32];
        if (passes > most) most = passes;
    }
    return most;
}

static void shared_cost(uint32_t mask, const uint64_t address[32], int32_t size, int64_t *passes, int64_t *ideal) {
    const int part = size <= 4 ? 32 : size <= 8 ? 16 : 8;
    *passes = *ideal = 0;
    for (int first = 0; first < 32; first += part) {
        const int64_t n = bank_passes(mask, address, size, first, part);
        *passes += n;
        *ideal += n > 0;
    }
}

void emu_count_access(const struct emu_where *where, bool shared, bool write, uint32_t mask, const uint64_t address[32],
                      int32_t size) {
    struct counts *c = NULL;
    struct line *line = wanted() && mask != 0 && size <= 16 ? find_line(where, &c) : NULL;
    int64_t cost = 0, ideal = 0;
    if (line == NULL) return;
    if (shared)
        shared_cost(mask, address, size, &cost, &ideal);
    else
        global_cost(mask, address, size, &cost, &ideal);
    line->shared = shared;
    line->write = write;
    line->requests++;
    line->cost += cost;
    line->ideal += ideal;
}

/* ---- the file ---- */

static void write_totals(FILE *f, const struct counts *c) {
    int64_t sum[2][2][3] = {0}; // [shared][write][requests, cost, ideal]
    for (int32_t i = 0; i < c->n_line; i++) {
        const struct line *l = &c->line[i];
        sum[l->shared][l->write][0] += l->requests;
        sum[l->shared][l->write][1] += l->cost;
        sum[l->shared][l->write][2] += l->ideal;
    }
    static const char *const names[2][2] = {
        {"global_load", "global_store"},
        {"shared_load", "shared_store"}
    };
    for (int s = 0; s < 2; s++)
        for (int w = 0; w < 2; w++)
            fprintf(f, ", \"%s\": {\"requests\": %" PRId64 ", \"%s\": %" PRId64 ", \"ideal\": %" PRId64 "}",
                    names[s][w], sum[s][w][0], s == 0 ? "sectors" : "passes", sum[s][w][1], sum[s][w][2]);
}

static void write_text(FILE *f, const char *text) {
    fputc('"', f);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') fputc('\\', f);
        fputc((unsigned char)*text < 32 ? ' ' : *text, f);
    }
    fputc('"', f);
}

static void write_lines(FILE *f, const struct counts *c) {
    const char *comma = "";
    fputs(", \"lines\": [", f);
    for (int32_t i = 0; i < c->n_line; i++) {
        const struct line *l = &c->line[i];
        if (l->requests == 0) continue;
        fprintf(f,
                "%s{\"ptx_line\": %d, \"source_line\": %d, \"space\": \"%s\", \"requests\": %" PRId64
                ", \"cost\": %" PRId64 ", \"ideal\": %" PRId64 ", \"file\": ",
                comma, l->ptx_line, l->source_line, l->shared ? "shared" : "global", l->requests, l->cost, l->ideal);
        write_text(f, l->file != NULL ? l->file : "");
        fputs(", \"text\": ", f);
        write_text(f, l->text != NULL ? l->text : "");
        fputc('}', f);
        comma = ", ";
    }
    fputc(']', f);
}

/* Every executed instruction's place. */
static void write_executed(FILE *f, const struct counts *c) {
    const char *comma = "";
    fputs(", \"executed\": [", f);
    for (int32_t i = 0; i < c->n_line; i++) {
        const struct line *l = &c->line[i];
        if (l->executed == 0 || l->file == NULL) continue;
        fprintf(f, "%s[", comma);
        write_text(f, l->file);
        fprintf(f, ", %d, %" PRId64 "]", l->source_line, l->executed);
        comma = ", ";
    }
    fputc(']', f);
}

static void write_kernel(FILE *f, const struct counts *c) {
    int64_t total = 0;
    fputs("{\"kernel\": ", f);
    write_text(f, c->kernel);
    for (int i = 0; i < EMU_N_CLASS; i++) total += c->by_class[i];
    fprintf(f, ", \"launches\": %" PRId64 ", \"instructions\": %" PRId64, c->n_launch, total);
    for (int i = 0; i < EMU_N_CLASS; i++)
        if (c->by_class[i] > 0) fprintf(f, ", \"%s\": %" PRId64, class_names[i], c->by_class[i]);
    write_totals(f, c);
    write_lines(f, c);
    write_executed(f, c);
    fputs("}\n", f);
}

int emu_counts_write(const char *path) {
    FILE *f = fopen(path, "w");
    if (f == NULL) return -1;
    emu_lock();
    for (const struct counts *c = all_counts; c != NULL; c = c->next) write_kernel(f, c);
    for (int32_t i = 0; i < emu_state.n_device; i++)
        if (emu_state.device[i].most_used > 0)
            fprintf(f, "{\"device\": %d, \"most_bytes\": %zu}\n", i, emu_state.device[i].most_used);
    emu_unlock();
    return fclose(f) == 0 ? 0 : -1;
}

void emu_counts_clear(void) {
    emu_lock();
    for (struct counts *c = all_counts; c != NULL; c = c->next) {
        c->n_launch = 0;
        memset(c->by_class, 0, sizeof c->by_class);
        for (int32_t i = 0; i < c->n_line; i++)
            c->line[i].executed = c->line[i].requests = c->line[i].cost = c->line[i].ideal = 0;
    }
    emu_unlock();
}

/* "%p" in the name becomes the process id: each rank writes its own file. "-" writes none. */
void emu_counts_at_exit(void) {
    const char *path = emu_options()->count, *mark = path == NULL ? NULL : strstr(path, "%p");
    char own[4096];
    if (path == NULL || path[0] == '-') return;
    snprintf(own, sizeof own, "%s", path);
    if (mark != NULL) snprintf(own, sizeof own, "%.*s%d%s", (int)(mark - path), path, (int)getpid(), mark + 2);
    if (emu_counts_write(own) != 0) fprintf(stderr, "emu: cannot write '%s'\n", own);
}
