/* GPT-2's alphabet: a visible character for each of the 256 bytes, in which byte-level vocabularies
 * are written. Printable Latin-1 stands for itself; the other 68 bytes are U+0100, U+0101, ... in
 * their order. */
#ifndef MODEL_BYTE_ALPHABET_H
#define MODEL_BYTE_ALPHABET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BYTE_ALPHABET_POINTS = 256 + 68 };

struct byte_alphabet {
    int16_t bytes[BYTE_ALPHABET_POINTS]; /* byte of a code point, -1 if it stands for none */
};

void byte_alphabet_init(struct byte_alphabet *alphabet);

/* Writes the bytes that text stands for to out (room for len_bytes) and returns how many; -1 if a
 * character of text is not in the alphabet. */
ptrdiff_t byte_alphabet_decode(const struct byte_alphabet *alphabet, const char *text,
                               size_t len_bytes, char *out);

#endif
