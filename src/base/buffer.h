/* A byte buffer that grows up to a fixed maximum, so that no input can exhaust memory.
 *
 * Appending past the maximum (or out of memory) sets `failed`, leaves the contents as they were,
 * and makes every later append a no-op: a caller may append many times and check once. */
#ifndef BASE_BUFFER_H
#define BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

struct buffer {
    char *data;       /* always NUL-terminated once anything was appended; NULL before */
    size_t len_bytes; /* without the NUL */
    size_t capacity_bytes;
    size_t max_bytes;
    bool failed;
    bool out_of_memory; /* why it failed; else the maximum was reached */
};

void buffer_init(struct buffer *buffer, size_t max_bytes);
void buffer_fini(struct buffer *buffer);
void buffer_clear(struct buffer *buffer); /* empties it and forgets a failure; keeps the memory */

void buffer_append(struct buffer *buffer, const void *data, size_t len_bytes);
void buffer_append_text(struct buffer *buffer, const char *text);
void buffer_append_char(struct buffer *buffer, char c);
void buffer_printf(struct buffer *buffer, const char *format, ...) BASE_PRINTF(2, 3);

/* The text so far; "" when nothing was appended. Borrowed, valid until the next append. */
const char *buffer_text(const struct buffer *buffer);

/* Hands the heap string over to the caller (free()), leaving the buffer empty; NULL if it had
 * failed. */
char *buffer_take(struct buffer *buffer);

/* STATUS_OK; if an append had failed, STATUS_LIMIT naming `what` and the maximum, or STATUS_NO_MEMORY. */
enum status buffer_check(const struct buffer *buffer, const char *what, struct error *err);

#endif
