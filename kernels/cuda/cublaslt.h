/* The functions of cuBLASLt that products need. The library is opened when a GPU is (library.h), so
 * that the program starts on machines without it. */
#ifndef KERNELS_CUDA_CUBLASLT_H
#define KERNELS_CUDA_CUBLASLT_H

#include <cublasLt.h>

#include "base/status.h"

/* Each has the type that cublasLt.h declares. */
struct cublaslt {
    decltype(&cublasLtCreate) create;
    decltype(&cublasLtDestroy) destroy;
    decltype(&cublasLtGetVersion) version;
    decltype(&cublasLtGetStatusString) status_text;
    decltype(&cublasLtMatmulDescCreate) product_create;
    decltype(&cublasLtMatmulDescDestroy) product_destroy;
    decltype(&cublasLtMatmulDescSetAttribute) product_set;
    decltype(&cublasLtMatrixLayoutCreate) layout_create;
    decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
    decltype(&cublasLtMatmulPreferenceCreate) preference_create;
    decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
    decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
    decltype(&cublasLtMatmulAlgoGetHeuristic) choose;
    decltype(&cublasLtMatmul) multiply;
};

/* Finds the library and fills *out. STATUS_UNSUPPORTED if it is not there, or lacks a function; the
 * message says where it was looked for. It stays loaded until the program ends. */
enum status cublaslt_load(struct cublaslt *out, struct error *err);

#endif
