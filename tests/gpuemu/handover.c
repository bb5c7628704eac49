/* Handovers between the blocks of one launch, for gcheck.c: PTX ISA, "Memory Consistency Model". Block A hands over to
 * B what lies before a fence of A (membar.gl and wider, or a release itself) when A then stores to a word strongly or
 * by an atomic, and B reads that word strongly or by an atomic and then fences (or acquires by the read itself).
 *
 * Blocks run one after the other, so each word has a list of who released on it in this launch: the block and its past
 * at its fences, as the clocks of check.c say (one record for all that it releases behind one fence). Who acquires
 * takes the list as far as it is: atomics in between continue what was released before them. A block that releases
 * after it acquired adds a link to the words that it took, so chains through other blocks hold.
 * It errs to silence: fences and acquires count for all threads of the block, and a plain store ends no list.
 */
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "emu.h"

struct record {
    struct emu_past past;
    uint32_t block, age; // of the records of one block the youngest tells all that the others do
    int32_t n_use, next; // words that have it; of a free one (0) the next free one
};

struct entry { // of a word's list: a record, or (record < 0) the first n entries of another word
    int32_t record, word, n;
};

struct word {
    uint64_t address;
    struct entry *entry;
    int32_t n, cap;
    // of the running block, each of no meaning unless its run is the present one
    uint32_t taken_run, direct_run, own_run, pending_run;
    int32_t taken;       // entries that the block has seen
    int32_t own, linked; // its own entry; how many of direct[] are in the list
};

struct list {
    int32_t *of, n, cap;
};

static struct {
    struct word *word;
    int32_t n_word, cap_word;
    int32_t *slot, n_slot; // hash of the addresses: word + 1
    struct record *record;
    int32_t n_record, cap_record, free_record; // free_record: + 1
    uint32_t age;
    struct got {
        uint32_t run;
        int32_t record;
    } * got; // by block: the newest record that the running block has of it; made at the first acquire of a launch
    uint32_t n_block;
    bool got_fits;
} all;

static struct { // the running block
    uint32_t run, block;
    struct emu_past past; // of its fences so far
    bool fenced, got_any;
    int32_t record; // of this past, -1: none yet
    struct list direct, pending;
} now;

static void *grown(void *array, int32_t n, int32_t *cap, size_t size) { // room for one more
    if (n < *cap) return array;
    *cap = *cap * 2 + 16;
    array = realloc(array, (size_t)*cap * size);
    if (array == NULL) abort();
    return array;
}

static void push(struct list *list, int32_t value) {
    list->of = grown(list->of, list->n, &list->cap, sizeof *list->of);
    list->of[list->n++] = value;
}

void emu_order_launch_begin(const struct emu_launch *launch) {
    for (int32_t i = 0; i < all.n_word; i++) free(all.word[i].entry);
    if (all.n_word > 0) memset(all.slot, 0, (size_t)all.n_slot * sizeof *all.slot);
    all.n_word = all.n_record = all.free_record = 0;
    all.age = 0;
    all.n_block = launch->grid[0] * launch->grid[1] * launch->grid[2];
    all.got_fits = false;
}

void emu_order_block_begin(const struct emu_block *block) {
    now.run++;
    now.block = block->linear;
    now.fenced = now.got_any = false;
    now.record = -1;
    now.direct.n = now.pending.n = 0;
    memset(&now.past, 0, sizeof now.past);
}

/* ---- words that somebody has released on ---- */

static int32_t *slot_of(uint64_t address) {
    uint64_t at = (address >> 2) * 0x9e3779b97f4a7c15u >> 32;
    for (;; at++) {
        int32_t *slot = &all.slot[at & (uint64_t)(all.n_slot - 1)];
        if (*slot == 0 || all.word[*slot - 1].address == address) return slot;
    }
}

static int32_t find_word(uint64_t address) {
    return all.n_word == 0 ? -1 : *slot_of(address) - 1;
}

static void more_slots(void) {
    all.n_slot = all.n_slot > 0 ? all.n_slot * 4 : 256;
    free(all.slot);
    all.slot = calloc((size_t)all.n_slot, sizeof *all.slot);
    if (all.slot == NULL) abort();
    for (int32_t i = 0; i < all.n_word; i++) *slot_of(all.word[i].address) = i + 1;
}

static int32_t make_word(uint64_t address) {
    if (2 * all.n_word >= all.n_slot) more_slots();
    int32_t *slot = slot_of(address);
    if (*slot != 0) return *slot - 1;
    all.word = grown(all.word, all.n_word, &all.cap_word, sizeof *all.word);
    all.word[all.n_word++] = (struct word){.address = address};
    *slot = all.n_word;
    return all.n_word - 1;
}

static void add_entry(struct word *x, struct entry entry) {
    x->entry = grown(x->entry, x->n, &x->cap, sizeof *x->entry);
    x->entry[x->n++] = entry;
}

/* ---- releases ---- */

static int32_t record_of_past(void) {
    if (now.record >= 0) return now.record;
    if (all.free_record > 0) {
        now.record = all.free_record - 1;
        all.free_record = all.record[now.record].next;
    } else {
        all.record = grown(all.record, all.n_record, &all.cap_record, sizeof *all.record);
        now.record = all.n_record++;
    }
    all.record[now.record] = (struct record){.past = now.past, .block = now.block, .age = all.age++};
    return now.record;
}

static void let_go(int32_t record) {
    if (--all.record[record].n_use > 0) return;
    all.record[record].next = all.free_record;
    all.free_record = record + 1;
}

static void fence(const struct emu_thread *thread, uint32_t lanes) {
    emu_check_past(thread, lanes, &now.past);
    now.fenced = true;
    now.record = -1;
}

void emu_order_release(const struct emu_thread *thread, uint64_t address, bool itself) {
    if (itself) fence(thread, 1u << thread->lane);
    if (!now.fenced) return;
    const int32_t number = make_word(address), record = record_of_past();
    struct word *x = &all.word[number];
    if (x->own_run != now.run) {
        x->own_run = now.run;
        x->linked = 0;
        x->own = x->n;
        all.record[record].n_use++;
        add_entry(x, (struct entry){.record = record});
    } else if (x->entry[x->own].record != record) {
        all.record[record].n_use++;
        let_go(x->entry[x->own].record);
        x->entry[x->own].record = record;
    }
    for (; x->linked < now.direct.n; x->linked++) {
        const int32_t other = now.direct.of[x->linked];
        if (other != number) add_entry(x, (struct entry){-1, other, all.word[other].taken});
    }
}

/* ---- acquires ---- */

static void got_record(int32_t record) {
    const struct record *r = &all.record[record];
    struct got *got = &all.got[r->block];
    if (r->block == now.block || (got->run == now.run && all.record[got->record].age > r->age)) return;
    *got = (struct got){now.run, record};
    now.got_any = true;
}

static void make_got(void) {
    free(all.got);
    all.got = calloc(all.n_block, sizeof *all.got);
    if (all.got == NULL) abort();
    all.got_fits = true;
}

/* The first n entries of a word, and what they link to. */
static void take_entries(int32_t number, int32_t n) {
    static struct list work;
    work.n = 0;
    push(&work, number);
    push(&work, n);
    while (work.n > 0) {
        n = work.of[--work.n];
        struct word *x = &all.word[work.of[--work.n]];
        if (x->taken_run != now.run) x->taken = 0;
        x->taken_run = now.run;
        for (; x->taken < n; x->taken++) {
            const struct entry *e = &x->entry[x->taken];
            if (e->record >= 0) {
                got_record(e->record);
                continue;
            }
            push(&work, e->word);
            push(&work, e->n);
        }
    }
}

static void take(int32_t number) {
    struct word *x = &all.word[number];
    if (!all.got_fits) make_got();
    take_entries(number, x->n);
    if (x->direct_run == now.run) return;
    x->direct_run = now.run;
    push(&now.direct, number);
}

void emu_order_acquire(uint64_t address, bool itself) {
    const int32_t number = find_word(address);
    if (number < 0) return;
    if (itself) {
        take(number);
        return;
    }
    if (all.word[number].pending_run == now.run) return;
    all.word[number].pending_run = now.run;
    push(&now.pending, number);
}

void emu_order_fence(const struct emu_thread *thread, uint32_t lanes) {
    for (int32_t i = 0; i < now.pending.n; i++) take(now.pending.of[i]);
    now.pending.n = 0; // reading them again would show no more of other blocks
    fence(thread, lanes);
}

bool emu_handed_over(uint32_t block, struct emu_stamp by) {
    if (!now.got_any) return false;
    if (block >= all.n_block) return true; // several
    const struct got *got = &all.got[block];
    return got->run == now.run && emu_past_covers(&all.record[got->record].past, by);
}
