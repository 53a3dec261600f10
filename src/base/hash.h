/* 128-bit content hashes (XXH3): identity of files and rows, checksums of stored arrays. Not
 * against forgery. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>

#include "base/status.h"

enum { HASH_TEXT_BYTES = 33 }; /* 32 hexadecimal digits and a NUL */

struct hash_state; /* opaque, streaming */

void hash_bytes(const void *data, size_t len_bytes, char out[HASH_TEXT_BYTES]);

struct hash_state *hash_create(void); /* NULL without memory */
void hash_update(struct hash_state *state, const void *data, size_t len_bytes);
void hash_digest(const struct hash_state *state, char out[HASH_TEXT_BYTES]);
void hash_destroy(struct hash_state *state);

/* Of a file's whole contents. */
enum status hash_file(const char *path, char out[HASH_TEXT_BYTES], struct error *err);

#endif
