/* Reading JSON that comes from outside: every mistake at once, each with its JSON pointer (RFC
 * 6901), what was found and what is allowed. Parsing and printing are cJSON's. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/buffer.h"
#include "base/status.h"

enum { JSON_POINTER_BYTES = 256, JSON_KEYS_MAX = 64, JSON_DEPTH_MAX = 64 };

/* Parses exactly one JSON value (NUL or `len_bytes` ends it). `source` names it in errors, with
 * line and column. Refuses trailing text, depth over JSON_DEPTH_MAX and invalid UTF-8. *out is
 * freed with cJSON_Delete. */
enum status json_parse(const char *text, size_t len_bytes, const char *source, cJSON **out,
                       struct error *err);
enum status json_parse_file(const char *path, size_t max_bytes, cJSON **out, struct error *err);

/* One line of JSON on the heap (free()), or NULL without memory. */
char *json_print_line(const cJSON *value);

/* Appends the same line with numbers to the bit: 17 digits where json_print_line's 15 come only
 * close. What has no number in JSON (NaN, infinity) and raw items become null. */
void json_append_line(const cJSON *value, struct buffer *out);

/* True if the bytes are well-formed UTF-8. */
bool json_utf8_valid(const char *text, size_t len_bytes);

/* A list of mistakes: one line each, "<pointer>: found <this>, allowed <that>". */
struct json_problems {
    struct buffer text;
    int count;
};
void json_problems_init(struct json_problems *problems);
void json_problems_fini(struct json_problems *problems);
void json_problems_add(struct json_problems *problems, const char *pointer, const char *format, ...)
    BASE_PRINTF(3, 4);

/* STATUS_OK if there are none; else STATUS_INVALID with "<source>: <count> mistakes" and the first
 * ones. */
enum status json_problems_check(const struct json_problems *problems, const char *source,
                                struct error *err);

/* Reads one object key by key. A read of an absent key gives the default; of a wrong one adds a
 * problem and gives the default. json_reader_finish reports keys that nobody asked for. Strings and
 * children are borrowed from the object. */
struct json_reader {
    const cJSON *object;
    struct json_problems *problems;
    int asked_count;
    const char *asked[JSON_KEYS_MAX];
    char pointer[JSON_POINTER_BYTES];
};

/* `object` may be NULL (all defaults); if it is not an object that is a problem. pointer: "" for
 * the root. */
void json_reader_init(struct json_reader *reader, const cJSON *object, const char *pointer,
                      struct json_problems *problems);
void json_reader_finish(struct json_reader *reader);

/* Pointer of a key of this object, for problems of the caller's own. */
void json_reader_pointer(const struct json_reader *reader, const char *key,
                         char out[JSON_POINTER_BYTES]);

/* Adds a problem if the key is absent. */
bool json_require(struct json_reader *reader, const char *key, const char *allowed);

int64_t json_read_int(struct json_reader *reader, const char *key, int64_t fallback, int64_t min,
                      int64_t max);
double json_read_number(struct json_reader *reader, const char *key, double fallback, double min,
                        double max);
bool json_read_bool(struct json_reader *reader, const char *key, bool fallback);
const char *json_read_string(struct json_reader *reader, const char *key, const char *fallback);

/* Index of the string in choices (NULL-terminated). */
int json_read_choice(struct json_reader *reader, const char *key, const char *const *choices,
                     int fallback);

const cJSON *json_read_object(struct json_reader *reader,
                              const char *key); /* NULL if absent or wrong */
const cJSON *json_read_array(struct json_reader *reader, const char *key);
const cJSON *json_read_any(struct json_reader *reader, const char *key);

#endif
