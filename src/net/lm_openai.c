/* OpenAI's chat completions, which vLLM, llama.cpp's server and many others speak too.
 * Source: platform.openai.com/docs/api-reference/chat. */
#include <stdlib.h>
#include <string.h>

#include "net/lm_provider.h"

/* Models that think first count their thoughts in another field, and want no temperature. Many are
 * known by their names, some only by what they answer (lm_try.c). */
static bool thinks(const struct lm_endpoint *endpoint)
{
    static const char *const families[] = {"o1", "o3", "o4", "gpt-5", NULL};
    const char *slash = strrchr(endpoint->model, '/');
    const char *name = slash != NULL ? slash + 1 : endpoint->model;
    for (const char *const *family = families; *family != NULL; family++) {
        if (strncmp(name, *family, strlen(*family)) == 0) {
            return true;
        }
    }
    return endpoint->thinks;
}

static bool is_closed(const cJSON *schema)
{
    const cJSON *properties = lm_get(schema, "properties");
    const cJSON *required = lm_get(schema, "required");
    const char *type = lm_get_text(schema, "type");
    if (type == NULL || strcmp(type, "object") != 0) {
        return true;
    }
    return properties != NULL && cJSON_IsFalse(lm_get(schema, "additionalProperties")) &&
           cJSON_GetArraySize(required) == cJSON_GetArraySize(properties);
}

/* Whether it is one that OpenAI's "strict" allows: no object is open or has a property that may
 * lack. */
static bool is_strict(const cJSON *schema)
{
    const char *const parts[] = {"properties", "anyOf"};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        const cJSON *child = NULL;
        cJSON_ArrayForEach (child, lm_get(schema, parts[i])) {
            if (!is_strict(child)) {
                return false;
            }
        }
    }
    const cJSON *items = lm_get(schema, "items");
    return is_closed(schema) && (items == NULL || is_strict(items));
}

/* Takes out what only narrows a text, and is left to our own check then. */
static void drop_bounds(cJSON *schema)
{
    const char *const parts[] = {"properties", "anyOf"};
    cJSON_DeleteItemFromObjectCaseSensitive(schema, "minLength");
    cJSON_DeleteItemFromObjectCaseSensitive(schema, "maxLength");
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        cJSON *child = NULL;
        cJSON_ArrayForEach (child, lm_get(schema, parts[i])) {
            drop_bounds(child);
        }
    }
    cJSON *items = cJSON_GetObjectItemCaseSensitive(schema, "items");
    if (items != NULL) {
        drop_bounds(items);
    }
}

static void put_schema(struct buffer *body, const struct lm_question *question, unsigned form)
{
    cJSON *schema = cJSON_Duplicate(question->schema, true);
    if ((form & LM_FORM_BOUNDS) == 0) {
        drop_bounds(schema);
    }
    if ((form & LM_FORM_SCHEMA) != 0) {
        buffer_append_text(body, ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{"
                                 "\"name\":");
        lm_put_schema_name(body, question->schema_name);
        buffer_printf(body, ",\"strict\":%s,\"schema\":", is_strict(schema) ? "true" : "false");
        lm_put_json(body, schema);
        buffer_append_text(body, "}}");
    } else {
        buffer_append_text(body, ",\"response_format\":{\"type\":\"json_object\",\"schema\":");
        lm_put_json(body, schema);
        buffer_append_char(body, '}');
    }
    cJSON_Delete(schema);
}

void lm_openai_put_body(const struct lm_endpoint *endpoint, const struct lm_question *question,
                        unsigned form, struct buffer *body)
{
    buffer_append_text(body, "{\"model\":");
    lm_put_string(body, endpoint->model);
    buffer_append_text(body, ",\"messages\":");
    lm_put_json(body, question->messages);
    buffer_printf(body, ",\"%s\":%lld", thinks(endpoint) ? "max_completion_tokens" : "max_tokens",
                  (long long)question->max_tokens);
    buffer_append_text(body, ",\"stream\":true");
    if ((form & LM_FORM_EXTRAS) != 0) {
        buffer_append_text(body, ",\"stream_options\":{\"include_usage\":true}");
        if (!thinks(endpoint)) {
            buffer_printf(body, ",\"temperature\":%g", question->temperature);
        }
        if (question->seed >= 0) {
            buffer_printf(body, ",\"seed\":%lld", (long long)question->seed);
        }
    }
    if ((form & (LM_FORM_SCHEMA | LM_FORM_JSON)) != 0 && question->schema != NULL) {
        put_schema(body, question, form);
    }
    buffer_append_char(body, '}');
}

static void write_request(const struct lm_endpoint *endpoint, const struct lm_question *question,
                          unsigned form, const char *key, struct buffer *url,
                          struct buffer *headers, struct buffer *secret, struct buffer *body)
{
    lm_put_url(url, endpoint->url, "/chat/completions");
    buffer_append_text(headers, "Content-Type: application/json\n");
    if (key[0] != '\0') {
        buffer_printf(secret, "Authorization: Bearer %s", key);
    }
    lm_openai_put_body(endpoint, question, form, body);
}

/* A text, or a list of parts of which some are text. Thoughts have fields and parts of their own
 * (reasoning_content, reasoning), which are not read. */
static void read_content(const cJSON *content, struct lm_reading *reading)
{
    if (cJSON_IsString(content)) {
        buffer_append_text(&reading->text, content->valuestring);
    } else if (cJSON_IsArray(content)) {
        const cJSON *part = NULL;
        cJSON_ArrayForEach (part, content) {
            const char *type = lm_get_text(part, "type");
            const char *text = lm_get_text(part, "text");
            if (type != NULL && strcmp(type, "text") == 0 && text != NULL) {
                buffer_append_text(&reading->text, text);
            }
        }
    }
}

static void read_choice(const cJSON *choice, struct lm_reading *reading)
{
    const cJSON *message = lm_get(choice, "delta");
    message = message != NULL ? message : lm_get(choice, "message");
    read_content(lm_get(message, "content"), reading);
    const char *refusal = lm_get_text(message, "refusal");
    reading->refused = reading->refused || (refusal != NULL && refusal[0] != '\0');
    const char *reason = lm_get_text(choice, "finish_reason");
    if (reason != NULL) {
        reading->ended = true;
        reading->cut = strcmp(reason, "length") == 0;
        reading->refused = reading->refused || strcmp(reason, "content_filter") == 0;
    }
}

void lm_openai_read(const cJSON *event, struct lm_reading *reading)
{
    if (lm_read_problem(event, reading)) {
        return;
    }
    const char *model = lm_get_text(event, "model");
    if (model != NULL) {
        lm_read_model(model, reading);
    }
    const cJSON *usage = lm_get(event, "usage");
    if (cJSON_IsObject(usage)) {
        reading->tokens_in = lm_get_count(usage, "prompt_tokens");
        reading->tokens_out = lm_get_count(usage, "completion_tokens");
    }
    const cJSON *choices = lm_get(event, "choices");
    if (cJSON_GetArraySize(choices) > 0) {
        reading->began = true;
        read_choice(cJSON_GetArrayItem(choices, 0), reading);
    }
}

const struct lm_provider lm_provider_openai = {
    .name = "openai",
    .url = "https://api.openai.com/v1",
    .key_env = "OPENAI_API_KEY",
    .write = write_request,
    .read = lm_openai_read,
};
