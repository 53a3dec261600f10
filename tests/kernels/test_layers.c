/* Norms, rotary positions, SwiGLU and cross-entropy, forward and backward, against f64. */
#include "harness.h"

/* -- RMSNorm -- */

static double reference_norm_row(const double *x, const double *weight, int64_t cols,
                                 double epsilon, double *out)
{
    double squares = 0.0;
    for (int64_t i = 0; i < cols; i++) {
        squares += x[i] * x[i];
    }
    double rstd = 1.0 / sqrt(squares / (double)cols + epsilon);
    for (int64_t i = 0; i < cols; i++) {
        out[i] = x[i] * rstd * weight[i];
    }
    return rstd;
}

static const int64_t norm_shapes[][2] = {{1, 1},    {0, 5},    {3, 7},   {65, 64},
                                         {40, 288}, {9, 1000}, {1, 2050}};
enum { NORM_SHAPES = sizeof(norm_shapes) / sizeof(norm_shapes[0]) };
#define EPSILON 1e-5F

static void check_norm_forward(struct bench *bench, int64_t rows, int64_t cols,
                               enum dtype residual_dtype, bool with_residual)
{
    struct matrix x = matrix_make(bench, bench->dtype, rows, cols, 1.0);
    struct matrix residual = matrix_make(bench, residual_dtype, rows, cols, 1.0);
    struct matrix weight = matrix_make(bench, bench->dtype, 1, cols, 1.0);
    struct matrix out = matrix_make(bench, bench->dtype, rows, cols, 1.0);
    struct matrix rstd = vector_make(bench, rows, 0.0);
    double *sum = values_copy(bench, &x);
    double *expected = values_copy(bench, &out);
    double *expected_rstd = values_copy(bench, &rstd);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = r * cols; i < (r + 1) * cols && with_residual; i++) {
            sum[i] = round_to(bench->dtype, sum[i] + residual.value[i]);
        }
        expected_rstd[r] = reference_norm_row(sum + r * cols, weight.value, cols, (double)EPSILON,
                                              expected + r * cols);
    }
    bench->ops->rmsnorm_forward(bench->device, out.tensor,
                                with_residual ? vector_data(&rstd) : NULL, x.tensor,
                                with_residual ? &residual.tensor : NULL, weight.tensor, EPSILON);
    matrix_check(bench, "out", &out, expected, dtype_tolerance(bench->dtype), 0.01);
    matrix_check(bench, "x", &x, sum, 0.0, 0.0);
    if (with_residual) {
        const double longer = 1.0 + (double)cols / 4096.0; /* sums in few lanes lose digits */
        matrix_check(bench, "rstd", &rstd, expected_rstd, 2e-6 * longer, 0.0);
    }
    bench_clear(bench);
}

static void test_rmsnorm_forward(struct bench *bench)
{
    for (int n = 0; n < NORM_SHAPES; n++) {
        check_norm_forward(bench, norm_shapes[n][0], norm_shapes[n][1], bench->dtype, false);
        check_norm_forward(bench, norm_shapes[n][0], norm_shapes[n][1], bench->dtype, true);
        check_norm_forward(bench, norm_shapes[n][0], norm_shapes[n][1], DTYPE_F32, true);
    }
}

struct norm_context {
    int64_t rows;
    int64_t cols;
    const double *d_out;
    double *out; /* (cols), working memory */
};

/* inputs: x (rows, cols), then weight (cols) */
static double norm_loss(const double *inputs, const void *context)
{
    const struct norm_context *c = context;
    const double *weight = inputs + c->rows * c->cols;
    double loss = 0.0;
    for (int64_t r = 0; r < c->rows; r++) {
        (void)reference_norm_row(inputs + r * c->cols, weight, c->cols, (double)EPSILON, c->out);
        for (int64_t i = 0; i < c->cols; i++) {
            loss += c->out[i] * c->d_out[r * c->cols + i];
        }
    }
    return loss;
}

static void check_norm_backward(struct bench *bench, int64_t rows, int64_t cols, bool frozen)
{
    struct matrix x = matrix_make(bench, bench->dtype, rows, cols, 1.0);
    struct matrix weight = matrix_make(bench, bench->dtype, 1, cols, 1.0);
    struct matrix out = matrix_make(bench, bench->dtype, rows, cols, 0.0);
    struct matrix rstd = vector_make(bench, rows, 0.0);
    struct matrix d_out = matrix_make(bench, bench->dtype, rows, cols, 1.0);
    struct matrix d_x = matrix_make(bench, DTYPE_F32, rows, cols, 1.0);
    struct matrix d_weight = vector_make(bench, cols, 1.0);
    double *before_x = values_copy(bench, &d_x);
    double *before_weight = values_copy(bench, &d_weight);
    double *inputs = bench_host(bench, (rows + 1) * cols, sizeof(double));
    struct norm_context context = {rows, cols, d_out.value,
                                   bench_host(bench, cols, sizeof(double))};
    bench->ops->rmsnorm_forward(bench->device, out.tensor, vector_data(&rstd), x.tensor, NULL,
                                weight.tensor, EPSILON);
    bench->ops->rmsnorm_backward(bench->device, d_x.tensor, frozen ? NULL : vector_data(&d_weight),
                                 d_out.tensor, x.tensor, weight.tensor, vector_data(&rstd));
    matrix_download(bench, &d_x);
    matrix_download(bench, &d_weight);
    for (int64_t i = 0; i < rows * cols; i++) {
        inputs[i] = x.value[i];
        d_x.value[i] -= before_x[i];
    }
    for (int64_t i = 0; i < cols; i++) {
        inputs[rows * cols + i] = weight.value[i];
        d_weight.value[i] -= before_weight[i];
        assert_true(!frozen || d_weight.value[i] == 0.0);
    }
    check_gradient("d_x", norm_loss, &context, inputs, d_x.value, rows * cols, 60, 1e-5);
    if (!frozen) { /* the weight's gradients follow x in `inputs`; the found ones must as well */
        double *found = bench_host(bench, (rows + 1) * cols, sizeof(double));
        memcpy(found, d_x.value, (size_t)(rows * cols) * sizeof(double));
        memcpy(found + rows * cols, d_weight.value, (size_t)cols * sizeof(double));
        for (int64_t i = 0; i < cols; i += 1 + cols / 50) {
            double expected = difference_quotient(norm_loss, &context, inputs, rows * cols + i);
            check_close("d_weight", found + rows * cols + i, &expected, 1, 1e-5, 1.0);
        }
    }
    bench_clear(bench);
}

static void test_rmsnorm_backward(struct bench *bench)
{
    for (int n = 0; n < NORM_SHAPES; n++) {
        check_norm_backward(bench, norm_shapes[n][0], norm_shapes[n][1], false);
        check_norm_backward(bench, norm_shapes[n][0], norm_shapes[n][1], true);
    }
}

/* d_x in the dtype of the activations, and rows that are longer and more than one sweep of a
 * backend takes: against the formula, d_x += r * (g - x * r^2 * mean(g * x)) with g = d_out * w. */
static void check_norm_backward_formula(struct bench *bench, int64_t rows, int64_t cols)
{
    struct matrix x = matrix_make(bench, bench->dtype, rows, cols, 1.0);
    struct matrix weight = matrix_make(bench, bench->dtype, 1, cols, 1.0);
    struct matrix rstd = vector_make(bench, rows, 1.0);
    struct matrix d_out = matrix_make(bench, bench->dtype, rows, cols, 1.0);
    struct matrix d_x = matrix_make(bench, bench->dtype, rows, cols, 1.0);
    struct matrix d_weight = vector_make(bench, cols, 1.0);
    double *expected = values_copy(bench, &d_x);
    double *expected_weight = values_copy(bench, &d_weight);
    for (int64_t r = 0; r < rows; r++) {
        const double scale = rstd.value[r];
        double mean = 0.0;
        for (int64_t c = 0; c < cols; c++) {
            const int64_t i = r * cols + c;
            mean += d_out.value[i] * weight.value[c] * x.value[i] / (double)cols;
            expected_weight[c] += d_out.value[i] * x.value[i] * scale;
        }
        for (int64_t c = 0; c < cols; c++) {
            const int64_t i = r * cols + c;
            expected[i] +=
                scale * (d_out.value[i] * weight.value[c] - x.value[i] * scale * scale * mean);
        }
    }
    bench->ops->rmsnorm_backward(bench->device, d_x.tensor, vector_data(&d_weight), d_out.tensor,
                                 x.tensor, weight.tensor, vector_data(&rstd));
    matrix_check(bench, "d_x", &d_x, expected, dtype_tolerance(bench->dtype), 10.0);
    matrix_check(bench, "d_weight", &d_weight, expected_weight, 1e-6, sqrt((double)rows) + 10.0);
    bench_clear(bench);
}

static void test_rmsnorm_backward_formula(struct bench *bench)
{
    check_norm_backward_formula(bench, 1, 8);
    check_norm_backward_formula(bench, 5, 80);
    check_norm_backward_formula(bench, 300, 512);
    check_norm_backward_formula(bench, 30, 1024);
    check_norm_backward_formula(bench, 3, 16416);
    check_norm_backward_formula(bench, 140, 1100);
}

static void test_rmsnorm_forward_long(struct bench *bench)
{
    check_norm_forward(bench, 2, 16416, bench->dtype, true);
    check_norm_forward(bench, 2, 2101, bench->dtype, true);
}

/* -- norm of heads and rotary positions -- */

struct rope_case {
    int64_t rows;
    int64_t heads;
    int64_t kv_heads;
    int64_t dim;
    bool norm;
};

static const struct rope_case rope_cases[] = {
    {1, 1, 1, 2, false},   {5, 8, 4, 8, false},  {7, 2, 1, 48, true}, {70, 4, 2, 6, true},
    {3, 2, 2, 64, true},   {9, 3, 1, 16, false}, {4, 2, 2, 4, false}, {33, 3, 1, 40, false},
    {2, 1, 1, 256, true},  {0, 2, 1, 8, true},   {3, 2, 1, 80, true}, {5, 4, 2, 128, true},
    {2, 2, 1, 128, false}, {1, 1, 1, 96, true},
};
enum { ROPE_CASES = sizeof(rope_cases) / sizeof(rope_cases[0]), POSITIONS = 50 };

/* Everything of one case, on both sides. */
struct rope_setup {
    const struct rope_case *c;
    struct attention_shape shape;
    int64_t width;
    struct matrix from;
    struct matrix query_weight;
    struct matrix key_weight;
    struct matrix cos_sin; /* (POSITIONS, D) */
    struct matrix rstd;    /* (N, H+K) */
    int32_t position[128];
    int32_t *device_position;
    const double *d_out;
};

static struct rope_setup rope_setup_make(struct bench *bench, const struct rope_case *c)
{
    struct rope_setup s = {.c = c};
    s.shape = (struct attention_shape){c->heads, c->kv_heads, c->dim, 1.0F};
    s.width = (c->heads + 2 * c->kv_heads) * c->dim;
    s.from = matrix_make(bench, bench->dtype, c->rows, s.width, 1.0);
    s.query_weight = matrix_make(bench, bench->dtype, 1, c->dim, 1.0);
    s.key_weight = matrix_make(bench, bench->dtype, 1, c->dim, 1.0);
    s.cos_sin = matrix_make(bench, DTYPE_F32, POSITIONS, c->dim, 0.0);
    for (int64_t p = 0; p < POSITIONS; p++) {
        for (int64_t i = 0; i < c->dim / 2; i++) {
            double angle = (double)p * pow(10000.0, -2.0 * (double)i / (double)c->dim);
            s.cos_sin.value[p * c->dim + i] = (double)(float)cos(angle);
            s.cos_sin.value[p * c->dim + c->dim / 2 + i] = (double)(float)sin(angle);
        }
    }
    matrix_upload(bench, &s.cos_sin);
    s.rstd = vector_make(bench, c->rows * (c->heads + c->kv_heads), 0.0);
    for (int64_t r = 0; r < c->rows; r++) {
        s.position[r] = (int32_t)rng_below(&bench->rng, POSITIONS);
    }
    s.device_position = ints_upload(bench, s.position, c->rows);
    return s;
}

/* inputs: from (rows, width), query weight (D), key weight (D); out (rows, width) */
static void reference_rope(const struct rope_setup *s, const double *inputs, double *out)
{
    const struct rope_case *c = s->c;
    const int64_t half = c->dim / 2;
    const double *weights = inputs + c->rows * s->width;
    memcpy(out, inputs, (size_t)(c->rows * s->width) * sizeof(double));
    for (int64_t r = 0; r < c->rows; r++) {
        const double *turn = s->cos_sin.value + s->position[r] * c->dim;
        for (int64_t h = 0; h < c->heads + c->kv_heads; h++) {
            double *head = out + r * s->width + h * c->dim;
            double normed[256];
            if (c->norm) {
                (void)reference_norm_row(head, weights + (h < c->heads ? 0 : c->dim), c->dim,
                                         (double)EPSILON, normed);
            } else {
                memcpy(normed, head, (size_t)c->dim * sizeof(double));
            }
            for (int64_t i = 0; i < half; i++) {
                head[i] = normed[i] * turn[i] - normed[half + i] * turn[half + i];
                head[half + i] = normed[half + i] * turn[i] + normed[i] * turn[half + i];
            }
        }
    }
}

static double *rope_inputs(struct bench *bench, const struct rope_setup *s)
{
    const int64_t count = s->c->rows * s->width;
    double *inputs = bench_host(bench, count + 2 * s->c->dim, sizeof(double));
    memcpy(inputs, s->from.value, (size_t)count * sizeof(double));
    memcpy(inputs + count, s->query_weight.value, (size_t)s->c->dim * sizeof(double));
    memcpy(inputs + count + s->c->dim, s->key_weight.value, (size_t)s->c->dim * sizeof(double));
    return inputs;
}

static void rope_forward(struct bench *bench, const struct rope_setup *s, struct tensor to)
{
    bench->ops->qk_norm_rope_forward(
        bench->device, to, s->c->norm ? vector_data(&s->rstd) : NULL, s->from.tensor, &s->shape,
        s->c->norm ? &s->query_weight.tensor : NULL, s->c->norm ? &s->key_weight.tensor : NULL,
        EPSILON, s->cos_sin.tensor, s->device_position);
}

static void test_rope_forward(struct bench *bench)
{
    const int64_t gap = bench->gap;
    for (int n = 0; n < ROPE_CASES; n++) {
        bench->gap = 0; /* of the table; rows of activations get theirs back below */
        struct rope_setup s = rope_setup_make(bench, &rope_cases[n]);
        bench->gap = gap;
        s.from = matrix_make(bench, bench->dtype, s.c->rows, s.width, 1.0);
        struct matrix to = matrix_make(bench, bench->dtype, s.c->rows, s.width, 0.0);
        double *expected = values_copy(bench, &to);
        reference_rope(&s, rope_inputs(bench, &s), expected);
        rope_forward(bench, &s, to.tensor);
        matrix_check(bench, "to", &to, expected, dtype_tolerance(bench->dtype), 1.0);
        rope_forward(bench, &s, s.from.tensor);
        matrix_check(bench, "in place", &s.from, expected, dtype_tolerance(bench->dtype), 1.0);
        bench_clear(bench);
    }
    bench->gap = gap;
}

static double rope_loss(const double *inputs, const void *context)
{
    const struct rope_setup *s = context;
    const int64_t count = s->c->rows * s->width;
    double *out = mem_calloc((size_t)count + 1, sizeof(double));
    assert_non_null(out);
    reference_rope(s, inputs, out);
    double loss = 0.0;
    for (int64_t i = 0; i < count; i++) {
        loss += out[i] * s->d_out[i];
    }
    free(out);
    return loss;
}

static void test_rope_backward(struct bench *bench)
{
    for (int n = 0; n < ROPE_CASES; n++) {
        struct rope_setup s = rope_setup_make(bench, &rope_cases[n]);
        const int64_t count = s.c->rows * s.width;
        const bool norm = s.c->norm;
        struct matrix to = matrix_make(bench, bench->dtype, s.c->rows, s.width, 0.0);
        struct matrix d_qkv = matrix_make(bench, DTYPE_F32, s.c->rows, s.width, 1.0);
        struct matrix d_weight = vector_make(bench, 2 * s.c->dim, 1.0);
        double *before = values_copy(bench, &d_weight);
        s.d_out = values_copy(bench, &d_qkv);
        rope_forward(bench, &s, to.tensor);
        bench->ops->qk_norm_rope_backward(
            bench->device, d_qkv.tensor, norm ? vector_data(&d_weight) : NULL,
            norm ? vector_data(&d_weight) + s.c->dim : NULL, s.from.tensor, vector_data(&s.rstd),
            &s.shape, norm ? &s.query_weight.tensor : NULL, norm ? &s.key_weight.tensor : NULL,
            s.cos_sin.tensor, s.device_position);
        matrix_download(bench, &d_qkv);
        matrix_download(bench, &d_weight);
        double *found = bench_host(bench, count + 2 * s.c->dim, sizeof(double));
        memcpy(found, d_qkv.value, (size_t)count * sizeof(double));
        for (int64_t i = 0; i < 2 * s.c->dim; i++) {
            found[count + i] = d_weight.value[i] - before[i];
        }
        double *inputs = rope_inputs(bench, &s);
        check_gradient("d_qkv, d_weights", rope_loss, &s, inputs, found,
                       count + (norm ? 2 * s.c->dim : 0), 150, 1e-5);
        bench_clear(bench);
    }
}

/* Gradients in the dtype of the activations, and enough heads for several sweeps of a backend:
 * against the formula. In `d`, one head's gradient after rope becomes that of x; d_weight (D) +=.
 */
static void reference_head_backward(const double *x, const double *weight, double rstd,
                                    const double *turn, int64_t dim, double *d, double *d_weight)
{
    const int64_t half = dim / 2;
    double mean = 0.0;
    for (int64_t i = 0; i < half; i++) {
        const double a = d[i] * turn[i] + d[half + i] * turn[half + i];
        d[half + i] = d[half + i] * turn[i] - d[i] * turn[half + i];
        d[i] = a;
    }
    for (int64_t i = 0; i < dim; i++) {
        mean += d[i] * weight[i] * x[i] / (double)dim;
        d_weight[i] += d[i] * x[i] * rstd;
    }
    for (int64_t i = 0; i < dim; i++) {
        d[i] = rstd * (d[i] * weight[i] - x[i] * rstd * rstd * mean);
    }
}

static void check_rope_backward_formula(struct bench *bench, const struct rope_case *c)
{
    const int64_t gap = bench->gap;
    bench->gap = 0; /* of the table and the weights */
    struct rope_setup s = rope_setup_make(bench, c);
    bench->gap = gap;
    s.from = matrix_make(bench, bench->dtype, c->rows, s.width, 1.0);
    s.rstd = vector_make(bench, c->rows * (c->heads + c->kv_heads), 1.0);
    struct matrix d_qkv = matrix_make(bench, bench->dtype, c->rows, s.width, 1.0);
    struct matrix d_weight = vector_make(bench, 2 * c->dim, 1.0);
    double *expected = values_copy(bench, &d_qkv);
    double *expected_weight = values_copy(bench, &d_weight);
    for (int64_t r = 0; r < c->rows; r++) {
        for (int64_t h = 0; h < c->heads + c->kv_heads; h++) {
            const bool query = h < c->heads;
            const int64_t at = r * s.width + h * c->dim;
            reference_head_backward(s.from.value + at,
                                    query ? s.query_weight.value : s.key_weight.value,
                                    s.rstd.value[r * (c->heads + c->kv_heads) + h],
                                    s.cos_sin.value + s.position[r] * c->dim, c->dim, expected + at,
                                    expected_weight + (query ? 0 : c->dim));
        }
    }
    bench->ops->qk_norm_rope_backward(bench->device, d_qkv.tensor, vector_data(&d_weight),
                                      vector_data(&d_weight) + c->dim, s.from.tensor,
                                      vector_data(&s.rstd), &s.shape, &s.query_weight.tensor,
                                      &s.key_weight.tensor, s.cos_sin.tensor, s.device_position);
    matrix_check(bench, "d_qkv", &d_qkv, expected, dtype_tolerance(bench->dtype), 20.0);
    matrix_check(bench, "d_weights", &d_weight, expected_weight, 1e-5,
                 10.0 + sqrt((double)(c->rows * c->heads)));
    bench_clear(bench);
}

static void test_rope_backward_formula(struct bench *bench)
{
    static const struct rope_case cases[] = {
        {1, 1, 1, 8, true},   {3, 16, 8, 64, true}, {2, 3, 1, 80, true},   {120, 32, 4, 16, true},
        {3, 4, 2, 128, true}, {2, 2, 1, 256, true}, {40, 2, 2, 128, true},
    };
    for (size_t n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
        check_rope_backward_formula(bench, &cases[n]);
    }
}

/* Positions without an angle are reported, and their rows stay as they were. */
static void test_rope_range(struct bench *bench)
{
    static const struct rope_case c = {2, 2, 1, 16, true};
    static const int32_t wrong[] = {POSITIONS, -1, INT32_MAX, INT32_MIN};
    for (int n = 0; n < 4; n++) {
        struct error err = {0};
        struct rope_setup s = rope_setup_make(bench, &c);
        const int32_t position[2] = {3, wrong[n]};
        double *before = values_copy(bench, &s.from);
        s.device_position = ints_upload(bench, position, 2);
        rope_forward(bench, &s, s.from.tensor);
        assert_int_equal(bench->ops->check(bench->device, &err), STATUS_RANGE);
        assert_non_null(strstr(err.message, "position"));
        matrix_download(bench, &s.from);
        check_close("row without a position", s.from.value + s.width, before + s.width, s.width,
                    0.0, 0.0);
        memcpy(before, s.from.value, (size_t)(2 * s.width) * sizeof(double));
        bench->ops->qk_norm_rope_backward(
            bench->device, s.from.tensor, NULL, NULL, s.from.tensor, vector_data(&s.rstd), &s.shape,
            &s.query_weight.tensor, &s.key_weight.tensor, s.cos_sin.tensor, s.device_position);
        assert_int_equal(bench->ops->check(bench->device, &err), STATUS_RANGE);
        matrix_download(bench, &s.from);
        check_close("its gradient", s.from.value + s.width, before + s.width, s.width, 0.0, 0.0);
        bench_clear(bench);
    }
}

/* -- SwiGLU -- */

static double silu(double x)
{
    return x / (1.0 + exp(-x));
}

static const int64_t swiglu_shapes[][2] = {{1, 1}, {0, 3}, {5, 172}, {33, 48}, {3, 2049}};

static void test_swiglu(struct bench *bench)
{
    for (size_t n = 0; n < sizeof(swiglu_shapes) / sizeof(swiglu_shapes[0]); n++) {
        const int64_t rows = swiglu_shapes[n][0];
        const int64_t width = swiglu_shapes[n][1];
        struct matrix gate_up = matrix_make(bench, bench->dtype, rows, 2 * width, 4.0);
        struct matrix out = matrix_make(bench, bench->dtype, rows, width, 0.0);
        struct matrix d_out = matrix_make(bench, bench->dtype, rows, width, 1.0);
        double *expected = values_copy(bench, &out);
        double *expected_d = values_copy(bench, &gate_up);
        for (int64_t i = 0; i < rows * width; i++) {
            int64_t at = i / width * 2 * width + i % width;
            double gate = gate_up.value[at];
            double up = gate_up.value[at + width];
            double slope = (silu(gate + 1e-5) - silu(gate - 1e-5)) / 2e-5;
            expected[i] = silu(gate) * up;
            expected_d[at] = d_out.value[i] * up * slope;
            expected_d[at + width] = d_out.value[i] * silu(gate);
        }
        bench->ops->swiglu_forward(bench->device, out.tensor, gate_up.tensor);
        matrix_check(bench, "out", &out, expected, dtype_tolerance(bench->dtype), 0.1);
        bench->ops->swiglu_backward(bench->device, gate_up.tensor, d_out.tensor, gate_up.tensor);
        matrix_check(bench, "d_gate_up", &gate_up, expected_d, dtype_tolerance(bench->dtype), 1.0);
        bench_clear(bench);
    }
}

/* Where exp overflows or vanishes, silu must not. */
static void test_swiglu_extremes(struct bench *bench)
{
    static const double gates[] = {-1e30, -200.0, -88.5, -87.0, 0.0, 87.0, 88.5, 200.0, 1e30};
    enum { COUNT = sizeof(gates) / sizeof(gates[0]) };
    struct matrix gate_up = matrix_make(bench, bench->dtype, 1, 2 * COUNT, 0.0);
    struct matrix out = matrix_make(bench, bench->dtype, 1, COUNT, 0.0);
    for (int i = 0; i < COUNT; i++) {
        gate_up.value[i] = round_to(bench->dtype, gates[i]);
        gate_up.value[COUNT + i] = 1.0;
    }
    matrix_upload(bench, &gate_up);
    double *expected = values_copy(bench, &out);
    for (int i = 0; i < COUNT; i++) {
        expected[i] = silu(gate_up.value[i]);
    }
    bench->ops->swiglu_forward(bench->device, out.tensor, gate_up.tensor);
    matrix_check(bench, "out", &out, expected, dtype_tolerance(bench->dtype), 1e-30);
    bench->ops->swiglu_backward(bench->device, gate_up.tensor, out.tensor, gate_up.tensor);
    matrix_download(bench, &gate_up);
    for (int i = 0; i < 2 * COUNT; i++) {
        check_number(gate_up.value[i]);
    }
}

/* -- cross-entropy -- */

static void check_cross_entropy(struct bench *bench, int64_t rows, int64_t cols, double size,
                                bool ignore_all)
{
    const float factor = 0.25F;
    struct matrix logits = matrix_make(bench, bench->dtype, rows, cols, size);
    struct matrix loss = vector_make(bench, rows, 1.0);
    int32_t *target = bench_host(bench, rows + 1, sizeof(*target));
    double *expected = values_copy(bench, &logits);
    double *expected_loss = values_copy(bench, &loss);
    for (int64_t r = 0; r < rows; r++) {
        double *row = expected + r * cols;
        double top = -INFINITY;
        double total = 0.0;
        target[r] = ignore_all || r % 4 == 3 ? -1 : (int32_t)rng_below(&bench->rng, (uint64_t)cols);
        for (int64_t i = 0; i < cols; i++) {
            top = fmax(top, row[i]);
        }
        for (int64_t i = 0; i < cols; i++) {
            total += exp(row[i] - top);
        }
        double lse = top + log(total);
        expected_loss[r] = target[r] < 0 ? 0.0 : lse - row[target[r]];
        for (int64_t i = 0; i < cols; i++) {
            double p = exp(row[i] - lse) - (i == target[r] ? 1.0 : 0.0);
            row[i] = target[r] < 0 ? 0.0 : p * (double)factor;
        }
    }
    int32_t *device_target = ints_upload(bench, target, rows);
    double *before = values_copy(bench, &logits);
    bench->ops->cross_entropy(bench->device, vector_data(&loss), logits.tensor, device_target,
                              factor, false);
    matrix_check(bench, "loss", &loss, expected_loss, 2e-6, size + 1.0);
    matrix_check(bench, "logits without gradient", &logits, before, 0.0, 0.0);
    bench->ops->cross_entropy(bench->device, vector_data(&loss), logits.tensor, device_target,
                              factor, true);
    matrix_check(bench, "loss with gradient", &loss, expected_loss, 2e-6, size + 1.0);
    matrix_check(bench, "gradient", &logits, expected, dtype_tolerance(bench->dtype) * (1.0 + size),
                 1e-6);
    bench_clear(bench);
}

static void test_cross_entropy(struct bench *bench)
{
    check_cross_entropy(bench, 1, 1, 1.0, false);
    check_cross_entropy(bench, 0, 10, 1.0, false);
    check_cross_entropy(bench, 9, 17, 3.0, false);
    check_cross_entropy(bench, 70, 512, 3.0, false);
    check_cross_entropy(bench, 5, 2049, 30.0, false);
    check_cross_entropy(bench, 5, 100, 3.0, true);
    check_cross_entropy(bench, 2, 12288, 3.0, false); /* rows of 48 KiB, a GPU's limit */
    check_cross_entropy(bench, 2, 24576, 3.0, false);
    check_cross_entropy(bench, 3, 50257, 3.0, false);
    check_cross_entropy(bench, 1, 151936, 3.0, false);
}

/* A target outside the vocabulary is reported, and its row is not touched. */
static void test_cross_entropy_range(struct bench *bench)
{
    static const int32_t wrong[] = {10, -2, INT32_MAX, INT32_MIN};
    struct error err = {0};
    for (int n = 0; n < 4; n++) {
        struct matrix logits = matrix_make(bench, bench->dtype, 2, 10, 1.0);
        struct matrix loss = vector_make(bench, 2, 1.0);
        int32_t target[2] = {3, wrong[n]};
        double *before = values_copy(bench, &logits);
        double before_loss = loss.value[1];
        bench->ops->cross_entropy(bench->device, vector_data(&loss), logits.tensor,
                                  ints_upload(bench, target, 2), 1.0F, true);
        assert_int_equal(bench->ops->check(bench->device, &err), STATUS_RANGE);
        assert_non_null(strstr(err.message, "target"));
        assert_int_equal(bench->ops->check(bench->device, &err), STATUS_OK);
        matrix_download(bench, &logits);
        matrix_download(bench, &loss);
        check_close("logits", logits.value + 10, before + 10, 10, 0.0, 0.0);
        check_close("loss", loss.value + 1, &before_loss, 1, 0.0, 0.0);
        bench_clear(bench);
    }
}

/* Logits of minus infinity have no probability; one of plus infinity has no loss. */
static void test_cross_entropy_infinities(struct bench *bench)
{
    enum { COLS = 96 };
    const int32_t target[2] = {2, 2};
    struct matrix logits = matrix_make(bench, bench->dtype, 2, COLS, 0.0);
    struct matrix loss = vector_make(bench, 2, 1.0);
    for (int i = 0; i < COLS; i++) {
        logits.value[i] = i % 24 == 2 ? 0.0 : (double)-INFINITY; /* four are left */
    }
    logits.value[COLS + 7] = (double)INFINITY;
    matrix_upload(bench, &logits);
    bench->ops->cross_entropy(bench->device, vector_data(&loss), logits.tensor,
                              ints_upload(bench, target, 2), 1.0F, true);
    matrix_download(bench, &loss);
    matrix_download(bench, &logits);
    const double expected = log(4.0);
    check_close("loss", loss.value, &expected, 1, 2e-6, 1.0);
    for (int i = 0; i < COLS; i++) {
        const double gradient = i == 2 ? -0.75 : i % 24 == 2 ? 0.25 : 0.0;
        check_close("gradient", logits.value + i, &gradient, 1, dtype_tolerance(bench->dtype), 0.0);
    }
    check_nan(loss.value[1]);
    check_nan(logits.value[COLS + 7]);
}

/* NaN must come through, so that divergence is seen. */
static void test_nan_comes_through(struct bench *bench)
{
    int32_t target[1] = {2};
    struct matrix logits = matrix_make(bench, bench->dtype, 1, 40, 1.0);
    struct matrix loss = vector_make(bench, 1, 1.0);
    logits.value[5] = (double)NAN;
    matrix_upload(bench, &logits);
    bench->ops->cross_entropy(bench->device, vector_data(&loss), logits.tensor,
                              ints_upload(bench, target, 1), 1.0F, true);
    matrix_download(bench, &loss);
    matrix_download(bench, &logits);
    check_nan(loss.value[0]);
    check_nan(logits.value[0]);
}

int main(void)
{
    static const struct kernel_test tests[] = {
        {"rmsnorm_forward", test_rmsnorm_forward},
        {"rmsnorm_backward", test_rmsnorm_backward},
        {"rmsnorm_backward by its formula", test_rmsnorm_backward_formula},
        {"rmsnorm_forward of long rows", test_rmsnorm_forward_long},
        {"qk_norm_rope_forward", test_rope_forward},
        {"qk_norm_rope_backward", test_rope_backward},
        {"qk_norm_rope_backward by its formula", test_rope_backward_formula},
        {"rope out of range", test_rope_range},
        {"swiglu", test_swiglu},
        {"swiglu of extremes", test_swiglu_extremes},
        {"cross_entropy", test_cross_entropy},
        {"cross_entropy out of range", test_cross_entropy_range},
        {"cross_entropy of infinities", test_cross_entropy_infinities},
        {"cross_entropy of NaN", test_nan_comes_through},
    };
    return kernel_tests_run("layers", tests, sizeof(tests) / sizeof(tests[0]));
}
