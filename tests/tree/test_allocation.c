/* Where a search ran, what it cost there, and what happened to it. */
#include "tree/life.h"

#include <math.h>
#include <stdio.h>

#include "base/mem.h"

#define STARTED_ON(more) "\"event\":\"allocation_started\",\"ranks\":2,\"host\":\"n\"" more
#define PROGRESS(seconds) "\"event\":\"allocation_progress\",\"seconds\":" seconds
#define ENDED(reason) "\"event\":\"allocation_ended\",\"reason\":\"" reason "\""
#define INCIDENT(more) "\"event\":\"incident\",\"kind\":\"disk\",\"message\":\"full\"" more

static void test_allocations(void **state)
{
    (void)state;
    struct search search;
    live(&search, LIFE_EVENTS);
    assert_int_equal(search.allocation_count, 2);
    const struct search_allocation *first = &search.allocations[0];
    assert_true(first->started_s == 102.0 && first->seconds == 20.0);
    assert_int_equal(first->ranks, 3);
    assert_int_equal(first->workers, 2);
    assert_int_equal(first->nodes, 1);
    assert_int_equal(first->threads, 4);
    assert_int_equal(first->gpus, 1);
    assert_int_equal(first->restarts, 2);
    assert_string_equal(first->job, "77");
    assert_string_equal(first->host, "node1");
    assert_string_equal(first->end, ""); /* it died */
    assert_true(isnan(first->predicted_s) && isnan(first->safe_s));
    /* An old program says ranks and host. */
    const struct search_allocation *second = &search.allocations[1];
    assert_int_equal(second->threads, 1);
    assert_int_equal(second->gpus + second->workers + second->nodes + second->restarts, 0);
    assert_string_equal(second->job, "");
    assert_string_equal(second->end, "finished");
    assert_true(second->seconds == 5.0 && second->predicted_s == 4.0 && second->safe_s == 1.5);
    assert_true(search.allocation_seconds == 25.0);
    search_fini(&search);
}

/* Each span of work counts with the cores and GPUs of the allocation it was done in. */
static void test_core_and_gpu_seconds(void **state)
{
    (void)state;
    struct search search;
    live(&search, LIFE_EVENTS);
    assert_true(search.rank_seconds == 23.0 + 14.0);
    assert_true(search.core_seconds == 4.0 * 23.0 + 14.0);
    assert_true(search.gpu_seconds == 23.0);
    const struct candidate *split = &search.nodes[1].candidates[0]; /* 3 s before, 10 s after */
    assert_true(split->core_seconds == 4.0 * 3.0 + 10.0 && split->gpu_seconds == 3.0);
    search_fini(&search);

    /* Work outside of any allocation: one core a rank. */
    live(&search, 1);
    must_apply(&search, PLAN("0", "-1", "[{}]"));
    must_apply(&search, START("0", "0"));
    must_apply(&search, FINISH("0", "0", "0.5"));
    assert_true(search.core_seconds == 10.0 && search.gpu_seconds == 0.0);
    search_fini(&search);
}

static void test_bad_allocations(void **state)
{
    (void)state;
    struct search search;
    live(&search, 1);
    refuse(&search, PROGRESS("1"), "no allocation");
    refuse(&search, ENDED("finished"), "no allocation");
    refuse(&search, "\"event\":\"allocation_started\",\"host\":\"n\"", "/ranks");
    static const struct {
        const char *body, *expected;
    } bad[] = {
        {"\"event\":\"allocation_started\",\"ranks\":0", "/ranks"},
        {"\"event\":\"allocation_started\",\"ranks\":1,\"host\":7", "/host"},
        {STARTED_ON(",\"workers\":-1"), "/workers"},
        {STARTED_ON(",\"nodes\":1.5"), "/nodes"},
        {STARTED_ON(",\"threads\":-4"), "/threads"},
        {STARTED_ON(",\"threads\":1e300"), "/threads"},
        {STARTED_ON(",\"gpus\":-1"), "/gpus"},
        {STARTED_ON(",\"gpus\":\"two\""), "/gpus"},
        {STARTED_ON(",\"job\":77"), "/job"},
        {STARTED_ON(",\"restarts\":[]"), "/restarts"},
        {STARTED_ON(",\"restarts\":3000000000"), "/restarts"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refuse(&search, bad[i].body, bad[i].expected);
    }
    must_apply(&search, STARTED_ON(",\"threads\":null,\"gpus\":null,\"job\":null"));
    refuse(&search, "\"event\":\"allocation_progress\"", "/seconds");
    refuse(&search, PROGRESS("-1"), "/seconds");
    refuse(&search, PROGRESS("1e300"), "/seconds"); /* sums must stay finite */
    refuse(&search, "\"event\":\"allocation_ended\"", "/reason");
    refuse(&search, ENDED(""), "/reason");
    refuse(&search, ENDED("x") ",\"safe_s\":-1", "/safe_s");
    refuse(&search, ENDED("x") ",\"predicted_s\":\"soon\"", "/predicted_s");
    must_apply(&search, ENDED("stopped: signal") ",\"safe_s\":null");
    /* Last words may come in any order; the last of them counts. */
    must_apply(&search, ENDED("failed: disk"));
    assert_string_equal(search.allocations[0].end, "failed: disk");
    must_apply(&search, PROGRESS("9"));
    must_apply(&search, PROGRESS("3"));
    assert_true(search.allocations[0].seconds == 9.0);
    search_fini(&search);
}

static void test_incidents(void **state)
{
    (void)state;
    struct search search;
    live(&search, LIFE_EVENTS);
    assert_int_equal(search.incident_count, 3);
    assert_int_equal(search.incidents_seen, 3);
    const struct search_incident *one = &search.incidents[0];
    assert_true(one->time_s == 128.0 && one->lost_s == 4.5);
    assert_int_equal(one->allocation, 1);
    assert_string_equal(one->kind, "rank lost");
    assert_string_equal(one->message, "rank 2 died");
    assert_int_equal(one->node, 1);
    assert_int_equal(one->candidate, 2);
    assert_int_equal(search.nodes[1].candidates[2].kills, 1);
    /* Also when the search is over, and about nothing or a node alone. */
    must_apply(&search, INCIDENT(",\"node\":null,\"candidate\":null,\"lost_s\":null"));
    must_apply(&search, INCIDENT(",\"node\":2"));
    assert_int_equal(search.incidents[3].node, -1);
    assert_true(isnan(search.incidents[3].lost_s));
    assert_int_equal(search.incidents[4].node, 2);
    assert_int_equal(search.incidents[4].candidate, -1);
    refuse(&search, "\"event\":\"incident\",\"kind\":\"disk\"", "/message");
    refuse(&search, "\"event\":\"incident\",\"message\":\"m\"", "/kind");
    refuse(&search, INCIDENT(",\"node\":3"), "does not exist");
    refuse(&search, INCIDENT(",\"node\":-1"), "/node");
    refuse(&search, INCIDENT(",\"node\":1,\"candidate\":3"), "does not exist");
    refuse(&search, INCIDENT(",\"candidate\":0"), "/node");
    refuse(&search, INCIDENT(",\"node\":1,\"blames\":true"), "/candidate");
    refuse(&search, INCIDENT(",\"blames\":true"), "/candidate");
    refuse(&search, INCIDENT(",\"blames\":1"), "/blames");
    refuse(&search, INCIDENT(",\"lost_s\":-1"), "/lost_s");
    search_fini(&search);

    live(&search, 1);
    must_apply(&search, INCIDENT(""));
    assert_int_equal(search.incidents[0].allocation, -1);
    search_fini(&search);
}

/* What a candidate was blamed for is never forgotten: not when it was suspended, not when it has
 * finished. */
static void test_kills(void **state)
{
    (void)state;
    struct search search;
    live(&search, 8);
    struct candidate *candidate = &search.nodes[1].candidates[0];
    must_apply(&search, START("1", "0"));
    must_apply(&search, BLAME("1", "0"));
    must_apply(&search, START("1", "0"));
    must_apply(&search, "\"event\":\"candidate_suspended\",\"node\":1,\"candidate\":0,"
                        "\"steps_done\":1,\"rank_seconds\":1");
    assert_int_equal(candidate->attempts, 0);
    assert_int_equal(candidate->kills, 1);
    must_apply(&search, START("1", "0"));
    must_apply(&search, BLAME("1", "0"));
    assert_int_equal(candidate->kills, SEARCH_KILLS_MAX);
    refuse(&search, START("1", "0"), "has ended its rank 2 times");
    must_apply(&search, FINISH("1", "0", "0.5")); /* its result came all the same */
    assert_int_equal(candidate->kills, SEARCH_KILLS_MAX);
    must_apply(&search, START("1", "1")); /* the others go on */
    search_fini(&search);
}

/* Text of an event with a member of so many letters. */
static char *long_event(const char *before, size_t letters, const char *after)
{
    size_t bytes = strlen(before) + letters + strlen(after) + 1;
    char *text = calloc(bytes, 1);
    assert_non_null(text);
    strcpy(text, before);
    memset(text + strlen(before), 'x', letters);
    strcat(text, after);
    return text;
}

/* They are cut, between two characters; what is longer than any text may be is refused. */
static void test_long_texts(void **state)
{
    (void)state;
    static const char *const members[] = {
        "\"event\":\"allocation_started\",\"ranks\":1,\"host\":\"",
        "\"event\":\"allocation_started\",\"ranks\":1,\"job\":\"",
        "\"event\":\"allocation_ended\",\"reason\":\"",
        "\"event\":\"incident\",\"kind\":\"k\",\"message\":\"",
        "\"event\":\"incident\",\"message\":\"m\",\"kind\":\"",
    };
    struct search search;
    live(&search, 2);
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        char *body = long_event(members[i], SEARCH_TEXT_MAX_BYTES + 1, "\"");
        refuse(&search, body, "bytes, allowed are");
        free(body);
        body = long_event(members[i], SEARCH_LINE_MAX_BYTES - 1, "\xC3\xA4...\"");
        must_apply(&search, body);
        free(body);
    }
    assert_int_equal(search.allocation_count, 3);
    assert_int_equal(strlen(search.allocations[1].host), SEARCH_LINE_MAX_BYTES - 1);
    assert_int_equal(strlen(search.allocations[2].job), SEARCH_LINE_MAX_BYTES - 1);
    assert_int_equal(strlen(search.allocations[2].end), SEARCH_LINE_MAX_BYTES - 1);
    assert_int_equal(strlen(search.incidents[0].message), SEARCH_LINE_MAX_BYTES - 1);
    search_fini(&search);
}

/* A search that meets a fault a second is not stopped by the list of them. */
static void test_more_than_are_kept(void **state)
{
    (void)state;
    struct search search;
    live(&search, 8);
    while (search.incidents_seen < SEARCH_INCIDENTS_MAX) {
        must_apply(&search, INCIDENT(""));
    }
    must_apply(&search, BLAME("1", "1"));
    assert_int_equal(search.incident_count, SEARCH_INCIDENTS_MAX);
    assert_int_equal(search.incidents_seen, SEARCH_INCIDENTS_MAX + 1);
    assert_int_equal(search.nodes[1].candidates[1].kills, 1); /* it counts all the same */
    assert_string_equal(search.incidents[SEARCH_INCIDENTS_MAX - 1].message, "full");

    while (search.allocation_count < SEARCH_ALLOCATIONS_MAX) {
        must_apply(&search, STARTED_ON(""));
    }
    must_apply(&search, PROGRESS("2"));
    must_apply(&search, STARTED_ON(",\"job\":\"99\""));
    must_apply(&search, PROGRESS("1"));
    assert_int_equal(search.allocation_count, SEARCH_ALLOCATIONS_MAX);
    assert_string_equal(search.allocations[SEARCH_ALLOCATIONS_MAX - 1].job, "99");
    assert_true(search.allocation_seconds == 10.0 + 2.0 + 1.0);
    search_fini(&search);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocations),
        cmocka_unit_test(test_core_and_gpu_seconds),
        cmocka_unit_test(test_bad_allocations),
        cmocka_unit_test(test_incidents),
        cmocka_unit_test(test_kills),
        cmocka_unit_test(test_long_texts),
        cmocka_unit_test(test_more_than_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
