/* Sources behind a transport: asked on a thread of their own, many at once, cancelled, closed while
 * they are under way. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agents/call_transport.h"
#include "base/clock.h"
#include "net/server.h"

static const double patience_s = 60;
static const char *const folders[] = {TEST_SOURCE_DIR "/net/golden/local", NULL};

static struct call_transport open_direct(const struct source_options *sources)
{
    struct call_direct_options options = {.sources = *sources};
    struct call_transport transport;
    struct error err = {0};
    if (call_direct_open(&options, &transport, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return transport;
}

static void start(const struct call_transport *transport, int32_t id, const char *question)
{
    struct error err = {0};
    cJSON *body = cJSON_Parse(question);
    assert_non_null(body);
    const struct call call = {.id = id, .key = "k", .kind = CALL_SOURCE, .body = body};
    assert_int_equal(transport->start(transport->state, &call, &err), STATUS_OK);
    cJSON_Delete(body);
}

static struct call_answer wait_for_one(const struct call_transport *transport)
{
    struct call_answer answer;
    struct error err = {0};
    double end_s = clock_monotonic_s() + patience_s;
    while (!transport->take(transport->state, &answer)) {
        assert_true(clock_monotonic_s() < end_s);
        assert_int_equal(transport->turn(transport->state, 0, false, &err), STATUS_OK);
        call_direct_wait(transport, 0.05);
    }
    return answer;
}

#define SEARCH "{\"do\": \"search\", \"source\": \"local\", \"text\": \"reviews\"}"

static void test_many(void **state)
{
    (void)state;
    enum { COUNT = 20 };
    bool seen[COUNT] = {false};
    struct call_transport transport =
        open_direct(&(struct source_options){.offline = true, .folders = folders});
    for (int i = 0; i < COUNT; i++) {
        start(&transport, i, SEARCH);
    }
    for (int i = 0; i < COUNT; i++) {
        struct call_answer answer = wait_for_one(&transport);
        assert_int_equal(answer.status, STATUS_OK);
        assert_string_equal(answer.provider, "source");
        assert_non_null(strstr(answer.text, "House Reviews"));
        assert_true(answer.id >= 0 && answer.id < COUNT && !seen[answer.id]);
        assert_int_equal(answer.tokens_in + answer.tokens_out, 0);
        assert_true(answer.cost_usd == 0.0);
        seen[answer.id] = true;
        call_answer_fini(&answer);
    }
    transport.close(transport.state);
}

/* What cannot be asked, and what has no answer, is an answer too. */
static void test_failures(void **state)
{
    (void)state;
    static const struct {
        const char *question;
        enum status status;
    } cases[] = {
        {"{\"do\": \"search\", \"source\": \"nobody\", \"text\": \"x\"}", STATUS_INVALID},
        {"{\"do\": \"card\", \"source\": \"local\", \"id\": \"none\"}", STATUS_NOT_FOUND},
        {"{\"do\": \"search\", \"source\": \"arxiv\", \"text\": \"x\"}", STATUS_NOT_FOUND},
    };
    struct call_transport transport =
        open_direct(&(struct source_options){.offline = true, .folders = folders});
    for (int i = 0; i < 3; i++) {
        start(&transport, i, cases[i].question);
        struct call_answer answer = wait_for_one(&transport);
        assert_int_equal(answer.id, i);
        assert_int_equal(answer.status, cases[i].status);
        assert_true(answer.error.message[0] != '\0');
        assert_null(answer.text);
    }
    transport.close(transport.state);
}

static void answer_never(void *context, const struct server_request *request,
                         struct server_answer *answer)
{
    (void)context;
    (void)request;
    answer->stall = true;
    answer->end_bytes = -1;
}

/* A server that says nothing holds up nobody. */
static void test_cancelled_and_closed(void **state)
{
    (void)state;
    char url[64];
    struct call_answer answer;
    struct error err = {0};
    unsetenv("http_proxy");
    struct server *server = server_start(answer_never, NULL);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d", server_port(server));
    struct call_transport transport =
        open_direct(&(struct source_options){.base_url = url, .folders = folders});
    start(&transport, 0, "{\"do\": \"search\", \"source\": \"hf_papers\", \"text\": \"x\"}");
    start(&transport, 1, SEARCH);
    answer = wait_for_one(&transport);
    assert_int_equal(answer.id, 1);
    call_answer_fini(&answer);
    start(&transport, 2, SEARCH);
    transport.cancel(transport.state, 2); /* whether it is answered by now or not */
    transport.cancel(transport.state, 0);
    transport.cancel(transport.state, 99);
    start(&transport, 3, SEARCH);
    answer = wait_for_one(&transport);
    assert_int_equal(answer.id, 3);
    call_answer_fini(&answer);
    assert_int_equal(transport.turn(transport.state, 0, false, &err), STATUS_OK);
    assert_false(transport.take(transport.state, &answer));
    start(&transport, 4, "{\"do\": \"search\", \"source\": \"hf_papers\", \"text\": \"x\"}");
    double begin_s = clock_monotonic_s();
    transport.close(transport.state); /* with one under way */
    assert_true(clock_monotonic_s() - begin_s < patience_s / 2);
    server_stop(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_cancelled_and_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
