/* The compiled tokenizer, private to src/text/tok*.c; users include tokenizer.h.
 *
 * Built once by tok_json.c or tok_parts.c through tok_build.c, then constant. Order of encoding (tok_encode.c): added
 * tokens on the raw text, normalizer, added tokens with normalized:true, pre-tokenizer, BPE, post-processor.
 * Byte-level vocabularies are kept twice: as spelled (U+0100.. characters) and as the bytes they stand for, so that
 * the hot path works on raw bytes. What changes while encoding lies in struct nt_tok_scratch, taken from a pool with
 * a lock for each call. Formulas and orders of application: HF tokenizers 0.21+ (their observable behaviour).
 * Errors name the origin given to the builder; every id and size that a file brings is checked there. */
#ifndef NT_TOK_INTERNAL_H
#define NT_TOK_INTERNAL_H

#include "tokenizer.h"
#include "tok_utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <pthread.h>

enum {
    NT_TOK_MAX_IDS = 4 << 20,    /* ids of model vocabulary and added tokens */
    NT_TOK_MAX_MERGES = 8 << 20, /* merge rules */
    NT_TOK_MAX_TOKEN = 4096,     /* bytes of one token's spelling */
    NT_TOK_MAX_TEXT = 1 << 29,   /* bytes of one text to encode */
    NT_TOK_MAX_PATTERN = 16384,  /* bytes of a pre-tokenizer pattern */
    NT_TOK_MAX_STEPS = 16,       /* normalizer or pre-tokenizer components */
    NT_TOK_MAX_STOPS = 64,       /* stop ids */
    NT_TOK_MAX_POST = 16,        /* ids before or after the text */
    NT_TOK_CACHE = 8192,         /* words a scratch remembers; a power of two */
    NT_TOK_CACHE_BYTES = 22,     /* longest remembered word */
    NT_TOK_CACHE_IDS = 8,        /* most ids of a remembered word */
};

/* ---- vocabulary: id <-> spelling <-> bytes (tok_vocab.c) ---- */

enum nt_tok_attr {
    NT_TOK_ATTR_USED = 1,    /* the id has a token */
    NT_TOK_ATTR_ADDED = 2,   /* in added_tokens */
    NT_TOK_ATTR_SPECIAL = 4, /* added and special: a control token */
    NT_TOK_ATTR_BYTE = 8,    /* spelled <0xXX> and decoded as a byte */
    NT_TOK_ATTR_MODEL = 16,  /* in the model's own vocabulary */
    NT_TOK_ATTR_MARKUP = 32, /* added and shaped like <...> or [...]: never parsed in a user's text */
};

struct nt_tok_entry {
    uint32_t text, text_len;   /* spelling in blob */
    uint32_t piece, piece_len; /* bytes it stands for, in blob */
    uint32_t attr;
};

struct nt_tok_map { /* open addressing; slot holds id + 1 */
    uint32_t *slot;
    uint32_t mask; /* slots - 1 */
};

struct nt_tok_vocab {
    struct nt_tok_entry *entry; /* [n] */
    int32_t n, cap;
    struct nt_strbuf blob;
    struct nt_tok_map by_text, by_piece; /* all tokens by spelling; model tokens by bytes (byte-level only) */
};

/* Room for cap ids; puts refuse (NT_E_DATA) ids outside, doubles and over-long spellings. */
NT_MUST nt_status nt_tok_vocab_init(struct nt_tok_vocab *v, int64_t cap, const char *origin);
NT_MUST nt_status nt_tok_vocab_put(struct nt_tok_vocab *v, int64_t id, const char *text, size_t len, uint32_t attr,
                                   const char *origin);
int32_t nt_tok_vocab_find(const struct nt_tok_vocab *v, const char *text, size_t len);
int32_t nt_tok_vocab_find_piece(const struct nt_tok_vocab *v, const char *bytes, size_t len);
/* Fills the pieces: byte-level (map the characters back to bytes) or not (marker_blank: U+2581 becomes a blank). */
void nt_tok_vocab_make_pieces(struct nt_tok_vocab *v, bool byte_level, bool marker_blank, bool byte_tokens);
void nt_tok_vocab_release(struct nt_tok_vocab *v);
/* Spelling of byte b in a byte-level vocabulary (GPT-2's bytes_to_unicode), 1 or 2 bytes into out. */
size_t nt_tok_byte_spelling(uint8_t b, char out[2]);

/* ---- merges: (left id, right id) -> (rank, new id) (tok_bpe.c) ---- */

struct nt_tok_pair {
    uint64_t key; /* left << 32 | right; UINT64_MAX: empty */
    int32_t rank, id;
};

struct nt_tok_merges {
    struct nt_tok_pair *slot;
    uint64_t mask;
    int64_t n;
};
NT_MUST nt_status nt_tok_merges_init(struct nt_tok_merges *m, int64_t n, const char *origin);
/* The last rule for a pair counts, as in the reference; keep_first keeps the first. */
void nt_tok_merges_put(struct nt_tok_merges *m, int32_t left, int32_t right, int32_t rank, int32_t id, bool keep_first);
void nt_tok_merges_release(struct nt_tok_merges *m);

/* ---- added tokens: leftmost-longest matching (tok_added.c) ---- */

struct nt_tok_added {
    int32_t id;
    uint32_t text, len; /* content in the owner's blob */
    bool single_word, lstrip, rstrip, normalized, special, markup;
};

struct nt_tok_trie {
    uint64_t *key;   /* node << 8 | byte, + 1; 0: empty */
    int32_t *child;  /* node */
    uint32_t mask;   /* slots - 1 */
    int32_t *accept; /* [n_node] index of the added token, or -1 */
    int32_t n_node, cap_node, n_edge;
    bool first[256]; /* bytes that begin a token */
};

struct nt_tok_match {
    size_t start, end;
    int32_t added; /* index */
};

/* How much of the added tokens a stretch of text may use. */
enum nt_tok_trust { NT_TOK_TRUST_ALL, NT_TOK_TRUST_PLAIN /* no special ones */, NT_TOK_TRUST_USER /* no markup */ };

struct nt_tok_zone {
    size_t end; /* zones partition the text in order */
    enum nt_tok_trust trust;
};

NT_MUST nt_status nt_tok_trie_add(struct nt_tok_trie *t, const char *text, size_t len, int32_t added);
/* Next usable match at or after *pos (search position) whose spaces may reach back to floor. False: none. */
bool nt_tok_trie_next(const struct nt_tok_trie *t, const struct nt_tok_added *added, const char *text, size_t len,
                      size_t floor, size_t *pos, const struct nt_tok_zone *zones, int64_t n_zone,
                      struct nt_tok_match *m);
void nt_tok_trie_release(struct nt_tok_trie *t);

/* ---- normalizer (tok_norm.c) ---- */

enum nt_tok_norm_kind { NT_TOK_NORM_UNICODE, NT_TOK_NORM_PREPEND, NT_TOK_NORM_REPLACE };

struct nt_tok_norm {
    enum nt_tok_norm_kind kind;
    int unicode;           /* utf8proc options */
    char from[32], to[32]; /* prepend uses to */
    size_t from_len, to_len;
};

/* ---- pre-tokenizer (tok_regex.c, tok_pretok.c) ---- */

enum nt_tok_split { NT_TOK_ISOLATED, NT_TOK_REMOVED, NT_TOK_MERGED_PREVIOUS, NT_TOK_MERGED_NEXT, NT_TOK_CONTIGUOUS };
enum nt_tok_pre_kind { NT_TOK_PRE_SPLIT, NT_TOK_PRE_METASPACE, NT_TOK_PRE_PREFIX_SPACE };
enum nt_tok_prepend { NT_TOK_PREPEND_NEVER, NT_TOK_PREPEND_FIRST, NT_TOK_PREPEND_ALWAYS };

struct nt_tok_pre {
    enum nt_tok_pre_kind kind;
    enum nt_tok_split behavior;
    bool invert;
    bool jit;
    pcre2_code *code;
    enum nt_tok_prepend prepend; /* metaspace */
    bool split;
    char marker[8];
    size_t marker_len;
};

struct nt_tok_range {
    size_t start, end;
};

/* Translates an Oniguruma pattern to PCRE2 and compiles it. where names the component in errors. */
NT_MUST nt_status nt_tok_regex_compile(const char *pattern, size_t len, const char *origin, const char *where,
                                       struct nt_tok_pre *out);
/* The translation alone, for tests. */
NT_MUST nt_status nt_tok_regex_translate(const char *pattern, size_t len, const char *origin, const char *where,
                                         struct nt_strbuf *out);
/* pattern from a plain string: every character stands for itself. */
void nt_tok_regex_quote(const char *text, size_t len, struct nt_strbuf *out);

extern const char nt_tok_gpt2_pattern[];

/* ---- decoder ---- */

struct nt_tok_decoder {
    bool byte_level;
    bool byte_fallback;   /* <0xXX> tokens are bytes */
    bool marker_blank;    /* U+2581 becomes a blank */
    bool metaspace_first; /* marks of the first token vanish */
    int32_t strip_left;   /* blanks removed from the start */
};

/* ---- scratch ---- */

struct nt_tok_sym {
    int32_t id, prev, next;
};

struct nt_tok_heap {
    int32_t rank, pos, id;
};

struct nt_tok_word { /* one remembered word */
    uint8_t len, n_id;
    char bytes[NT_TOK_CACHE_BYTES];
    int32_t id[NT_TOK_CACHE_IDS];
};

struct nt_tok_scratch {
    struct nt_tok_scratch *next; /* in the pool */
    struct nt_strbuf text, norm, norm_tmp, pre, cooked;
    struct nt_tok_zone *zones;
    int64_t n_zone, cap_zone;
    struct nt_tok_range *ranges, *ranges_tmp;
    int64_t n_range, cap_range, cap_range_tmp;
    struct nt_tok_sym *syms;
    int64_t cap_sym;
    struct nt_tok_heap *heap;
    int64_t n_heap, cap_heap;
    struct nt_tok_word *cache; /* [NT_TOK_CACHE] */
    pcre2_match_data *match_data;
    pcre2_match_context *match_context;
    pcre2_jit_stack *jit_stack;
};

struct nt_tok_pool {
    pthread_mutex_t lock;
    struct nt_tok_scratch *free;
};

/* ---- the tokenizer ---- */

struct nt_tokenizer {
    struct nt_tok_vocab vocab;
    struct nt_tok_merges merges;
    struct nt_tok_added *added;
    int32_t n_added;
    struct nt_strbuf added_blob;
    struct nt_tok_trie raw;    /* normalized:false, on the raw text */
    struct nt_tok_trie cooked; /* normalized:true, on the normalized text */
    struct nt_tok_trie mixed;  /* raw, and control tokens of cooked, for texts of mixed trust */
    struct nt_tok_norm norm[NT_TOK_MAX_STEPS];
    int32_t n_norm;
    struct nt_tok_pre pre[NT_TOK_MAX_STEPS];
    int32_t n_pre;
    struct nt_tok_decoder dec;
    bool byte_level, byte_fallback, fuse_unk, ignore_merges;
    int32_t byte_id[256];   /* byte-level: id of the byte; byte_fallback: id of <0xXX>; -1 */
    int32_t *char_id;       /* [65536] not byte-level: token of the character, -1 none */
    bool all_bytes;         /* every byte_id is there */
    bool unk_missing;       /* unk_token is named but not in the vocabulary */
    bool marker_split;      /* words may be cut before U+2581 ... */
    bool marker_after[256]; /* ... unless the byte before it is set here (some token joins the two) */
    int32_t bos, eos, unk, pad;
    int32_t unk_model; /* the model's unk_token */
    int32_t post_before[NT_TOK_MAX_POST], post_after[NT_TOK_MAX_POST];
    int32_t n_before, n_after;
    int32_t stops[NT_TOK_MAX_STOPS];
    int32_t n_stop;
    struct nt_strbuf pipeline; /* the components in words, for the digest */
    uint8_t digest[NT_SHA256_BYTES];
    char describe[192];
    char origin[512];
    struct nt_tok_pool *pool;
};

/* tok_build.c: shared by the two readers. */
NT_MUST nt_status nt_tok_new(const char *origin, struct nt_tokenizer **out);
NT_MUST nt_status nt_tok_add_norm(struct nt_tokenizer *t, enum nt_tok_norm_kind kind, int unicode, const char *from,
                                  size_t from_len, const char *to, size_t to_len);
NT_MUST nt_status nt_tok_add_split(struct nt_tokenizer *t, const char *pattern, size_t len, enum nt_tok_split behavior,
                                   bool invert, const char *where);
NT_MUST nt_status nt_tok_add_metaspace(struct nt_tokenizer *t, enum nt_tok_prepend prepend, bool split,
                                       const char *marker, size_t len);
NT_MUST nt_status nt_tok_add_prefix_space(struct nt_tokenizer *t);
/* Registers an added token: content gets id, in the vocabulary or new. A second one with the same id replaces flags. */
NT_MUST nt_status nt_tok_add_added(struct nt_tokenizer *t, const struct nt_tok_added *a, const char *content);
/* After everything is in: pieces, byte ids, tries, digest. */
NT_MUST nt_status nt_tok_finish(struct nt_tokenizer *t);

/* tok_norm.c: out = normalized text (out is reset). */
NT_MUST nt_status nt_tok_normalize(const struct nt_tokenizer *t, const char *text, size_t len, struct nt_strbuf *out,
                                   struct nt_strbuf *tmp);
/* tok_pretok.c: fills s->ranges over s->norm (s->norm may be rewritten). at_start: the text begins the document. */
NT_MUST nt_status nt_tok_pretokenize(const struct nt_tokenizer *t, struct nt_tok_scratch *s, size_t start, size_t end,
                                     bool at_start);
/* tok_bpe.c */
void nt_tok_bpe(const struct nt_tokenizer *t, struct nt_tok_scratch *s, const char *word, size_t len,
                struct nt_ids *ids);
/* tok_scratch.c: taking cannot fail (out of memory is nt_bug) */
struct nt_tok_scratch *nt_tok_scratch_take(const struct nt_tokenizer *t);
void nt_tok_scratch_give(const struct nt_tokenizer *t, struct nt_tok_scratch *s);
struct nt_tok_pool *nt_tok_pool_new(void);
void nt_tok_pool_free(struct nt_tok_pool *p);

/* ---- what the names of GGUF's pre-tokenizers mean (tok_parts.c) ---- */

enum { NT_TOK_MAX_PRE = 4 };
struct nt_tok_preset {
    const char *name;
    const char *pattern[NT_TOK_MAX_PRE]; /* applied in order, each isolating its matches */
    bool nfc, ignore_merges, add_bos;
};
const struct nt_tok_preset *nt_tok_preset_find(const char *name); /* NULL: none */

#endif
