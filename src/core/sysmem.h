/* Memory this process may still use: /proc/meminfo MemAvailable, lowered by cgroup limits (v2 and v1).
 *
 * A snapshot in bytes; SIZE_MAX never occurs: an unreadable system counts as 0. Threading: any. Sources: proc(5),
 * the kernel's cgroup-v2 (memory.max, memory.current) and v1 (memory.limit_in_bytes, usage_in_bytes) documents.
 * No ownership, no errors: callers compare and report. */
#ifndef NT_SYSMEM_H
#define NT_SYSMEM_H

#include <stddef.h>

size_t nt_memory_available(void);
size_t nt_memory_resident(void); /* this process, from /proc/self/statm */

#endif
