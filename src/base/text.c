#include "base/text.h"

#include <string.h>

#include "base/json.h"

/* Bytes of the valid character at the front, 0 if there is none. */
static size_t character_bytes(const char *text, size_t length)
{
    unsigned char lead = (unsigned char)text[0];
    size_t bytes = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    return bytes <= length && json_utf8_valid(text, bytes) ? bytes : 0;
}

size_t text_repair(const char *text, size_t length, char *out)
{
    static const char replacement[] = "\xEF\xBF\xBD";
    size_t used = 0;
    for (size_t at = 0; at < length;) {
        size_t bytes = character_bytes(text + at, length - at);
        if (bytes > 0) {
            memcpy(out + used, text + at, bytes);
            used += bytes;
            at += bytes;
        } else {
            memcpy(out + used, replacement, sizeof(replacement) - 1);
            used += sizeof(replacement) - 1;
            at++;
        }
    }
    out[used] = '\0';
    return used;
}
