/* The shim's cuBLASLt and NCCL, and the numbers of its device language. */
#include <thread>
#include <vector>

#include <cublasLt.h>
#include <nccl.h>

#include "shim_test.h"

/* -- numbers -- */

static void test_bf16(void **state)
{
    (void)state;
    assert_int_equal(__bfloat16_as_ushort(__float2bfloat16_rn(1.0F)), 0x3F80);
    /* Halfway between two: to the even one. */
    assert_int_equal(__bfloat16_as_ushort(__float2bfloat16_rn(__uint_as_float(0x3F808000))),
                     0x3F80);
    assert_int_equal(__bfloat16_as_ushort(__float2bfloat16_rn(__uint_as_float(0x3F818000))),
                     0x3F82);
    assert_int_equal(__bfloat16_as_ushort(__float2bfloat16_rn(__uint_as_float(0x3F808001))),
                     0x3F81);
    assert_int_equal(__bfloat16_as_ushort(__float2bfloat16_rn(CUDART_INF_F)), 0x7F80);
    assert_int_equal(__bfloat16_as_ushort(__float2bfloat16_rn(3.4e38F)), 0x7F80);
    assert_int_equal(__bfloat16_as_ushort(__float2bfloat16_rn(CUDART_NAN_F)), 0x7FFF);
    const __nv_bfloat162 pair = __floats2bfloat162_rn(1.0F, -2.0F);
    assert_true(__low2float(pair) == 1.0F && __high2float(pair) == -2.0F);
    assert_int_equal(*(const uint16_t *)&pair, 0x3F80); /* the first comes first in memory */
}

static void test_device_functions(void **state)
{
    (void)state;
    assert_int_equal(__float2int_rn(2.5F), 2);
    assert_int_equal(__float2int_rz(-2.9F), -2);
    assert_int_equal(__float2int_rn(1e20F), INT32_MAX);
    assert_int_equal(__float2int_rn(CUDART_NAN_F), 0);
    assert_int_equal(__float2uint_rz(-1.0F), 0);
    assert_int_equal(__clz(0), 32);
    assert_int_equal(__brev(1), 0x80000000U);
    assert_int_equal(__byte_perm(0x33221100, 0x77665544, 0x7531), 0x77553311);
    assert_int_equal(__byte_perm(0x80, 0, 0x8888), 0xFFFFFFFF);
    assert_int_equal(__umulhi(0x80000000U, 6), 3);
    int word = 5;
    assert_int_equal(atomicCAS(&word, 4, 9), 5);
    assert_int_equal(atomicCAS(&word, 5, 9), 5);
    assert_int_equal(atomicMax(&word, 7), 9);
    assert_int_equal(atomicMax(&word, 12), 9);
    assert_int_equal(word, 12);
    assert_int_equal(sizeof(float4), 16);
    assert_int_equal(alignof(float4), 16);
    assert_int_equal(sizeof(uint3), 12);
}

/* -- matrix products -- */

/* One product: sizes, what is transposed, dtypes, how far apart columns are, and how many at once.
 */
struct product {
    int m, n, k;
    bool transpose_a, transpose_b, in_bf16, out_bf16, by_rows;
    int gap, batches;
    float alpha, beta;
};

struct library {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatmulPreference_t preference;
    cublasLtMatrixLayout_t layout[3];
};

struct numbers {
    std::vector<float> host;
    void *device;
    int rows, cols, ld;
    bool bf16;
};

#define CHECK_LT(call) assert_int_equal((call), CUBLAS_STATUS_SUCCESS)

static numbers numbers_make(int rows, int cols, const product &p, bool bf16, int seed)
{
    numbers made = {{}, nullptr, rows, cols, (p.by_rows ? cols : rows) + p.gap, bf16};
    const size_t lines = (size_t)(p.by_rows ? rows : cols) * (size_t)p.batches;
    made.host.resize(lines * (size_t)made.ld);
    std::vector<__nv_bfloat16> halves(made.host.size());
    for (size_t i = 0; i < made.host.size(); i++) {
        const float value = (float)((i * 7919 + (size_t)seed * 104729) % 1009) / 504.0F - 1.0F;
        halves[i] = __float2bfloat16_rn(value);
        made.host[i] = bf16 ? __bfloat162float(halves[i]) : value;
    }
    made.device = bf16 ? (void *)device_copy(halves.data(), halves.size())
                       : (void *)device_copy(made.host.data(), made.host.size());
    return made;
}

/* Element (row, col) of op(x) in a batch. */
static size_t place_of(const numbers &x, const product &p, int batch, bool transposed, int row,
                       int col)
{
    const int r = transposed ? col : row;
    const int c = transposed ? row : col;
    const int lines = p.by_rows ? x.rows : x.cols;
    const size_t first = (size_t)batch * (size_t)lines * (size_t)x.ld;
    return first + (p.by_rows ? (size_t)r * (size_t)x.ld + (size_t)c
                              : (size_t)c * (size_t)x.ld + (size_t)r);
}

static cublasLtMatrixLayout_t layout_make(const numbers &x, const product &p)
{
    cublasLtMatrixLayout_t made = nullptr;
    const int32_t order = p.by_rows ? CUBLASLT_ORDER_ROW : CUBLASLT_ORDER_COL;
    const int32_t batches = p.batches;
    const int64_t stride = (int64_t)x.ld * (p.by_rows ? x.rows : x.cols);
    CHECK_LT(cublasLtMatrixLayoutCreate(&made, x.bf16 ? CUDA_R_16BF : CUDA_R_32F, (uint64_t)x.rows,
                                        (uint64_t)x.cols, x.ld));
    CHECK_LT(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_ORDER, &order,
                                              sizeof(order)));
    CHECK_LT(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batches,
                                              sizeof(batches)));
    CHECK_LT(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                              &stride, sizeof(stride)));
    return made;
}

static library library_make(const product &p, const numbers (&x)[3])
{
    library made = {};
    const uint64_t workspace_bytes = 1 << 20;
    const uint32_t alignment = 4;
    const cublasOperation_t first = p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    CHECK_LT(cublasLtCreate(&made.handle));
    CHECK_LT(cublasLtMatmulDescCreate(&made.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    CHECK_LT(cublasLtMatmulDescSetAttribute(made.desc, CUBLASLT_MATMUL_DESC_TRANSA, &first,
                                            sizeof(first)));
    CHECK_LT(cublasLtMatmulDescSetAttribute(made.desc, CUBLASLT_MATMUL_DESC_TRANSB, &second,
                                            sizeof(second)));
    CHECK_LT(cublasLtMatmulPreferenceCreate(&made.preference));
    CHECK_LT(cublasLtMatmulPreferenceSetAttribute(made.preference,
                                                  CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                  &workspace_bytes, sizeof(workspace_bytes)));
    for (int i = 0; i < 4; i++) {
        CHECK_LT(cublasLtMatmulPreferenceSetAttribute(
            made.preference,
            (cublasLtMatmulPreferenceAttributes_t)(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES + i),
            &alignment, sizeof(alignment)));
    }
    for (int i = 0; i < 3; i++) {
        made.layout[i] = layout_make(x[i], p);
    }
    return made;
}

static void library_free(const library &made)
{
    for (cublasLtMatrixLayout_t layout : made.layout) {
        CHECK_LT(cublasLtMatrixLayoutDestroy(layout));
    }
    CHECK_LT(cublasLtMatmulPreferenceDestroy(made.preference));
    CHECK_LT(cublasLtMatmulDescDestroy(made.desc));
    CHECK_LT(cublasLtDestroy(made.handle));
}

static void check_product(const product &p, const numbers (&x)[3])
{
    std::vector<float> found(x[2].host.size());
    if (p.out_bf16) {
        std::vector<__nv_bfloat16> halves(found.size());
        host_copy(halves.data(), (const __nv_bfloat16 *)x[2].device, halves.size());
        for (size_t i = 0; i < found.size(); i++) {
            found[i] = __bfloat162float(halves[i]);
        }
    } else {
        host_copy(found.data(), (const float *)x[2].device, found.size());
    }
    std::vector<bool> written(found.size());
    for (int batch = 0; batch < p.batches; batch++) {
        for (int i = 0; i < p.m; i++) {
            for (int j = 0; j < p.n; j++) {
                double sum = 0.0;
                for (int l = 0; l < p.k; l++) {
                    sum += (double)x[0].host[place_of(x[0], p, batch, p.transpose_a, i, l)] *
                           (double)x[1].host[place_of(x[1], p, batch, p.transpose_b, l, j)];
                }
                const size_t at = place_of(x[2], p, batch, false, i, j);
                const double expected =
                    (double)p.alpha * sum +
                    (p.beta != 0.0F ? (double)p.beta * (double)x[2].host[at] : 0.0);
                written[at] = true;
                const double allowed =
                    p.out_bf16 ? 4e-3 * fabs(expected) + 1e-4 : 1e-5 * (fabs(expected) + 1.0);
                assert_true(fabs((double)found[at] - expected) <= allowed);
            }
        }
    }
    for (size_t i = 0; i < found.size(); i++) { /* what lies between the columns stays */
        assert_true(written[i] || found[i] == x[2].host[i]);
    }
}

static void run_product(const product &p)
{
    numbers x[3] = {
        numbers_make(p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p, p.in_bf16, 1),
        numbers_make(p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p, p.in_bf16, 2),
        numbers_make(p.m, p.n, p, p.out_bf16, 3)};
    const library lt = library_make(p, x);
    void *workspace = device_make<char>(1 << 20);
    cudaStream_t stream = stream_make();
    cublasLtMatmulHeuristicResult_t ways[4];
    int count = 0;
    CHECK_LT(cublasLtMatmulAlgoGetHeuristic(lt.handle, lt.desc, lt.layout[0], lt.layout[1],
                                            lt.layout[2], lt.layout[2], lt.preference, 4, ways,
                                            &count));
    assert_true(count >= 1);
    CHECK_LT(cublasLtMatmul(lt.handle, lt.desc, &p.alpha, x[0].device, lt.layout[0], x[1].device,
                            lt.layout[1], &p.beta, x[2].device, lt.layout[2], x[2].device,
                            lt.layout[2], &ways[0].algo, workspace, 1 << 20, stream));
    CHECK(cudaStreamSynchronize(stream));
    check_product(p, x);
    library_free(lt);
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(workspace));
    for (const numbers &matrix : x) {
        CHECK(cudaFree(matrix.device));
    }
}

static void test_products(void **state)
{
    (void)state;
    for (int variant = 0; variant < 32; variant++) {
        const bool transpose_a = variant & 1;
        const bool transpose_b = variant & 2;
        const bool in_bf16 = variant & 4;
        const bool by_rows = variant & 8;
        const bool out_bf16 = in_bf16 && (variant & 16);
        run_product(
            {6, 10, 34, transpose_a, transpose_b, in_bf16, out_bf16, by_rows, 2, 1, 1.0F, 0.0F});
        run_product(
            {514, 2, 300, transpose_a, transpose_b, in_bf16, out_bf16, by_rows, 0, 2, 0.5F, 2.0F});
    }
}

/* What the library would refuse. */
static void test_products_refused(void **state)
{
    (void)state;
    const product p = {4, 6, 8, false, false, true, true, false, 0, 1, 1.0F, 0.0F};
    numbers x[3] = {numbers_make(4, 8, p, true, 1), numbers_make(8, 6, p, true, 2),
                    numbers_make(4, 6, p, true, 3)};
    const library lt = library_make(p, x);
    cudaStream_t stream = stream_make();
    cublasLtMatmulHeuristicResult_t way;
    int count = 0;
    const auto choose = [&] {
        return cublasLtMatmulAlgoGetHeuristic(lt.handle, lt.desc, lt.layout[0], lt.layout[1],
                                              lt.layout[2], lt.layout[2], lt.preference, 1, &way,
                                              &count);
    };
    const auto multiply = [&](void *a, size_t workspace_bytes) {
        return cublasLtMatmul(lt.handle, lt.desc, &p.alpha, a, lt.layout[0], x[1].device,
                              lt.layout[1], &p.beta, x[2].device, lt.layout[2], x[2].device,
                              lt.layout[2], &way.algo, nullptr, workspace_bytes, stream);
    };
    CHECK_LT(choose());
    assert_int_equal(multiply(x[0].device, 0), CUBLAS_STATUS_INVALID_VALUE); /* no workspace */
    assert_int_equal(multiply((char *)x[0].device + 2, 1 << 20), CUBLAS_STATUS_INVALID_VALUE);
    const int64_t short_ld = 3;
    CHECK_LT(cublasLtMatrixLayoutSetAttribute(lt.layout[0], CUBLASLT_MATRIX_LAYOUT_LD, &short_ld,
                                              sizeof(short_ld)));
    assert_int_equal(choose(), CUBLAS_STATUS_INVALID_VALUE);
    const int64_t odd_ld = 5;
    CHECK_LT(cublasLtMatrixLayoutSetAttribute(lt.layout[0], CUBLASLT_MATRIX_LAYOUT_LD, &odd_ld,
                                              sizeof(odd_ld)));
    assert_int_equal(choose(), CUBLAS_STATUS_NOT_SUPPORTED);
    const int64_t even_ld = 4;
    CHECK_LT(cublasLtMatrixLayoutSetAttribute(lt.layout[0], CUBLASLT_MATRIX_LAYOUT_LD, &even_ld,
                                              sizeof(even_ld)));
    const uint64_t rows = 3;
    CHECK_LT(cublasLtMatrixLayoutSetAttribute(lt.layout[0], CUBLASLT_MATRIX_LAYOUT_ROWS, &rows,
                                              sizeof(rows)));
    assert_int_equal(choose(), CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(
        cublasLtMatrixLayoutSetAttribute(lt.layout[0], CUBLASLT_MATRIX_LAYOUT_LD, &odd_ld, 4),
        CUBLAS_STATUS_INVALID_VALUE);
    library_free(lt);
    CHECK(cudaStreamDestroy(stream));
    for (const numbers &matrix : x) {
        CHECK(cudaFree(matrix.device));
    }
}

/* -- sums over ranks -- */

enum { RANKS = 3, COUNT = 1000, SUMS = 4 };

/* A rank's thread: joins, and adds up its numbers several times over, with work before and after.
 */
static void rank_run(ncclUniqueId id, int rank, float *found)
{
    ncclComm_t comm = nullptr;
    cudaStream_t stream = stream_make();
    std::vector<float> numbers(COUNT);
    for (int i = 0; i < COUNT; i++) {
        numbers[(size_t)i] = ldexpf((float)(i % 97), rank * 12);
    }
    float *device = device_copy(numbers.data(), COUNT);
    assert_int_equal(ncclCommInitRank(&comm, RANKS, id, rank), ncclSuccess);
    for (int i = 0; i < SUMS; i++) {
        assert_int_equal(ncclAllReduce(device, device, COUNT, ncclFloat, ncclSum, comm, stream),
                         ncclSuccess);
    }
    CHECK(cudaStreamSynchronize(stream));
    host_copy(found, device, COUNT);
    assert_int_equal(ncclCommDestroy(comm), ncclSuccess);
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(device));
}

static void test_sums_over_ranks(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        setenv("TREX_CUDA_ON_CPU_LATE", late ? "2" : "", 1);
        static float found[RANKS][COUNT];
        ncclUniqueId id;
        std::vector<std::thread> ranks;
        assert_int_equal(ncclGetUniqueId(&id), ncclSuccess);
        for (int rank = 0; rank < RANKS; rank++) {
            ranks.emplace_back(rank_run, id, rank, found[rank]);
        }
        for (std::thread &rank : ranks) {
            rank.join();
        }
        for (int i = 0; i < COUNT; i++) {
            const float value = (float)(i % 97);
            float sum = value + ldexpf(value, 12) + ldexpf(value, 24);
            for (int again = 1; again < SUMS; again++) {
                sum = sum + sum + sum;
            }
            assert_true(found[0][i] == sum);
        }
        assert_memory_equal(found[0], found[1], sizeof(found[0]));
        assert_memory_equal(found[0], found[2], sizeof(found[0]));
    }
    unsetenv("TREX_CUDA_ON_CPU_LATE");
}

static void test_groups_that_cannot_be(void **state)
{
    (void)state;
    ncclUniqueId id = {};
    ncclComm_t comm = nullptr;
    assert_int_equal(ncclCommInitRank(&comm, 2, id, 2), ncclInvalidArgument);
    assert_int_equal(ncclCommInitRank(&comm, 2, id, 0), ncclSystemError); /* of another process */
    setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
    assert_int_equal(ncclGetUniqueId(&id), ncclSystemError);
    unsetenv("OMPI_COMM_WORLD_SIZE");
    assert_string_equal(ncclGetErrorString(ncclSystemError), "unhandled system error");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_device_functions),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_products_refused),
        cmocka_unit_test(test_sums_over_ranks),
        cmocka_unit_test(test_groups_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
