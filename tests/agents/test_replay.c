/* A search that gets its answers from another one. */
#include "agents/calls_fixture.h"

#include <unistd.h>

#include "base/file.h"

/* Something that a decision can rest on. */
static void outcome_event(struct search *search)
{
    cJSON *event = new_event("brief", -1, -1);
    cJSON_AddStringToObject(cJSON_AddObjectToObject(event, "brief"), "goal", "g");
    apply_event(search, event);
}

static void ahead_event(struct search *search, int candidates)
{
    cJSON *event = new_event("ahead_set", -1, -1);
    cJSON_AddNumberToObject(event, "candidates", candidates);
    apply_event(search, event);
}

struct pair {
    struct world *recorded, *again;
    struct call_transport replay; /* as it was opened */
};

static int set_up(void **state)
{
    struct pair *pair = mem_calloc(1, sizeof(*pair));
    world_set_up((void **)&pair->recorded);
    world_set_up((void **)&pair->again);
    *state = pair;
    return 0;
}

static int tear_down(void **state)
{
    struct pair *pair = *state;
    world_tear_down((void **)&pair->again); /* it borrows from the other one */
    world_tear_down((void **)&pair->recorded);
    free(pair);
    return 0;
}

static void replay(struct pair *pair)
{
    struct error err = {0};
    assert_int_equal(call_replay_open(&pair->recorded->search, NULL, NULL, &pair->replay, &err),
                     STATUS_OK);
    world_open(pair->again, &pair->replay, 8);
    pair->again->token_cap = 0; /* it spends nothing */
    pair->again->usd_cap = 0;
}

static void test_the_same_order(void **state)
{
    struct pair *pair = *state;
    struct world *recorded = pair->recorded;
    world_ask(recorded, "a");
    world_ask(recorded, "b");
    world_ask(recorded, "c");
    world_settle(recorded);
    fake_answer(recorded, 2, "C", 40);
    fake_answer(recorded, 0, "A", 80);
    fake_answer(recorded, 1, "B", 8);
    world_settle(recorded);
    world_settle(recorded);
    replay(pair);
    struct world *again = pair->again;
    world_ask(again, "b");
    world_ask(again, "c");
    world_settle(again);
    /* c was answered, and b came after a, which nobody has asked yet. */
    assert_string_equal(reply_of(again, "c"), "C");
    assert_null(reply_of(again, "b"));
    world_ask(again, "a");
    while (world_apply(again)) {
    }
    world_turn(again);
    assert_true(world_apply(again));
    assert_string_equal(reply_of(again, "a"), "A");
    assert_null(reply_of(again, "b"));
    world_settle(again);
    assert_string_equal(reply_of(again, "b"), "B");
    const struct search_call *call = calls_find(&again->search, "a");
    assert_int_equal(call->tokens_in, 60);
    assert_int_equal(call->tokens_out, 20);
    assert_string_equal(call->model, "m1");
    assert_true(call->cost_usd == 0.125 && call->seconds == 1.5);
    assert_int_equal(call->attempts, 2);
    assert_int_equal(again->search.outcomes, recorded->search.outcomes);
    assert_int_equal(again->search.agent_tokens, recorded->search.agent_tokens);
}

static void test_when_the_search_has_come_as_far(void **state)
{
    struct pair *pair = *state;
    world_ask(pair->recorded, "a");
    world_settle(pair->recorded);
    outcome_event(&pair->recorded->search);
    outcome_event(&pair->recorded->search);
    fake_answer(pair->recorded, 0, "A", 40);
    world_settle(pair->recorded);
    replay(pair);
    struct world *again = pair->again;
    world_ask(again, "a");
    world_settle(again);
    assert_null(reply_of(again, "a"));
    outcome_event(&again->search);
    world_settle(again);
    assert_null(reply_of(again, "a"));
    outcome_event(&again->search);
    world_settle(again);
    assert_string_equal(reply_of(again, "a"), "A");
}

static void test_a_search_that_goes_another_way(void **state)
{
    struct pair *pair = *state;
    struct error err = {0};
    world_ask(pair->recorded, "a");
    world_ask(pair->recorded, "b");
    world_ask(pair->recorded, "open");
    world_settle(pair->recorded);
    outcome_event(&pair->recorded->search);
    fake_answer(pair->recorded, 1, "B", 40);
    fake_answer(pair->recorded, 0, "A", 40);
    world_settle(pair->recorded);
    world_settle(pair->recorded);
    replay(pair);
    struct world *again = pair->again;
    world_ask(again, "open");
    world_ask(again, "a");
    world_ask(again, "b");
    world_settle(again);
    assert_null(reply_of(again, "b"));
    static const char *const order[] = {"b", "a", "open"};
    for (int i = 0; i < 3; i++) { /* nothing else can happen: one answer each time */
        assert_null(calls_find(&again->search, order[i]));
        assert_int_equal(
            calls_turn(again->calls, &again->search, again->search.outcomes, true, &err),
            STATUS_OK);
        world_apply(again);
        assert_non_null(calls_find(&again->search, order[i]));
    }
    assert_non_null(strstr(calls_find(&again->search, "open")->error, "ended before"));
}

static void test_what_was_not_asked(void **state)
{
    struct pair *pair = *state;
    struct error err = {0};
    world_ask(pair->recorded, "lost");
    world_settle(pair->recorded);
    world_restart(pair->recorded, false);
    world_settle(pair->recorded);
    world_ask(pair->recorded, "a");
    world_settle(pair->recorded);
    struct call_answer failed = {.id = 1, .status = STATUS_TIMEOUT, .attempts = 4};
    FAIL(&failed.error, STATUS_TIMEOUT, "no byte in 120 s: \xc3\xa9");
    assert_int_equal(call_queue_push(&pair->recorded->fake.answers, &failed, &err), STATUS_OK);
    world_settle(pair->recorded);
    replay(pair);
    struct world *again = pair->again;
    assert_int_equal(world_try(again, "new", CALL_CHAT, chat_body("x"), &err), STATUS_LIMIT);
    assert_non_null(strstr(err.message, "no call new"));
    world_ask(again, "lost"); /* it had no answer, and was waited for */
    world_settle(again);
    assert_null(calls_find(&again->search, "lost"));
    world_ask(again, "a");
    world_settle(again);
    assert_string_equal(calls_find(&again->search, "a")->error,
                        calls_find(&pair->recorded->search, "a")->error);
    assert_int_equal(calls_find(&again->search, "a")->attempts, 4);
}

static void test_lost_and_asked_again(void **state)
{
    struct pair *pair = *state;
    world_ask(pair->recorded, "a");
    world_settle(pair->recorded);
    world_restart(pair->recorded, false);
    world_settle(pair->recorded);
    world_ask(pair->recorded, "a");
    world_settle(pair->recorded);
    fake_answer(pair->recorded, 1, "A", 4);
    world_settle(pair->recorded);
    replay(pair);
    world_ask(pair->again, "a");
    world_settle(pair->again);
    assert_string_equal(reply_of(pair->again, "a"), "A");
}

/* A replay is interrupted like any other search. */
static void test_a_replay_that_is_interrupted(void **state)
{
    struct pair *pair = *state;
    world_ask(pair->recorded, "a");
    world_settle(pair->recorded);
    outcome_event(&pair->recorded->search);
    fake_answer(pair->recorded, 0, "A", 40);
    world_settle(pair->recorded);
    replay(pair);
    world_ask(pair->again, "a");
    world_settle(pair->again);
    replay(pair);
    world_settle(pair->again);
    assert_true(pair->again->search.calls[0].lost);
    assert_int_equal(pair->again->search.agent_tokens, 0);
    outcome_event(&pair->again->search);
    world_ask(pair->again, "a");
    world_settle(pair->again);
    assert_string_equal(reply_of(pair->again, "a"), "A");
    assert_int_equal(pair->again->search.outcomes, pair->recorded->search.outcomes);
}

static void test_planning_ahead(void **state)
{
    struct pair *pair = *state;
    struct search *search = &pair->recorded->search;
    outcome_event(search);
    ahead_event(search, 4);
    outcome_event(search);
    ahead_event(search, 9);
    outcome_event(search);
    replay(pair);
    static const int64_t expected[] = {-1, 4, 4, 9, 9, 9};
    for (int64_t i = 0; i < 6; i++) {
        assert_int_equal(call_replay_ahead(&pair->replay, i), expected[i]);
    }
}

/* ---- downloaded rows ---- */

static void write_text(const char *folder, const char *name, const char *text)
{
    char path[FILE_PATH_BYTES];
    char parent[FILE_PATH_BYTES];
    struct error err = {0};
    assert_int_equal(file_join(folder, name, path, &err), STATUS_OK);
    assert_int_equal(file_folder_of(path, parent, &err), STATUS_OK);
    assert_int_equal(file_make_folders(parent, &err), STATUS_OK);
    assert_int_equal(file_write(path, text, strlen(text), &err), STATUS_OK);
}

static void record_download(struct world *world, const char *key, const char *reply)
{
    struct error err = {0};
    world->fake.tokens = 0;
    assert_int_equal(world_try(world, key, CALL_SOURCE,
                               cJSON_Parse("{\"do\":\"download\",\"source\":\"hf_datasets\","
                                           "\"id\":\"a/b\"}"),
                               &err),
                     STATUS_OK);
    world_settle(world);
    fake_answer(world, world->search.call_count - 1, reply, 0);
    world_settle(world);
}

static void test_downloaded_rows(void **state)
{
    struct pair *pair = *state;
    struct error err = {0};
    char root[] = "replay-test-XXXXXX";
    char from[FILE_PATH_BYTES];
    char to[FILE_PATH_BYTES];
    char path[FILE_PATH_BYTES];
    assert_non_null(mkdtemp(root));
    file_join(root, "recorded", from, &err);
    file_join(root, "again", to, &err);
    record_download(pair->recorded, "source/hf_datasets/1",
                    "{\"documents\":[{\"source\":\"hf_datasets\",\"path\":\"sources/a_b.jsonl\","
                    "\"rows\":2},{\"title\":\"none\"}]}");
    struct call_transport transport;
    assert_int_equal(call_replay_open(&pair->recorded->search, from, to, &transport, &err),
                     STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "a_b.jsonl"));
    write_text(from, "sources/a_b.jsonl", "{\"x\":1}\n{\"x\":2}\n");
    assert_int_equal(call_replay_open(&pair->recorded->search, from, to, &transport, &err),
                     STATUS_OK);
    transport.close(transport.state);
    file_join(to, "sources/a_b.jsonl", path, &err);
    assert_int_equal(file_size_bytes(path), 16);
    write_text(to, "sources/a_b.jsonl", "mine"); /* what is there is not replaced */
    assert_int_equal(call_replay_open(&pair->recorded->search, from, to, &transport, &err),
                     STATUS_OK);
    transport.close(transport.state);
    assert_int_equal(file_size_bytes(path), 4);
    record_download(pair->recorded, "source/hf_datasets/2",
                    "{\"documents\":[{\"path\":\"../../etc/passwd\"}]}");
    assert_int_equal(call_replay_open(&pair->recorded->search, from, to, &transport, &err),
                     STATUS_CORRUPT);
    char command[64];
    snprintf(command, sizeof(command), "rm -r %s", root);
    assert_int_equal(system(command), 0);
}

#define IN_PAIR(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_PAIR(test_the_same_order),
        IN_PAIR(test_when_the_search_has_come_as_far),
        IN_PAIR(test_a_search_that_goes_another_way),
        IN_PAIR(test_what_was_not_asked),
        IN_PAIR(test_lost_and_asked_again),
        IN_PAIR(test_a_replay_that_is_interrupted),
        IN_PAIR(test_planning_ahead),
        IN_PAIR(test_downloaded_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
