/* Allocation: checked for overflow, zeroed, and made to fail in turn by tests. */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* count * size zeroed bytes on the heap; NULL if that overflows or there is no memory. Free with
 * free(). */
void *mem_calloc(size_t count, size_t size);

/* The same, uninitialised and aligned to 64 bytes, for arrays that kernels read. Free with free().
 */
void *mem_aligned(size_t count, size_t size);

/* As realloc for count elements; NULL leaves `pointer` valid. */
void *mem_realloc(void *pointer, size_t count, size_t size);

/* Heap copy of a string (of its first `length` bytes), or NULL. */
char *mem_strdup(const char *text);
char *mem_strndup(const char *text, size_t length);

/* Fills *err with what was asked for and returns STATUS_NO_MEMORY. */
enum status mem_fail(struct error *err, size_t bytes, const char *what);

/* For tests: the n-th allocation from now fails, once (0: none does). Not thread-safe. */
void mem_fail_nth(int64_t n);

/* Number of allocations since the start of the program, for tests that fail each in turn. */
int64_t mem_allocation_count(void);

#ifdef __cplusplus
}
#endif
#endif
