/* Matrix products are a library's: oneDNN (matmul_onednn.c) or a CBLAS (matmul_cblas.c), chosen
 * when building. */
#ifndef KERNELS_CPU_MATMUL_H
#define KERNELS_CPU_MATMUL_H

#include "kernels/cpu/device.h"

/* c = alpha * op(a) op(b) + beta * c; shapes and dtypes are checked, no size is 0. */
struct product {
    struct tensor c;
    struct tensor a;
    struct tensor b;
    int64_t depth; /* columns of op(a) */
    bool transpose_a;
    bool transpose_b;
    float alpha;
    float beta;
};

/* Loads the library. STATUS_NO_MEMORY, STATUS_UNSUPPORTED if it cannot be loaded, STATUS_DEVICE if
 * it fails. */
enum status matmul_create(const struct cpu_features *features, struct matmul **out,
                          struct error *err);
void matmul_destroy(struct matmul *matmul); /* NULL allowed */
enum status matmul_run(struct device *device, const struct product *product, struct error *err);
const char *matmul_library(void); /* "oneDNN" */

/* Whether it multiplies bf16 faster than f32 on such a processor. */
bool matmul_fast_bf16(const struct cpu_features *features);

#endif
