#include "eval/utf8.h"

#include <string.h>

#include <utf8proc.h>

#include "base/mem.h"

enum { REPLACEMENT = 0xFFFD };
static const char replacement_text[] = "\xEF\xBF\xBD";

size_t utf8_next(const char *text, size_t len_bytes, int32_t *point)
{
    const utf8proc_uint8_t *bytes = (const utf8proc_uint8_t *)text;
    if (bytes[0] < 0x80) {
        *point = bytes[0];
        return 1;
    }
    size_t visible = len_bytes < 4 ? len_bytes : 4;
    utf8proc_ssize_t used = utf8proc_iterate(bytes, (utf8proc_ssize_t)visible, point);
    if (used <= 0) {
        *point = REPLACEMENT;
        return 1;
    }
    return (size_t)used;
}

bool utf8_is_space(int32_t point)
{
    if (point < 0x80) {
        return point == ' ' || (point >= '\t' && point <= '\r');
    }
    utf8proc_category_t category = utf8proc_category(point);
    return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
           category == UTF8PROC_CATEGORY_ZP;
}

bool utf8_is_word(int32_t point)
{
    if (point < 0x80) {
        return (point >= '0' && point <= '9') || (point >= 'a' && point <= 'z') ||
               (point >= 'A' && point <= 'Z');
    }
    /* Categories in utf8proc's order: LU LT.. LO, MN MC ME, ND NL NO. */
    utf8proc_category_t category = utf8proc_category(point);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NO;
}

bool utf8_is_ideograph(int32_t point)
{
    static const int32_t ranges[][2] = {
        {0x3041, 0x30FF},   /* Hiragana, Katakana */
        {0x31F0, 0x31FF},   /* Katakana extensions */
        {0x3400, 0x4DBF},   /* Han, extension A */
        {0x4E00, 0x9FFF},   /* Han */
        {0xF900, 0xFAFF},   /* Han, compatibility */
        {0xFF66, 0xFF9F},   /* Katakana, half width */
        {0x20000, 0x3FFFD}, /* Han, further extensions */
    };
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (point >= ranges[i][0] && point <= ranges[i][1]) {
            return utf8_is_word(point);
        }
    }
    return false;
}

static void append_point(struct buffer *out, int32_t point)
{
    utf8proc_uint8_t bytes[4];
    utf8proc_ssize_t count = utf8proc_encode_char(point, bytes);
    buffer_append(out, bytes, (size_t)count);
}

void utf8_append_valid(struct buffer *out, const char *text, size_t len_bytes)
{
    size_t begin = 0; /* of the well-formed run that is not yet copied */
    size_t i = 0;
    while (i < len_bytes) {
        int32_t point = 0;
        size_t used = utf8_next(text + i, len_bytes - i, &point);
        bool bad = point == 0 || (point == REPLACEMENT && used == 1);
        if (bad) {
            buffer_append(out, text + begin, i - begin);
            buffer_append_text(out, replacement_text);
            begin = i + used;
        }
        i += used;
    }
    buffer_append(out, text + begin, len_bytes - begin);
}

size_t utf8_cut(const char *text, size_t len_bytes, size_t max_bytes)
{
    if (len_bytes <= max_bytes) {
        return len_bytes;
    }
    size_t end = max_bytes;
    while (end > 0 && max_bytes - end < 3 && ((unsigned char)text[end] & 0xC0) == 0x80) {
        end--;
    }
    return end;
}

char *utf8_copy_cut(const char *text, size_t max_bytes)
{
    size_t length = text != NULL ? strnlen(text, max_bytes + 1) : 0;
    struct buffer valid;
    buffer_init(&valid, 3 * max_bytes + 8); /* a bad byte becomes three */
    utf8_append_valid(&valid, text != NULL ? text : "", utf8_cut(text, length, max_bytes));
    const char *data = buffer_text(&valid);
    char *copy =
        valid.failed ? NULL : mem_strndup(data, utf8_cut(data, valid.len_bytes, max_bytes));
    buffer_fini(&valid);
    return copy;
}

static bool is_closing_punctuation(int32_t point)
{
    switch (point) {
    case '.':
    case ',':
    case ';':
    case ':':
    case '!':
    case '?':
    case 0x3001: /* ideographic comma */
    case 0x3002: /* ideographic full stop */
    case 0xFF01: /* full-width forms of ! , . : ; ? */
    case 0xFF0C:
    case 0xFF0E:
    case 0xFF1A:
    case 0xFF1B:
    case 0xFF1F:
        return true;
    default:
        return false;
    }
}

void utf8_normalise(struct buffer *out, const char *text, size_t len_bytes, int flags)
{
    bool space = false;
    size_t kept = 0; /* length of out up to the last character that is no closing punctuation */
    for (size_t i = 0; i < len_bytes;) {
        int32_t point = 0;
        i += utf8_next(text + i, len_bytes - i, &point);
        if (utf8_is_space(point)) {
            space = true;
            continue;
        }
        if (space && out->len_bytes > 0) {
            buffer_append_char(out, ' ');
        }
        space = false;
        point = point == 0 ? REPLACEMENT : point;
        append_point(out, (flags & UTF8_FOLD_CASE) != 0 ? utf8proc_tolower(point) : point);
        if (!is_closing_punctuation(point)) {
            kept = out->len_bytes;
        }
    }
    if ((flags & UTF8_STRIP_PUNCTUATION) != 0 && kept > 0 && !out->failed) {
        out->len_bytes = kept;
        out->data[kept] = '\0';
    }
}
