/* Standard errors: by formula, by resampling, and that both agree where both apply. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <math.h>

#include "base/rng.h"
#include "eval/statistics.h"

static void test_mean(void **state)
{
    (void)state;
    const double values[] = {1, 0, 1, 1, 0};
    double mean = -1;
    double error = -1;
    statistics_mean(values, 5, &mean, &error);
    assert_true(fabs(mean - 0.6) < 1e-15);
    assert_true(fabs(error - sqrt(0.3 / 5)) < 1e-15); /* variance 1.2 / 4 */
    statistics_mean(values, 1, &mean, &error);
    assert_true(mean == 1.0 && error == 0.0);
}

static enum status mean_figure(void *context, const int64_t *picked, int64_t count, double *figure,
                               struct error *err)
{
    (void)err;
    const double *values = context;
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        assert_in_range(picked[i], 0, count - 1);
        sum += values[picked[i]];
    }
    *figure = sum / (double)count;
    return STATUS_OK;
}

static void test_bootstrap_of_a_mean(void **state)
{
    (void)state;
    enum { COUNT = 400 };
    double values[COUNT];
    struct rng rng;
    rng_init(&rng, 1, 2);
    for (int i = 0; i < COUNT; i++) {
        values[i] = rng_uniform(&rng) < 0.3 ? 1.0 : 0.0;
    }
    double mean = 0;
    double analytic = 0;
    double first = 0;
    double second = 0;
    double other = 0;
    struct error err;
    statistics_mean(values, COUNT, &mean, &analytic);
    assert_int_equal(statistics_bootstrap(COUNT, 9, mean_figure, values, &first, &err), STATUS_OK);
    assert_int_equal(statistics_bootstrap(COUNT, 9, mean_figure, values, &second, &err), STATUS_OK);
    assert_int_equal(statistics_bootstrap(COUNT, 10, mean_figure, values, &other, &err), STATUS_OK);
    /* the error of a standard deviation from 1000 draws is 2.2 %: five of them */
    assert_true(fabs(first / analytic - 1.0) < 0.11);
    assert_true(first == second);
    assert_true(first != other);
}

static enum status failing_figure(void *context, const int64_t *picked, int64_t count,
                                  double *figure, struct error *err)
{
    (void)context;
    (void)picked;
    (void)count;
    (void)figure;
    return FAIL(err, STATUS_LIMIT, "as asked");
}

static void test_bootstrap_passes_errors_on(void **state)
{
    (void)state;
    double error = 7;
    struct error err;
    assert_int_equal(statistics_bootstrap(3, 1, failing_figure, NULL, &error, &err), STATUS_LIMIT);
    assert_true(error == 7.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mean),
        cmocka_unit_test(test_bootstrap_of_a_mean),
        cmocka_unit_test(test_bootstrap_passes_errors_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
