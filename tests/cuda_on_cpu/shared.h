/* Shared memory: the dynamic part is a block of the heap, the arrays in kernels are static. */
#ifndef SHARED_H
#define SHARED_H

#include <stddef.h>

/* Makes dynamic shared memory for the blocks of a grid, exactly this much of it, and lets it go. */
void shared_open(size_t bytes);
void shared_close();

/* Fills all shared memory with NaNs, as every block finds it. */
void shared_forget();

/* Whether these bytes are shared memory. */
bool shared_contains(const void *address, size_t bytes);

#endif
