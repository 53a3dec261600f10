#include "data/dataset.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_STATIC_LINKING_ONLY /* a state on the stack: hashing then has no way to fail */
#include <xxhash.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

enum { READ_BLOCK_BYTES = 64 * 1024, FIRST_CAPACITY = 16 };

#define DEFAULT_MAX_ROWS 10000000
#define DEFAULT_MAX_FILE_BYTES ((int64_t)16 << 30)
#define DEFAULT_MAX_ROW_BYTES ((int64_t)16 << 20)

void dataset_init(struct dataset *dataset)
{
    memset(dataset, 0, sizeof(*dataset));
}

void dataset_fini(struct dataset *dataset)
{
    for (int64_t i = 0; i < dataset->count; i++) {
        cJSON_Delete(dataset->rows[i].object);
    }
    free(dataset->rows);
    for (int32_t i = 0; i < dataset->source_count; i++) {
        free(dataset->sources[i]);
    }
    free(dataset->sources);
    dataset_init(dataset);
}

/* Arrays without a field for their capacity: it is the next power of two, so they grow when count
 * is one. */
static void *grow(void *items, int64_t count, size_t size)
{
    if (count != 0 && (count < FIRST_CAPACITY || (count & (count - 1)) != 0)) {
        return items;
    }
    size_t capacity = count == 0 ? FIRST_CAPACITY : (size_t)count * 2;
    return mem_realloc(items, capacity, size);
}

/* Index of a source's path, appended if it is new. Rows of one source usually follow each other. */
static enum status intern_source(struct dataset *dataset, const char *source, int32_t *index,
                                 struct error *err)
{
    if (dataset->count > 0) {
        int32_t latest = dataset->rows[dataset->count - 1].source;
        if (strcmp(dataset->sources[latest], source) == 0) {
            *index = latest;
            return STATUS_OK;
        }
    }
    for (int32_t i = 0; i < dataset->source_count; i++) {
        if (strcmp(dataset->sources[i], source) == 0) {
            *index = i;
            return STATUS_OK;
        }
    }
    if (dataset->source_count == INT32_MAX) {
        return FAIL(err, STATUS_LIMIT, "more than %d sources in one set of rows", INT32_MAX);
    }
    char **sources = grow(dataset->sources, dataset->source_count, sizeof(*sources));
    if (sources == NULL) {
        return mem_fail(err, sizeof(*sources), "paths of sources");
    }
    dataset->sources = sources;
    char *copy = mem_strdup(source);
    if (copy == NULL) {
        return mem_fail(err, strlen(source) + 1, "the path of a source");
    }
    *index = dataset->source_count;
    dataset->sources[dataset->source_count++] = copy;
    return STATUS_OK;
}

enum status dataset_append(struct dataset *dataset, cJSON *object, const char *source, int64_t line,
                           struct error *err)
{
    int32_t index = 0;
    enum status status = intern_source(dataset, source, &index, err);
    struct data_row *rows = NULL;
    if (status == STATUS_OK) {
        rows = grow(dataset->rows, dataset->count, sizeof(*rows));
        if (rows == NULL) {
            status = mem_fail(err, (size_t)dataset->count * 2 * sizeof(*rows), "rows");
        }
    }
    if (status != STATUS_OK) {
        cJSON_Delete(object);
        return status;
    }
    dataset->rows = rows;
    dataset->rows[dataset->count++] =
        (struct data_row){.object = object, .source = index, .line = line};
    return STATUS_OK;
}

const char *data_row_text(const struct data_row *row, const char *field)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row->object, field));
}

/* ---- reading ---- */

/* One line at a time through a fixed block: memory is that of the longest line, whatever the file's
 * size. */
struct line_reader {
    int fd;
    const char *path;
    size_t at, end; /* unread part of block */
    struct buffer line;
    int64_t number; /* of the line, 1-based */
    char block[READ_BLOCK_BYTES];
};

static enum status line_reader_open(struct line_reader *reader, const char *path,
                                    const struct dataset_limits *limits, struct error *err)
{
    reader->path = path;
    reader->at = reader->end = 0;
    reader->number = 0;
    reader->fd =
        open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang us */
    if (reader->fd < 0) {
        return FAIL_ERRNO(err, "cannot open %s", path);
    }
    struct stat info;
    if (fstat(reader->fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(reader->fd);
        return FAIL(err, STATUS_FORMAT, "%s is not a regular file; a .jsonl file is needed", path);
    }
    if ((int64_t)info.st_size > limits->max_file_bytes) {
        close(reader->fd);
        return FAIL(err, STATUS_LIMIT, "%s has %lld bytes, allowed are %lld", path,
                    (long long)info.st_size, (long long)limits->max_file_bytes);
    }
    buffer_init(&reader->line, (size_t)limits->max_row_bytes);
    return STATUS_OK;
}

static void line_reader_close(struct line_reader *reader)
{
    close(reader->fd);
    buffer_fini(&reader->line);
}

/* Fills the block if it is used up; end stays 0 at the end of the file. */
static enum status refill(struct line_reader *reader, struct error *err)
{
    if (reader->at < reader->end) {
        return STATUS_OK;
    }
    reader->at = reader->end = 0;
    ssize_t got;
    do {
        got = read(reader->fd, reader->block, sizeof(reader->block));
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return FAIL_ERRNO(err, "cannot read %s", reader->path);
    }
    reader->end = (size_t)got;
    return STATUS_OK;
}

/* The next line without its line end; *more is false at the end of the file. */
static enum status line_reader_next(struct line_reader *reader, bool *more, struct error *err)
{
    buffer_clear(&reader->line);
    reader->number++;
    bool began = false;
    for (;;) {
        TRY(refill(reader, err));
        if (reader->end == 0) {
            *more = began;
            return STATUS_OK;
        }
        began = true;
        const char *start = reader->block + reader->at;
        const char *newline = memchr(start, '\n', reader->end - reader->at);
        size_t length = newline != NULL ? (size_t)(newline - start) : reader->end - reader->at;
        buffer_append(&reader->line, start, length);
        if (reader->line.failed) {
            return FAIL(err, STATUS_LIMIT, "%s:%lld: line longer than %zu bytes, or memory ran out",
                        reader->path, (long long)reader->number, reader->line.max_bytes);
        }
        reader->at += length + (newline != NULL ? 1 : 0);
        if (newline != NULL) {
            *more = true;
            return STATUS_OK;
        }
    }
}

/* Position of an escaped U+0000 (backslash, u0000) in JSON text, or NULL. */
static const char *find_escaped_nul(const char *text)
{
    for (const char *at = strchr(text, '\\'); at != NULL; at = strchr(at, '\\')) {
        if (strncmp(at + 1, "u0000", 5) == 0) {
            return at;
        }
        at += at[1] != '\0' ? 2 : 1;
    }
    return NULL;
}

/* `text` is NUL-terminated at len_bytes. */
static enum status parse_row(const struct line_reader *reader, const char *text, size_t len_bytes,
                             cJSON **out, struct error *err)
{
    const char *path = reader->path;
    long long line = (long long)reader->number;
    size_t before_nul = strlen(text);
    const char *nul = before_nul < len_bytes ? text + before_nul : find_escaped_nul(text);
    if (nul != NULL) {
        return FAIL(err, STATUS_FORMAT,
                    "%s:%lld:%lld: the character U+0000 is not allowed in a row", path, line,
                    (long long)(nul - text) + 1);
    }
    cJSON *value = NULL;
    struct error inner = {0};
    enum status status = json_parse(text, len_bytes, "row", &value, &inner);
    if (status != STATUS_OK) {
        /* "row:1:<column>: ..." becomes "<path>:<line>:<column>: ...", "row: ..." becomes
         * "<path>:<line>: ...". */
        bool placed = strncmp(inner.message, "row:1:", 6) == 0;
        return FAIL(err, status, "%s:%lld:%s", path, line, inner.message + (placed ? 6 : 4));
    }
    if (!cJSON_IsObject(value)) {
        cJSON_Delete(value);
        return FAIL(err, STATUS_FORMAT,
                    "%s:%lld:1: found %.24s, allowed is one JSON object {...} a line", path, line,
                    text);
    }
    *out = value;
    return STATUS_OK;
}

static enum status read_rows(struct line_reader *reader, const struct dataset_limits *limits,
                             struct dataset *rows, struct error *err)
{
    while (limits->take == 0 || rows->count < limits->take) {
        bool more = false;
        TRY(line_reader_next(reader, &more, err));
        if (!more) {
            break;
        }
        const char *text = buffer_text(&reader->line);
        size_t length = reader->line.len_bytes;
        if (reader->number == 1 && length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) {
            text += 3;
            length -= 3;
        }
        if (strspn(text, " \t\r") == length) {
            continue;
        }
        if (rows->count >= limits->max_rows) {
            return FAIL(err, STATUS_LIMIT, "%s:%lld: more than %lld rows", reader->path,
                        (long long)reader->number, (long long)limits->max_rows);
        }
        cJSON *object = NULL;
        TRY(parse_row(reader, text, length, &object, err));
        TRY(dataset_append(rows, object, reader->path, reader->number, err));
    }
    if (rows->count == 0) {
        return FAIL(err, STATUS_INVALID, "%s has no rows; one JSON object a line is needed",
                    reader->path);
    }
    return STATUS_OK;
}

enum status dataset_read(const char *path, const struct dataset_limits *limits, struct dataset *out,
                         struct error *err)
{
    struct dataset_limits effective = {DEFAULT_MAX_ROWS, DEFAULT_MAX_FILE_BYTES,
                                       DEFAULT_MAX_ROW_BYTES, 0};
    if (limits != NULL) {
        effective.max_rows = limits->max_rows > 0 ? limits->max_rows : effective.max_rows;
        effective.max_file_bytes =
            limits->max_file_bytes > 0 ? limits->max_file_bytes : effective.max_file_bytes;
        effective.max_row_bytes =
            limits->max_row_bytes > 0 ? limits->max_row_bytes : effective.max_row_bytes;
        effective.take = limits->take;
    }
    struct line_reader *reader = mem_calloc(1, sizeof(*reader));
    if (reader == NULL) {
        return mem_fail(err, sizeof(*reader), "a reader of lines");
    }
    struct dataset rows;
    dataset_init(&rows);
    enum status status = line_reader_open(reader, path, &effective, err);
    if (status == STATUS_OK) {
        status = read_rows(reader, &effective, &rows, err);
        line_reader_close(reader);
    }
    free(reader);
    if (status != STATUS_OK) {
        dataset_fini(&rows);
        return status;
    }
    *out = rows;
    return STATUS_OK;
}

/* ---- writing ---- */

/* Writes one row to a stream; provenance is spliced in before the closing brace, so the row itself
 * stays unchanged. */
static bool write_row(FILE *file, const struct dataset *dataset, const struct data_row *row,
                      bool provenance)
{
    char *text = json_print_line(row->object);
    if (text == NULL) {
        return false;
    }
    bool good;
    if (!provenance || cJSON_GetObjectItemCaseSensitive(row->object, "_source") != NULL) {
        good = fprintf(file, "%s\n", text) > 0;
    } else {
        cJSON *name = cJSON_CreateString(dataset->sources[row->source]);
        char *source = name != NULL ? json_print_line(name) : NULL;
        size_t length = strlen(text) - 1; /* without the brace */
        good = source != NULL && fwrite(text, 1, length, file) == length &&
               fprintf(file, "%s\"_source\":%s,\"_line\":%lld}\n",
                       row->object->child != NULL ? "," : "", source, (long long)row->line) > 0;
        cJSON_free(source);
        cJSON_Delete(name);
    }
    cJSON_free(text);
    return good;
}

enum status dataset_write(const struct dataset *dataset, const char *path, bool provenance,
                          struct error *err)
{
    char aside[FILE_PATH_BYTES];
    TRY(file_aside(path, aside, err));
    FILE *file = fopen(aside, "we");
    if (file == NULL) {
        return FAIL_ERRNO(err, "cannot create %s", aside);
    }
    enum status status = STATUS_OK;
    errno = ENOMEM; /* what is left there if printing a row fails without a system call */
    for (int64_t i = 0; i < dataset->count && status == STATUS_OK; i++) {
        if (!write_row(file, dataset, &dataset->rows[i], provenance)) {
            status = FAIL_ERRNO(err, "cannot write %s", aside);
        }
    }
    if (fclose(file) != 0 && status == STATUS_OK) {
        status = FAIL_ERRNO(err, "cannot write %s", aside);
    }
    if (status == STATUS_OK) {
        status = file_commit(aside, path, NULL, err);
    }
    if (status != STATUS_OK) {
        unlink(aside);
    }
    return status;
}

/* ---- identity ---- */

/* Feeds a value and those inside it; every piece is preceded by its type or length, so that no two
 * values agree. */
static void hash_value(XXH3_state_t *state, const cJSON *value)
{
    int type = value->type & 0xFF; /* without cJSON's flags of ownership */
    XXH3_128bits_update(state, &type, sizeof(type));
    if (cJSON_IsString(value)) {
        XXH3_128bits_update(state, value->valuestring, strlen(value->valuestring) + 1);
    } else if (cJSON_IsNumber(value)) {
        XXH3_128bits_update(state, &value->valuedouble, sizeof(value->valuedouble));
    }
    const cJSON *child = NULL;
    cJSON_ArrayForEach (child, value) {
        if (child->string != NULL) {
            XXH3_128bits_update(state, child->string, strlen(child->string) + 1);
        }
        hash_value(state, child);
    }
    int end = -1;
    XXH3_128bits_update(state, &end, sizeof(end));
}

void dataset_hash(const struct dataset *dataset, char out[33])
{
    XXH3_state_t state;
    XXH3_128bits_reset(&state);
    for (int64_t i = 0; i < dataset->count; i++) {
        hash_value(&state, dataset->rows[i].object);
    }
    XXH128_hash_t hash = XXH3_128bits_digest(&state);
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
}
