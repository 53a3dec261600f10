/* The relay: both sides, with an endpoint between which a test stands; kills, disks that refuse,
 * and where the key is. */
#include "agents/relay_fixture.h"

static const char canary_part[] = "canary-7c2e9b41"; /* not even this much of it */

static void test_through_the_relay(void **state)
{
    struct post *post = *state;
    char path[FILE_PATH_BYTES];
    begin_job(post);
    begin_relay(post);
    world_ask(post->world, "a");
    const struct search_call *call = wait_for(post, "a");
    assert_string_equal(call->reply, "{\"a\":1}");
    assert_int_equal(call->tokens_in, 30);
    assert_int_equal(call->tokens_out, 7);
    assert_true(fabs(call->cost_usd - 0.037) < 1e-9);
    assert_string_equal(post->authorization, "Bearer " CANARY);
    assert_int_equal(post->state.served, 1);
    assert_int_equal((int)post->state.tokens, 37);
    assert_true(fabs(post->state.usd - 0.037) < 1e-9);
    struct error err = {0};
    assert_int_equal(file_join(post->folders.relay, "spent.json", path, &err), STATUS_OK);
    char *text = read_text(path);
    assert_non_null(strstr(text, "\"tokens\":37"));
    free(text);
    world_settle(post->world);
    wait_for_files(post->folders.requests, ".json", 0, NULL);
    wait_for_files(post->folders.replies, ".asked", 0, NULL);
    /* A source that this relay may not ask says so. */
    assert_int_equal(world_try(post->world, "s", CALL_SOURCE,
                               cJSON_Parse("{\"do\":\"search\",\"source\":\"arxiv\",\"text\":"
                                           "\"x\",\"count\":1}"),
                               &err),
                     STATUS_OK);
    assert_null(wait_for(post, "s")->reply);
}

static void test_several_at_once(void **state)
{
    struct post *post = *state;
    begin_job(post);
    begin_relay(post);
    post->answer.delay_s = 0.5;
    const char *const keys[] = {"a", "b", "c", "d"};
    for (int i = 0; i < 4; i++) {
        world_ask(post->world, keys[i]);
    }
    for (int i = 0; i < 4; i++) {
        assert_non_null(wait_for(post, keys[i])->reply);
    }
    assert_true(server_most_open(post->endpoint) >= 2);
    assert_int_equal(post->count, 4);
}

/* A relay that is killed at this point of its life, while it answers one request. */
static void killed_relay(struct post *post, const char *fault)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct error err = {0};
        setenv("TREX_FAULT", fault, 1);
        enum status status = open_relay(post, &err);
        for (int i = 0; i < 2000 && status == STATUS_OK; i++) {
            status = call_relay_serve(post->server, 0.02, &post->state, &err);
        }
        _exit(1);
    }
    int result = 0;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFSIGNALED(result) && WTERMSIG(result) == SIGKILL);
}

static void test_killed_relays(void **state)
{
    struct post *post = *state;
    static const struct {
        const char *fault;
        int64_t asked; /* in all, when another relay has answered it */
    } kills[] = {
        {"base.file.before_rename:1=kill", 1},   /* nothing charged */
        {"base.file.after_rename:1=kill", 1},    /* charged, not asked */
        {"agents.relay.before_reply:1=kill", 2}, /* answered, nothing written */
        {"base.file.before_rename:2=kill", 1},   /* written aside */
        {"base.file.after_rename:2=kill", 1},    /* renamed, not counted */
        {"base.file.before_rename:3=kill", 1},
    };
    begin_job(post);
    for (size_t i = 0; i < sizeof(kills) / sizeof(kills[0]); i++) {
        char key[16];
        snprintf(key, sizeof(key), "key/%d", (int)i);
        post->count = 0;
        world_ask(post->world, key);
        world_settle(post->world);
        wait_for_files(post->folders.requests, ".json", 1, NULL);
        killed_relay(post, kills[i].fault);
        begin_relay(post);
        assert_true(post->state.tokens >= 0.0);
        assert_string_equal(search_text(wait_for(post, key)->reply), "{\"a\":1}");
        call_relay_serve_close(post->server);
        post->server = NULL;
        if (post->count != kills[i].asked) {
            fail_msg("%s: asked %d times", kills[i].fault, (int)post->count);
        }
        world_settle(post->world);
        wait_for_files(post->folders.requests, ".json", 0, NULL);
        wait_for_files(post->folders.replies, ".json", 0, NULL);
    }
    /* Never less than what was paid for: seven answers of 37 tokens. */
    begin_relay(post);
    serve(post);
    assert_true(post->state.tokens >= 7 * 37);
}

static void test_a_disk_that_refuses(void **state)
{
    struct post *post = *state;
    begin_job(post);
    begin_relay(post);
    world_ask(post->world, "a");
    world_settle(post->world);
    wait_for_files(post->folders.requests, ".json", 1, NULL);
    setenv("TREX_FAULT", "agents.relay.before_reply:1=enospc", 1);
    double end_s = clock_monotonic_s() + PATIENCE_S;
    while (post->state.served == 0) {
        assert_true(clock_monotonic_s() < end_s);
        serve(post);
    }
    unsetenv("TREX_FAULT");
    assert_int_equal(post->count, 1); /* kept, and written when that worked */
    assert_string_equal(wait_for(post, "a")->reply, "{\"a\":1}");
    fflush(post->world->log_file);
    assert_non_null(strstr(post->world->log_text, "is tried again"));
}

static void test_folders_that_lead_elsewhere(void **state)
{
    struct post *post = *state;
    struct error err = {0};
    char elsewhere[64];
    snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", post->root);
    assert_int_equal(mkdir(elsewhere, 0777), 0);
    assert_int_equal(rmdir(post->folders.replies), 0);
    assert_int_equal(symlink("../../elsewhere", post->folders.replies), 0);
    assert_int_equal(open_relay(post, &err), STATUS_INVALID);
    struct call_transport transport;
    assert_int_equal(call_relay_open(post->folder, &post->options, 1, &transport, &err),
                     STATUS_INVALID);
}

/* ---- the key ---- */

static void check_no_key(const char *where, const char *text)
{
    if (text != NULL && strstr(text, canary_part) != NULL) {
        fail_msg("the key is in %s: %.200s", where, text);
    }
}

static void check_no_key_anywhere(struct post *post)
{
    struct buffer dump;
    char command[256];
    for (int32_t i = 0; i < post->world->search.call_count; i++) {
        const struct search_call *call = &post->world->search.calls[i];
        const char *const texts[] = {call->body,  call->reply, call->error,
                                     call->model, call->host,  call->provider};
        for (int k = 0; k < 6; k++) {
            check_no_key(call->key, texts[k]);
        }
    }
    buffer_init(&dump, 1 << 20);
    fflush(post->world->log_file);
    check_no_key("the log", post->world->log_text);
    snprintf(command, sizeof(command), "! grep -r '%s' %s", canary_part, post->root);
    assert_int_equal(system(command), 0);
    buffer_fini(&dump);
}

/* Each way in which an endpoint can tell the key back, or fail with it at hand. */
static void test_a_key_stays_where_it_is(void **state)
{
    struct post *post = *state;
    static const int codes[] = {0, 400, 401, 403, 404, 413, 422, 429, 500, 503};
    for (int through = 0; through < 2; through++) {
        struct error err = {0};
        struct call_transport transport;
        post->options.lm.stall_s = 1;
        if (through == 0) {
            calls_destroy(post->world->calls);
            post->world->calls = NULL;
            assert_int_equal(call_direct_open(&post->options, &transport, &err), STATUS_OK);
            world_open(post->world, &transport, 8);
        } else {
            begin_job(post);
            begin_relay(post);
        }
        post->echo = true;
        char key[32];
        for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
            post->error_code = codes[i];
            snprintf(key, sizeof(key), "%d/%d", through, codes[i]);
            world_ask(post->world, key);
            const struct search_call *call = wait_for(post, key);
            assert_true((call->reply != NULL) == (codes[i] == 0));
        }
        post->error_code = 0;
        post->answer.stall = true;
        post->answer.end_bytes = 40;
        snprintf(key, sizeof(key), "%d/stall", through);
        world_ask(post->world, key);
        assert_null(wait_for(post, key)->reply);
        post->answer.stall = false;
        post->answer.end_bytes = 0;
        world_settle(post->world);
        check_no_key_anywhere(post);
        calls_destroy(post->world->calls);
        post->world->calls = NULL;
        call_relay_serve_close(post->server);
        post->server = NULL;
    }
    assert_string_equal(post->authorization, "Bearer " CANARY); /* it was used */
    /* A key of an endpoint that cannot be. */
    struct error err = {0};
    struct call_transport transport;
    post->options.lm.endpoints[0].url = "ftp://" CANARY "@h/";
    post->options.lm.endpoints[0].provider = "nobody";
    assert_int_equal(call_direct_open(&post->options, &transport, &err), STATUS_INVALID);
    check_no_key("an error", err.message);
    check_no_key_anywhere(post);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_POST(test_through_the_relay),
        WITH_POST(test_several_at_once),
        WITH_POST(test_killed_relays),
        WITH_POST(test_a_disk_that_refuses),
        WITH_POST(test_folders_that_lead_elsewhere),
        WITH_POST(test_a_key_stays_where_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
