/* cuBLASLt by plain loops: inputs in f32 or bf16, sums in f32, results rounded to nearest even.
 * Refuses what the library refuses; of bf16 matrices it has no way for rows that begin at odd
 * numbers, so that callers take their other way too.
 *
 * Compiled without AddressSanitizer, to be fast: what a product touches is checked column by column
 * before. */
#include <cuda_bf16.h>
#include <math.h>
#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>

#include <cublasLt.h>

#include "state.h"

struct cublasLtContext {
    int device;
};

struct cublasLtMatmulDescOpaque {
    int32_t compute; /* cublasComputeType_t */
    int32_t scale;   /* cudaDataType_t */
    int32_t pointer_mode;
    int32_t transpose_a; /* cublasOperation_t */
    int32_t transpose_b;
    int32_t transpose_c;
    uint32_t epilogue;
    const void *bias;
    int32_t bias_type; /* -1: that of D */
};

struct cublasLtMatrixLayoutOpaque {
    uint32_t type;
    int32_t order;
    uint64_t rows;
    uint64_t cols;
    int64_t ld;
    int32_t batches;
    int64_t batch_stride;
};

struct cublasLtMatmulPreferenceOpaque {
    uint64_t workspace_bytes;
    uint32_t reductions;
    uint32_t alignment[4]; /* of A, B, C, D */
};

typedef cublasLtMatmulDescOpaque product_desc;
typedef cublasLtMatrixLayoutOpaque layout;

/* What a way of multiplying was chosen for: the words of cublasLtMatmulAlgo_t. */
enum { WAY_MARK, WAY_SIZES, WAY_ALIGNMENTS, WAY_WORKSPACE };
static const uint64_t MARK = 0x6F6E20637075U;

enum {
    WORKSPACE_BYTES = 64 * 1024, /* asked for where it is offered, and written over */
    DEPTH_BLOCK = 128,           /* products that are added up before they join the rest */
    ROW_BLOCK = 512
};

/* -- handles and descriptors -- */

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    if (!device_exists(device_current())) {
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    *handle = new cublasLtContext{device_current()};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion(void)
{
    return 130000;
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    default:
        return "CUBLAS_STATUS_INTERNAL_ERROR";
    }
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "the library was not initialized";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "the resource allocation failed";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "an invalid value was used as an argument";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "the function is not supported";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "the GPU program failed to execute";
    default:
        return "an internal operation failed";
    }
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *product, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    *product = new cublasLtMatmulDescOpaque{.compute = compute,
                                            .scale = scale,
                                            .pointer_mode = CUBLAS_POINTER_MODE_HOST,
                                            .transpose_a = CUBLAS_OP_N,
                                            .transpose_b = CUBLAS_OP_N,
                                            .transpose_c = CUBLAS_OP_N,
                                            .epilogue = CUBLASLT_EPILOGUE_DEFAULT,
                                            .bias = nullptr,
                                            .bias_type = -1};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product)
{
    delete product;
    return CUBLAS_STATUS_SUCCESS;
}

/* Sets a field if the value has its size. */
template <typename T> static cublasStatus_t field_set(T *field, const void *value, size_t bytes)
{
    if (value == nullptr || bytes != sizeof(T)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    memcpy(field, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
        return field_set(&product->compute, value, bytes);
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
        return field_set(&product->scale, value, bytes);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
        return field_set(&product->pointer_mode, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return field_set(&product->transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return field_set(&product->transpose_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSC:
        return field_set(&product->transpose_c, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return field_set(&product->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return field_set(&product->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return field_set(&product->bias_type, value, bytes);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    *out = new cublasLtMatrixLayoutOpaque{.type = (uint32_t)type,
                                          .order = CUBLASLT_ORDER_COL,
                                          .rows = rows,
                                          .cols = cols,
                                          .ld = ld,
                                          .batches = 1,
                                          .batch_stride = 0};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t out)
{
    delete out;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t out,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
        return field_set(&out->type, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
        return field_set(&out->order, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
        return field_set(&out->rows, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
        return field_set(&out->cols, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD:
        return field_set(&out->ld, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return field_set(&out->batches, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return field_set(&out->batch_stride, value, bytes);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new cublasLtMatmulPreferenceOpaque{.workspace_bytes = 0,
                                                     .reductions = CUBLASLT_REDUCTION_SCHEME_MASK,
                                                     .alignment = {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return field_set(&preference->workspace_bytes, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return field_set(&preference->reductions, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return field_set(
            &preference->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value,
            bytes);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

/* -- what is allowed -- */

static bool type_known(uint32_t type)
{
    return type == CUDA_R_32F || type == CUDA_R_16BF;
}

static size_t type_bytes(uint32_t type)
{
    return type == CUDA_R_16BF ? 2 : 4;
}

/* Whether a layout can be one at all: rows of a matrix do not overlap. */
static bool layout_valid(const layout &m)
{
    const uint64_t along = m.order == CUBLASLT_ORDER_COL ? m.rows : m.cols;
    return m.rows > 0 && m.cols > 0 && m.ld > 0 && (uint64_t)m.ld >= along && m.batches > 0;
}

static uint64_t rows_of(const layout &m, int32_t operation)
{
    return operation == CUBLAS_OP_N ? m.rows : m.cols;
}

static uint64_t cols_of(const layout &m, int32_t operation)
{
    return operation == CUBLAS_OP_N ? m.cols : m.rows;
}

static cublasStatus_t check_sizes(const product_desc &p, const layout &a, const layout &b,
                                  const layout &c, const layout &d)
{
    if (!layout_valid(a) || !layout_valid(b) || !layout_valid(c) || !layout_valid(d)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    const uint64_t m = rows_of(a, p.transpose_a);
    const uint64_t n = cols_of(b, p.transpose_b);
    if (cols_of(a, p.transpose_a) != rows_of(b, p.transpose_b) || d.rows != m || d.cols != n ||
        c.rows != m || c.cols != n) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    const bool batches = a.batches == d.batches && b.batches == d.batches && c.batches == d.batches;
    return batches ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

static cublasStatus_t check_types(const product_desc &p, const layout &a, const layout &b,
                                  const layout &c, const layout &d)
{
    const bool compute = p.compute == CUBLAS_COMPUTE_32F ||
                         p.compute == CUBLAS_COMPUTE_32F_PEDANTIC ||
                         (p.compute == CUBLAS_COMPUTE_32F_FAST_TF32 && a.type == CUDA_R_32F);
    const bool types = type_known(a.type) && a.type == b.type && type_known(d.type) &&
                       c.type == d.type && (d.type == CUDA_R_32F || d.type == a.type);
    const bool orders = a.order <= CUBLASLT_ORDER_ROW && b.order <= CUBLASLT_ORDER_ROW &&
                        c.order <= CUBLASLT_ORDER_ROW && d.order == c.order;
    const bool rest = p.scale == CUDA_R_32F && p.transpose_c == CUBLAS_OP_N &&
                      p.pointer_mode == CUBLAS_POINTER_MODE_HOST &&
                      (p.epilogue == CUBLASLT_EPILOGUE_DEFAULT ||
                       (p.epilogue == CUBLASLT_EPILOGUE_BIAS && p.bias != nullptr &&
                        (p.bias_type == -1 || type_known((uint32_t)p.bias_type))));
    return compute && types && orders && rest ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

static cublasStatus_t check(const product_desc &p, const layout &a, const layout &b,
                            const layout &c, const layout &d)
{
    const cublasStatus_t sizes = check_sizes(p, a, b, c, d);
    return sizes != CUBLAS_STATUS_SUCCESS ? sizes : check_types(p, a, b, c, d);
}

/* The largest power of two up to 256 that divides it. */
static uint64_t alignment_of(uint64_t bits)
{
    bits |= 256;
    return bits & (~bits + 1);
}

static uint64_t hash_layout(uint64_t hash, const layout &m)
{
    const uint64_t words[] = {m.type,
                              (uint64_t)m.order,
                              m.rows,
                              m.cols,
                              (uint64_t)m.ld,
                              (uint64_t)m.batches,
                              (uint64_t)m.batch_stride};
    for (uint64_t word : words) {
        hash = (hash ^ word) * 0x100000001B3U;
    }
    return hash;
}

/* What a way was chosen for must be what it is used for. */
static uint64_t hash_product(const product_desc &p, const layout &a, const layout &b,
                             const layout &c, const layout &d)
{
    uint64_t hash = 0xCBF29CE484222325U + (uint64_t)p.transpose_a * 3 + (uint64_t)p.transpose_b * 5;
    return hash_layout(hash_layout(hash_layout(hash_layout(hash, a), b), c), d);
}

/* Each alignment as the exponent of 2, in a byte. */
static uint64_t pack_alignments(const uint32_t (&alignment)[4])
{
    uint64_t packed = 0;
    for (int i = 0; i < 4; i++) {
        packed |= (uint64_t)__builtin_ctz(alignment[i] | 256U) << (8 * i);
    }
    return packed;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *found)
{
    *found = 0;
    if (handle == nullptr || wanted <= 0) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    const cublasStatus_t allowed = check(*product, *a, *b, *c, *d);
    if (allowed != CUBLAS_STATUS_SUCCESS) {
        return allowed;
    }
    const layout *layouts[4] = {a, b, c, d};
    for (int i = 0; i < 4; i++) {
        const uint64_t line = (uint64_t)layouts[i]->ld * type_bytes(layouts[i]->type);
        if (std::min<uint64_t>(preference->alignment[i], alignment_of(line)) < 4) {
            return CUBLAS_STATUS_NOT_SUPPORTED; /* bf16 at odd numbers */
        }
    }
    cublasLtMatmulHeuristicResult_t &result = results[0];
    result = {};
    result.workspaceSize = preference->workspace_bytes >= WORKSPACE_BYTES ? WORKSPACE_BYTES : 0;
    result.algo.data[WAY_MARK] = MARK;
    result.algo.data[WAY_SIZES] = hash_product(*product, *a, *b, *c, *d);
    result.algo.data[WAY_ALIGNMENTS] = pack_alignments(preference->alignment);
    result.algo.data[WAY_WORKSPACE] = result.workspaceSize;
    result.state = CUBLAS_STATUS_SUCCESS;
    result.wavesCount = 1.0F;
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

/* -- the product -- */

/* One product with all that it needs, by value: it may run later. */
struct multiplication {
    product_desc product;
    layout a, b, c, d;
    const void *a_data, *b_data, *c_data;
    void *d_data;
    float alpha, beta;
    void *workspace;
    size_t workspace_bytes;
};

static float number_at(uint32_t type, const void *data, int64_t at)
{
    if (type == CUDA_R_32F) {
        return ((const float *)data)[at];
    }
    return __bfloat162float(((const __nv_bfloat16 *)data)[at]);
}

/* Rounds to the 10 bits of fraction that TF32 has. */
static float tf32_of(float value)
{
    const uint32_t bits = __float_as_uint(value);
    return isfinite(value) ? __uint_as_float((bits + 0x1000U) & 0xFFFFE000U) : value;
}

/* Distances between neighbours in a row and in a column of op(m). */
static void strides_of(const layout &m, int32_t operation, int64_t *along_row, int64_t *along_col)
{
    const bool column_major = m.order == CUBLASLT_ORDER_COL;
    const bool swapped = (operation != CUBLAS_OP_N) != !column_major;
    *along_row = swapped ? 1 : m.ld;
    *along_col = swapped ? m.ld : 1;
}

/* Ends the program if the product would touch what is not the device's. */
static void check_memory(const char *name, const layout &m, const void *data)
{
    const size_t size = type_bytes(m.type);
    const uint64_t lines = m.order == CUBLASLT_ORDER_COL ? m.cols : m.rows;
    const uint64_t along = m.order == CUBLASLT_ORDER_COL ? m.rows : m.cols;
    for (int32_t batch = 0; batch < m.batches; batch++) {
        const char *first = (const char *)data + batch * m.batch_stride * (int64_t)size;
        for (uint64_t i = 0; i < lines; i++) {
            const char *line = first + i * (uint64_t)m.ld * size;
            if (memory_kind_of(line, along * size) == MEMORY_PAGEABLE ||
                __asan_region_is_poisoned((void *)line, along * size) != nullptr) {
                fprintf(stderr,
                        "cuda_on_cpu: cublasLtMatmul: line %llu of %s (%llu x %llu, ld %lld) is "
                        "not memory of the device\n",
                        (unsigned long long)i, name, (unsigned long long)m.rows,
                        (unsigned long long)m.cols, (long long)m.ld);
                abort();
            }
        }
    }
}

/* total[0..rows) += the products of `depth` columns of a (each `rows` long) with b. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx2", "default")))
#endif
static void
add_products(float *__restrict__ total, const float *__restrict__ a, const float *__restrict__ b,
             int64_t rows, int64_t depth)
{
    float sums[ROW_BLOCK] = {};
    for (int64_t k = 0; k < depth; k++) {
        const float factor = b[k];
        const float *__restrict__ column = a + k * rows;
        for (int64_t i = 0; i < rows; i++) {
            sums[i] += column[i] * factor;
        }
    }
    for (int64_t i = 0; i < rows; i++) {
        total[i] += sums[i];
    }
}

/* A part of op(m), as f32: columns of `rows` numbers one after another. */
static void pack(float *to, const layout &m, const void *data, int32_t operation, bool tf32,
                 int64_t row, int64_t rows, int64_t col, int64_t cols)
{
    int64_t along_row = 0;
    int64_t along_col = 0;
    strides_of(m, operation, &along_row, &along_col);
    for (int64_t j = 0; j < cols; j++) {
        for (int64_t i = 0; i < rows; i++) {
            const float value =
                number_at(m.type, data, (row + i) * along_col + (col + j) * along_row);
            to[j * rows + i] = tf32 ? tf32_of(value) : value;
        }
    }
}

static void store(const multiplication &x, int64_t batch, int64_t row, int64_t rows, int64_t col,
                  const float *total)
{
    int64_t along_row = 0;
    int64_t along_col = 0;
    strides_of(x.d, CUBLAS_OP_N, &along_row, &along_col);
    int64_t c_along_row = 0;
    int64_t c_along_col = 0;
    strides_of(x.c, CUBLAS_OP_N, &c_along_row, &c_along_col);
    const bool biased = x.product.epilogue == CUBLASLT_EPILOGUE_BIAS;
    const uint32_t bias_type = x.product.bias_type == -1 ? x.d.type : (uint32_t)x.product.bias_type;
    for (int64_t i = row; i < row + rows; i++) {
        float value = x.alpha * total[i - row];
        if (x.beta != 0.0F) {
            value +=
                x.beta * number_at(x.c.type, x.c_data,
                                   batch * x.c.batch_stride + i * c_along_col + col * c_along_row);
        }
        if (biased) {
            value += number_at(bias_type, x.product.bias, i);
        }
        const int64_t at = batch * x.d.batch_stride + i * along_col + col * along_row;
        if (x.d.type == CUDA_R_32F) {
            ((float *)x.d_data)[at] = value;
        } else {
            ((__nv_bfloat16 *)x.d_data)[at] = __float2bfloat16_rn(value);
        }
    }
}

static const void *batch_of(const layout &m, const void *data, int64_t batch)
{
    return (const char *)data + batch * m.batch_stride * (int64_t)type_bytes(m.type);
}

static void multiply_batch(const multiplication &x, int64_t batch)
{
    const product_desc &p = x.product;
    const int64_t m = (int64_t)x.d.rows;
    const int64_t n = (int64_t)x.d.cols;
    const int64_t depth = (int64_t)cols_of(x.a, p.transpose_a);
    const bool tf32 = p.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    const void *a = batch_of(x.a, x.a_data, batch);
    const void *b = batch_of(x.b, x.b_data, batch);
    std::vector<float> b_packed((size_t)(depth * n)); /* each column's numbers together */
    std::vector<float> a_packed((size_t)ROW_BLOCK * (size_t)depth);
    std::vector<float> total((size_t)std::min<int64_t>(m, ROW_BLOCK));
    pack(b_packed.data(), x.b, b, p.transpose_b, tf32, 0, depth, 0, n);
    for (int64_t row = 0; row < m; row += ROW_BLOCK) {
        const int64_t rows = std::min<int64_t>(ROW_BLOCK, m - row);
        pack(a_packed.data(), x.a, a, p.transpose_a, tf32, row, rows, 0, depth);
        for (int64_t col = 0; col < n; col++) {
            std::fill(total.begin(), total.end(), 0.0F);
            for (int64_t k = 0; k < depth; k += DEPTH_BLOCK) {
                add_products(total.data(), &a_packed[(size_t)(k * rows)],
                             &b_packed[(size_t)(col * depth + k)], rows,
                             std::min<int64_t>(DEPTH_BLOCK, depth - k));
            }
            store(x, batch, row, rows, col, total.data());
        }
    }
}

static void multiply(const multiplication &x)
{
    check_memory("A", x.a, x.a_data);
    check_memory("B", x.b, x.b_data);
    check_memory("D", x.d, x.d_data);
    if (x.beta != 0.0F) {
        check_memory("C", x.c, x.c_data);
    }
    if (x.workspace_bytes > 0) {
        memset(x.workspace, 0xFF, x.workspace_bytes);
    }
    for (int64_t batch = 0; batch < x.d.batches; batch++) {
        multiply_batch(x, batch);
    }
}

/* Whether the addresses keep to what the way was chosen for. */
static bool aligned_as_chosen(const cublasLtMatmulAlgo_t &way, const multiplication &x)
{
    const void *data[4] = {x.a_data, x.b_data, x.c_data, x.d_data};
    for (int i = 0; i < 4; i++) {
        const uint64_t chosen = (uint64_t)1 << (way.data[WAY_ALIGNMENTS] >> (8 * i) & 0xFFU);
        const bool read = i != 2 || x.beta != 0.0F;
        if (read && alignment_of((uint64_t)(uintptr_t)data[i]) < chosen) {
            return false;
        }
    }
    return true;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                              const void *alpha, const void *a, cublasLtMatrixLayout_t a_layout,
                              const void *b, cublasLtMatrixLayout_t b_layout, const void *beta,
                              const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    if (handle == nullptr || alpha == nullptr || beta == nullptr || a == nullptr || b == nullptr ||
        d == nullptr) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    const cublasStatus_t allowed = check(*product, *a_layout, *b_layout, *c_layout, *d_layout);
    if (allowed != CUBLAS_STATUS_SUCCESS) {
        return allowed;
    }
    multiplication x = {.product = *product,
                        .a = *a_layout,
                        .b = *b_layout,
                        .c = *c_layout,
                        .d = *d_layout,
                        .a_data = a,
                        .b_data = b,
                        .c_data = c,
                        .d_data = d,
                        .alpha = *(const float *)alpha,
                        .beta = *(const float *)beta,
                        .workspace = workspace,
                        .workspace_bytes = 0};
    if (algo != nullptr) {
        x.workspace_bytes = algo->data[WAY_WORKSPACE];
        if (algo->data[WAY_MARK] != MARK || !aligned_as_chosen(*algo, x) ||
            algo->data[WAY_SIZES] !=
                hash_product(*product, *a_layout, *b_layout, *c_layout, *d_layout) ||
            workspace_bytes < x.workspace_bytes ||
            (x.workspace_bytes > 0 && (uintptr_t)workspace % 16 != 0)) {
            return CUBLAS_STATUS_INVALID_VALUE;
        }
    }
    if (c == d && memcmp(c_layout, d_layout, sizeof(*c_layout)) != 0) {
        return CUBLAS_STATUS_INVALID_VALUE; /* in place, but not in the same places */
    }
    std::lock_guard<std::mutex> guard(shim_lock);
    const cudaError_t error = stream_push(stream, [x] {
        multiply(x);
        return true;
    });
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
