/* In place of kernels/cuda/library.cu: the libraries that the backend opens are part of the
 * program. */
#include <cublasLt.h>
#include <nccl.h>
#include <string.h>

#include "kernels/cuda/library.h"

#define FUNCTION(name)                                                                             \
    {                                                                                              \
#name, (void *)&name                                                                       \
    }

static const struct {
    const char *name;
    void *function;
} functions_here[] = {
    FUNCTION(cublasLtCreate),
    FUNCTION(cublasLtDestroy),
    FUNCTION(cublasLtGetVersion),
    FUNCTION(cublasLtGetStatusName),
    FUNCTION(cublasLtGetStatusString),
    FUNCTION(cublasLtMatmulDescCreate),
    FUNCTION(cublasLtMatmulDescDestroy),
    FUNCTION(cublasLtMatmulDescSetAttribute),
    FUNCTION(cublasLtMatrixLayoutCreate),
    FUNCTION(cublasLtMatrixLayoutDestroy),
    FUNCTION(cublasLtMatrixLayoutSetAttribute),
    FUNCTION(cublasLtMatmulPreferenceCreate),
    FUNCTION(cublasLtMatmulPreferenceDestroy),
    FUNCTION(cublasLtMatmulPreferenceSetAttribute),
    FUNCTION(cublasLtMatmulAlgoGetHeuristic),
    FUNCTION(cublasLtMatmul),
    FUNCTION(ncclGetVersion),
    FUNCTION(ncclGetUniqueId),
    FUNCTION(ncclCommInitRank),
    FUNCTION(ncclCommDestroy),
    FUNCTION(ncclCommAbort),
    FUNCTION(ncclCommGetAsyncError),
    FUNCTION(ncclAllReduce),
    FUNCTION(ncclGetErrorString),
};

static void *function_find(const char *name)
{
    for (const auto &here : functions_here) {
        if (strcmp(here.name, name) == 0) {
            return here.function;
        }
    }
    return nullptr;
}

enum status library_open(const char *const *files, const struct library_function *functions,
                         size_t count, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        void *function = function_find(functions[i].name);
        if (function == nullptr) {
            return FAIL(err, STATUS_UNSUPPORTED, "%s has no function %s; use a newer one", files[0],
                        functions[i].name);
        }
        memcpy(functions[i].pointer, &function, sizeof(function));
    }
    return STATUS_OK;
}
