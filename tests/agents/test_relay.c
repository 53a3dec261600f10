/* The relay: both sides, with an endpoint between which a test stands. */
#include "agents/calls_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agents/call_relay_file.h"
#include "base/clock.h"
#include "base/file.h"
#include "net/server.h"
#include "net/wire.h"

#define CANARY "sk-canary-7c2e9b41d0f8a635"
static const char canary_part[] = "canary-7c2e9b41"; /* not even this much of it */

enum { PATIENCE_S = 120, BODIES_MAX = 16 };

struct post {
    struct world *world; /* the job's side */
    char root[32], folder[64];
    struct relay_folders folders;
    struct server *endpoint;
    char url[128];
    struct wire wire;
    struct server_answer answer; /* laid over it */
    bool echo;                   /* the endpoint tells the key that it got */
    int error_code;
    int64_t count;
    char *bodies[BODIES_MAX];
    char authorization[256];
    struct call_direct_options options;
    struct call_relay_caps caps;
    double timeout_s;
    struct call_relay_server *server;
    struct call_relay_state state;
};

static void handle(void *context, const struct server_request *request,
                   struct server_answer *answer)
{
    struct post *post = context;
    char text[1024];
    if (post->count < BODIES_MAX) {
        free(post->bodies[post->count]);
        post->bodies[post->count] = mem_strdup(request->body);
    }
    post->count++;
    server_header(request, "Authorization", post->authorization, sizeof(post->authorization));
    struct wire wire = post->wire;
    if (post->echo) {
        snprintf(text, sizeof(text), "you sent \"%s\"", post->authorization);
        wire.text = text;
        wire.model = post->authorization;
    }
    if (post->error_code != 0) {
        wire_error(post->error_code, "error", post->echo ? text : "no", answer);
    } else {
        wire_answer(&wire, answer);
    }
    answer->delay_s = post->answer.delay_s;
    answer->stall = post->answer.stall;
    answer->end_bytes = post->answer.end_bytes;
}

static int set_up(void **state)
{
    struct error err = {0};
    struct post *post = mem_calloc(1, sizeof(*post));
    world_set_up((void **)&post->world);
    strcpy(post->root, "relay-test-XXXXXX");
    assert_non_null(mkdtemp(post->root));
    snprintf(post->folder, sizeof(post->folder), "%s/run", post->root);
    assert_int_equal(relay_folders_make(post->folder, &post->folders, &err), STATUS_OK);
    post->endpoint = server_start(handle, post);
    assert_non_null(post->endpoint);
    post->wire = (struct wire){.text = "{\"a\":1}", .tokens_in = 30, .tokens_out = 7};
    snprintf(post->url, sizeof(post->url), "http://127.0.0.1:%d/v1", server_port(post->endpoint));
    setenv("RELAY_TEST_KEY", CANARY, 1);
    unsetenv("http_proxy");
    post->options.lm = (struct lm_options){
        .endpoint_count = 1,
        .concurrency = 8,
        .tries = 2,
        .connect_s = 60,
        .stall_s = 60,
        .total_s = 100,
        .pause_s = 0.01,
        .pause_max_s = 0.05,
        .log = &post->world->log,
    };
    post->options.lm.endpoints[0] = (struct lm_endpoint){.provider = "openai",
                                                         .model = "m1",
                                                         .url = post->url,
                                                         .key_env = "RELAY_TEST_KEY",
                                                         .structured = true,
                                                         .input_usd = 1000,
                                                         .output_usd = 1000};
    post->options.sources = (struct source_options){.offline = true, .log = &post->world->log};
    post->caps = (struct call_relay_caps){.tokens = 1e6, .usd = 1e4, .reply_tokens = 60};
    post->timeout_s = PATIENCE_S;
    *state = post;
    return 0;
}

static int tear_down(void **state)
{
    struct post *post = *state;
    char command[64];
    call_relay_serve_close(post->server);
    world_tear_down((void **)&post->world);
    server_stop(post->endpoint);
    for (int i = 0; i < BODIES_MAX; i++) {
        free(post->bodies[i]);
    }
    snprintf(command, sizeof(command), "rm -rf %s", post->root);
    assert_int_equal(system(command), 0);
    free(post);
    return 0;
}

/* The job begins, or goes on. */
static void begin_job(struct post *post)
{
    struct error err = {0};
    struct call_transport transport;
    calls_destroy(post->world->calls);
    post->world->calls = NULL;
    if (call_relay_open(post->folder, &post->options, post->timeout_s, &transport, &err) !=
        STATUS_OK) {
        fail_msg("%s", err.message);
    }
    world_open(post->world, &transport, 8);
}

static enum status open_relay(struct post *post, struct error *err)
{
    call_relay_serve_close(post->server);
    post->server = NULL;
    return call_relay_serve_open(post->folder, &post->options, &post->caps, &post->world->log,
                                 &post->server, err);
}

static void begin_relay(struct post *post)
{
    struct error err = {0};
    if (open_relay(post, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

static void serve(struct post *post)
{
    struct error err = {0};
    if (call_relay_serve(post->server, 0.02, &post->state, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

/* Both sides turn until the call has ended. */
static const struct search_call *wait_for(struct post *post, const char *key)
{
    double end_s = clock_monotonic_s() + PATIENCE_S;
    while (calls_find(&post->world->search, key) == NULL) {
        assert_true(clock_monotonic_s() < end_s);
        world_settle(post->world);
        if (post->server != NULL) {
            serve(post);
        } else {
            clock_sleep_s(0.01);
        }
    }
    return calls_find(&post->world->search, key);
}

static void path_of(const char *folder, const char *name, const char *ending,
                    char out[FILE_PATH_BYTES])
{
    struct error err = {0};
    assert_int_equal(relay_path(folder, name, ending, out, &err), STATUS_OK);
}

/* Waits until the folder holds so many files of this ending; the first one's name. */
static void wait_for_files(const char *folder, const char *ending, int wanted,
                           char name[RELAY_NAME_BYTES])
{
    double end_s = clock_monotonic_s() + PATIENCE_S;
    for (int count = -1; count != wanted; clock_sleep_s(0.01)) {
        char(*names)[RELAY_NAME_BYTES] = NULL;
        struct error err = {0};
        assert_true(clock_monotonic_s() < end_s);
        assert_int_equal(relay_list(folder, ending, &names, &count, &err), STATUS_OK);
        if (count > 0 && name != NULL) {
            memcpy(name, names[0], RELAY_NAME_BYTES);
        }
        free(names);
    }
}

static void write_file(const char *path, const char *text)
{
    struct error err = {0};
    assert_int_equal(file_write(path, text, strlen(text), &err), STATUS_OK);
}

static char *read_text(const char *path)
{
    struct buffer text;
    struct error err = {0};
    buffer_init(&text, 16 << 20);
    if (file_read(path, &text, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    char *taken = text.len_bytes > 0 ? buffer_take(&text) : mem_strdup("");
    buffer_fini(&text);
    return taken;
}

/* ---- the job's side ---- */

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

/* ---- both sides ---- */

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

#define WITH_POST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_POST(test_a_request_and_its_reply),
        WITH_POST(test_a_restart_asks_nothing_twice),
        WITH_POST(test_replies_that_are_none),
        WITH_POST(test_no_relay_is_there),
        WITH_POST(test_the_search_ends),
        WITH_POST(test_through_the_relay),
        WITH_POST(test_several_at_once),
        WITH_POST(test_requests_that_are_none),
        WITH_POST(test_the_jobs_bounds_hold),
        WITH_POST(test_the_relays_own_caps),
        WITH_POST(test_one_relay_a_folder),
        WITH_POST(test_a_withdrawn_request),
        WITH_POST(test_killed_relays),
        WITH_POST(test_a_disk_that_refuses),
        WITH_POST(test_folders_that_lead_elsewhere),
        WITH_POST(test_a_key_stays_where_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
