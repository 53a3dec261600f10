#include "model/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Up to this many symbols a scan for the lowest rank is faster than a heap. */
enum { SHORT_SYMBOLS = 24 };

/* Symbols of a long piece as a linked list. A node that was joined to its left neighbour has id -1.
 */
struct bpe_node {
    int32_t id;
    int32_t previous;
    int32_t next;
    int32_t rank; /* of the pair of this node and the next */
};

static uint64_t merge_pair(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << BPE_VOCAB_BITS | (uint32_t)right;
}

/* First slot to look at for a pair. The multiplier is 2^64 divided by the golden ratio. */
static size_t merge_slot(const struct bpe *bpe, uint64_t pair)
{
    return (size_t)((pair * UINT64_C(0x9E3779B97F4A7C15)) >> bpe->merges_shift);
}

static int32_t pair_rank(const struct bpe *bpe, int32_t left, int32_t right)
{
    uint64_t pair = merge_pair(left, right);
    size_t mask = ((size_t)1 << (64 - bpe->merges_shift)) - 1;
    for (size_t slot = merge_slot(bpe, pair);; slot = (slot + 1) & mask) {
        uint64_t merge = bpe->merges[slot];
        if (merge == UINT64_MAX) {
            return BPE_RANK_NONE;
        }
        if (merge >> BPE_RANK_BITS == pair) {
            return (int32_t)(merge & ((1u << BPE_RANK_BITS) - 1));
        }
    }
}

enum status bpe_init(struct bpe *bpe, int64_t merge_count, struct error *err)
{
    int bits = 4;
    while (((int64_t)1 << bits) < merge_count + merge_count / 2) {
        bits++;
    }
    size_t slot_count = (size_t)1 << bits;
    memset(bpe, 0, sizeof(*bpe));
    bpe->unknown_id = -1;
    for (int i = 0; i < 256; i++) {
        bpe->byte_ids[i] = -1;
    }
    bpe->merges_shift = 64 - bits;
    bpe->merges = mem_calloc(slot_count, sizeof(*bpe->merges));
    bpe->joined_ids = mem_calloc((size_t)merge_count, sizeof(*bpe->joined_ids));
    if (bpe->merges == NULL || bpe->joined_ids == NULL) {
        return mem_fail(err, slot_count * sizeof(*bpe->merges), "merges");
    }
    memset(bpe->merges, 0xFF, slot_count * sizeof(*bpe->merges));
    return STATUS_OK;
}

void bpe_fini(struct bpe *bpe)
{
    free(bpe->merges);
    free(bpe->joined_ids);
    text_index_fini(&bpe->words);
    memset(bpe, 0, sizeof(*bpe));
}

void bpe_add_merge(struct bpe *bpe, int32_t left, int32_t right, int32_t rank, int32_t joined_id)
{
    uint64_t pair = merge_pair(left, right);
    size_t mask = ((size_t)1 << (64 - bpe->merges_shift)) - 1;
    size_t slot = merge_slot(bpe, pair);
    while (bpe->merges[slot] != UINT64_MAX && bpe->merges[slot] >> BPE_RANK_BITS != pair) {
        slot = (slot + 1) & mask;
    }
    bpe->merges[slot] = pair << BPE_RANK_BITS | (uint32_t)rank;
    bpe->joined_ids[rank] = joined_id;
}

void bpe_scratch_fini(struct bpe_scratch *scratch)
{
    free(scratch->nodes);
    free(scratch->heap);
    memset(scratch, 0, sizeof(*scratch));
}

/* ---- symbols ------------------------------------------------------------------------------- */

static size_t character_bytes(unsigned char lead)
{
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/* Walks the symbols of a piece. pending holds ids that one character gave (at most 4, its bytes).
 */
struct symbol_reader {
    const struct bpe *bpe;
    const unsigned char *text;
    size_t len_bytes;
    size_t at;
    bool unknown_before; /* the last symbol was unknown: with fuse_unknown the next joins it */
    int pending_count;
    int pending_at;
    int32_t pending[4];
};

static bool read_fallback_bytes(struct symbol_reader *reader, size_t character_len)
{
    for (size_t i = 0; i < character_len; i++) {
        int32_t id = reader->bpe->byte_ids[reader->text[reader->at + i]];
        if (id < 0) {
            return false;
        }
        reader->pending[i] = id;
    }
    reader->pending_count = (int)character_len;
    reader->pending_at = 0;
    return true;
}

/* Id of the next character or byte by itself, -1 if it has no token. *len is its length. */
static int32_t lookup_symbol(const struct symbol_reader *reader, size_t *len)
{
    const struct bpe *bpe = reader->bpe;
    if (bpe->byte_level) {
        *len = 1;
        return bpe->byte_ids[reader->text[reader->at]];
    }
    size_t left = reader->len_bytes - reader->at;
    *len = character_bytes(reader->text[reader->at]);
    *len = *len < left ? *len : left;
    return text_index_find(bpe->characters, (const char *)reader->text + reader->at, *len);
}

/* Id of the next symbol, or -1 at the end of the piece. */
static int32_t next_symbol(struct symbol_reader *reader)
{
    const struct bpe *bpe = reader->bpe;
    if (reader->pending_at < reader->pending_count) {
        return reader->pending[reader->pending_at++];
    }
    while (reader->at < reader->len_bytes) {
        size_t len = 0;
        int32_t id = lookup_symbol(reader, &len);
        if (id < 0 && bpe->byte_fallback && read_fallback_bytes(reader, len)) {
            id = reader->pending[reader->pending_at++];
        }
        reader->at += len;
        if (id >= 0) {
            reader->unknown_before = false;
            return id;
        }
        bool fused = reader->unknown_before && bpe->fuse_unknown;
        reader->unknown_before = bpe->unknown_id >= 0;
        if (bpe->unknown_id >= 0 && !fused) {
            return bpe->unknown_id;
        }
    }
    return -1;
}

/* ---- short pieces -------------------------------------------------------------------------- */

/* Joins ids[0..count) in place by repeated scans; returns how many are left. */
static int64_t join_short(const struct bpe *bpe, int32_t *ids, int64_t count)
{
    int32_t ranks[SHORT_SYMBOLS];
    for (int64_t i = 0; i + 1 < count; i++) {
        ranks[i] = pair_rank(bpe, ids[i], ids[i + 1]);
    }
    while (count > 1) {
        int64_t best = 0;
        for (int64_t i = 1; i + 1 < count; i++) {
            best = ranks[i] < ranks[best] ? i : best;
        }
        if (ranks[best] == BPE_RANK_NONE) {
            break;
        }
        ids[best] = bpe->joined_ids[ranks[best]];
        size_t after = (size_t)(count - best - 2);
        memmove(ids + best + 1, ids + best + 2, after * sizeof(*ids));
        if (after > 0) {
            memmove(ranks + best, ranks + best + 1, after * sizeof(*ranks));
        }
        count--;
        if (best > 0) {
            ranks[best - 1] = pair_rank(bpe, ids[best - 1], ids[best]);
        }
        if (best + 1 < count) {
            ranks[best] = pair_rank(bpe, ids[best], ids[best + 1]);
        }
    }
    return count;
}

/* ---- long pieces --------------------------------------------------------------------------- */

/* A heap of (rank << 32 | position), smallest first, four children a node: fewer cache misses than
 * two. */
static void heap_sift_up(uint64_t *heap, int64_t at)
{
    uint64_t value = heap[at];
    while (at > 0 && heap[(at - 1) / 4] > value) {
        heap[at] = heap[(at - 1) / 4];
        at = (at - 1) / 4;
    }
    heap[at] = value;
}

static void heap_sift_down(uint64_t *heap, int64_t count, int64_t at)
{
    uint64_t value = heap[at];
    for (;;) {
        int64_t first = 4 * at + 1;
        if (first >= count) {
            break;
        }
        int64_t last = first + 4 < count ? first + 4 : count;
        int64_t least = first;
        for (int64_t child = first + 1; child < last; child++) {
            least = heap[child] < heap[least] ? child : least;
        }
        if (heap[least] >= value) {
            break;
        }
        heap[at] = heap[least];
        at = least;
    }
    heap[at] = value;
}

static enum status scratch_reserve(struct bpe_scratch *scratch, int64_t count, struct error *err)
{
    if (count <= scratch->capacity) {
        return STATUS_OK;
    }
    /* Each join removes a symbol and a heap entry and adds at most two entries: twice the symbols
     * suffice. */
    struct bpe_node *nodes = mem_realloc(scratch->nodes, (size_t)count, sizeof(*nodes));
    scratch->nodes = nodes != NULL ? nodes : scratch->nodes;
    uint64_t *heap = mem_realloc(scratch->heap, (size_t)count, 2 * sizeof(*heap));
    scratch->heap = heap != NULL ? heap : scratch->heap;
    if (nodes == NULL || heap == NULL) {
        return mem_fail(err, (size_t)count * (sizeof(*nodes) + 2 * sizeof(*heap)),
                        "a long piece of text");
    }
    scratch->capacity = count;
    return STATUS_OK;
}

/* Ranks a node's pair with its right neighbour anew and enters it into the heap if it can be
 * joined. */
static void rank_node(const struct bpe *bpe, struct bpe_scratch *scratch, int32_t at,
                      int64_t *heap_count)
{
    struct bpe_node *node = &scratch->nodes[at];
    node->rank =
        node->next < 0 ? BPE_RANK_NONE : pair_rank(bpe, node->id, scratch->nodes[node->next].id);
    if (node->rank != BPE_RANK_NONE) {
        scratch->heap[*heap_count] = (uint64_t)(uint32_t)node->rank << 32 | (uint32_t)at;
        heap_sift_up(scratch->heap, *heap_count);
        (*heap_count)++;
    }
}

/* Joins the first `count` nodes of scratch, which carry ids alone. Node 0 is never joined to a left
 * one. */
static void join_long(const struct bpe *bpe, struct bpe_scratch *scratch, int64_t count)
{
    struct bpe_node *nodes = scratch->nodes;
    uint64_t *heap = scratch->heap;
    int64_t heap_count = 0;
    for (int32_t i = 0; i < (int32_t)count; i++) {
        nodes[i].previous = i - 1;
        nodes[i].next = i + 1 < (int32_t)count ? i + 1 : -1;
        rank_node(bpe, scratch, i, &heap_count);
    }
    while (heap_count > 0) {
        uint64_t top = heap[0];
        heap_count--;
        if (heap_count > 0) {
            heap[0] = heap[heap_count];
            heap_sift_down(heap, heap_count, 0);
        }
        int32_t at = (int32_t)(uint32_t)top;
        struct bpe_node *node = &nodes[at];
        if (node->id < 0 || (uint32_t)node->rank != top >> 32) {
            continue; /* the pair is no longer there */
        }
        struct bpe_node *right = &nodes[node->next];
        node->id = bpe->joined_ids[node->rank];
        node->next = right->next;
        right->id = -1;
        if (node->next >= 0) {
            nodes[node->next].previous = at;
        }
        rank_node(bpe, scratch, at, &heap_count);
        if (node->previous >= 0) {
            rank_node(bpe, scratch, node->previous, &heap_count);
        }
    }
}

static enum status encode_long(const struct bpe *bpe, struct symbol_reader *reader,
                               const int32_t *first, int64_t first_count,
                               struct bpe_scratch *scratch, struct token_list *list,
                               struct error *err)
{
    int64_t count = 0;
    int64_t first_at = 0;
    for (;;) {
        int32_t id = first_at < first_count ? first[first_at++] : next_symbol(reader);
        if (id < 0) {
            break;
        }
        if (count >= BPE_PIECE_MAX) {
            return FAIL(err, STATUS_LIMIT,
                        "a piece of text without a break has more than %d symbols", BPE_PIECE_MAX);
        }
        if (count == scratch->capacity) {
            TRY(scratch_reserve(scratch, count > 0 ? 2 * count : 4 * SHORT_SYMBOLS, err));
        }
        scratch->nodes[count++].id = id;
    }
    join_long(bpe, scratch, count);
    for (int32_t at = 0; at >= 0; at = scratch->nodes[at].next) {
        TRY(token_list_append(list, &scratch->nodes[at].id, 1, err));
    }
    return STATUS_OK;
}

/* Encodes by joining, without a look at the index of words. */
static enum status encode_by_joining(const struct bpe *bpe, const char *text, size_t len_bytes,
                                     struct bpe_scratch *scratch, struct token_list *list,
                                     struct error *err)
{
    struct symbol_reader reader = {
        .bpe = bpe, .text = (const unsigned char *)text, .len_bytes = len_bytes};
    int32_t ids[SHORT_SYMBOLS];
    int64_t count = 0;
    for (int32_t id = next_symbol(&reader); id >= 0; id = next_symbol(&reader)) {
        ids[count++] = id;
        if (count == SHORT_SYMBOLS) {
            return encode_long(bpe, &reader, ids, count, scratch, list, err);
        }
    }
    count = join_short(bpe, ids, count);
    return token_list_append(list, ids, count, err);
}

enum status bpe_encode_piece(const struct bpe *bpe, const char *text, size_t len_bytes,
                             struct bpe_scratch *scratch, struct token_list *list,
                             struct error *err)
{
    if (len_bytes <= bpe->word_max_bytes) {
        int32_t id = text_index_find(&bpe->words, text, len_bytes);
        if (id >= 0) {
            return token_list_append(list, &id, 1, err);
        }
    }
    return encode_by_joining(bpe, text, len_bytes, scratch, list, err);
}

enum status bpe_index_words(struct bpe *bpe, const struct text_store *store, const uint8_t *flags,
                            unsigned wanted, bool ignore_merges, struct error *err)
{
    struct bpe_scratch scratch = {0};
    struct token_list ids;
    token_list_init(&ids, BPE_PIECE_MAX);
    int64_t count = 0;
    for (int32_t id = 0; id < store->id_count; id++) {
        count += (flags[id] & wanted) != 0;
    }
    enum status status = STATUS_OK;
    TRY_CLEANUP(text_index_init(&bpe->words, store, count, err));
    for (int32_t id = 0; id < store->id_count; id++) {
        struct text_span span = store->spans[id];
        const char *text = store->bytes + span.at;
        if ((flags[id] & wanted) == 0 || span.len == 0 ||
            text_index_find(&bpe->words, text, span.len) >= 0) {
            continue;
        }
        ids.count = 0;
        if (!ignore_merges) {
            TRY_CLEANUP(encode_by_joining(bpe, text, span.len, &scratch, &ids, err));
        }
        if (ignore_merges || (ids.count == 1 && ids.ids[0] == id)) {
            text_index_add(&bpe->words, id);
            bpe->word_max_bytes = span.len > bpe->word_max_bytes ? span.len : bpe->word_max_bytes;
        }
    }
cleanup:
    token_list_fini(&ids);
    bpe_scratch_fini(&scratch);
    return status;
}
