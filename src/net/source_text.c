#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/text.h"
#include "net/http.h"
#include "net/source_service.h"

/* Code point and length of the (valid) character at the front. */
static uint32_t read_character(const char *text, size_t *bytes)
{
    const unsigned char *at = (const unsigned char *)text;
    *bytes = at[0] < 0x80 ? 1 : at[0] < 0xE0 ? 2 : at[0] < 0xF0 ? 3 : 4;
    uint32_t point = *bytes == 1 ? at[0] : at[0] & (0x7Fu >> *bytes);
    for (size_t i = 1; i < *bytes; i++) {
        point = point << 6 | (at[i] & 0x3Fu);
    }
    return point;
}

/* What a person does not see, but a model reads: soft hyphen, zero-width and bidirectional marks,
 * variation selectors, tags, C1 controls. */
static bool is_invisible(uint32_t point)
{
    return (point >= 0x7F && point < 0xA0) || point == 0xAD || point == 0x61C || point == 0x180E ||
           (point >= 0x200B && point <= 0x200F) || (point >= 0x202A && point <= 0x202E) ||
           (point >= 0x2060 && point <= 0x206F) || (point >= 0xFE00 && point <= 0xFE0F) ||
           point == 0xFEFF || (point >= 0xFFF9 && point <= 0xFFFB) || point >= 0xE0000;
}

/* White space waits until a character follows it, so that none stands at either end. */
static void append_clean(const char *text, bool lines, size_t max_bytes, struct buffer *out)
{
    size_t begin = out->len_bytes;
    size_t safe = begin; /* an end after which "..." still fits */
    int newlines = 0;
    bool space = false;
    for (size_t bytes = 0; *text != '\0'; text += bytes) {
        uint32_t point = read_character(text, &bytes);
        if (point <= 0x20 || point == 0xA0 || point == 0x2028 || point == 0x2029) {
            space = true;
            newlines += lines && (point == '\n' || point == 0x2028 || point == 0x2029);
            continue;
        }
        if (is_invisible(point)) {
            continue;
        }
        const char *gap = !space || out->len_bytes == begin ? ""
                          : newlines == 0                   ? " "
                          : newlines == 1                   ? "\n"
                                                            : "\n\n";
        space = false;
        newlines = 0;
        if (out->len_bytes - begin + strlen(gap) + bytes > max_bytes) {
            out->len_bytes = safe; /* back to where the dots fit */
            buffer_append_text(out, max_bytes >= 3 ? "..." : "");
            return;
        }
        buffer_append_text(out, gap);
        buffer_append(out, text, bytes);
        if (out->len_bytes - begin + 3 <= max_bytes) {
            safe = out->len_bytes;
        }
    }
}

void source_clean(const char *text, bool lines, size_t max_bytes, struct buffer *out)
{
    size_t length = strlen(text);
    if (json_utf8_valid(text, length)) {
        append_clean(text, lines, max_bytes, out);
        return;
    }
    char *repaired = mem_calloc(length + 1, 3);
    if (repaired == NULL) {
        out->failed = true;
        out->out_of_memory = true;
        return;
    }
    text_repair(text, length, repaired);
    append_clean(repaired, lines, max_bytes, out);
    free(repaired);
}

static bool is_word_byte(char c)
{
    return isalnum((unsigned char)c) || (unsigned char)c >= 0x80;
}

int source_words(const char *text, int max, bool hyphens, const char *before, const char *after,
                 const char *between, struct buffer *out)
{
    int count = 0;
    while (*text != '\0' && count < max) {
        if (!is_word_byte(*text)) {
            text++;
            continue;
        }
        size_t length = 1;
        while (is_word_byte(text[length]) ||
               (hyphens && text[length] == '-' && is_word_byte(text[length + 1]))) {
            length++;
        }
        buffer_append_text(out, count > 0 ? between : "");
        buffer_append_text(out, before);
        buffer_append(out, text, length);
        buffer_append_text(out, after);
        text += length;
        count++;
    }
    return count;
}

enum status source_set_path(struct source_step *next, const char *front, const char *text,
                            const char *back, int64_t number, struct error *err)
{
    if (text[0] == '\0') {
        return FAIL(err, STATUS_INVALID, "the text has no words to search for");
    }
    struct buffer path;
    buffer_init(&path, sizeof(next->path) - 1);
    buffer_append_text(&path, front);
    http_append_escaped(&path, text);
    buffer_printf(&path, "%s%lld", back, (long long)number);
    enum status status = buffer_check(&path, "text to search for", err);
    if (status == STATUS_OK) {
        snprintf(next->path, sizeof(next->path), "%s", buffer_text(&path));
    }
    buffer_fini(&path);
    return status;
}

void source_file_part(const char *text, size_t max_bytes, struct buffer *out)
{
    for (size_t i = 0; text[i] != '\0' && i < max_bytes; i++) {
        char c = text[i];
        bool safe = (isalnum((unsigned char)c) && (unsigned char)c < 0x80) || c == '_' ||
                    c == '-' || (c == '.' && i > 0);
        buffer_append_char(out, safe ? c : '_');
    }
}

bool source_id_valid(const char *id)
{
    size_t slashes = 0;
    for (size_t i = 0; id[i] != '\0'; i++) {
        char c = id[i];
        bool begins = i == 0 || id[i - 1] == '/';
        bool plain = (isalnum((unsigned char)c) && (unsigned char)c < 0x80) || c == '_';
        slashes += c == '/';
        if (!plain &&
            (begins || (c != '.' && c != '-' && c != '/') || (c == '.' && id[i - 1] == '.'))) {
            return false;
        }
    }
    size_t length = strlen(id);
    return length > 0 && length <= SOURCE_ID_BYTES && slashes <= 1 && id[length - 1] != '/';
}

const char *source_string(const cJSON *object, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    return text != NULL ? text : "";
}

int64_t source_integer(const cJSON *object, const char *key, int64_t fallback)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) ||
        item->valuedouble > 9007199254740992.0) {
        return fallback;
    }
    return (int64_t)item->valuedouble;
}

int source_year(const char *date)
{
    int year = 0;
    for (int i = 0; i < 4; i++) {
        if (date[i] < '0' || date[i] > '9') {
            return 0;
        }
        year = 10 * year + (date[i] - '0');
    }
    return year;
}

/* A word of the name begins with "test", in any case: "Test", "test_matched", "dev-test",
 * "unseenTest"; and "devtest", as some call it. "latest" is none. */
static bool is_of_tests(const char *name)
{
    for (const char *at = strcasestr(name, "test"); at != NULL; at = strcasestr(at + 1, "test")) {
        bool begins = at == name || !isalpha((unsigned char)at[-1]) || *at == 'T';
        if (begins || (at - name >= 3 && strncasecmp(at - 3, "dev", 3) == 0)) {
            return true;
        }
    }
    return false;
}

int source_rate_split(const char *name)
{
    return strcmp(name, "train") == 0 ? 2 : is_of_tests(name) ? 0 : 1;
}

enum status source_parse_json(const char *name, const char *body, size_t len_bytes, cJSON **out,
                              struct error *err)
{
    size_t at = 0;
    while (at < len_bytes && isspace((unsigned char)body[at])) {
        at++;
    }
    if (at == len_bytes) {
        return FAIL(err, STATUS_FORMAT, "%s sent an empty answer", name);
    }
    if (body[at] == '<') {
        return FAIL(err, STATUS_FORMAT, "%s sent a web page and not JSON", name);
    }
    char source[64];
    snprintf(source, sizeof(source), "answer of %s", name);
    if (json_parse(body, len_bytes, source, out, err) != STATUS_OK) {
        if (err != NULL && err->code != STATUS_NO_MEMORY) {
            err->code = STATUS_FORMAT; /* a service's mistake and not the user's */
        }
        return err != NULL ? err->code : STATUS_FORMAT;
    }
    return STATUS_OK;
}
