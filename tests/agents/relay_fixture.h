/* A job, a relay and an endpoint: what each test of the relay begins with. */
#ifndef TESTS_AGENTS_RELAY_FIXTURE_H
#define TESTS_AGENTS_RELAY_FIXTURE_H

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

static inline void handle(void *context, const struct server_request *request,
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

static inline int set_up(void **state)
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

static inline int tear_down(void **state)
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
static inline void begin_job(struct post *post)
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

static inline enum status open_relay(struct post *post, struct error *err)
{
    call_relay_serve_close(post->server);
    post->server = NULL;
    return call_relay_serve_open(post->folder, &post->options, &post->caps, &post->world->log,
                                 &post->server, err);
}

static inline void begin_relay(struct post *post)
{
    struct error err = {0};
    if (open_relay(post, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

static inline void serve(struct post *post)
{
    struct error err = {0};
    if (call_relay_serve(post->server, 0.02, &post->state, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

/* Both sides turn until the call has ended. */
static inline const struct search_call *wait_for(struct post *post, const char *key)
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

static inline void path_of(const char *folder, const char *name, const char *ending,
                           char out[FILE_PATH_BYTES])
{
    struct error err = {0};
    assert_int_equal(relay_path(folder, name, ending, out, &err), STATUS_OK);
}

/* Waits until the folder holds so many files of this ending; the first one's name. */
static inline void wait_for_files(const char *folder, const char *ending, int wanted,
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

static inline void write_file(const char *path, const char *text)
{
    struct error err = {0};
    assert_int_equal(file_write(path, text, strlen(text), &err), STATUS_OK);
}

static inline char *read_text(const char *path)
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

#define WITH_POST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

#endif
