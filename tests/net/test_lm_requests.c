/* What is sent to each provider: messages, schemas, options, headers, URLs. */
#include "net/lm_fixture.h"
#include "net/lm_samples.h"

#include "net/lm_provider.h"

static cJSON *body_of(const struct site *site, int n)
{
    cJSON *body = cJSON_Parse(site->bodies[n]);
    assert_non_null(body);
    return body;
}

/* A value at a path of names and indices: "a/0/b". */
static const cJSON *at(const cJSON *value, const char *path)
{
    char *copy = mem_strdup(path);
    for (char *rest = copy, *part = NULL; (part = strsep(&rest, "/")) != NULL;) {
        value = cJSON_IsArray(value) ? cJSON_GetArrayItem(value, atoi(part))
                                     : cJSON_GetObjectItemCaseSensitive(value, part);
    }
    free(copy);
    return value;
}

static const char *text_at(const cJSON *value, const char *path)
{
    const char *text = cJSON_GetStringValue(at(value, path));
    return text != NULL ? text : "(none)";
}

static double number_at(const cJSON *value, const char *path)
{
    return cJSON_GetNumberValue(at(value, path));
}

static void use(struct lm_fixture *fixture, const char *provider, const char *model,
                const char *answer)
{
    struct lm_endpoint *endpoint = &fixture->options.endpoints[0];
    endpoint->provider = provider;
    endpoint->model = model;
    fixture->sites[0].steps[0].wire.text = NULL;
    fixture->sites[0].steps[0].body = answer;
    cJSON_AddItemToArray(
        fixture->messages,
        cJSON_Parse("{\"role\": \"assistant\", \"content\": \"No \\\"plan\\\".\\n\"}"));
    cJSON_AddItemToArray(fixture->messages,
                         cJSON_Parse("{\"role\": \"user\", \"content\": \"Again.\"}"));
}

static cJSON *ask(struct lm_fixture *fixture, const char *text)
{
    struct lm_answer answer = lm_fixture_ask(fixture);
    if (answer.status != STATUS_OK) {
        fail_msg("%s", answer.error.message);
    }
    assert_string_equal(answer.text, text);
    lm_answer_fini(&answer);
    assert_null(strstr(fixture->sites[0].query, "canary"));
    assert_null(strstr(fixture->sites[0].bodies[fixture->sites[0].count - 1], "canary"));
    return body_of(&fixture->sites[0], (int)fixture->sites[0].count - 1);
}

static void test_openai_is_sent(void **state)
{
    struct lm_fixture *fixture = *state;
    use(fixture, "openai", "some-model", openai_whole);
    cJSON *body = ask(fixture, "Hello!");
    assert_string_equal(text_at(body, "model"), "some-model");
    assert_string_equal(text_at(body, "messages/0/role"), "system");
    assert_string_equal(text_at(body, "messages/2/content"), "No \"plan\".\n");
    assert_true(number_at(body, "max_tokens") == 500);
    assert_true(number_at(body, "temperature") == 0.5);
    assert_true(number_at(body, "seed") == 7);
    assert_true(cJSON_IsTrue(at(body, "stream")));
    assert_true(cJSON_IsTrue(at(body, "stream_options/include_usage")));
    assert_string_equal(text_at(body, "response_format/type"), "json_schema");
    assert_string_equal(text_at(body, "response_format/json_schema/name"), "plan");
    assert_true(cJSON_IsTrue(at(body, "response_format/json_schema/strict")));
    assert_string_equal(text_at(body, "response_format/json_schema/schema/required/0"), "goal");
    cJSON_Delete(body);
    assert_string_equal(fixture->sites[0].path, "/v1/chat/completions");
    assert_string_equal(fixture->sites[0].query, "");
    assert_string_equal(fixture->sites[0].authorization, "Bearer " CANARY);
}

static void test_openai_models_that_think(void **state)
{
    struct lm_fixture *fixture = *state;
    static const char *const names[] = {"gpt-5-mini", "o3", "openai/o4-mini"};
    for (int i = 0; i < 3; i++) {
        lm_destroy(fixture->lm);
        fixture->lm = NULL;
        use(fixture, "openai", names[i], openai_whole);
        cJSON *body = ask(fixture, "Hello!");
        assert_true(number_at(body, "max_completion_tokens") == 500);
        assert_null(at(body, "max_tokens"));
        assert_null(at(body, "temperature"));
        cJSON_Delete(body);
    }
}

static void test_azure_is_sent(void **state)
{
    struct lm_fixture *fixture = *state;
    struct site *site = &fixture->sites[0];
    char url[200];
    use(fixture, "azure", "my gpt/4o", azure_stream);
    /* The resource, without a path; the variable is the usual one. */
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/", server_port(site->server));
    fixture->options.endpoints[0].url = url;
    fixture->options.endpoints[0].key_env = "";
    setenv("AZURE_OPENAI_API_KEY", CANARY, 1);
    cJSON *body = ask(fixture, "Hello!");
    assert_string_equal(text_at(body, "response_format/type"), "json_schema");
    assert_string_equal(text_at(body, "messages/0/role"), "system");
    assert_true(number_at(body, "max_tokens") == 500);
    assert_true(cJSON_IsTrue(at(body, "stream")));
    cJSON_Delete(body);
    assert_string_equal(site->path, "/openai/deployments/my%20gpt%2F4o/chat/completions");
    assert_string_equal(site->query, "api-version=2024-10-21");
    assert_string_equal(site->azure_key, CANARY);
    assert_string_equal(site->authorization, "");
    /* Another version, by name. */
    lm_destroy(fixture->lm);
    fixture->lm = NULL;
    snprintf(url, sizeof(url), "http://127.0.0.1:%d?api-version=2025-01-01-preview",
             server_port(site->server));
    cJSON_Delete(ask(fixture, "Hello!"));
    assert_string_equal(site->path, "/openai/deployments/my%20gpt%2F4o/chat/completions");
    assert_string_equal(site->query, "api-version=2025-01-01-preview");
    unsetenv("AZURE_OPENAI_API_KEY");
}

static cJSON *write_body(const struct lm_fixture *fixture, unsigned form)
{
    struct buffer body;
    buffer_init(&body, 1 << 16);
    lm_openai_put_body(&fixture->options.endpoints[0], &fixture->question, form, &body);
    cJSON *object = cJSON_Parse(buffer_text(&body));
    assert_non_null(object);
    buffer_fini(&body);
    return object;
}

/* "strict" only for what OpenAI takes as such, and without what it does not know; other servers
 * get all of it. */
static void test_openai_schemas(void **state)
{
    struct lm_fixture *fixture = *state;
    static const struct {
        const char *schema;
        bool strict;
        const char *gone; /* path of what is left out; NULL: nothing */
    } cases[] = {
        {"{\"type\": \"object\", \"properties\": {\"maxLength\": {\"type\": \"string\", "
         "\"maxLength\": 9}}, \"required\": [\"maxLength\"], \"additionalProperties\": false}",
         true, "properties/maxLength/maxLength"},
        {"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"string\"}}, "
         "\"required\": [], \"additionalProperties\": false}",
         false, NULL},
        {"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"string\"}}, "
         "\"required\": [\"a\"]}",
         false, NULL},
        {"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"array\", \"items\": "
         "{\"type\": \"object\"}}}, \"required\": [\"a\"], \"additionalProperties\": false}",
         false, NULL},
        {"{\"type\": \"object\", \"properties\": {\"a\": {\"anyOf\": [{\"type\": \"object\"}]}}, "
         "\"required\": [\"a\"], \"additionalProperties\": false}",
         false, NULL},
    };
    use(fixture, "openai", "some-model", openai_whole);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cJSON *schema = cJSON_Parse(cases[i].schema);
        fixture->question.schema = schema;
        fixture->question.schema_name = "a plan/\xc3\xa9";
        cJSON *body = ask(fixture, "Hello!");
        const cJSON *sent = at(body, "response_format/json_schema");
        assert_string_equal(text_at(sent, "name"), "a_plan___");
        assert_int_equal(cJSON_IsTrue(at(sent, "strict")), cases[i].strict);
        assert_true(cJSON_Compare(at(sent, "schema"), schema, true));
        cJSON_Delete(body);
        body = write_body(fixture, LM_FORM_EXTRAS | LM_FORM_SCHEMA);
        sent = at(body, "response_format/json_schema");
        assert_int_equal(cJSON_IsTrue(at(sent, "strict")), cases[i].strict);
        if (cases[i].gone != NULL) {
            assert_non_null(at(schema, cases[i].gone));
            assert_null(at(at(sent, "schema"), cases[i].gone));
        } else {
            assert_true(cJSON_Compare(at(sent, "schema"), schema, true));
        }
        cJSON_Delete(body);
        cJSON_Delete(schema);
    }
}

static void test_anthropic_is_sent(void **state)
{
    struct lm_fixture *fixture = *state;
    use(fixture, "anthropic", "claude-sonnet-4", anthropic_tool);
    fixture->question.temperature = 1.5;
    cJSON *body = ask(fixture, "{\"goal\": \"more\"}");
    assert_string_equal(text_at(body, "model"), "claude-sonnet-4");
    assert_string_equal(text_at(body, "system"), "You plan.");
    assert_string_equal(text_at(body, "messages/0/role"), "user");
    assert_string_equal(text_at(body, "messages/1/role"), "assistant");
    assert_string_equal(text_at(body, "messages/1/content"), "No \"plan\".\n");
    assert_int_equal(cJSON_GetArraySize(at(body, "messages")), 3);
    assert_true(number_at(body, "max_tokens") == 500);
    assert_true(number_at(body, "temperature") == 1); /* its most */
    assert_null(at(body, "seed"));
    assert_true(cJSON_IsTrue(at(body, "stream")));
    assert_string_equal(text_at(body, "tools/0/name"), "plan");
    assert_string_equal(text_at(body, "tools/0/input_schema/required/0"), "goal");
    assert_string_equal(text_at(body, "tool_choice/type"), "tool");
    assert_string_equal(text_at(body, "tool_choice/name"), "plan");
    cJSON_Delete(body);
    assert_string_equal(fixture->sites[0].path, "/v1/messages");
    assert_string_equal(fixture->sites[0].api_key, CANARY);
    assert_string_equal(fixture->sites[0].authorization, "");
    assert_string_equal(fixture->sites[0].version, "2023-06-01");

    fixture->question.schema = NULL;
    fixture->sites[0].steps[0].body = anthropic_stream;
    cJSON_DeleteItemFromArray(fixture->messages, 0); /* no system message */
    body = ask(fixture, "Hello!");
    assert_null(at(body, "tools"));
    assert_null(at(body, "tool_choice"));
    assert_null(at(body, "system"));
    cJSON_Delete(body);
}

static void test_gemini_is_sent(void **state)
{
    struct lm_fixture *fixture = *state;
    use(fixture, "gemini", "models/gemini 2.5/flash", gemini_stream);
    fixture->question.seed = INT64_MAX;
    cJSON *body = ask(fixture, "Hello!");
    assert_string_equal(text_at(body, "systemInstruction/parts/0/text"), "You plan.");
    assert_string_equal(text_at(body, "contents/0/role"), "user");
    assert_string_equal(text_at(body, "contents/1/role"), "model");
    assert_string_equal(text_at(body, "contents/1/parts/0/text"), "No \"plan\".\n");
    assert_true(number_at(body, "generationConfig/maxOutputTokens") == 500);
    assert_true(number_at(body, "generationConfig/seed") == 0x7FFFFFFF);
    assert_string_equal(text_at(body, "generationConfig/responseMimeType"), "application/json");
    assert_string_equal(text_at(body, "generationConfig/responseJsonSchema/required/0"), "goal");
    cJSON_Delete(body);
    assert_string_equal(fixture->sites[0].path,
                        "/v1/models/gemini%202.5%2Fflash:streamGenerateContent");
    assert_string_equal(fixture->sites[0].query, "alt=sse"); /* and no key in it */
    assert_string_equal(fixture->sites[0].google_key, CANARY);
    assert_string_equal(fixture->sites[0].authorization, "");
}

/* Each provider's own words for "not with a schema", after which it is asked without. */
static void test_each_without_a_schema(void **state)
{
    struct lm_fixture *fixture = *state;
    static const struct {
        const char *provider, *complaint, *answer, *text, *gone;
        int refusals; /* OpenAI's form is first asked without bounds of texts, and for JSON alone */
        const char *there; /* what stands in its place; NULL: nothing */
    } cases[] = {
        {"openai",
         "{\"error\":{\"message\":\"Invalid schema for response_format 'plan'\",\"type\":"
         "\"invalid_request_error\",\"param\":\"response_format\",\"code\":null}}",
         openai_whole, "Hello!", "response_format", 3, NULL},
        {"anthropic",
         "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":"
         "\"tools.0.input_schema: JSON schema is invalid\"}}",
         anthropic_stream, "Hello!", "tools", 1, "output_config/format/schema/required/0"},
        {"gemini",
         "[{\"error\":{\"code\":400,\"message\":\"Unknown name \\\"responseJsonSchema\\\"\","
         "\"status\":\"INVALID_ARGUMENT\"}}]",
         gemini_stream, "Hello!", "generationConfig/responseJsonSchema", 1, NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        lm_destroy(fixture->lm);
        fixture->lm = NULL;
        struct site *site = &fixture->sites[0];
        use(fixture, cases[i].provider, "a-model", NULL);
        site->count = 0;
        for (int k = 0; k < STEPS_MAX; k++) {
            free(site->bodies[k]);
            site->bodies[k] = NULL;
        }
        memset(site->steps, 0, sizeof(site->steps));
        site->step_count = cases[i].refusals + 1;
        for (int k = 0; k < cases[i].refusals; k++) {
            site->steps[k].answer.code = 400;
            site->steps[k].body = cases[i].complaint;
        }
        site->steps[cases[i].refusals].body = cases[i].answer;
        cJSON *second = ask(fixture, cases[i].text);
        cJSON *first = body_of(site, 0);
        assert_int_equal(site->count, cases[i].refusals + 1);
        assert_non_null(at(first, cases[i].gone));
        assert_null(at(second, cases[i].gone));
        assert_true(cases[i].there == NULL || at(second, cases[i].there) != NULL);
        cJSON_Delete(first);
        cJSON_Delete(second);
    }
}

/* Newer models of Anthropic take no temperature: the tool stays. */
static void test_anthropic_without_temperature(void **state)
{
    struct lm_fixture *fixture = *state;
    struct site *site = &fixture->sites[0];
    use(fixture, "anthropic", "a-model", NULL);
    site->step_count = 2;
    site->steps[0].answer.code = 400;
    site->steps[0].body = "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\","
                          "\"message\":\"temperature: not for this model\"}}";
    site->steps[1].body = anthropic_tool;
    cJSON *body = ask(fixture, "{\"goal\": \"more\"}");
    assert_int_equal(site->count, 2);
    assert_null(at(body, "temperature"));
    assert_string_equal(text_at(body, "tools/0/name"), "plan");
    cJSON_Delete(body);
}

static void test_urls(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"http://h/v1", "/a", "http://h/v1/a"},
        {"http://h/v1///", "/a", "http://h/v1/a"},
        {"http://h/v1/a", "/a", "http://h/v1/a"},
        {"http://h/v1?x=1", "/a", "http://h/v1/a?x=1"},
        {"http://h/v1?x=1", "/a?alt=sse", "http://h/v1/a?alt=sse&x=1"},
        {"http://h/v1/?", "/a?alt=sse", "http://h/v1/a?alt=sse"},
        {"http://h#part", "/a", "http://h/a"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buffer url;
        buffer_init(&url, 256);
        lm_put_url(&url, cases[i][0], cases[i][1]);
        assert_string_equal(buffer_text(&url), cases[i][2]);
        buffer_fini(&url);
    }
}
#define TEST(name) cmocka_unit_test_setup_teardown(name, lm_fixture_set_up, lm_fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_openai_is_sent),
        TEST(test_openai_models_that_think),
        TEST(test_azure_is_sent),
        TEST(test_openai_schemas),
        TEST(test_anthropic_is_sent),
        TEST(test_gemini_is_sent),
        TEST(test_anthropic_without_temperature),
        TEST(test_each_without_a_schema),
        cmocka_unit_test(test_urls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
