/* What is chosen for the memory of a node, and what is cut first. */
#include "simulate.h"

#include "agents/memory.h"

static struct plan simple_plan(int32_t parent, const char *goal)
{
    struct plan plan = {.parent = parent, .recipe = cJSON_CreateArray(), .config_count = 1};
    plan.configs[0] = cJSON_CreateObject();
    plan.strategy = strdup(parent < 0 ? "baseline" : "refine best");
    plan.goal = strdup(goal);
    plan.rationale = strdup("the rationale of this plan in some words");
    plan.researcher = strdup("rules");
    return plan;
}

/* A closed node with this score (NaN: its candidate fails). */
static int32_t add_node(struct search *search, int32_t parent, double score)
{
    char text[64];
    snprintf(text, sizeof(text), "goal of node %d", (int)search->tree.count);
    struct plan plan = simple_plan(parent, text);
    int32_t node = add_plan(search, &plan);
    plan_fini(&plan);
    apply_event(search, new_event("candidate_started", node, 0));
    if (isnan(score)) {
        fail_candidate(search, node, 0, STATUS_DIVERGED);
    } else {
        struct outcome outcome = {.score = score,
                                  .standard_error = 0.01,
                                  .rows = 100,
                                  .train = {2, 2, 2, 2},
                                  .validation = {2, 2, 2, 2}};
        finish_candidate(search, node, 0, &outcome);
    }
    cJSON *close = new_event("node_closed", node, -1);
    snprintf(text, sizeof(text), "diagnosis of node %d", (int)node);
    cJSON_AddStringToObject(close, "diagnosis", text);
    cJSON *insights = cJSON_AddArrayToObject(close, "insights");
    cJSON *insight = cJSON_CreateObject();
    snprintf(text, sizeof(text), "insight of node %d", (int)node);
    cJSON_AddStringToObject(insight, "text", text);
    cJSON_AddItemToArray(insights, insight);
    apply_event(search, close);
    return node;
}

/* A search with a deep path, siblings, a gain elsewhere and a failure.
 *   0 - 1 - 2 - 3 - 4(closed)
 *               3 - 5(failed)   3 - 6(open)
 *   0 - 7 (large gain) - 8 (small change) - 9 (large loss) */
static void grow(struct search *search)
{
    begin_search(search, true);
    add_node(search, -1, 0.50);
    add_node(search, 0, 0.51);
    add_node(search, 1, 0.52);
    add_node(search, 2, 0.53);
    add_node(search, 3, 0.535);
    add_node(search, 3, NAN);
    struct plan plan = simple_plan(3, "goal of node 6");
    add_plan(search, &plan);
    plan_fini(&plan);
    add_node(search, 0, 0.70);
    add_node(search, 7, 0.705);
    add_node(search, 8, 0.60);
    add_node(search, 7, 0.90);
    add_node(search, 7, NAN);
}

static void test_selection(void **state)
{
    (void)state;
    struct search search;
    struct memory memory;
    grow(&search);
    memory_select(&search, 3, &memory);
    assert_int_equal(memory.path_count, 4);
    for (int32_t i = 0; i < 4; i++) {
        assert_int_equal(memory.path[i], i);
    }
    assert_int_equal(memory.sibling_count, 2); /* the open one is not known yet */
    assert_int_equal(memory.siblings[0], 4);
    assert_int_equal(memory.siblings[1], 5);
    /* Gains by size, then failures and losses from the newest. */
    const int32_t expected[] = {7, 10, 11, 9};
    assert_int_equal(memory.key_count, 4);
    /* 7 gained 0.20 over the baseline, 10 gained 0.20 over 7: a tie goes to the earlier. */
    for (int i = 0; i < 4; i++) {
        assert_int_equal(memory.key[i], expected[i]);
    }
    memory_select(&search, 99, &memory);
    assert_int_equal(memory.path_count, 0);
    search_fini(&search);
}

static void test_deep_and_wide(void **state)
{
    (void)state;
    struct search search;
    struct memory memory;
    begin_search(&search, true);
    add_node(&search, -1, 0.0);
    for (int32_t i = 0; i < 100; i++) {
        add_node(&search, i, 0.1 * (i + 1));
    }
    memory_select(&search, 100, &memory);
    assert_int_equal(memory.path_count, 64);
    assert_int_equal(memory.path[0], 0);
    assert_int_equal(memory.path[1], 38);
    assert_int_equal(memory.path[63], 100);
    assert_int_equal(memory.key_count, MEMORY_KEY_NODES_MAX); /* of the part that was left out */
    for (int i = 0; i < 80; i++) {
        add_node(&search, 100, 0.1);
    }
    memory_select(&search, 100, &memory);
    assert_int_equal(memory.sibling_count, 64);
    search_fini(&search);
}

static size_t render(const struct search *search, const struct memory *memory, size_t max_bytes,
                     struct buffer *out)
{
    struct error err = {0};
    buffer_init(out, 1 << 20);
    if (memory_render(search, memory, max_bytes, out, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_true(out->len_bytes <= max_bytes);
    assert_true(json_utf8_valid(buffer_text(out), out->len_bytes));
    return out->len_bytes;
}

static void test_rendering(void **state)
{
    (void)state;
    struct search search;
    struct memory memory;
    struct buffer text;
    grow(&search);
    memory_select(&search, 3, &memory);
    render(&search, &memory, 1 << 20, &text);
    const char *const parts[] = {"n0000 (baseline) accuracy 0.5",
                                 "n0003 (refine best, after n0002) accuracy 0.53",
                                 "Earlier attempts",
                                 "n0005 (refine best, after n0003) failed: goal of node 5",
                                 "training diverged",
                                 "Notable elsewhere",
                                 "n0007",
                                 "Learned so far",
                                 "- insight of node 11",
                                 "diagnosis of node 3",
                                 "the rationale of this plan",
                                 "ümläüts"};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (strstr(buffer_text(&text), parts[i]) == NULL) {
            fail_msg("no \"%s\" in\n%s", parts[i], buffer_text(&text));
        }
    }
    assert_null(strstr(buffer_text(&text), "node 6")); /* open */
    buffer_fini(&text);
    search_fini(&search);
}

static void test_cuts(void **state)
{
    (void)state;
    struct search search;
    struct memory memory;
    struct buffer text;
    grow(&search);
    memory_select(&search, 3, &memory);
    size_t whole = render(&search, &memory, 1 << 20, &text);
    buffer_fini(&text);
    /* Whatever the budget: never over it, and the node to refine outlives the rest. */
    for (size_t budget = whole; budget > 250; budget -= 37) {
        render(&search, &memory, budget, &text);
        assert_non_null(strstr(buffer_text(&text), "goal of node 3"));
        if (strstr(buffer_text(&text), "Notable elsewhere") == NULL) {
            assert_null(strstr(buffer_text(&text), "failed: prompt"));
        }
        buffer_fini(&text);
    }
    for (size_t budget = 0; budget < 100; budget++) {
        render(&search, &memory, budget, &text);
        buffer_fini(&text);
    }
    struct error err;
    struct buffer small;
    buffer_init(&small, 10);
    assert_int_equal(memory_render(&search, &memory, 1000, &small, &err), STATUS_LIMIT);
    buffer_fini(&small);
    search_fini(&search);
}

/* By support, then the newer first; what was retired is gone; no more than a few dozen. */
static void test_insights(void **state)
{
    (void)state;
    struct search search;
    struct memory memory;
    struct buffer text;
    struct error err = {0};
    grow(&search);
    cJSON *event = new_event("node_diagnosed", 1, -1);
    cJSON_AddStringToObject(event, "diagnosis", "closer");
    cJSON_AddArrayToObject(event, "causes");
    cJSON_AddItemToObject(event, "insights",
                          cJSON_Parse("[{\"text\":\"of three\",\"nodes\":[0,1,2]},"
                                      "{\"text\":\"of two\",\"nodes\":[1,2]},"
                                      "{\"text\":\"also of two\",\"nodes\":[2,3]}]"));
    cJSON_AddItemToObject(event, "retired", cJSON_Parse("[2,4]"));
    apply_event(&search, event);
    for (int i = 0; i < 60; i++) {
        event = new_event("node_diagnosed", 1, -1);
        cJSON_AddStringToObject(event, "diagnosis", "closer");
        cJSON_AddArrayToObject(event, "causes");
        cJSON_AddItemToObject(event, "insights", cJSON_Parse("[{\"text\":\"of none\"}]"));
        apply_event(&search, event);
    }
    memory_select(&search, 4, &memory);
    buffer_init(&text, 1 << 20);
    assert_int_equal(memory_render(&search, &memory, 1 << 19, &text, &err), STATUS_OK);
    assert_null(strstr(buffer_text(&text), "insight of node 2"));
    assert_null(strstr(buffer_text(&text), "insight of node 4"));
    assert_non_null(strstr(buffer_text(&text), "Learned so far:\n- of three (3 nodes)\n- also of "
                                               "two (2 nodes)\n- of two (2 nodes)\n- of none\n"));
    int lines = 0;
    for (const char *at = strstr(buffer_text(&text), "\n- "); at != NULL;
         at = strstr(at + 1, "\n- ")) {
        lines++;
    }
    assert_int_equal(lines, 48);
    buffer_fini(&text);
    search_fini(&search);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_selection), cmocka_unit_test(test_deep_and_wide),
        cmocka_unit_test(test_rendering), cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_insights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
