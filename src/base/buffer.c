#include "base/buffer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { BUFFER_FIRST_BYTES = 256 };

void buffer_init(struct buffer *buffer, size_t max_bytes)
{
    memset(buffer, 0, sizeof(*buffer));
    buffer->max_bytes = max_bytes;
}

void buffer_fini(struct buffer *buffer)
{
    free(buffer->data);
    buffer_init(buffer, buffer->max_bytes);
}

void buffer_clear(struct buffer *buffer)
{
    buffer->len_bytes = 0;
    buffer->failed = false;
    buffer->out_of_memory = false;
    if (buffer->data != NULL) {
        buffer->data[0] = '\0';
    }
}

/* Room for `more` bytes and a NUL. */
static bool reserve(struct buffer *buffer, size_t more)
{
    if (buffer->failed) {
        return false;
    }
    if (more > buffer->max_bytes || buffer->len_bytes > buffer->max_bytes - more) {
        buffer->failed = true;
        return false;
    }
    size_t needed = buffer->len_bytes + more + 1;
    if (needed <= buffer->capacity_bytes) {
        return true;
    }
    size_t capacity = buffer->capacity_bytes > 0 ? buffer->capacity_bytes : BUFFER_FIRST_BYTES;
    while (capacity < needed) {
        capacity *= 2;
    }
    char *data = mem_realloc(buffer->data, capacity, 1);
    if (data == NULL) {
        buffer->failed = true;
        buffer->out_of_memory = true;
        return false;
    }
    buffer->data = data;
    buffer->capacity_bytes = capacity;
    return true;
}

void buffer_append(struct buffer *buffer, const void *data, size_t len_bytes)
{
    if (!reserve(buffer, len_bytes)) {
        return;
    }
    if (len_bytes > 0) {
        memcpy(buffer->data + buffer->len_bytes, data, len_bytes);
    }
    buffer->len_bytes += len_bytes;
    buffer->data[buffer->len_bytes] = '\0';
}

void buffer_append_text(struct buffer *buffer, const char *text)
{
    buffer_append(buffer, text, strlen(text));
}

void buffer_append_char(struct buffer *buffer, char c)
{
    buffer_append(buffer, &c, 1);
}

void buffer_printf(struct buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0 || !reserve(buffer, (size_t)length)) {
        buffer->failed = true;
        return;
    }
    va_start(arguments, format);
    vsnprintf(buffer->data + buffer->len_bytes, (size_t)length + 1, format, arguments);
    va_end(arguments);
    buffer->len_bytes += (size_t)length;
}

const char *buffer_text(const struct buffer *buffer)
{
    return buffer->data != NULL ? buffer->data : "";
}

char *buffer_take(struct buffer *buffer)
{
    char *data = NULL;
    if (!buffer->failed) {
        data = buffer->data != NULL ? buffer->data : mem_strdup("");
        buffer->data = NULL;
    }
    buffer_fini(buffer);
    return data;
}

enum status buffer_check(const struct buffer *buffer, const char *what, struct error *err)
{
    if (buffer->out_of_memory) {
        return mem_fail(err, buffer->len_bytes, what);
    }
    if (buffer->failed) {
        return FAIL(err, STATUS_LIMIT, "%s is larger than %zu bytes", what, buffer->max_bytes);
    }
    return STATUS_OK;
}
