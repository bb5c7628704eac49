/* Runs a fuzz target over a corpus without libFuzzer, then over damaged copies of it.
 *
 *     replay CORPUS_DIR [MUTATIONS]
 * Each input is run as it is, and MUTATIONS times with a few bytes changed, cut out or doubled; the changes are a pure
 * function of the file and the number of the copy, so a failure repeats. An input that traps is named on stderr. */
#include "fileio.h"
#include "rng.h"
#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char running[PATH_MAX + 64]; /* named by the signal handler */

static void name_input(int sig) {
    const ssize_t n = write(STDERR_FILENO, running, strlen(running));
    (void)n;
    signal(sig, SIG_DFL);
    raise(sig);
}

static size_t mutate(uint8_t *data, size_t size, size_t cap, uint64_t file, uint64_t copy) {
    uint32_t r[4];
    nt_philox(file, copy, 0, r);
    const uint32_t n_changes = 1 + r[0] % 4;
    for (uint64_t i = 1; i <= n_changes && size > 0; i++) {
        nt_philox(file, copy, i, r);
        const size_t at = r[1] % size;
        const size_t len = 1 + r[2] % 16 < size - at ? 1 + r[2] % 16 : size - at;
        static const uint8_t extremes[] = {0, 1, 0x7f, 0x80, 0xff, '"', '{', '9'};
        switch (r[0] % 4) {
        case 0:
            data[at] ^= (uint8_t)(1u << r[3] % 8);
            break;
        case 1:
            data[at] = extremes[r[3] % sizeof extremes];
            break;
        case 2: // cut out
            memmove(data + at, data + at + len, size - at - len);
            size -= len;
            break;
        default: // double
            if (size + len > cap) break;
            memmove(data + at + len, data + at, size - at);
            size += len;
            break;
        }
    }
    return size;
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void replay(const char *path, uint64_t file, long n_mutations) {
    char *bytes = NULL;
    size_t size = 0;
    if (nt_file_read(path, 16 << 20, &bytes, &size) != NT_OK) {
        fprintf(stderr, "%s\n", nt_error_last()->text);
        exit(1);
    }
    const size_t cap = size + 64;
    for (long copy = 0; copy <= n_mutations; copy++) {
        /* An exact allocation each time, so that a sanitizer sees reads behind the end. */
        uint8_t *work = malloc(cap);
        if (!work) exit(1);
        memcpy(work, bytes, size);
        const size_t n = copy == 0 ? size : mutate(work, size, cap, file, (uint64_t)copy);
        uint8_t *exact = malloc(n > 0 ? n : 1);
        if (!exact) exit(1);
        memcpy(exact, work, n);
        free(work);
        (void)snprintf(running, sizeof running, "input %s, copy %ld\n", path, copy);
        (void)LLVMFuzzerTestOneInput(exact, n);
        free(exact);
    }
    free(bytes);
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    const long n_mutations = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
    struct dirent **names = NULL;
    const int n = scandir(argv[1], &names, NULL, by_name);
    if (n < 0) {
        perror(argv[1]);
        return 1;
    }
    const int signals[] = {SIGILL, SIGTRAP, SIGSEGV, SIGABRT, SIGBUS, SIGFPE};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) signal(signals[i], name_input);
    long n_files = 0;
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX];
        if (names[i]->d_name[0] != '.' && nt_path_join(path, sizeof path, argv[1], names[i]->d_name) == NT_OK) {
            replay(path, (uint64_t)n_files, n_mutations);
            n_files++;
        }
        free(names[i]);
    }
    free(names);
    printf("%ld inputs, %ld damaged copies\n", n_files, n_files * n_mutations);
    return n_files > 0 ? 0 : 1;
}
