/* Requests that work, those that are refused before they are sent, and what a request is made of.
 * test_http_faults.c has servers that misbehave. */
#include "net/http_fixture.h"

#include <time.h>

#include "base/buffer.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_get_and_post),          TEST(test_an_answer_without_a_body),
        TEST(test_when_to_come_back),     TEST(test_a_stream),
        TEST(test_many_at_once),          TEST(test_urls_that_are_none),
        TEST(test_headers_that_are_none), TEST(test_without_memory),
        TEST(test_hosts_and_escapes),     TEST(test_destroyed_while_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
