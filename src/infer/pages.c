#include "pages.h"

nt_status nt_pages_layout(struct nt_pages *p, struct nt_job_memory *mem, const struct nt_model *m, int32_t n_page) {
    p->model = m;
    NT_TRY(nt_kv_pool_take(mem, m, n_page, &p->pool));
    p->free_list = NT_TAKE(&mem->host, int32_t, n_page);
    p->n_free = 0;
    if (!p->free_list) return NT_OK;
    for (int32_t i = n_page - 1; i >= 0; i--) p->free_list[p->n_free++] = i;
    return NT_OK;
}

bool nt_pages_take(struct nt_pages *p, int32_t n, int32_t *out) {
    if (n > p->n_free) return false;
    for (int32_t i = 0; i < n; i++) {
        out[i] = p->free_list[--p->n_free];
        nt_kv_page_zero(p->model, &p->pool, out[i]);
    }
    return true;
}

void nt_pages_give(struct nt_pages *p, const int32_t *pages, int32_t n) {
    for (int32_t i = n - 1; i >= 0; i--) p->free_list[p->n_free++] = pages[i];
}
