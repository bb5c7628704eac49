/* Arenas with a counting pass.
 *
 * A layout function runs twice over the same arena: first counting (base NULL: nt_arena_take returns NULL and only adds
 * up), then, after nt_arena_bind, handing out addresses. So the memory a job needs is known, printed and checked
 * before its first step. Arenas by lifetime: model (weights), job (KV cache, activations), step (reset each step).
 * Blocks are 64-byte aligned; under AddressSanitizer red zones lie between them; reset poisons in debug builds.
 * Ownership: the arena owns the memory; nobody frees a block. Not thread safe. */
#ifndef NT_ARENA_H
#define NT_ARENA_H

#include "status.h"
#include <stdbool.h>
#include <stdint.h>

struct nt_arena {
    const char *name;
    uint8_t *base; /* NULL while counting */
    size_t used, size;
    size_t map_size; /* bytes mapped by bind (0: memory is foreign) */
    bool on_device;  /* the host may not touch the memory */
};

void nt_arena_init(struct nt_arena *a, const char *name); /* starts counting */
/* Maps what was counted (zeroed, transparent huge pages asked for) and restarts at 0. NT_E_NOMEM names the arena. */
NT_MUST nt_status nt_arena_bind(struct nt_arena *a);
/* As bind, on foreign memory (e.g. a shared window) of at least the counted size, 64-byte aligned. */
NT_MUST nt_status nt_arena_bind_to(struct nt_arena *a, void *memory, size_t bytes);
/* As bind_to, on memory the host cannot touch: only addresses are handed out. */
void nt_arena_bind_device(struct nt_arena *a, void *memory, size_t bytes);
/* count * elem bytes, checked for overflow; NULL while counting and for count == 0; nt_bug when bound and full. */
void *nt_arena_take(struct nt_arena *a, size_t count, size_t elem);
/* Two sets of blocks that are never alive together share memory: take one, note `used` of before and after, go back to
 * before, take the other, and raise to after. Raising keeps what is higher. */
void nt_arena_back(struct nt_arena *a, size_t to);
void nt_arena_raise(struct nt_arena *a, size_t to);
void nt_arena_reset(struct nt_arena *a);   /* back to 0, memory kept */
void nt_arena_release(struct nt_arena *a); /* accepts zeroed and unbound arenas */

#define NT_TAKE(arena, type, count) ((type *)nt_arena_take((arena), (size_t)(count), sizeof(type)))

#endif
