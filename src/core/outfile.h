/* A file written front to back and published whole: the name appears only when every byte is on disk.
 *
 * Lines are collected in buf and written in blocks of 1 MiB under a temporary name beside the final one (fileio.h).
 * Lifecycle: nt_outfile_open, append to buf and nt_outfile_flush_if_full, nt_outfile_publish or nt_outfile_abandon
 * (which removes the temporary file; accepts zeroed and published ones).
 * Threading: one thread per file. Errors: NT_E_IO naming the path. */
#ifndef NT_OUTFILE_H
#define NT_OUTFILE_H

#include "status.h"
#include "strbuf.h"
#include <limits.h>

struct nt_outfile {
    int fd; /* valid while temp is not empty */
    char temp[PATH_MAX], path[PATH_MAX];
    struct nt_strbuf buf;
};

NT_MUST nt_status nt_outfile_open(struct nt_outfile *f, const char *path);
NT_MUST nt_status nt_outfile_flush_if_full(struct nt_outfile *f);
NT_MUST nt_status nt_outfile_publish(struct nt_outfile *f);
void nt_outfile_abandon(struct nt_outfile *f);

#endif
