#include "data/hash_index.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "base/mem.h"

enum { FIRST_SLOTS = 64 };

void hash_index_init(struct hash_index *index)
{
    memset(index, 0, sizeof(*index));
}

void hash_index_fini(struct hash_index *index)
{
    free(index->slots);
    hash_index_init(index);
}

uint64_t hash_index_hash(const void *data, uint64_t len_bytes)
{
    return XXH3_64bits(data, (size_t)len_bytes);
}

/* Puts into the first free slot from the hash's own on; there is one. */
static void place(struct hash_slot *slots, int64_t slot_count, uint64_t hash, int64_t value)
{
    uint64_t mask = (uint64_t)slot_count - 1;
    uint64_t at = hash & mask;
    while (slots[at].value >= 0) {
        at = (at + 1) & mask;
    }
    slots[at] = (struct hash_slot){hash, value};
}

static enum status grow(struct hash_index *index, struct error *err)
{
    int64_t slot_count = index->slot_count > 0 ? index->slot_count * 2 : FIRST_SLOTS;
    struct hash_slot *slots = mem_calloc((size_t)slot_count, sizeof(*slots));
    if (slots == NULL) {
        return mem_fail(err, (size_t)slot_count * sizeof(*slots), "a table of hashes");
    }
    for (int64_t i = 0; i < slot_count; i++) {
        slots[i].value = -1;
    }
    for (int64_t i = 0; i < index->slot_count; i++) {
        if (index->slots[i].value >= 0) {
            place(slots, slot_count, index->slots[i].hash, index->slots[i].value);
        }
    }
    free(index->slots);
    index->slots = slots;
    index->slot_count = slot_count;
    return STATUS_OK;
}

enum status hash_index_add(struct hash_index *index, uint64_t hash, int64_t value,
                           struct error *err)
{
    if ((index->count + 1) * 2 > index->slot_count) {
        TRY(grow(index, err));
    }
    place(index->slots, index->slot_count, hash, value);
    index->count++;
    return STATUS_OK;
}

int64_t *hash_index_next(const struct hash_index *index, uint64_t hash, int64_t *cursor)
{
    uint64_t mask = (uint64_t)index->slot_count - 1;
    while (*cursor < index->slot_count) {
        struct hash_slot *slot = &index->slots[(hash + (uint64_t)*cursor) & mask];
        (*cursor)++;
        if (slot->value < 0) {
            return NULL;
        }
        if (slot->hash == hash) {
            return &slot->value;
        }
    }
    return NULL;
}
