/* Matrix products against plain sums in f64. */
#include "harness.h"

struct product {
    int64_t rows;
    int64_t cols;
    int64_t depth;
};

/* f32 sums of many products round many times, and tensor cores cut off what they add instead of
 * rounding it: for sums as deep as a vocabulary that is more than rounding the result. */
static double product_tolerance(enum dtype dtype, enum dtype c_dtype, int64_t depth)
{
    const double steps = dtype == DTYPE_BF16 ? (double)depth / 16.0 : 0.0;
    const double sums = fmax(1e-7 * sqrt((double)depth), 6e-8 * steps);
    return fmax(dtype_tolerance(c_dtype), sums);
}

static void check_product(struct bench *bench, struct product p, bool transpose_a, bool transpose_b,
                          enum dtype c_dtype, float alpha, float beta)
{
    struct matrix a = transpose_a ? matrix_make(bench, bench->dtype, p.depth, p.rows, 1.0)
                                  : matrix_make(bench, bench->dtype, p.rows, p.depth, 1.0);
    struct matrix b = transpose_b ? matrix_make(bench, bench->dtype, p.cols, p.depth, 1.0)
                                  : matrix_make(bench, bench->dtype, p.depth, p.cols, 1.0);
    struct matrix c = matrix_make(bench, c_dtype, p.rows, p.cols, 1.0);
    double *expected = values_copy(bench, &c);
    for (int64_t i = 0; i < p.rows; i++) {
        for (int64_t j = 0; j < p.cols; j++) {
            double sum = 0.0;
            for (int64_t k = 0; k < p.depth; k++) {
                sum += a.value[transpose_a ? k * p.rows + i : i * p.depth + k] *
                       b.value[transpose_b ? j * p.depth + k : k * p.cols + j];
            }
            double *e = expected + i * p.cols + j;
            *e = (double)alpha * sum + (beta == 0.0F ? 0.0 : (double)beta * *e);
        }
    }
    bench->ops->matmul(bench->device, c.tensor, a.tensor, transpose_a, b.tensor, transpose_b, alpha,
                       beta);
    matrix_check(bench, "c", &c, expected, product_tolerance(bench->dtype, c_dtype, p.depth),
                 fabs((double)alpha) * sqrt((double)p.depth) + 1.0);
    bench_clear(bench);
}

static void test_matmul(struct bench *bench)
{
    static const struct product products[] = {
        {1, 1, 1},     {3, 5, 7}, {1, 33, 64}, {17, 1, 31},    {64, 64, 64},   {33, 172, 64},
        {70, 64, 172}, {0, 5, 4}, {5, 0, 4},   {4, 5, 0},      {128, 96, 130}, {2, 8, 512},
        {65, 33, 1},   {1, 9, 1}, {31, 1, 17}, {31, 127, 255},
    };
    for (size_t i = 0; i < sizeof(products) / sizeof(products[0]); i++) {
        for (unsigned which = 0; which < 4; which++) {
            check_product(bench, products[i], which % 2 == 1, which / 2 == 1, bench->dtype, 1.0F,
                          0.0F);
            check_product(bench, products[i], which % 2 == 1, which / 2 == 1, DTYPE_F32, 1.0F,
                          1.0F);
            check_product(bench, products[i], which % 2 == 1, which / 2 == 1, DTYPE_F32, 0.5F,
                          -2.0F);
            check_product(bench, products[i], which % 2 == 1, which / 2 == 1, bench->dtype, -1.5F,
                          0.5F);
        }
    }
}

static void test_large_vocabulary(struct bench *bench)
{
    if (bench->gap == 0) {
        check_product(bench, (struct product){2, 151936, 16}, false, true, bench->dtype, 1.0F,
                      0.0F);
        check_product(bench, (struct product){16, 2, 151936}, true, false, DTYPE_F32, 1.0F, 1.0F);
        check_product(bench, (struct product){1, 151936, 8}, false, true, DTYPE_F32, 1.0F, 0.0F);
        check_product(bench, (struct product){1, 8, 151936}, false, false, bench->dtype, 1.0F,
                      0.0F);
    }
}

/* beta 0 must not read what was in c */
static void test_beta_zero_ignores_nan(struct bench *bench)
{
    struct matrix a = matrix_make(bench, bench->dtype, 9, 20, 1.0);
    struct matrix b = matrix_make(bench, bench->dtype, 20, 13, 1.0);
    struct matrix c = matrix_make(bench, bench->dtype, 9, 13, 0.0);
    bench->ops->fill(bench->device, c.tensor, NAN);
    bench->ops->matmul(bench->device, c.tensor, a.tensor, false, b.tensor, false, 1.0F, 0.0F);
    matrix_download(bench, &c);
    for (int64_t i = 0; i < 9 * 13; i++) {
        check_number(c.value[i]);
    }
}

/* Products of column ranges of wider matrices, as the fused projections use them. */
static void test_column_views(struct bench *bench)
{
    struct matrix a = matrix_make(bench, bench->dtype, 21, 48, 1.0);
    struct matrix b = matrix_make(bench, bench->dtype, 30, 48, 1.0);
    struct matrix c = matrix_make(bench, DTYPE_F32, 21, 64, 1.0);
    double *expected = values_copy(bench, &c);
    for (int64_t i = 0; i < 21; i++) {
        for (int64_t j = 0; j < 30; j++) {
            for (int64_t k = 0; k < 20; k++) {
                expected[i * 64 + 10 + j] += a.value[i * 48 + 5 + k] * b.value[j * 48 + 17 + k];
            }
        }
    }
    bench->ops->matmul(bench->device, tensor_cols(c.tensor, 10, 30), tensor_cols(a.tensor, 5, 20),
                       false, tensor_cols(b.tensor, 17, 20), true, 1.0F, 1.0F);
    matrix_check(bench, "c", &c, expected, 2e-6, 5.0);
}

/* Views that begin anywhere: all alignments of a, b and c, as parts of one matrix may have them. */
static void test_alignments(struct bench *bench)
{
    enum { ROWS = 9, COLS = 10, DEPTH = 12, WIDTH = 40 };
    for (int64_t at = 0; at < 18 && bench->gap == 0; at++) {
        const int64_t a_at = at % 5;
        const int64_t b_at = at % 7;
        struct matrix a = matrix_make(bench, bench->dtype, ROWS, WIDTH, 1.0);
        struct matrix b = matrix_make(bench, bench->dtype, DEPTH, WIDTH, 1.0);
        struct matrix c = matrix_make(bench, bench->dtype, ROWS, WIDTH, 1.0);
        double *expected = values_copy(bench, &c);
        for (int64_t i = 0; i < ROWS; i++) {
            for (int64_t j = 0; j < COLS; j++) {
                double *e = expected + i * WIDTH + at + j;
                for (int64_t k = 0; k < DEPTH; k++) {
                    *e += a.value[i * WIDTH + a_at + k] * b.value[k * WIDTH + b_at + j];
                }
            }
        }
        bench->ops->matmul(bench->device, tensor_cols(c.tensor, at, COLS),
                           tensor_cols(a.tensor, a_at, DEPTH), false,
                           tensor_cols(b.tensor, b_at, COLS), false, 1.0F, 1.0F);
        matrix_check(bench, "c", &c, expected, dtype_tolerance(bench->dtype), 5.0);
        bench_clear(bench);
    }
}

/* alpha 0 leaves beta c; the products are not looked at. */
static void test_alpha_zero(struct bench *bench)
{
    struct matrix a = matrix_make(bench, bench->dtype, 6, 8, 1.0);
    struct matrix b = matrix_make(bench, bench->dtype, 8, 5, 1.0);
    struct matrix c = matrix_make(bench, DTYPE_F32, 6, 5, 1.0);
    double *expected = values_copy(bench, &c);
    for (int i = 0; i < 6 * 5; i++) {
        expected[i] *= 0.25;
    }
    bench->ops->matmul(bench->device, c.tensor, a.tensor, false, b.tensor, false, 0.0F, 0.25F);
    matrix_check(bench, "c", &c, expected, 2e-6, 0.0);
}

/* More shapes than the cache of generated code or of plans holds, twice: what it drops is made
 * anew. */
static void test_many_shapes(struct bench *bench)
{
    const int64_t most = strcmp(bench->ops->name, "cuda") == 0 ? 1200 : 150;
    for (int pass = 0; pass < 2 && bench->gap == 0; pass++) {
        for (int64_t rows = 1; rows <= most; rows += 1) {
            check_product(bench, (struct product){rows, 3, 8}, false, true, bench->dtype,
                          1.0F + (float)rows, 0.0F);
        }
    }
}

static void test_same_bits(struct bench *bench)
{
    struct matrix a = matrix_make(bench, bench->dtype, 300, 40, 1.0);
    struct matrix b = matrix_make(bench, bench->dtype, 300, 56, 1.0);
    struct matrix c = matrix_make(bench, DTYPE_F32, 40, 56, 0.0);
    bench->ops->matmul(bench->device, c.tensor, a.tensor, true, b.tensor, false, 1.0F, 0.0F);
    matrix_download(bench, &c);
    double *first = values_copy(bench, &c);
    for (int run = 0; run < 5; run++) {
        bench->ops->matmul(bench->device, c.tensor, a.tensor, true, b.tensor, false, 1.0F, 0.0F);
        matrix_check(bench, "c again", &c, first, 0.0, 0.0);
    }
}

int main(void)
{
    static const struct kernel_test tests[] = {
        {"matmul", test_matmul},
        {"matmul with a large vocabulary", test_large_vocabulary},
        {"matmul with beta 0", test_beta_zero_ignores_nan},
        {"matmul of column views", test_column_views},
        {"matmul of any alignment", test_alignments},
        {"matmul with alpha 0", test_alpha_zero},
        {"matmul of many shapes", test_many_shapes},
        {"matmul twice", test_same_bits},
    };
    return kernel_tests_run("matmul", tests, sizeof(tests) / sizeof(tests[0]));
}
