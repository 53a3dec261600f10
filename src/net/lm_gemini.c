/* Google's Gemini. Source: ai.google.dev/api/generate-content. */
#include <string.h>

#include "net/http.h"
#include "net/lm_provider.h"

enum { SEED_MAX = 0x7FFFFFFF, PATH_MAX_BYTES = 1024 };

static void put_parts(struct buffer *out, const char *text)
{
    buffer_append_text(out, "\"parts\":[{\"text\":");
    lm_put_string(out, text);
    buffer_append_text(out, "}]");
}

static void put_turn(struct buffer *out, const char *role, const char *content)
{
    buffer_printf(out, "{\"role\":\"%s\",", strcmp(role, "assistant") == 0 ? "model" : "user");
    put_parts(out, content);
    buffer_append_char(out, '}');
}

static void put_config(struct buffer *body, const struct lm_question *question, unsigned form)
{
    buffer_printf(body, ",\"generationConfig\":{\"maxOutputTokens\":%lld",
                  (long long)question->max_tokens);
    if ((form & LM_FORM_EXTRAS) != 0) {
        buffer_printf(body, ",\"temperature\":%g", question->temperature);
        if (question->seed >= 0) {
            buffer_printf(body, ",\"seed\":%lld", (long long)(question->seed & SEED_MAX));
        }
    }
    if ((form & LM_FORM_SCHEMA) != 0 && question->schema != NULL) {
        buffer_append_text(body,
                           ",\"responseMimeType\":\"application/json\",\"responseJsonSchema\":");
        lm_put_json(body, question->schema);
    }
    buffer_append_char(body, '}');
}

static void put_url(struct buffer *url, const struct lm_endpoint *endpoint)
{
    static const char prefix[] = "models/";
    bool has_prefix = strncmp(endpoint->model, prefix, sizeof(prefix) - 1) == 0;
    struct buffer path;
    buffer_init(&path, PATH_MAX_BYTES);
    buffer_append_text(&path, "/models/");
    http_append_escaped(&path, endpoint->model + (has_prefix ? sizeof(prefix) - 1 : 0));
    buffer_append_text(&path, ":streamGenerateContent?alt=sse");
    url->failed = url->failed || path.failed;
    lm_put_url(url, endpoint->url, buffer_text(&path));
    buffer_fini(&path);
}

static void write_request(const struct lm_endpoint *endpoint, const struct lm_question *question,
                          unsigned form, const char *key, struct buffer *url,
                          struct buffer *headers, struct buffer *secret, struct buffer *body)
{
    put_url(url, endpoint);
    buffer_append_text(headers, "Content-Type: application/json\n");
    if (key[0] != '\0') {
        buffer_printf(secret, "x-goog-api-key: %s", key);
    }
    buffer_append_char(body, '{');
    if (lm_has_system(question)) {
        buffer_append_text(body, "\"systemInstruction\":{\"parts\":[{\"text\":");
        lm_put_system(body, question);
        buffer_append_text(body, "}]},");
    }
    buffer_append_text(body, "\"contents\":");
    lm_put_turns(body, question, put_turn);
    put_config(body, question, form);
    buffer_append_char(body, '}');
}

static void read_reason(const char *reason, struct lm_reading *reading)
{
    static const char *const refusals[] = {
        "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", NULL};
    if (reason == NULL || strcmp(reason, "FINISH_REASON_UNSPECIFIED") == 0) {
        return;
    }
    reading->ended = true;
    reading->cut = strcmp(reason, "MAX_TOKENS") == 0;
    for (const char *const *refusal = refusals; *refusal != NULL; refusal++) {
        reading->refused = reading->refused || strcmp(reason, *refusal) == 0;
    }
}

static void read_event(const cJSON *event, struct lm_reading *reading)
{
    if (lm_read_problem(event, reading)) {
        return;
    }
    const char *model = lm_get_text(event, "modelVersion");
    if (model != NULL) {
        lm_read_model(model, reading);
    }
    const cJSON *usage = lm_get(event, "usageMetadata");
    if (usage != NULL) {
        reading->tokens_in = lm_get_count(usage, "promptTokenCount");
        reading->tokens_out =
            lm_get_count(usage, "candidatesTokenCount") + lm_get_count(usage, "thoughtsTokenCount");
    }
    if (lm_get_text(lm_get(event, "promptFeedback"), "blockReason") != NULL) {
        reading->began = reading->ended = reading->refused = true;
    }
    const cJSON *candidates = lm_get(event, "candidates");
    if (cJSON_GetArraySize(candidates) == 0) {
        return;
    }
    reading->began = true;
    const cJSON *candidate = cJSON_GetArrayItem(candidates, 0);
    const cJSON *part = NULL;
    cJSON_ArrayForEach (part, lm_get(lm_get(candidate, "content"), "parts")) {
        const char *text = lm_get_text(part, "text");
        if (text != NULL && !cJSON_IsTrue(lm_get(part, "thought"))) {
            buffer_append_text(&reading->text, text);
        }
    }
    read_reason(lm_get_text(candidate, "finishReason"), reading);
}

const struct lm_provider lm_provider_gemini = {
    .name = "gemini",
    .url = "https://generativelanguage.googleapis.com/v1beta",
    .key_env = "GEMINI_API_KEY",
    .write = write_request,
    .read = read_event,
};
