/* Strings by number, and back: many texts in one block of bytes, and a hash of some of them (open
 * addressing).
 *
 *   bytes  "the" " a" "<s>" ...            one after the other, without NULs
 *   spans  {0,3} {3,2} {5,3} ...           by id; length 0 for ids that have no text
 *   slots  hash's upper half | id + 1      0: empty; at most half of them are filled
 */
#ifndef MODEL_TEXT_INDEX_H
#define MODEL_TEXT_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct text_span {
    uint32_t at;
    uint32_t len;
};

/* Texts by id. Both pointers are owned by whoever filled them. */
struct text_store {
    char *bytes;
    struct text_span *spans; /* (id_count) */
    uint32_t used_bytes;
    int32_t id_count;
};

struct text_index {
    const struct text_store *store; /* borrowed */
    uint64_t *slots;
    uint64_t mask;
};

/* Room for id_count texts of bytes_max bytes in all. */
enum status text_store_init(struct text_store *store, int32_t id_count, uint32_t bytes_max,
                            struct error *err);
void text_store_fini(struct text_store *store);

/* Sets the text of an id. The caller has made enough room. */
void text_store_set(struct text_store *store, int32_t id, const char *text, size_t len_bytes);

/* Room for up to `count` ids of store. */
enum status text_index_init(struct text_index *index, const struct text_store *store, int64_t count,
                            struct error *err);
void text_index_fini(struct text_index *index);

/* Adds an id whose text is set and not in the index yet. */
void text_index_add(struct text_index *index, int32_t id);

/* Id of a text, -1 if it is not in the index. */
int32_t text_index_find(const struct text_index *index, const char *text, size_t len_bytes);

#endif
