#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

/* 15 digits where they are the number, else 17, which always are. */
static void append_number(double value, struct buffer *out)
{
    char text[32];
    int length = 0;
    if (!isfinite(value)) {
        buffer_append(out, "null", 4); /* JSON has neither */
        return;
    }
    if (value == floor(value) && fabs(value) < 1e15 && !(value == 0.0 && signbit(value))) {
        length = snprintf(text, sizeof(text), "%" PRId64, (int64_t)value);
    } else {
        length = snprintf(text, sizeof(text), "%1.15g", value);
        if (strtod(text, NULL) != value) {
            length = snprintf(text, sizeof(text), "%1.17g", value);
        }
    }
    buffer_append(out, text, (size_t)length);
}

static void append_escape(unsigned char byte, struct buffer *out)
{
    static const char named[] = "\"\\\b\f\n\r\t";
    static const char names[] = "\"\\bfnrt";
    const char *found = byte != '\0' ? strchr(named, byte) : NULL;
    if (found != NULL) {
        const char text[2] = {'\\', names[found - named]};
        buffer_append(out, text, sizeof(text));
    } else {
        buffer_printf(out, "\\u%04x", byte);
    }
}

static void append_string(const char *text, struct buffer *out)
{
    buffer_append_char(out, '"');
    while (*text != '\0') {
        size_t plain = 0;
        while ((unsigned char)text[plain] >= ' ' && text[plain] != '"' && text[plain] != '\\') {
            plain++;
        }
        buffer_append(out, text, plain);
        text += plain;
        if (*text != '\0') {
            append_escape((unsigned char)*text++, out);
        }
    }
    buffer_append_char(out, '"');
}

static void append_members(const cJSON *value, struct buffer *out)
{
    bool object = cJSON_IsObject(value);
    buffer_append_char(out, object ? '{' : '[');
    for (const cJSON *item = value->child; item != NULL; item = item->next) {
        if (object) {
            append_string(item->string != NULL ? item->string : "", out);
            buffer_append_char(out, ':');
        }
        json_append_line(item, out);
        if (item->next != NULL) {
            buffer_append_char(out, ',');
        }
    }
    buffer_append_char(out, object ? '}' : ']');
}

void json_append_line(const cJSON *value, struct buffer *out)
{
    if (cJSON_IsNumber(value)) {
        append_number(value->valuedouble, out);
    } else if (cJSON_IsString(value)) {
        append_string(value->valuestring != NULL ? value->valuestring : "", out);
    } else if (cJSON_IsObject(value) || cJSON_IsArray(value)) {
        append_members(value, out);
    } else if (cJSON_IsBool(value)) {
        buffer_append_text(out, cJSON_IsTrue(value) ? "true" : "false");
    } else {
        buffer_append(out, "null", 4);
    }
}
