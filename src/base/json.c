#include "base/json.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/text.h"

enum { PROBLEMS_MAX_BYTES = 64 * 1024, FOUND_BYTES = 96, SHOWN_BYTES = 24 };

bool json_utf8_valid(const char *text, size_t len_bytes)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t i = 0;
    while (i < len_bytes) {
        unsigned char lead = bytes[i];
        size_t extra = lead < 0x80 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
        uint32_t point = lead < 0x80 ? lead : lead & (0x3Fu >> extra);
        if ((lead >= 0x80 && lead < 0xC2) || lead > 0xF4 || i + extra >= len_bytes) {
            return false;
        }
        for (size_t k = 1; k <= extra; k++) {
            if ((bytes[i + k] & 0xC0) != 0x80) {
                return false;
            }
            point = point << 6 | (bytes[i + k] & 0x3Fu);
        }
        bool overlong = (extra == 2 && point < 0x800) || (extra == 3 && point < 0x10000);
        if (overlong || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF)) {
            return false;
        }
        i += extra + 1;
    }
    return true;
}

/* Deepest nesting outside strings; cJSON's own limit is 1000 levels of recursion. */
static int nesting_depth(const char *text, size_t len_bytes)
{
    int depth = 0;
    int deepest = 0;
    bool in_string = false;
    for (size_t i = 0; i < len_bytes; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
            deepest = depth > deepest ? depth : deepest;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return deepest;
}

static void line_and_column(const char *text, size_t offset, int *line, int *column)
{
    *line = 1;
    *column = 1;
    for (size_t i = 0; i < offset; i++) {
        if (text[i] == '\n') {
            (*line)++;
            *column = 1;
        } else {
            (*column)++;
        }
    }
}

enum status json_parse(const char *text, size_t len_bytes, const char *source, cJSON **out,
                       struct error *err)
{
    if (!json_utf8_valid(text, len_bytes)) {
        return FAIL(err, STATUS_FORMAT, "%s: not valid UTF-8", source);
    }
    if (nesting_depth(text, len_bytes) > JSON_DEPTH_MAX) {
        return FAIL(err, STATUS_LIMIT, "%s: nested deeper than %d levels", source, JSON_DEPTH_MAX);
    }
    const char *end = text;
    cJSON *value = cJSON_ParseWithLengthOpts(text, len_bytes, &end, false);
    size_t offset = end != NULL ? (size_t)(end - text) : 0;
    if (value != NULL) {
        while (offset < len_bytes && strchr(" \t\r\n", text[offset]) != NULL &&
               text[offset] != '\0') {
            offset++;
        }
        if (offset == len_bytes) {
            *out = value;
            return STATUS_OK;
        }
        cJSON_Delete(value);
    }
    int line = 0;
    int column = 0;
    char near[3 * SHOWN_BYTES + 1];
    offset = offset < len_bytes ? offset : len_bytes;
    line_and_column(text, offset, &line, &column);
    /* It may be cut in the middle of a character. */
    size_t shown = len_bytes - offset < SHOWN_BYTES ? len_bytes - offset : SHOWN_BYTES;
    text_repair(text + offset, strnlen(text + offset, shown), near);
    return FAIL(err, STATUS_FORMAT, "%s:%d:%d: not valid JSON near \"%s\"", source, line, column,
                near);
}

enum status json_parse_file(const char *path, size_t max_bytes, cJSON **out, struct error *err)
{
    struct buffer text;
    buffer_init(&text, max_bytes);
    enum status status = file_read(path, &text, err);
    if (status == STATUS_OK) {
        status = json_parse(buffer_text(&text), text.len_bytes, path, out, err);
    }
    buffer_fini(&text);
    return status;
}

char *json_print_line(const cJSON *value)
{
    return cJSON_PrintUnformatted(value);
}

void json_problems_init(struct json_problems *problems)
{
    buffer_init(&problems->text, PROBLEMS_MAX_BYTES);
    problems->count = 0;
}

void json_problems_fini(struct json_problems *problems)
{
    buffer_fini(&problems->text);
}

void json_problems_add(struct json_problems *problems, const char *pointer, const char *format, ...)
{
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    char line[JSON_POINTER_BYTES + sizeof(message)];
    char whole[3 * sizeof(line)];
    snprintf(line, sizeof(line), "%s: %s", pointer[0] != '\0' ? pointer : "/", message);
    /* What was found is shown cut, maybe in the middle of a character. */
    text_repair(line, strlen(line), whole);
    problems->count++;
    buffer_printf(&problems->text, "%s\n", whole);
}

enum status json_problems_check(const struct json_problems *problems, const char *source,
                                struct error *err)
{
    if (problems->count == 0) {
        return STATUS_OK;
    }
    return FAIL(err, STATUS_INVALID, "%s: %d mistake%s\n%.800s", source, problems->count,
                problems->count == 1 ? "" : "s", buffer_text(&problems->text));
}

void json_reader_init(struct json_reader *reader, const cJSON *object, const char *pointer,
                      struct json_problems *problems)
{
    memset(reader, 0, sizeof(*reader));
    reader->problems = problems;
    snprintf(reader->pointer, sizeof(reader->pointer), "%s", pointer);
    if (object != NULL && !cJSON_IsObject(object)) {
        json_problems_add(problems, pointer, "allowed is an object {...}");
        object = NULL;
    }
    reader->object = object;
}

void json_reader_pointer(const struct json_reader *reader, const char *key,
                         char out[JSON_POINTER_BYTES])
{
    snprintf(out, JSON_POINTER_BYTES, "%.*s/%s", JSON_POINTER_BYTES / 2, reader->pointer, key);
}

/* The value of a key, marking it as asked for. A JSON null counts as absent. */
static const cJSON *find(struct json_reader *reader, const char *key)
{
    if (reader->asked_count < JSON_KEYS_MAX) {
        reader->asked[reader->asked_count++] = key;
    }
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(reader->object, key);
    return cJSON_IsNull(value) ? NULL : value;
}

static void describe(const cJSON *value, char out[FOUND_BYTES])
{
    char *text = cJSON_PrintUnformatted(value);
    snprintf(out, FOUND_BYTES, "%.60s%s", text != NULL ? text : "?",
             text != NULL && strlen(text) > 60 ? "..." : "");
    cJSON_free(text);
}

static void add_wrong(struct json_reader *reader, const char *key, const cJSON *value,
                      const char *allowed)
{
    char pointer[JSON_POINTER_BYTES];
    char found[FOUND_BYTES];
    json_reader_pointer(reader, key, pointer);
    describe(value, found);
    json_problems_add(reader->problems, pointer, "found %s, allowed is %s", found, allowed);
}

static bool is_asked(const struct json_reader *reader, const char *key)
{
    for (int i = 0; i < reader->asked_count; i++) {
        if (strcmp(reader->asked[i], key) == 0) {
            return true;
        }
    }
    return false;
}

void json_reader_finish(struct json_reader *reader)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, reader->object) {
        /* "$schema" lets editors check the file; keys that start with "_" are comments. */
        if (item->string == NULL || item->string[0] == '_' ||
            strcmp(item->string, "$schema") == 0 || is_asked(reader, item->string)) {
            continue;
        }
        char allowed[384] = "";
        size_t used = 0;
        for (int i = 0; i < reader->asked_count && used < sizeof(allowed); i++) {
            used += (size_t)snprintf(allowed + used, sizeof(allowed) - used, "%s%s",
                                     i > 0 ? ", " : "", reader->asked[i]);
        }
        char pointer[JSON_POINTER_BYTES];
        json_reader_pointer(reader, item->string, pointer);
        json_problems_add(reader->problems, pointer, "unknown key, allowed are %s", allowed);
    }
}

bool json_require(struct json_reader *reader, const char *key, const char *allowed)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(reader->object, key);
    if (value == NULL || cJSON_IsNull(value)) {
        char pointer[JSON_POINTER_BYTES];
        json_reader_pointer(reader, key, pointer);
        json_problems_add(reader->problems, pointer, "missing, needed is %s", allowed);
        return false;
    }
    return true;
}

int64_t json_read_int(struct json_reader *reader, const char *key, int64_t fallback, int64_t min,
                      int64_t max)
{
    const cJSON *value = find(reader, key);
    if (value == NULL) {
        return fallback;
    }
    double number = value->valuedouble;
    /* Numbers are doubles in JSON parsers: beyond 2^53 they are no longer exact. */
    if (!cJSON_IsNumber(value) || !isfinite(number) || number != floor(number) ||
        fabs(number) > 0x1p53 || (int64_t)number < min || (int64_t)number > max) {
        char allowed[96];
        snprintf(allowed, sizeof(allowed), "a whole number from %lld to %lld", (long long)min,
                 (long long)max);
        add_wrong(reader, key, value, allowed);
        return fallback;
    }
    return (int64_t)number;
}

double json_read_number(struct json_reader *reader, const char *key, double fallback, double min,
                        double max)
{
    const cJSON *value = find(reader, key);
    if (value == NULL) {
        return fallback;
    }
    if (!cJSON_IsNumber(value) || !(value->valuedouble >= min && value->valuedouble <= max)) {
        char allowed[96];
        snprintf(allowed, sizeof(allowed), "a number from %g to %g", min, max);
        add_wrong(reader, key, value, allowed);
        return fallback;
    }
    return value->valuedouble;
}

bool json_read_bool(struct json_reader *reader, const char *key, bool fallback)
{
    const cJSON *value = find(reader, key);
    if (value == NULL) {
        return fallback;
    }
    if (!cJSON_IsBool(value)) {
        add_wrong(reader, key, value, "true or false");
        return fallback;
    }
    return cJSON_IsTrue(value);
}

const char *json_read_string(struct json_reader *reader, const char *key, const char *fallback)
{
    const cJSON *value = find(reader, key);
    if (value == NULL) {
        return fallback;
    }
    if (!cJSON_IsString(value)) {
        add_wrong(reader, key, value, "a string");
        return fallback;
    }
    return value->valuestring;
}

int json_read_choice(struct json_reader *reader, const char *key, const char *const *choices,
                     int fallback)
{
    const cJSON *value = find(reader, key);
    if (value == NULL) {
        return fallback;
    }
    for (int i = 0; choices[i] != NULL; i++) {
        if (cJSON_IsString(value) && strcmp(value->valuestring, choices[i]) == 0) {
            return i;
        }
    }
    char allowed[256] = "one of";
    size_t used = strlen(allowed);
    for (int i = 0; choices[i] != NULL && used < sizeof(allowed); i++) {
        used += (size_t)snprintf(allowed + used, sizeof(allowed) - used, " \"%s\"", choices[i]);
    }
    add_wrong(reader, key, value, allowed);
    return fallback;
}

const cJSON *json_read_object(struct json_reader *reader, const char *key)
{
    const cJSON *value = find(reader, key);
    if (value != NULL && !cJSON_IsObject(value)) {
        add_wrong(reader, key, value, "an object {...}");
        return NULL;
    }
    return value;
}

const cJSON *json_read_array(struct json_reader *reader, const char *key)
{
    const cJSON *value = find(reader, key);
    if (value != NULL && !cJSON_IsArray(value)) {
        add_wrong(reader, key, value, "an array [...]");
        return NULL;
    }
    return value;
}

const cJSON *json_read_any(struct json_reader *reader, const char *key)
{
    return find(reader, key);
}
