/* Matrix products by cuBLASLt: bf16 by the tensor cores with f32 sums, f32 in f32 (in TF32 with
 * TREX_TF32=1).
 *
 * The library counts by columns: a row-major matrix is its transpose there, so c = a b is asked for
 * as c^T = b^T a^T and nothing is moved.
 *
 * What to run for a product (sizes, strides, dtypes, alignments) the library's heuristic says once;
 * the answer, a plan, is kept in a table of fixed size. It depends on these alone, so a plan that
 * was dropped and made again is the same one. Ways that add up parts of a sum by atomics or in the
 * output's dtype are ruled out: same bits on every run, sums in f32. Products that the library has
 * no way for are done by matmul_plain.cu, and describe tells how many shapes that are.
 *
 * Floor, m x n x k: 2 m n k operations (H100: 989 TFLOP/s in bf16) or (m k + k n + m n) numbers. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/matmul_plain.h"
#include "kernels/cuda/operations.h"
#include "kernels/cuda/parts.h"

enum {
    PLAN_SETS = 256, /* a plan lies in one of the WAYS places of its set */
    PLAN_WAYS = 4,
    CHOICES = 8,
    ALIGNMENT_MAX = 256,
    WORKSPACE_BYTES = 8 << 20,
    WORKSPACE_BYTES_SM90 = 32 << 20,
};

/* All that a plan depends on; every byte is set, so that two can be compared as bytes. */
struct shape {
    int64_t rows;
    int64_t cols;
    int64_t depth;
    int64_t stride_a;
    int64_t stride_b;
    int64_t stride_c;
    uint32_t alignment_a; /* in bytes, of the data and of every row */
    uint32_t alignment_b;
    uint32_t alignment_c;
    uint32_t flags; /* transpose_a, transpose_b, a and b are bf16, c is bf16 */
};

enum { FLAG_TRANSPOSE_A = 1, FLAG_TRANSPOSE_B = 2, FLAG_BF16 = 4, FLAG_C_BF16 = 8 };

struct plan {
    struct shape shape;
    uint64_t used; /* the last time; 0: the place is empty */
    bool plain;    /* the library has no way: no descriptors */
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a; /* of this room's names; the library gets b first */
    cublasLtMatrixLayout_t b;
    cublasLtMatrixLayout_t c;
    cublasLtMatmulAlgo_t way;
};

struct cuda_matmul {
    struct cublaslt library;
    cublasLtHandle_t handle;
    void *workspace; /* NULL until the first product */
    size_t workspace_bytes;
    uint64_t clock;
    int64_t plain_shapes;
    struct plan plans[PLAN_SETS][PLAN_WAYS];
};

/* -- opening ----------------------------------------------------------------------------------- */

enum status cuda_matmul_create(struct cuda_matmul **out, struct error *err)
{
    enum status status = STATUS_OK;
    struct cuda_matmul *matmul = static_cast<struct cuda_matmul *>(mem_calloc(1, sizeof(*matmul)));
    cublasStatus_t result = CUBLAS_STATUS_SUCCESS;
    if (matmul == NULL) {
        return mem_fail(err, sizeof(*matmul), "plans of matrix products");
    }
    TRY_CLEANUP(cublaslt_load(&matmul->library, err));
    result = matmul->library.create(&matmul->handle);
    if (result != CUBLAS_STATUS_SUCCESS) {
        matmul->handle = NULL;
        status =
            FAIL(err, STATUS_DEVICE, "opening cuBLASLt: %s", matmul->library.status_text(result));
        goto cleanup;
    }
    *out = matmul;
    matmul = NULL;

cleanup:
    cuda_matmul_destroy(matmul);
    return status;
}

/* Leaves the place empty. */
static void plan_clear(const struct cublaslt *library, struct plan *plan)
{
    if (plan->a != NULL) {
        (void)library->layout_destroy(plan->a);
    }
    if (plan->b != NULL) {
        (void)library->layout_destroy(plan->b);
    }
    if (plan->c != NULL) {
        (void)library->layout_destroy(plan->c);
    }
    if (plan->product != NULL) {
        (void)library->product_destroy(plan->product);
    }
    memset(plan, 0, sizeof(*plan));
}

void cuda_matmul_destroy(struct cuda_matmul *matmul)
{
    if (matmul == NULL) {
        return;
    }
    if (matmul->handle != NULL) {
        for (int set = 0; set < PLAN_SETS; set++) {
            for (int way = 0; way < PLAN_WAYS; way++) {
                plan_clear(&matmul->library, &matmul->plans[set][way]);
            }
        }
        (void)matmul->library.destroy(matmul->handle);
    }
    free(matmul);
}

void cuda_matmul_describe(const struct cuda_matmul *matmul, char *out, size_t out_bytes)
{
    const size_t version = matmul->library.version();
    char plain[40] = "";
    if (matmul->plain_shapes > 0) {
        (void)snprintf(plain, sizeof(plain), " (not for %lld shapes)",
                       (long long)matmul->plain_shapes);
    }
    (void)snprintf(out, out_bytes, "cuBLASLt %zu.%zu.%zu%s", version / 10000, version / 100 % 100,
                   version % 100, plain);
}

/* -- plans ------------------------------------------------------------------------------------- */

/* The largest power of two, up to 256, that divides the address and the bytes of a row. */
static uint32_t alignment_of(struct tensor tensor)
{
    const size_t bits = (size_t)(uintptr_t)tensor.data |
                        (size_t)tensor.stride * dtype_bytes(tensor.dtype) | ALIGNMENT_MAX;
    return (uint32_t)(bits & (~bits + 1));
}

static struct shape shape_of(struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
                             bool transpose_b)
{
    struct shape shape;
    memset(&shape, 0, sizeof(shape));
    shape.rows = c.rows;
    shape.cols = c.cols;
    shape.depth = transpose_a ? a.rows : a.cols;
    shape.stride_a = a.stride;
    shape.stride_b = b.stride;
    shape.stride_c = c.stride;
    shape.alignment_a = alignment_of(a);
    shape.alignment_b = alignment_of(b);
    shape.alignment_c = alignment_of(c);
    shape.flags = (uint32_t)transpose_a * FLAG_TRANSPOSE_A |
                  (uint32_t)transpose_b * FLAG_TRANSPOSE_B |
                  (uint32_t)(a.dtype == DTYPE_BF16) * FLAG_BF16 |
                  (uint32_t)(c.dtype == DTYPE_BF16) * FLAG_C_BF16;
    return shape;
}

static size_t set_of(const struct shape *shape)
{
    uint64_t words[sizeof(*shape) / sizeof(uint64_t)];
    uint64_t hash = 0;
    static_assert(sizeof(*shape) % sizeof(uint64_t) == 0, "a shape is whole words");
    memcpy(words, shape, sizeof(words));
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        hash = (hash ^ words[i]) * 0x9E3779B97F4A7C15ULL;
        hash ^= hash >> 32;
    }
    return (size_t)(hash % PLAN_SETS);
}

/* Rows and columns are those of the matrix in memory; the library sees its transpose. */
static cublasStatus_t layout_create(const struct cublaslt *library, cublasLtMatrixLayout_t *out,
                                    bool bf16, int64_t rows, int64_t cols, int64_t stride)
{
    return library->layout_create(out, bf16 ? CUDA_R_16BF : CUDA_R_32F, (uint64_t)cols,
                                  (uint64_t)rows, stride);
}

static cublasStatus_t describe_layouts(const struct cublaslt *library, struct plan *plan)
{
    const struct shape *s = &plan->shape;
    const bool in_bf16 = (s->flags & FLAG_BF16) != 0;
    const bool transpose_a = (s->flags & FLAG_TRANSPOSE_A) != 0;
    const bool transpose_b = (s->flags & FLAG_TRANSPOSE_B) != 0;
    cublasStatus_t result =
        layout_create(library, &plan->a, in_bf16, transpose_a ? s->depth : s->rows,
                      transpose_a ? s->rows : s->depth, s->stride_a);
    if (result == CUBLAS_STATUS_SUCCESS) {
        result = layout_create(library, &plan->b, in_bf16, transpose_b ? s->cols : s->depth,
                               transpose_b ? s->depth : s->cols, s->stride_b);
    }
    if (result == CUBLAS_STATUS_SUCCESS) {
        result = layout_create(library, &plan->c, (s->flags & FLAG_C_BF16) != 0, s->rows, s->cols,
                               s->stride_c);
    }
    return result;
}

/* The library's first matrix is our b, its second our a. */
static cublasStatus_t describe_product(const struct cublaslt *library, struct plan *plan, bool tf32)
{
    const uint32_t flags = plan->shape.flags;
    const cublasOperation_t first = (flags & FLAG_TRANSPOSE_B) != 0 ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = (flags & FLAG_TRANSPOSE_A) != 0 ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasComputeType_t compute =
        tf32 && (flags & FLAG_BF16) == 0 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasStatus_t result = library->product_create(&plan->product, compute, CUDA_R_32F);
    if (result == CUBLAS_STATUS_SUCCESS) {
        result =
            library->product_set(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof(first));
    }
    if (result == CUBLAS_STATUS_SUCCESS) {
        result = library->product_set(plan->product, CUBLASLT_MATMUL_DESC_TRANSB, &second,
                                      sizeof(second));
    }
    return result;
}

/* What a way must keep to. */
static cublasStatus_t describe_preference(const struct cuda_matmul *matmul,
                                          const struct shape *shape,
                                          cublasLtMatmulPreference_t preference)
{
    const uint64_t workspace_bytes = matmul->workspace_bytes;
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE; /* or none */
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        const void *value;
        size_t bytes;
    } wanted[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes, sizeof(workspace_bytes)},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof(reductions)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &shape->alignment_b, sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &shape->alignment_a, sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &shape->alignment_c, sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &shape->alignment_c, sizeof(uint32_t)},
    };
    cublasStatus_t result = CUBLAS_STATUS_SUCCESS;
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]) && result == CUBLAS_STATUS_SUCCESS;
         i++) {
        result = matmul->library.preference_set(preference, wanted[i].attribute, wanted[i].value,
                                                wanted[i].bytes);
    }
    return result;
}

/* The best way by the library's judgement that fits into the workspace. */
static cublasStatus_t choose_way(const struct cuda_matmul *matmul, struct plan *plan)
{
    const struct cublaslt *library = &matmul->library;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t choices[CHOICES];
    int found = 0;
    cublasStatus_t result = library->preference_create(&preference);
    if (result != CUBLAS_STATUS_SUCCESS) {
        return result;
    }
    memset(choices, 0, sizeof(choices));
    result = describe_preference(matmul, &plan->shape, preference);
    if (result == CUBLAS_STATUS_SUCCESS) {
        result = library->choose(matmul->handle, plan->product, plan->b, plan->a, plan->c, plan->c,
                                 preference, CHOICES, choices, &found);
    }
    (void)library->preference_destroy(preference);
    if (result != CUBLAS_STATUS_SUCCESS) {
        return result;
    }
    for (int i = 0; i < found; i++) {
        if (choices[i].state == CUBLAS_STATUS_SUCCESS &&
            choices[i].workspaceSize <= matmul->workspace_bytes) {
            plan->way = choices[i].algo;
            return CUBLAS_STATUS_SUCCESS;
        }
    }
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

static void record_failure(struct device *device, const struct shape *shape, cublasStatus_t result)
{
    CUDA_FAIL(device, result == CUBLAS_STATUS_ALLOC_FAILED ? STATUS_NO_MEMORY : STATUS_DEVICE,
              "matmul of %lld x %lld x %lld, strides %lld, %lld, %lld, %s to %s: cuBLASLt says %s",
              (long long)shape->rows, (long long)shape->depth, (long long)shape->cols,
              (long long)shape->stride_a, (long long)shape->stride_b, (long long)shape->stride_c,
              (shape->flags & FLAG_BF16) != 0 ? "bf16" : "f32",
              (shape->flags & FLAG_C_BF16) != 0 ? "bf16" : "f32",
              cuda_of(device)->matmul->library.status_text(result));
}

/* The library cannot do this product, as opposed to: something is broken. */
static bool has_no_way(cublasStatus_t result)
{
    return result == CUBLAS_STATUS_NOT_SUPPORTED || result == CUBLAS_STATUS_INVALID_VALUE;
}

static void plan_make_plain(struct cuda_matmul *matmul, struct plan *plan)
{
    const struct shape shape = plan->shape;
    const uint64_t used = plan->used;
    plan_clear(&matmul->library, plan);
    plan->shape = shape;
    plan->used = used;
    plan->plain = true;
    matmul->plain_shapes++;
}

/* Fills an empty place. False after recording a failure; the place is empty then. */
static bool plan_make(struct device *device, struct plan *plan, const struct shape *shape)
{
    struct cuda_matmul *matmul = cuda_of(device)->matmul;
    plan->shape = *shape;
    cublasStatus_t result = describe_layouts(&matmul->library, plan);
    if (result == CUBLAS_STATUS_SUCCESS) {
        result = describe_product(&matmul->library, plan, cuda_of(device)->tf32);
    }
    if (result == CUBLAS_STATUS_SUCCESS) {
        result = choose_way(matmul, plan);
    }
    if (has_no_way(result)) {
        plan_make_plain(matmul, plan);
        return true;
    }
    if (result != CUBLAS_STATUS_SUCCESS) {
        record_failure(device, shape, result);
        plan_clear(&matmul->library, plan);
    }
    return result == CUBLAS_STATUS_SUCCESS;
}

/* The plan for a shape, made if need be in the place that was not used for longest. NULL after
 * recording a failure. */
static struct plan *plan_find(struct device *device, const struct shape *shape)
{
    struct cuda_matmul *matmul = cuda_of(device)->matmul;
    struct plan *set = matmul->plans[set_of(shape)];
    struct plan *oldest = &set[0];
    for (int way = 0; way < PLAN_WAYS; way++) {
        struct plan *plan = &set[way];
        if (plan->used != 0 && memcmp(&plan->shape, shape, sizeof(*shape)) == 0) {
            plan->used = ++matmul->clock;
            return plan;
        }
        oldest = plan->used < oldest->used ? plan : oldest;
    }
    plan_clear(&matmul->library, oldest);
    if (!plan_make(device, oldest, shape)) {
        return NULL;
    }
    oldest->used = ++matmul->clock;
    return oldest;
}

/* -- products ---------------------------------------------------------------------------------- */

/* The same size for all products of a device: what the heuristic answers depends on it. */
static bool workspace_ready(struct device *device)
{
    struct cuda_matmul *matmul = cuda_of(device)->matmul;
    struct error err = {};
    if (matmul->workspace == NULL) {
        const size_t bytes =
            cuda_of(device)->capability >= 90 ? WORKSPACE_BYTES_SM90 : WORKSPACE_BYTES;
        if (cuda_alloc(device, bytes, "working memory of matrix products", &matmul->workspace,
                       &err) != STATUS_OK) {
            CUDA_FAIL(device, err.code, "%s", err.message);
            return false;
        }
        matmul->workspace_bytes = bytes;
    }
    return true;
}

/* Nothing to add up: c = beta * c, whatever c held for beta = 0. */
static void scale_only(struct device *device, struct tensor c, float beta)
{
    if (beta == 0.0F) {
        cuda_fill(device, c, 0.0F);
    } else if (beta != 1.0F) {
        cuda_scale(device, c, beta);
    }
}

void cuda_matmul(struct device *device, struct tensor c, struct tensor a, bool transpose_a,
                 struct tensor b, bool transpose_b, float alpha, float beta)
{
    struct cuda_matmul *matmul = cuda_of(device)->matmul;
    const struct shape shape = shape_of(c, a, transpose_a, b, transpose_b);
    assert((transpose_a ? a.cols : a.rows) == c.rows && (transpose_b ? b.rows : b.cols) == c.cols);
    assert((transpose_b ? b.cols : b.rows) == shape.depth);
    assert(a.dtype == b.dtype && (c.dtype == DTYPE_F32 || c.dtype == a.dtype));
    if (cuda_failed(device) || c.rows == 0 || c.cols == 0) {
        return;
    }
    if (shape.depth == 0) {
        scale_only(device, c, beta);
        return;
    }
    if (!workspace_ready(device)) {
        return;
    }
    struct plan *plan = plan_find(device, &shape);
    if (plan == NULL) {
        return;
    }
    if (!plan->plain) {
        const cublasStatus_t result = matmul->library.multiply(
            matmul->handle, plan->product, &alpha, b.data, plan->b, a.data, plan->a, &beta, c.data,
            plan->c, c.data, plan->c, &plan->way, matmul->workspace, matmul->workspace_bytes,
            cuda_of(device)->stream);
        if (result == CUBLAS_STATUS_SUCCESS) {
            return;
        }
        if (!has_no_way(result)) {
            record_failure(device, &shape, result);
            return;
        }
        plan_make_plain(matmul, plan);
    }
    cuda_matmul_plain(device, c, a, transpose_a, b, transpose_b, alpha, beta);
}
