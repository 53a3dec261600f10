#include "store/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/hash.h"
#include "base/mem.h"
#include "store/store.h"

enum {
    SEAL_VERSION = 1,
    BLOCK_MOST_BYTES = 4 << 20,
    HEADER_BYTES = 256, /* all lines but the extents, at most */
    EXTENT_LINE_BYTES = 40,
    COPY_BYTES = 256 * 1024
};

static const char magic[] = "TREX seal ";
static const unsigned char hdf5_signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};

int64_t seal_block_bytes(int64_t extent_count, int64_t least_bytes)
{
    int64_t needed = HEADER_BYTES + extent_count * EXTENT_LINE_BYTES;
    int64_t block = least_bytes;
    while (block < needed) {
        block *= 2;
    }
    return block;
}

void seal_fini(struct seal *seal)
{
    free(seal->extents);
    memset(seal, 0, sizeof(*seal));
}

/* Where the bytes of a file come from: memory, or a descriptor. */
struct source {
    const unsigned char *memory; /* NULL: fd */
    int fd;
    const char *path;
};

static enum status hash_range(struct hash_state *state, const struct source *source, int64_t offset,
                              int64_t bytes, unsigned char *copy, struct error *err)
{
    if (source->memory != NULL) {
        hash_update(state, source->memory + offset, (size_t)bytes);
        return STATUS_OK;
    }
    while (bytes > 0) {
        size_t want = bytes < COPY_BYTES ? (size_t)bytes : COPY_BYTES;
        ssize_t got = pread(source->fd, copy, want, offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return FAIL_ERRNO(err, "cannot read %s", source->path);
        }
        if (got == 0) {
            return FAIL(err, STATUS_CORRUPT, "%s: became shorter while it was read", source->path);
        }
        hash_update(state, copy, (size_t)got);
        offset += got;
        bytes -= got;
    }
    return STATUS_OK;
}

/* Hash of the seal's lines and of everything outside block and extents. */
static enum status digest(const struct seal *seal, const struct buffer *lines,
                          const struct source *source, char out[HASH_TEXT_BYTES], struct error *err)
{
    enum status status = STATUS_OK;
    struct hash_state *state = hash_create();
    unsigned char *copy = mem_calloc(COPY_BYTES, 1);
    if (state == NULL || copy == NULL) {
        status = mem_fail(err, COPY_BYTES, "reading a file");
        goto cleanup;
    }
    hash_update(state, lines->data, lines->len_bytes);
    int64_t at = seal->block_bytes;
    for (int64_t i = 0; i < seal->extent_count; i++) {
        TRY_CLEANUP(hash_range(state, source, at, seal->extents[i].offset - at, copy, err));
        at = seal->extents[i].offset + seal->extents[i].bytes;
    }
    TRY_CLEANUP(hash_range(state, source, at, seal->file_bytes - at, copy, err));
    hash_digest(state, out);
cleanup:
    hash_destroy(state);
    free(copy);
    return status;
}

/* All lines but the last. */
static void print_lines(const struct seal *seal, struct buffer *out)
{
    buffer_printf(out, "%s%d\nkind %s\nschema %" PRId64 "\n", magic, SEAL_VERSION, seal->kind,
                  seal->schema);
    buffer_printf(out, "block_bytes %" PRId64 "\nfile_bytes %" PRId64 "\nextents %" PRId64 "\n",
                  seal->block_bytes, seal->file_bytes, seal->extent_count);
    for (int64_t i = 0; i < seal->extent_count; i++) {
        buffer_printf(out, "%" PRId64 " %" PRId64 "\n", seal->extents[i].offset,
                      seal->extents[i].bytes);
    }
}

/* Fills `block` (block_bytes, zeroed) with the finished seal. */
static enum status make_block(const struct seal *seal, const struct source *source, char *block,
                              struct error *err)
{
    char hash[HASH_TEXT_BYTES];
    struct buffer lines;
    buffer_init(&lines, (size_t)seal->block_bytes - 1);
    print_lines(seal, &lines);
    enum status status = buffer_check(&lines, "the seal of a file", err);
    if (status == STATUS_OK) {
        status = digest(seal, &lines, source, hash, err);
    }
    if (status == STATUS_OK) {
        buffer_printf(&lines, "xxh3_128 %s\n", hash);
        status = buffer_check(&lines, "the seal of a file", err);
    }
    if (status == STATUS_OK) {
        memcpy(block, lines.data, lines.len_bytes);
    }
    buffer_fini(&lines);
    return status;
}

enum status seal_memory(struct seal *seal, unsigned char *file, const char *path, struct error *err)
{
    struct source source = {file, -1, path};
    memset(file, 0, (size_t)seal->block_bytes);
    return make_block(seal, &source, (char *)file, err);
}

static int compare_extents(const void *a, const void *b)
{
    const struct seal_extent *left = a;
    const struct seal_extent *right = b;
    return (left->offset > right->offset) - (left->offset < right->offset);
}

/* Extents ascend, do not overlap and lie between block and end of file. */
static bool extents_fit(const struct seal *seal)
{
    int64_t at = seal->block_bytes;
    for (int64_t i = 0; i < seal->extent_count; i++) {
        const struct seal_extent *extent = &seal->extents[i];
        if (extent->offset < at || extent->bytes < 0 ||
            extent->bytes > seal->file_bytes - extent->offset) {
            return false;
        }
        at = extent->offset + extent->bytes;
    }
    return at <= seal->file_bytes;
}

static enum status write_block(int fd, const char *path, const char *block, size_t bytes,
                               struct error *err)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t put = pwrite(fd, block + done, bytes - done, (off_t)done);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return FAIL_ERRNO(err, "cannot write %s", path);
        }
        done += (size_t)put;
    }
    return STATUS_OK;
}

enum status seal_file(struct seal *seal, const char *path, struct error *err)
{
    enum status status = STATUS_OK;
    char *block = NULL;
    struct stat info;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0) {
        status = FAIL_ERRNO(err, "cannot open %s", path);
        goto cleanup;
    }
    seal->file_bytes = (int64_t)info.st_size;
    if (seal->extent_count > 1) {
        qsort(seal->extents, (size_t)seal->extent_count, sizeof(*seal->extents), compare_extents);
    }
    if (!extents_fit(seal)) {
        status = FAIL(err, STATUS_INTERNAL, "%s: arrays overlap in the file", path);
        goto cleanup;
    }
    block = mem_calloc((size_t)seal->block_bytes, 1);
    if (block == NULL) {
        status = mem_fail(err, (size_t)seal->block_bytes, "the seal of a file");
        goto cleanup;
    }
    struct source source = {NULL, fd, path};
    TRY_CLEANUP(make_block(seal, &source, block, err));
    TRY_CLEANUP(write_block(fd, path, block, (size_t)seal->block_bytes, err));
cleanup:
    if (fd >= 0 && close(fd) != 0 && status == STATUS_OK) {
        status = FAIL_ERRNO(err, "cannot close %s", path);
    }
    free(block);
    return status;
}

/* ---- reading ---- */

/* The text of a seal, read line by line. */
struct cursor {
    const char *at; /* NUL-terminated */
    bool wrong;
};

static void expect(struct cursor *cursor, const char *text)
{
    size_t length = strlen(text);
    if (cursor->wrong || strncmp(cursor->at, text, length) != 0) {
        cursor->wrong = true;
        return;
    }
    cursor->at += length;
}

static int64_t read_number(struct cursor *cursor, char end)
{
    if (cursor->wrong || cursor->at[0] < '0' || cursor->at[0] > '9') {
        cursor->wrong = true;
        return 0;
    }
    char *after = NULL;
    errno = 0;
    long long value = strtoll(cursor->at, &after, 10);
    if (errno != 0 || *after != end) {
        cursor->wrong = true;
        return 0;
    }
    cursor->at = after + 1;
    return value;
}

static void read_word(struct cursor *cursor, char *out, size_t out_bytes)
{
    size_t length = cursor->wrong ? 0 : strcspn(cursor->at, "\n");
    if (cursor->wrong || cursor->at[length] != '\n' || length >= out_bytes) {
        cursor->wrong = true;
        return;
    }
    memcpy(out, cursor->at, length);
    out[length] = '\0';
    cursor->at += length + 1;
}

static enum status parse_extents(struct cursor *cursor, struct seal *seal, const char *path,
                                 struct error *err)
{
    if (cursor->wrong || seal->extent_count > SEAL_EXTENTS_MAX ||
        seal->extent_count > seal->block_bytes / EXTENT_LINE_BYTES) {
        return FAIL(err, STATUS_CORRUPT, "%s: its seal is damaged", path);
    }
    seal->extents = mem_calloc((size_t)seal->extent_count, sizeof(*seal->extents));
    if (seal->extents == NULL) {
        return mem_fail(err, (size_t)seal->extent_count * sizeof(*seal->extents),
                        "the seal of a file");
    }
    for (int64_t i = 0; i < seal->extent_count; i++) {
        seal->extents[i].offset = read_number(cursor, ' ');
        seal->extents[i].bytes = read_number(cursor, '\n');
    }
    return STATUS_OK;
}

/* Says why a file without our magic is none of ours. */
static enum status fail_foreign(const unsigned char *head, size_t bytes, const char *path,
                                struct error *err)
{
    if (bytes == 0) {
        return FAIL(err, STATUS_CORRUPT, "%s: the file is empty", path);
    }
    bool hdf5 = bytes >= sizeof(hdf5_signature) &&
                memcmp(head, hdf5_signature, sizeof(hdf5_signature)) == 0;
    return FAIL(err, STATUS_FORMAT, "%s: %s, expected a file written by trex", path,
                hdf5 ? "an HDF5 file of another program" : "not an HDF5 file");
}

/* Everything that can be said from the first bytes. `head` is NUL-terminated after `head_bytes`. */
static enum status parse_header(const char *head, size_t head_bytes, int64_t file_bytes,
                                const char *kind, const char *path, struct cursor *cursor,
                                struct seal *seal, struct error *err)
{
    if (head_bytes < sizeof(magic) - 1 || memcmp(head, magic, sizeof(magic) - 1) != 0) {
        return fail_foreign((const unsigned char *)head, head_bytes, path, err);
    }
    *cursor = (struct cursor){head, false};
    expect(cursor, magic);
    int64_t version = read_number(cursor, '\n');
    expect(cursor, "kind ");
    read_word(cursor, seal->kind, sizeof(seal->kind));
    expect(cursor, "schema ");
    seal->schema = read_number(cursor, '\n');
    if (!cursor->wrong && (version > SEAL_VERSION || seal->schema > STORE_SCHEMA_VERSION)) {
        return FAIL(err, STATUS_VERSION,
                    "%s: written with schema version %" PRId64 " (seal %" PRId64
                    "), this program reads schema version %d (seal %d)",
                    path, seal->schema, version, STORE_SCHEMA_VERSION, SEAL_VERSION);
    }
    expect(cursor, "block_bytes ");
    seal->block_bytes = read_number(cursor, '\n');
    expect(cursor, "file_bytes ");
    seal->file_bytes = read_number(cursor, '\n');
    expect(cursor, "extents ");
    seal->extent_count = read_number(cursor, '\n');
    if (cursor->wrong || seal->block_bytes < SEAL_BLOCK_LEAST_BYTES ||
        seal->block_bytes > BLOCK_MOST_BYTES ||
        (seal->block_bytes & (seal->block_bytes - 1)) != 0) {
        return FAIL(err, STATUS_CORRUPT, "%s: its seal is damaged", path);
    }
    if (seal->file_bytes != file_bytes || seal->block_bytes > file_bytes) {
        return FAIL(err, STATUS_CORRUPT, "%s: %s: it has %" PRId64 " bytes of %" PRId64, path,
                    file_bytes < seal->file_bytes ? "the file is cut"
                                                  : "bytes were added to the file",
                    file_bytes, seal->file_bytes);
    }
    if (kind != NULL && strcmp(kind, seal->kind) != 0) {
        return FAIL(err, STATUS_FORMAT, "%s: holds \"%s\", expected \"%s\"", path, seal->kind,
                    kind);
    }
    return STATUS_OK;
}

/* The rest: extents, hash, contents. `block` is the whole block, NUL-terminated. */
static enum status check_block(struct cursor *cursor, const char *block,
                               const struct source *source, struct seal *seal, struct error *err)
{
    char stored[HASH_TEXT_BYTES] = "";
    char found[HASH_TEXT_BYTES];
    TRY(parse_extents(cursor, seal, source->path, err));
    struct buffer lines;
    buffer_init(&lines, (size_t)seal->block_bytes);
    buffer_append(&lines, block, (size_t)(cursor->at - block));
    expect(cursor, "xxh3_128 ");
    read_word(cursor, stored, sizeof(stored));
    enum status status = buffer_check(&lines, "the seal of a file", err);
    if (status == STATUS_OK && (cursor->wrong || !extents_fit(seal))) {
        status = FAIL(err, STATUS_CORRUPT, "%s: its seal is damaged", source->path);
    }
    for (const char *at = cursor->at; status == STATUS_OK && at < block + seal->block_bytes; at++) {
        if (*at != '\0') {
            status = FAIL(err, STATUS_CORRUPT, "%s: its seal is damaged", source->path);
        }
    }
    if (status == STATUS_OK) {
        status = digest(seal, &lines, source, found, err);
    }
    if (status == STATUS_OK && strcmp(stored, found) != 0) {
        status = FAIL(err, STATUS_CORRUPT, "%s: the file is damaged: checksum %s, expected %s",
                      source->path, found, stored);
    }
    buffer_fini(&lines);
    return status;
}

/* Reads as much of the block as there is; both copies end with a NUL so that no scan runs past
 * them. */
static enum status check_source(const struct source *source, int64_t file_bytes, const char *kind,
                                struct seal *out, struct error *err)
{
    struct seal seal = {{0}, 0, 0, 0, 0, NULL};
    enum status status = STATUS_OK;
    char *block = NULL;
    char head[HEADER_BYTES + 1] = "";
    size_t head_bytes = file_bytes < HEADER_BYTES ? (size_t)file_bytes : HEADER_BYTES;
    struct cursor cursor = {0};
    if (source->memory != NULL) {
        memcpy(head, source->memory, head_bytes);
    } else if (pread(source->fd, head, head_bytes, 0) != (ssize_t)head_bytes) {
        return FAIL_ERRNO(err, "cannot read %s", source->path);
    }
    TRY_CLEANUP(
        parse_header(head, head_bytes, file_bytes, kind, source->path, &cursor, &seal, err));
    block = mem_calloc((size_t)seal.block_bytes + 1, 1);
    if (block == NULL) {
        status = mem_fail(err, (size_t)seal.block_bytes, "the seal of a file");
        goto cleanup;
    }
    if (source->memory != NULL) {
        memcpy(block, source->memory, (size_t)seal.block_bytes);
    } else if (pread(source->fd, block, (size_t)seal.block_bytes, 0) != (ssize_t)seal.block_bytes) {
        status = FAIL_ERRNO(err, "cannot read %s", source->path);
        goto cleanup;
    }
    cursor.at = block + (cursor.at - head);
    TRY_CLEANUP(check_block(&cursor, block, source, &seal, err));
    *out = seal;
cleanup:
    free(block);
    if (status != STATUS_OK) {
        seal_fini(&seal);
    }
    return status;
}

enum status seal_check_memory(const unsigned char *file, size_t file_bytes, const char *kind,
                              const char *path, struct seal *out, struct error *err)
{
    if (file_bytes == 0) {
        return fail_foreign(file, 0, path, err);
    }
    struct source source = {file, -1, path};
    return check_source(&source, (int64_t)file_bytes, kind, out, err);
}

enum status seal_check_file(const char *path, const char *kind, struct seal *out, struct error *err)
{
    int fd =
        open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang us */
    if (fd < 0) {
        return FAIL_ERRNO(err, "cannot open %s", path);
    }
    struct stat info;
    enum status status = STATUS_OK;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        status = FAIL(err, STATUS_FORMAT, "%s is not a regular file", path);
    } else {
        struct source source = {NULL, fd, path};
        status = check_source(&source, (int64_t)info.st_size, kind, out, err);
    }
    close(fd);
    return status;
}
