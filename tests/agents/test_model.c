/* The researcher of a language model: whole conversations, restarts, several plans at once, caps,
 * no answer at all. test_model_replies.c has bad replies, test_model_evidence.c what it is shown.
 */
#include "agents/model_fixture.h"

static void test_conversation(void **state)
{
    (void)state;
    struct script script = {.reply = good_reply};
    struct play play;
    play_begin(&play, &script);
    play_close(&play);
    play.options.literature = true;
    play.options.data = true;
    play_open(&play, &script);
    const struct search *search = &play.search;
    assert_false(researcher_is_prepared(play.researcher, search));
    play_settle(&play);
    assert_true(researcher_is_prepared(play.researcher, search));
    assert_true(search->prompt_count >= 19);
    assert_says(search->brief, "two classes");
    assert_int_equal(search->document_count, 2);
    assert_string_equal(search->documents[0].note, "warm-up helps by 0.02");
    assert_string_equal(search->documents[1].path, "sources/a-b.jsonl");
    assert_int_equal(search->documents[1].rows, 500);

    run_baseline(&play);
    struct plan plan = request(&play, 0);
    assert_true(plan.by_model);
    assert_string_equal(plan.researcher, "openai scripted-1");
    assert_string_equal(plan.subject, "n0000.1");
    assert_string_equal(plan.strategy, "change training");
    assert_int_equal(plan.config_count, 3);
    assert_int_equal(plan.revision, 0);
    assert_int_equal(
        strncmp(plan.goal, "train longer, much: from the usual settings, whether more epochs", 64),
        0);
    assert_says(plan.rationale, "Refuted if: less than 0.01");
    struct train_config config;
    assert_true(plan_config_read_json(plan.configs[1], &config));
    assert_true(config.epochs > 3.9 && config.epochs < 4.1);
    assert_int_equal(config.precision, TRAIN_F32);
    int32_t node = add_plan(&play.search, &plan);
    plan_fini(&plan);

    /* The first diagnosis was of the baseline; this round gets its own, and insights. */
    assert_says(search->nodes[0].diagnosis, "negation is missed");
    assert_says(search->nodes[0].diagnosis, "In figures: ");
    assert_says(search->nodes[0].causes, "more rows with not");
    double score = 0.7;
    run_node(&play.search, play.researcher, node, usual_outcome, &score);
    play_settle(&play);
    assert_says(search->nodes[node].causes, "negation");
    assert_true(search->insight_count >= 2);
    assert_true(has_call(&play, "n0001/diagnose/1") && has_call(&play, "n0001/insights/1"));
    plan = request(&play, node);
    assert_says(plan.goal, "from n0001-c2, ");
    plan_fini(&plan);
    assert_true(script.longest_prompt <= play.options.prompt_tokens);
    play_end(&play);
}

/* ---- restarts ---- */

/* Interrupted after each turn, a conversation asks no question twice and gives the same plan. */
static void test_restarts(void **state)
{
    (void)state;
    char *whole = NULL;
    int asked = 0;
    for (int turns = 0; turns < 40; turns++) {
        struct script script = {.reply = good_reply};
        struct play play;
        struct error err = {0};
        struct plan plan;
        play_begin(&play, &script);
        play_close(&play);
        play.options.literature = true;
        play.options.data = true;
        play_open(&play, &script);
        if (turns > 0) {
            play_turns(&play, turns);
            play_restart(&play);
        }
        play_settle(&play);
        run_baseline(&play);
        assert_int_equal(researcher_request(play.researcher, &play.search, 0, 1, &err), STATUS_OK);
        if (turns > 0) {
            play_turns(&play, turns);
            play_restart(&play);
            assert_int_equal(researcher_request(play.researcher, &play.search, 0, 1, &err),
                             STATUS_OK);
        }
        play_settle(&play);
        memset(&plan, 0, sizeof(plan));
        assert_true(researcher_poll(play.researcher, &plan));
        assert_string_equal(plan.subject, "n0000.1");
        if (turns == 0) {
            whole = mem_strdup(plan.goal);
            asked = script.asked;
        }
        assert_string_equal(plan.goal, whole);
        assert_true(script.asked <= asked + 4); /* those that were under way are lost, twice */
        plan_fini(&plan);
        play_end(&play);
    }
    free(whole);
}

/* A plan that was under way is the same after a restart, with the calls of its number; and those
 * that nobody wants any more are forgotten by theirs. */
static void test_numbers(void **state)
{
    (void)state;
    struct script script = {.reply = good_reply};
    struct play play;
    struct error err = {0};
    struct plan plans[3];
    play_begin(&play, &script);
    play_settle(&play);
    run_baseline(&play);
    for (int i = 0; i < 3; i++) {
        char subject[32];
        plans[i] = request(&play, 0);
        snprintf(subject, sizeof(subject), "n0000.%d", i + 1);
        assert_int_equal(plans[i].number, i + 1);
        assert_string_equal(plans[i].subject, subject);
    }
    add_plan(&play.search, &plans[1]); /* the second is the first that is recorded */
    int asked = script.asked;
    play_restart(&play);
    play.requests = 2;
    struct plan next = request(&play, 0);
    assert_string_equal(next.subject, "n0000.3");
    assert_string_equal(next.goal, plans[2].goal);
    assert_int_equal(script.asked, asked);
    plan_fini(&next);

    for (int32_t number = 4; number <= 5; number++) {
        assert_int_equal(researcher_request(play.researcher, &play.search, 0, number, &err),
                         STATUS_OK);
    }
    researcher_forget(play.researcher, 4);
    assert_int_equal(researcher_pending(play.researcher), 1);
    play_settle(&play);
    assert_true(researcher_poll(play.researcher, &next));
    assert_int_equal(next.number, 5);
    assert_false(researcher_poll(play.researcher, &plans[0]));
    plan_fini(&next);
    for (int i = 0; i < 3; i++) {
        plan_fini(&plans[i]);
    }
    play_end(&play);
}

/* Replies that came in another order than they were asked for: the plans have theirs, also when all
 * are there at once after a restart. */
static void test_order(void **state)
{
    (void)state;
    for (int restarts = 0; restarts < 2; restarts++) {
        struct script script = {.reply = good_reply, .newest_first = true};
        struct play play;
        struct error err = {0};
        play_begin(&play, &script);
        play_settle(&play);
        run_baseline(&play);
        for (int begun = 0; begun <= restarts; begun++) {
            if (begun == 1) {
                play_restart(&play);
            }
            for (int32_t number = 1; number <= 3; number++) {
                assert_int_equal(researcher_request(play.researcher, &play.search, 0, number, &err),
                                 STATUS_OK);
            }
            play_settle(&play);
        }
        for (int32_t number = 3; number >= 1; number--) {
            struct plan plan;
            memset(&plan, 0, sizeof(plan));
            assert_true(researcher_poll(play.researcher, &plan));
            assert_int_equal(plan.number, number);
            plan_fini(&plan);
        }
        play_end(&play);
    }
}

/* ---- several at once ---- */

static void test_several(void **state)
{
    (void)state;
    struct script script = {.reply = good_reply};
    struct play play;
    struct error err = {0};
    play_begin(&play, &script);
    play_settle(&play);
    run_baseline(&play);
    int32_t first = grow(&play, 0, 0.6);
    int32_t second = grow(&play, 0, 0.65);
    const int32_t parents[] = {0, first, second, first, second};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(researcher_request(play.researcher, &play.search, parents[i], i + 1, &err),
                         STATUS_OK);
    }
    assert_int_equal(researcher_pending(play.researcher), 5);
    play_settle(&play);
    char subjects[5][32];
    for (int i = 0; i < 5; i++) {
        struct plan plan;
        memset(&plan, 0, sizeof(plan));
        assert_true(researcher_poll(play.researcher, &plan));
        assert_true(plan.by_model);
        snprintf(subjects[i], sizeof(subjects[i]), "%s", plan.subject);
        for (int k = 0; k < i; k++) {
            assert_string_not_equal(subjects[k], subjects[i]);
        }
        plan_fini(&plan);
    }
    assert_false(researcher_pending(play.researcher) > 0);
    play_end(&play);
}

/* ---- caps ---- */

static void test_caps(void **state)
{
    (void)state;
    for (int thousands = 0; thousands < 8; thousands++) {
        struct script script = {.reply = good_reply, .tokens = 1000.0 * thousands + 1.0};
        struct play play;
        play_begin(&play, &script);
        play_settle(&play);
        assert_true(researcher_is_prepared(play.researcher, &play.search));
        run_baseline(&play);
        struct plan plan = request(&play, 0);
        assert_true(plan.config_count > 0);
        if (thousands == 0) {
            assert_false(plan.by_model);
            assert_int_equal(script.asked, 0);
            assert_says(plan.rationale, "tokens");
            assert_true(play.search.incident_count > 0);
        }
        assert_true(play.search.agent_tokens <= (int64_t)script.tokens);
        plan_fini(&plan);
        play_end(&play);
    }
}

/* ---- strangers ---- */

/* ---- without an answer ---- */

static void test_mute(void **state)
{
    (void)state;
    struct script script = {.reply = good_reply};
    struct play play;
    struct error err = {0};
    play_begin(&play, &script);
    play_settle(&play);
    run_baseline(&play);
    play_settle(&play);
    script.mute = true;
    assert_int_equal(researcher_request(play.researcher, &play.search, 0, 1, &err), STATUS_OK);
    play_settle(&play);
    assert_int_equal(researcher_pending(play.researcher), 1);
    int asked = script.asked;
    for (int i = 0; i < 100; i++) { /* turns without news ask nothing and cost nothing */
        assert_int_equal(researcher_turn(play.researcher, &play.search, &err), STATUS_OK);
    }
    assert_int_equal(script.asked, asked);
    play_end(&play);

    struct researcher *researcher = NULL;
    struct researcher_facts facts = usual_facts();
    assert_int_equal(open_researcher("model", &facts, &researcher, &err), STATUS_INVALID);
    assert_says(err.message, "needs calls");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversation), cmocka_unit_test(test_restarts),
        cmocka_unit_test(test_numbers),      cmocka_unit_test(test_order),
        cmocka_unit_test(test_several),      cmocka_unit_test(test_caps),
        cmocka_unit_test(test_mute),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
