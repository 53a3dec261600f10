/* Attention over packed sequences, forward and backward, against plain sums in f64. */
#include "harness.h"

enum { SEQUENCES_MAX = 48 };

struct attention_case {
    int64_t heads;
    int64_t kv_heads;
    int64_t dim;
    int64_t sequences;
    int32_t length[SEQUENCES_MAX];
};

static const struct attention_case cases[] = {
    {1, 1, 2, 1, {1}},
    {2, 1, 8, 3, {1, 1, 5}},
    {8, 4, 8, 4, {31, 32, 33, 7}},
    {2, 2, 48, 3, {50, 0, 49}},
    {4, 2, 6, 2, {97, 3}},
    {3, 1, 64, 1, {130}},
    {2, 1, 40, 2, {129, 128}},
    {1, 1, 128, 2, {64, 15}},
    {2, 2, 256, 1, {20}},
    {1, 1, 16, 1, {411}},
    {8, 1, 64, 2, {65, 130}},
    {2, 1, 80, 1, {100}},
    {2, 1, 128, 1, {200}},
    {2, 1, 256, 1, {70}},
    {2, 2, 16, 41, {1, 1, 2, 1, 3, 1, 1, 1, 1, 9, 1, 1, 1, 4, 1, 1, 1, 1, 1, 1, 65,
                    1, 1, 2, 1, 0, 1, 1, 1, 1, 9, 1, 1, 1, 4, 1, 1, 1, 0, 0, 33}},
};
enum { CASES = sizeof(cases) / sizeof(cases[0]) };

static int64_t starts_of(const struct attention_case *c, int32_t starts[SEQUENCES_MAX + 1])
{
    starts[0] = 0;
    for (int64_t s = 0; s < c->sequences; s++) {
        starts[s + 1] = starts[s] + c->length[s];
    }
    return starts[c->sequences];
}

static struct attention_shape shape_of(const struct attention_case *c)
{
    return (struct attention_shape){c->heads, c->kv_heads, c->dim, 1.0F / sqrtf((float)c->dim)};
}

/* Row i of head h: out (D) and the logarithm of the sum of its weights. */
static double reference_row(const struct attention_case *c, const double *qkv, int64_t first,
                            int64_t i, int64_t h, double *out)
{
    const int64_t width = (c->heads + 2 * c->kv_heads) * c->dim;
    const int64_t kv = h / (c->heads / c->kv_heads);
    const double scale = (double)shape_of(c).scale;
    const double *q = qkv + i * width + h * c->dim;
    double score[512];
    double top = -INFINITY;
    double total = 0.0;
    for (int64_t j = first; j <= i; j++) {
        const double *k = qkv + j * width + (c->heads + kv) * c->dim;
        double dot = 0.0;
        for (int64_t d = 0; d < c->dim; d++) {
            dot += q[d] * k[d];
        }
        score[j - first] = dot * scale;
        top = fmax(top, score[j - first]);
    }
    memset(out, 0, (size_t)c->dim * sizeof(double));
    for (int64_t j = first; j <= i; j++) {
        const double *v = qkv + j * width + (c->heads + c->kv_heads + kv) * c->dim;
        double weight = exp(score[j - first] - top);
        total += weight;
        for (int64_t d = 0; d < c->dim; d++) {
            out[d] += weight * v[d];
        }
    }
    for (int64_t d = 0; d < c->dim; d++) {
        out[d] /= total;
    }
    return top + log(total);
}

/* out (N,H*D), log_sum_exp (H,N) or NULL */
static void reference_forward(const struct attention_case *c, const double *qkv, double *out,
                              double *log_sum_exp)
{
    int32_t starts[SEQUENCES_MAX + 1];
    int64_t rows = starts_of(c, starts);
    for (int64_t s = 0; s < c->sequences; s++) {
        for (int64_t i = starts[s]; i < starts[s + 1]; i++) {
            for (int64_t h = 0; h < c->heads; h++) {
                double lse =
                    reference_row(c, qkv, starts[s], i, h, out + (i * c->heads + h) * c->dim);
                if (log_sum_exp != NULL) {
                    log_sum_exp[h * rows + i] = lse;
                }
            }
        }
    }
}

static void check_forward(struct bench *bench, const struct attention_case *c)
{
    int32_t starts[SEQUENCES_MAX + 1];
    int64_t rows = starts_of(c, starts);
    struct attention_shape shape = shape_of(c);
    const double size = c->dim < 128 ? 1.5 : 1.0; /* rounding of long sums shows in large scores */
    struct matrix qkv =
        matrix_make(bench, bench->dtype, rows, (c->heads + 2 * c->kv_heads) * c->dim, size);
    struct matrix out = matrix_make(bench, bench->dtype, rows, c->heads * c->dim, 1.0);
    struct matrix lse = vector_make(bench, c->heads * rows, 1.0);
    double *expected = bench_host(bench, rows * c->heads * c->dim, sizeof(double));
    double *expected_lse = bench_host(bench, rows * c->heads, sizeof(double));
    reference_forward(c, qkv.value, expected, expected_lse);
    int32_t *device_starts = ints_upload(bench, starts, c->sequences + 1);
    bench->ops->attention_forward(bench->device, out.tensor, vector_data(&lse), qkv.tensor, &shape,
                                  device_starts, c->sequences);
    matrix_check(bench, "out", &out, expected, 2.0 * dtype_tolerance(bench->dtype), 1.0);
    matrix_check(bench, "log_sum_exp", &lse, expected_lse, 2e-6, 1.0);
    bench->ops->fill(bench->device, out.tensor, 7.0F);
    bench->ops->attention_forward(bench->device, out.tensor, NULL, qkv.tensor, &shape,
                                  device_starts, c->sequences);
    matrix_check(bench, "out without log_sum_exp", &out, expected,
                 2.0 * dtype_tolerance(bench->dtype), 1.0);
    bench_clear(bench);
}

static void test_forward(struct bench *bench)
{
    for (int n = 0; n < CASES; n++) {
        check_forward(bench, &cases[n]);
    }
}

static void test_no_tokens(struct bench *bench)
{
    struct attention_shape shape = {2, 1, 8, 0.3F};
    struct matrix empty = matrix_make(bench, bench->dtype, 0, 32, 1.0);
    struct matrix out = matrix_make(bench, bench->dtype, 0, 16, 1.0);
    int32_t starts[1] = {0};
    int32_t *device_starts = ints_upload(bench, starts, 1);
    bench->ops->attention_forward(bench->device, out.tensor, NULL, empty.tensor, &shape,
                                  device_starts, 0);
    bench->ops->attention_backward(bench->device, empty.tensor, out.tensor, empty.tensor,
                                   out.tensor, NULL, &shape, device_starts, 0);
}

/* The gradient in f64, straight from the definition: d_qkv (N,(H+2K)*D). */
static void reference_backward(const struct attention_case *c, const double *qkv, const double *out,
                               const double *lse, const double *d_out, double *d_qkv)
{
    int32_t starts[SEQUENCES_MAX + 1];
    const int64_t rows = starts_of(c, starts);
    const int64_t width = (c->heads + 2 * c->kv_heads) * c->dim;
    const double scale = (double)shape_of(c).scale;
    memset(d_qkv, 0, (size_t)(rows * width) * sizeof(double));
    for (int64_t s = 0; s < c->sequences; s++) {
        for (int64_t at = starts[s] * c->heads; at < starts[s + 1] * c->heads; at++) {
            const int64_t i = at / c->heads;
            const int64_t h = at % c->heads;
            const int64_t kv = h / (c->heads / c->kv_heads);
            const int64_t q = i * width + h * c->dim;
            const double *d = d_out + at * c->dim;
            double delta = 0.0;
            for (int64_t e = 0; e < c->dim; e++) {
                delta += d[e] * out[at * c->dim + e];
            }
            for (int64_t j = starts[s]; j <= i; j++) {
                const int64_t k = j * width + (c->heads + kv) * c->dim;
                const int64_t v = k + c->kv_heads * c->dim;
                double dot = 0.0;
                double d_weight = 0.0;
                for (int64_t e = 0; e < c->dim; e++) {
                    dot += qkv[q + e] * qkv[k + e];
                    d_weight += d[e] * qkv[v + e];
                }
                const double weight = exp(dot * scale - lse[h * rows + i]);
                const double d_score = weight * (d_weight - delta) * scale;
                for (int64_t e = 0; e < c->dim; e++) {
                    d_qkv[v + e] += weight * d[e];
                    d_qkv[k + e] += d_score * qkv[q + e];
                    d_qkv[q + e] += d_score * qkv[k + e];
                }
            }
        }
    }
}

struct loss_context {
    const struct attention_case *c;
    const double *d_out;
    double *out; /* working memory (N,H*D) */
};

static double loss_of(const double *qkv, const void *context)
{
    const struct loss_context *l = context;
    int32_t starts[SEQUENCES_MAX + 1];
    const int64_t count = starts_of(l->c, starts) * l->c->heads * l->c->dim;
    reference_forward(l->c, qkv, l->out, NULL);
    double loss = 0.0;
    for (int64_t i = 0; i < count; i++) {
        loss += l->out[i] * l->d_out[i];
    }
    return loss;
}

static void check_backward(struct bench *bench, const struct attention_case *c)
{
    int32_t starts[SEQUENCES_MAX + 1];
    const int64_t rows = starts_of(c, starts);
    const int64_t width = (c->heads + 2 * c->kv_heads) * c->dim;
    struct attention_shape shape = shape_of(c);
    struct matrix qkv = matrix_make(bench, bench->dtype, rows, width, 1.0);
    struct matrix out = matrix_make(bench, bench->dtype, rows, c->heads * c->dim, 0.0);
    struct matrix d_out = matrix_make(bench, bench->dtype, rows, c->heads * c->dim, 1.0);
    struct matrix d_qkv = matrix_make(bench, bench->dtype, rows, width, 9.0);
    struct matrix lse = vector_make(bench, c->heads * rows, 1.0);
    int32_t *device_starts = ints_upload(bench, starts, c->sequences + 1);
    double *exact_out = bench_host(bench, rows * c->heads * c->dim, sizeof(double));
    double *exact_lse = bench_host(bench, rows * c->heads, sizeof(double));
    double *expected = bench_host(bench, rows * width, sizeof(double));
    bench->ops->attention_forward(bench->device, out.tensor, vector_data(&lse), qkv.tensor, &shape,
                                  device_starts, c->sequences);
    bench->ops->attention_backward(bench->device, d_qkv.tensor, d_out.tensor, qkv.tensor,
                                   out.tensor, vector_data(&lse), &shape, device_starts,
                                   c->sequences);
    reference_forward(c, qkv.value, exact_out, exact_lse);
    reference_backward(c, qkv.value, exact_out, exact_lse, d_out.value, expected);
    matrix_check(bench, "d_qkv", &d_qkv, expected, 3.0 * dtype_tolerance(bench->dtype), 3.0);

    struct loss_context context = {c, d_out.value, exact_out};
    if (bench->gap == 0 && rows < 100) { /* the reference itself, by differences */
        check_gradient("reference d_qkv", loss_of, &context, qkv.value, expected, rows * width, 20,
                       1e-6);
    }
    bench_clear(bench);
}

static void test_backward(struct bench *bench)
{
    for (int n = 0; n < CASES; n++) {
        check_backward(bench, &cases[n]);
    }
}

/* Rows that begin at multiples of 16 bytes and yet are not dense: the fast ways take them. */
static void test_aligned_gaps(struct bench *bench)
{
    static const struct attention_case gapped[] = {
        {4, 2, 64, 2, {70, 35}}, {2, 1, 128, 1, {135}}, {2, 2, 24, 1, {67}}};
    if (bench->gap == 0) {
        return;
    }
    const int64_t gap = bench->gap;
    bench->gap = 8;
    for (size_t n = 0; n < sizeof(gapped) / sizeof(gapped[0]); n++) {
        check_forward(bench, &gapped[n]);
        check_backward(bench, &gapped[n]);
    }
    bench->gap = gap;
}

/* Large scores: nothing overflows, and a query far ahead of the rest takes one value whole. */
static void test_large_scores(struct bench *bench)
{
    const struct attention_case c = {1, 1, 8, 1, {70}};
    struct attention_shape shape = shape_of(&c);
    int32_t starts[2] = {0, 70};
    struct matrix qkv = matrix_make(bench, bench->dtype, 70, 24, 60.0);
    struct matrix out = matrix_make(bench, bench->dtype, 70, 8, 0.0);
    double *expected = bench_host(bench, 70 * 8, sizeof(double));
    reference_forward(&c, qkv.value, expected, NULL);
    bench->ops->attention_forward(bench->device, out.tensor, NULL, qkv.tensor, &shape,
                                  ints_upload(bench, starts, 2), 1);
    matrix_check(bench, "out", &out, expected, bench->dtype == DTYPE_F32 ? 1e-3 : 5e-3, 60.0);
}

/* The same in the backward pass: whatever the weights, the gradients are numbers. */
static void test_large_scores_backward(struct bench *bench)
{
    const struct attention_case c = {2, 1, 8, 1, {150}};
    const struct attention_shape shape = shape_of(&c);
    const int32_t starts[2] = {0, 150};
    const int32_t *device_starts = ints_upload(bench, starts, 2);
    struct matrix qkv = matrix_make(bench, bench->dtype, 150, 32, 60.0);
    struct matrix out = matrix_make(bench, bench->dtype, 150, 16, 0.0);
    struct matrix d_out = matrix_make(bench, bench->dtype, 150, 16, 1.0);
    struct matrix d_qkv = matrix_make(bench, bench->dtype, 150, 32, 9.0);
    struct matrix lse = vector_make(bench, 2 * 150, 1.0);
    bench->ops->attention_forward(bench->device, out.tensor, vector_data(&lse), qkv.tensor, &shape,
                                  device_starts, 1);
    bench->ops->attention_backward(bench->device, d_qkv.tensor, d_out.tensor, qkv.tensor,
                                   out.tensor, vector_data(&lse), &shape, device_starts, 1);
    matrix_download(bench, &d_qkv);
    for (int64_t i = 0; i < 150 * 32; i++) {
        if (!isfinite(d_qkv.value[i])) {
            fail_msg("d_qkv[%lld] is %g", (long long)i, d_qkv.value[i]);
        }
    }
}

/* A NaN in a key reaches every query that sees it, whatever bits it has, and no other. */
static void test_nan_comes_through(struct bench *bench)
{
    enum { ROWS = 200, BAD = 131, DIM = 8 };
    const struct attention_shape shape = {1, 1, DIM, 0.3F};
    const int32_t starts[2] = {0, ROWS};
    const uint32_t odd_nan = 0x7FC00155U;
    const uint16_t odd_half = 0x7FD5U;
    struct matrix qkv = matrix_make(bench, bench->dtype, ROWS, 3 * DIM, 1.0);
    struct matrix out = matrix_make(bench, bench->dtype, ROWS, DIM, 0.0);
    struct tensor key = tensor_cols(tensor_rows(qkv.tensor, BAD, 1), DIM, 1);
    bench->ops->upload(bench->device, key.data,
                       bench->dtype == DTYPE_F32 ? (const void *)&odd_nan : (const void *)&odd_half,
                       dtype_bytes(bench->dtype));
    bench->ops->attention_forward(bench->device, out.tensor, NULL, qkv.tensor, &shape,
                                  ints_upload(bench, starts, 2), 1);
    matrix_download(bench, &out);
    for (int64_t i = 0; i < ROWS * DIM; i++) {
        if (i / DIM >= BAD) {
            check_nan(out.value[i]);
        } else {
            check_number(out.value[i]);
        }
    }
}

/* Starts that only the device knows and that do not rise from 0 to N: nothing is written, the next
 * check says so, and what follows is right again. On the CPU they are an assertion. */
static void test_wrong_starts(struct bench *bench)
{
    enum { ROWS = 70, WIDTH = 32, SEQUENCES = 3 };
    static const int32_t wrong[][SEQUENCES + 1] = {
        {0, 30, 20, ROWS},     {0, 10, 20, ROWS - 1},
        {0, 10, 20, ROWS + 1}, {3, 10, 20, ROWS},
        {-64, 10, 20, ROWS},   {0, ROWS, 0, ROWS},
        {0, 10, 1000, ROWS},   {0, INT32_MIN, INT32_MAX, ROWS}};
    const struct attention_shape shape = {2, 1, 8, 0.3F};
    if (strcmp(bench->ops->name, "cuda") != 0) {
        return;
    }
    struct matrix qkv = matrix_make(bench, bench->dtype, ROWS, WIDTH, 1.0);
    struct matrix out = matrix_make(bench, bench->dtype, ROWS, 16, 1.0);
    struct matrix d_qkv = matrix_make(bench, bench->dtype, ROWS, WIDTH, 9.0);
    struct matrix lse = vector_make(bench, 2 * ROWS, 1.0);
    const double *out_before = values_copy(bench, &out);
    const double *gradient_before = values_copy(bench, &d_qkv);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const int32_t *starts = ints_upload(bench, wrong[i], SEQUENCES + 1);
        for (int backward = 0; backward < 2; backward++) {
            struct error err = {0};
            if (backward == 0) {
                bench->ops->attention_forward(bench->device, out.tensor, vector_data(&lse),
                                              qkv.tensor, &shape, starts, SEQUENCES);
            } else {
                bench->ops->attention_backward(bench->device, d_qkv.tensor, out.tensor, qkv.tensor,
                                               out.tensor, vector_data(&lse), &shape, starts,
                                               SEQUENCES);
            }
            assert_int_equal(bench->ops->check(bench->device, &err), STATUS_RANGE);
            assert_non_null(strstr(err.message, "starts"));
        }
        matrix_check(bench, "out", &out, out_before, 0.0, 0.0);
        matrix_check(bench, "d_qkv", &d_qkv, gradient_before, 0.0, 0.0);
    }
    bench_clear(bench);
    check_forward(bench, &cases[1]);
}

/* The GPU's kernels have room for heads of up to 256; larger ones are an error, not a crash. */
static void test_large_heads(struct bench *bench)
{
    const struct attention_case c = {1, 1, 264, 1, {4}};
    const struct attention_shape shape = shape_of(&c);
    const int32_t starts[2] = {0, 4};
    struct error err = {0};
    if (strcmp(bench->ops->name, "cuda") != 0) {
        check_forward(bench, &c);
        return;
    }
    struct matrix qkv = matrix_make(bench, bench->dtype, 4, 3 * 264, 1.0);
    struct matrix out = matrix_make(bench, bench->dtype, 4, 264, 1.0);
    struct matrix lse = vector_make(bench, 4, 1.0);
    const int32_t *device_starts = ints_upload(bench, starts, 2);
    bench->ops->attention_forward(bench->device, out.tensor, vector_data(&lse), qkv.tensor, &shape,
                                  device_starts, 1);
    assert_int_equal(bench->ops->check(bench->device, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "264"));
    bench->ops->attention_backward(bench->device, qkv.tensor, out.tensor, qkv.tensor, out.tensor,
                                   vector_data(&lse), &shape, device_starts, 1);
    assert_int_equal(bench->ops->check(bench->device, &err), STATUS_UNSUPPORTED);
}

static void test_same_bits(struct bench *bench)
{
    const struct attention_case *c = &cases[2];
    int32_t starts[SEQUENCES_MAX + 1];
    const int64_t rows = starts_of(c, starts);
    const int64_t width = (c->heads + 2 * c->kv_heads) * c->dim;
    struct attention_shape shape = shape_of(c);
    struct matrix qkv = matrix_make(bench, bench->dtype, rows, width, 1.0);
    struct matrix out = matrix_make(bench, bench->dtype, rows, c->heads * c->dim, 0.0);
    struct matrix d_qkv = matrix_make(bench, bench->dtype, rows, width, 9.0);
    struct matrix lse = vector_make(bench, c->heads * rows, 1.0);
    int32_t *device_starts = ints_upload(bench, starts, c->sequences + 1);
    double *first_out = NULL;
    double *first_gradient = NULL;
    for (int run = 0; run < 4; run++) {
        bench->ops->attention_forward(bench->device, out.tensor, vector_data(&lse), qkv.tensor,
                                      &shape, device_starts, c->sequences);
        bench->ops->attention_backward(bench->device, d_qkv.tensor, out.tensor, qkv.tensor,
                                       out.tensor, vector_data(&lse), &shape, device_starts,
                                       c->sequences);
        if (run == 0) {
            matrix_download(bench, &out);
            matrix_download(bench, &d_qkv);
            first_out = values_copy(bench, &out);
            first_gradient = values_copy(bench, &d_qkv);
        }
        matrix_check(bench, "out again", &out, first_out, 0.0, 0.0);
        matrix_check(bench, "d_qkv again", &d_qkv, first_gradient, 0.0, 0.0);
    }
}

int main(void)
{
    static const struct kernel_test tests[] = {
        {"attention_forward", test_forward},
        {"attention_backward", test_backward},
        {"attention of no tokens", test_no_tokens},
        {"attention with large scores", test_large_scores},
        {"attention_backward with large scores", test_large_scores_backward},
        {"attention with gaps of 16 bytes", test_aligned_gaps},
        {"attention of NaN", test_nan_comes_through},
        {"attention with wrong starts", test_wrong_starts},
        {"attention with large heads", test_large_heads},
        {"attention twice", test_same_bits},
    };
    return kernel_tests_run("attention", tests, sizeof(tests) / sizeof(tests[0]));
}
