/* Copy, fill, add, scale, gather and scatter. */
#include "harness.h"

static const int64_t shapes[][2] = {{0, 5}, {1, 1}, {3, 7}, {17, 33}, {1, 20011}, {300, 64}};
enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

static enum dtype other_dtype(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? DTYPE_BF16 : DTYPE_F32;
}

static void test_copy(struct bench *bench)
{
    for (int n = 0; n < 2 * SHAPES; n++) {
        const int64_t rows = shapes[n / 2][0];
        const int64_t cols = shapes[n / 2][1];
        enum dtype to_dtype = n % 2 == 0 ? bench->dtype : other_dtype(bench->dtype);
        struct matrix from = matrix_make(bench, bench->dtype, rows, cols, 1.0);
        struct matrix to = matrix_make(bench, to_dtype, rows, cols, 1.0);
        double *expected = values_copy(bench, &from);
        for (int64_t i = 0; i < rows * cols; i++) {
            expected[i] = round_to(to_dtype, expected[i]);
        }
        bench->ops->copy(bench->device, to.tensor, from.tensor);
        matrix_check(bench, "to", &to, expected, 0.0, 0.0);
        bench_clear(bench);
    }
}

/* Ties go to the even neighbour; infinities, NaN, denormals and signed zeros survive. */
static void test_rounding(struct bench *bench)
{
    static const float hard[] = {
        1.00390625F, 1.01171875F, -1.00390625F, 0.0F, -0.0F,  INFINITY, -INFINITY,  3.4e38F, 1e-40F,
        -1e-45F,     65535.0F,    1.0F,         0.1F, 1e-38F, NAN,      3.3895e38F, 2.0F,    3.0F};
    enum { COUNT = sizeof(hard) / sizeof(hard[0]) };
    struct matrix from = matrix_make(bench, DTYPE_F32, 1, COUNT, 0.0);
    struct matrix to = matrix_make(bench, DTYPE_BF16, 1, COUNT, 0.0);
    for (int i = 0; i < COUNT; i++) {
        from.value[i] = (double)hard[i];
    }
    matrix_upload(bench, &from);
    bench->ops->copy(bench->device, to.tensor, from.tensor);
    matrix_download(bench, &to);
    for (int i = 0; i < COUNT; i++) {
        if (isnan(hard[i])) {
            check_nan(to.value[i]);
        } else if (to.value[i] != (double)float_of_bf16(bf16_of(hard[i]))) {
            fail_msg("%g became %g", (double)hard[i], to.value[i]);
        }
    }
}

static void test_copy_integers(struct bench *bench)
{
    int32_t host[5] = {1, -1, INT32_MAX, INT32_MIN, 0x7FC00001};
    int32_t back[5] = {0};
    int32_t *from = ints_upload(bench, host, 5);
    int32_t *to = ints_upload(bench, back, 5);
    bench->ops->copy(bench->device, tensor_matrix(to, DTYPE_I32, 1, 5),
                     tensor_matrix(from, DTYPE_I32, 1, 5));
    bench->ops->download(bench->device, back, to, sizeof(back));
    assert_memory_equal(back, host, sizeof(host));
}

static void test_fill_and_scale(struct bench *bench)
{
    for (int n = 0; n < SHAPES; n++) {
        const int64_t count = shapes[n][0] * shapes[n][1];
        struct matrix to = matrix_make(bench, bench->dtype, shapes[n][0], shapes[n][1], 1.0);
        double *expected = values_copy(bench, &to);
        for (int64_t i = 0; i < count; i++) {
            expected[i] = round_to(bench->dtype, expected[i] * -0.375);
        }
        bench->ops->scale(bench->device, to.tensor, -0.375F);
        matrix_check(bench, "scaled", &to, expected, 0.0, 0.0);
        for (int64_t i = 0; i < count; i++) {
            expected[i] = round_to(bench->dtype, 0.7);
        }
        bench->ops->fill(bench->device, to.tensor, 0.7F);
        matrix_check(bench, "filled", &to, expected, 1e-7, 0.0);
        bench_clear(bench);
    }
}

static void test_add(struct bench *bench)
{
    for (int n = 0; n < 2 * SHAPES; n++) {
        const int64_t rows = shapes[n / 2][0];
        const int64_t cols = shapes[n / 2][1];
        enum dtype from_dtype = n % 2 == 0 ? bench->dtype : other_dtype(bench->dtype);
        struct matrix from = matrix_make(bench, from_dtype, rows, cols, 1.0);
        struct matrix to = matrix_make(bench, bench->dtype, rows, cols, 1.0);
        double *expected = values_copy(bench, &to);
        for (int64_t i = 0; i < rows * cols; i++) {
            expected[i] =
                round_to(bench->dtype, (double)((float)expected[i] + (float)from.value[i]));
        }
        bench->ops->add(bench->device, to.tensor, from.tensor);
        matrix_check(bench, "sum", &to, expected, 0.0, 0.0);
        bench_clear(bench);
    }
}

static void test_gather(struct bench *bench)
{
    static const int32_t index[] = {3, -1, 0, 10, 3, -7, 9};
    enum { ROWS = sizeof(index) / sizeof(index[0]) };
    for (int n = 0; n < 4; n++) {
        const int64_t cols = n < 2 ? 37 : 72;
        const int64_t rows = n == 3 ? 0 : ROWS;
        enum dtype to_dtype = n % 2 == 0 ? bench->dtype : other_dtype(bench->dtype);
        struct matrix table = matrix_make(bench, bench->dtype, 11, cols, 1.0);
        struct matrix to = matrix_make(bench, to_dtype, rows, cols, 1.0);
        double *expected = values_copy(bench, &to);
        for (int64_t i = 0; i < rows * cols; i++) {
            int32_t row = index[i / cols];
            expected[i] = row < 0 ? 0.0 : round_to(to_dtype, table.value[row * cols + i % cols]);
        }
        bench->ops->gather_rows(bench->device, to.tensor, table.tensor,
                                ints_upload(bench, index, rows));
        matrix_check(bench, "gathered", &to, expected, 0.0, 0.0);
        bench_clear(bench);
    }
}

/* Rows are added in their order, to the bit. */
static void check_scatter(struct bench *bench, int64_t rows, int64_t table_rows, int64_t cols,
                          const int32_t *index)
{
    struct matrix table = matrix_make(bench, DTYPE_F32, table_rows, cols, 1.0);
    struct matrix from = matrix_make(bench, bench->dtype, rows, cols, 1.0);
    double *expected = values_copy(bench, &table);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < cols && index[r] >= 0; c++) {
            double *sum = expected + index[r] * cols + c;
            *sum = (double)((float)*sum + (float)from.value[r * cols + c]);
        }
    }
    bench->ops->scatter_add_rows(bench->device, table.tensor, from.tensor,
                                 ints_upload(bench, index, rows));
    matrix_check(bench, "table", &table, expected, 0.0, 0.0);
    bench_clear(bench);
}

static void test_scatter(struct bench *bench)
{
    enum { ROWS = 1300, TABLE = 11 };
    int32_t index[ROWS];
    for (int r = 0; r < ROWS; r++) {
        index[r] = (int32_t)rng_below(&bench->rng, TABLE + 1) - 1;
    }
    check_scatter(bench, 700, TABLE, 64, index);
    check_scatter(bench, 70, TABLE, 37, index);
    check_scatter(bench, 1, TABLE, 8, index);
    check_scatter(bench, 0, TABLE, 8, index);
    for (int r = 0; r < ROWS; r++) { /* nearly all rows have one index */
        index[r] = r % 100 == 99 ? r / 100 : 4;
    }
    check_scatter(bench, ROWS, 13, 24, index);
}

/* -- accumulate -- */

static double total_download(struct bench *bench, const double *total)
{
    double value = 0.0;
    bench->ops->download(bench->device, &value, total, sizeof(value));
    return value;
}

static void test_accumulate(struct bench *bench)
{
    static const int64_t counts[] = {0, 1, 31, 1000, 32768, 32769, 100003};
    for (size_t n = 0; n < sizeof(counts) / sizeof(counts[0]); n++) {
        struct matrix values = vector_make(bench, counts[n], 1.0);
        double *total = bench_device(bench, sizeof(*total));
        const double start = 1e9;
        double expected = start;
        double sizes = start;
        for (int64_t i = 0; i < counts[n]; i++) {
            expected += values.value[i];
            sizes += fabs(values.value[i]);
        }
        bench->ops->upload(bench->device, total, &start, sizeof(start));
        bench->ops->accumulate(bench->device, total, vector_data(&values), counts[n]);
        const double first = total_download(bench, total);
        check_close("total", &first, &expected, 1, 1e-14, sizes);
        bench->ops->upload(bench->device, total, &start, sizeof(start));
        bench->ops->accumulate(bench->device, total, vector_data(&values), counts[n]);
        assert_true(total_download(bench, total) == first); /* the same bits */
        bench->ops->accumulate(bench->device, total, vector_data(&values), counts[n]);
        const double twice = total_download(bench, total);
        expected += expected - start;
        check_close("total of both", &twice, &expected, 1, 1e-14, 2.0 * sizes);
        bench_clear(bench);
    }
}

static void test_index_out_of_range(struct bench *bench)
{
    static const int32_t index[] = {0, 5};
    struct error err = {0};
    struct matrix table = matrix_make(bench, DTYPE_F32, 5, 8, 1.0);
    struct matrix rows = matrix_make(bench, DTYPE_F32, 2, 8, 1.0);
    int32_t *device_index = ints_upload(bench, index, 2);
    bench->ops->gather_rows(bench->device, rows.tensor, table.tensor, device_index);
    assert_int_equal(bench->ops->check(bench->device, &err), STATUS_RANGE);
    assert_non_null(strstr(err.message, "gather_rows"));
    bench->ops->scatter_add_rows(bench->device, table.tensor, rows.tensor, device_index);
    assert_int_equal(bench->ops->check(bench->device, &err), STATUS_RANGE);
    assert_non_null(strstr(err.message, "scatter_add_rows"));
}

int main(void)
{
    static const struct kernel_test tests[] = {
        {"copy", test_copy},
        {"rounding to bf16", test_rounding},
        {"copy of integers", test_copy_integers},
        {"fill and scale", test_fill_and_scale},
        {"add", test_add},
        {"gather_rows", test_gather},
        {"scatter_add_rows", test_scatter},
        {"accumulate", test_accumulate},
        {"index out of range", test_index_out_of_range},
    };
    return kernel_tests_run("moving", tests, sizeof(tests) / sizeof(tests[0]));
}
