/* Libraries that are opened when they are needed, so that the program starts without them. A build
 * for the CPU gives a library_open of its own (tests/cuda_on_cpu). */
#ifndef KERNELS_CUDA_LIBRARY_H
#define KERNELS_CUDA_LIBRARY_H

#include <stddef.h>

#include "base/status.h"

struct library_function {
    const char *name;
    void *pointer; /* to the pointer that is filled */
};

/* Opens the first of `files` (a list that NULL ends) that the loader, or the folder of the CUDA
 * that this was built with, has, and fills the pointers. STATUS_UNSUPPORTED, naming the files or
 * the function, if there is none. The library stays open until the program ends: these have threads
 * and GPU code of their own, and cannot be closed safely. */
enum status library_open(const char *const *files, const struct library_function *functions,
                         size_t count, struct error *err);

#endif
