/* What calls may cost, to the last token and cent; and patient calls, which cost nothing when they
 * fail. */
#include "agents/calls_fixture.h"

/* One that was refused when its job ended, and is not on disk as ended, is not sent by the next. */
static void test_refused_and_interrupted(void **state)
{
    struct world *world = *state;
    world->token_cap = 50;
    world_ask(world, "a");
    assert_true(world_apply(world)); /* call_started alone */
    world->token_cap = 1000;
    world_restart(world, true);
    world_settle(world);
    assert_int_equal(world->fake.start_count, 0);
    assert_non_null(strstr(calls_find(&world->search, "a")->error, "agent_tokens has 50 left"));
}

static void test_tokens_to_the_last_one(void **state)
{
    struct world *world = *state;
    world->token_cap = 1000;
    world->fake.tokens = 400;
    world_ask(world, "a"); /* not on disk, and counted all the same */
    world_ask(world, "b");
    expect_refused(world, "c", "agent_tokens has 200 left of 1000");
    expect_refused(world, "d", "d may take 400 tokens");
    world->fake.tokens = 201;
    expect_refused(world, "e", "800 are spent or reserved");
    world->fake.tokens = 200;
    world_ask(world, "f");
    world->fake.tokens = 1;
    expect_refused(world, "g", "has 0 left");
    world_settle(world);
    fake_answer(world, 1, "b", 100); /* 300 less than was reserved */
    world_settle(world);
    world->fake.tokens = 301;
    expect_refused(world, "h", "300 left");
    world->fake.tokens = 300;
    world_ask(world, "i");
    world_settle(world);
    assert_int_equal(world->search.agent_tokens, 1000);
    world->token_cap = 0; /* what is free may still be asked */
    world->fake.tokens = 0;
    world->fake.usd = 0;
    world_ask(world, "source/arxiv/1");
}

static void test_money_to_the_last_cent(void **state)
{
    struct world *world = *state;
    world->usd_cap = 1.0;
    world->fake.usd = 0.4;
    world_ask(world, "a");
    world_settle(world);
    world_ask(world, "b");
    expect_refused(world, "c", "agent_money_usd has 0.2 left of 1");
    world->fake.usd = 0.2;
    world_ask(world, "h");
    world->fake.usd = 0.01;
    expect_refused(world, "d", "has 0 left");
    world->fake.usd = NAN; /* no price is known: tokens bound it */
    world_ask(world, "e");
    world_settle(world);
    assert_true(isnan(search_find_call(&world->search, "e")->reserved_usd));
    world->usd_cap = 0;
    world->fake.usd = NAN;
    world_ask(world, "f");
    world->token_cap = 0;
    expect_refused(world, "g", "agent_tokens");
}

static void be_patient(struct world *world, bool patient, bool unspent)
{
    world->patient = patient;
    world->unspent = unspent;
    world_restart(world, false);
}

static void expect_failed(struct world *world, const char *words)
{
    struct error why = {0};
    assert_true(calls_failed(world->calls, &why));
    if (strstr(why.message, words) == NULL) {
        fail_msg("\"%s\" without \"%s\"", why.message, words);
    }
}

/* A job that only asks: what may pass is no outcome. */
static void test_patience(void **state)
{
    struct world *world = *state;
    struct error why = {0};
    be_patient(world, true, false);
    assert_false(calls_is_stuck(world->calls)); /* nothing was asked yet */
    world_ask(world, "a");
    world_ask(world, "b");
    world_settle(world);
    fake_fail(world, 0, STATUS_PERMISSION, 0); /* "check the key" */
    world_settle(world);
    assert_false(calls_is_stuck(world->calls)); /* the other one is under way */
    fake_answer(world, 1, "b", 40);
    world_settle(world);
    assert_true(calls_is_stuck(world->calls));
    expect_failed(world, "a: no route");
    assert_null(calls_find(&world->search, "a"));
    assert_true(calls_is_open(world->calls, "a"));
    world_ask(world, "a"); /* in vain: not in this job */
    assert_int_equal(world->search.call_count, 2);
    assert_int_equal(world->search.outcomes, 1);

    be_patient(world, true, true); /* the next one goes on with it, and pays nothing twice */
    world_settle(world);
    assert_int_equal(world->fake.start_count, 1);
    assert_int_equal(world->fake.ids[0], 0);
    assert_int_equal(world->search.agent_tokens, 140);
    assert_false(calls_failed(world->calls, &why));
    fake_answer(world, 0, "at last", 10);
    world_settle(world);
    assert_string_equal(reply_of(world, "a"), "at last");
    assert_int_equal(world->search.agent_tokens, 50);
    assert_int_equal(world->search.call_count, 2);
    assert_false(calls_is_stuck(world->calls));
}

/* What the endpoint may charge for is counted, and not left open. */
static void test_patience_that_costs(void **state)
{
    struct world *world = *state;
    be_patient(world, true, false);
    world_ask(world, "a");
    world_settle(world);
    fake_fail(world, 0, STATUS_TIMEOUT, 30);
    world_settle(world);
    assert_true(calls_is_stuck(world->calls));
    assert_true(calls_is_open(world->calls, "a"));
    assert_true(world->search.calls[0].lost);
    assert_int_equal(world->search.agent_tokens, 100); /* all that it may have taken */
    assert_int_equal(world->search.outcomes, 0);
    be_patient(world, false, true);
    world_ask(world, "a");
    world_settle(world);
    assert_int_equal(world->fake.ids[0], 1);
    fake_fail(world, 1, STATUS_EXTERNAL, 0); /* without patience a failure is an outcome */
    world_settle(world);
    assert_string_equal(calls_find(&world->search, "a")->error, "no route");
    assert_int_equal(world->search.outcomes, 1);
}

/* A refused question, and a source that is down beside one that is not, are answers. */
static void test_patience_has_limits(void **state)
{
    struct world *world = *state;
    struct error err = {0};
    be_patient(world, true, false);
    world_ask(world, "a");
    world_settle(world);
    fake_fail(world, 0, STATUS_INVALID, 0); /* HTTP 400 */
    world_settle(world);
    assert_non_null(calls_find(&world->search, "a"));
    const char *const keys[] = {"source/x/1", "source/y/1"};
    for (int i = 0; i < 2; i++) {
        cJSON *body = cJSON_Parse("{\"do\":\"search\"}");
        assert_int_equal(world_try(world, keys[i], CALL_SOURCE, body, &err), STATUS_OK);
    }
    world_settle(world);
    fake_fail(world, 1, STATUS_EXTERNAL, 0);
    world_settle(world);
    assert_null(calls_find(&world->search, keys[0]));
    fake_answer(world, 2, "{}", 0);
    world_settle(world);
    assert_string_equal(calls_find(&world->search, keys[0])->error, "no route");
    assert_int_equal(calls_open(world->calls), 0);
    assert_int_equal(world->search.outcomes, 3);
    world->token_cap = 0;
    assert_int_equal(world_try(world, "b", CALL_CHAT, chat_body("b"), &err), STATUS_LIMIT);
    world_settle(world);
    assert_null(search_find_call(&world->search, "b")); /* the next job may ask it */
    expect_failed(world, "b may take");
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, world_set_up, world_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_WORLD(test_tokens_to_the_last_one),  IN_WORLD(test_money_to_the_last_cent),
        IN_WORLD(test_refused_and_interrupted), IN_WORLD(test_patience),
        IN_WORLD(test_patience_that_costs),     IN_WORLD(test_patience_has_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
