/* A directory of files published whole: it is filled under a temporary name beside the final one, then renamed.
 *
 * NT_PUBLISH_NEW: the final name must not exist (an empty directory may), so nothing is replaced. NT_PUBLISH_REPLACE: a
 * directory there is exchanged for the new one in one step, and its files removed. What a killed process of this host
 * left under a temporary name of the same directory is removed by the next open; files are put in with outfile.h or
 * fileio.h, each of which syncs its own.
 * Lifecycle: nt_outdir_open, fill d.temp, then nt_outdir_publish or nt_outdir_abandon (which removes everything; it
 * accepts zeroed and published ones). Directories are flat: no folder within. Threading: one thread per directory.
 * Errors: NT_E_IO naming the path. */
#ifndef NT_OUTDIR_H
#define NT_OUTDIR_H

#include "fileio.h"
#include "status.h"
#include <limits.h>

struct nt_outdir {
    char temp[PATH_MAX]; /* empty: nothing to publish */
    char path[PATH_MAX];
    enum nt_publish_mode mode;
};

NT_MUST nt_status nt_outdir_open(struct nt_outdir *d, const char *path, enum nt_publish_mode mode);
NT_MUST nt_status nt_outdir_publish(struct nt_outdir *d);
void nt_outdir_abandon(struct nt_outdir *d);

/* Removes what killed processes of any host left in dir of the files and directories whose names are in `names`, or
 * begin with one that ends in '-'. Only for a job that alone writes there. dir that is not there is no error. */
NT_MUST nt_status nt_outdir_remove_temps(const char *dir, const char *const *names, size_t n);

/* A file, or a flat directory with its files, of that name; none is no error. */
NT_MUST nt_status nt_outdir_remove(const char *path);

/* Removes the temporary files of names that begin with prefix, a path, whose process is dead: of this host those whose
 * number is nobody's, of others those a day old. For places that several jobs write; what cannot be removed stays. */
void nt_outdir_remove_dead(const char *prefix);

#endif
