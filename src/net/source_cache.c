/* FOLDER/<site>/<hash of the URL>: a line of JSON {url, at, bytes, hash}, then the body as it came.
 * Keys are not part of the URL here. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "net/source_service.h"

enum { HEAD_MAX_BYTES = 16384 };

static enum status entry_path(const char *folder, const char *site, const char *url,
                              char out[FILE_PATH_BYTES], struct error *err)
{
    char hash[HASH_TEXT_BYTES];
    char name[HASH_TEXT_BYTES + 64];
    hash_bytes(url, strlen(url), hash);
    snprintf(name, sizeof(name), "%s/%s", site, hash);
    return file_join(folder, name, out, err);
}

/* Splits an entry after its first line; false if it is not what was written. */
static bool entry_valid(const struct buffer *entry, const char *url, size_t *body_at, double *at)
{
    const char *end = entry->data != NULL ? memchr(entry->data, '\n', entry->len_bytes) : NULL;
    cJSON *head = NULL;
    if (end == NULL ||
        json_parse(entry->data, (size_t)(end - entry->data), "cache", &head, NULL) != STATUS_OK) {
        return false;
    }
    *body_at = (size_t)(end - entry->data) + 1;
    size_t body_bytes = entry->len_bytes - *body_at;
    char hash[HASH_TEXT_BYTES];
    hash_bytes(entry->data + *body_at, body_bytes, hash);
    const cJSON *time = cJSON_GetObjectItemCaseSensitive(head, "at");
    bool valid = strcmp(source_string(head, "url"), url) == 0 &&
                 strcmp(source_string(head, "hash"), hash) == 0 &&
                 source_integer(head, "bytes", -1) == (int64_t)body_bytes && cJSON_IsNumber(time);
    *at = cJSON_IsNumber(time) ? time->valuedouble : 0;
    cJSON_Delete(head);
    return valid;
}

enum status source_cache_read(const char *folder, const char *site, const char *url,
                              struct buffer *out, double *age_s, struct error *err)
{
    char path[FILE_PATH_BYTES];
    struct buffer entry;
    size_t body_at = 0;
    double at = 0;
    TRY(entry_path(folder, site, url, path, err));
    buffer_init(&entry, SOURCE_BODY_MAX_BYTES + HEAD_MAX_BYTES);
    if (file_read(path, &entry, NULL) != STATUS_OK || !entry_valid(&entry, url, &body_at, &at)) {
        buffer_fini(&entry);
        return FAIL(err, STATUS_NOT_FOUND, "%s is not in the cache %s", url, folder);
    }
    buffer_append(out, entry.data + body_at, entry.len_bytes - body_at);
    buffer_fini(&entry);
    *age_s = fmax(0, clock_wall_s() - at); /* a clock that was set back makes nothing older */
    return buffer_check(out, "cached answer", err);
}

enum status source_cache_write(const char *folder, const char *site, const char *url,
                               const char *body, size_t len_bytes, struct error *err)
{
    char path[FILE_PATH_BYTES];
    char site_folder[FILE_PATH_BYTES];
    char hash[HASH_TEXT_BYTES];
    char *line = NULL;
    struct buffer entry;
    enum status status = STATUS_OK;
    buffer_init(&entry, SOURCE_BODY_MAX_BYTES + HEAD_MAX_BYTES);
    hash_bytes(body, len_bytes, hash);
    cJSON *head = cJSON_CreateObject();
    cJSON_AddStringToObject(head, "url", url);
    cJSON_AddNumberToObject(head, "at", floor(clock_wall_s()));
    cJSON_AddNumberToObject(head, "bytes", (double)len_bytes);
    cJSON_AddStringToObject(head, "hash", hash);
    line = json_print_line(head);
    buffer_append_text(&entry, line != NULL ? line : "");
    buffer_append_char(&entry, '\n');
    buffer_append(&entry, body, len_bytes);
    TRY_CLEANUP(buffer_check(&entry, "answer to keep", err));
    TRY_CLEANUP(entry_path(folder, site, url, path, err));
    TRY_CLEANUP(file_folder_of(path, site_folder, err));
    TRY_CLEANUP(file_make_folders(site_folder, err));
    TRY_CLEANUP(file_write(path, entry.data, entry.len_bytes, err));

cleanup:
    cJSON_Delete(head);
    cJSON_free(line);
    buffer_fini(&entry);
    return status;
}
