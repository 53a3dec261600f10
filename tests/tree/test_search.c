/* Every event good and bad; a refused event changes nothing; a replay gives the same search. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/mem.h"
#include "tree/life.h"

static void assert_candidates(const struct search *search)
{
    const struct candidate *c = &search->nodes[1].candidates[0];
    assert_int_equal(c->state, CANDIDATE_FINISHED);
    assert_string_equal(c->config, "{\"learning_rate\":0.001}");
    assert_string_equal(c->end, "finished");
    assert_int_equal(c->attempts, 0);
    assert_true(c->rank_seconds == 13.0); /* 3 before it was suspended and 10 after */
    assert_true(c->weights_kept);
    assert_true(c->validation.present && c->validation.value == 0.7);
    assert_int_equal(c->validation.format_failures, 3);
    assert_true(c->test.present && c->test.value == 0.68);
    assert_int_equal(c->curve_count, 2);
    assert_true(isnan(c->curve[0].validation_loss) && isnan(c->curve[1].gradient_norm));
    assert_true(c->curve[1].validation_loss == 1.9);
    assert_int_equal(c->case_count, 1);
    assert_string_equal(c->cases[0].output, "o");
    assert_int_equal(c->confusions[0].count, 9);
    assert_false(search->nodes[1].candidates[1].weights_kept);
    c = &search->nodes[1].candidates[2];
    assert_int_equal(c->state, CANDIDATE_FAILED);
    assert_int_equal(c->error->code, STATUS_DIVERGED);
    assert_int_equal(c->error->rank, 2);
    assert_string_equal(c->error->message, "loss");
    assert_string_equal(c->log_tail, "tail");
}

static void test_whole_life(void **state)
{
    (void)state;
    struct search search;
    struct error err;
    live(&search, LIFE_EVENTS);
    assert_int_equal(search.last_sequence, LIFE_EVENTS);
    assert_string_equal(search.identity.job, "{\"goal\":\"g\"}");
    assert_int_equal(search.identity.seed, 7);
    assert_int_equal(search.allocation_count, 2);
    assert_true(search.allocation_seconds == 25.0);
    assert_true(search.rank_seconds == 10.0 + 3.0 + 10.0 + 2.0 + 10.0 + 2.0);
    assert_int_equal(search.end, SEARCH_FINISHED);
    assert_string_equal(search.end_reason, "rounds");
    assert_candidates(&search);
    const struct search_node *node = &search.nodes[1];
    assert_int_equal(node->best, 0); /* a tie goes to the earlier candidate */
    assert_string_equal(node->recipe, "[{\"op\":\"dedup\"}]");
    assert_string_equal(node->recipe_report, "[{\"op\":\"dedup\"}]");
    assert_true(node->planned_at_s == 108.0 && node->closed_at_s == 134.0);
    assert_int_equal(search.tree.nodes[2].state, TREE_NODE_FAILED);
    assert_true(search.tree.nodes[1].reward == 0.7);
    assert_int_equal(search.insight_count, 4);
    assert_int_equal(tree_check(&search.tree, &err), STATUS_OK);
    int32_t best_node = -1;
    int32_t best_candidate = -1;
    assert_true(search_best(&search, &best_node, &best_candidate));
    assert_int_equal(best_node, 1);
    assert_int_equal(best_candidate, 0);
    search_fini(&search);
}

static void test_replay_is_equal(void **state)
{
    (void)state;
    for (int count = 0; count <= LIFE_EVENTS; count++) {
        struct search first;
        struct search second;
        live(&first, count);
        live(&second, count);
        char *a = dump_search(&first);
        char *b = dump_search(&second);
        assert_string_equal(a, b);
        search_fini(&first);
        search_fini(&second);
        free(a);
        free(b);
    }
}

static void test_smaller_is_better(void **state)
{
    (void)state;
    struct search search;
    search_init(&search);
    must_apply(&search, "\"event\":\"started\",\"job\":\"text\",\"model_hash\":\"m\",\"task_hash\":"
                        "\"t\",\"metric\":\"error\",\"larger_is_better\":false,\"version\":\"0.1\","
                        "\"seed\":0");
    must_apply(&search, PLAN("0", "-1", "[{},{}]"));
    must_apply(&search, START("0", "0"));
    must_apply(&search, START("0", "1"));
    must_apply(&search, FINISH("0", "0", "0.7"));
    must_apply(&search, FINISH("0", "1", "0.5"));
    must_apply(&search, CLOSE("0"));
    assert_int_equal(search.nodes[0].best, 1);
    assert_true(search.tree.nodes[0].reward == -0.5);
    assert_string_equal(search.identity.job, "text");
    search_fini(&search);
}

static void test_bad_headers(void **state)
{
    (void)state;
    const char *const events[] = {
        "7",
        "[]",
        "null",
        "{}",
        "{\"sequence\":1}",
        "{\"sequence\":1,\"time_s\":1}",
        "{\"sequence\":1,\"time_s\":1,\"event\":3}",
        "{\"sequence\":1,\"time_s\":-1,\"event\":\"started\"}",
        "{\"sequence\":1,\"time_s\":1e999,\"event\":\"started\"}",
        "{\"sequence\":1,\"time_s\":\"now\",\"event\":\"started\"}",
        "{\"sequence\":0,\"time_s\":1,\"event\":\"started\"}",
        "{\"sequence\":2,\"time_s\":1,\"event\":\"started\"}",
        "{\"sequence\":1.5,\"time_s\":1,\"event\":\"started\"}",
        "{\"sequence\":1e300,\"time_s\":1,\"event\":\"started\"}",
        "{\"sequence\":1,\"time_s\":1,\"event\":\"stopped\"}",
        "{\"sequence\":1,\"time_s\":1,\"event\":\"started\"}",
        "{\"sequence\":1,\"time_s\":1,\"event\":\"finished\"}",
    };
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        struct search search;
        struct error err = {0};
        cJSON *event = cJSON_Parse(events[i]);
        search_init(&search);
        assert_int_equal(search_apply(&search, event, &err), STATUS_INVALID);
        assert_true(err.message[0] != '\0');
        assert_int_equal(search.last_sequence, 0);
        cJSON_Delete(event);
        search_fini(&search);
    }
    struct search search;
    struct error err;
    search_init(&search);
    assert_int_equal(search_apply(&search, NULL, &err), STATUS_INVALID);
    search_fini(&search);
}

static void test_sequence(void **state)
{
    (void)state;
    struct search search;
    struct error err;
    live(&search, 4);
    static const int64_t sequences[] = {3, 4, 6, 5};
    for (size_t i = 0; i < 4; i++) {
        cJSON *event = parse_event(sequences[i], whole_life[4]);
        enum status expected = sequences[i] == 5 ? STATUS_OK : STATUS_INVALID;
        assert_int_equal(search_apply(&search, event, &err), expected);
        cJSON_Delete(event);
    }
    search_fini(&search);
}

static void test_bad_plans(void **state)
{
    (void)state;
    struct search search;
    live(&search, 7); /* the baseline is closed */
    refuse(&search, STARTED, "once");
    refuse(&search, PLAN("0", "0", "[{}]"), "allowed is the next, 1");
    refuse(&search, PLAN("2", "0", "[{}]"), "allowed is the next, 1");
    refuse(&search, PLAN("-1", "0", "[{}]"), "/node");
    refuse(&search, PLAN("\"1\"", "0", "[{}]"), "/node");
    refuse(&search, PLAN("1e99", "0", "[{}]"), "/node");
    refuse(&search, PLAN("1", "-1", "[{}]"), "cannot be the parent");
    refuse(&search, PLAN("1", "1", "[{}]"), "cannot be the parent");
    refuse(&search, PLAN("1", "99999999", "[{}]"), "/parent");
    refuse(&search, PLAN("1", "null", "[{}]"), "/parent");
    refuse(&search, PLAN("1", "0", "[]"), "found 0 configurations");
    refuse(&search, PLAN("1", "0", "[{},{},{},{},{},{}]"), "found 6 configurations");
    refuse(&search, PLAN("1", "0", "{}"), "/configs");
    refuse(&search, PLAN("1", "0", "[1]"), "/configs");
    refuse(&search, PLAN("1", "0", "null"), "/configs");
    refuse(&search, "\"event\":\"node_planned\",\"node\":1,\"parent\":0", "/strategy");
    refuse(&search,
           "\"event\":\"node_planned\",\"node\":1,\"parent\":0,\"strategy\":3,\"goal\":[],"
           "\"rationale\":{},\"recipe\":\"r\",\"researcher\":null,\"configs\":[{}]",
           "5 mistakes");
    must_apply(&search, PLAN("1", "0", "[{}]"));
    refuse(&search, PLAN("2", "1", "[{}]"), "not closed");
    search_fini(&search);
}

static void test_bad_candidates(void **state)
{
    (void)state;
    struct search search;
    live(&search, 8); /* n1 is planned with three candidates */
    refuse(&search, START("1", "3"), "does not exist");
    refuse(&search, START("2", "0"), "does not exist");
    refuse(&search, START("1", "5"), "/candidate");
    refuse(&search, START("-1", "0"), "/node");
    refuse(&search, START("0", "0"), "is finished");
    refuse(&search, FINISH("1", "0", "0.5"), "is planned");
    refuse(&search,
           "\"event\":\"candidate_suspended\",\"node\":1,\"candidate\":0,"
           "\"steps_done\":1,\"rank_seconds\":1",
           "is planned");
    refuse(&search, CLOSE("1"), "candidate 0 planned");
    refuse(&search, CLOSE("0"), "allowed is an open node");
    refuse(&search, CLOSE("9"), "allowed is an open node");
    must_apply(&search, START("1", "0"));
    refuse(&search, "\"event\":\"candidate_suspended\",\"node\":1,\"candidate\":0", "/steps_done");
    refuse(&search,
           "\"event\":\"candidate_suspended\",\"node\":1,\"candidate\":0,"
           "\"steps_done\":-1,\"rank_seconds\":-1",
           "2 mistakes");
    refuse(&search, "\"event\":\"weights_dropped\",\"node\":1,\"candidate\":0", "is running");
    refuse(&search, "\"event\":\"test_scored\",\"node\":1,\"candidate\":0,\"score\":" SCORE("1"),
           "is running");
    for (int start = 1; start < SEARCH_ATTEMPTS_MAX; start++) {
        must_apply(&search, START("1", "0"));
    }
    refuse(&search, START("1", "0"), "3 times");
    must_apply(&search, FAILED("1", "0"));
    refuse(&search, FAILED("1", "0"), "is failed");
    refuse(&search, "\"event\":\"candidate_failed\",\"node\":1,\"candidate\":1", "/error");
    refuse(&search,
           "\"event\":\"candidate_failed\",\"node\":1,\"candidate\":1,\"error\":"
           "{\"code\":99,\"line\":-4,\"message\":5}",
           "3 mistakes");
    search_fini(&search);
}

static void test_bad_results(void **state)
{
    (void)state;
    struct search search;
    live(&search, 4);
#define WITH(result)                                                                               \
    "\"event\":\"candidate_finished\",\"node\":0,\"candidate\":0,\"result\":" result
    static const struct {
        const char *body, *expected;
    } bad[] = {
        {"\"event\":\"candidate_finished\",\"node\":0,\"candidate\":0", "/result"},
        {WITH("[]"), "/result"},
        {WITH("{}"), "/result/validation"},
        {WITH("{\"validation\":3}"), "/result/validation"},
        {WITH("{\"validation\":{}}"), "/result/validation/value"},
        {WITH("{\"validation\":{\"value\":null}}"), "/result/validation/value"},
        {WITH("{\"validation\":{\"value\":1e999}}"), "/result/validation/value"},
        {WITH("{\"validation\":{\"value\":\"NaN\"}}"), "/result/validation/value"},
        {WITH("{\"validation\":{\"value\":1,\"standard_error\":-1}}"), "standard_error"},
        {WITH("{\"validation\":{\"value\":1,\"rows\":-1}}"), "rows"},
        {WITH("{\"validation\":{\"value\":1},\"curve\":{}}"), "/result/curve"},
        {WITH("{\"validation\":{\"value\":1},\"curve\":[1]}"), "/result/curve/0"},
        {WITH("{\"validation\":{\"value\":1},\"curve\":[[1,2,3]]}"), "/result/curve/0"},
        {WITH("{\"validation\":{\"value\":1},\"curve\":[[1,2,3,4,5,6,7,8]]}"), "/result/curve/0"},
        {WITH("{\"validation\":{\"value\":1},\"curve\":[[-1,2,3,4,5,6,7]]}"), "/result/curve/0"},
        {WITH("{\"validation\":{\"value\":1},\"curve\":[[1,1e300,3,4,5,6,7]]}"), "/result/curve/0"},
        {WITH("{\"validation\":{\"value\":1},\"curve\":[[1,2,\"x\",4,5,6,7]]}"), "/result/curve/0"},
        {WITH("{\"validation\":{\"value\":1},\"cases\":[3]}"), "/result/cases/0"},
        {WITH("{\"validation\":{\"value\":1},\"cases\":[{\"prompt\":3}]}"), "cases/0/prompt"},
        {WITH("{\"validation\":{\"value\":1},\"confusions\":[{\"count\":3}]}"), "confusions/0"},
        {WITH("{\"validation\":{\"value\":1},\"end\":3}"), "/result/end"},
        {WITH("{\"validation\":{\"value\":1},\"steps_done\":0.5}"), "steps_done"},
        {WITH("{\"validation\":{\"value\":1},\"rank_seconds\":-1}"), "rank_seconds"},
        {WITH("{\"validation\":{\"value\":1},\"recipe_report\":{}}"), "recipe_report"},
        {WITH("{\"validation\":{\"value\":1}},\"weights_kept\":1"), "weights_kept"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refuse(&search, bad[i].body, bad[i].expected);
    }
    /* Numbers that JSON cannot hold come as null, and count as not measured. */
    must_apply(&search,
               WITH("{\"validation\":{\"value\":1,\"loss\":null,\"standard_error\":null}}"));
    assert_true(isnan(search.nodes[0].candidates[0].validation.loss));
    search_fini(&search);
}

/* A list of `count` copies of an item, or a text of so many letters. */
static char *repeated(const char *before, const char *item, int count, const char *after)
{
    struct buffer out;
    buffer_init(&out, (size_t)64 << 20);
    buffer_append_text(&out, before);
    for (int i = 0; i < count; i++) {
        buffer_printf(&out, "%s%s", i > 0 && item[1] != '\0' ? "," : "", item);
    }
    buffer_append_text(&out, after);
    return buffer_take(&out);
}

static void test_huge_events(void **state)
{
    (void)state;
    struct search search;
    live(&search, 4);
    static const struct {
        const char *before, *item;
        int count;
        const char *after, *expected;
    } huge[] = {
        {WITH("{\"validation\":{\"value\":1},\"curve\":["), "[1,2,3,4,5,6,7]", SEARCH_CURVE_MAX + 1,
         "]}", "found 1025 items"},
        {WITH("{\"validation\":{\"value\":1},\"cases\":["), "{}", SEARCH_CASES_MAX + 1, "]}",
         "found 33 items"},
        {WITH("{\"validation\":{\"value\":1},\"confusions\":["),
         "{\"expected\":\"a\",\"found\":\"b\"}", SEARCH_CONFUSIONS_MAX + 1, "]}", "found 17 items"},
        {WITH("{\"validation\":{\"value\":1},\"end\":\""), "x", SEARCH_TEXT_MAX_BYTES + 1, "\"}",
         "bytes"},
        {WITH("{\"validation\":{\"value\":1},\"recipe_report\":[\""), "x",
         SEARCH_TEXT_MAX_BYTES + 1, "\"]}", "bytes"},
    };
    for (size_t i = 0; i < sizeof(huge) / sizeof(huge[0]); i++) {
        char *body = repeated(huge[i].before, huge[i].item, huge[i].count, huge[i].after);
        refuse(&search, body, huge[i].expected);
        free(body);
    }
    must_apply(&search, FINISH("0", "0", "0.5"));
    char *body = repeated("\"event\":\"node_closed\",\"node\":0,\"diagnosis\":\"\",\"insights\":[",
                          "{\"text\":\"t\"}", SEARCH_INSIGHTS_MAX + 1, "]");
    refuse(&search, body, "at most 64");
    free(body);
    body = repeated("\"event\":\"node_closed\",\"node\":0,\"diagnosis\":\"\",\"insights\":[{"
                    "\"text\":\"t\",\"nodes\":[",
                    " 0", SEARCH_INSIGHT_NODES_MAX + 1, "]}]");
    refuse(&search, body, "up to 8");
    free(body);
    refuse(&search,
           "\"event\":\"node_closed\",\"node\":0,\"diagnosis\":\"\",\"insights\":[{\"text\":\"t\","
           "\"nodes\":[1]}]",
           "ids of nodes");
    refuse(&search, "\"event\":\"node_closed\",\"node\":0", "/diagnosis");
    must_apply(&search, CLOSE("0"));
    refuse(&search, CLOSE("0"), "allowed is an open node");
    body = repeated(PLAN("1", "0", "[{\"a\":\""), "x", SEARCH_TEXT_MAX_BYTES + 1, "\"}]");
    refuse(&search, body, "/configs");
    free(body);
    search_fini(&search);
}

static void test_ends(void **state)
{
    (void)state;
    struct search search;
    live(&search, LIFE_FINISHED);
#define FINISHED(node, candidate)                                                                  \
    "\"event\":\"finished\",\"reason\":\"r\",\"winner_node\":" node                                \
    ",\"winner_candidate\":" candidate
    refuse(&search, FINISHED("3", "0"), "/winner_node");
    refuse(&search, FINISHED("1", "2"), "/winner_node"); /* it failed */
    refuse(&search, FINISHED("1", "4"), "/winner_node");
    refuse(&search, FINISHED("-1", "0"), "/winner_node");
    refuse(&search, "\"event\":\"finished\",\"winner_node\":-1,\"winner_candidate\":-1", "/reason");
    refuse(&search, "\"event\":\"weights_dropped\",\"node\":1,\"candidate\":1", "not kept");
    must_apply(&search, whole_life[LIFE_FINISHED]);
    must_apply(&search, whole_life[LIFE_FINISHED + 1]);
    refuse(&search, whole_life[LIFE_FINISHED + 1], "already known");
    refuse(&search, PLAN("3", "1", "[{}]"), "has finished");
    refuse(&search, FINISHED("1", "0"), "has finished");
    must_apply(&search, "\"event\":\"allocation_started\",\"ranks\":1");
    search_fini(&search);

    live(&search, 1);
    must_apply(&search, FINISHED("-1", "-1"));
    assert_int_equal(search.winner_node, -1);
    search_fini(&search);
}

/* Every event, with every allocation failing in turn: an error, an unchanged search, and then the
 * event still fits. */
static void test_without_memory(void **state)
{
    (void)state;
    for (int count = 0; count < LIFE_EVENTS; count++) {
        struct search search;
        struct error err;
        live(&search, count);
        char *before = dump_search(&search);
        cJSON *event = parse_event(count + 1, whole_life[count]);
        enum status status = STATUS_NO_MEMORY;
        for (int n = 1; status != STATUS_OK; n++) {
            assert_in_range(n, 1, 100);
            mem_fail_nth(n);
            status = search_apply(&search, event, &err);
            mem_fail_nth(0);
            if (status != STATUS_OK) {
                char *after = dump_search(&search);
                assert_string_equal(before, after);
                free(after);
            }
        }
        cJSON_Delete(event);
        free(before);
        search_fini(&search);
    }
}

static void test_names(void **state)
{
    (void)state;
    char name[SEARCH_NAME_BYTES];
    int32_t node = -5;
    int32_t candidate = -5;
    search_candidate_name(7, 2, name);
    assert_string_equal(name, "n0007-c2");
    const char *const bad[] = {"",
                               "n",
                               "n0007",
                               "n0007-c",
                               "n0007-c5",
                               "n7-c2",
                               "n00007-c2",
                               "n0007-c2 ",
                               "x0007-c2",
                               "n0007-c02",
                               "n-007-c2",
                               "n99999999999999999999-c0",
                               "n1048576-c0",
                               "N0007-c2"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(search_candidate_parse(bad[i], &node, &candidate));
    }
    assert_int_equal(node, -5);
    assert_true(search_candidate_parse("n0007-c2", &node, &candidate));
    assert_int_equal(node, 7);
    assert_int_equal(candidate, 2);
    search_candidate_name(TREE_NODES_MAX - 1, 4, name);
    assert_true(search_candidate_parse(name, &node, &candidate));
    assert_int_equal(node, TREE_NODES_MAX - 1);
    assert_string_equal(candidate_state_name(CANDIDATE_SUSPENDED), "suspended");
    assert_string_equal(candidate_state_name(CANDIDATE_STATE_COUNT), "unknown");
}

static void test_scores(void **state)
{
    (void)state;
    struct search_score a = {.present = true, .value = 0.7, .standard_error = 0.03};
    struct search_score b = {.present = true, .value = 0.6, .standard_error = 0.04};
    assert_true(search_score_above(&a, &b, 1.9, true)); /* the difference is 0.1, its error 0.05 */
    assert_false(search_score_above(&a, &b, 2.1, true));
    assert_false(search_score_above(&a, &b, 1.0, false));
    assert_true(search_score_above(&b, &a, 1.9, false));
    b.present = false;
    assert_false(search_score_above(&a, &b, 0.0, true));
    int32_t node;
    int32_t candidate;
    struct search search;
    search_init(&search);
    assert_false(search_best(&search, &node, &candidate));
    search_fini(&search);

    a.loss = NAN;
    cJSON *json = search_score_to_json(&a);
    assert_non_null(json);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(json, "loss")));
    assert_true(cJSON_GetObjectItem(json, "value")->valuedouble == 0.7);
    cJSON_Delete(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_life),
        cmocka_unit_test(test_replay_is_equal),
        cmocka_unit_test(test_smaller_is_better),
        cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_sequence),
        cmocka_unit_test(test_bad_plans),
        cmocka_unit_test(test_bad_candidates),
        cmocka_unit_test(test_bad_results),
        cmocka_unit_test(test_huge_events),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_scores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
