/* Shared memory. The dynamic part is a block of the heap; the arrays that kernels declare are
 * static arrays of the program, found by their names in its own symbols: `__shared__` cannot put
 * them in a place of their own, as compilers ignore sections in templates. */
#ifndef SHARED_H
#define SHARED_H

#include <stddef.h>

/* Bytes of the arrays that a kernel declares. */
size_t shared_static_bytes(const void *kernel);

/* Makes shared memory for the blocks of a kernel, exactly this much of the dynamic one, and lets it
 * go. */
void shared_open(const void *kernel, size_t dynamic_bytes);
void shared_close();

/* Fills all of it with NaNs, as every block finds it. */
void shared_forget();

/* Whether these bytes are shared memory of the kernel that runs. */
bool shared_contains(const void *address, size_t bytes);

#endif
