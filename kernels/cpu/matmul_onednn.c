/* Matrix products through oneDNN: its f32 GEMM call, which needs no preparation for a shape, and
 * matmul primitives for bf16, which are generated once a shape class and kept. */
#if defined(KERNELS_MATMUL_ONEDNN)

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cpu/matmul.h"

/* What a primitive was generated for. Sizes are DNNL_RUNTIME_DIM_VAL where it takes any. Compared
 * as bytes, so zeroed first and copied as bytes. */
struct primitive_key {
    int64_t rows;  /* of c */
    int64_t cols;  /* of c */
    int64_t depth; /* columns of op(a) */
    int64_t a_stride;
    int64_t b_stride;
    int64_t c_stride;
    float alpha;
    float beta;
    bool transpose_a;
    bool transpose_b;
    bool c_is_f32;
};

struct primitive_entry {
    struct primitive_key key;
    dnnl_primitive_t primitive; /* NULL: free */
    uint64_t last_use;
};

enum { PRIMITIVES_MAX = 128, SHALLOW = 512, LARGE_OUTPUT = 1 << 20, VERY_LARGE_OUTPUT = 1 << 22 };

struct matmul {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    uint64_t uses;
    struct primitive_entry entries[PRIMITIVES_MAX];
};

static enum status status_of(dnnl_status_t code, const char *call, struct error *err)
{
    if (code == dnnl_success) {
        return STATUS_OK;
    }
    if (code == dnnl_out_of_memory) {
        return FAIL(err, STATUS_NO_MEMORY, "oneDNN ran out of memory in %s", call);
    }
    return FAIL(err, STATUS_DEVICE, "oneDNN failed in %s with code %d", call, (int)code);
}

#define TRY_DNNL(call) TRY_CLEANUP(status_of((call), #call, err))

const char *matmul_library(void)
{
    return "oneDNN";
}

enum status matmul_create(const struct cpu_features *features, struct matmul **out,
                          struct error *err)
{
    enum status status = STATUS_OK;
    (void)features; /* oneDNN reads the processor itself */
    struct matmul *matmul = mem_calloc(1, sizeof(*matmul));
    if (matmul == NULL) {
        return mem_fail(err, sizeof(*matmul), "matrix products");
    }
    TRY_DNNL(dnnl_engine_create(&matmul->engine, dnnl_cpu, 0));
    TRY_DNNL(dnnl_stream_create(&matmul->stream, matmul->engine, dnnl_stream_default_flags));
    *out = matmul;
    matmul = NULL;

cleanup:
    matmul_destroy(matmul);
    return status;
}

void matmul_destroy(struct matmul *matmul)
{
    if (matmul == NULL) {
        return;
    }
    for (int i = 0; i < PRIMITIVES_MAX; i++) {
        (void)dnnl_primitive_destroy(matmul->entries[i].primitive);
    }
    (void)dnnl_stream_destroy(matmul->stream);
    (void)dnnl_engine_destroy(matmul->engine);
    free(matmul);
}

/* -- bf16 primitives -- */

/* A primitive that takes any sizes is generated once, one for exact sizes once for each of them
 * (half a millisecond). The latter is worth it for large products into bf16 that sum over few
 * columns: the former keeps all of c in f32 on the side, which then costs more than the product
 * (and, if c is very large, too much memory). */
static struct primitive_key key_of(const struct product *product)
{
    const int64_t rows = product->c.rows;
    const int64_t cols = product->c.cols;
    const int64_t large = product->depth <= SHALLOW ? LARGE_OUTPUT : VERY_LARGE_OUTPUT;
    const bool exact = product->c.dtype == DTYPE_BF16 && rows * cols >= large;
    struct primitive_key key;
    memset(&key, 0, sizeof(key));
    key.rows = exact ? rows : DNNL_RUNTIME_DIM_VAL;
    key.cols = exact ? cols : DNNL_RUNTIME_DIM_VAL;
    key.depth = exact ? product->depth : DNNL_RUNTIME_DIM_VAL;
    key.a_stride = exact ? product->a.stride : DNNL_RUNTIME_DIM_VAL;
    key.b_stride = exact ? product->b.stride : DNNL_RUNTIME_DIM_VAL;
    key.c_stride = exact ? product->c.stride : DNNL_RUNTIME_DIM_VAL;
    key.alpha = product->alpha;
    key.beta = product->beta;
    key.transpose_a = product->transpose_a;
    key.transpose_b = product->transpose_b;
    key.c_is_f32 = product->c.dtype == DTYPE_F32;
    return key;
}

static dnnl_status_t describe_matrix(dnnl_memory_desc_t *out, enum dtype dtype, int64_t rows,
                                     int64_t cols, int64_t stride, bool transposed)
{
    dnnl_dims_t sizes = {rows, cols};
    dnnl_dims_t strides = {transposed ? 1 : stride, transposed ? stride : 1};
    return dnnl_memory_desc_init_by_strides(out, 2, sizes,
                                            dtype == DTYPE_F32 ? dnnl_f32 : dnnl_bf16, strides);
}

static enum status generate_primitive(struct matmul *matmul, const struct primitive_key *key,
                                      dnnl_primitive_t *out, struct error *err)
{
    enum status status = STATUS_OK;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post_ops = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_memory_desc_t a;
    dnnl_memory_desc_t b;
    dnnl_memory_desc_t c;
    dnnl_matmul_desc_t matmul_desc;

    TRY_DNNL(
        describe_matrix(&a, DTYPE_BF16, key->rows, key->depth, key->a_stride, key->transpose_a));
    TRY_DNNL(
        describe_matrix(&b, DTYPE_BF16, key->depth, key->cols, key->b_stride, key->transpose_b));
    TRY_DNNL(describe_matrix(&c, key->c_is_f32 ? DTYPE_F32 : DTYPE_BF16, key->rows, key->cols,
                             key->c_stride, false));
    TRY_DNNL(dnnl_matmul_desc_init(&matmul_desc, &a, &b, NULL, &c));
    TRY_DNNL(dnnl_primitive_attr_create(&attr));
    if (key->alpha != 1.0F) {
        TRY_DNNL(dnnl_primitive_attr_set_output_scales(attr, 1, 0, &key->alpha));
    }
    if (key->beta != 0.0F) {
        TRY_DNNL(dnnl_post_ops_create(&post_ops));
        TRY_DNNL(dnnl_post_ops_append_sum(post_ops, key->beta));
        TRY_DNNL(dnnl_primitive_attr_set_post_ops(attr, post_ops));
    }
    TRY_DNNL(dnnl_primitive_desc_create(&desc, &matmul_desc, attr, matmul->engine, NULL));
    TRY_DNNL(dnnl_primitive_create(out, desc));

cleanup:
    (void)dnnl_primitive_desc_destroy(desc);
    (void)dnnl_post_ops_destroy(post_ops);
    (void)dnnl_primitive_attr_destroy(attr);
    return status;
}

/* The kept primitive of a key, or a new one in place of the one that was not used for longest. */
static enum status find_primitive(struct matmul *matmul, const struct primitive_key *key,
                                  dnnl_primitive_t *out, struct error *err)
{
    struct primitive_entry *oldest = &matmul->entries[0];
    matmul->uses++;
    for (int i = 0; i < PRIMITIVES_MAX; i++) {
        struct primitive_entry *entry = &matmul->entries[i];
        if (entry->primitive != NULL && memcmp(&entry->key, key, sizeof(*key)) == 0) {
            entry->last_use = matmul->uses;
            *out = entry->primitive;
            return STATUS_OK;
        }
        if (entry->last_use < oldest->last_use) {
            oldest = entry;
        }
    }
    dnnl_primitive_t made = NULL;
    TRY(generate_primitive(matmul, key, &made, err));
    (void)dnnl_primitive_destroy(oldest->primitive);
    memcpy(&oldest->key, key, sizeof(*key));
    oldest->primitive = made;
    oldest->last_use = matmul->uses;
    *out = made;
    return STATUS_OK;
}

static enum status multiply_bf16(struct matmul *matmul, const struct product *product,
                                 struct error *err)
{
    enum status status = STATUS_OK;
    struct primitive_key key = key_of(product);
    dnnl_primitive_t primitive = NULL;
    dnnl_memory_t memory[3] = {NULL, NULL, NULL};
    dnnl_memory_desc_t desc[3];
    int64_t rows = product->c.rows;
    int64_t cols = product->c.cols;

    TRY_CLEANUP(find_primitive(matmul, &key, &primitive, err));
    TRY_DNNL(describe_matrix(&desc[0], DTYPE_BF16, rows, product->depth, product->a.stride,
                             product->transpose_a));
    TRY_DNNL(describe_matrix(&desc[1], DTYPE_BF16, product->depth, cols, product->b.stride,
                             product->transpose_b));
    TRY_DNNL(describe_matrix(&desc[2], product->c.dtype, rows, cols, product->c.stride, false));
    TRY_DNNL(dnnl_memory_create(&memory[0], &desc[0], matmul->engine, product->a.data));
    TRY_DNNL(dnnl_memory_create(&memory[1], &desc[1], matmul->engine, product->b.data));
    TRY_DNNL(dnnl_memory_create(&memory[2], &desc[2], matmul->engine, product->c.data));
    const dnnl_exec_arg_t arguments[3] = {
        {DNNL_ARG_SRC, memory[0]}, {DNNL_ARG_WEIGHTS, memory[1]}, {DNNL_ARG_DST, memory[2]}};
    TRY_DNNL(dnnl_primitive_execute(primitive, matmul->stream, 3, arguments));
    TRY_DNNL(dnnl_stream_wait(matmul->stream));

cleanup:
    for (int i = 0; i < 3; i++) {
        (void)dnnl_memory_destroy(memory[i]);
    }
    return status;
}

/* -- the operation -- */

static enum status multiply_f32(const struct product *product, struct error *err)
{
    return status_of(dnnl_sgemm(product->transpose_a ? 'T' : 'N', product->transpose_b ? 'T' : 'N',
                                product->c.rows, product->c.cols, product->depth, product->alpha,
                                product->a.data, product->a.stride, product->b.data,
                                product->b.stride, product->beta, product->c.data,
                                product->c.stride),
                     "dnnl_sgemm", err);
}

enum status matmul_run(struct device *device, const struct product *product, struct error *err)
{
    const int threads_before = omp_get_max_threads(); /* what oneDNN takes for its own teams */
    omp_set_num_threads(cpu_of(device)->threads);
    const enum status status = product->a.dtype == DTYPE_F32
                                   ? multiply_f32(product, err)
                                   : multiply_bf16(cpu_of(device)->matmul, product, err);
    omp_set_num_threads(threads_before);
    return status;
}

bool matmul_fast_bf16(const struct cpu_features *features)
{
    return features->avx512_bf16 || features->amx_bf16;
}

#else
typedef int matmul_onednn_is_not_in_this_build; /* ISO C wants a declaration */
#endif
