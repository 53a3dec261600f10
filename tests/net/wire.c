#include "net/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/buffer.h"

enum { EVENT_CHARACTERS = 48, WIRE_MAX_BYTES = 256 << 20 };

static void put_json(struct buffer *out, cJSON *value)
{
    char *text = cJSON_PrintUnformatted(value);
    buffer_append_text(out, text);
    free(text);
    cJSON_Delete(value);
}

static void add_usage(const struct wire *wire, cJSON *event)
{
    cJSON *usage = cJSON_AddObjectToObject(event, "usage");
    cJSON_AddNumberToObject(usage, "prompt_tokens", (double)wire->tokens_in);
    cJSON_AddNumberToObject(usage, "completion_tokens", (double)wire->tokens_out);
    cJSON_AddNumberToObject(usage, "total_tokens", (double)(wire->tokens_in + wire->tokens_out));
}

static cJSON *make_event(const struct wire *wire, const char *object)
{
    cJSON *event = cJSON_CreateObject();
    cJSON_AddStringToObject(event, "id", "chatcmpl-1");
    cJSON_AddStringToObject(event, "object", object);
    cJSON_AddStringToObject(event, "model", wire->model != NULL ? wire->model : "scripted");
    return event;
}

static cJSON *add_choice(cJSON *event, const char *part)
{
    cJSON *choice = cJSON_CreateObject();
    cJSON_AddItemToArray(cJSON_AddArrayToObject(event, "choices"), choice);
    cJSON_AddNumberToObject(choice, "index", 0);
    return cJSON_AddObjectToObject(choice, part);
}

static void set_finish(cJSON *event, const char *reason)
{
    cJSON *choice = cJSON_GetArrayItem(cJSON_GetObjectItem(event, "choices"), 0);
    if (reason != NULL) {
        cJSON_AddStringToObject(choice, "finish_reason", reason);
    } else {
        cJSON_AddNullToObject(choice, "finish_reason");
    }
}

static void put_event(struct buffer *out, cJSON *event)
{
    buffer_append_text(out, "data: ");
    put_json(out, event);
    buffer_append_text(out, "\n\n");
}

/* Whole characters: an event is valid by itself. */
static size_t next_part(const char *text)
{
    size_t length = 0;
    while (text[length] != '\0' &&
           (length < EVENT_CHARACTERS || ((unsigned char)text[length] & 0xC0) == 0x80)) {
        length++;
    }
    return length;
}

static void put_text(const struct wire *wire, struct buffer *out)
{
    size_t limit = wire->problem != NULL ? strlen(wire->text) / 2 : SIZE_MAX;
    for (size_t at = 0; wire->text[at] != '\0' && at < limit;) {
        char part[EVENT_CHARACTERS + 8];
        size_t length = next_part(wire->text + at);
        snprintf(part, sizeof(part), "%.*s", (int)length, wire->text + at);
        cJSON *event = make_event(wire, "chat.completion.chunk");
        cJSON_AddStringToObject(add_choice(event, "delta"), wire->refusal ? "refusal" : "content",
                                part);
        set_finish(event, NULL);
        put_event(out, event);
        at += length;
    }
}

static void put_stream(const struct wire *wire, struct buffer *out)
{
    cJSON *event = make_event(wire, "chat.completion.chunk");
    cJSON_AddStringToObject(add_choice(event, "delta"), "role", "assistant");
    set_finish(event, NULL);
    put_event(out, event);
    put_text(wire, out);
    if (wire->problem != NULL) {
        event = cJSON_CreateObject();
        cJSON *problem = cJSON_AddObjectToObject(event, "error");
        cJSON_AddStringToObject(problem, "type", wire->problem);
        cJSON_AddStringToObject(problem, "message", "scripted");
        put_event(out, event);
        return;
    }
    const char *finish = wire->finish != NULL ? wire->finish : "stop";
    if (finish[0] == '\0') {
        return;
    }
    event = make_event(wire, "chat.completion.chunk");
    add_choice(event, "delta");
    set_finish(event, finish);
    put_event(out, event);
    if (!wire->no_usage) {
        event = make_event(wire, "chat.completion.chunk");
        cJSON_AddArrayToObject(event, "choices");
        add_usage(wire, event);
        put_event(out, event);
    }
    buffer_append_text(out, "data: [DONE]\n\n");
}

void wire_answer(const struct wire *wire, struct server_answer *answer)
{
    struct buffer out;
    buffer_init(&out, WIRE_MAX_BYTES);
    if (wire->whole) {
        cJSON *event = make_event(wire, "chat.completion");
        cJSON *message = add_choice(event, "message");
        cJSON_AddStringToObject(message, "role", "assistant");
        cJSON_AddStringToObject(message, wire->refusal ? "refusal" : "content", wire->text);
        set_finish(event, wire->finish != NULL ? wire->finish : "stop");
        if (!wire->no_usage) {
            add_usage(wire, event);
        }
        put_json(&out, event);
    } else {
        put_stream(wire, &out);
        answer->content_type = "text/event-stream";
        answer->chunked = true;
        answer->piece_bytes = 97;
    }
    size_t len_bytes = out.len_bytes;
    answer->body = buffer_take(&out);
    answer->body_bytes = answer->body != NULL ? len_bytes : 0;
}

void wire_error(int code, const char *type, const char *message, struct server_answer *answer)
{
    cJSON *body = cJSON_CreateObject();
    cJSON *problem = cJSON_AddObjectToObject(body, "error");
    cJSON_AddStringToObject(problem, "message", message);
    cJSON_AddStringToObject(problem, "type", type);
    cJSON_AddNullToObject(problem, "code");
    answer->code = code;
    answer->body = cJSON_PrintUnformatted(body);
    cJSON_Delete(body);
}
