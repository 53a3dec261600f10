/* A piece of text that someone else owns, and the few facts about Unicode that several steps of a
 * tokenizer need. */
#ifndef MODEL_TEXT_SLICE_H
#define MODEL_TEXT_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct text_slice {
    const char *data; /* valid UTF-8, not NUL-terminated */
    size_t len_bytes;
};

/* SentencePiece's visible space, U+2581, in UTF-8. */
#define TEXT_METASPACE "\xE2\x96\x81"
enum { TEXT_METASPACE_BYTES = 3 };

static inline size_t text_character_bytes(unsigned char lead)
{
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/* Code point at `text`, which must be valid; *len is its length in bytes. */
static inline uint32_t text_code_point(const char *text, size_t *len)
{
    const unsigned char *bytes = (const unsigned char *)text;
    *len = text_character_bytes(bytes[0]);
    switch (*len) {
    case 1:
        return bytes[0];
    case 2:
        return (bytes[0] & 0x1Fu) << 6 | (bytes[1] & 0x3Fu);
    case 3:
        return (bytes[0] & 0x0Fu) << 12 | (bytes[1] & 0x3Fu) << 6 | (bytes[2] & 0x3Fu);
    default:
        return (bytes[0] & 0x07u) << 18 | (bytes[1] & 0x3Fu) << 12 | (bytes[2] & 0x3Fu) << 6 |
               (bytes[3] & 0x3Fu);
    }
}

/* Start of the character that ends before `at` (at > 0). */
static inline size_t text_previous(const char *text, size_t at)
{
    do {
        at--;
    } while (at > 0 && ((unsigned char)text[at] & 0xC0u) == 0x80u);
    return at;
}

static inline bool text_starts_with(struct text_slice slice, const char *prefix, size_t len_bytes)
{
    return slice.len_bytes >= len_bytes && memcmp(slice.data, prefix, len_bytes) == 0;
}

/* Unicode White_Space. */
static inline bool text_is_space(uint32_t point)
{
    return point == 0x20 || (point >= 0x09 && point <= 0x0D) || point == 0x85 || point == 0xA0 ||
           point == 0x1680 || (point >= 0x2000 && point <= 0x200A) || point == 0x2028 ||
           point == 0x2029 || point == 0x202F || point == 0x205F || point == 0x3000;
}

#endif
