/* Requests against a server that misbehaves in each way that is known. */
#include "net/http_fixture.h"

#include <dlfcn.h>
#include <netdb.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

/* Names that are looked for long: under way, and whether they may end. */
static _Atomic int lookups;
static _Atomic bool lookups_may_end;

/* In place of the C library's: names that are not there, and one that is looked for long. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **out)
{
    if (name != NULL && strcmp(name, "slow.test") == 0) {
        double end_s = clock_monotonic_s() + patience_s;
        lookups++;
        while (!lookups_may_end && clock_monotonic_s() < end_s) {
            clock_sleep_s(0.01);
        }
        lookups--;
        return EAI_NONAME;
    }
    if (name != NULL && strcmp(name, "absent.test") == 0) {
        return EAI_NONAME;
    }
    int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = NULL;
    *(void **)&next = dlsym(RTLD_NEXT, "getaddrinfo");
    return next(name, service, hints, out);
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
    fixture->request.stall_s = 3;
    fixture->script.body = "drop by drop";
    fixture->script.answer.piece_bytes = 1;
    fixture->script.answer.piece_delay_s = 0.3;
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

/* Whoever waited for the name would find that it is looked for no more. */
static void test_a_name_that_is_looked_for_long(void **state)
{
    struct fixture *fixture = *state;
    int64_t id = 0;
    struct error err = {0};
    lookups_may_end = false;
    fixture->request.url = "http://slow.test/";
    assert_int_equal(http_start(fixture->http, &fixture->request, &id, &err), STATUS_OK);
    for (double end_s = clock_monotonic_s() + patience_s; lookups == 0;) {
        assert_true(clock_monotonic_s() < end_s);
        assert_int_equal(http_turn(fixture->http, &err), STATUS_OK);
    }
    for (int i = 0; i < 20; i++) {
        assert_int_equal(http_turn(fixture->http, &err), STATUS_OK);
        clock_sleep_s(0.01);
    }
    assert_int_equal(lookups, 1);
    http_cancel(fixture->http, id);
    assert_int_equal(lookups, 1);
    fixture->request.connect_s = 0.3;
    expect_failure(fixture, STATUS_TIMEOUT, "no connection within");
    assert_true(lookups > 0);
    lookups_may_end = true;
    while (lookups > 0) {
        clock_sleep_s(0.01);
    }
    clock_sleep_s(0.3); /* their threads end before the test's leaks are counted */
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

    fixture->request.secret_header = "Authorization: Bearer hunter2";
    response = ask(fixture);
    assert_int_equal(response.code, 200);
    assert_string_equal(fixture->script.path, "/there");
    assert_string_equal(fixture->script.authorization, "Bearer hunter2");
    http_response_fini(&response);
    snprintf(headers, 256, "Location: http://localhost:%d/there\r\n", server_port(fixture->server));
    response = ask(fixture);
    assert_int_equal(response.code, 200);
    assert_string_equal(fixture->script.authorization, ""); /* another host */
    http_response_fini(&response);
    struct server *other = server_start(handle, &fixture->script);
    assert_non_null(other);
    snprintf(headers, 256, "Location: http://127.0.0.1:%d/there\r\n", server_port(other));
    response = ask(fixture);
    assert_int_equal(response.code, 200);
    assert_string_equal(fixture->script.authorization, ""); /* another port */
    http_response_fini(&response);
    server_stop(other);

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

/* libcurl quotes a proxy that it cannot use: its password is not told. */
static void test_proxies_with_a_password(void **state)
{
    struct fixture *fixture = *state;
    static const char *const proxies[] = {
        "http://user:hunter2@127.0.0.1:9", "user:hunter2@[::nonsense",
        "hunter2:hunter2@host:port",       "nonsense://user:hunter2@127.0.0.1",
        "http://user:hunter2@absent.test", "user:hunter2@absent.test:99999",
    };
    for (size_t i = 0; i < sizeof(proxies) / sizeof(proxies[0]); i++) {
        setenv("http_proxy", proxies[i], 1);
        fixture->request.url = "http://absent.test/asked";
        expect_failure(fixture, STATUS_EXTERNAL, "absent.test:80: ");
    }
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_stalls),
        TEST(test_slow_is_not_stalled),
        TEST(test_connecting_takes_too_long),
        TEST(test_a_name_that_is_looked_for_long),
        TEST(test_too_much),
        TEST(test_a_long_text_of_an_error),
        TEST(test_headers_without_an_end),
        TEST(test_redirects),
        TEST(test_proxies),
        TEST(test_proxies_with_a_password),
        TEST(test_nobody_there),
        TEST(test_broken_answers),
        TEST(test_what_is_packed_stays_packed),
        TEST(test_certificates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
