/* Matrix products through a CBLAS: each thread of the team computes its own rows or columns of c
 * with one single-threaded call. bf16 is converted to f32 and back.
 *
 * The library is opened when the first device is, not linked: OpenBLAS reads OPENBLAS_CORETYPE
 * once, before main, and takes processors that are newer than itself for an ancient one, five times
 * slower. So the type is set first, from what the processor says of itself; a value that the user
 * set stays. */
#if defined(KERNELS_MATMUL_CBLAS)

#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>

#include "base/mem.h"
#include "kernels/cpu/matmul.h"

enum { CBLAS_ROW_MAJOR = 101, CBLAS_NO_TRANS = 111, CBLAS_TRANS = 112 };

typedef void (*sgemm_function)(int order, int transpose_a, int transpose_b, int rows, int cols,
                               int depth, float alpha, const float *a, int a_stride, const float *b,
                               int b_stride, float beta, float *c, int c_stride);
typedef void (*set_threads_function)(int threads);

struct matmul {
    void *library;
    sgemm_function sgemm;
    float *converted; /* a, b and c of a bf16 product in f32 */
    size_t converted_count;
};

const char *matmul_library(void)
{
    return "CBLAS";
}

bool matmul_fast_bf16(const struct cpu_features *features)
{
    (void)features;
    return false; /* it is converted */
}

/* A symbol as a function: ISO C has no cast for it. */
#define LOAD_SYMBOL(library, name, out) (*(void **)(&(out)) = dlsym((library), (name)))

static void choose_core_type(const struct cpu_features *features)
{
    if (features->x86_64_v4) {
        (void)setenv("OPENBLAS_CORETYPE", "SKYLAKEX", 0);
    } else if (features->x86_64_v3) {
        (void)setenv("OPENBLAS_CORETYPE", "HASWELL", 0);
    }
}

enum status matmul_create(const struct cpu_features *features, struct matmul **out,
                          struct error *err)
{
    set_threads_function set_threads = NULL;
    struct matmul *matmul = mem_calloc(1, sizeof(*matmul));
    if (matmul == NULL) {
        return mem_fail(err, sizeof(*matmul), "matrix products");
    }
    choose_core_type(features);
    matmul->library = dlopen(KERNELS_BLAS_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (matmul->library == NULL) {
        enum status status = FAIL(err, STATUS_UNSUPPORTED,
                                  "cannot open the BLAS library: %s; build "
                                  "with TREX_MATMUL=onednn or install it",
                                  dlerror());
        matmul_destroy(matmul);
        return status;
    }
    LOAD_SYMBOL(matmul->library, "cblas_sgemm", matmul->sgemm);
    if (matmul->sgemm == NULL) {
        matmul_destroy(matmul);
        return FAIL(err, STATUS_UNSUPPORTED,
                    "%s has no cblas_sgemm; build with TREX_MATMUL=onednn "
                    "or with another BLAS",
                    KERNELS_BLAS_LIBRARY);
    }
    LOAD_SYMBOL(matmul->library, "openblas_set_num_threads", set_threads);
    if (set_threads != NULL) {
        set_threads(1); /* the team is ours */
    }
    *out = matmul;
    return STATUS_OK;
}

/* The library stays loaded: OpenBLAS does not survive being closed and opened again. */
void matmul_destroy(struct matmul *matmul)
{
    if (matmul != NULL) {
        free(matmul->converted);
        free(matmul);
    }
}

/* -- f32 -- */

/* Part number `part` of `parts` of 0..count-1, in steps of 16 so that the parts begin on whole
 * vectors. */
static int64_t part_start(int64_t count, int64_t part, int64_t parts)
{
    enum { STEP = 16 };
    const int64_t steps = (count + STEP - 1) / STEP;
    const int64_t start = steps * part / parts * STEP;
    return start < count ? start : count;
}

/* The same product, of c's rows or columns from `first` to `end`. */
static void multiply_part(sgemm_function sgemm, const struct product *p, bool by_rows,
                          int64_t first, int64_t end)
{
    const int64_t rows = by_rows ? end - first : p->c.rows;
    const int64_t cols = by_rows ? p->c.cols : end - first;
    const float *a = p->a.data;
    const float *b = p->b.data;
    float *c = p->c.data;
    if (rows == 0 || cols == 0) {
        return;
    }
    if (by_rows) {
        a += p->transpose_a ? first : first * p->a.stride;
        c += first * p->c.stride;
    } else {
        b += p->transpose_b ? first * p->b.stride : first;
        c += first;
    }
    sgemm(CBLAS_ROW_MAJOR, p->transpose_a ? CBLAS_TRANS : CBLAS_NO_TRANS,
          p->transpose_b ? CBLAS_TRANS : CBLAS_NO_TRANS, (int)rows, (int)cols, (int)p->depth,
          p->alpha, a, (int)p->a.stride, b, (int)p->b.stride, p->beta, c, (int)p->c.stride);
}

static enum status multiply_f32(struct device *device, const struct product *p, struct error *err)
{
    const struct tensor *tensors[3] = {&p->a, &p->b, &p->c};
    for (int i = 0; i < 3; i++) {
        if (tensors[i]->rows > INT_MAX || tensors[i]->stride > INT_MAX) {
            return FAIL(err, STATUS_LIMIT, "a matrix of %lld x %lld is too large for this BLAS",
                        (long long)tensors[i]->rows, (long long)tensors[i]->stride);
        }
    }
    const sgemm_function sgemm = cpu_of(device)->matmul->sgemm;
    const bool by_rows = p->c.rows >= p->c.cols;
    const int64_t long_side = by_rows ? p->c.rows : p->c.cols;
    const int team = cpu_team(device, p->c.rows * p->c.cols * p->depth / 16);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int part = 0; part < team; part++) {
        multiply_part(sgemm, p, by_rows, part_start(long_side, part, team),
                      part_start(long_side, part + 1, team));
    }
    return STATUS_OK;
}

/* -- bf16 -- */

static enum status reserve_converted(struct matmul *matmul, size_t count, struct error *err)
{
    if (count > matmul->converted_count) {
        free(matmul->converted);
        matmul->converted_count = 0;
        matmul->converted = mem_aligned(count, sizeof(float));
        if (matmul->converted == NULL) {
            return mem_fail(err, count * sizeof(float), "a bf16 product in f32");
        }
        matmul->converted_count = count;
    }
    return STATUS_OK;
}

static enum status multiply_bf16(struct device *device, const struct product *p, struct error *err)
{
    struct matmul *matmul = cpu_of(device)->matmul;
    const size_t a_count = (size_t)(p->a.rows * p->a.cols);
    const size_t b_count = (size_t)(p->b.rows * p->b.cols);
    const bool convert_c = p->c.dtype == DTYPE_BF16;
    const size_t c_count = convert_c ? (size_t)(p->c.rows * p->c.cols) : 0;
    struct product wide = *p;

    TRY(reserve_converted(matmul, a_count + b_count + c_count, err));
    wide.a = tensor_matrix(matmul->converted, DTYPE_F32, p->a.rows, p->a.cols);
    wide.b = tensor_matrix(matmul->converted + a_count, DTYPE_F32, p->b.rows, p->b.cols);
    device->ops->copy(device, wide.a, p->a);
    device->ops->copy(device, wide.b, p->b);
    if (convert_c) {
        wide.c =
            tensor_matrix(matmul->converted + a_count + b_count, DTYPE_F32, p->c.rows, p->c.cols);
        if (p->beta != 0.0F) {
            device->ops->copy(device, wide.c, p->c);
        }
    }
    TRY(multiply_f32(device, &wide, err));
    if (convert_c) {
        device->ops->copy(device, p->c, wide.c);
    }
    return STATUS_OK;
}

enum status matmul_run(struct device *device, const struct product *product, struct error *err)
{
    return product->a.dtype == DTYPE_F32 ? multiply_f32(device, product, err)
                                         : multiply_bf16(device, product, err);
}

#else
typedef int matmul_cblas_is_not_in_this_build; /* ISO C wants a declaration */
#endif
