/* Scratch memory of encode calls: a pool with a lock, so that the tokenizer itself stays constant. */
#include "tok_internal.h"

#include <stdlib.h>
#include <string.h>

enum { JIT_STACK_START = 32 << 10, JIT_STACK_MAX = 16 << 20, HEAP_LIMIT_KIB = 64 << 10, KEEP_BYTES = 32 << 20 };

static void scratch_free(struct nt_tok_scratch *s) {
    nt_strbuf_release(&s->text);
    nt_strbuf_release(&s->norm);
    nt_strbuf_release(&s->norm_tmp);
    nt_strbuf_release(&s->pre);
    nt_strbuf_release(&s->cooked);
    free(s->zones);
    free(s->ranges);
    free(s->ranges_tmp);
    free(s->syms);
    free(s->heap);
    free(s->cache);
    if (s->match_data) pcre2_match_data_free(s->match_data);
    if (s->match_context) pcre2_match_context_free(s->match_context);
    if (s->jit_stack) pcre2_jit_stack_free(s->jit_stack);
    free(s);
}

static struct nt_tok_scratch *scratch_new(void) {
    struct nt_tok_scratch *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->cache = calloc(NT_TOK_CACHE, sizeof *s->cache);
    s->match_data = pcre2_match_data_create(1, NULL);
    s->match_context = pcre2_match_context_create(NULL);
    s->jit_stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MAX, NULL);
    if (!s->cache || !s->match_data || !s->match_context || !s->jit_stack) {
        scratch_free(s);
        return NULL;
    }
    pcre2_jit_stack_assign(s->match_context, NULL, s->jit_stack);
    (void)pcre2_set_heap_limit(s->match_context, HEAP_LIMIT_KIB);
    return s;
}

struct nt_tok_pool *nt_tok_pool_new(void) {
    struct nt_tok_pool *p = calloc(1, sizeof *p);
    if (p && pthread_mutex_init(&p->lock, NULL) != 0) {
        free(p);
        p = NULL;
    }
    return p;
}

void nt_tok_pool_free(struct nt_tok_pool *p) {
    if (!p) return;
    while (p->free) {
        struct nt_tok_scratch *s = p->free;
        p->free = s->next;
        scratch_free(s);
    }
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
}

struct nt_tok_scratch *nt_tok_scratch_take(const struct nt_tokenizer *t) {
    (void)pthread_mutex_lock(&t->pool->lock);
    struct nt_tok_scratch *s = t->pool->free;
    if (s) t->pool->free = s->next;
    (void)pthread_mutex_unlock(&t->pool->lock);
    if (!s) s = scratch_new();
    if (!s) nt_bug("no memory to encode");
    return s;
}

/* Memory of one very long text is not kept for good. */
static bool too_large(const struct nt_tok_scratch *s) {
    return s->text.cap > KEEP_BYTES || s->cap_sym > KEEP_BYTES / 16 || s->cap_range > KEEP_BYTES / 16;
}

void nt_tok_scratch_give(const struct nt_tokenizer *t, struct nt_tok_scratch *s) {
    if (too_large(s)) {
        scratch_free(s);
        return;
    }
    (void)pthread_mutex_lock(&t->pool->lock);
    s->next = t->pool->free;
    t->pool->free = s;
    (void)pthread_mutex_unlock(&t->pool->lock);
}
