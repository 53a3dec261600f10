/* How many candidates are planned ahead. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "run/ahead.h"

static void test_nothing_measured(void **state)
{
    (void)state;
    struct ahead ahead = {0};
    assert_int_equal(ahead_wanted(&ahead, 8, 3, 0), 0);
    assert_int_equal(ahead_wanted(&ahead, 8, 3, 6), 6);
    ahead_learn_latency(&ahead, 15.0);
    assert_int_equal(ahead_wanted(&ahead, 8, 3, 0), 0);
    ahead_learn_candidate(&ahead, NAN);
    ahead_learn_candidate(&ahead, -1.0);
    ahead_learn_candidate(&ahead, INFINITY);
    assert_int_equal(ahead_wanted(&ahead, 8, 3, 0), 0);
}

static void test_whole_rounds(void **state)
{
    (void)state;
    /* 8 workers x 5 s / 20 s = 2 candidates, 2.7 with the margin; x 10 s = 4, 5; x 15 s = 6, 7.2 */
    struct ahead ahead = {.latency_s = 5.0, .candidate_s = 20.0};
    assert_int_equal(ahead_wanted(&ahead, 8, 3, 0), 3);
    ahead.latency_s = 10.0;
    assert_int_equal(ahead_wanted(&ahead, 8, 3, 0), 6);
    ahead.latency_s = 15.0;
    assert_int_equal(ahead_wanted(&ahead, 8, 3, 6), 9);
    /* One worker: a plan that takes as long as a candidate needs one, which is a round. */
    ahead.latency_s = 20.0;
    assert_int_equal(ahead_wanted(&ahead, 1, 3, 0), 3);
}

static void test_quick_agents(void **state)
{
    (void)state;
    struct ahead ahead = {.latency_s = 0.19, .candidate_s = 20.0};
    assert_int_equal(ahead_wanted(&ahead, 8, 3, 0), 0);
    /* Within a fifth of the border it stays as it is, on both sides. */
    assert_int_equal(ahead_wanted(&ahead, 8, 3, 3), 3);
    ahead.latency_s = 0.21;
    assert_int_equal(ahead_wanted(&ahead, 8, 3, 0), 0);
    assert_int_equal(ahead_wanted(&ahead, 8, 3, 3), 3);
    ahead.latency_s = 0.10;
    assert_int_equal(ahead_wanted(&ahead, 8, 3, 3), 0);
    ahead.latency_s = 0.25;
    assert_int_equal(ahead_wanted(&ahead, 8, 3, 0), 3);
    /* One worker, three candidates a round: 60 s a round. */
    ahead.latency_s = 0.5;
    assert_int_equal(ahead_wanted(&ahead, 1, 3, 0), 0);
}

static void test_hysteresis(void **state)
{
    (void)state;
    struct ahead ahead = {.latency_s = 12.0, .candidate_s = 20.0};
    assert_int_equal(ahead_wanted(&ahead, 8, 3, 9), 9); /* 6 would just do: 5.9 */
    ahead.latency_s = 10.0;                             /* 5 */
    assert_int_equal(ahead_wanted(&ahead, 8, 3, 9), 6);
    ahead.latency_s = 12.5; /* and back up as soon as 6 are too few: 6.1 */
    assert_int_equal(ahead_wanted(&ahead, 8, 3, 6), 9);
}

static void test_learning(void **state)
{
    (void)state;
    struct ahead ahead = {0};
    ahead_learn_candidate(&ahead, 10.0);
    ahead_learn_candidate(&ahead, 30.0);
    assert_float_equal(ahead.candidate_s, 20.0, 1e-9);
    for (int i = 0; i < 100; i++) {
        ahead_learn_candidate(&ahead, 40.0);
    }
    assert_float_equal(ahead.candidate_s, 40.0, 0.1);
    ahead_learn_latency(&ahead, 4.0);
    ahead_learn_latency(&ahead, 8.0);
    assert_float_equal(ahead.latency_s, 8.0, 1e-9); /* a slow one counts at once */
    for (int i = 0; i < 8; i++) { /* quick ones that come together do not outweigh it .. */
        ahead_learn_latency(&ahead, 4.0);
    }
    assert_true(ahead.latency_s > 6.0 && ahead.latency_s < 7.0);
    for (int i = 0; i < 100; i++) { /* .. and many do */
        ahead_learn_latency(&ahead, 4.0);
    }
    assert_float_equal(ahead.latency_s, 4.0, 0.1);
    ahead_learn_latency(&ahead, NAN);
    ahead_learn_latency(&ahead, -1.0);
    assert_float_equal(ahead.latency_s, 4.0, 0.1);
    /* Absurd latencies ask for a bounded number. */
    ahead.latency_s = 1e300;
    assert_true(ahead_wanted(&ahead, 1000, 3, 0) <= 1000002);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_measured), cmocka_unit_test(test_whole_rounds),
        cmocka_unit_test(test_quick_agents),     cmocka_unit_test(test_hysteresis),
        cmocka_unit_test(test_learning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
