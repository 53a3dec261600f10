/* From a 64-bit hash to numbers: an open-addressing table. Equal hashes may be there several times;
 * the caller compares what the numbers stand for, so a collision of hashes costs time and never a
 * wrong answer. */
#ifndef DATA_HASH_INDEX_H
#define DATA_HASH_INDEX_H

#include <stdint.h>

#include "base/status.h"

struct hash_index {
    struct hash_slot {
        uint64_t hash;
        int64_t value; /* -1: free */
    } * slots;
    int64_t slot_count; /* a power of two, or 0 */
    int64_t count;
};

void hash_index_init(struct hash_index *index);
void hash_index_fini(struct hash_index *index);

/* XXH3 of bytes. */
uint64_t hash_index_hash(const void *data, uint64_t len_bytes);

/* Adds a value (0 or more), whether or not its hash is there. */
enum status hash_index_add(struct hash_index *index, uint64_t hash, int64_t value,
                           struct error *err);

/* The values of a hash one after the other: start with *cursor = 0; NULL when there are no more.
 * The pointer is valid until the next add, and the value may be changed in place. */
int64_t *hash_index_next(const struct hash_index *index, uint64_t hash, int64_t *cursor);

#endif
