/* Writing of safetensors files: header, then tensors one at a time. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/safetensors.h"

enum { HEADER_MAX_BYTES = 32 * 1024 * 1024, HEADER_ALIGN = 8 };

static size_t entry_bytes(const struct safetensors_entry *entry)
{
    size_t bytes = safetensors_dtype_bytes(entry->dtype);
    for (int i = 0; i < entry->dimensions; i++) {
        bytes *= (size_t)entry->shape[i];
    }
    return bytes;
}

/* Text of the header, padded with spaces so that the data starts at a multiple of 8. */
static enum status build_header(const struct safetensors_entry *entries, int64_t count,
                                struct buffer *header, struct error *err)
{
    buffer_append_text(header, "{\"__metadata__\":{\"format\":\"pt\"}");
    size_t offset = 0;
    for (int64_t i = 0; i < count; i++) {
        char shape[256];
        safetensors_shape_text(&entries[i], shape, sizeof(shape));
        cJSON *name = cJSON_CreateString(entries[i].name);
        char *quoted = name != NULL ? json_print_line(name) : NULL;
        cJSON_Delete(name);
        if (quoted == NULL) {
            return mem_fail(err, strlen(entries[i].name), "the name of a tensor");
        }
        size_t end = offset + entry_bytes(&entries[i]);
        buffer_printf(header, ",%s:{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                      quoted, safetensors_dtype_name(entries[i].dtype), shape, offset, end);
        free(quoted);
        offset = end;
    }
    buffer_append_char(header, '}');
    while (header->len_bytes % HEADER_ALIGN != 0 && !header->failed) {
        buffer_append_char(header, ' ');
    }
    return buffer_check(header, "the header of a safetensors file", err);
}

static enum status write_bytes(FILE *stream, const char *path, const void *data, size_t len_bytes,
                               struct error *err)
{
    if (len_bytes > 0 && fwrite(data, 1, len_bytes, stream) != len_bytes) {
        return FAIL_ERRNO(err, "cannot write %s", path);
    }
    return STATUS_OK;
}

static enum status write_header(FILE *stream, const char *path, const struct buffer *header,
                                struct error *err)
{
    unsigned char length[8];
    for (size_t i = 0; i < sizeof(length); i++) {
        length[i] = (unsigned char)(header->len_bytes >> (8 * i));
    }
    TRY(write_bytes(stream, path, length, sizeof(length), err));
    return write_bytes(stream, path, header->data, header->len_bytes, err);
}

static enum status write_tensors(FILE *stream, const char *path,
                                 const struct safetensors_entry *entries, int64_t count,
                                 safetensors_read_fn read, void *context, struct error *err)
{
    size_t largest = 0;
    for (int64_t i = 0; i < count; i++) {
        size_t bytes = entry_bytes(&entries[i]);
        largest = bytes > largest ? bytes : largest;
    }
    void *block = mem_aligned(largest, 1);
    if (block == NULL) {
        return mem_fail(err, largest, "a tensor");
    }
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < count && status == STATUS_OK; i++) {
        status = read(context, i, block, err);
        if (status == STATUS_OK) {
            status = fault_point("model.safetensors.write_tensor", err);
        }
        if (status == STATUS_OK) {
            status = write_bytes(stream, path, block, entry_bytes(&entries[i]), err);
        }
    }
    free(block);
    return status;
}

enum status safetensors_write(const char *path, const struct safetensors_entry *entries,
                              int64_t count, safetensors_read_fn read, void *context,
                              struct error *err)
{
    char aside[FILE_PATH_BYTES];
    TRY(file_aside(path, aside, err));
    enum status status = STATUS_OK;
    struct buffer header;
    buffer_init(&header, HEADER_MAX_BYTES);
    FILE *stream = fopen(aside, "wbe");
    if (stream == NULL) {
        status = FAIL_ERRNO(err, "cannot create %s", aside);
        goto cleanup;
    }
    TRY_CLEANUP(build_header(entries, count, &header, err));
    TRY_CLEANUP(write_header(stream, aside, &header, err));
    TRY_CLEANUP(write_tensors(stream, aside, entries, count, read, context, err));
    FILE *closing = stream;
    stream = NULL;
    if (fclose(closing) != 0) {
        status = FAIL_ERRNO(err, "cannot write %s", aside);
        goto cleanup;
    }
    status = file_commit(aside, path, NULL, err);

cleanup:
    if (stream != NULL) {
        fclose(stream);
    }
    if (status != STATUS_OK) {
        unlink(aside); /* what is aside counts for nothing; an error here changes nothing */
    }
    buffer_fini(&header);
    return status;
}
