/* What somebody wanted, and the search did: the limits in force, the last halt. */
#include "tree/life.h"

#include <math.h>
#include <stdio.h>

static void test_limits(void **state)
{
    (void)state;
    struct search search;
    live(&search, 2);
    for (int id = 0; id < SEARCH_LIMIT_COUNT; id++) {
        assert_true(isnan(search.limits[id]));
    }
    must_apply(&search, LIMITS("{\"rounds\":40,\"core_hours\":2.5,\"goal_score\":-0.5,\"new\":7}"));
    assert_true(search.limits[SEARCH_LIMIT_ROUNDS] == 40.0);
    assert_true(search.limits[SEARCH_LIMIT_CORE_HOURS] == 2.5);
    assert_true(search.limits[SEARCH_LIMIT_GOAL_SCORE] == -0.5);
    assert_true(isnan(search.limits[SEARCH_LIMIT_GPU_HOURS]));
    assert_int_equal(search.incidents_seen, 1);
    const struct search_incident *one = &search.incidents[0];
    assert_string_equal(one->kind, "limits");
    assert_string_equal(one->message, "rounds 20 -> 40, by a@b");
    assert_true(one->time_s == 103.0 && isnan(one->lost_s));
    assert_int_equal(one->allocation, 0);
    assert_int_equal(one->node, -1);
    assert_int_equal(one->candidate, -1);
    /* The event says all that holds: what it leaves out is the job file's again. */
    must_apply(&search, LIMITS("{\"rounds\":null,\"gpu_hours\":0}"));
    assert_true(isnan(search.limits[SEARCH_LIMIT_ROUNDS]));
    assert_true(isnan(search.limits[SEARCH_LIMIT_CORE_HOURS]));
    assert_true(search.limits[SEARCH_LIMIT_GPU_HOURS] == 0.0);
    search_fini(&search);
}

static void test_bad_limits(void **state)
{
    (void)state;
    struct search search;
    live(&search, 2);
    must_apply(&search, LIMITS("{\"rounds\":40}"));
    refuse(&search, "\"event\":\"limits_set\",\"what\":\"w\",\"by\":\"b\"", "/limits");
    refuse(&search, "\"event\":\"limits_set\",\"limits\":{},\"by\":\"b\"", "/what");
    refuse(&search, "\"event\":\"limits_set\",\"limits\":{},\"what\":\"w\"", "/by");
    refuse(&search, LIMITS("7"), "/limits");
    refuse(&search, LIMITS("[40]"), "/limits");
    refuse(&search, LIMITS("null"), "/limits");
    refuse(&search, LIMITS("{\"rounds\":-1}"), "/limits/rounds");
    refuse(&search, LIMITS("{\"rounds\":2.5}"), "/limits/rounds");
    refuse(&search, LIMITS("{\"rounds\":1e300}"), "/limits/rounds");
    refuse(&search, LIMITS("{\"rounds\":\"many\"}"), "/limits/rounds");
    refuse(&search, LIMITS("{\"rounds\":5,\"core_hours\":-0.5}"), "/limits/core_hours");
    refuse(&search, LIMITS("{\"gpu_hours\":1e10}"), "/limits/gpu_hours");
    refuse(&search, LIMITS("{\"goal_score\":1e999}"), "/limits/goal_score");
    refuse(&search, LIMITS("{\"agent_tokens\":true}"), "/limits/agent_tokens");
    assert_true(search.limits[SEARCH_LIMIT_ROUNDS] == 40.0);
    search_fini(&search);
}

static void test_halts(void **state)
{
    (void)state;
    struct search search;
    live(&search, 2);
    assert_string_equal(search.halt_id, "");
    must_apply(&search, HALTED("0123456789abcdef"));
    assert_string_equal(search.halt_id, "0123456789abcdef");
    assert_string_equal(search.incidents[0].kind, "halted");
    assert_string_equal(search.incidents[0].message, "at once, by a@b");
    must_apply(&search, HALTED("aaaaaaaabbbbbbbbccccccccddddddddeeeeeee"));
    assert_string_equal(search.halt_id, "aaaaaaaabbbbbbbbccccccccddddddddeeeeeee");
    refuse(&search, HALTED("aaaaaaaabbbbbbbbccccccccddddddddeeeeeeee"), "/id");
    refuse(&search, HALTED(""), "/id");
    refuse(&search, HALTED("1234567"), "/id");
    refuse(&search, HALTED("ABCDEFGH"), "/id");
    refuse(&search, HALTED("01234567\\n"), "/id");
    refuse(&search, "\"event\":\"halted\",\"how\":\"h\",\"by\":\"b\"", "/id");
    refuse(&search, "\"event\":\"halted\",\"id\":7,\"how\":\"h\",\"by\":\"b\"", "/id");
    refuse(&search, "\"event\":\"halted\",\"id\":\"0123456789\",\"by\":\"b\"", "/how");
    refuse(&search, "\"event\":\"halted\",\"id\":\"0123456789\",\"how\":\"h\"", "/by");
    search_fini(&search);
}

/* What the reader is told may be cut, or not kept at all: the values are. */
static void test_values_do_not_hang_on_texts(void **state)
{
    (void)state;
    static const char begin[] = "\"event\":\"limits_set\",\"limits\":{\"rounds\":50},\"by\":\"b\",";
    struct search search;
    live(&search, 2);
    char *body = calloc(sizeof(begin) + SEARCH_LINE_MAX_BYTES + 32, 1);
    assert_non_null(body);
    strcpy(body, begin);
    strcat(body, "\"what\":\"");
    memset(body + strlen(body), 'x', SEARCH_LINE_MAX_BYTES + 9);
    strcat(body, "\"");
    must_apply(&search, body);
    free(body);
    assert_int_equal(strlen(search.incidents[0].message), SEARCH_LINE_MAX_BYTES);
    assert_true(search.limits[SEARCH_LIMIT_ROUNDS] == 50.0);
    while (search.incidents_seen < SEARCH_INCIDENTS_MAX) {
        must_apply(&search, "\"event\":\"incident\",\"kind\":\"disk\",\"message\":\"full\"");
    }
    must_apply(&search, LIMITS("{\"rounds\":60}"));
    must_apply(&search, HALTED("0123456789"));
    assert_int_equal(search.incident_count, SEARCH_INCIDENTS_MAX);
    assert_int_equal(search.incidents_seen, SEARCH_INCIDENTS_MAX + 2);
    assert_true(search.limits[SEARCH_LIMIT_ROUNDS] == 60.0);
    assert_string_equal(search.halt_id, "0123456789");
    search_fini(&search);
}

static void test_table(void **state)
{
    (void)state;
    assert_true(search_limit_fits(SEARCH_LIMIT_ROUNDS, 0.0));
    assert_false(search_limit_fits(SEARCH_LIMIT_ROUNDS, 0.5));
    assert_false(search_limit_fits(SEARCH_LIMIT_ROUNDS, TREE_NODES_MAX));
    assert_true(search_limit_fits(SEARCH_LIMIT_GOAL_SCORE, -3.5));
    assert_false(search_limit_fits(SEARCH_LIMIT_GOAL_SCORE, NAN));
    assert_false(search_limit_fits(SEARCH_LIMIT_CORE_HOURS, INFINITY));
    assert_true(search_limit_same(NAN, NAN) && search_limit_same(2.0, 2.0));
    assert_false(search_limit_same(NAN, 0.0) || search_limit_same(1.0, 2.0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits), cmocka_unit_test(test_bad_limits),
        cmocka_unit_test(test_halts),  cmocka_unit_test(test_values_do_not_hang_on_texts),
        cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
