#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { CACHE_LINE_BYTES = 64 };

/* Test state: the one place where a counter must be global, because malloc itself is. */
static _Atomic int64_t allocation_count;
static _Atomic int64_t failing_allocation;

static int must_fail(void)
{
    int64_t number = atomic_fetch_add(&allocation_count, 1) + 1;
    int64_t failing = atomic_load(&failing_allocation);
    return failing != 0 && number == failing;
}

void mem_fail_nth(int64_t n)
{
    atomic_store(&failing_allocation, n == 0 ? 0 : atomic_load(&allocation_count) + n);
}

int64_t mem_allocation_count(void)
{
    return atomic_load(&allocation_count);
}

void *mem_calloc(size_t count, size_t size)
{
    if (must_fail()) {
        return NULL;
    }
    return calloc(count > 0 ? count : 1, size > 0 ? size : 1);
}

void *mem_aligned(size_t count, size_t size)
{
    if (must_fail() || (size != 0 && count > (SIZE_MAX - CACHE_LINE_BYTES) / size)) {
        return NULL;
    }
    size_t bytes = count * size;
    bytes = (bytes + CACHE_LINE_BYTES - 1) / CACHE_LINE_BYTES * CACHE_LINE_BYTES;
    return aligned_alloc(CACHE_LINE_BYTES, bytes > 0 ? bytes : CACHE_LINE_BYTES);
}

void *mem_realloc(void *pointer, size_t count, size_t size)
{
    if (must_fail() || (size != 0 && count > SIZE_MAX / size)) {
        return NULL;
    }
    size_t bytes = count * size;
    return realloc(pointer, bytes > 0 ? bytes : 1);
}

char *mem_strndup(const char *text, size_t length)
{
    char *copy = mem_calloc(length + 1, 1);
    if (copy != NULL) {
        memcpy(copy, text, length);
    }
    return copy;
}

char *mem_strdup(const char *text)
{
    return mem_strndup(text, strlen(text));
}

enum status mem_fail(struct error *err, size_t bytes, const char *what)
{
    return FAIL(err, STATUS_NO_MEMORY, "no memory for %zu bytes of %s", bytes, what);
}
