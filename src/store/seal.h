/* The first block of every file we write: what it is, how long, and a hash, so that a cut, damaged
 * or foreign file is known before the HDF5 library parses a byte of it (parsing damaged HDF5 files
 * can loop or crash).
 *
 *   | seal, text, padded with zeros | HDF5 file: metadata, array, metadata, array ... |
 *   0                               block_bytes (HDF5's "user block")         file_bytes
 *
 *   TREX seal 1
 *   kind weights
 *   schema 1
 *   block_bytes 4096
 *   file_bytes 1232896
 *   extents 2              arrays that have a checksum of their own: offset and length
 *   8192 1179648
 *   1187840 45056
 *   xxh3_128 8f0e...       of the lines above and of all bytes outside block and extents
 *
 * So opening a file of many gigabytes reads only its metadata; the arrays are checked when they are
 * read. */
#ifndef STORE_SEAL_H
#define STORE_SEAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { SEAL_KIND_BYTES = 16, SEAL_EXTENTS_MAX = 1 << 16, SEAL_BLOCK_LEAST_BYTES = 512 };

struct seal_extent {
    int64_t offset; /* from the start of the file */
    int64_t bytes;
};

struct seal {
    char kind[SEAL_KIND_BYTES];
    int64_t schema;
    int64_t block_bytes; /* a power of two, at least 512 */
    int64_t file_bytes;
    int64_t extent_count;
    struct seal_extent *extents; /* ascending, apart; owned */
};

/* Size of the block for this many extents, at least least_bytes (a power of two). */
int64_t seal_block_bytes(int64_t extent_count, int64_t least_bytes);

void seal_fini(struct seal *seal);

/* Writes the seal of a whole file in memory (no extents) into its block. */
enum status seal_memory(struct seal *seal, unsigned char *file, const char *path,
                        struct error *err);

/* The same for a closed file on disk. Sorts the extents. */
enum status seal_file(struct seal *seal, const char *path, struct error *err);

/* Reads and checks a seal. STATUS_FORMAT: not a file of ours; STATUS_VERSION: another schema;
 * STATUS_CORRUPT: cut or changed. kind NULL: any. On success seal_fini it. */
enum status seal_check_memory(const unsigned char *file, size_t file_bytes, const char *kind,
                              const char *path, struct seal *out, struct error *err);
enum status seal_check_file(const char *path, const char *kind, struct seal *out,
                            struct error *err);

#endif
