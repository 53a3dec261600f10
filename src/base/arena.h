/* Many small allocations with one lifetime, freed whole.
 *
 *   chunk -> chunk -> chunk      each chunk: header, then bytes handed out front to back
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

struct arena_chunk;

struct arena {
    struct arena_chunk *head; /* chunk that is being filled, NULL at first */
    size_t used_bytes;        /* in all chunks */
    size_t max_bytes;         /* hard cap on used_bytes */
};

void arena_init(struct arena *arena, size_t max_bytes);
void arena_fini(struct arena *arena);

/* Zeroed, aligned to 16 bytes; NULL if the cap or the memory is reached. Lives until arena_fini. */
void *arena_alloc(struct arena *arena, size_t count, size_t size);

/* Copies of text (of its first `length` bytes), or NULL. */
char *arena_strdup(struct arena *arena, const char *text);
char *arena_strndup(struct arena *arena, const char *text, size_t length);

#endif
