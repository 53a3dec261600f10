/* Questions to endpoints: which is asked, how often, in what form, and what it costs. */
#include "base/json.h"
#include "net/lm_fixture.h"

/* ---- what works ---- */

static void test_an_answer(void **state)
{
    struct lm_fixture *fixture = *state;
    fixture->sites[0].steps[0].wire.model = "first-2026";
    struct lm_answer answer = lm_fixture_ask(fixture);
    lm_fixture_check(&answer, STATUS_OK, 1, "fine");
    assert_string_equal(answer.text, "fine");
    assert_false(answer.cut);
    assert_string_equal(answer.model, "first-2026");
    assert_string_equal(answer.provider, "openai");
    assert_non_null(strstr(fixture->sites[0].url, answer.host));
    assert_int_equal(answer.tokens_in, 100);
    assert_int_equal(answer.tokens_out, 10);
    lm_fixture_near(answer.cost_usd, (100 * 2 + 10 * 8) / 1e6);
    assert_true(answer.seconds > 0);
    lm_answer_fini(&answer);
    assert_string_equal(fixture->sites[0].path, "/v1/chat/completions");
    assert_string_equal(fixture->sites[0].authorization, "Bearer " CANARY);
    assert_null(strstr(fixture->sites[0].bodies[0], "canary"));
}

static void test_other_forms_of_an_answer(void **state)
{
    struct lm_fixture *fixture = *state;
    struct step *step = &fixture->sites[0].steps[0];
    step->wire.whole = true;
    lm_fixture_expect(fixture, STATUS_OK, 1, "fine");
    step->wire.whole = false;
    step->wire.text = "";
    lm_fixture_expect(fixture, STATUS_OK, 1, "");
    step->wire.text = "a text that was go";
    step->wire.finish = "length";
    struct lm_answer answer = lm_fixture_ask(fixture);
    lm_fixture_check(&answer, STATUS_OK, 1, "a text that was go");
    assert_true(answer.cut);
    lm_answer_fini(&answer);
}

/* ---- codes ---- */

/* Another endpoint may serve a model with a longer context; nothing shorter is tried here. */
static void test_a_prompt_that_is_too_long(void **state)
{
    struct lm_fixture *fixture = *state;
    static const struct {
        int code;
        const char *body;
    } cases[] = {
        {400,
         "{\"error\": {\"code\": 400, \"message\": \"36005 tokens are more than the context size "
         "of 32768\", \"type\": \"exceed_context_size_error\", \"n_ctx\": 32768}}"},
        {400,
         "{\"object\": \"error\", \"message\": \"the maximum context length is 4096 tokens\"}"},
        {400, "{\"type\": \"error\", \"error\": {\"type\": \"invalid_request_error\", \"message\": "
              "\"prompt is too long: 250000 tokens\"}}"},
        {413, "too large"},
        {422, "{\"detail\": \"too many tokens\"}"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int count = 1; count <= 2; count++) {
            lm_fixture_restart(fixture);
            fixture->options.endpoint_count = count;
            struct step *step = lm_fixture_fail_first(&fixture->sites[0]);
            step->answer.code = cases[i].code;
            step->body = cases[i].body;
            lm_fixture_expect(fixture, count == 1 ? STATUS_LIMIT : STATUS_OK, count,
                              count == 1 ? "; lower prompt_tokens, or serve" : "fine");
            assert_int_equal(fixture->sites[0].count, 1);
            assert_int_equal(fixture->sites[1].count, count - 1);
        }
    }
}

static void test_it_fails_there_for_good(void **state)
{
    struct lm_fixture *fixture = *state;
    const struct {
        int code;
        enum status status;
        const char *words;
    } cases[] = {
        {401, STATUS_PERMISSION, "check the key"}, {402, STATUS_EXTERNAL, "HTTP 402"},
        {403, STATUS_PERMISSION, "the key may"},   {404, STATUS_NOT_FOUND, "URL and model"},
        {405, STATUS_EXTERNAL, "HTTP 405"},        {302, STATUS_EXTERNAL, "the right URL"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int endpoints = 1; endpoints <= 2; endpoints++) {
            lm_fixture_restart(fixture);
            fixture->options.endpoint_count = endpoints;
            struct step *step = lm_fixture_fail_first(&fixture->sites[0]);
            step->answer.code = cases[i].code;
            snprintf(step->answer.headers, 64, "Location: http://127.0.0.1:1/\r\n");
            step->body = "no";
            if (endpoints == 1) {
                lm_fixture_expect(fixture, cases[i].status, 1, cases[i].words);
            } else {
                lm_fixture_expect(fixture, STATUS_OK, 2, "fine");
                assert_int_equal(fixture->sites[1].count, 1);
            }
            assert_int_equal(fixture->sites[0].count, 1);
        }
    }
}

static void test_codes_that_pass(void **state)
{
    struct lm_fixture *fixture = *state;
    static const int codes[] = {408, 425, 429, 500, 502, 503, 504, 529};
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        lm_fixture_restart(fixture);
        lm_fixture_fail_first(&fixture->sites[0])->answer.code = codes[i];
        struct lm_answer answer = lm_fixture_ask(fixture);
        lm_fixture_check(&answer, STATUS_OK, 2, "fine");
        assert_int_equal(answer.tokens_in, 100); /* such a code costs nothing */
        lm_answer_fini(&answer);
    }
}

static void test_an_empty_account_does_not_pass(void **state)
{
    struct lm_fixture *fixture = *state;
    struct step *step = lm_fixture_fail_first(&fixture->sites[0]);
    step->answer.code = 429;
    step->body = " {\"error\": {\"message\": \"no money\", \"code\": \"insufficient_quota\"}}";
    lm_fixture_expect(fixture, STATUS_EXTERNAL, 1, "no money");
    lm_fixture_restart(fixture);
    step = lm_fixture_fail_first(&fixture->sites[0]);
    step->answer.code = 400;
    step->body = "[{\"error\": {\"code\": 400, \"message\": \"API key not valid.\", "
                 "\"status\": \"INVALID_ARGUMENT\"}}]";
    lm_fixture_expect(fixture, STATUS_INVALID, 1, "check the key");
}

static void test_all_tries_fail(void **state)
{
    struct lm_fixture *fixture = *state;
    struct site *site = &fixture->sites[0];
    fixture->options.pause_s = 0.1;
    fixture->options.pause_max_s = 0.3;
    lm_fixture_fail_first(site)->answer.code = 500;
    site->step_count = 1;
    lm_fixture_expect(fixture, STATUS_EXTERNAL, 4, "after 4 attempts: 127.0.0.1");
    assert_int_equal(site->count, 4);
    static const double pauses_s[] = {0.1, 0.2, 0.3}; /* it doubles, up to the most */
    for (int i = 0; i < 3; i++) {
        assert_true(site->times_s[i + 1] - site->times_s[i] >= pauses_s[i] - 0.01);
    }
}

static void test_when_to_come_back(void **state)
{
    struct lm_fixture *fixture = *state;
    struct site *site = &fixture->sites[0];
    struct step *step = lm_fixture_fail_first(site);
    step->answer.code = 429;
    snprintf(step->answer.headers, 64, "Retry-After: 1\r\n");
    fixture->options.pause_max_s = 30;
    lm_fixture_expect(fixture, STATUS_OK, 2, "fine");
    assert_true(site->times_s[1] - site->times_s[0] >= 0.95);

    lm_fixture_restart(fixture);
    step = lm_fixture_fail_first(site);
    step->answer.code = 429;
    snprintf(step->answer.headers, 64, "Retry-After: 86400\r\n");
    fixture->options.pause_max_s = 0.3; /* the ceiling */
    lm_fixture_expect(fixture, STATUS_OK, 2, "fine");
    assert_true(site->times_s[1] - site->times_s[0] >= 0.25);
}

/* Long, and of characters that are not to be cut. */
static void test_a_long_complaint(void **state)
{
    struct lm_fixture *fixture = *state;
    char body[2048] = "{\"error\": \"a";
    for (int i = 0; i < 300; i++) {
        strcat(body, "\xe4\xbd\xa0");
    }
    strcat(body, "\", \"no\": \"end\"}");
    struct step *step = lm_fixture_fail_first(&fixture->sites[0]);
    step->answer.code = 402;
    step->body = body;
    struct lm_answer answer = lm_fixture_ask(fixture);
    lm_fixture_check(&answer, STATUS_EXTERNAL, 1, "HTTP 402: a\xe4\xbd\xa0");
    assert_true(json_utf8_valid(answer.error.message, strlen(answer.error.message)));
    assert_true(strlen(answer.error.message) < 500);
    lm_answer_fini(&answer);
}

/* ---- several endpoints ---- */

static void test_the_next_endpoint(void **state)
{
    struct lm_fixture *fixture = *state;
    fixture->options.endpoint_count = 2;
    fixture->options.pause_max_s = 60;
    lm_fixture_fail_first(&fixture->sites[0])->answer.code = 503;
    fixture->sites[0].step_count = 1;
    struct lm_answer answer = lm_fixture_ask(fixture);
    lm_fixture_check(&answer, STATUS_OK, 3, "fine"); /* twice at the first, then the second */
    assert_string_equal(answer.model, "scripted");
    assert_non_null(strstr(fixture->sites[1].url, answer.host));
    lm_answer_fini(&answer);
    assert_int_equal(fixture->sites[0].count, 2);
    /* For a while the first is not asked first. */
    lm_fixture_expect(fixture, STATUS_OK, 1, "fine");
    assert_int_equal(fixture->sites[0].count, 2);
}

static void test_no_endpoint_is_there(void **state)
{
    struct lm_fixture *fixture = *state;
    fixture->options.endpoint_count = 2;
    for (int i = 0; i < 2; i++) {
        server_stop(fixture->sites[i].server);
        fixture->sites[i].server = NULL;
    }
    struct lm_answer answer = lm_fixture_ask(fixture);
    lm_fixture_check(&answer, STATUS_EXTERNAL, 4, "after 4 attempts");
    assert_int_equal(answer.tokens_in, 0);
    lm_fixture_near(answer.cost_usd, 0);
    lm_answer_fini(&answer);
    for (int i = 0; i < 2; i++) {
        fixture->sites[i].server = server_start(lm_fixture_handle, &fixture->sites[i]);
    }
}

static void test_declined(void **state)
{
    struct lm_fixture *fixture = *state;
    for (int filter = 0; filter <= 1; filter++) {
        for (int endpoints = 1; endpoints <= 2; endpoints++) {
            lm_fixture_restart(fixture);
            fixture->options.endpoint_count = endpoints;
            struct step *step = lm_fixture_fail_first(&fixture->sites[0]);
            step->wire = (struct wire){.text = "I cannot", .tokens_in = 50, .tokens_out = 5};
            step->wire.refusal = filter == 0;
            step->wire.finish = filter == 1 ? "content_filter" : NULL;
            struct lm_answer answer = lm_fixture_ask(fixture);
            lm_fixture_check(&answer, endpoints == 1 ? STATUS_EXTERNAL : STATUS_OK, endpoints,
                             endpoints == 1 ? "declined" : "fine");
            assert_int_equal(answer.tokens_in, endpoints == 1 ? 50 : 150); /* it was paid for */
            lm_answer_fini(&answer);
        }
    }
}

/* ---- forms ---- */

static void test_a_schema_is_refused(void **state)
{
    struct lm_fixture *fixture = *state;
    struct site *site = &fixture->sites[0];
    struct step *step = lm_fixture_fail_first(site);
    step->answer.code = 400;
    step->body = "{\"error\": {\"message\": \"response_format is not supported\"}}";
    site->steps[3] = site->steps[1];
    site->steps[1] = site->steps[2] = site->steps[0];
    site->step_count = 4;
    lm_fixture_expect(fixture, STATUS_OK, 4, "fine");
    assert_non_null(strstr(site->bodies[0], "\"maxLength\""));
    assert_null(strstr(site->bodies[1], "\"maxLength\""));
    assert_non_null(strstr(site->bodies[1], "\"json_schema\""));
    assert_null(strstr(site->bodies[2], "\"json_schema\""));
    assert_non_null(strstr(site->bodies[2], "{\"type\":\"json_object\",\"schema\":{"));
    assert_null(strstr(site->bodies[2], "\"maxLength\""));
    assert_null(strstr(site->bodies[3], "\"response_format\""));
    assert_non_null(strstr(site->bodies[3], "\"seed\":7"));
    /* It is not tried again. */
    lm_fixture_expect(fixture, STATUS_OK, 1, "fine");
    assert_null(strstr(site->bodies[4], "\"response_format\""));

    /* That is all that can be left out; and a refusal is not remembered where it did not help. */
    lm_fixture_restart(fixture);
    site->steps[0].wire.text = NULL;
    site->steps[0].answer.code = 400;
    site->steps[0].body = "{\"detail\": \"I do not like it\"}";
    lm_fixture_expect(fixture, STATUS_INVALID, 5, "I do not like it");
    assert_null(strstr(site->bodies[4], "\"seed\""));
    site->steps[0].wire.text = "fine";
    lm_fixture_expect(fixture, STATUS_OK, 1, "fine");
    assert_non_null(strstr(site->bodies[5], "\"json_schema\""));
    /* Another kind of server may take what this one does not. */
    lm_fixture_restart(fixture);
    fixture->options.endpoint_count = 2;
    site->steps[0].wire.text = NULL;
    site->steps[0].answer.code = 400;
    lm_fixture_expect(fixture, STATUS_OK, 6, "fine");
    assert_int_equal(fixture->sites[1].count, 1);
    /* No form helps against a name that is wrong. */
    lm_fixture_restart(fixture);
    fixture->options.endpoint_count = 1;
    site->steps[0].wire.text = NULL;
    site->steps[0].answer.code = 400;
    site->steps[0].body = "{\"error\": {\"message\": \"the model `first` does not exist\"}}";
    lm_fixture_expect(fixture, STATUS_INVALID, 1, "; check URL and model");
}

/* Who takes no seed keeps the schema. */
static void test_extras_are_refused(void **state)
{
    struct lm_fixture *fixture = *state;
    struct site *site = &fixture->sites[0];
    struct step *step = lm_fixture_fail_first(site);
    step->answer.code = 422;
    step->body =
        "{\"detail\": [{\"type\": \"extra\", \"loc\": [\"body\", \"seed\"], \"msg\": \"may not be "
        "there\"}]}";
    lm_fixture_expect(fixture, STATUS_OK, 2, "fine");
    assert_null(strstr(site->bodies[1], "\"seed\""));
    assert_null(strstr(site->bodies[1], "\"temperature\""));
    assert_non_null(strstr(site->bodies[1], "\"maxLength\""));
    fflush(fixture->log_file);
    assert_non_null(strstr(fixture->log_text, "[\"body\",\"seed\"]"));
    assert_non_null(strstr(fixture->log_text, "again without seed, temperature"));
}

/* Some call it a fault of their own, some say it when the stream has begun. */
static void test_a_schema_breaks_the_server(void **state)
{
    struct lm_fixture *fixture = *state;
    struct site *site = &fixture->sites[0];
    static const struct {
        int code;
        const char *body;
    } cases[] = {
        {500,
         "{\"error\": {\"message\": \"response_format: wrong type\", \"type\": \"server_error\"}}"},
        {200,
         "data: {\"error\": {\"message\": \"the grammar cannot be built\", \"code\": 400}}\n\n"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        lm_fixture_restart(fixture);
        struct step *step = lm_fixture_fail_first(site);
        step->answer.code = cases[i].code;
        step->body = cases[i].body;
        lm_fixture_expect(fixture, STATUS_OK, 2, "fine");
        assert_null(strstr(site->bodies[1], "\"maxLength\""));
        assert_non_null(strstr(site->bodies[1], "\"json_schema\""));
    }
    /* What was served counts as a try, which a question has so many of. */
    lm_fixture_restart(fixture);
    site->steps[0].wire.text = NULL;
    site->steps[0].body = cases[1].body;
    fixture->options.tries = 2;
    lm_fixture_expect(fixture, STATUS_EXTERNAL, 2, "the grammar cannot be built");
    fixture->options.tries = 4;
    /* After words of a reply it is an error as any other: the reply may have been all but done. */
    lm_fixture_restart(fixture);
    struct step *step = lm_fixture_fail_first(site);
    step->body =
        "data: {\"choices\": [{\"delta\": {\"content\": \"half\"}}]}\n\n"
        "data: {\"error\": {\"message\": \"what came does not fit the grammar\", \"code\": "
        "500}}\n\n";
    lm_fixture_expect(fixture, STATUS_OK, 2, "fine");
    assert_non_null(strstr(site->bodies[1], "\"maxLength\""));
    /* The same seed would give the same again. */
    assert_non_null(strstr(site->bodies[0], "\"seed\":7,"));
    assert_non_null(strstr(site->bodies[1], "\"seed\":8,"));
}

/* A deployment or a fine-tuned model may think, whatever its name is; the schema stays. */
static void test_a_model_that_thinks(void **state)
{
    struct lm_fixture *fixture = *state;
    struct site *site = &fixture->sites[0];
    struct step *step = lm_fixture_fail_first(site);
    step->answer.code = 400;
    step->body = "{\"error\": {\"message\": \"Unsupported parameter: 'max_tokens' is not supported "
                 "with this model. Use 'max_completion_tokens' instead.\", \"type\": "
                 "\"invalid_request_error\", \"code\": \"unsupported_parameter\"}}";
    lm_fixture_expect(fixture, STATUS_OK, 2, "fine");
    assert_non_null(strstr(site->bodies[0], "\"max_tokens\""));
    assert_non_null(strstr(site->bodies[1], "\"max_completion_tokens\""));
    assert_null(strstr(site->bodies[1], "\"max_tokens\""));
    assert_null(strstr(site->bodies[1], "\"temperature\""));
    assert_non_null(strstr(site->bodies[1], "\"json_schema\""));
    lm_fixture_expect(fixture, STATUS_OK, 1, "fine"); /* it is known now */
    assert_non_null(strstr(site->bodies[2], "\"max_completion_tokens\""));
    /* One that says so for ever is refused. */
    lm_fixture_restart(fixture);
    site->steps[0].wire.text = NULL;
    site->steps[0].answer.code = 400;
    site->steps[0].body = "{\"error\": {\"message\": \"max_completion_tokens\"}}";
    lm_fixture_expect(fixture, STATUS_INVALID, 6, "max_completion_tokens");
}

static void test_a_schema_is_not_asked_for(void **state)
{
    struct lm_fixture *fixture = *state;
    fixture->options.endpoints[0].structured = false;
    lm_fixture_expect(fixture, STATUS_OK, 1, "fine");
    assert_null(strstr(fixture->sites[0].bodies[0], "json_schema"));
    lm_fixture_restart(fixture);
    fixture->options.endpoints[0].structured = true;
    fixture->question.schema = NULL;
    fixture->question.seed = -1;
    lm_fixture_expect(fixture, STATUS_OK, 1, "fine");
    assert_null(strstr(fixture->sites[0].bodies[0], "json_schema"));
    assert_null(strstr(fixture->sites[0].bodies[0], "seed"));
}

/* ---- the ledger ---- */

static void test_tokens_that_are_not_said(void **state)
{
    struct lm_fixture *fixture = *state;
    struct step *step = &fixture->sites[0].steps[0];
    static const int64_t said[] = {0, 900000000000};
    for (int i = 0; i < 2; i++) {
        step->wire.text = "a reply of some forty characters, or more";
        step->wire.no_usage = i == 0;
        step->wire.tokens_in = step->wire.tokens_out = said[i];
        struct lm_answer answer = lm_fixture_ask(fixture);
        lm_fixture_check(&answer, STATUS_OK, 1, "forty");
        assert_true(answer.tokens_out >= 10 && answer.tokens_out <= 41);
        assert_true(answer.tokens_in >= 10 && answer.tokens_in <= 400);
        int64_t most = 0;
        double most_usd = 0;
        lm_bound(&fixture->options, &fixture->question, &most, &most_usd);
        assert_true(answer.tokens_in + answer.tokens_out <= most);
        assert_true(answer.cost_usd > 0 && answer.cost_usd <= most_usd);
        lm_answer_fini(&answer);
    }
}

static void test_prices(void **state)
{
    struct lm_fixture *fixture = *state;
    struct lm_endpoint *endpoint = &fixture->options.endpoints[0];
    double in_usd = 0;
    double out_usd = 0;
    assert_true(lm_price("openai", "gpt-4o-mini-2024-07-18", &in_usd, &out_usd));
    lm_fixture_near(in_usd, 0.15);
    assert_true(lm_price("openai", "gpt-4o-2024", &in_usd, &out_usd));
    lm_fixture_near(in_usd, 2.5);
    assert_false(lm_price("anthropic", "gpt-4o", &in_usd, &out_usd));
    int64_t tokens = 0;
    double usd = 0;
    lm_bound(&fixture->options, &fixture->question, &tokens, &usd);
    assert_true(tokens >= 4 * 500 && tokens < 4 * 1000);
    assert_true(usd >= 4 * 500 * 8 / 1e6);
    endpoint->input_usd = endpoint->output_usd = NAN; /* and not in the table */
    lm_bound(&fixture->options, &fixture->question, &tokens, &usd);
    assert_true(isnan(usd));
    struct lm_answer answer = lm_fixture_ask(fixture);
    assert_true(isnan(answer.cost_usd));
    lm_answer_fini(&answer);
    endpoint->model = "gpt-4o";
    lm_bound(&fixture->options, &fixture->question, &tokens, &usd);
    lm_fixture_near(usd, 4 * ((double)(tokens / 4 - 500) * 2.5 + 500 * 10) / 1e6);
}

/* ---- what is refused ---- */

static void expect_no_client(struct lm_fixture *fixture, const char *words)
{
    struct error err = {0};
    struct lm *lm = NULL;
    assert_int_equal(lm_create(&fixture->options, fixture->http, &lm, &err), STATUS_INVALID);
    assert_null(lm);
    if (strstr(err.message, words) == NULL) {
        fail_msg("\"%s\" without \"%s\"", err.message, words);
    }
    assert_null(strstr(err.message, "canary"));
}

static void test_clients_that_cannot_be(void **state)
{
    struct lm_fixture *fixture = *state;
    const struct lm_options good = fixture->options;
    struct lm_endpoint *endpoint = &fixture->options.endpoints[0];
    fixture->options.endpoint_count = 0;
    expect_no_client(fixture, "0 endpoints");
    fixture->options = good;
    fixture->options.tries = 0;
    expect_no_client(fixture, "at least 1");
    fixture->options = good;
    fixture->options.stall_s = NAN;
    expect_no_client(fixture, "stall_s");
    fixture->options = good;
    endpoint->provider = "ollama";
    expect_no_client(fixture, "endpoint 1: no provider \"ollama\"; there are openai");
    *endpoint = good.endpoints[0];
    endpoint->key_env = "LM_TEST_NO_SUCH";
    expect_no_client(fixture, "the environment has no LM_TEST_NO_SUCH");
    setenv("LM_TEST_BAD", "  ", 1);
    endpoint->key_env = "LM_TEST_BAD";
    expect_no_client(fixture, "what LM_TEST_BAD holds is no key");
    setenv("LM_TEST_BAD", CANARY "\nX-More: " CANARY, 1);
    expect_no_client(fixture, "what LM_TEST_BAD holds is no key");
    *endpoint = good.endpoints[0];
    endpoint->model = "";
    expect_no_client(fixture, "no model");
    endpoint->url = "http://user:" CANARY "@host";
    expect_no_client(fixture, "user name");
    /* All at once. */
    fixture->options.endpoint_count = 2;
    fixture->options.endpoints[1].provider = "x";
    expect_no_client(fixture, "3 mistakes");
    unsetenv("ANTHROPIC_API_KEY");
    fixture->options = good;
    endpoint->provider = "anthropic";
    endpoint->url = endpoint->key_env = "";
    expect_no_client(fixture, "the environment has no ANTHROPIC_API_KEY");
    fixture->options = good;
    setenv("LM_TEST_BAD", "\n " CANARY "\n", 1); /* what a shell's $(cat) leaves */
    endpoint->key_env = "LM_TEST_BAD";
    lm_fixture_expect(fixture, STATUS_OK, 1, "fine");
    assert_string_equal(fixture->sites[0].authorization, "Bearer " CANARY);
}

static void test_questions_that_are_none(void **state)
{
    struct lm_fixture *fixture = *state;
    lm_fixture_open(fixture);
    static const char *const messages[] = {
        "[]",
        "{}",
        "[7]",
        "[{\"role\": \"user\"}]",
        "[{\"role\": \"tool\", \"content\": \"x\"}]",
        "[{\"role\": \"user\", \"content\": 7}]",
    };
    const struct lm_question good = fixture->question;
    int64_t id = 0;
    for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
        struct error err = {0};
        cJSON *parsed = cJSON_Parse(messages[i]);
        struct lm_question question = good;
        question.messages = parsed;
        assert_int_equal(lm_ask(fixture->lm, &question, &id, &err), STATUS_INVALID);
        cJSON_Delete(parsed);
    }
    struct lm_question bad[4] = {good, good, good, good};
    bad[0].messages = NULL;
    bad[1].max_tokens = 0;
    bad[2].temperature = NAN;
    bad[3].schema = fixture->messages;
    for (int i = 0; i < 4; i++) {
        struct error err = {0};
        assert_int_equal(lm_ask(fixture->lm, &bad[i], &id, &err), STATUS_INVALID);
    }
}

/* ---- many ---- */

static void test_concurrency(void **state)
{
    enum { COUNT = 9 };
    struct lm_fixture *fixture = *state;
    fixture->options.concurrency = 3;
    fixture->sites[0].steps[0].answer.delay_s = 0.1;
    int64_t ids[COUNT];
    for (int i = 0; i < COUNT; i++) {
        ids[i] = lm_fixture_start(fixture);
    }
    for (int i = 0; i < COUNT; i++) {
        struct lm_answer answer = lm_fixture_wait(fixture, ids[i]);
        lm_fixture_check(&answer, STATUS_OK, 1, "fine");
        lm_answer_fini(&answer);
    }
    assert_int_equal(server_most_open(fixture->sites[0].server), 3);
}

static void test_cancelled(void **state)
{
    struct lm_fixture *fixture = *state;
    struct error err = {0};
    struct lm_answer answer;
    fixture->options.concurrency = 1;
    fixture->sites[0].steps[0].answer.stall = true;
    fixture->sites[0].steps[0].answer.end_bytes = 10;
    int64_t open = lm_fixture_start(fixture);
    int64_t waiting = lm_fixture_start(fixture);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(lm_turn(fixture->lm, &err), STATUS_OK);
        http_wait(fixture->http, 0.01);
    }
    lm_cancel(fixture->lm, waiting);
    lm_cancel(fixture->lm, open);
    lm_cancel(fixture->lm, 999);
    assert_false(lm_take(fixture->lm, open, &answer));
    /* The place is free again. */
    memset(&fixture->sites[0].steps[0].answer, 0, sizeof(struct server_answer));
    answer = lm_fixture_ask(fixture);
    lm_fixture_check(&answer, STATUS_OK, 1, "fine");
    lm_answer_fini(&answer);
    lm_fixture_start(fixture); /* the end comes while it is under way */
    assert_int_equal(lm_turn(fixture->lm, &err), STATUS_OK);
}

static void test_without_memory(void **state)
{
    struct lm_fixture *fixture = *state;
    int failures = 0;
    fixture->options.tries = 1;
    for (int64_t n = 1; n < 4; n++) {
        struct error err = {0};
        struct lm *lm = NULL;
        mem_fail_nth(n);
        enum status status = lm_create(&fixture->options, fixture->http, &lm, &err);
        mem_fail_nth(0);
        assert_int_equal(status, n <= 2 ? STATUS_NO_MEMORY : STATUS_OK);
        lm_destroy(lm);
    }
    lm_fixture_open(fixture);
    for (int64_t n = 1; n < 60; n++) {
        struct error err = {0};
        struct lm_answer answer = {0};
        int64_t id = 0;
        mem_fail_nth(n);
        enum status status = lm_ask(fixture->lm, &fixture->question, &id, &err);
        if (status == STATUS_OK) {
            /* The server allocates too, so that any of them may be the one that fails. */
            answer = lm_fixture_wait(fixture, id);
            status = answer.status;
            lm_answer_fini(&answer);
        }
        mem_fail_nth(0);
        failures += status == STATUS_NO_MEMORY;
    }
    assert_true(failures > 3);
}

/* Beside what Qwen's tokenizer counts: never less, and not twice as much of what prompts hold. */
static void test_estimates(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t tokens;
    } cases[] = {
        {"The quick brown fox jumps over the lazy dog.", 10},
        {"[0.1344, 0.8474, 12, 345]", 25},
        {"f1e2d3c4b5a697887766554433221100", 32},
        {"{\"op\": \"dedup\", \"seed\": 7}", 13},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t estimate = lm_estimate_tokens(cases[i].text);
        assert_true(estimate >= cases[i].tokens && estimate < 2 * cases[i].tokens);
    }
    assert_int_equal(lm_estimate_tokens(""), 0);
    assert_int_equal(lm_estimate_tokens("a"), 1);
    assert_int_equal(lm_estimate_tokens("1234"), 4);
    assert_true(lm_estimate_tokens("\xe4\xbd\xa0\xe5\xa5\xbd") >= 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, lm_fixture_set_up, lm_fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_an_answer),
        TEST(test_other_forms_of_an_answer),
        TEST(test_a_prompt_that_is_too_long),
        TEST(test_it_fails_there_for_good),
        TEST(test_codes_that_pass),
        TEST(test_an_empty_account_does_not_pass),
        TEST(test_all_tries_fail),
        TEST(test_when_to_come_back),
        TEST(test_a_long_complaint),
        TEST(test_the_next_endpoint),
        TEST(test_no_endpoint_is_there),
        TEST(test_declined),
        TEST(test_a_schema_is_refused),
        TEST(test_extras_are_refused),
        TEST(test_a_schema_breaks_the_server),
        TEST(test_a_model_that_thinks),
        TEST(test_a_schema_is_not_asked_for),
        TEST(test_tokens_that_are_not_said),
        TEST(test_prices),
        TEST(test_clients_that_cannot_be),
        TEST(test_questions_that_are_none),
        TEST(test_concurrency),
        TEST(test_cancelled),
        TEST(test_without_memory),
        cmocka_unit_test(test_estimates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
