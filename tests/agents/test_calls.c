/* Calls: what is sent when, and what a restart leaves. */
#include "agents/calls_fixture.h"

#include "base/clock.h"

static void test_a_calls_life(void **state)
{
    struct world *world = *state;
    world_ask(world, "brief/1");
    assert_true(calls_is_open(world->calls, "brief/1"));
    world_turn(world);
    assert_int_equal(world->fake.start_count, 0); /* it is not on disk */
    assert_true(world_apply(world));
    assert_int_equal(world->search.agent_tokens, 100);
    world_turn(world);
    assert_int_equal(world->fake.start_count, 1);
    assert_string_equal(world->fake.keys[0], "brief/1");
    assert_non_null(strstr(world->fake.bodies[0], "\"content\":\"brief/1\""));
    world_turn(world);
    assert_int_equal(world->fake.start_count, 1);

    fake_answer(world, 0, "{\"a\":1}", 40);
    world_turn(world);
    assert_null(calls_find(&world->search, "brief/1")); /* neither is the answer */
    assert_true(calls_is_open(world->calls, "brief/1"));
    assert_true(world_apply(world));
    assert_string_equal(reply_of(world, "brief/1"), "{\"a\":1}");
    const struct search_call *call = calls_find(&world->search, "brief/1");
    assert_int_equal(call->tokens_in, 30);
    assert_int_equal(call->tokens_out, 10);
    assert_string_equal(call->model, "m1");
    assert_int_equal(call->attempts, 2);
    assert_int_equal(world->search.agent_tokens, 40);
    assert_true(fabs(world->search.agent_usd - 0.125) < 1e-12);
    world_turn(world);
    assert_int_equal(world->fake.done_count, 1);
    assert_int_equal(calls_open(world->calls), 0);
    assert_false(calls_is_open(world->calls, "brief/1"));
}

static void test_a_key_is_asked_once(void **state)
{
    struct world *world = *state;
    world_ask(world, "a");
    world_ask(world, "a");
    assert_int_equal(calls_open(world->calls), 1);
    world_settle(world);
    world_ask(world, "a");
    fake_answer(world, 0, "first", 4);
    world_settle(world);
    world_ask(world, "a");
    assert_false(world_apply(world));
    assert_int_equal(world->search.call_count, 1);
    world_restart(world, false); /* nor by the next allocation */
    world_ask(world, "a");
    assert_false(world_apply(world));
    assert_string_equal(reply_of(world, "a"), "first");
}

static void test_lost_calls(void **state)
{
    struct world *world = *state;
    world_ask(world, "a");
    world_ask(world, "b");
    world_settle(world);
    world_ask(world, "c"); /* never on disk */
    world_restart(world, false);
    assert_int_equal(calls_open(world->calls), 0);
    assert_true(world_apply(world));
    assert_true(world_apply(world));
    assert_false(world_apply(world));
    assert_true(world->search.calls[0].lost);
    assert_null(calls_find(&world->search, "a"));
    assert_int_equal(world->search.agent_tokens, 200); /* they may have been paid for */
    assert_int_equal(world->search.outcomes, 0);
    world_ask(world, "a");
    world_settle(world);
    assert_int_equal(world->fake.ids[0], 2);
    fake_answer(world, 2, "at last", 10);
    world_settle(world);
    assert_string_equal(reply_of(world, "a"), "at last");
    assert_int_equal(world->search.agent_tokens, 210);
}

static void test_calls_that_go_on(void **state)
{
    struct world *world = *state;
    struct error err = {0};
    world_ask(world, "a");
    assert_int_equal(world_try(world, "s", CALL_SOURCE,
                               cJSON_Parse("{\"do\":\"search\",\"source\":\"arxiv\"}"), &err),
                     STATUS_OK);
    world_settle(world);
    char *body = mem_strdup(world->fake.bodies[0]);
    world_restart(world, true);
    assert_false(world_apply(world));
    assert_true(calls_is_open(world->calls, "a"));
    world_turn(world);
    assert_int_equal(world->fake.start_count, 2);
    assert_int_equal(world->fake.ids[0], 0);
    assert_string_equal(world->fake.bodies[0], body);
    assert_non_null(strstr(world->fake.bodies[1], "arxiv"));
    fake_answer(world, 0, "yes", 10);
    world_settle(world);
    assert_string_equal(reply_of(world, "a"), "yes");
    world_restart(world, true);
    assert_int_equal(world->fake.done_count, 1); /* its files may go */
    free(body);
}

/* Asks for one key after the other, as the answers come: a researcher in small. */
static void ask_next(struct world *world)
{
    static const char *const keys[] = {"brief/1", "n0000.0/direction/1", "n0000.0/plan/1"};
    for (int i = 0; i < 3; i++) {
        if (reply_of(world, keys[i]) == NULL) {
            world_ask(world, keys[i]);
            return;
        }
    }
}

/* One event to the disk; what was sent is answered. False: there was nothing to do. */
static bool step(struct world *world)
{
    world_turn(world);
    for (int i = 0; i < world->fake.start_count; i++) {
        const struct search_call *call = &world->search.calls[world->fake.ids[i]];
        if (!call->ended && world->fake.answers.count == 0) {
            fake_answer(world, world->fake.ids[i], call->key, 10);
        }
    }
    ask_next(world);
    return world_apply(world) || calls_open(world->calls) > 0;
}

static void test_killed_after_each_event(void **state)
{
    (void)state;
    for (int resumes = 0; resumes < 2; resumes++) {
        for (int64_t kill_after = 1; kill_after < 12; kill_after++) {
            struct world *world = NULL;
            world_set_up((void **)&world);
            bool killed = false;
            for (int i = 0; i < 200 && step(world); i++) {
                if (!killed && world->search.last_sequence > kill_after) {
                    world_restart(world, resumes != 0);
                    killed = true;
                }
            }
            assert_string_equal(reply_of(world, "n0000.0/plan/1"), "n0000.0/plan/1");
            assert_int_equal(world->search.outcomes, 3);
            assert_true(world->search.call_count <= (resumes != 0 ? 3 : 4));
            world_tear_down((void **)&world);
        }
    }
}

static void test_one_answer_after_the_other(void **state)
{
    struct world *world = *state;
    world_ask(world, "a");
    world_ask(world, "b");
    world_settle(world);
    fake_answer(world, 1, "second", 4);
    fake_answer(world, 0, "first", 4);
    world_turn(world);
    world_turn(world);
    cJSON *event = NULL;
    assert_true(calls_take_event(world->calls, &event));
    assert_int_equal(cJSON_GetObjectItem(event, "call")->valueint, 1);
    cJSON *none = NULL;
    world_turn(world);
    assert_false(calls_take_event(world->calls, &none)); /* not before that one is on disk */
    apply_event(&world->search, event);
    world_turn(world);
    assert_true(world_apply(world));
    assert_int_equal(world->search.calls[1].outcomes, 0);
    assert_int_equal(world->search.calls[0].outcomes, 1);
}

static void test_so_many_at_once(void **state)
{
    struct world *world = *state;
    calls_destroy(world->calls);
    world->calls = NULL;
    struct call_transport transport = world_fake(world, false);
    world_open(world, &transport, 2);
    const char *const keys[] = {"a", "b", "c", "d"};
    for (int i = 0; i < 4; i++) {
        world_ask(world, keys[i]);
    }
    world_settle(world);
    assert_int_equal(world->fake.start_count, 2);
    fake_answer(world, 0, "x", 4);
    world_settle(world);
    world_settle(world);
    assert_int_equal(world->fake.start_count, 3);
    assert_string_equal(world->fake.keys[2], "c");
}

static void test_the_end_takes_back(void **state)
{
    struct world *world = *state;
    struct error err = {0};
    world_ask(world, "a");
    world_settle(world);
    world_ask(world, "b");
    assert_int_equal(calls_take_back(world->calls, &err), STATUS_OK);
    assert_int_equal(calls_take_back(world->calls, &err), STATUS_OK); /* once is enough */
    assert_int_equal(world->fake.cancel_count, 1);
    assert_int_equal(world->fake.cancelled[0], 0);
    fflush(world->log_file);
    const char *told = strstr(world->log_text, "needed"); /* one quiet line */
    assert_non_null(strstr(world->log_text, "1 call is no longer needed"));
    assert_null(strstr(told + 1, "needed"));
    assert_null(strstr(world->log_text, "failed"));
    while (world_apply(world)) {
    }
    assert_true(world->search.calls[0].lost); /* it may be charged */
    assert_true(world->search.calls[1].ended);
    assert_false(world->search.calls[1].lost);
    assert_int_equal(world->search.agent_tokens, 100);
    world_turn(world);
    assert_int_equal(calls_open(world->calls), 0);
}

static void test_what_cannot_start(void **state)
{
    struct world *world = *state;
    world->fake.refuse = true;
    world_ask(world, "a");
    world_settle(world);
    const struct search_call *call = calls_find(&world->search, "a");
    assert_non_null(call);
    assert_null(call->reply);
    assert_string_equal(call->error, "this transport starts nothing");
    assert_int_equal(world->search.agent_tokens, 0);
}

static void test_off(void **state)
{
    struct world *world = *state;
    struct error err = {0};
    struct call_transport off;
    assert_int_equal(call_off_open(&off, &err), STATUS_OK);
    world_open(world, &off, 8);
    world->token_cap = 0;
    world_ask(world, "a");
    world_settle(world);
    assert_non_null(strstr(calls_find(&world->search, "a")->error, "researcher.network"));
}

/* A rank of the job that answers. */
static enum status rank_bound(void *context, const cJSON *body, int64_t *tokens, struct error *err)
{
    (void)context;
    if (cJSON_GetObjectItem(body, "messages") == NULL) {
        return FAIL(err, STATUS_INVALID, "no chat");
    }
    *tokens = 51;
    return STATUS_OK;
}

static enum status rank_ask(void *context, int32_t id, const cJSON *body, struct error *err)
{
    int32_t *asked = context;
    (void)err;
    *asked = cJSON_GetObjectItem(body, "messages") != NULL ? id : -1;
    return STATUS_OK;
}

static bool rank_take(void *context, struct call_answer *out)
{
    int32_t *asked = context;
    if (*asked < 0) {
        return false;
    }
    *out = (struct call_answer){
        .id = *asked, .text = mem_strdup("by a rank"), .tokens_in = 3, .tokens_out = 4};
    *asked = -1;
    return true;
}

static void rank_cancel(void *context, int32_t id)
{
    (void)context;
    (void)id;
}

static void test_local(void **state)
{
    struct world *world = *state;
    struct error err = {0};
    struct call_transport transport;
    int32_t asked = -1;
    const char *const folders[] = {TEST_SOURCE_DIR "/net/golden/local/reviews", NULL};
    const struct call_direct_options direct = {
        .sources = {.offline = true, .folders = folders, .log = &world->log}};
    struct call_local_options options = {
        .bound = rank_bound,
        .ask = rank_ask,
        .take = rank_take,
        .cancel = rank_cancel,
        .context = &asked,
        .model = "models/small",
    };
    assert_int_equal(call_direct_open(&direct, &options.sources, &err), STATUS_OK);
    assert_int_equal(call_local_open(&options, &transport, &err), STATUS_OK);
    world_open(world, &transport, 8);
    world->usd_cap = 0;
    world_ask(world, "a");
    world_settle(world);
    world_settle(world);
    const struct search_call *call = calls_find(&world->search, "a");
    assert_string_equal(call->reply, "by a rank");
    assert_string_equal(call->provider, "local");
    assert_string_equal(call->model, "models/small");
    assert_true(call->cost_usd == 0.0);
    assert_int_equal(call->reserved_tokens, 51); /* in the model's own tokens, which have a cap */
    assert_int_equal(world->search.agent_tokens, 7);
    world->token_cap = 8;
    expect_refused(world, "b", "agent_tokens");
    cJSON *search = cJSON_Parse("{\"do\":\"search\",\"source\":\"local\",\"text\":\"reviews\","
                                "\"count\":3}");
    assert_int_equal(world_try(world, "source/local/1", CALL_SOURCE, search, &err), STATUS_OK);
    for (int i = 0; i < 6000 && calls_find(&world->search, "source/local/1") == NULL; i++) {
        world_settle(world);
        clock_sleep_s(0.01); /* it is asked on a thread of its own */
    }
    assert_non_null(strstr(reply_of(world, "source/local/1"), "\"documents\""));
}

/* Sources by whatever transport the job's network is: here files, to which a chat never comes. */
static void test_local_by_relay(void **state)
{
    struct world *world = *state;
    struct error err = {0};
    struct call_transport transport;
    int32_t asked = -1;
    world->fake.tokens = 0;
    world->fake.usd = 0.0;
    struct call_local_options options = {
        .bound = rank_bound,
        .ask = rank_ask,
        .take = rank_take,
        .cancel = rank_cancel,
        .context = &asked,
        .model = "models/small",
        .sources = world_fake(world, true),
    };
    assert_int_equal(call_local_open(&options, &transport, &err), STATUS_OK);
    calls_destroy(world->calls);
    world->calls = NULL;
    world_open(world, &transport, 8);
    world_ask(world, "a");
    cJSON *search = cJSON_Parse("{\"do\":\"search\",\"source\":\"arxiv\"}");
    assert_int_equal(world_try(world, "source/arxiv/1", CALL_SOURCE, search, &err), STATUS_OK);
    world_settle(world);
    world_settle(world);
    assert_string_equal(reply_of(world, "a"), "by a rank");
    assert_int_equal(world->fake.start_count, 1);
    assert_string_equal(world->fake.keys[0], "source/arxiv/1");
    fake_answer(world, 1, "{}", 0);
    world_settle(world);
    assert_string_equal(reply_of(world, "source/arxiv/1"), "{}");
    assert_string_equal(calls_find(&world->search, "source/arxiv/1")->provider, "openai");
    assert_int_equal(world->fake.done_count, 2); /* its files may go */
}

static void test_answers_that_are_wrong(void **state)
{
    struct world *world = *state;
    struct error err;
    world->fake.usd = NAN;
    const char *const keys[] = {"a", "b", "c", "d"};
    for (int i = 0; i < 4; i++) {
        world_ask(world, keys[i]);
    }
    world_settle(world);
    fake_answer(world, 77, "nobody asked", 4);
    fake_answer(world, 0, "caf\xc3( \xff", 4);
    fake_answer(world, 0, "again", 4);
    char *long_text = mem_calloc(SEARCH_CALL_TEXT_MAX_BYTES + 2, 1);
    memset(long_text, 'x', SEARCH_CALL_TEXT_MAX_BYTES + 1);
    fake_answer(world, 1, long_text, 4);
    free(long_text);
    struct call_answer answer = {.id = 2,
                                 .tokens_in = -5,
                                 .tokens_out = INT64_MAX,
                                 .cost_usd = -INFINITY,
                                 .seconds = NAN,
                                 .attempts = -1};
    answer.text = mem_strdup("figures");
    memset(answer.model, 0x80, sizeof(answer.model) - 1);
    assert_int_equal(call_queue_push(&world->fake.answers, &answer, &err), STATUS_OK);
    answer = (struct call_answer){.id = 3, .status = STATUS_EXTERNAL, .cost_usd = INFINITY};
    assert_int_equal(call_queue_push(&world->fake.answers, &answer, &err), STATUS_OK);
    for (int i = 0; i < 8; i++) {
        world_settle(world);
    }
    assert_string_equal(reply_of(world, "a"), "caf\xef\xbf\xbd( \xef\xbf\xbd");
    assert_non_null(strstr(calls_find(&world->search, "b")->error, "bytes, allowed are"));
    const struct search_call *call = calls_find(&world->search, "c");
    assert_string_equal(call->reply, "figures");
    assert_int_equal(call->tokens_in, 0);
    assert_int_equal(call->tokens_out, SEARCH_CALL_TOKENS_MAX);
    assert_true(json_utf8_valid(call->model, strlen(call->model)));
    assert_string_equal(calls_find(&world->search, "d")->error, status_text(STATUS_EXTERNAL));
    assert_int_equal(calls_open(world->calls), 0);
}

static void test_bodies_that_are_none(void **state)
{
    struct world *world = *state;
    static const struct {
        enum call_kind kind;
        const char *body;
    } cases[] = {
        {CALL_CHAT, "{}"},
        {CALL_CHAT, "[]"},
        {CALL_CHAT, "{\"messages\":[],\"max_tokens\":5}"},
        {CALL_CHAT, "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}],\"max_tokens\":5}"},
        {CALL_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":7}],\"max_tokens\":5}"},
        {CALL_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"},
        {CALL_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":0}"},
        {CALL_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":1e300}"},
        {CALL_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":5,"
                    "\"temperature\":9}"},
        {CALL_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":5,"
                    "\"schema\":[]}"},
        {CALL_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":5,"
                    "\"schema\":{},\"schema_name\":\"a b\"}"},
        {CALL_SOURCE, "{}"},
        {CALL_SOURCE, "{\"do\":5}"},
        {CALL_SOURCE, "{\"do\":\"search\",\"deep\":{}}"},
        {CALL_SOURCE, "{\"do\":\"search\",\"do\":\"card\"}"},
        {CALL_DRY, "{\"recipe\":[]}"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = {0};
        cJSON *body = cJSON_Parse(cases[i].body);
        assert_non_null(body);
        if (world_try(world, "a", cases[i].kind, body, &err) != STATUS_INVALID) {
            fail_msg("taken: %s", cases[i].body);
        }
    }
    struct error err = {0};
    assert_int_equal(world_try(world, "no spaces", CALL_CHAT, chat_body("x"), &err),
                     STATUS_INVALID);
    char *long_text = mem_calloc(SEARCH_CALL_TEXT_MAX_BYTES + 1, 1);
    memset(long_text, 'x', SEARCH_CALL_TEXT_MAX_BYTES);
    assert_int_equal(world_try(world, "a", CALL_CHAT, chat_body(long_text), &err), STATUS_INVALID);
    free(long_text);
    assert_false(world_apply(world));

    cJSON *body = chat_body("x");
    cJSON_AddStringToObject(body, "endpoint", "http://elsewhere");
    assert_int_equal(world_try(world, "a", CALL_CHAT, body, &err), STATUS_OK);
    world_settle(world);
    assert_null(strstr(world->fake.bodies[0], "elsewhere"));
    assert_null(strstr(world->search.calls[0].body, "elsewhere"));
}

static void test_no_memory(void **state)
{
    struct world *world = *state;
    struct error err = {0};
    enum status status = STATUS_NO_MEMORY;
    for (int64_t n = 1; status != STATUS_OK; n++) {
        assert_true(n < 50);
        mem_fail_nth(n);
        status = world_try(world, "a", CALL_CHAT, chat_body("a"), &err);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
        assert_int_equal(calls_open(world->calls), status == STATUS_OK ? 1 : 0);
    }
    world_settle(world);
    assert_int_equal(world->fake.start_count, 1);
}

static void test_idle_is_told(void **state)
{
    struct world *world = *state;
    struct error err = {0};
    assert_int_equal(calls_turn(world->calls, &world->search, 0, true, &err), STATUS_OK);
    assert_true(world->fake.idle);
    world_ask(world, "a"); /* its event is on its way: something will happen */
    assert_int_equal(calls_turn(world->calls, &world->search, 0, true, &err), STATUS_OK);
    assert_false(world->fake.idle);
    world_settle(world);
    assert_int_equal(calls_turn(world->calls, &world->search, 0, true, &err), STATUS_OK);
    assert_true(world->fake.idle);
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, world_set_up, world_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_WORLD(test_a_calls_life),
        IN_WORLD(test_a_key_is_asked_once),
        IN_WORLD(test_lost_calls),
        IN_WORLD(test_calls_that_go_on),
        cmocka_unit_test(test_killed_after_each_event),
        IN_WORLD(test_one_answer_after_the_other),
        IN_WORLD(test_so_many_at_once),
        IN_WORLD(test_the_end_takes_back),
        IN_WORLD(test_what_cannot_start),
        IN_WORLD(test_off),
        IN_WORLD(test_local),
        IN_WORLD(test_local_by_relay),
        IN_WORLD(test_answers_that_are_wrong),
        IN_WORLD(test_bodies_that_are_none),
        IN_WORLD(test_no_memory),
        IN_WORLD(test_idle_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
