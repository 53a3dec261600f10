/* The learning rate of every step, against the formulas in words. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/config.h"

static struct train_config make(enum train_schedule schedule, double warmup, double final)
{
    struct train_config config = train_config_default();
    config.learning_rate = 2.0;
    config.schedule = schedule;
    config.warmup_ratio = warmup;
    config.final_ratio = final;
    return config;
}

static void assert_near(double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-12)) {
        fail_msg("found %.17g, expected %.17g", found, expected);
    }
}

static void test_warmup_rises_to_the_peak(void **state)
{
    (void)state;
    struct train_config config = make(TRAIN_CONSTANT, 0.1, 0.0);
    assert_near(train_learning_rate(&config, 1, 100), 0.2);
    assert_near(train_learning_rate(&config, 5, 100), 1.0);
    assert_near(train_learning_rate(&config, 10, 100), 2.0);
    assert_near(train_learning_rate(&config, 11, 100), 2.0);
    assert_near(train_learning_rate(&config, 100, 100), 2.0);
}

static void test_linear(void **state)
{
    (void)state;
    struct train_config config = make(TRAIN_LINEAR, 0.1, 0.5);
    assert_near(train_learning_rate(&config, 10, 100), 2.0);
    assert_near(train_learning_rate(&config, 55, 100), 1.5);
    assert_near(train_learning_rate(&config, 100, 100), 1.0);
}

static void test_cosine(void **state)
{
    (void)state;
    struct train_config config = make(TRAIN_COSINE, 0.0, 0.1);
    assert_near(train_learning_rate(&config, 1, 101), 2.0);
    assert_near(train_learning_rate(&config, 51, 101), 2.0 * 0.55);
    assert_near(train_learning_rate(&config, 101, 101), 0.2);
    for (int64_t step = 2; step <= 101; step++) {
        assert_true(train_learning_rate(&config, step, 101) <
                    train_learning_rate(&config, step - 1, 101));
    }
}

static void test_short_trainings_have_no_holes(void **state)
{
    (void)state;
    const enum train_schedule schedules[] = {TRAIN_CONSTANT, TRAIN_LINEAR, TRAIN_COSINE};
    const double warmups[] = {0.0, 0.03, 0.5, 1.0};
    for (size_t s = 0; s < 3; s++) {
        for (size_t w = 0; w < 4; w++) {
            struct train_config config = make(schedules[s], warmups[w], 0.1);
            for (int64_t total = 1; total <= 5; total++) {
                for (int64_t step = 1; step <= total + 2; step++) {
                    double rate = train_learning_rate(&config, step, total);
                    assert_true(rate > 0.0 && rate <= 2.0);
                }
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_warmup_rises_to_the_peak),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_cosine),
        cmocka_unit_test(test_short_trainings_have_no_holes),
    };
    return cmocka_run_group_tests_name("train.schedule", tests, NULL, NULL);
}
