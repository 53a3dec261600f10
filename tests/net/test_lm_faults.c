/* Streams that break, floods, wrong characters, and keys that are sent back. */
#include "net/lm_fixture.h"

static void test_wrong_characters(void **state)
{
    struct lm_fixture *fixture = *state;
    static const char *const events[][2] = {
        {"data: {\"choices\":[{\"delta\":{\"content\":\"a\\u0000b\"},\"finish_reason\":\"stop\"}]}",
         "a\xef\xbf\xbd"
         "b"},
        {"data: {\"choices\":[{\"delta\":{\"content\":\"a\\ud83d "
         "b\"},\"finish_reason\":\"stop\"}]}",
         "a\xef\xbf\xbd b"},
        {"data: {\"choices\":[{\"delta\":{\"content\":\"\\ud83d\\ude00\\\\u0000\"},"
         "\"finish_reason\":\"stop\"}]}",
         "\xf0\x9f\x98\x80\\u0000"},
        {"data:{\"choices\":[{\"delta\":{\"content\":\"a\xff"
         "b\"},\"finish_reason\":\"stop\"}]}",
         "a\xef\xbf\xbd"
         "b"},
        {"\xef\xbb\xbf: a comment\rdata: {\"choices\":\rdata: [{\"delta\":{\"content\":\"cr\"},"
         "\"finish_reason\":\"stop\"}]}\r\revent: x\rid: 1\r",
         "cr"},
    };
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        lm_fixture_restart(fixture);
        fixture->sites[0].steps[0].wire.text = NULL;
        fixture->sites[0].steps[0].body = events[i][0];
        struct lm_answer answer = lm_fixture_ask(fixture);
        lm_fixture_check(&answer, STATUS_OK, 1, events[i][1]);
        assert_string_equal(answer.text, events[i][1]);
        lm_answer_fini(&answer);
    }
}

/* ---- streams that break ---- */

static void test_stalls(void **state)
{
    struct lm_fixture *fixture = *state;
    fixture->options.stall_s = 0.5;
    static const int ends[] = {-1, 0, 200};
    for (int i = 0; i < 3; i++) {
        lm_fixture_restart(fixture);
        struct step *step = lm_fixture_fail_first(&fixture->sites[0]);
        step->wire = fixture->sites[0].steps[1].wire;
        step->answer.stall = true;
        step->answer.end_bytes = ends[i];
        struct lm_answer answer = lm_fixture_ask(fixture);
        lm_fixture_check(&answer, STATUS_OK, 2, "fine");
        assert_true(answer.tokens_in > 100); /* the first may have been served */
        lm_answer_fini(&answer);
        lm_fixture_restart(fixture);
        fixture->options.tries = 1;
        step = lm_fixture_fail_first(&fixture->sites[0]);
        step->answer.stall = true;
        step->answer.end_bytes = -1;
        lm_fixture_expect(fixture, STATUS_TIMEOUT, 1, "not a byte for 0.5 s (connect_seconds");
        fixture->options.tries = 4;
    }
}

static void test_cut_streams(void **state)
{
    struct lm_fixture *fixture = *state;
    static const int ends[] = {-1, 0, 100, 300};
    for (int i = 0; i < 4; i++) {
        lm_fixture_restart(fixture);
        struct step *step = lm_fixture_fail_first(&fixture->sites[0]);
        step->wire = fixture->sites[0].steps[1].wire;
        step->answer.cut = true;
        step->answer.end_bytes = ends[i];
        lm_fixture_expect(fixture, STATUS_OK, 2, "fine");
    }
    /* The connection ends well, but the answer had no end. */
    lm_fixture_restart(fixture);
    struct step *step = lm_fixture_fail_first(&fixture->sites[0]);
    step->wire = (struct wire){.text = "half", .finish = ""};
    fixture->options.tries = 1;
    lm_fixture_expect(fixture, STATUS_EXTERNAL, 1, "ended in the middle");
}

static void test_answers_that_are_none(void **state)
{
    struct lm_fixture *fixture = *state;
    static const char *const bodies[][2] = {
        {"", "without a reply"},
        {"<html>Log in</html>", "without a reply"},
        {"{}", "without a reply"},
        {"[]", "without a reply"},
        {"{\"choices\": 3}", "without a reply"},
        {"{\"choices\": []}", "without a reply"},
        {"{\"choices\": [{\"message\": 7}]}", "in the middle"},
        {"{\"choices\": [", "not JSON"},
        {"{\"choices\"\x01: [", "not JSON"},
        {"data: {\"choices\"\n\n", "not JSON"},
        {"data: nothing\n\n", "not JSON"},
        {"data: [DONE]\n\n", "without a reply"},
        {": comment\n\n: comment\n\n", "without a reply"},
        {"data: {\"choices\": [{\"delta\": {\"content\": 5}}]}\n\n", "in the middle"},
        {"data: {\"choices\": {\"delta\": {\"content\": \"x\"}}}\n\n", "in the middle"},
        {"\x1f\x8b\x08 packed", "without a reply"},
        {"data: \xff\xfe\n\n", "not JSON"},
        {"error: {\"message\": \"slot is gone\"}\n", "slot is gone"},
        {"data: {\"error\": \"only a text\"}\n\n", "only a text"},
        {"{\"object\": \"error\", \"message\": \"as vLLM had it\", \"code\": 500}", "as vLLM"},
    };
    fixture->options.tries = 2;
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        lm_fixture_restart(fixture);
        fixture->sites[0].steps[0].wire.text = NULL;
        fixture->sites[0].steps[0].body = bodies[i][0];
        struct lm_answer answer = lm_fixture_ask(fixture);
        assert_true(answer.status == STATUS_FORMAT || answer.status == STATUS_EXTERNAL);
        lm_fixture_check(&answer, answer.status, 2, bodies[i][1]);
        lm_answer_fini(&answer);
    }
    /* So deep that reading it would need a stack of its own. */
    enum { DEEP = 100000 };
    char *deep = mem_calloc(DEEP + 1, 1);
    memset(deep, '[', DEEP);
    lm_fixture_restart(fixture);
    fixture->sites[0].steps[0].wire.text = NULL;
    fixture->sites[0].steps[0].body = deep;
    lm_fixture_expect(fixture, STATUS_FORMAT, 2, "not JSON");
    lm_fixture_restart(fixture);
    fixture->sites[0].steps[0].answer.bad_chunks = true;
    lm_fixture_expect(fixture, STATUS_EXTERNAL, 2, "127.0.0.1");
    free(deep);
}

static void test_errors_in_a_stream(void **state)
{
    struct lm_fixture *fixture = *state;
    static const char *const passing[] = {"server_error", "overloaded_error", "rate_limit_error",
                                          "unheard_of"};
    for (int i = 0; i < 4; i++) {
        lm_fixture_restart(fixture);
        struct step *step = lm_fixture_fail_first(&fixture->sites[0]);
        step->wire = (struct wire){.text = "half a text", .problem = passing[i]};
        lm_fixture_expect(fixture, STATUS_OK, 2, "fine");
    }
    static const char *const lasting[] = {"invalid_request_error", "authentication_error",
                                          "insufficient_quota"};
    for (int i = 0; i < 3; i++) {
        lm_fixture_restart(fixture);
        struct step *step = lm_fixture_fail_first(&fixture->sites[0]);
        step->wire = (struct wire){.text = "half a text", .problem = lasting[i]};
        lm_fixture_expect(fixture, STATUS_EXTERNAL, 1, lasting[i]);
    }
}

/* A number that is a text says the same. */
static void test_codes_as_texts(void **state)
{
    struct lm_fixture *fixture = *state;
    static const struct {
        const char *body;
        enum status status;
        int attempts;
    } cases[] = {
        {"data: {\"error\": {\"message\": \"no such model\", \"code\": \"404\"}}\n\n",
         STATUS_EXTERNAL, 1},
        {"data: {\"error\": {\"message\": \"busy\", \"code\": \"429\"}}\n\n", STATUS_OK, 2},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        lm_fixture_restart(fixture);
        lm_fixture_fail_first(&fixture->sites[0])->body = cases[i].body;
        lm_fixture_expect(fixture, cases[i].status, cases[i].attempts,
                          cases[i].status == STATUS_OK ? "fine" : "no such model");
    }
}

static void test_replies_too_long(void **state)
{
    struct lm_fixture *fixture = *state;
    enum { MEBIBYTE = 1 << 20 };
    static const char event[] =
        "data: {\"choices\":[{\"delta\":{\"content\":\"0123456789abcdef0123456789abcdef\"}}]}\n\n";
    struct step *step = &fixture->sites[0].steps[0];
    step->wire.text = NULL;
    step->body = event;
    step->answer.repeat = -1;
    step->answer.chunked = true;
    lm_fixture_expect(fixture, STATUS_LIMIT, 1, "the reply is larger than");
    /* 50 MB in one event, then as no stream, then as thoughts that nobody keeps, for ever. */
    lm_fixture_restart(fixture);
    step->wire.text = NULL;
    step->body = "data: endless and without an end of line ";
    step->answer.repeat = 50 * MEBIBYTE / 40;
    lm_fixture_expect(fixture, STATUS_LIMIT, 1, "a line of the answer");
    lm_fixture_restart(fixture);
    step->wire.text = NULL;
    step->body = "[\"a whole answer that is far too long\",";
    step->answer.repeat = 50 * MEBIBYTE / 40;
    lm_fixture_expect(fixture, STATUS_LIMIT, 1, "the answer is larger than");
    lm_fixture_restart(fixture);
    fixture->options.total_s = 1;
    fixture->options.tries = 1;
    step->wire.text = NULL;
    step->body = ": only a comment\n\n";
    step->answer.repeat = -1;
    step->answer.piece_delay_s = 0.05;
    lm_fixture_expect(fixture, STATUS_TIMEOUT, 1, "not done within 1 s");
}

/* ---- keys ---- */

static void test_a_key_is_sent_back(void **state)
{
    struct lm_fixture *fixture = *state;
    static const int codes[] = {200, 400, 401, 503};
    static const char *const bodies[] = {
        "{\"error\": {\"message\": \"your key is " CANARY " or Bearer " CANARY "\"}}",
        "{\"error\": {\"message\": \"half of it: canary-4b1d9e7f2a6\", \"type\": \"" CANARY "\"}}",
        "your key is " CANARY,
        "\"" CANARY,
        "{\"detail\": \"" CANARY "\"}",
        "data: {\"error\": \"" CANARY "\"}\n\n",
        "data: {\"model\": \"" CANARY "\", \"choices\": [{\"delta\": {\"content\": \"" CANARY
        "\"}, \"finish_reason\": \"stop\"}]}\n\n",
    };
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        for (size_t k = 0; k < sizeof(bodies) / sizeof(bodies[0]); k++) {
            lm_fixture_restart(fixture);
            struct step *step = &fixture->sites[0].steps[0];
            step->wire.text = NULL;
            step->answer.code = codes[i];
            step->body = bodies[k];
            struct lm_answer answer = lm_fixture_ask(fixture); /* which looks for it */
            lm_answer_fini(&answer);
        }
    }
    char text[] = "<" CANARY "> " CANARY;
    lm_hide_keys(fixture->lm, text);
    assert_string_equal(text, "<**************************> **************************");
}

static void test_keys_that_are_words(void **state)
{
    struct lm_fixture *fixture = *state;
    static const char *const keys[] = {"x", "EMPTY", "sk-no-key-required"};
    for (int i = 0; i < 3; i++) {
        lm_fixture_restart(fixture);
        setenv("LM_TEST_KEY", keys[i], 1);
        fixture->sites[0].steps[0].wire.text = "x is EMPTY, but required";
        lm_fixture_expect(fixture, STATUS_OK, 1, "x is EMPTY, but required");
    }
    fixture->sites[0].steps[0].wire.text = "as sk-no-key-required said";
    lm_fixture_expect(fixture, STATUS_OK, 1, "as ****************** said");
}

static void test_a_usual_key_is_for_its_own_host(void **state)
{
    struct lm_fixture *fixture = *state;
    setenv("OPENAI_API_KEY", CANARY, 1);
    fixture->options.endpoints[0].key_env = "";
    lm_fixture_expect(fixture, STATUS_OK, 1, "fine");
    assert_string_equal(fixture->sites[0].authorization, "");
    unsetenv("OPENAI_API_KEY");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, lm_fixture_set_up, lm_fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_wrong_characters),    TEST(test_stalls),
        TEST(test_cut_streams),         TEST(test_answers_that_are_none),
        TEST(test_errors_in_a_stream),  TEST(test_codes_as_texts),
        TEST(test_replies_too_long),    TEST(test_a_key_is_sent_back),
        TEST(test_keys_that_are_words), TEST(test_a_usual_key_is_for_its_own_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
