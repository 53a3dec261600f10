#include "base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { ARENA_ALIGNMENT = 16, ARENA_CHUNK_BYTES = 64 * 1024 };

struct arena_chunk {
    struct arena_chunk *next;
    size_t used_bytes;
    size_t size_bytes;
    size_t padding; /* keeps `bytes` aligned to 16 */
    unsigned char bytes[];
};

void arena_init(struct arena *arena, size_t max_bytes)
{
    memset(arena, 0, sizeof(*arena));
    arena->max_bytes = max_bytes;
}

void arena_fini(struct arena *arena)
{
    struct arena_chunk *chunk = arena->head;
    while (chunk != NULL) {
        struct arena_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
    arena_init(arena, arena->max_bytes);
}

void *arena_alloc(struct arena *arena, size_t count, size_t size)
{
    if (size != 0 && count > (SIZE_MAX - ARENA_CHUNK_BYTES) / size) {
        return NULL;
    }
    size_t bytes = (count * size + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
    if (bytes > arena->max_bytes || arena->used_bytes > arena->max_bytes - bytes) {
        return NULL;
    }
    struct arena_chunk *chunk = arena->head;
    if (chunk == NULL || chunk->size_bytes - chunk->used_bytes < bytes) {
        size_t size_bytes = bytes > ARENA_CHUNK_BYTES ? bytes : ARENA_CHUNK_BYTES;
        chunk = mem_calloc(1, sizeof(*chunk) + size_bytes);
        if (chunk == NULL) {
            return NULL;
        }
        chunk->size_bytes = size_bytes;
        chunk->next = arena->head;
        arena->head = chunk;
    }
    void *result = chunk->bytes + chunk->used_bytes;
    chunk->used_bytes += bytes;
    arena->used_bytes += bytes;
    return result;
}

char *arena_strndup(struct arena *arena, const char *text, size_t length)
{
    char *copy = arena_alloc(arena, length + 1, 1);
    if (copy != NULL) {
        memcpy(copy, text, length);
    }
    return copy;
}

char *arena_strdup(struct arena *arena, const char *text)
{
    return arena_strndup(arena, text, strlen(text));
}
