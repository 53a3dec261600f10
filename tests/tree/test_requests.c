/* Plans that were asked for, what became of them, and how far ahead is planned. */
#include "tree/life.h"

/* Up to the baseline, closed. */
enum { BASELINE_EVENTS = 7 };

#define ANSWERING(node, parent, number) PLAN(node, parent, "[{}],\"number\":" number)

static void test_requests(void **state)
{
    struct search search;
    (void)state;
    live(&search, BASELINE_EVENTS);
    int64_t outcomes = search.outcomes;
    must_apply(&search, REQUEST("1", "0"));
    must_apply(&search, REQUEST("2", "0"));
    assert_int_equal(search.outcomes, outcomes); /* nothing new is known */
    assert_int_equal(search.request_count, 2);
    assert_true(search_request_is_open(&search.requests[0]));
    must_apply(&search, ANSWERING("1", "0", "2")); /* in any order */
    assert_int_equal(search.requests[1].node, 1);
    assert_false(search_request_is_open(&search.requests[1]));
    must_apply(&search, DROP("1", "true"));
    assert_int_equal(search.outcomes, outcomes + 2);
    assert_string_equal(search.requests[0].dropped, "tried");
    assert_true(search.requests[0].refused);
    assert_int_equal(search.requests[0].node, -1);
    assert_int_equal(search.requests[0].outcomes, outcomes);
    assert_int_equal(search.requests[0].dropped_outcomes, outcomes + 1);
    must_apply(&search, REQUEST("3", "0"));
    assert_int_equal(search.requests[2].outcomes, outcomes + 2);
    must_apply(&search, PLAN("2", "0", "[{}]")); /* one that nobody asked for, as before */
    must_apply(&search, REQUEST("4", "0,\"outcomes\":5")); /* decided before it was on disk */
    assert_int_equal(search.requests[3].outcomes, 5);
    refuse(&search, REQUEST("5", "0,\"outcomes\":4"), "/outcomes");
    refuse(&search, REQUEST("5", "0,\"outcomes\":7"), "/outcomes");
    assert_true(search_request_is_open(&search.requests[2]));
    search_fini(&search);
}

/* Refused ones in a row: whoever proposes nothing that can run has nothing more to propose. */
static void test_refusals(void **state)
{
    struct search search;
    (void)state;
    live(&search, BASELINE_EVENTS);
    must_apply(&search, REQUEST("1", "0"));
    must_apply(&search, REQUEST("2", "0"));
    must_apply(&search, REQUEST("3", "0"));
    must_apply(&search, REQUEST("4", "0"));
    must_apply(&search, DROP("1", "true"));
    must_apply(&search, DROP("2", "false")); /* nobody wanted it: this says nothing of the plans */
    must_apply(&search, DROP("3", "true"));
    assert_int_equal(search.refusals, 2);
    must_apply(&search, ANSWERING("1", "0", "4"));
    assert_int_equal(search.refusals, 0);
    search_fini(&search);
}

static void test_refused_events(void **state)
{
    struct search search;
    (void)state;
    live(&search, BASELINE_EVENTS);
    refuse(&search, REQUEST("2", "0"), "allowed is the next, 1");
    refuse(&search, REQUEST("0", "0"), "/number");
    refuse(&search, REQUEST("1", "1"), "allowed is a node that was closed");
    refuse(&search, REQUEST("1", "-1"), "/parent");
    refuse(&search, "\"event\":\"plan_requested\",\"number\":1", "/parent");
    refuse(&search, DROP("1", "true"), "still to come");
    refuse(&search, ANSWERING("1", "0", "1"), "still to come");
    must_apply(&search, REQUEST("1", "0"));
    must_apply(&search, REQUEST("2", "0"));
    refuse(&search, REQUEST("2", "0"), "allowed is the next, 3");
    refuse(&search, DROP("1", "1"), "/refused");
    refuse(&search, DROP("3", "true"), "still to come");
    refuse(&search, "\"event\":\"plan_dropped\",\"number\":1,\"refused\":true", "/why");
    refuse(&search, "\"event\":\"plan_dropped\",\"number\":1,\"why\":\"w\"", "/refused");
    must_apply(&search, ANSWERING("1", "0", "1"));
    refuse(&search, REQUEST("3", "1"), "allowed is a node that was closed"); /* it is open */
    refuse(&search, DROP("1", "true"), "still to come");
    refuse(&search, ANSWERING("2", "0", "1"), "still to come");
    must_apply(&search, START("1", "0"));
    must_apply(&search, FINISH("1", "0", "0.6"));
    must_apply(&search, CLOSE("1"));
    refuse(&search, ANSWERING("2", "1", "2"), "plan 2 was wanted below 0");
    refuse(&search, PLAN("2", "0", "[{}],\"number\":\"2\""), "/number");
    search_fini(&search);

    live(&search, LIFE_FINISHED + 1);
    refuse(&search, REQUEST("5", "0"), "the search has finished");
    refuse(&search, DROP("4", "false"), "the search has finished");
    search_fini(&search);
}

static void test_ahead_set(void **state)
{
    struct search search;
    (void)state;
    live(&search, BASELINE_EVENTS);
    int64_t outcomes = search.outcomes;
    must_apply(&search, "\"event\":\"ahead_set\",\"candidates\":12");
    assert_int_equal(search.ahead, 12);
    assert_int_equal(search.outcomes, outcomes + 1);
    refuse(&search, "\"event\":\"ahead_set\",\"candidates\":-1", "/candidates");
    refuse(&search, "\"event\":\"ahead_set\",\"candidates\":1e9", "/candidates");
    refuse(&search, "\"event\":\"ahead_set\"", "/candidates");
    search_fini(&search);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_refused_events),
        cmocka_unit_test(test_ahead_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
