/* Opening libraries at run time (library.h). */
#ifndef TREX_CUDA_ON_CPU /* where the libraries are part of the program (tests/cuda_on_cpu) */

#include "kernels/cuda/library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#ifndef TREX_CUDA_LIBRARIES /* where the build's CUDA has its libraries; empty: not known */
#define TREX_CUDA_LIBRARIES ""
#endif

/* As the loader finds it (LD_LIBRARY_PATH, the system's folders), else where the build's CUDA is.
 */
static void *open_file(const char *file)
{
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL && strlen(TREX_CUDA_LIBRARIES) > 0) {
        char path[4096];
        const int length = snprintf(path, sizeof(path), "%s/%s", TREX_CUDA_LIBRARIES, file);
        if (length > 0 && (size_t)length < sizeof(path)) {
            library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        }
    }
    return library;
}

enum status library_open(const char *const *files, const struct library_function *functions,
                         size_t count, struct error *err)
{
    void *library = NULL;
    const char *const *file = files;
    for (; *file != NULL && library == NULL; file++) {
        library = open_file(*file);
    }
    if (library == NULL) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "%s cannot be opened; load the CUDA module of this system, or add the folder "
                    "that has it to LD_LIBRARY_PATH",
                    files[0]);
    }
    for (size_t i = 0; i < count; i++) {
        void *symbol = dlsym(library, functions[i].name);
        if (symbol == NULL) {
            return FAIL(err, STATUS_UNSUPPORTED, "%s has no function %s; use a newer one", file[-1],
                        functions[i].name);
        }
        memcpy(functions[i].pointer, &symbol, sizeof(symbol));
    }
    return STATUS_OK;
}

#endif
