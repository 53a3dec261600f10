/* Anthropic's messages. The schema is the input of a tool that the model has to call: its input is
 * then the reply. That is what old and new models, and others that speak this form, take; where it
 * is refused (a model that thinks may not be made to call), the form of the reply is asked for.
 * Source: docs.anthropic.com/en/api/messages-streaming. */
#include <math.h>
#include <string.h>

#include "net/lm_provider.h"

static void put_turn(struct buffer *out, const char *role, const char *content)
{
    buffer_printf(out, "{\"role\":\"%s\",\"content\":", role);
    lm_put_string(out, content);
    buffer_append_char(out, '}');
}

static void put_tool(struct buffer *body, const struct lm_question *question)
{
    buffer_append_text(body, ",\"tools\":[{\"name\":");
    lm_put_schema_name(body, question->schema_name);
    buffer_append_text(body, ",\"description\":\"Takes the reply.\",\"input_schema\":");
    lm_put_json(body, question->schema);
    buffer_append_text(body, "}],\"tool_choice\":{\"type\":\"tool\",\"name\":");
    lm_put_schema_name(body, question->schema_name);
    buffer_append_char(body, '}');
}

static void write_request(const struct lm_endpoint *endpoint, const struct lm_question *question,
                          unsigned form, const char *key, struct buffer *url,
                          struct buffer *headers, struct buffer *secret, struct buffer *body)
{
    lm_put_url(url, endpoint->url, "/messages");
    buffer_append_text(headers, "Content-Type: application/json\n"
                                "anthropic-version: 2023-06-01\n");
    if (key[0] != '\0') {
        buffer_printf(secret, "x-api-key: %s", key);
    }
    buffer_append_text(body, "{\"model\":");
    lm_put_string(body, endpoint->model);
    buffer_printf(body, ",\"max_tokens\":%lld,\"stream\":true", (long long)question->max_tokens);
    if (lm_has_system(question)) {
        buffer_append_text(body, ",\"system\":");
        lm_put_system(body, question);
    }
    buffer_append_text(body, ",\"messages\":");
    lm_put_turns(body, question, put_turn);
    if ((form & LM_FORM_EXTRAS) != 0) {
        buffer_printf(body, ",\"temperature\":%g", fmin(question->temperature, 1.0));
    }
    if ((form & LM_FORM_SCHEMA) != 0 && question->schema != NULL) {
        put_tool(body, question);
    } else if ((form & LM_FORM_JSON) != 0 && question->schema != NULL) {
        buffer_append_text(body,
                           ",\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":");
        lm_put_json(body, question->schema);
        buffer_append_text(body, "}}");
    }
    buffer_append_char(body, '}');
}

static void read_usage(const cJSON *usage, struct lm_reading *reading)
{
    int64_t tokens_in = lm_get_count(usage, "input_tokens") +
                        lm_get_count(usage, "cache_creation_input_tokens") +
                        lm_get_count(usage, "cache_read_input_tokens");
    int64_t tokens_out = lm_get_count(usage, "output_tokens");
    reading->tokens_in = tokens_in > 0 ? tokens_in : reading->tokens_in;
    reading->tokens_out = tokens_out > 0 ? tokens_out : reading->tokens_out;
}

static void read_reason(const char *reason, struct lm_reading *reading)
{
    if (reason != NULL) {
        reading->ended = true;
        reading->cut = strcmp(reason, "max_tokens") == 0 ||
                       strcmp(reason, "model_context_window_exceeded") == 0;
        reading->refused = strcmp(reason, "refusal") == 0;
    }
}

/* A part begins: text, thoughts (left out), or the tool's input, before which what was said is not
 * the reply. A whole answer has all of it here. */
static void read_block(const cJSON *block, struct lm_reading *reading)
{
    const char *type = lm_get_text(block, "type");
    const char *text = lm_get_text(block, "text");
    const cJSON *input = lm_get(block, "input");
    if (type != NULL && strcmp(type, "text") == 0 && text != NULL) {
        buffer_append_text(&reading->text, text);
    } else if (type != NULL && strcmp(type, "tool_use") == 0) {
        buffer_clear(&reading->text);
        if (cJSON_IsObject(input) && input->child != NULL) {
            lm_put_json(&reading->text, input);
        }
    }
}

static void read_message(const cJSON *message, struct lm_reading *reading)
{
    const char *model = lm_get_text(message, "model");
    reading->began = true;
    if (model != NULL) {
        lm_read_model(model, reading);
    }
    read_usage(lm_get(message, "usage"), reading);
    const cJSON *block = NULL;
    cJSON_ArrayForEach (block, lm_get(message, "content")) {
        read_block(block, reading);
    }
    read_reason(lm_get_text(message, "stop_reason"), reading);
}

static void read_delta(const cJSON *delta, struct lm_reading *reading)
{
    const char *text = lm_get_text(delta, "text");
    const char *json = lm_get_text(delta, "partial_json");
    if (text != NULL) {
        buffer_append_text(&reading->text, text);
    } else if (json != NULL) {
        buffer_append_text(&reading->text, json);
    }
}

static void read_event(const cJSON *event, struct lm_reading *reading)
{
    const char *type = lm_get_text(event, "type");
    if (lm_read_problem(event, reading) || type == NULL) {
        return;
    }
    if (strcmp(type, "message_start") == 0) {
        read_message(lm_get(event, "message"), reading);
    } else if (strcmp(type, "message") == 0) {
        read_message(event, reading);
    } else if (strcmp(type, "content_block_start") == 0) {
        read_block(lm_get(event, "content_block"), reading);
    } else if (strcmp(type, "content_block_delta") == 0) {
        read_delta(lm_get(event, "delta"), reading);
    } else if (strcmp(type, "message_delta") == 0) {
        read_usage(lm_get(event, "usage"), reading);
        read_reason(lm_get_text(lm_get(event, "delta"), "stop_reason"), reading);
    } else if (strcmp(type, "message_stop") == 0) {
        reading->ended = reading->began;
    }
}

const struct lm_provider lm_provider_anthropic = {
    .name = "anthropic",
    .url = "https://api.anthropic.com/v1",
    .key_env = "ANTHROPIC_API_KEY",
    .write = write_request,
    .read = read_event,
};
