#include "base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Chunks grow with the arena: a small one costs little, a large one has few. */
enum { ARENA_ALIGNMENT = 16, ARENA_CHUNK_MIN_BYTES = 4 * 1024, ARENA_CHUNK_MAX_BYTES = 1 << 20 };

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

static size_t next_chunk_bytes(const struct arena *arena)
{
    size_t bytes = arena->used_bytes;
    bytes = bytes > ARENA_CHUNK_MIN_BYTES ? bytes : ARENA_CHUNK_MIN_BYTES;
    return bytes < ARENA_CHUNK_MAX_BYTES ? bytes : ARENA_CHUNK_MAX_BYTES;
}

/* A chunk with room for `bytes`. One that they fill goes behind the chunk that is being filled. */
static struct arena_chunk *add_chunk(struct arena *arena, size_t bytes)
{
    size_t usual_bytes = next_chunk_bytes(arena);
    size_t size_bytes = bytes > usual_bytes ? bytes : usual_bytes;
    struct arena_chunk *chunk = mem_calloc(1, sizeof(*chunk) + size_bytes);
    if (chunk == NULL) {
        return NULL;
    }
    chunk->size_bytes = size_bytes;
    if (bytes >= usual_bytes && arena->head != NULL) {
        chunk->next = arena->head->next;
        arena->head->next = chunk;
    } else {
        chunk->next = arena->head;
        arena->head = chunk;
    }
    return chunk;
}

void *arena_alloc(struct arena *arena, size_t count, size_t size)
{
    if (size != 0 && count > (SIZE_MAX - ARENA_CHUNK_MAX_BYTES) / size) {
        return NULL;
    }
    size_t bytes = (count * size + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
    if (bytes > arena->max_bytes || arena->used_bytes > arena->max_bytes - bytes) {
        return NULL;
    }
    struct arena_chunk *chunk = arena->head;
    if (chunk == NULL || chunk->size_bytes - chunk->used_bytes < bytes) {
        chunk = add_chunk(arena, bytes);
        if (chunk == NULL) {
            return NULL;
        }
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
