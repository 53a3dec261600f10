/* Byte-pair encoding of one piece of text: symbols side by side, the adjacent pair of lowest rank
 * joined first, the leftmost among equals, until no pair can be joined.
 *
 *   "lower"  ->  l o w e r  ->  l ow e r  ->  l ow er  ->  low er
 *                  `-'rank 3        `-' rank 8   `--' rank 12
 */
#ifndef MODEL_BPE_H
#define MODEL_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "model/text_index.h"
#include "model/tokenizer.h"

enum {
    BPE_VOCAB_BITS = 21,
    BPE_RANK_BITS = 22,
    BPE_VOCAB_MAX = 1 << BPE_VOCAB_BITS,       /* ids */
    BPE_MERGES_MAX = (1 << BPE_RANK_BITS) - 1, /* so that no slot is all ones */
    BPE_PIECE_MAX = 1 << 24,                   /* symbols in one piece */
    BPE_RANK_NONE = INT32_MAX                  /* of a pair that cannot be joined */
};

struct bpe {
    /* Open addressing. A slot is left id | right id | rank (21, 21 and 22 bits; all ones: empty):
     * eight bytes, because the time of encoding is the time of cache misses here. */
    uint64_t *merges;
    int merges_shift;        /* 64 - log2 of the number of slots */
    int32_t *joined_ids;     /* by rank */
    struct text_index words; /* texts whose encoding is one id: most words of natural text */
    uint32_t word_max_bytes;
    bool byte_level;       /* symbols are bytes, else characters */
    bool byte_fallback;    /* a character without a token becomes its bytes' tokens */
    bool fuse_unknown;     /* neighbouring unknown characters make one unknown token */
    int32_t unknown_id;    /* -1: unknown characters vanish */
    int32_t byte_ids[256]; /* of single bytes (byte level) or of "<0x..>" (fallback); -1 if there is
                              none */
    const struct text_index *characters; /* borrowed; for symbols that are characters */
};

/* Memory for long pieces, kept from one piece to the next of a call. Zero-initialise. */
struct bpe_scratch {
    struct bpe_node *nodes;
    uint64_t *heap;
    int64_t capacity; /* symbols */
};
void bpe_scratch_fini(struct bpe_scratch *scratch);

/* Room for merge_count (at most BPE_MERGES_MAX) merges; every other field of *bpe is the caller's
 * to set. */
enum status bpe_init(struct bpe *bpe, int64_t merge_count, struct error *err);
void bpe_fini(struct bpe *bpe);

/* Rank `rank` joins left and right to joined_id. A pair named twice has the later rank. */
void bpe_add_merge(struct bpe *bpe, int32_t left, int32_t right, int32_t rank, int32_t joined_id);

/* Builds the index of words from the ids with (flags[id] & wanted) != 0: each whose text in `store`
 * encodes to itself, or all of them if `ignore_merges` (which says that a text in the vocabulary is
 * never split). `store` is borrowed for good. */
enum status bpe_index_words(struct bpe *bpe, const struct text_store *store, const uint8_t *flags,
                            unsigned wanted, bool ignore_merges, struct error *err);

/* Appends the ids of one piece. STATUS_LIMIT for more than BPE_PIECE_MAX symbols or over the list's
 * cap. */
enum status bpe_encode_piece(const struct bpe *bpe, const char *text, size_t len_bytes,
                             struct bpe_scratch *scratch, struct token_list *list,
                             struct error *err);

#endif
