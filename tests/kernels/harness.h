/* Runs each test of an operation on every backend that this machine has: the CPU once an
 * instruction set that the processor supports, with one thread and with three, and CUDA where there
 * is a device. Data goes up and down through the table of operations alone, so the tests know no
 * backend. References are plain loops in f64. */
#ifndef TESTS_KERNELS_HARNESS_H
#define TESTS_KERNELS_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "kernels/ops.h"

/* -- backends -- */

struct backend {
    const char *name;
    const char *isa; /* for TREX_ISA; NULL: as it comes */
    int threads;
};

static const struct backend backends[] = {
#ifndef TEST_BACKEND /* else that one alone */
    {"cpu", "x86_64_v2", 1}, {"cpu", "x86_64_v3", 1}, {"cpu", "x86_64_v4", 1},
    {"cpu", "x86_64_v2", 3}, {"cpu", "x86_64_v3", 3}, {"cpu", "x86_64_v4", 3},
    {"cpu", "generic", 3},   {"cuda", NULL, 0},
#else
    {TEST_BACKEND, NULL, 0},
#endif
};
enum { BACKENDS = sizeof(backends) / sizeof(backends[0]) };

/* NULL if this machine has none such; any other failure fails the test. */
static inline struct device *backend_open(const struct backend *backend, int64_t limit_bytes)
{
    struct device_options options = {.threads = backend->threads, .limit_bytes = limit_bytes};
    struct device *device = NULL;
    struct error err = {0};
    if (backend->isa != NULL) {
        setenv("TREX_ISA", backend->isa, 1);
    }
    enum status status = device_open(backend->name, &options, &device, &err);
    unsetenv("TREX_ISA");
    if (status == STATUS_UNSUPPORTED || status == STATUS_INVALID) {
        return NULL;
    }
    if (status != STATUS_OK) {
        fail_msg("%s: %s", backend->name, err.message);
    }
    return device;
}

/* -- one run of a test -- */

enum { MATRICES_MAX = 64 };

/* What a test gets: a device, a dtype for activations, and how many numbers lie between rows. */
struct bench {
    struct device *device;
    const struct ops *ops;
    enum dtype dtype;
    int64_t gap;
    struct rng rng;
    void *device_memory[MATRICES_MAX];
    void *host_memory[MATRICES_MAX];
    int device_count;
    int host_count;
};

static inline void *bench_device(struct bench *bench, size_t bytes)
{
    struct error err = {0};
    void *memory = NULL;
    assert_true(bench->device_count < MATRICES_MAX);
    if (bench->ops->alloc(bench->device, bytes, "a test array", &memory, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    bench->device_memory[bench->device_count++] = memory;
    return memory;
}

static inline void *bench_host(struct bench *bench, int64_t count, size_t size)
{
    assert_true(bench->host_count < MATRICES_MAX);
    void *memory = mem_calloc((size_t)count, size);
    assert_non_null(memory);
    bench->host_memory[bench->host_count++] = memory;
    return memory;
}

/* Frees what was made since the bench began, so that a test can loop over shapes. */
static inline void bench_clear(struct bench *bench)
{
    struct error err = {0};
    if (bench->ops->check(bench->device, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    while (bench->device_count > 0) {
        bench->ops->free(bench->device, bench->device_memory[--bench->device_count]);
    }
    while (bench->host_count > 0) {
        free(bench->host_memory[--bench->host_count]);
    }
}

/* -- numbers -- */

static inline uint16_t bf16_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    if (isnan(value)) {
        return (uint16_t)(bits >> 16 | 0x40U);
    }
    return (uint16_t)((bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16);
}

static inline float float_of_bf16(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline double round_to(enum dtype dtype, double value)
{
    return dtype == DTYPE_F32 ? (double)(float)value : (double)float_of_bf16(bf16_of((float)value));
}

/* A matrix in two places: f64 on the host, dense, and its view on the device, with `gap` numbers
 * between rows. */
struct matrix {
    double *value; /* (rows, cols) */
    struct tensor tensor;
};

static inline void matrix_upload(struct bench *bench, const struct matrix *matrix)
{
    struct tensor t = matrix->tensor;
    size_t bytes = (size_t)(t.rows * t.stride) * dtype_bytes(t.dtype);
    char *raw = mem_calloc(bytes, 1);
    assert_non_null(raw);
    memset(raw, 0x55, bytes);
    for (int64_t i = 0; i < t.rows * t.cols; i++) {
        int64_t at = i / t.cols * t.stride + i % t.cols;
        if (t.dtype == DTYPE_F32) {
            ((float *)(void *)raw)[at] = (float)matrix->value[i];
        } else {
            ((uint16_t *)(void *)raw)[at] = bf16_of((float)matrix->value[i]);
        }
    }
    bench->ops->upload(bench->device, t.data, raw, bytes);
    free(raw);
}

/* From the device into `value`; fails if something was written between the rows. */
static inline void matrix_download(struct bench *bench, const struct matrix *matrix)
{
    struct tensor t = matrix->tensor;
    size_t size = dtype_bytes(t.dtype);
    size_t bytes = (size_t)(t.rows * t.stride) * size;
    char *raw = mem_calloc(bytes, 1);
    assert_non_null(raw);
    bench->ops->download(bench->device, raw, t.data, bytes);
    for (int64_t r = 0; r < t.rows; r++) {
        for (int64_t c = 0; c < t.stride; c++) {
            int64_t at = r * t.stride + c;
            if (c >= t.cols) {
                for (size_t byte = 0; byte < size; byte++) {
                    if (raw[(size_t)at * size + byte] != 0x55) {
                        fail_msg("row %lld: written %lld past its end", (long long)r,
                                 (long long)(c - t.cols + 1));
                    }
                }
            } else if (t.dtype == DTYPE_F32) {
                matrix->value[r * t.cols + c] = (double)((float *)(void *)raw)[at];
            } else {
                matrix->value[r * t.cols + c] =
                    (double)float_of_bf16(((uint16_t *)(void *)raw)[at]);
            }
        }
    }
    free(raw);
}

/* Normal numbers times `scale`; scale 0 gives zeros. What lies between rows is filled with a
 * pattern. */
static inline struct matrix matrix_make(struct bench *bench, enum dtype dtype, int64_t rows,
                                        int64_t cols, double scale)
{
    struct matrix matrix = {0};
    matrix.value = bench_host(bench, rows * cols + 1, sizeof(double));
    matrix.tensor = tensor_matrix(NULL, dtype, rows, cols);
    matrix.tensor.stride = cols + bench->gap;
    matrix.tensor.data =
        bench_device(bench, (size_t)(rows * matrix.tensor.stride) * dtype_bytes(dtype) + 16);
    for (int64_t i = 0; i < rows * cols; i++) {
        matrix.value[i] = round_to(dtype, scale * rng_normal(&bench->rng));
    }
    matrix_upload(bench, &matrix);
    return matrix;
}

/* A dense f32 vector. */
static inline struct matrix vector_make(struct bench *bench, int64_t count, double scale)
{
    int64_t gap = bench->gap;
    bench->gap = 0;
    struct matrix matrix = matrix_make(bench, DTYPE_F32, 1, count, scale);
    bench->gap = gap;
    return matrix;
}

static inline float *vector_data(const struct matrix *vector)
{
    return vector->tensor.data;
}

static inline int32_t *ints_upload(struct bench *bench, const int32_t *host, int64_t count)
{
    int32_t *device = bench_device(bench, (size_t)count * sizeof(*device) + 16);
    bench->ops->upload(bench->device, device, host, (size_t)count * sizeof(*host));
    return device;
}

/* A copy of the host numbers, to change and compare with. */
static inline double *values_copy(struct bench *bench, const struct matrix *matrix)
{
    int64_t count = matrix->tensor.rows * matrix->tensor.cols;
    double *copy = bench_host(bench, count + 1, sizeof(double));
    memcpy(copy, matrix->value, (size_t)count * sizeof(double));
    return copy;
}

/* Relative rounding of a dtype: half a unit in the last place, with some room for the f32
 * arithmetic before it. */
static inline double dtype_tolerance(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? 2e-6 : 4.2e-3;
}

/* |found - expected| <= tolerance * (|expected| + scale), where scale is the size of what was
 * summed. */
static inline void check_close(const char *what, const double *found, const double *expected,
                               int64_t count, double tolerance, double scale)
{
    for (int64_t i = 0; i < count; i++) {
        double bound = tolerance * (fabs(expected[i]) + scale);
        if (!(fabs(found[i] - expected[i]) <= bound)) {
            fail_msg("%s[%lld] is %.9g, expected %.9g (difference %.3g, allowed %.3g)", what,
                     (long long)i, found[i], expected[i], found[i] - expected[i], bound);
        }
    }
}

static inline void check_number(double value)
{
    if (isnan(value)) {
        fail_msg("NaN where a number must be");
    }
}

static inline void check_nan(double value)
{
    if (!isnan(value)) {
        fail_msg("%g where NaN must come through", value);
    }
}

/* Downloads and compares. */
static inline void matrix_check(struct bench *bench, const char *what, const struct matrix *matrix,
                                const double *expected, double tolerance, double scale)
{
    matrix_download(bench, matrix);
    check_close(what, matrix->value, expected, matrix->tensor.rows * matrix->tensor.cols, tolerance,
                scale);
}

/* Central difference of a scalar function of `inputs` by input number i. */
typedef double (*scalar_function)(const double *inputs, const void *context);

static inline double difference_quotient(scalar_function function, const void *context,
                                         double *inputs, int64_t i)
{
    const double step = 1e-5;
    const double middle = inputs[i];
    inputs[i] = middle + step;
    double above = function(inputs, context);
    inputs[i] = middle - step;
    double below = function(inputs, context);
    inputs[i] = middle;
    return (above - below) / (2.0 * step);
}

/* Compares `found` (count) with differences at up to `samples` places, spread evenly. */
static inline void check_gradient(const char *what, scalar_function function, const void *context,
                                  double *inputs, const double *found, int64_t count,
                                  int64_t samples, double tolerance)
{
    int64_t step = count > samples ? count / samples : 1;
    for (int64_t i = 0; i < count; i += step) {
        double expected = difference_quotient(function, context, inputs, i);
        double bound = tolerance * (fabs(expected) + 1.0);
        if (!(fabs(found[i] - expected) <= bound)) {
            fail_msg("%s[%lld] is %.9g, by differences %.9g (allowed %.3g)", what, (long long)i,
                     found[i], expected, bound);
        }
    }
}

/* -- running -- */

struct kernel_test {
    const char *name;
    void (*run)(struct bench *bench);
};

struct kernel_test_run {
    const struct kernel_test *test;
    const struct backend *backend;
    char name[96];
};

/* One test on one backend: both dtypes, dense and with gaps between rows. */
static inline void kernel_test_run_one(void **state)
{
    const struct kernel_test_run *run = *state;
    struct bench bench = {0};
    bench.device = backend_open(run->backend, 0);
    if (bench.device == NULL) {
        print_message("%s: not on this machine\n", run->name);
        skip();
    }
    bench.ops = bench.device->ops;
    for (int variant = 0; variant < 4; variant++) {
        bench.dtype = variant % 2 == 0 ? DTYPE_F32 : DTYPE_BF16;
        bench.gap = variant / 2 == 0 ? 0 : 3;
        rng_init(&bench.rng, 42, (uint64_t)variant);
        run->test->run(&bench);
        bench_clear(&bench);
    }
    struct device_memory memory;
    bench.ops->memory(bench.device, &memory);
    device_close(bench.device);
}

/* For main: every test on every backend. Returns the number of failures. */
static inline int kernel_tests_run(const char *group, const struct kernel_test *tests, size_t count)
{
    size_t total = count * BACKENDS;
    struct kernel_test_run *runs = mem_calloc(total, sizeof(*runs));
    struct CMUnitTest *units = mem_calloc(total, sizeof(*units));
    if (runs == NULL || units == NULL) {
        free(runs);
        free(units);
        return 1;
    }
    for (size_t i = 0; i < total; i++) {
        runs[i].test = &tests[i % count];
        runs[i].backend = &backends[i / count];
        (void)snprintf(runs[i].name, sizeof(runs[i].name), "%s on %s %s, %d threads",
                       runs[i].test->name, runs[i].backend->name,
                       runs[i].backend->isa != NULL ? runs[i].backend->isa : "",
                       runs[i].backend->threads);
        units[i].name = runs[i].name;
        units[i].test_func = kernel_test_run_one;
        units[i].initial_state = &runs[i];
    }
    int failed = _cmocka_run_group_tests(group, units, total, NULL, NULL);
    free(runs);
    free(units);
    return failed;
}

#endif
