/* Texts that may hold anything (a model's output, a message cut in the middle of a character) made
 * fit for files whose readers expect UTF-8. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stddef.h>

/* Copies `text`, each byte that is not part of valid UTF-8 replaced by U+FFFD, into `out`, which
 * holds 3 * length + 1 bytes. Returns the length of the result. */
size_t text_repair(const char *text, size_t length, char *out);

#endif
