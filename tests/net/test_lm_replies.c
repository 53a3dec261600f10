/* What comes back of each provider: recorded shapes, cut at each place, and mangled. */
#include "net/lm_fixture.h"
#include "net/lm_samples.h"

#include "base/json.h"
#include "base/rng.h"
#include "net/lm_stream.h"

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

/* What comes before the first byte, in pieces of any size. */
static void test_marks_in_front(void **state)
{
    (void)state;
    static const char *const fronts[] = {"\xEF\xBB\xBF", "\r\n\xEF\xBB\xBF \n", " \n\n"};
    for (size_t i = 0; i < 3 * SAMPLES; i++) {
        const struct sample *sample = &samples[i / 3];
        struct buffer wire;
        buffer_init(&wire, (size_t)1 << 20);
        buffer_append_text(&wire, fronts[i % 3]);
        buffer_append_text(&wire, sample->wire);
        for (size_t piece = 1; piece < 10; piece++) {
            struct lm_reading reading;
            assert_int_equal(
                read_pieces(sample->provider, buffer_text(&wire), wire.len_bytes, piece, &reading),
                STATUS_OK);
            assert_string_equal(buffer_text(&reading.text), sample->text);
            buffer_fini(&reading.text);
        }
        buffer_fini(&wire);
    }
}

/* A NUL, escaped or not, ends no text. */
static void test_nuls(void **state)
{
    (void)state;
    static const char wire[] =
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\0b\\u0000c\"}}]}\n\n";
    struct lm_reading reading;
    assert_int_equal(read_pieces(&lm_provider_openai, wire, sizeof(wire) - 1, 7, &reading),
                     STATUS_OK);
    assert_string_equal(buffer_text(&reading.text), "a b\uFFFDc");
    buffer_fini(&reading.text);
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
    assert_int_equal(count, 4);
    assert_null(lm_provider_find("OpenAI"));
    /* A usual key goes to the provider's own URL, which of some providers the job names. */
    static const struct {
        const char *provider, *url, *key_env, *variable;
    } keys[] = {
        {"openai", "", "", "OPENAI_API_KEY"},
        {"openai", "https://api.openai.com/v1", "", "OPENAI_API_KEY"},
        {"openai", "https://elsewhere/v1", "", ""},
        {"openai", "https://elsewhere/v1", "MY_KEY", "MY_KEY"},
        {"azure", "https://me.openai.azure.com", "", "AZURE_OPENAI_API_KEY"},
        {"azure", "https://me.openai.azure.com", "MY_KEY", "MY_KEY"},
        {"none", "", "MY_KEY", "MY_KEY"},
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        const struct lm_endpoint endpoint = {
            .provider = keys[i].provider, .url = keys[i].url, .key_env = keys[i].key_env};
        assert_string_equal(lm_key_variable(&endpoint), keys[i].variable);
    }
    assert_true(lm_needs_url("azure"));
    assert_false(lm_needs_url("gemini"));
    assert_false(lm_needs_url("local"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples),     cmocka_unit_test(test_marks_in_front),
        cmocka_unit_test(test_nuls),        cmocka_unit_test(test_mangled_samples),
        cmocka_unit_test(test_wrong_types), cmocka_unit_test(test_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
