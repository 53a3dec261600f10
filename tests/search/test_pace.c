/* What a worker tells of its speed, from which the controller predicts how long a stop takes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "run/pace.h"

#define ASSERT_SECONDS(found, expected) assert_true(fabs((found) - (expected)) < 1e-12)

static void test_nothing_is_known_at_first(void **state)
{
    (void)state;
    struct pace pace = {0};
    pace_begin(&pace, 100.0);
    ASSERT_SECONDS(pace_step_s(&pace), 0.0);
    ASSERT_SECONDS(pace_save_s(&pace), 0.0);
    ASSERT_SECONDS(pace.gap_s, 0.0);
    pace_expect_state(&pace, 1e6);
    ASSERT_SECONDS(pace_save_s(&pace), 0.0);
}

static void test_steps_are_whole_and_recent(void **state)
{
    (void)state;
    struct pace pace = {0};
    pace_begin(&pace, 0.0);
    pace_mark_step(&pace, 40, 5.0); /* resumed here: what came before was no step */
    ASSERT_SECONDS(pace_step_s(&pace), 0.0);
    pace_mark_step(&pace, 41, 7.0);
    ASSERT_SECONDS(pace_step_s(&pace), 2.0);
    pace_mark(&pace, true, 17.0); /* a validation is no part of the next step */
    pace_mark_step(&pace, 42, 18.0);
    ASSERT_SECONDS(pace_step_s(&pace), 1.5);
    for (int i = 1; i <= PACE_STEPS; i++) {
        pace_mark_step(&pace, 42 + i, 18.0 + 0.25 * i);
    }
    ASSERT_SECONDS(pace_step_s(&pace), 0.25);
    pace_begin(&pace, 60.0);
    ASSERT_SECONDS(pace_step_s(&pace), 0.0);
}

static void test_gaps_are_between_boundaries(void **state)
{
    (void)state;
    struct pace pace = {0};
    pace_begin(&pace, 10.0);
    pace_mark(&pace, true, 13.0);
    ASSERT_SECONDS(pace.gap_s, 3.0);
    pace_mark(&pace, false, 15.0); /* within a save */
    pace_mark(&pace, false, 16.5);
    ASSERT_SECONDS(pace.gap_s, 3.0);
    pace_mark_step(&pace, 1, 17.0);
    ASSERT_SECONDS(pace.gap_s, 4.0);
    pace_mark_step(&pace, 2, 18.0);
    ASSERT_SECONDS(pace.gap_s, 4.0);
    pace_begin(&pace, 30.0);
    ASSERT_SECONDS(pace.gap_s, 0.0);
}

static void test_saves_predict_those_of_other_candidates(void **state)
{
    (void)state;
    struct pace pace = {0};
    pace_begin(&pace, 0.0);
    pace_expect_state(&pace, 1000.0);
    pace_saved(&pace, 1000.0, 2.0);
    pace_saved(&pace, 1000.0, 3.0);
    pace_saved(&pace, 1000.0, 2.5);
    ASSERT_SECONDS(pace_save_s(&pace), 3.0);

    pace_begin(&pace, 50.0); /* the next candidate: twice as large */
    pace_expect_state(&pace, 2000.0);
    ASSERT_SECONDS(pace_save_s(&pace), 6.0);
    pace_saved(&pace, 2000.0, 4.0);
    ASSERT_SECONDS(pace_save_s(&pace), 4.0);

    pace_begin(&pace, 90.0); /* a small one: no save is shorter than the disk's answer */
    pace_expect_state(&pace, 10.0);
    ASSERT_SECONDS(pace_save_s(&pace), 4.0);
    pace_saved(&pace, 10.0, 0.125);
    ASSERT_SECONDS(pace_save_s(&pace), 0.125);

    pace_begin(&pace, 120.0); /* what the small one taught says nothing of a large one */
    pace_expect_state(&pace, 2000.0);
    ASSERT_SECONDS(pace_save_s(&pace), 4.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_known_at_first),
        cmocka_unit_test(test_steps_are_whole_and_recent),
        cmocka_unit_test(test_gaps_are_between_boundaries),
        cmocka_unit_test(test_saves_predict_those_of_other_candidates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
