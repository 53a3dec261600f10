#include "model/text_index.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/mem.h"

enum status text_store_init(struct text_store *store, int32_t id_count, uint32_t bytes_max,
                            struct error *err)
{
    memset(store, 0, sizeof(*store));
    store->bytes = mem_calloc(bytes_max, 1);
    store->spans = mem_calloc((size_t)id_count, sizeof(*store->spans));
    store->id_count = id_count;
    if (store->bytes == NULL || store->spans == NULL) {
        text_store_fini(store);
        return mem_fail(err, bytes_max + (size_t)id_count * sizeof(*store->spans), "a vocabulary");
    }
    return STATUS_OK;
}

void text_store_fini(struct text_store *store)
{
    free(store->bytes);
    free(store->spans);
    memset(store, 0, sizeof(*store));
}

void text_store_set(struct text_store *store, int32_t id, const char *text, size_t len_bytes)
{
    memcpy(store->bytes + store->used_bytes, text, len_bytes);
    store->spans[id] = (struct text_span){.at = store->used_bytes, .len = (uint32_t)len_bytes};
    store->used_bytes += (uint32_t)len_bytes;
}

enum status text_index_init(struct text_index *index, const struct text_store *store, int64_t count,
                            struct error *err)
{
    uint64_t slot_count = 16;
    while (slot_count < 2 * (uint64_t)count) {
        slot_count *= 2;
    }
    index->store = store;
    index->mask = slot_count - 1;
    index->slots = mem_calloc(slot_count, sizeof(*index->slots));
    if (index->slots == NULL) {
        return mem_fail(err, slot_count * sizeof(*index->slots), "a hash of tokens");
    }
    return STATUS_OK;
}

void text_index_fini(struct text_index *index)
{
    free(index->slots);
    memset(index, 0, sizeof(*index));
}

void text_index_add(struct text_index *index, int32_t id)
{
    struct text_span span = index->store->spans[id];
    uint64_t hash = XXH3_64bits(index->store->bytes + span.at, span.len);
    uint64_t slot = hash & index->mask;
    while (index->slots[slot] != 0) {
        slot = (slot + 1) & index->mask;
    }
    index->slots[slot] = (hash >> 32 << 32) | (uint32_t)(id + 1);
}

int32_t text_index_find(const struct text_index *index, const char *text, size_t len_bytes)
{
    uint64_t hash = XXH3_64bits(text, len_bytes);
    for (uint64_t slot = hash & index->mask; index->slots[slot] != 0;
         slot = (slot + 1) & index->mask) {
        if (index->slots[slot] >> 32 != hash >> 32) {
            continue;
        }
        int32_t id = (int32_t)(uint32_t)index->slots[slot] - 1;
        struct text_span span = index->store->spans[id];
        if (span.len == len_bytes && memcmp(index->store->bytes + span.at, text, len_bytes) == 0) {
            return id;
        }
    }
    return -1;
}
