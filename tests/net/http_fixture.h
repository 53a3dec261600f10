/* A server with one answer for all requests: what each test of net/http.h begins with. */
#ifndef TESTS_NET_HTTP_FIXTURE_H
#define TESTS_NET_HTTP_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/http.h"
#include "net/server.h"

/* Long against what a loaded machine needs, short against a test's patience. */
static const double patience_s = 60;

/* One answer for all requests, and what the last one was. */
struct script {
    struct server_answer answer;
    const char *body; /* copied for each */
    char method[16], path[256], query[256], header[256], agent[64], body_got[256];
    char authorization[256];
};

static inline void handle(void *context, const struct server_request *request,
                          struct server_answer *answer)
{
    struct script *script = context;
    snprintf(script->method, sizeof(script->method), "%s", request->method);
    snprintf(script->path, sizeof(script->path), "%s", request->path);
    snprintf(script->query, sizeof(script->query), "%s", request->query);
    snprintf(script->body_got, sizeof(script->body_got), "%.200s", request->body);
    server_header(request, "x-key", script->header, sizeof(script->header));
    server_header(request, "User-Agent", script->agent, sizeof(script->agent));
    server_header(request, "Authorization", script->authorization, sizeof(script->authorization));
    if (strcmp(request->path, "/there") == 0) {
        answer->body = mem_strdup("arrived");
        return;
    }
    *answer = script->answer;
    answer->body = script->body != NULL ? mem_strdup(script->body) : NULL;
}

struct fixture {
    struct script script;
    struct server *server;
    struct http *http;
    char url[256];
    struct http_request request;
};

static inline void unset_environment(void)
{
    static const char *const names[] = {"http_proxy", "https_proxy",   "HTTPS_PROXY",
                                        "all_proxy",  "ALL_PROXY",     "no_proxy",
                                        "NO_PROXY",   "SSL_CERT_FILE", "CURL_CA_BUNDLE"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        unsetenv(names[i]);
    }
}

static inline int set_up(void **state)
{
    unset_environment();
    struct fixture *fixture = mem_calloc(1, sizeof(*fixture));
    struct error err = {0};
    assert_int_equal(http_create(&fixture->http, &err), STATUS_OK);
    fixture->server = server_start(handle, &fixture->script);
    assert_non_null(fixture->server);
    snprintf(fixture->url, sizeof(fixture->url), "http://127.0.0.1:%d/here?secret=hunter2",
             server_port(fixture->server));
    fixture->request = (struct http_request){
        .url = fixture->url,
        .connect_s = patience_s,
        .stall_s = patience_s,
        .total_s = patience_s,
        .max_bytes = 1 << 20,
    };
    *state = fixture;
    return 0;
}

static inline int tear_down(void **state)
{
    struct fixture *fixture = *state;
    http_destroy(fixture->http);
    server_stop(fixture->server);
    free(fixture);
    return 0;
}

static inline struct http_response wait_for(struct http *http, int64_t id)
{
    struct http_response response;
    struct error err = {0};
    double end_s = clock_monotonic_s() + 2 * patience_s;
    while (!http_take(http, id, &response)) {
        assert_true(clock_monotonic_s() < end_s);
        assert_int_equal(http_turn(http, &err), STATUS_OK);
        http_wait(http, 0.05);
    }
    return response;
}

static inline struct http_response ask(struct fixture *fixture)
{
    int64_t id = 0;
    struct error err = {0};
    enum status status = http_start(fixture->http, &fixture->request, &id, &err);
    if (status != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    struct http_response response = wait_for(fixture->http, id);
    assert_null(strstr(response.error.message, "hunter2"));
    assert_null(strstr(response.error.message, "/here"));
    return response;
}

/* Asks, and expects this failure, with these words in its error. */
static inline void expect_failure(struct fixture *fixture, enum status status, const char *words)
{
    struct http_response response = ask(fixture);
    if (response.status != status || strstr(response.error.message, words) == NULL) {
        fail_msg("%s: \"%s\", not %s with \"%s\"", status_name(response.status),
                 response.error.message, status_name(status), words);
    }
    http_response_fini(&response);
}

/* What comes of a stream. */
struct sink {
    size_t bytes;
    enum status fails;
};

static inline enum status on_bytes(void *context, const char *bytes, size_t len_bytes,
                                   struct error *err)
{
    (void)bytes;
    struct sink *sink = context;
    sink->bytes += len_bytes;
    return sink->fails == STATUS_OK ? STATUS_OK : FAIL(err, sink->fails, "enough of it");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
