/* Texts of rows: templates with {field}, values of fields, and the folded form in which two texts
 * are "the same". */
#ifndef DATA_TEXT_H
#define DATA_TEXT_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/json.h"

/* Most bytes of one filled template or field. */
enum { TEXT_MAX_BYTES = 64 * 1024 * 1024, TEXT_NAME_BYTES = 128 };

/* ---- templates: "{name}" is a field, "{{" and "}}" are braces ---- */

/* Adds a problem with its byte offset for each brace that is neither. Names of fields are letters,
 * digits, underscores, hyphens and dots. */
void text_template_check(const char *text, const char *pointer, struct json_problems *problems);

/* True if {name} stands in the template. */
bool text_template_uses(const char *text, const char *name);

/* Appends the value of `name` to out; *found is false if there is none. */
typedef enum status (*text_lookup)(void *context, const char *name, struct buffer *out, bool *found,
                                   struct error *err);

/* Appends the filled template. STATUS_NOT_FOUND with `missing` filled if a field has no value: the
 * caller knows which row and says so. A wrong template is STATUS_INVALID. */
enum status text_template_fill(const char *text, text_lookup lookup, void *context,
                               struct buffer *out, char missing[TEXT_NAME_BYTES],
                               struct error *err);

/* ---- fields ---- */

/* The value of a field, or NULL if absent or null. "a.b" is b inside the object a, unless a key has
 * that very name. */
const cJSON *text_field_find(const cJSON *object, const char *name);

/* Appends a value as text: strings as they are, arrays joined by separator, numbers and the rest as
 * JSON. */
enum status text_append_value(const cJSON *value, const char *separator, struct buffer *out,
                              struct error *err);

/* Appends a field's value as text. A row in chat form has a "prompt" (the messages before the
 * answer, a newline between them) and an "answer" (the last message, if it is the assistant's). */
enum status text_append_field(const cJSON *object, const char *name, const char *separator,
                              struct buffer *out, bool *found, struct error *err);

/* STATUS_INVALID "row has no field "x", has: a, b, c". */
enum status text_fail_missing(const cJSON *object, const char *name, struct error *err);

/* ---- folding and counting ---- */

/* Appends text in NFKC, case folded, each run of white space one space, none at the ends. */
enum status text_fold(const char *text, size_t len_bytes, struct buffer *out, struct error *err);

int64_t text_count_characters(const char *text, size_t len_bytes); /* code points */
int64_t text_count_words(const char *text, size_t len_bytes);      /* as text_next_word */

/* The next word from *at on, moving it behind; false if there is none. A word is a run without
 * white space; where words are not separated (from U+2E80 on: Chinese, Japanese ...) each character
 * is one. */
bool text_next_word(const char *text, size_t len_bytes, size_t *at, size_t *start, size_t *length);

#endif
