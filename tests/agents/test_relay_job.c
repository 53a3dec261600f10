/* The relay, as the job sees it: requests and replies as files. */
#include "agents/relay_fixture.h"

static void write_reply(struct post *post, const char *name, const char *more)
{
    char path[FILE_PATH_BYTES];
    char text[1024];
    path_of(post->folders.replies, name, ".json", path);
    snprintf(text, sizeof(text), "{\"id\":\"%s\",%s}", name, more);
    write_file(path, text);
}

static void test_a_request_and_its_reply(void **state)
{
    struct post *post = *state;
    char name[RELAY_NAME_BYTES];
    char path[FILE_PATH_BYTES];
    begin_job(post);
    world_ask(post->world, "brief/1");
    world_turn(post->world);
    wait_for_files(post->folders.requests, ".json", 0, NULL); /* it is not on disk */
    world_settle(post->world);
    wait_for_files(post->folders.requests, ".json", 1, name);
    assert_int_equal(relay_name_id(name), 0);
    path_of(post->folders.requests, name, ".json", path);
    char *text = read_text(path);
    assert_non_null(strstr(text, "\"key\":\"brief/1\""));
    assert_non_null(strstr(text, "\"content\":\"brief/1\""));
    assert_null(strstr(text, post->url)); /* where to ask is not the request's to say */
    assert_null(strstr(text, "RELAY_TEST_KEY"));
    free(text);
    write_reply(post, name,
                "\"status\":\"STATUS_OK\",\"text\":\"hello\",\"provider\":\"openai\",\"model\":"
                "\"m1\",\"host\":\"h:1\",\"tokens_in\":30,\"tokens_out\":7,\"cost_usd\":0.5,"
                "\"attempts\":2,\"seconds\":1");
    const struct search_call *call = wait_for(post, "brief/1");
    assert_string_equal(call->reply, "hello");
    assert_string_equal(call->host, "h:1");
    assert_int_equal(call->tokens_in, 30);
    assert_true(call->cost_usd == 0.5);
    world_settle(post->world);
    wait_for_files(post->folders.requests, ".json", 0, NULL);
    wait_for_files(post->folders.replies, ".json", 0, NULL);
}

static void test_a_restart_asks_nothing_twice(void **state)
{
    struct post *post = *state;
    char name[RELAY_NAME_BYTES];
    char path[FILE_PATH_BYTES];
    struct stat before;
    struct stat after;
    begin_job(post);
    world_ask(post->world, "a");
    world_ask(post->world, "b");
    world_settle(post->world);
    wait_for_files(post->folders.requests, ".json", 2, name);
    path_of(post->folders.requests, name, ".json", path);
    assert_int_equal(stat(path, &before), 0);
    begin_job(post);
    assert_false(world_apply(post->world)); /* nothing is lost */
    world_settle(post->world);
    clock_sleep_s(0.3);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    write_reply(post, name, "\"status\":\"STATUS_OK\",\"text\":\"A\"");
    wait_for(post, "a");
    wait_for_files(post->folders.requests, ".json", 1, NULL);
    wait_for_files(post->folders.replies, ".json", 0, NULL);
    /* Killed when the answer is on disk and its files are not gone. */
    write_file(path, "{}");
    write_reply(post, name, "\"status\":\"STATUS_OK\",\"text\":\"A\"");
    begin_job(post);
    wait_for_files(post->folders.requests, ".json", 1, name);
    wait_for_files(post->folders.replies, ".json", 0, NULL);
    /* Answered while no job was there. */
    calls_destroy(post->world->calls);
    post->world->calls = NULL;
    write_reply(post, name, "\"status\":\"STATUS_TIMEOUT\",\"error\":\"no answer\"");
    begin_job(post);
    assert_string_equal(wait_for(post, "b")->error, "no answer");
    assert_int_equal(post->world->search.call_count, 2);
}

static void test_replies_that_are_none(void **state)
{
    struct post *post = *state;
    static const char *const replies[] = {
        "",
        "{",
        "null",
        "[]",
        "{}",
        "{\"id\":\"000000-0123456789abcdef\",\"status\":\"STATUS_OK\",\"text\":\"x\"}",
        "{\"id\":\"%s\",\"status\":\"STATUS_OK\"}",
        "{\"id\":\"%s\",\"status\":\"STATUS_OK\",\"text\":7}",
        "{\"id\":\"%s\",\"status\":\"STATUS_OK\",\"error\":\"x\"}",
        "{\"id\":\"%s\",\"status\":\"fine\",\"text\":\"x\"}",
        "{\"id\":\"%s\",\"status\":\"STATUS_IO\",\"text\":\"x\"}",
        "{\"id\":\"%s\",\"status\":\"STATUS_OK\",\"text\":\"x\",\"tokens_in\":-1}",
        "{\"id\":\"%s\",\"status\":\"STATUS_OK\",\"text\":\"x\",\"tokens_out\":1e300}",
        "{\"id\":\"%s\",\"status\":\"STATUS_OK\",\"text\":\"x\",\"cost_usd\":\"much\"}",
        "{\"id\":\"%s\",\"status\":\"STATUS_OK\",\"text\":\"x\",\"seconds\":1e999}",
        "{\"id\":\"%s\",\"status\":\"STATUS_OK\",\"text\":\"\xff\"}",
        "folder",
        "link",
        "fifo",
        "large",
    };
    enum { REPLY_COUNT = sizeof(replies) / sizeof(replies[0]) };
    begin_job(post);
    for (int i = 0; i < REPLY_COUNT; i++) {
        char key[16];
        char name[RELAY_NAME_BYTES];
        char path[FILE_PATH_BYTES];
        char text[512];
        snprintf(key, sizeof(key), "key/%d", i);
        world_ask(post->world, key);
        world_settle(post->world);
        wait_for_files(post->folders.requests, ".json", 1, name);
        path_of(post->folders.replies, name, ".json", path);
        if (strcmp(replies[i], "folder") == 0) {
            assert_int_equal(mkdir(path, 0777), 0);
        } else if (strcmp(replies[i], "link") == 0) {
            assert_int_equal(symlink("/etc/hostname", path), 0);
        } else if (strcmp(replies[i], "fifo") == 0) {
            assert_int_equal(mkfifo(path, 0666), 0);
        } else if (strcmp(replies[i], "large") == 0) {
            write_file(path, "{}");
            assert_int_equal(truncate(path, 50 << 20), 0);
        } else {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(text, sizeof(text), replies[i], name);
#pragma GCC diagnostic pop
            write_file(path, text);
        }
        const struct search_call *call = wait_for(post, key);
        if (call->reply != NULL) {
            fail_msg("taken: %s", replies[i]);
        }
        assert_int_equal(call->tokens_in + call->tokens_out,
                         call->reserved_tokens); /* it may have cost something */
        world_settle(post->world);
        (void)rmdir(path);
        wait_for_files(post->folders.requests, ".json", 0, NULL);
    }
}

static void test_no_relay_is_there(void **state)
{
    struct post *post = *state;
    char name[RELAY_NAME_BYTES];
    char path[FILE_PATH_BYTES];
    post->timeout_s = 0.3;
    begin_job(post);
    world_ask(post->world, "a");
    const struct search_call *call = wait_for(post, "a");
    assert_non_null(strstr(call->error, "is trex relay running"));
    assert_int_equal(post->world->search.agent_tokens, 0);
    wait_for_files(post->folders.requests, ".json", 0, NULL); /* nobody shall ask it later */
    post->timeout_s = 1.0;
    begin_job(post);
    world_ask(post->world, "b");
    world_settle(post->world);
    wait_for_files(post->folders.requests, ".json", 1, name);
    path_of(post->folders.replies, name, ".asked", path);
    write_file(path, "");
    call = wait_for(post, "b");
    assert_non_null(strstr(call->error, "had no answer"));
    assert_int_equal(post->world->search.agent_tokens, call->reserved_tokens);
    world_settle(post->world);
    wait_for_files(post->folders.replies, ".asked", 0, NULL);
}

static void test_the_search_ends(void **state)
{
    struct post *post = *state;
    begin_job(post);
    world_ask(post->world, "a");
    world_settle(post->world);
    wait_for_files(post->folders.requests, ".json", 1, NULL);
    struct error err = {0};
    assert_int_equal(calls_take_back(post->world->calls, &err), STATUS_OK);
    world_settle(post->world);
    wait_for_files(post->folders.requests, ".json", 0, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_POST(test_a_request_and_its_reply), WITH_POST(test_a_restart_asks_nothing_twice),
        WITH_POST(test_replies_that_are_none),   WITH_POST(test_no_relay_is_there),
        WITH_POST(test_the_search_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
