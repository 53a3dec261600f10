/* Requests against a server that misbehaves in each way that is known. */
#include <dlfcn.h>
#include <math.h>
#include <netdb.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/http.h"
#include "net/server.h"

/* Long against what a loaded machine needs, short against a test's patience. */
static const double patience_s = 60;
static const double slow_name_s = 3;

/* In place of the C library's: names that are not there, and one that is looked for long. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **out)
{
    if (name != NULL && strcmp(name, "slow.test") == 0) {
        clock_sleep_s(slow_name_s);
        return EAI_NONAME;
    }
    if (name != NULL && strcmp(name, "absent.test") == 0) {
        return EAI_NONAME;
    }
    int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = NULL;
    *(void **)&next = dlsym(RTLD_NEXT, "getaddrinfo");
    return next(name, service, hints, out);
}

/* One answer for all requests, and what the last one was. */
struct script {
    struct server_answer answer;
    const char *body; /* copied for each */
    char method[16], path[256], query[256], header[256], agent[64], body_got[256];
};

static void handle(void *context, const struct server_request *request,
                   struct server_answer *answer)
{
    struct script *script = context;
    snprintf(script->method, sizeof(script->method), "%s", request->method);
    snprintf(script->path, sizeof(script->path), "%s", request->path);
    snprintf(script->query, sizeof(script->query), "%s", request->query);
    snprintf(script->body_got, sizeof(script->body_got), "%.200s", request->body);
    server_header(request, "x-key", script->header, sizeof(script->header));
    server_header(request, "User-Agent", script->agent, sizeof(script->agent));
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

static void unset_environment(void)
{
    static const char *const names[] = {"http_proxy", "https_proxy",   "HTTPS_PROXY",
                                        "all_proxy",  "ALL_PROXY",     "no_proxy",
                                        "NO_PROXY",   "SSL_CERT_FILE", "CURL_CA_BUNDLE"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        unsetenv(names[i]);
    }
}

static int set_up(void **state)
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

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    http_destroy(fixture->http);
    server_stop(fixture->server);
    free(fixture);
    return 0;
}

static struct http_response wait_for(struct http *http, int64_t id)
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

static struct http_response ask(struct fixture *fixture)
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
static void expect_failure(struct fixture *fixture, enum status status, const char *words)
{
    struct http_response response = ask(fixture);
    if (response.status != status || strstr(response.error.message, words) == NULL) {
        fail_msg("%s: \"%s\", not %s with \"%s\"", status_name(response.status),
                 response.error.message, status_name(status), words);
    }
    http_response_fini(&response);
}

/* ---- what works ---- */

static void test_get_and_post(void **state)
{
    struct fixture *fixture = *state;
    fixture->script.body = "hello";
    struct http_response response = ask(fixture);
    assert_int_equal(response.status, STATUS_OK);
    assert_int_equal(response.code, 200);
    assert_true(response.connected);
    assert_string_equal(response.body, "hello");
    assert_int_equal(response.body_bytes, 5);
    assert_string_equal(response.content_type, "application/json");
    assert_true(isnan(response.retry_after_s));
    http_response_fini(&response);
    assert_string_equal(fixture->script.method, "GET");
    assert_string_equal(fixture->script.query, "secret=hunter2");
    assert_true(strncmp(fixture->script.agent, "trex/", 5) == 0);

    const char *const headers[] = {"Content-Type: text/plain", NULL};
    fixture->request.headers = headers;
    fixture->request.secret_header = "x-key: 123";
    fixture->request.body = "question";
    fixture->request.body_bytes = 8;
    response = ask(fixture);
    assert_int_equal(response.code, 200);
    http_response_fini(&response);
    assert_string_equal(fixture->script.method, "POST");
    assert_string_equal(fixture->script.header, "123");
    assert_string_equal(fixture->script.body_got, "question");
    assert_int_equal(server_connections(fixture->server), 1); /* it was used again */
}

static void test_an_answer_without_a_body(void **state)
{
    struct fixture *fixture = *state;
    fixture->script.answer.code = 204;
    struct http_response response = ask(fixture);
    assert_int_equal(response.code, 204);
    assert_string_equal(response.body, "");
    http_response_fini(&response);
}

static void test_when_to_come_back(void **state)
{
    struct fixture *fixture = *state;
    fixture->script.answer.code = 429;
    const struct {
        const char *value;
        double least, most; /* NaN: none */
    } cases[] = {
        {"7", 7, 7},        {"0.5", 0.5, 0.5},
        {"7 s", NAN, NAN},  {"-3", NAN, NAN},
        {"soon", NAN, NAN}, {"1e999", NAN, NAN},
        {"", NAN, NAN},     {"Wed, 21 Oct 2015 07:28:00 GMT", 0, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(fixture->script.answer.headers, sizeof(fixture->script.answer.headers),
                 "Retry-After: %s\r\n", cases[i].value);
        struct http_response response = ask(fixture);
        if (isnan(cases[i].least)) {
            assert_true(isnan(response.retry_after_s));
        } else {
            assert_true(response.retry_after_s >= cases[i].least);
            assert_true(response.retry_after_s <= cases[i].most);
        }
        http_response_fini(&response);
    }
    time_t later = time(NULL) + 1000;
    strftime(fixture->script.answer.headers, sizeof(fixture->script.answer.headers),
             "Retry-After: %a, %d %b %Y %H:%M:%S GMT\r\n", gmtime(&later));
    struct http_response response = ask(fixture);
    assert_true(response.retry_after_s > 1000 - patience_s && response.retry_after_s <= 1000);
    http_response_fini(&response);
}

struct sink {
    size_t bytes;
    enum status fails;
};

static enum status on_bytes(void *context, const char *bytes, size_t len_bytes, struct error *err)
{
    (void)bytes;
    struct sink *sink = context;
    sink->bytes += len_bytes;
    return sink->fails == STATUS_OK ? STATUS_OK : FAIL(err, sink->fails, "enough of it");
}

static void test_a_stream(void **state)
{
    struct fixture *fixture = *state;
    struct sink sink = {0};
    fixture->request.on_bytes = on_bytes;
    fixture->request.context = &sink;
    fixture->script.body = "0123456789";
    fixture->script.answer.repeat = 1000;
    fixture->script.answer.chunked = true;
    struct http_response response = ask(fixture);
    assert_int_equal(response.status, STATUS_OK);
    assert_int_equal(sink.bytes, 10000);
    assert_int_equal(response.body_bytes, 10000);
    assert_null(response.body);
    http_response_fini(&response);

    sink.fails = STATUS_FORMAT;
    expect_failure(fixture, STATUS_FORMAT, "enough of it");

    /* What is no answer is not read as one. */
    sink.bytes = 0;
    fixture->script.answer.code = 500;
    response = ask(fixture);
    assert_int_equal(response.status, STATUS_OK);
    assert_int_equal(sink.bytes, 0);
    assert_int_equal(strlen(response.body), 10000);
    http_response_fini(&response);
}

static void test_many_at_once(void **state)
{
    enum { COUNT = 24 };
    struct fixture *fixture = *state;
    fixture->script.body = "one of many";
    fixture->script.answer.delay_s = 0.2;
    int64_t ids[COUNT];
    struct error err = {0};
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(http_start(fixture->http, &fixture->request, &ids[i], &err), STATUS_OK);
    }
    for (int i = 0; i < COUNT; i += 3) {
        http_cancel(fixture->http, ids[i]);
    }
    for (int i = COUNT - 1; i >= 0; i--) {
        if (i % 3 != 0) {
            struct http_response response = wait_for(fixture->http, ids[i]);
            assert_string_equal(response.body, "one of many");
            http_response_fini(&response);
        }
    }
    struct http_response response;
    assert_false(http_take(fixture->http, ids[0], &response));
    assert_false(http_take(fixture->http, ids[1], &response));
    http_cancel(fixture->http, 12345);
    assert_true(server_most_open(fixture->server) > 1);
}

/* ---- what is refused before it is sent ---- */

static void expect_refused(struct fixture *fixture, const char *words)
{
    struct error err = {0};
    int64_t id = 0;
    assert_int_equal(http_start(fixture->http, &fixture->request, &id, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, words));
    assert_null(strstr(err.message, "hunter2"));
}

static void test_urls_that_are_none(void **state)
{
    struct fixture *fixture = *state;
    char longest[HTTP_URL_MAX_BYTES + 64];
    memset(longest, 'a', sizeof(longest) - 1);
    memcpy(longest, "http://host/", 12);
    longest[sizeof(longest) - 1] = '\0';
    const char *const cases[][2] = {
        {"ftp://host/hunter2", "none of http"},
        {"file:///etc/passwd", "none of http"},
        {"gopher://host/", "none of http"},
        {"host/hunter2", "none of http"},
        {"http:///hunter2", "none of http"},
        {"", "none of http"},
        {"http://me:hunter2@host/", "user name"},
        {"http://hunter2@host/", "user name"},
        {"http://host/a b", "spaces"},
        {"http://host/a\r\nX: hunter2", "spaces"},
        {"http://h\xc3\xb6st/", "not ASCII"},
        {longest, "bytes"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        fixture->request.url = cases[i][0];
        expect_refused(fixture, cases[i][1]);
    }
}

static void test_headers_that_are_none(void **state)
{
    struct fixture *fixture = *state;
    fixture->request.secret_header = "x-key: hunter2\r\nx-more: 1";
    expect_refused(fixture, "a header that is none");
    fixture->request.secret_header = "hunter2";
    expect_refused(fixture, "a header that is none");
    fixture->request.secret_header = NULL;
    const char *many[HTTP_HEADERS_MAX + 2];
    for (int i = 0; i <= HTTP_HEADERS_MAX; i++) {
        many[i] = "a: b";
    }
    many[HTTP_HEADERS_MAX + 1] = NULL;
    fixture->request.headers = many;
    expect_refused(fixture, "more than 16 headers");
}

/* ---- time ---- */

static void test_stalls(void **state)
{
    struct fixture *fixture = *state;
    fixture->request.stall_s = 0.3;
    fixture->script.body = "half and half";
    fixture->script.answer.stall = true;
    fixture->script.answer.end_bytes = -1;
    expect_failure(fixture, STATUS_TIMEOUT, "not a byte for 0.3 s");
    fixture->script.answer.end_bytes = 0;
    expect_failure(fixture, STATUS_TIMEOUT, "not a byte for 0.3 s");
    fixture->script.answer.end_bytes = 4;
    expect_failure(fixture, STATUS_TIMEOUT, "not a byte for 0.3 s");
}

static void test_slow_is_not_stalled(void **state)
{
    struct fixture *fixture = *state;
    fixture->request.stall_s = 5;
    fixture->script.body = "drop by drop";
    fixture->script.answer.piece_bytes = 1;
    fixture->script.answer.piece_delay_s = 0.6;
    struct http_response response = ask(fixture);
    assert_int_equal(response.status, STATUS_OK);
    assert_true(response.seconds > fixture->request.stall_s);
    http_response_fini(&response);
    fixture->request.total_s = 1;
    expect_failure(fixture, STATUS_TIMEOUT, "not done within 1 s");
}

static void test_connecting_takes_too_long(void **state)
{
    struct fixture *fixture = *state;
    /* It listens, and says nothing that is TLS. */
    char url[256];
    snprintf(url, sizeof(url), "https://127.0.0.1:%d/", server_port(fixture->server));
    fixture->request.url = url;
    fixture->request.connect_s = 0.5;
    expect_failure(fixture, STATUS_TIMEOUT, "no connection within 0.5 s");
}

static double longest_turn(struct http *http, double seconds)
{
    double end_s = clock_monotonic_s() + seconds;
    double longest_s = 0;
    struct error err = {0};
    while (clock_monotonic_s() < end_s) {
        double begin_s = clock_monotonic_s();
        assert_int_equal(http_turn(http, &err), STATUS_OK);
        longest_s = fmax(longest_s, clock_monotonic_s() - begin_s);
        clock_sleep_s(0.01);
    }
    return longest_s;
}

static void test_a_name_that_is_looked_for_long(void **state)
{
    struct fixture *fixture = *state;
    int64_t id = 0;
    struct error err = {0};
    fixture->request.url = "http://slow.test/";
    double begin_s = clock_monotonic_s();
    assert_int_equal(http_start(fixture->http, &fixture->request, &id, &err), STATUS_OK);
    assert_true(longest_turn(fixture->http, 0.5) < slow_name_s / 2);
    http_cancel(fixture->http, id); /* does not wait for it either */
    fixture->request.connect_s = 0.3;
    expect_failure(fixture, STATUS_TIMEOUT, "no connection within");
    assert_true(clock_monotonic_s() - begin_s < slow_name_s);
    clock_sleep_s(slow_name_s + 1); /* its threads end before the test's leaks are counted */
}

/* ---- size ---- */

static void test_too_much(void **state)
{
    struct fixture *fixture = *state;
    struct sink sink = {0};
    fixture->script.body = "0123456789abcdef";
    fixture->script.answer.repeat = 100000;
    fixture->request.max_bytes = 5000;
    expect_failure(fixture, STATUS_LIMIT, "more than 5000 bytes");
    fixture->script.answer.repeat = -1;
    expect_failure(fixture, STATUS_LIMIT, "more than 5000 bytes");
    fixture->request.on_bytes = on_bytes;
    fixture->request.context = &sink;
    fixture->script.answer.chunked = true;
    expect_failure(fixture, STATUS_LIMIT, "more than 5000 bytes");
    assert_true(sink.bytes <= 5000);
}

static void test_a_long_text_of_an_error(void **state)
{
    struct fixture *fixture = *state;
    fixture->script.body = "0123456789abcdef";
    fixture->script.answer.repeat = -1;
    fixture->script.answer.code = 503;
    fixture->script.answer.chunked = true;
    struct http_response response = ask(fixture);
    assert_int_equal(response.status, STATUS_OK);
    assert_int_equal(response.code, 503);
    assert_int_equal(response.body_bytes, 64 * 1024);
    http_response_fini(&response);
}

static void test_headers_without_an_end(void **state)
{
    struct fixture *fixture = *state;
    fixture->script.body = "X-More: of the same, and of the same, and of the same\r\n";
    fixture->script.answer.raw = true;
    fixture->script.answer.repeat = -1;
    struct http_response response = ask(fixture);
    assert_int_not_equal(response.status, STATUS_OK);
    http_response_fini(&response);
    /* As a whole they are none: no status line. Then with one. */
    fixture->script.body = "HTTP/1.1 100 Continue\r\n\r\n";
    expect_failure(fixture, STATUS_LIMIT, "headers of more than");
}

/* ---- where to ---- */

static void test_redirects(void **state)
{
    struct fixture *fixture = *state;
    fixture->script.answer.code = 302;
    char *headers = fixture->script.answer.headers;
    snprintf(headers, 256, "Location: /there\r\n");
    struct http_response response = ask(fixture);
    assert_int_equal(response.code, 200);
    assert_string_equal(response.body, "arrived");
    http_response_fini(&response);

    fixture->request.secret_header = "x-key: hunter2";
    response = ask(fixture);
    assert_int_equal(response.status, STATUS_OK);
    assert_int_equal(response.code, 302);
    assert_string_equal(fixture->script.path, "/here");
    http_response_fini(&response);

    fixture->request.secret_header = NULL;
    fixture->request.body = "a question";
    fixture->request.body_bytes = 10;
    response = ask(fixture);
    assert_int_equal(response.code, 302);
    http_response_fini(&response);

    fixture->request.body = NULL;
    snprintf(headers, 256, "Location: file:///etc/passwd\r\n");
    expect_failure(fixture, STATUS_EXTERNAL, "");
    snprintf(headers, 256, "Location: /here?secret=hunter2\r\n");
    expect_failure(fixture, STATUS_EXTERNAL, "redirect");
}

static void test_proxies(void **state)
{
    struct fixture *fixture = *state;
    char proxy[64];
    snprintf(proxy, sizeof(proxy), "http://127.0.0.1:%d", server_port(fixture->server));
    setenv("http_proxy", proxy, 1);
    fixture->request.url = "http://absent.test/asked";
    fixture->script.body = "from the proxy";
    struct http_response response = ask(fixture);
    assert_int_equal(response.status, STATUS_OK);
    assert_string_equal(response.body, "from the proxy");
    assert_string_equal(fixture->script.path, "http://absent.test/asked");
    http_response_fini(&response);
    setenv("no_proxy", "absent.test", 1);
    expect_failure(fixture, STATUS_EXTERNAL, "absent.test");
    unset_environment();
}

static void test_nobody_there(void **state)
{
    struct fixture *fixture = *state;
    fixture->request.url = "http://absent.test/?secret=hunter2";
    expect_failure(fixture, STATUS_EXTERNAL, "absent.test:80: Could not resolve host");
    struct server *other = server_start(handle, &fixture->script);
    char url[128];
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/?secret=hunter2", server_port(other));
    server_stop(other);
    fixture->request.url = url;
    struct http_response response = ask(fixture);
    assert_int_equal(response.status, STATUS_EXTERNAL);
    assert_false(response.connected);
    assert_false(response.lasting);
    assert_int_equal(response.code, 0);
    http_response_fini(&response);
}

/* ---- answers that break ---- */

static void test_broken_answers(void **state)
{
    struct fixture *fixture = *state;
    struct server_answer *answer = &fixture->script.answer;
    fixture->script.body = "half and half";
    answer->cut = true;
    answer->end_bytes = -1;
    expect_failure(fixture, STATUS_EXTERNAL, "");
    answer->end_bytes = 6;
    expect_failure(fixture, STATUS_EXTERNAL, "");
    answer->chunked = true;
    expect_failure(fixture, STATUS_EXTERNAL, "");
    *answer = (struct server_answer){.chunked = true, .bad_chunks = true};
    expect_failure(fixture, STATUS_EXTERNAL, "");
    *answer = (struct server_answer){.raw = true};
    expect_failure(fixture, STATUS_EXTERNAL, "");
    fixture->script.body = "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello";
    expect_failure(fixture, STATUS_EXTERNAL, "");
    fixture->script.body = "HTTP/1.1 200 OK\r\nContent-Length: 5000000000000\r\n\r\nhello";
    expect_failure(fixture, STATUS_EXTERNAL, "");
}

static void test_what_is_packed_stays_packed(void **state)
{
    struct fixture *fixture = *state;
    snprintf(fixture->script.answer.headers, sizeof(fixture->script.answer.headers),
             "Content-Encoding: gzip\r\n");
    fixture->script.body = "\x1f\x8b\x08 a bomb";
    struct http_response response = ask(fixture);
    assert_int_equal(response.status, STATUS_OK);
    assert_int_equal(response.body_bytes, strlen(fixture->script.body));
    assert_memory_equal(response.body, fixture->script.body, response.body_bytes);
    http_response_fini(&response);
}

/* ---- certificates ---- */

struct tls {
    char folder[64], certificate[128];
    pid_t server;
    int port;
};

/* A server of openssl's with a certificate of its own; false: there is no such command. */
static bool start_tls(struct tls *tls)
{
    char command[1024];
    snprintf(tls->folder, sizeof(tls->folder), "/tmp/trex_http_XXXXXX");
    assert_non_null(mkdtemp(tls->folder));
    snprintf(tls->certificate, sizeof(tls->certificate), "%s/cert.pem", tls->folder);
    snprintf(command, sizeof(command),
             "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
             "-addext subjectAltName=IP:127.0.0.1 -keyout %s/key.pem -out %s 2> /dev/null",
             tls->folder, tls->certificate);
    if (system(command) != 0) {
        return false;
    }
    /* A port that was free a moment ago. */
    struct script script = {0};
    struct server *free_port = server_start(handle, &script);
    tls->port = server_port(free_port);
    server_stop(free_port);
    tls->server = fork();
    if (tls->server == 0) {
        char port[16];
        char key[128];
        snprintf(port, sizeof(port), "%d", tls->port);
        snprintf(key, sizeof(key), "%s/key.pem", tls->folder);
        assert_non_null(freopen("/dev/null", "r+", stdin));
        assert_non_null(freopen("/dev/null", "w", stdout));
        assert_non_null(freopen("/dev/null", "w", stderr));
        execlp("openssl", "openssl", "s_server", "-accept", port, "-cert", tls->certificate, "-key",
               key, "-www", "-quiet", (char *)NULL);
        _exit(127);
    }
    return true;
}

static void stop_tls(struct tls *tls)
{
    char command[256];
    if (tls->server > 0) {
        kill(tls->server, SIGKILL);
        waitpid(tls->server, NULL, 0);
    }
    snprintf(command, sizeof(command), "rm -rf '%s'", tls->folder);
    assert_int_equal(system(command), 0);
}

static void test_certificates(void **state)
{
    struct fixture *fixture = *state;
    struct tls tls = {0};
    if (!start_tls(&tls)) {
        stop_tls(&tls);
        print_message("skipped: no openssl command\n");
        skip();
    }
    char url[128];
    snprintf(url, sizeof(url), "https://127.0.0.1:%d/?secret=hunter2", tls.port);
    fixture->request.url = url;
    struct http_response response;
    for (double end_s = clock_monotonic_s() + patience_s;;) {
        response = ask(fixture);
        bool is_up = response.lasting || clock_monotonic_s() > end_s;
        if (is_up) {
            break;
        }
        http_response_fini(&response);
        clock_sleep_s(0.1);
    }
    assert_int_equal(response.status, STATUS_EXTERNAL);
    assert_true(response.lasting);
    assert_non_null(strstr(response.error.message, "certificate"));
    assert_non_null(strstr(response.error.message, "SSL_CERT_FILE"));
    http_response_fini(&response);
    const char *const names[] = {"SSL_CERT_FILE", "CURL_CA_BUNDLE"};
    for (int i = 0; i < 2; i++) {
        setenv(names[i], tls.certificate, 1);
        response = ask(fixture);
        assert_int_equal(response.status, STATUS_OK);
        assert_int_equal(response.code, 200);
        http_response_fini(&response);
        setenv(names[i], "/nonexistent/bundle.pem", 1);
        response = ask(fixture);
        assert_int_equal(response.status, STATUS_EXTERNAL);
        assert_true(response.lasting);
        http_response_fini(&response);
        unset_environment();
    }
    stop_tls(&tls);
}

/* ---- memory, and texts ---- */

static void test_without_memory(void **state)
{
    struct fixture *fixture = *state;
    fixture->script.body = "hello";
    fixture->request.body = "question";
    fixture->request.body_bytes = 8;
    struct http *none = NULL;
    struct error none_err = {0};
    mem_fail_nth(1);
    assert_int_equal(http_create(&none, &none_err), STATUS_NO_MEMORY);
    mem_fail_nth(0);
    int failures = 0;
    for (int64_t n = 1; n < 6; n++) {
        struct error err = {0};
        int64_t id = 0;
        mem_fail_nth(n);
        enum status status = http_start(fixture->http, &fixture->request, &id, &err);
        mem_fail_nth(0);
        if (status == STATUS_OK) {
            struct http_response response = wait_for(fixture->http, id);
            http_response_fini(&response);
        } else {
            assert_int_equal(status, STATUS_NO_MEMORY);
            failures++;
        }
    }
    assert_true(failures >= 2);
}

static void test_hosts_and_escapes(void **state)
{
    (void)state;
    char host[HTTP_HOST_BYTES];
    http_host("https://api.test/v1?key=1", host);
    assert_string_equal(host, "api.test:443");
    http_host("http://[::1]:8000/v1", host);
    assert_string_equal(host, "[::1]:8000");
    http_host("http://me:pass@host:1/", host);
    assert_string_equal(host, "host:1");
    http_host("nothing at all", host);
    assert_string_equal(host, "");
    struct buffer out;
    buffer_init(&out, 256);
    http_append_escaped(&out, "a-Z_0.~ /?&=%\xc3\xa9");
    assert_string_equal(buffer_text(&out), "a-Z_0.~%20%2F%3F%26%3D%25%C3%A9");
    buffer_fini(&out);
}

static void test_destroyed_while_under_way(void **state)
{
    struct fixture *fixture = *state;
    struct error err = {0};
    int64_t id = 0;
    fixture->script.answer.stall = true;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(http_start(fixture->http, &fixture->request, &id, &err), STATUS_OK);
        assert_int_equal(http_turn(fixture->http, &err), STATUS_OK);
    }
    http_destroy(fixture->http);
    fixture->http = NULL;
    http_destroy(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_get_and_post),
        TEST(test_an_answer_without_a_body),
        TEST(test_when_to_come_back),
        TEST(test_a_stream),
        TEST(test_many_at_once),
        TEST(test_urls_that_are_none),
        TEST(test_headers_that_are_none),
        TEST(test_stalls),
        TEST(test_slow_is_not_stalled),
        TEST(test_connecting_takes_too_long),
        TEST(test_a_name_that_is_looked_for_long),
        TEST(test_too_much),
        TEST(test_a_long_text_of_an_error),
        TEST(test_headers_without_an_end),
        TEST(test_redirects),
        TEST(test_proxies),
        TEST(test_nobody_there),
        TEST(test_broken_answers),
        TEST(test_what_is_packed_stays_packed),
        TEST(test_certificates),
        TEST(test_without_memory),
        TEST(test_hosts_and_escapes),
        TEST(test_destroyed_while_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
