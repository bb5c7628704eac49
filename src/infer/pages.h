/* Hands out KV cache pages: a stack of free page numbers, last freed first, so the touched memory stays small.
 *
 * On a CPU a page is zeroed when handed out (the cache contract of ops.h). Ownership: pages belong to the caller until
 * given back; the pool memory belongs to the job arena. Single threaded. Taking is all or nothing: no sequence ever
 * waits for half of its pages. */
#ifndef NT_PAGES_H
#define NT_PAGES_H

#include "model.h"

struct nt_pages {
    const struct nt_model *model;
    struct nt_kv_pool pool;
    int32_t *free_list; // [pool.n_page]
    int32_t n_free;
};

/* Layout function (arena.h): counts, then binds. */
NT_MUST nt_status nt_pages_layout(struct nt_pages *p, struct nt_job_memory *mem, const struct nt_model *m,
                                  int32_t n_page);
bool nt_pages_take(struct nt_pages *p, int32_t n, int32_t *out); /* false: not enough, nothing taken */
void nt_pages_give(struct nt_pages *p, const int32_t *pages, int32_t n);
static inline int32_t nt_pages_for(int64_t n_pos) {
    return (int32_t)((n_pos + NT_KV_PAGE - 1) / NT_KV_PAGE);
}

#endif
