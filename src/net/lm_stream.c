/* Server-sent events. Source: html.spec.whatwg.org, section 9.2.6. */
#include "net/lm_stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/text.h"

static const char end_mark[] = "[DONE]";

void lm_stream_init(struct lm_stream *stream, const struct lm_provider *provider,
                    struct lm_reading *reading)
{
    memset(stream, 0, sizeof(*stream));
    stream->provider = provider;
    stream->reading = reading;
    buffer_init(&stream->line, LM_EVENT_MAX_BYTES);
    buffer_init(&stream->data, LM_EVENT_MAX_BYTES);
}

void lm_stream_fini(struct lm_stream *stream)
{
    buffer_fini(&stream->line);
    buffer_fini(&stream->data);
}

/* ---- JSON from strangers ---- */

/* The number of an escape \uXXXX, -1 if it is none. */
static int read_escape(const char *text, size_t len_bytes)
{
    if (len_bytes < 6 || text[0] != '\\' || text[1] != 'u') {
        return -1;
    }
    char digits[5] = {0};
    memcpy(digits, text + 2, 4);
    char *end = NULL;
    long number = strtol(digits, &end, 16);
    return end == digits + 4 && strspn(digits, "0123456789abcdefABCDEF") == 4 ? (int)number : -1;
}

/* What cJSON would end a text at, or refuse: NULs, also escaped ones, and halves of characters. */
static void repair_escapes(char *text, size_t len_bytes)
{
    for (size_t at = 0; at < len_bytes; at++) {
        if (text[at] == '\0') {
            text[at] = ' ';
        }
        if (text[at] != '\\') {
            continue;
        }
        int number = read_escape(text + at, len_bytes - at);
        if (number < 0) {
            at++; /* the character that is escaped */
            continue;
        }
        bool is_first = number >= 0xD800 && number < 0xDC00;
        int next = is_first ? read_escape(text + at + 6, len_bytes - at - 6) : -1;
        if (next >= 0xDC00 && next < 0xE000) {
            at += 6;
        } else if (number == 0 || (number >= 0xD800 && number < 0xE000)) {
            memcpy(text + at + 2, "fffd", 4);
        }
        at += 5;
    }
}

enum status lm_parse_foreign(const char *text, size_t len_bytes, cJSON **out, struct error *err)
{
    char *repaired = mem_calloc(3 * len_bytes + 1, 1);
    if (repaired == NULL) {
        return mem_fail(err, 3 * len_bytes, "an answer");
    }
    size_t length = text_repair(text, len_bytes, repaired);
    repair_escapes(repaired, length);
    /* Whatever is wrong with it, its text stays out of the error. */
    enum status status = json_parse(repaired, length, "answer", out, NULL);
    free(repaired);
    return status == STATUS_OK ? STATUS_OK : FAIL(err, STATUS_FORMAT, "an answer that is not JSON");
}

/* ---- events ---- */

static enum status read_json(struct lm_stream *stream, const struct buffer *text, struct error *err)
{
    cJSON *event = NULL;
    TRY(lm_parse_foreign(buffer_text(text), text->len_bytes, &event, err));
    /* Gemini's answer that is not a stream is a list of events. */
    if (cJSON_IsArray(event)) {
        const cJSON *item = NULL;
        cJSON_ArrayForEach (item, event) {
            stream->provider->read(item, stream->reading);
        }
    } else {
        stream->provider->read(event, stream->reading);
    }
    cJSON_Delete(event);
    return buffer_check(&stream->reading->text, "the reply", err);
}

static enum status end_event(struct lm_stream *stream, struct error *err)
{
    enum status status = buffer_check(&stream->data, "an event of the answer", err);
    if (status == STATUS_OK && stream->data.len_bytes > 0) {
        if (strcmp(buffer_text(&stream->data), end_mark) == 0) {
            stream->reading->ended = stream->reading->began;
        } else {
            status = read_json(stream, &stream->data, err);
        }
    }
    buffer_clear(&stream->data);
    return status;
}

/* A field of an event; "error:" is llama.cpp's own. Other fields say nothing that is needed. */
static enum status end_line(struct lm_stream *stream, struct error *err)
{
    const char *line = buffer_text(&stream->line);
    size_t len_bytes = stream->line.len_bytes;
    enum status status = buffer_check(&stream->line, "a line of the answer", err);
    if (status == STATUS_OK && len_bytes == 0) {
        status = end_event(stream, err);
    } else if (status == STATUS_OK && strncmp(line, "data:", 5) == 0) {
        size_t at = len_bytes > 5 && line[5] == ' ' ? 6 : 5;
        buffer_append_text(&stream->data, stream->data.len_bytes > 0 ? "\n" : "");
        buffer_append(&stream->data, line + at, len_bytes - at);
    } else if (status == STATUS_OK && strncmp(line, "error:", 6) == 0) {
        buffer_append_text(&stream->data, "{\"error\":");
        buffer_append(&stream->data, line + 6, len_bytes - 6);
        buffer_append_char(&stream->data, '}');
    }
    buffer_clear(&stream->line);
    return status;
}

/* Spaces and one byte order mark, which may come in pieces. */
static size_t skip_start(struct lm_stream *stream, const char *bytes, size_t len_bytes)
{
    static const char byte_order_mark[] = "\xEF\xBB\xBF";
    size_t at = 0;
    for (; at < len_bytes; at++) {
        bool space = bytes[at] != '\0' && strchr(" \t\r\n", bytes[at]) != NULL;
        bool mark = stream->mark_bytes < 3 && bytes[at] == byte_order_mark[stream->mark_bytes];
        if (!space && !mark) {
            stream->began = true;
            stream->whole = bytes[at] == '{' || bytes[at] == '[';
            break;
        }
        stream->mark_bytes += mark;
    }
    return at;
}

enum status lm_stream_feed(struct lm_stream *stream, const char *bytes, size_t len_bytes,
                           struct error *err)
{
    size_t at = stream->began ? 0 : skip_start(stream, bytes, len_bytes);
    if (stream->whole) {
        buffer_append(&stream->line, bytes + at, len_bytes - at);
        return buffer_check(&stream->line, "the answer", err);
    }
    while (at < len_bytes) {
        if (stream->after_return && bytes[at] == '\n') {
            at++; /* the second half of an end of line */
        }
        stream->after_return = false;
        size_t length = 0;
        while (at + length < len_bytes && bytes[at + length] != '\n' &&
               bytes[at + length] != '\r') {
            length++;
        }
        buffer_append(&stream->line, bytes + at, length);
        at += length;
        if (at < len_bytes) {
            stream->after_return = bytes[at] == '\r';
            at++;
            TRY(end_line(stream, err));
        }
    }
    return buffer_check(&stream->line, "a line of the answer", err);
}

enum status lm_stream_end(struct lm_stream *stream, struct error *err)
{
    if (stream->whole) {
        return read_json(stream, &stream->line, err);
    }
    if (stream->line.len_bytes > 0) {
        TRY(end_line(stream, err));
    }
    return end_event(stream, err);
}
