/* Files: whole reads, exact reads, directories, and the one atomic publish.
 *
 * nt_publish_*: bytes go to a unique temporary name in the same directory, fsync, then link(2) (create-exclusive) or
 * rename(2) (replace), then fsync of the directory; a killed process leaves at most a ".tmp-" file.
 * All calls retry EINTR; errors name the path and strerror. */
#ifndef NT_FILEIO_H
#define NT_FILEIO_H

#include "status.h"
#include <stdbool.h>
#include <stdint.h>

enum nt_publish_mode { NT_PUBLISH_REPLACE, NT_PUBLISH_NEW }; /* NEW: NT_E_IO when the name exists already */

NT_MUST nt_status nt_file_read(const char *path, size_t max_bytes, char **data, size_t *len); /* malloc'd, NUL added */
NT_MUST nt_status nt_file_size(const char *path, int64_t *size);
bool nt_file_exists(const char *path);
bool nt_is_dir(const char *path);
NT_MUST nt_status nt_mkdir_p(const char *path);
NT_MUST nt_status nt_pread_full(int fd, void *buf, size_t n, int64_t offset,
                                const char *path); /* short read: NT_E_IO with offset */
NT_MUST nt_status nt_write_full(int fd, const void *buf, size_t n, const char *path);
NT_MUST nt_status nt_fsync_dir_of(const char *path);
NT_MUST nt_status nt_publish_bytes(const char *path, const void *bytes, size_t n, enum nt_publish_mode mode);
/* For writers with their own library: temporary name for path into buf (dir/.tmp-NAME.HOST.PID), then publish it. */
NT_MUST nt_status nt_publish_temp_name(const char *path, char *buf, size_t cap);
NT_MUST nt_status nt_publish_file(const char *temp, const char *path, enum nt_publish_mode mode);
/* Joins dir + "/" + name; NT_E_USAGE when it does not fit. */
NT_MUST nt_status nt_path_join(char *buf, size_t cap, const char *dir, const char *name);

#endif
