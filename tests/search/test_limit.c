/* Admission and drain: what may start in the time that is left, and how long a stop takes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "run/limit.h"

static void assert_near(double value, double expected)
{
    assert_true(fabs(value - expected) < 1e-9);
}

static struct limit_worker training(int64_t done, double since_s, double step_s)
{
    return (struct limit_worker){
        .trains = true, .done = done, .total = 1000, .since_s = since_s, .step_s = step_s};
}

static void test_stop_step(void **state)
{
    (void)state;
    struct limit_worker worker = training(100, 0.0, 0.1);
    assert_int_equal(limit_stop_step(&worker), 101);
    worker.since_s = 0.25; /* two steps surely done, the third under way */
    assert_int_equal(limit_stop_step(&worker), 104);
    worker.since_s = 100.0; /* it would have said so */
    assert_int_equal(limit_stop_step(&worker), 107);
    worker.done = 999;
    assert_int_equal(limit_stop_step(&worker), 1000);
    worker.step_s = 0.0; /* nothing is known yet: the next boundary */
    assert_int_equal(limit_stop_step(&worker), 0);
    worker = training(100, 0.0, 0.1);
    worker.trains = false;
    assert_int_equal(limit_stop_step(&worker), 0);
}

static void test_drain(void **state)
{
    (void)state;
    struct limit_worker worker = training(100, 0.0, 0.5);
    worker.gap_s = 2.0;
    worker.save_s = 3.0;
    assert_near(limit_worker_drain_s(&worker, 50.0, 60.0), 0.5 + 2.0 + 3.0);
    worker.saves = true; /* this one first, then its own */
    worker.trains = false;
    assert_near(limit_worker_drain_s(&worker, 50.0, 60.0), 2.0 + 6.0);
    struct limit_worker unknown = {0};
    assert_near(limit_worker_drain_s(&unknown, 7.0, 9.0), 16.0);

    /* More than was measured, by a reserve and a few seconds; never less than the last stop took.
     */
    assert_true(limit_drain_s(0.0, 0.0, 0.0) > 1.0 && limit_drain_s(0.0, 0.0, 0.0) < 10.0);
    assert_true(limit_drain_s(10.0, 0.0, 0.0) > 15.0 && limit_drain_s(10.0, 0.0, 0.0) < 25.0);
    assert_true(limit_drain_s(10.0, 4.0, 0.0) >= limit_drain_s(10.0, 0.0, 0.0) + 8.0);
    assert_true(limit_drain_s(1.0, 0.0, 100.0) > 100.0);
    assert_true(limit_drain_s(1.0, 0.0, 0.5) == limit_drain_s(1.0, 0.0, 0.0));
}

/* Who is blamed for silence must have had time to speak. */
static void test_answer(void **state)
{
    (void)state;
    struct limit_worker worker = {0};
    assert_true(isinf(limit_answer_s(&worker, 0.0, 0.5))); /* it has not spoken yet */
    worker.gap_s = 0.5;
    assert_true(isinf(limit_answer_s(&worker, 0.0, -1.0))); /* its steps may take any time */
    assert_true(limit_answer_s(&worker, 0.0, 0.0) > 1.0);
    assert_true(limit_answer_s(&worker, 0.0, 0.0) < 5.0); /* what launchers leave at the least */
    assert_true(limit_answer_s(&worker, 3.0, 0.0) >= 6.0);
    assert_true(limit_answer_s(&worker, 0.0, 4.0) >= 8.0);
    worker.save_s = 7.0;
    assert_true(limit_answer_s(&worker, 0.0, 0.0) >= 14.0);
    worker.step_s = 10.0;
    assert_true(limit_answer_s(&worker, 0.0, -1.0) >= 20.0);
    assert_true(isfinite(limit_answer_s(&worker, 0.0, -1.0)));
}

static void test_usual_times_grow_with_the_model(void **state)
{
    (void)state;
    const int64_t small = 1000000;
    const int64_t large = INT64_C(7000000000);
    assert_true(limit_usual_gap_s(small) < 5.0 && limit_usual_gap_s(large) > 30.0);
    assert_true(limit_usual_save_s(small, TRAIN_FULL) < 2.0);
    assert_true(limit_usual_save_s(large, TRAIN_FULL) > 300.0);
    assert_true(limit_usual_save_s(large, TRAIN_LORA) < 60.0);
}

static void test_snapshots_take_a_tenth_of_the_time(void **state)
{
    (void)state;
    assert_near(limit_snapshot_interval_s(0.0), 30.0);
    assert_near(limit_snapshot_interval_s(2.5), 30.0);
    assert_near(limit_snapshot_interval_s(12.0), 120.0);
    assert_near(limit_snapshot_interval_s(90.0), 900.0);
}

static void test_learning(void **state)
{
    (void)state;
    double value = 0.0;
    limit_learn(&value, 4.0);
    assert_near(value, 4.0);
    limit_learn(&value, 8.0); /* up at once */
    assert_near(value, 8.0);
    limit_learn(&value, 4.0); /* down slowly */
    assert_near(value, 7.0);
    limit_learn(&value, NAN);
    limit_learn(&value, -1.0);
    limit_learn(&value, 0.0);
    limit_learn(&value, INFINITY);
    assert_near(value, 7.0);
}

static struct train_config configuration(double epochs, int64_t max_steps)
{
    struct train_config config = train_config_default();
    config.method = TRAIN_LORA;
    config.epochs = epochs;
    config.max_steps = max_steps;
    config.batch_tokens = 100;
    config.accumulation = 2;
    return config;
}

static void test_tokens(void **state)
{
    (void)state;
    struct train_config config = configuration(3.0, 0);
    assert_near(limit_tokens(&config, 10000.0), 30000.0);
    config.max_steps = 50;
    assert_near(limit_tokens(&config, 10000.0), 10000.0);
    config.max_steps = 1000000;
    assert_near(limit_tokens(&config, 10000.0), 30000.0);
}

static void test_estimates(void **state)
{
    (void)state;
    struct train_config config = configuration(2.0, 0); /* 20000 tokens in 100 steps */
    struct limit_speed speed = {.begin_s = 5.0, .save_s = 2.0, .finish_s = 3.0};
    struct limit_cost cost = limit_estimate(&speed, &config, 10000.0, 0);
    assert_true(cost.train_s < 0.0); /* nothing has trained yet */
    speed.token_s[TRAIN_LORA] = 0.001;
    cost = limit_estimate(&speed, &config, 10000.0, 0);
    assert_near(cost.train_s, 20.0);
    assert_near(cost.step_s, 0.2);
    assert_near(cost.begin_s + cost.save_s + cost.finish_s, 10.0);
    cost = limit_estimate(&speed, &config, 10000.0, 75); /* cut before: a quarter is left */
    assert_near(cost.train_s, 5.0);
    cost = limit_estimate(&speed, &config, 10000.0, 5000); /* it takes longer than was thought */
    assert_true(cost.train_s > 0.0 && cost.train_s < 1.0);
    config.method = TRAIN_FULL; /* of a method that was not seen: by the other's */
    cost = limit_estimate(&speed, &config, 10000.0, 0);
    assert_near(cost.train_s, 40.0);
}

static void test_verdicts(void **state)
{
    (void)state;
    struct limit_cost cost = {
        .begin_s = 5.0, .train_s = 100.0, .step_s = 1.0, .save_s = 2.0, .finish_s = 5.0};
    assert_int_equal(limit_judge(&cost, INFINITY), LIMIT_FITS);
    assert_int_equal(limit_judge(&cost, 122.0), LIMIT_FITS);
    assert_int_equal(limit_judge(&cost, 110.0), LIMIT_SPLITS); /* nothing to spare */
    assert_int_equal(limit_judge(&cost, 16.0), LIMIT_SPLITS);
    assert_int_equal(limit_judge(&cost, 14.0), LIMIT_NEITHER);
    assert_int_equal(limit_judge(&cost, 0.0), LIMIT_NEITHER);
    assert_int_equal(limit_judge(&cost, -5.0), LIMIT_NEITHER);
    cost.step_s = 30.0; /* some steps must fit */
    assert_int_equal(limit_judge(&cost, 90.0), LIMIT_NEITHER);
    cost.begin_s = 60.0; /* what it gets done must be worth beginning it */
    cost.step_s = 1.0;
    assert_int_equal(limit_judge(&cost, 130.0), LIMIT_NEITHER);
    assert_int_equal(limit_judge(&cost, 140.0), LIMIT_SPLITS);
    cost.train_s = 0.0; /* a score alone cannot be cut */
    cost.finish_s = 10.0;
    assert_int_equal(limit_judge(&cost, 80.0), LIMIT_FITS);
    assert_int_equal(limit_judge(&cost, 70.0), LIMIT_NEITHER);
    struct limit_cost unknown = {.train_s = -1.0};
    assert_int_equal(limit_judge(&unknown, 1.0), LIMIT_FITS);
    assert_int_equal(limit_judge(&unknown, -1.0), LIMIT_NEITHER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stop_step),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_answer),
        cmocka_unit_test(test_usual_times_grow_with_the_model),
        cmocka_unit_test(test_snapshots_take_a_tenth_of_the_time),
        cmocka_unit_test(test_learning),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_estimates),
        cmocka_unit_test(test_verdicts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
