#include "data/text.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/mem.h"

/* ---- templates ---- */

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
}

enum piece_kind { PIECE_END, PIECE_TEXT, PIECE_FIELD, PIECE_WRONG };

/* The next piece of a template: a run of text (one brace for a doubled one), a field's name, or
 * what is wrong. */
struct piece {
    enum piece_kind kind;
    const char *text;
    size_t length;
};

static struct piece next_piece(const char **at)
{
    const char *start = *at;
    if (*start == '\0') {
        return (struct piece){PIECE_END, start, 0};
    }
    size_t plain = strcspn(start, "{}");
    if (plain > 0) {
        *at = start + plain;
        return (struct piece){PIECE_TEXT, start, plain};
    }
    if (start[1] == start[0]) {
        *at = start + 2;
        return (struct piece){PIECE_TEXT, start, 1};
    }
    size_t length = 0;
    while (is_name_char(start[1 + length])) {
        length++;
    }
    if (*start == '{' && length > 0 && length < TEXT_NAME_BYTES && start[1 + length] == '}') {
        *at = start + length + 2;
        return (struct piece){PIECE_FIELD, start + 1, length};
    }
    *at = start + 1;
    return (struct piece){PIECE_WRONG, start, 1};
}

void text_template_check(const char *text, const char *pointer, struct json_problems *problems)
{
    const char *at = text;
    for (struct piece piece = next_piece(&at); piece.kind != PIECE_END; piece = next_piece(&at)) {
        if (piece.kind == PIECE_WRONG) {
            json_problems_add(problems, pointer,
                              "found \"%.24s\" at byte %zu, allowed are {field} (letters, digits, "
                              "_ - .), and {{ or }} "
                              "for a brace",
                              piece.text, (size_t)(piece.text - text));
        }
    }
}

bool text_template_uses(const char *text, const char *name)
{
    const char *at = text;
    for (struct piece piece = next_piece(&at); piece.kind != PIECE_END; piece = next_piece(&at)) {
        if (piece.kind == PIECE_FIELD && strlen(name) == piece.length &&
            memcmp(piece.text, name, piece.length) == 0) {
            return true;
        }
    }
    return false;
}

enum status text_template_fill(const char *text, text_lookup lookup, void *context,
                               struct buffer *out, char missing[TEXT_NAME_BYTES], struct error *err)
{
    const char *at = text;
    for (struct piece piece = next_piece(&at); piece.kind != PIECE_END; piece = next_piece(&at)) {
        if (piece.kind == PIECE_WRONG) {
            return FAIL(err, STATUS_INVALID, "template \"%.80s\" has a lone brace at byte %zu",
                        text, (size_t)(piece.text - text));
        }
        if (piece.kind == PIECE_TEXT) {
            buffer_append(out, piece.text, piece.length);
            continue;
        }
        char name[TEXT_NAME_BYTES];
        memcpy(name, piece.text, piece.length);
        name[piece.length] = '\0';
        bool found = false;
        TRY(lookup(context, name, out, &found, err));
        if (!found) {
            memcpy(missing, name, piece.length + 1);
            return FAIL(err, STATUS_NOT_FOUND, "no field \"%s\"", name);
        }
    }
    return buffer_check(out, "a filled template", err);
}

/* ---- fields ---- */

const cJSON *text_field_find(const cJSON *object, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);
    const char *dot = value == NULL ? strchr(name, '.') : NULL;
    if (dot != NULL && (size_t)(dot - name) < TEXT_NAME_BYTES) {
        char outer[TEXT_NAME_BYTES];
        memcpy(outer, name, (size_t)(dot - name));
        outer[dot - name] = '\0';
        const cJSON *inner = cJSON_GetObjectItemCaseSensitive(object, outer);
        value = cJSON_IsObject(inner) ? text_field_find(inner, dot + 1) : NULL;
    }
    return cJSON_IsNull(value) ? NULL : value;
}

enum status text_append_value(const cJSON *value, const char *separator, struct buffer *out,
                              struct error *err)
{
    if (cJSON_IsString(value)) {
        buffer_append_text(out, value->valuestring);
        return STATUS_OK;
    }
    if (cJSON_IsArray(value)) {
        const cJSON *item = NULL;
        cJSON_ArrayForEach (item, value) {
            if (item != value->child) {
                buffer_append_text(out, separator);
            }
            TRY(text_append_value(item, separator, out, err));
        }
        return STATUS_OK;
    }
    char *text = json_print_line(value);
    if (text == NULL) {
        return mem_fail(err, 0, "a value as text");
    }
    buffer_append_text(out, text);
    cJSON_free(text);
    return STATUS_OK;
}

/* "prompt" and "answer" of a row in chat form. */
static void append_chat_field(const cJSON *messages, bool answer, struct buffer *out, bool *found)
{
    int count = cJSON_GetArraySize(messages);
    const cJSON *last = count > 0 ? cJSON_GetArrayItem(messages, count - 1) : NULL;
    const char *role = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(last, "role"));
    bool answered = role != NULL && strcmp(role, "assistant") == 0;
    *found = false;
    const cJSON *message = NULL;
    cJSON_ArrayForEach (message, messages) {
        bool is_answer = answered && message == last;
        const char *content =
            cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(message, "content"));
        if (content == NULL || is_answer != answer) {
            continue;
        }
        if (*found) {
            buffer_append_char(out, '\n');
        }
        buffer_append_text(out, content);
        *found = true;
    }
}

enum status text_append_field(const cJSON *object, const char *name, const char *separator,
                              struct buffer *out, bool *found, struct error *err)
{
    const cJSON *value = text_field_find(object, name);
    *found = value != NULL;
    if (value != NULL) {
        return text_append_value(value, separator, out, err);
    }
    bool prompt = strcmp(name, "prompt") == 0;
    if (prompt || strcmp(name, "answer") == 0) {
        const cJSON *messages = cJSON_GetObjectItemCaseSensitive(object, "messages");
        if (cJSON_IsArray(messages)) {
            append_chat_field(messages, !prompt, out, found);
        }
    }
    return STATUS_OK;
}

enum status text_fail_missing(const cJSON *object, const char *name, struct error *err)
{
    char keys[400] = "";
    size_t used = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, object) {
        size_t length = strlen(item->string);
        if (used + length + 8 > sizeof(keys)) {
            memcpy(keys + used, ", ...", 6);
            break;
        }
        if (used > 0) {
            memcpy(keys + used, ", ", 2);
            used += 2;
        }
        memcpy(keys + used, item->string, length + 1);
        used += length;
    }
    return FAIL(err, STATUS_INVALID, "row has no field \"%s\", has: %s", name,
                used > 0 ? keys : "none");
}

/* ---- folding and counting
 * --------------------------------------------------------------------------------------- */

static bool is_ascii_space(unsigned char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Length of the white-space character at text, 0 if there is none. Space separators beyond ASCII:
 * U+0085, U+00A0, U+1680, U+2000-200A, U+2028, U+2029, U+202F, U+205F, U+3000. */
static size_t space_length(const char *text, size_t len_bytes)
{
    const unsigned char *bytes = (const unsigned char *)text;
    if (bytes[0] < 0x80) {
        return is_ascii_space(bytes[0]) ? 1 : 0;
    }
    if (len_bytes >= 2 && bytes[0] == 0xC2) {
        return bytes[1] == 0x85 || bytes[1] == 0xA0 ? 2 : 0;
    }
    if (len_bytes < 3 || bytes[0] < 0xE1 || bytes[0] > 0xE3) {
        return 0;
    }
    unsigned point = (bytes[0] & 0x0Fu) << 12 | (bytes[1] & 0x3Fu) << 6 | (bytes[2] & 0x3Fu);
    bool space = point == 0x1680 || (point >= 0x2000 && point <= 0x200A) || point == 0x2028 ||
                 point == 0x2029 || point == 0x202F || point == 0x205F || point == 0x3000;
    return space ? 3 : 0;
}

/* Appends with each run of white space as one space. `lower` folds ASCII letters on the way. */
static void append_collapsed(const char *text, size_t len_bytes, bool lower, struct buffer *out)
{
    bool pending = false;
    bool any = false;
    size_t i = 0;
    while (i < len_bytes) {
        size_t space = space_length(text + i, len_bytes - i);
        if (space > 0) {
            pending = any;
            i += space;
            continue;
        }
        if (pending) {
            buffer_append_char(out, ' ');
        }
        pending = false;
        any = true;
        char c = text[i++];
        buffer_append_char(out, lower && c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c);
    }
}

static bool is_ascii(const char *text, size_t len_bytes)
{
    unsigned char all = 0;
    for (size_t i = 0; i < len_bytes; i++) {
        all |= (unsigned char)text[i];
    }
    return all < 0x80;
}

enum status text_fold(const char *text, size_t len_bytes, struct buffer *out, struct error *err)
{
    if (is_ascii(text, len_bytes)) {
        append_collapsed(text, len_bytes, true, out);
        return buffer_check(out, "a folded text", err);
    }
    utf8proc_uint8_t *folded = NULL;
    utf8proc_ssize_t length = utf8proc_map(
        (const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len_bytes, &folded,
        UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD | UTF8PROC_IGNORE);
    if (length < 0) {
        return FAIL(err, length == UTF8PROC_ERROR_NOMEM ? STATUS_NO_MEMORY : STATUS_FORMAT,
                    "cannot fold a text: %s", utf8proc_errmsg(length));
    }
    append_collapsed((const char *)folded, (size_t)length, false, out);
    free(folded);
    return buffer_check(out, "a folded text", err);
}

int64_t text_count_characters(const char *text, size_t len_bytes)
{
    int64_t count = 0;
    for (size_t i = 0; i < len_bytes; i++) {
        count += ((unsigned char)text[i] & 0xC0) != 0x80;
    }
    return count;
}

/* Bytes of the character at text if it is a word of its own, else 0. */
static size_t ideograph_length(const char *text, size_t len_bytes)
{
    unsigned char lead = (unsigned char)text[0];
    if (lead >= 0xF0) { /* planes 1 to 16: ideographs, emoji, old scripts */
        return len_bytes < 4 ? len_bytes : 4;
    }
    bool own_word =
        lead >= 0xE3 || (lead == 0xE2 && len_bytes > 1 && (unsigned char)text[1] >= 0xBA);
    return !own_word ? 0 : len_bytes < 3 ? len_bytes : 3;
}

bool text_next_word(const char *text, size_t len_bytes, size_t *at, size_t *start, size_t *length)
{
    size_t i = *at;
    while (i < len_bytes) {
        size_t space = space_length(text + i, len_bytes - i);
        if (space == 0) {
            break;
        }
        i += space;
    }
    if (i >= len_bytes) {
        *at = i;
        return false;
    }
    *start = i;
    size_t own = ideograph_length(text + i, len_bytes - i);
    i += own;
    while (own == 0 && i < len_bytes && space_length(text + i, len_bytes - i) == 0 &&
           ideograph_length(text + i, len_bytes - i) == 0) {
        i++;
    }
    *length = i - *start;
    *at = i;
    return true;
}

int64_t text_count_words(const char *text, size_t len_bytes)
{
    int64_t count = 0;
    size_t at = 0;
    size_t start = 0;
    size_t length = 0;
    while (text_next_word(text, len_bytes, &at, &start, &length)) {
        count++;
    }
    return count;
}
