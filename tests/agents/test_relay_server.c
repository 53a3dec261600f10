/* trex relay: what it takes for a request, and what bounds it. */
#include "agents/relay_fixture.h"

/* Puts a request there, as a job would, or as none would. */
static void write_request(struct post *post, const char *name, const char *text)
{
    char path[FILE_PATH_BYTES];
    path_of(post->folders.requests, name, ".json", path);
    write_file(path, text);
}

static void serve_until(struct post *post, int64_t served)
{
    double end_s = clock_monotonic_s() + PATIENCE_S;
    while (post->state.served < served) {
        assert_true(clock_monotonic_s() < end_s);
        serve(post);
    }
}

static void test_requests_that_are_none(void **state)
{
    struct post *post = *state;
    static const char head[] = "{\"id\":\"%s\",\"key\":\"k\",\"kind\":";
    static const char *const requests[] = {
        "",
        "{",
        "[]",
        "{}",
        "{\"id\":\"000001-0123456789abcdef\"}",
        "H\"chat\",\"body\":{}}",
        "H\"chat\"}",
        "H\"dry\",\"body\":{\"recipe\":[],\"configs\":[]}}",
        "H\"shell\",\"body\":{\"do\":\"rm\"}}",
        "H\"source\",\"body\":{\"do\":\"search\",\"deep\":[]}}",
        "H\"chat\",\"body\":{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],"
        "\"max_tokens\":1e300}}",
        "{\"id\":\"%s\",\"key\":\"a b\\n\",\"kind\":\"chat\",\"body\":{\"messages\":[{\"role\":"
        "\"user\",\"content\":\"x\"}],\"max_tokens\":5}}",
        "folder",
        "link",
        "fifo",
        "large",
        "deep",
    };
    enum { REQUEST_COUNT = sizeof(requests) / sizeof(requests[0]) };
    begin_relay(post);
    for (int i = 0; i < REQUEST_COUNT; i++) {
        char name[RELAY_NAME_BYTES];
        char path[FILE_PATH_BYTES];
        char text[4096];
        snprintf(name, sizeof(name), "%06d-00000000000000aa", 100 + i);
        path_of(post->folders.requests, name, ".json", path);
        const char *request = requests[i];
        if (strcmp(request, "folder") == 0) {
            assert_int_equal(mkdir(path, 0777), 0);
        } else if (strcmp(request, "link") == 0) {
            assert_int_equal(symlink("/etc/hostname", path), 0);
        } else if (strcmp(request, "fifo") == 0) {
            assert_int_equal(mkfifo(path, 0666), 0);
        } else if (strcmp(request, "large") == 0) {
            write_file(path, "{}");
            assert_int_equal(truncate(path, 3 << 20), 0);
        } else if (strcmp(request, "deep") == 0) {
            memset(text, '[', 4000);
            text[4000] = '\0';
            write_file(path, text);
        } else {
            size_t used = request[0] == 'H' ? sizeof(head) - 1 : 0;
            char format[1024];
            memcpy(format, head, used);
            snprintf(format + used, sizeof(format) - used, "%s", request + (used > 0 ? 1 : 0));
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(text, sizeof(text), format, name);
#pragma GCC diagnostic pop
            write_file(path, text);
        }
        serve_until(post, i + 1);
        struct call_answer answer = {0};
        struct error err = {0};
        assert_int_equal(relay_reply_read(post->folders.replies, name, &answer, &err), STATUS_OK);
        if (answer.status == STATUS_OK) {
            fail_msg("taken: %s", request);
        }
        char *shown = NULL;
        path_of(post->folders.replies, name, ".json", path);
        shown = read_text(path);
        char host[256] = "";
        gethostname(host, sizeof(host) - 1);
        assert_null(strstr(shown, host)); /* nothing of what a link leads to */
        free(shown);
    }
    assert_int_equal(post->count, 0);
    assert_true(post->state.tokens == 0.0);
    /* Names that are none are passed over. */
    write_request(post, "notes", "{}");
    write_request(post, "1-2", "{}");
    write_request(post, "000001-0123456789abcdeg", "{}");
    int64_t served = post->state.served;
    for (int i = 0; i < 30; i++) {
        serve(post);
    }
    assert_int_equal(post->state.served, served);
}

static void test_the_jobs_bounds_hold(void **state)
{
    struct post *post = *state;
    static const char name[] = "000007-00000000000000aa";
    begin_relay(post);
    write_request(post, name,
                  "{\"id\":\"000007-00000000000000aa\",\"key\":\"k\",\"kind\":\"chat\","
                  "\"endpoint\":\"http://192.0.2.1/\",\"key_env\":\"HOME\",\"body\":{"
                  "\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"url\":\"file:///etc\"}],"
                  "\"max_tokens\":100000,\"temperature\":0.5,\"model\":\"dearest\",\"url\":"
                  "\"http://192.0.2.1/\",\"tools\":[],\"schema\":{\"type\":\"object\"}}}");
    serve_until(post, 1);
    assert_int_equal(post->count, 1);
    assert_non_null(strstr(post->bodies[0], "\"model\":\"m1\""));
    assert_null(strstr(post->bodies[0], "dearest"));
    assert_null(strstr(post->bodies[0], "192.0.2.1"));
    assert_null(strstr(post->bodies[0], "file:"));
    assert_null(strstr(post->bodies[0], "tools"));
    assert_null(strstr(post->bodies[0], "100000"));
    assert_non_null(strstr(post->bodies[0], ":60"));
}

static void test_the_relays_own_caps(void **state)
{
    struct post *post = *state;
    char path[FILE_PATH_BYTES];
    struct error err = {0};
    begin_job(post);
    post->caps.tokens = 40; /* less than the bound of one */
    begin_relay(post);
    world_ask(post->world, "a");
    assert_non_null(strstr(wait_for(post, "a")->error, "agent_tokens has 40 left of 40"));
    post->caps.tokens = 1e6; /* raised, and lowered, while it serves */
    call_relay_serve_caps(post->server, &post->caps);
    world_ask(post->world, "a2");
    assert_string_equal(wait_for(post, "a2")->reply, "{\"a\":1}");
    post->count = 0;
    post->caps.tokens = 1;
    call_relay_serve_caps(post->server, &post->caps);
    world_ask(post->world, "a3");
    assert_non_null(strstr(wait_for(post, "a3")->error, "agent_tokens has 0 left of 1"));
    post->caps.tokens = 1e6;
    post->caps.usd = 0.001;
    begin_relay(post);
    world_ask(post->world, "b");
    assert_non_null(strstr(wait_for(post, "b")->error, "agent_money_usd"));
    assert_int_equal(post->count, 0);
    /* What relays before have spent counts. */
    assert_int_equal(file_join(post->folders.relay, "spent.json", path, &err), STATUS_OK);
    post->caps.usd = 100;
    write_file(path, "{\"tokens\":999999,\"usd\":0}");
    begin_relay(post);
    world_ask(post->world, "c");
    assert_non_null(strstr(wait_for(post, "c")->error, "has 1 left of"));
    static const char *const wrong[] = {"", "[]", "{\"tokens\":-1,\"usd\":0}", "{\"tokens\":5}",
                                        "{\"tokens\":\"0\",\"usd\":0}"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        write_file(path, wrong[i]);
        assert_true(open_relay(post, &err) != STATUS_OK); /* better none than one that forgot */
        assert_non_null(strstr(err.message, "spent.json"));
    }
}

static void test_one_relay_a_folder(void **state)
{
    struct post *post = *state;
    struct error err = {0};
    struct call_relay_server *second = NULL;
    begin_relay(post);
    assert_int_equal(
        call_relay_serve_open(post->folder, &post->options, &post->caps, NULL, &second, &err),
        STATUS_BUSY);
    call_relay_serve_close(post->server);
    post->server = NULL;
    begin_relay(post);
}

static void test_a_withdrawn_request(void **state)
{
    struct post *post = *state;
    char name[RELAY_NAME_BYTES];
    char path[FILE_PATH_BYTES];
    begin_job(post);
    begin_relay(post);
    post->answer.stall = true;
    post->answer.end_bytes = 1;
    world_ask(post->world, "a");
    world_settle(post->world);
    wait_for_files(post->folders.requests, ".json", 1, name);
    double end_s = clock_monotonic_s() + PATIENCE_S;
    while (server_count(post->endpoint) == 0) {
        assert_true(clock_monotonic_s() < end_s);
        serve(post);
    }
    assert_int_equal(post->state.open, 1);
    path_of(post->folders.requests, name, ".json", path);
    assert_int_equal(unlink(path), 0);
    while (post->state.open > 0) {
        assert_true(clock_monotonic_s() < end_s);
        serve(post);
    }
    assert_true(post->state.tokens > 0.0); /* it may be charged */
}

/* A relay that is killed at this point of its life, while it answers one request. */

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_POST(test_requests_that_are_none), WITH_POST(test_the_jobs_bounds_hold),
        WITH_POST(test_the_relays_own_caps),    WITH_POST(test_one_relay_a_folder),
        WITH_POST(test_a_withdrawn_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
