/* Opening cuBLASLt (cublaslt.h). */
#include "kernels/cuda/cublaslt.h"

#include "kernels/cuda/library.h"

/* What is used here is the same in 12 and 13; that of the build's header comes first. */
enum status cublaslt_load(struct cublaslt *out, struct error *err)
{
#if CUBLAS_VER_MAJOR >= 13
    static const char *const files[] = {"libcublasLt.so.13", "libcublasLt.so.12", NULL};
#else
    static const char *const files[] = {"libcublasLt.so.12", "libcublasLt.so.13", NULL};
#endif
    const struct library_function functions[] = {
        {"cublasLtCreate", &out->create},
        {"cublasLtDestroy", &out->destroy},
        {"cublasLtGetVersion", &out->version},
        {"cublasLtGetStatusString", &out->status_text},
        {"cublasLtMatmulDescCreate", &out->product_create},
        {"cublasLtMatmulDescDestroy", &out->product_destroy},
        {"cublasLtMatmulDescSetAttribute", &out->product_set},
        {"cublasLtMatrixLayoutCreate", &out->layout_create},
        {"cublasLtMatrixLayoutDestroy", &out->layout_destroy},
        {"cublasLtMatmulPreferenceCreate", &out->preference_create},
        {"cublasLtMatmulPreferenceDestroy", &out->preference_destroy},
        {"cublasLtMatmulPreferenceSetAttribute", &out->preference_set},
        {"cublasLtMatmulAlgoGetHeuristic", &out->choose},
        {"cublasLtMatmul", &out->multiply},
    };
    return library_open(files, functions, sizeof(functions) / sizeof(functions[0]), err);
}
