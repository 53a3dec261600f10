/* What adapters add to ranges of columns, against plain sums in f64. */
#include "harness.h"

struct range {
    int64_t width; /* 0: there is no such part */
    int64_t inner;
    int64_t gap; /* columns of y and of u before it that belong to no part */
};

struct adapters {
    int64_t rows;
    struct range ranges[LOW_RANK_PARTS_MAX];
};

/* The operands of one call; what lies between the parts of u is NaN. */
struct operands {
    struct matrix y;
    struct matrix u;
    struct matrix b[LOW_RANK_PARTS_MAX];
    struct low_rank_part parts[LOW_RANK_PARTS_MAX];
    int count;
};

static void operands_make(struct bench *bench, const struct adapters *adapters, enum dtype y_dtype,
                          struct operands *out)
{
    int64_t width = 8; /* some columns behind the last part */
    int64_t inner = 8;
    memset(out, 0, sizeof(*out));
    for (int i = 0; i < LOW_RANK_PARTS_MAX && adapters->ranges[i].width > 0; i++) {
        const struct range *range = &adapters->ranges[i];
        out->b[i] = matrix_make(bench, bench->dtype, range->width, range->inner, 0.5);
        out->parts[i] = (struct low_rank_part){width - 8 + range->gap, inner - 8 + range->gap,
                                               out->b[i].tensor};
        width += range->gap + range->width;
        inner += range->gap + range->inner;
        out->count++;
    }
    out->y = matrix_make(bench, y_dtype, adapters->rows, width, 1.0);
    out->u = matrix_make(bench, bench->dtype, adapters->rows, inner, 0.0);
    for (int64_t i = 0; i < adapters->rows * inner; i++) {
        out->u.value[i] = NAN;
    }
    for (int part = 0; part < out->count; part++) {
        const int64_t first = out->parts[part].first_inner;
        for (int64_t i = 0; i < adapters->rows * out->parts[part].b.cols; i++) {
            const int64_t row = i / out->parts[part].b.cols;
            const int64_t col = first + i % out->parts[part].b.cols;
            out->u.value[row * inner + col] = round_to(bench->dtype, rng_normal(&bench->rng));
        }
    }
    matrix_upload(bench, &out->u);
}

/* y as it must become. */
static double *expect(struct bench *bench, const struct operands *o, float scale)
{
    double *expected = values_copy(bench, &o->y);
    const int64_t width = o->y.tensor.cols;
    const int64_t inner = o->u.tensor.cols;
    for (int i = 0; i < o->count; i++) {
        const struct low_rank_part *part = &o->parts[i];
        for (int64_t c = 0; c < part->b.rows; c++) {
            for (int64_t r = 0; r < o->y.tensor.rows; r++) {
                double sum = 0.0;
                for (int64_t k = 0; k < part->b.cols; k++) {
                    sum += o->u.value[r * inner + part->first_inner + k] *
                           o->b[i].value[c * part->b.cols + k];
                }
                expected[r * width + part->first + c] += (double)scale * sum;
            }
        }
    }
    return expected;
}

/* Row by row: the parts, of which the result is rounded more than the f32 sums of a size of about
 * that of its inner columns, and the columns between them, which stay. */
static void check_rows(const struct operands *o, const double *expected, float scale)
{
    const int64_t width = o->y.tensor.cols;
    const double tolerance = dtype_tolerance(o->y.tensor.dtype);
    char what[64];
    for (int64_t r = 0; r < o->y.tensor.rows; r++) {
        const double *found = o->y.value + r * width;
        int64_t end = 0; /* of the columns that are checked */
        for (int i = 0; i <= o->count; i++) {
            const int64_t first = i < o->count ? o->parts[i].first : width;
            (void)snprintf(what, sizeof(what), "row %lld before part %d", (long long)r, i);
            check_close(what, found + end, expected + r * width + end, first - end, 0.0, 0.0);
            if (i < o->count) {
                const struct tensor b = o->parts[i].b;
                const double size = 1.0 + 0.5 * fabs((double)scale) * (double)b.cols;
                (void)snprintf(what, sizeof(what), "row %lld of part %d", (long long)r, i);
                check_close(what, found + first, expected + r * width + first, b.rows, tolerance,
                            2e-6 / tolerance * size);
                end = first + b.rows;
            }
        }
    }
}

static void check_adapters(struct bench *bench, const struct adapters *adapters, enum dtype y_dtype,
                           float scale)
{
    struct operands o;
    operands_make(bench, adapters, y_dtype, &o);
    double *expected = expect(bench, &o, scale);
    bench->ops->low_rank_add(bench->device, o.y.tensor, o.u.tensor, o.parts, o.count, scale);
    matrix_download(bench, &o.y);
    check_rows(&o, expected, scale);
    bench_clear(bench);
}

/* Ranges that a kernel by tiles can do, and such that it cannot, alone and beside one another. */
static void test_low_rank_add(struct bench *bench)
{
    static const struct adapters all[] = {
        {0, {{16, 8, 0}, {8, 8, 0}}},
        {1, {{8, 8, 0}}},
        {1, {{264, 16, 0}, {136, 16, 8}, {128, 16, 0}}},
        {7, {{1, 1, 0}, {5, 4, 1}, {3, 2, 0}}},
        {33, {{24, 4, 0}, {17, 16, 3}}},
        {127, {{128, 16, 0}, {8, 8, 0}, {120, 24, 16}}},
        {128, {{128, 64, 0}}},
        {129, {{136, 64, 8}, {64, 64, 0}}},
        {300, {{40, 16, 0}, {72, 40, 0}, {200, 8, 24}}},
        {40, {{144, 128, 0}, {16, 8, 0}, {8, 72, 8}}},
        {131, {{64, 256, 0}, {88, 136, 0}}},
        {9, {{16, 264, 0}}},
        {21, {{31, 127, 0}, {64, 64, 1}}},
        {66, {{96, 12, 0}, {32, 16, 0}}},
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        check_adapters(bench, &all[i], bench->dtype, 2.0F);
        check_adapters(bench, &all[i], bench->dtype, -0.375F);
        check_adapters(bench, &all[i], DTYPE_F32, 0.75F);
    }
}

/* A part that begins anywhere in y and u, and B anywhere in memory. */
static void test_alignments(struct bench *bench)
{
    enum { ROWS = 9, COLS = 16, INNER = 8, WIDTH = 40 };
    for (int64_t at = 0; at < 27 && bench->gap == 0; at++) {
        const int64_t y_at = at % 3 * 4;
        const int64_t u_at = at / 3 % 3 * 4;
        const int64_t b_at = at / 9 * 4;
        struct matrix y = matrix_make(bench, bench->dtype, ROWS, WIDTH, 1.0);
        struct matrix u = matrix_make(bench, bench->dtype, ROWS, WIDTH, 1.0);
        struct matrix b = matrix_make(bench, bench->dtype, COLS, WIDTH, 1.0);
        const struct low_rank_part part = {y_at, u_at, tensor_cols(b.tensor, b_at, INNER)};
        double *expected = values_copy(bench, &y);
        for (int64_t i = 0; i < ROWS * COLS; i++) {
            for (int64_t k = 0; k < INNER; k++) {
                expected[i / COLS * WIDTH + y_at + i % COLS] +=
                    u.value[i / COLS * WIDTH + u_at + k] * b.value[i % COLS * WIDTH + b_at + k];
            }
        }
        bench->ops->low_rank_add(bench->device, y.tensor, u.tensor, &part, 1, 1.0F);
        matrix_check(bench, "y", &y, expected, dtype_tolerance(bench->dtype), 5.0);
        bench_clear(bench);
    }
}

/* A row with a NaN spoils itself alone. */
static void test_nan_stays_in_its_row(struct bench *bench)
{
    static const struct adapters adapters = {50, {{40, 8, 0}}};
    struct operands o;
    operands_make(bench, &adapters, bench->dtype, &o);
    o.u.value[17 * o.u.tensor.cols + 3] = NAN;
    matrix_upload(bench, &o.u);
    bench->ops->low_rank_add(bench->device, o.y.tensor, o.u.tensor, o.parts, o.count, 1.0F);
    matrix_download(bench, &o.y);
    for (int64_t i = 0; i < 50 * o.y.tensor.cols; i++) {
        if (i / o.y.tensor.cols == 17 && i % o.y.tensor.cols < 40) {
            check_nan(o.y.value[i]);
        } else {
            check_number(o.y.value[i]);
        }
    }
}

static void test_same_bits(struct bench *bench)
{
    static const struct adapters adapters = {150, {{136, 16, 0}, {40, 80, 8}}};
    struct operands o;
    operands_make(bench, &adapters, bench->dtype, &o);
    double *before = values_copy(bench, &o.y);
    double *first = NULL;
    for (int run = 0; run < 3; run++) {
        memcpy(o.y.value, before, (size_t)(150 * o.y.tensor.cols) * sizeof(double));
        matrix_upload(bench, &o.y);
        bench->ops->low_rank_add(bench->device, o.y.tensor, o.u.tensor, o.parts, o.count, 0.3F);
        if (first == NULL) {
            matrix_download(bench, &o.y);
            first = values_copy(bench, &o.y);
        } else {
            matrix_check(bench, "y again", &o.y, first, 0.0, 0.0);
        }
    }
}

int main(void)
{
    static const struct kernel_test tests[] = {
        {"low_rank_add", test_low_rank_add},
        {"low_rank_add of any alignment", test_alignments},
        {"low_rank_add with a NaN", test_nan_stays_in_its_row},
        {"low_rank_add twice", test_same_bits},
    };
    return kernel_tests_run("low_rank", tests, sizeof(tests) / sizeof(tests[0]));
}
