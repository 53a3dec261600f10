/* Which courses of the loss count as diverged, and which must not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/divergence.h"

/* Step at which it is found in `steps` steps from `start` on to `later`, 0 if never. */
static int64_t found_at(double start, double later, int64_t jump, int64_t steps)
{
    struct divergence divergence;
    divergence_init(&divergence, 32000);
    for (int64_t step = 1; step <= steps; step++) {
        if (divergence_update(&divergence, step < jump ? start : later)) {
            return step;
        }
    }
    return 0;
}

static void test_good_courses_pass(void **state)
{
    (void)state;
    assert_int_equal(found_at(10.4, 3.0, 50, 1000), 0);
    assert_int_equal(found_at(2.0, 2.0, 1, 1000), 0);
    assert_int_equal(found_at(0.1, 1.0, 50, 1000), 0);
    assert_int_equal(found_at(12.0, 11.0, 50, 1000), 0);
}

static void test_far_above_for_long_is_found(void **state)
{
    (void)state;
    int64_t step = found_at(2.0, 9.0, 100, 1000);
    assert_in_range(step, 100 + DIVERGENCE_PATIENCE - 1,
                    100 + DIVERGENCE_PATIENCE + DIVERGENCE_MEMORY);
    assert_in_range(found_at(10.4, 14.0, 100, 1000), 101, 200); /* worse than guessing */
}

static void test_one_bad_step_is_forgiven(void **state)
{
    (void)state;
    struct divergence divergence;
    divergence_init(&divergence, 512);
    for (int64_t step = 1; step <= 500; step++) {
        assert_false(divergence_update(&divergence, step % 50 == 0 ? 20.0 : 2.0));
    }
}

static void test_average_starts_without_bias(void **state)
{
    (void)state;
    struct divergence divergence;
    divergence_init(&divergence, 512);
    assert_true(divergence_average(&divergence) == 0.0);
    assert_false(divergence_update(&divergence, 3.0));
    assert_true(divergence_average(&divergence) > 2.999 && divergence_average(&divergence) < 3.001);
    assert_true(divergence_ceiling(&divergence) > 6.9 && divergence_ceiling(&divergence) < 7.1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_courses_pass),
        cmocka_unit_test(test_far_above_for_long_is_found),
        cmocka_unit_test(test_one_bad_step_is_forgiven),
        cmocka_unit_test(test_average_starts_without_bias),
    };
    return cmocka_run_group_tests_name("train.divergence", tests, NULL, NULL);
}
