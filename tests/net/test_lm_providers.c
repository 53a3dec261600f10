/* The wire form of each provider: what is sent, and recorded shapes of what comes back, cut at each
 * place, and mangled. */
#include "net/lm_fixture.h"

#include "base/json.h"
#include "base/rng.h"
#include "net/lm_stream.h"

/* ---- what comes back ---- */

struct sample {
    const char *name;
    const struct lm_provider *provider;
    const char *wire;
    const char *text;
    const char *model;
    int64_t tokens_in, tokens_out;
    bool cut, refused;
    const char *problem; /* part of it; NULL: none */
    bool passing;
};

#define OPENAI_CHUNK(delta, reason)                                                                \
    "data: {\"id\":\"chatcmpl-B9\",\"object\":\"chat.completion.chunk\",\"created\":1741569952,"   \
    "\"model\":\"gpt-4o-2024-08-06\",\"system_fingerprint\":\"fp_1\",\"choices\":[{\"index\":0,"   \
    "\"delta\":" delta ",\"logprobs\":null,\"finish_reason\":" reason "}],\"usage\":null}\n\n"

static const char openai_stream[] = OPENAI_CHUNK(
    "{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}",
    "null") OPENAI_CHUNK("{\"content\":\"{\\\"goal\\\": \"}", "null")
    OPENAI_CHUNK("{\"content\":\"\\\"caf\\u00e9 \xf0\x9f\x99\x82\\\"}\"}", "null") OPENAI_CHUNK(
        "{}",
        "\"stop\"") "data: {\"id\":\"chatcmpl-B9\",\"model\":\"gpt-4o-2024-08-06\",\"choices\":[],"
                    "\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":10,\"total_tokens\":29,"
                    "\"completion_tokens_details\":{\"reasoning_tokens\":0}}}\n\n"
                    "data: [DONE]\n\n";

static const char openai_whole[] =
    "{\"id\":\"chatcmpl-B9\",\"object\":\"chat.completion\",\"created\":1741569952,"
    "\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
    "\"content\":\"Hello!\",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,"
    "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":10,"
    "\"total_tokens\":29}}";

/* vLLM and others send thoughts in a field of their own, in each of two names. */
static const char openai_thinking[] =
    "data: "
    "{\"model\":\"Qwen/Qwen3-8B\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\","
    "\"content\":\"\"},\"finish_reason\":null}]}\n\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"Let me see.\"}}]}\n\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning\":\"More.\",\"content\":null}}]}\n\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Yes.\"}}]}\n\n"
    /* llama.cpp has the usage in the chunk with the reason. */
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}],"
    "\"usage\":{\"completion_tokens\":30,\"prompt_tokens\":12},\"timings\":{\"prompt_n\":1}}\n\n"
    "data: [DONE]\n\n";

static const char openai_parts[] =
    "data: {\"model\":\"magistral\",\"choices\":[{\"delta\":{\"content\":[{\"type\":\"thinking\","
    "\"thinking\":[{\"type\":\"text\",\"text\":\"hm\"}]},{\"type\":\"text\",\"text\":\"Yes.\"}]},"
    "\"finish_reason\":\"stop\"}]}\n\n";

static const char openai_refusal[] = OPENAI_CHUNK("{\"refusal\":\"I'm sorry, \"}", "null")
    OPENAI_CHUNK("{\"refusal\":\"but no.\"}", "null") OPENAI_CHUNK("{}", "\"stop\"");

static const char anthropic_stream[] =
    "event: message_start\n"
    "data: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\","
    "\"role\":\"assistant\",\"content\":[],\"model\":\"claude-sonnet-4-20250514\","
    "\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":25,"
    "\"cache_creation_input_tokens\":3,\"cache_read_input_tokens\":4,\"output_tokens\":1}}}\n\n"
    "event: content_block_start\n"
    "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"thinking\","
    "\"thinking\":\"\",\"signature\":\"\"}}\n\n"
    "event: content_block_delta\n"
    "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"thinking_delta\","
    "\"thinking\":\"Let me see.\"}}\n\n"
    "event: content_block_delta\n"
    "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"signature_delta\","
    "\"signature\":\"EqQB\"}}\n\n"
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
    "event: ping\ndata: {\"type\": \"ping\"}\n\n"
    "event: content_block_start\n"
    "data: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"text\","
    "\"text\":\"\"}}\n\n"
    "event: content_block_delta\n"
    "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\","
    "\"text\":\"Hello\"}}\n\n"
    "event: content_block_delta\n"
    "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\","
    "\"text\":\"!\"}}\n\n"
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":1}\n\n"
    "event: message_delta\n"
    "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\","
    "\"stop_sequence\":null},\"usage\":{\"output_tokens\":15}}\n\n"
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

static const char anthropic_tool[] =
    "event: message_start\n"
    "data: {\"type\":\"message_start\",\"message\":{\"type\":\"message\",\"content\":[],"
    "\"model\":\"claude-3-7-sonnet-20250219\",\"usage\":{\"input_tokens\":472,"
    "\"output_tokens\":2}}}\n\n"
    "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\","
    "\"text\":\"\"}}\n\n"
    "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\","
    "\"text\":\"I will plan:\"}}\n\n"
    "data: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
    "data: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"tool_use\","
    "\"id\":\"toolu_1\",\"name\":\"plan\",\"input\":{}}}\n\n"
    "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\","
    "\"partial_json\":\"\"}}\n\n"
    "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\","
    "\"partial_json\":\"{\\\"goal\\\":\"}}\n\n"
    "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\","
    "\"partial_json\":\" \\\"more\\\"}\"}}\n\n"
    "data: {\"type\":\"content_block_stop\",\"index\":1}\n\n"
    "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},"
    "\"usage\":{\"output_tokens\":89}}\n\n"
    "data: {\"type\":\"message_stop\"}\n\n";

static const char anthropic_whole[] =
    "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-3-5-haiku\","
    "\"content\":[{\"type\":\"text\",\"text\":\"So:\"},{\"type\":\"tool_use\",\"id\":\"t\","
    "\"name\":\"plan\",\"input\":{\"goal\":\"more\"}}],\"stop_reason\":\"max_tokens\","
    "\"usage\":{\"input_tokens\":5,\"output_tokens\":6}}";

static const char anthropic_error[] =
    "event: message_start\n"
    "data: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-sonnet-4\",\"content\":[],"
    "\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n"
    "event: error\n"
    "data: {\"type\": \"error\", \"error\": {\"type\": \"overloaded_error\", "
    "\"message\": \"Overloaded\"}}\n\n";

static const char anthropic_refusal[] =
    "data: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-sonnet-4\",\"content\":[],"
    "\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n"
    "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"refusal\"},"
    "\"usage\":{\"output_tokens\":2}}\n\n"
    "data: {\"type\":\"message_stop\"}\n\n";

static const char gemini_stream[] =
    "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"Let me see.\","
    "\"thought\": true}],\"role\": \"model\"},\"index\": 0}],\"usageMetadata\": "
    "{\"promptTokenCount\": 4,\"totalTokenCount\": 4,\"promptTokensDetails\": [{\"modality\": "
    "\"TEXT\",\"tokenCount\": 4}]},\"modelVersion\": \"gemini-2.5-flash\"}\r\n\r\n"
    "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"Hel\"},{\"text\": \"lo\","
    "\"thoughtSignature\": \"Ej\"}],\"role\": \"model\"},\"index\": 0}],"
    "\"modelVersion\": \"gemini-2.5-flash\"}\r\n\r\n"
    "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"!\"}],\"role\": \"model\"},"
    "\"finishReason\": \"STOP\",\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 4,"
    "\"candidatesTokenCount\": 3,\"thoughtsTokenCount\": 20,\"totalTokenCount\": 27},"
    "\"modelVersion\": \"gemini-2.5-flash\",\"responseId\": \"Il\"}\r\n\r\n";

static const char gemini_array[] =
    "[{\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"Hel\"}]}}]},\n"
    "{\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"lo\"}]},"
    "\"finishReason\": \"MAX_TOKENS\"}],\"usageMetadata\": {\"promptTokenCount\": 4,"
    "\"candidatesTokenCount\": 2},\"modelVersion\": \"gemini-2.0-flash\"}]";

static const char gemini_blocked[] =
    "data: {\"promptFeedback\": {\"blockReason\": \"PROHIBITED_CONTENT\"},\"usageMetadata\": "
    "{\"promptTokenCount\": 4,\"totalTokenCount\": 4},\"modelVersion\": \"gemini-2.5-pro\"}\n\n";

static const char gemini_safety[] =
    "data: {\"candidates\": [{\"finishReason\": \"SAFETY\",\"index\": 0,\"safetyRatings\": []}],"
    "\"modelVersion\": \"gemini-2.5-pro\"}\n\n";

static const char gemini_error[] =
    "[{\n  \"error\": {\n    \"code\": 503,\n    \"message\": \"The model is overloaded.\",\n"
    "    \"status\": \"UNAVAILABLE\"\n  }\n}\n]";

static const struct sample samples[] = {
    {.name = "openai stream",
     .provider = &lm_provider_openai,
     .wire = openai_stream,
     .text = "{\"goal\": \"caf\xc3\xa9 \xf0\x9f\x99\x82\"}",
     .model = "gpt-4o-2024-08-06",
     .tokens_in = 19,
     .tokens_out = 10},
    {.name = "openai whole",
     .provider = &lm_provider_openai,
     .wire = openai_whole,
     .text = "Hello!",
     .model = "gpt-4o",
     .tokens_in = 19,
     .tokens_out = 10},
    {.name = "openai thoughts",
     .provider = &lm_provider_openai,
     .wire = openai_thinking,
     .text = "Yes.",
     .model = "Qwen/Qwen3-8B",
     .tokens_in = 12,
     .tokens_out = 30,
     .cut = true},
    {.name = "openai parts",
     .provider = &lm_provider_openai,
     .wire = openai_parts,
     .text = "Yes.",
     .model = "magistral"},
    {.name = "openai refusal",
     .provider = &lm_provider_openai,
     .wire = openai_refusal,
     .text = "",
     .model = "gpt-4o-2024-08-06",
     .refused = true},
    {.name = "anthropic stream",
     .provider = &lm_provider_anthropic,
     .wire = anthropic_stream,
     .text = "Hello!",
     .model = "claude-sonnet-4-20250514",
     .tokens_in = 32,
     .tokens_out = 15},
    {.name = "anthropic tool",
     .provider = &lm_provider_anthropic,
     .wire = anthropic_tool,
     .text = "{\"goal\": \"more\"}",
     .model = "claude-3-7-sonnet-20250219",
     .tokens_in = 472,
     .tokens_out = 89},
    {.name = "anthropic whole",
     .provider = &lm_provider_anthropic,
     .wire = anthropic_whole,
     .text = "{\"goal\":\"more\"}",
     .model = "claude-3-5-haiku",
     .tokens_in = 5,
     .tokens_out = 6,
     .cut = true},
    {.name = "anthropic error",
     .provider = &lm_provider_anthropic,
     .wire = anthropic_error,
     .text = "",
     .model = "claude-sonnet-4",
     .tokens_in = 25,
     .tokens_out = 1,
     .problem = "overloaded_error: Overloaded",
     .passing = true},
    {.name = "anthropic refusal",
     .provider = &lm_provider_anthropic,
     .wire = anthropic_refusal,
     .text = "",
     .model = "claude-sonnet-4",
     .tokens_in = 25,
     .tokens_out = 2,
     .refused = true},
    {.name = "gemini stream",
     .provider = &lm_provider_gemini,
     .wire = gemini_stream,
     .text = "Hello!",
     .model = "gemini-2.5-flash",
     .tokens_in = 4,
     .tokens_out = 23},
    {.name = "gemini array",
     .provider = &lm_provider_gemini,
     .wire = gemini_array,
     .text = "Hello",
     .model = "gemini-2.0-flash",
     .tokens_in = 4,
     .tokens_out = 2,
     .cut = true},
    {.name = "gemini blocked",
     .provider = &lm_provider_gemini,
     .wire = gemini_blocked,
     .text = "",
     .model = "gemini-2.5-pro",
     .tokens_in = 4,
     .refused = true},
    {.name = "gemini safety",
     .provider = &lm_provider_gemini,
     .wire = gemini_safety,
     .text = "",
     .model = "gemini-2.5-pro",
     .refused = true},
    {.name = "gemini error",
     .provider = &lm_provider_gemini,
     .wire = gemini_error,
     .text = "",
     .model = "",
     .problem = "UNAVAILABLE: The model is overloaded.",
     .passing = true},
};
enum { SAMPLES = sizeof(samples) / sizeof(samples[0]) };

/* Reads bytes in pieces of one size; the reading is the caller's to release. */
static enum status read_pieces(const struct lm_provider *provider, const char *wire,
                               size_t len_bytes, size_t piece, struct lm_reading *reading)
{
    struct lm_stream stream;
    struct error err = {0};
    memset(reading, 0, sizeof(*reading));
    buffer_init(&reading->text, LM_REPLY_MAX_BYTES);
    lm_stream_init(&stream, provider, reading);
    enum status status = STATUS_OK;
    for (size_t at = 0; at < len_bytes && status == STATUS_OK; at += piece) {
        size_t length = len_bytes - at < piece ? len_bytes - at : piece;
        status = lm_stream_feed(&stream, wire + at, length, &err);
    }
    if (status == STATUS_OK) {
        status = lm_stream_end(&stream, &err);
    }
    assert_true(status == STATUS_OK || err.message[0] != '\0');
    lm_stream_fini(&stream);
    return status;
}

static void test_samples(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++) {
        const struct sample *sample = &samples[i];
        size_t length = strlen(sample->wire);
        for (size_t piece = 1; piece < length + 7; piece += piece < 32 ? 1 : 29) {
            struct lm_reading reading;
            assert_int_equal(read_pieces(sample->provider, sample->wire, length, piece, &reading),
                             STATUS_OK);
            if (strcmp(buffer_text(&reading.text), sample->text) != 0) {
                fail_msg("%s: \"%s\"", sample->name, buffer_text(&reading.text));
            }
            assert_string_equal(reading.model, sample->model);
            assert_int_equal(reading.tokens_in, sample->tokens_in);
            assert_int_equal(reading.tokens_out, sample->tokens_out);
            assert_int_equal(reading.cut, sample->cut);
            assert_int_equal(reading.refused, sample->refused);
            assert_int_equal(reading.passing, sample->passing);
            assert_int_equal(reading.ended, sample->problem == NULL);
            if (sample->problem != NULL) {
                assert_string_equal(reading.problem, sample->problem);
            } else {
                assert_string_equal(reading.problem, "");
            }
            buffer_fini(&reading.text);
        }
    }
}

/* Bytes changed, left out and put in at random: nothing is promised but that it ends in one of the
 * ways that are allowed, with text that is UTF-8. */
static void test_mangled_samples(void **state)
{
    (void)state;
    enum { ROUNDS = 400, EXTRA = 64 };
    struct rng rng;
    rng_init(&rng, 20261122, 1);
    for (int round = 0; round < ROUNDS; round++) {
        const struct sample *sample = &samples[rng_below(&rng, SAMPLES)];
        const struct lm_provider *provider = samples[rng_below(&rng, SAMPLES)].provider;
        size_t length = strlen(sample->wire);
        char *wire = mem_calloc(length + EXTRA, 1);
        memcpy(wire, sample->wire, length);
        for (uint64_t changes = 1 + rng_below(&rng, 12); changes > 0; changes--) {
            size_t at = rng_below(&rng, length - 8);
            switch (rng_below(&rng, 4)) {
            case 0:
                wire[at] = (char)rng_below(&rng, 256);
                break;
            case 1:
                wire[at] = "{}[]\":,\\\n\r"[rng_below(&rng, 10)];
                break;
            case 2:
                memmove(wire + at, wire + at + 8, length - at - 8);
                length -= length > 64 ? 8 : 0;
                break;
            default:
                length = length > 128 && rng_below(&rng, 8) == 0 ? at + 16 : length;
                break;
            }
        }
        struct lm_reading reading;
        enum status status =
            read_pieces(provider, wire, length, 1 + rng_below(&rng, 200), &reading);
        assert_true(status == STATUS_OK || status == STATUS_FORMAT);
        assert_true(json_utf8_valid(buffer_text(&reading.text), reading.text.len_bytes));
        assert_true(json_utf8_valid(reading.model, strlen(reading.model)));
        assert_true(json_utf8_valid(reading.problem, strlen(reading.problem)));
        assert_true(strlen(buffer_text(&reading.text)) == reading.text.len_bytes);
        buffer_fini(&reading.text);
        free(wire);
    }
}

static void test_wrong_types(void **state)
{
    (void)state;
    static const char *const events[] = {
        "null",
        "7",
        "\"text\"",
        "[null, 7, \"text\", []]",
        "{\"error\": 7}",
        "{\"error\": []}",
        "{\"error\": {\"message\": 7, \"code\": []}}",
        "{\"type\": \"error\"}",
        "{\"type\": 7, \"object\": 7}",
        "{\"model\": 7, \"usage\": 7, \"choices\": 7}",
        "{\"usage\": {\"prompt_tokens\": \"many\", \"completion_tokens\": -5}}",
        "{\"usage\": {\"prompt_tokens\": 1e300, \"completion_tokens\": null}}",
        "{\"choices\": [7]}",
        "{\"choices\": [{\"delta\": [], \"message\": 7, \"finish_reason\": 7}]}",
        "{\"choices\": [{\"delta\": {\"content\": [7, {\"type\": 7}, {\"type\": \"text\"}]}}]}",
        "{\"type\": \"message_start\", \"message\": 7}",
        "{\"type\": \"message_start\", \"message\": {\"content\": [7, {\"type\": \"tool_use\"}]}}",
        "{\"type\": \"content_block_delta\", \"delta\": {\"text\": 7, \"partial_json\": []}}",
        "{\"type\": \"message_delta\", \"usage\": [], \"delta\": {\"stop_reason\": 7}}",
        "{\"candidates\": [[]], \"usageMetadata\": 7, \"promptFeedback\": []}",
        "{\"candidates\": [{\"content\": {\"parts\": [7, {\"text\": 7, \"thought\": 7}]}}]}",
        "{\"candidates\": [{\"content\": 7, \"finishReason\": 7}]}",
    };
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        for (const char *const *name = lm_providers(); *name != NULL; name++) {
            struct lm_reading reading;
            enum status status = read_pieces(lm_provider_find(*name), events[i], strlen(events[i]),
                                             SIZE_MAX, &reading);
            assert_true(status == STATUS_OK || status == STATUS_FORMAT);
            assert_int_equal(reading.text.len_bytes, 0);
            assert_true(reading.tokens_in == 0 && reading.tokens_out == 0);
            assert_false(reading.ended);
            buffer_fini(&reading.text);
        }
    }
}

static void test_the_table(void **state)
{
    (void)state;
    int count = 0;
    for (const char *const *name = lm_providers(); *name != NULL; name++) {
        assert_string_equal(lm_provider_find(*name)->name, *name);
        count++;
    }
    assert_int_equal(count, 3);
    assert_null(lm_provider_find("OpenAI"));
}

/* ---- what is sent ---- */

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

/* "strict" only for what OpenAI takes as such, and without what it does not know. */
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
    } cases[] = {
        {"openai",
         "{\"error\":{\"message\":\"Invalid schema for response_format 'plan'\",\"type\":"
         "\"invalid_request_error\",\"param\":\"response_format\",\"code\":null}}",
         openai_whole, "Hello!", "response_format"},
        {"anthropic",
         "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":"
         "\"tools.0.input_schema: JSON schema is invalid\"}}",
         anthropic_stream, "Hello!", "tools"},
        {"gemini",
         "[{\"error\":{\"code\":400,\"message\":\"Unknown name \\\"responseJsonSchema\\\"\","
         "\"status\":\"INVALID_ARGUMENT\"}}]",
         gemini_stream, "Hello!", "generationConfig/responseJsonSchema"},
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
        site->step_count = 2;
        site->steps[0].answer.code = 400;
        site->steps[0].body = cases[i].complaint;
        site->steps[1].body = cases[i].answer;
        cJSON *second = ask(fixture, cases[i].text);
        cJSON *first = body_of(site, 0);
        assert_int_equal(site->count, 2);
        assert_non_null(at(first, cases[i].gone));
        assert_null(at(second, cases[i].gone));
        cJSON_Delete(first);
        cJSON_Delete(second);
    }
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
        cmocka_unit_test(test_samples),     cmocka_unit_test(test_mangled_samples),
        cmocka_unit_test(test_wrong_types), cmocka_unit_test(test_the_table),
        TEST(test_openai_is_sent),          TEST(test_openai_models_that_think),
        TEST(test_openai_schemas),          TEST(test_anthropic_is_sent),
        TEST(test_gemini_is_sent),          TEST(test_each_without_a_schema),
        cmocka_unit_test(test_urls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
