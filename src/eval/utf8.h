/* Text as scorers compare it and people read it: UTF-8 in, always well-formed UTF-8 out, whatever a
 * model wrote. */
#ifndef EVAL_UTF8_H
#define EVAL_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

/* The character at the front of text (len_bytes > 0) into *point; U+FFFD for a byte that begins
 * none. Returns the bytes it takes, at least 1. */
size_t utf8_next(const char *text, size_t len_bytes, int32_t *point);

bool utf8_is_space(int32_t point);
bool utf8_is_word(int32_t point); /* letters, digits and the marks on them, of any script */
bool utf8_is_ideograph(
    int32_t point); /* scripts without spaces: Han, Hiragana, Katakana; these are words too */

/* Appends text with every byte that is part of no character, and NUL, as U+FFFD. */
void utf8_append_valid(struct buffer *out, const char *text, size_t len_bytes);

/* Length of the longest start of text that has at most max_bytes and ends between two characters.
 */
size_t utf8_cut(const char *text, size_t len_bytes, size_t max_bytes);

/* Heap copy of text (NULL counts as ""), well-formed and cut to max_bytes; NULL without memory. */
char *utf8_copy_cut(const char *text, size_t max_bytes);

enum {
    UTF8_FOLD_CASE = 1, /* to lower case, character by character */
    UTF8_STRIP_PUNCTUATION =
        2, /* . , ; : ! ? and their full-width forms at the end, unless nothing else is there */
};

/* Appends text to the empty buffer `out` without white space at its ends, and with each run of
 * white space inside as one space. flags: as above. */
void utf8_normalise(struct buffer *out, const char *text, size_t len_bytes, int flags);

#endif
