#include "model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

enum {
    LENGTH_BYTES = 8,                    /* of the length field that a file starts with */
    HEADER_MAX_BYTES = 32 * 1024 * 1024, /* real ones have a few hundred KiB at most */
    INDEX_MAX_BYTES = 32 * 1024 * 1024,
    SHARDS_MAX = 4096,
};

struct mapped_file {
    char *path;
    struct file_map map;
};

struct safetensors {
    struct mapped_file *files;
    int64_t file_count;
    struct safetensors_entry *entries; /* sorted by name */
    int64_t entry_count;
};

struct dtype_row {
    const char *name;
    size_t bytes;
};

static const struct dtype_row dtypes[] = {
#define DTYPE_ROW(name, bytes) {#name, bytes},
    SAFETENSORS_DTYPES(DTYPE_ROW)
#undef DTYPE_ROW
};

const char *safetensors_dtype_name(enum safetensors_dtype dtype)
{
    return dtypes[dtype].name;
}

size_t safetensors_dtype_bytes(enum safetensors_dtype dtype)
{
    return dtypes[dtype].bytes;
}

void safetensors_shape_text(const struct safetensors_entry *entry, char *out, size_t out_bytes)
{
    size_t used = (size_t)snprintf(out, out_bytes, "[");
    for (int i = 0; i < entry->dimensions && used < out_bytes; i++) {
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%lld", i > 0 ? ", " : "",
                                 (long long)entry->shape[i]);
    }
    if (used < out_bytes) {
        snprintf(out + used, out_bytes - used, "]");
    }
}

/* ---- one header
 * ---------------------------------------------------------------------------------------------- */

/* A whole number of the header that is exact as a double. */
static bool read_count(const cJSON *value, int64_t *out)
{
    double number = cJSON_IsNumber(value) ? value->valuedouble : -1.0;
    if (!(number >= 0.0 && number <= 0x1p53)) {
        return false;
    }
    *out = (int64_t)number;
    return (double)*out == number;
}

static bool read_dtype(const cJSON *value, enum safetensors_dtype *out)
{
    for (int i = 0; cJSON_IsString(value) && i < SAFETENSORS_DTYPE_COUNT; i++) {
        if (strcmp(value->valuestring, dtypes[i].name) == 0) {
            *out = (enum safetensors_dtype)i;
            return true;
        }
    }
    return false;
}

/* Fills dimensions and shape, and the bytes that they need; false if that is no shape or overflows.
 */
static bool read_shape(const cJSON *value, struct safetensors_entry *entry, size_t *need_bytes)
{
    if (!cJSON_IsArray(value) || cJSON_GetArraySize(value) > SAFETENSORS_DIMENSIONS_MAX) {
        return false;
    }
    size_t bytes = dtypes[entry->dtype].bytes;
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, value) {
        int64_t length = 0;
        if (!read_count(item, &length) || __builtin_mul_overflow(bytes, (size_t)length, &bytes)) {
            return false;
        }
        entry->shape[entry->dimensions++] = length;
    }
    *need_bytes = bytes;
    return true;
}

/* One "name": {"dtype", "shape", "data_offsets"}; offsets count from the first byte after the
 * header. */
static enum status read_entry(const cJSON *item, const char *path, const unsigned char *data,
                              size_t data_bytes, struct safetensors_entry *entry, struct error *err)
{
    const char *name = item->string;
    if (strlen(name) >= sizeof(entry->name)) {
        return FAIL(err, STATUS_FORMAT, "%s: name of a tensor longer than %zu bytes: %.60s...",
                    path, sizeof(entry->name) - 1, name);
    }
    snprintf(entry->name, sizeof(entry->name), "%s", name);
    entry->file = path;
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(item, "dtype");
    if (!read_dtype(dtype, &entry->dtype)) {
        return FAIL(err, STATUS_FORMAT, "%s: tensor %s: unknown dtype \"%.40s\"", path, name,
                    cJSON_IsString(dtype) ? dtype->valuestring : "?");
    }
    size_t need_bytes = 0;
    if (!read_shape(cJSON_GetObjectItemCaseSensitive(item, "shape"), entry, &need_bytes)) {
        return FAIL(err, STATUS_FORMAT,
                    "%s: tensor %s: \"shape\" is not a list of at most %d lengths", path, name,
                    SAFETENSORS_DIMENSIONS_MAX);
    }
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    int64_t begin = 0;
    int64_t end = 0;
    if (cJSON_GetArraySize(offsets) != 2 || !read_count(cJSON_GetArrayItem(offsets, 0), &begin) ||
        !read_count(cJSON_GetArrayItem(offsets, 1), &end)) {
        return FAIL(err, STATUS_FORMAT, "%s: tensor %s: \"data_offsets\" are not two positions",
                    path, name);
    }
    if (begin > end || (size_t)end > data_bytes) {
        return FAIL(
            err, STATUS_FORMAT,
            "%s: tensor %s lies at bytes %lld to %lld of %zu: the file is cut or its header wrong",
            path, name, (long long)begin, (long long)end, data_bytes);
    }
    entry->len_bytes = (size_t)(end - begin);
    if (entry->len_bytes != need_bytes) {
        char shape[128];
        safetensors_shape_text(entry, shape, sizeof(shape));
        return FAIL(err, STATUS_FORMAT, "%s: tensor %s has %zu bytes, its shape %s of %s needs %zu",
                    path, name, entry->len_bytes, shape, dtypes[entry->dtype].name, need_bytes);
    }
    entry->data = data + begin;
    return STATUS_OK;
}

static int compare_places(const void *left, const void *right)
{
    const struct safetensors_entry *a = left;
    const struct safetensors_entry *b = right;
    if (a->data != b->data) {
        return (const char *)a->data < (const char *)b->data ? -1 : 1;
    }
    return (a->len_bytes > b->len_bytes) - (a->len_bytes < b->len_bytes);
}

static int compare_names(const void *left, const void *right)
{
    return strcmp(((const struct safetensors_entry *)left)->name,
                  ((const struct safetensors_entry *)right)->name);
}

/* The tensors of one file have to cover its data without gaps and overlaps, as the format demands.
 */
static enum status check_coverage(struct safetensors_entry *entries, int64_t count,
                                  const char *path, const unsigned char *data, size_t data_bytes,
                                  struct error *err)
{
    if (count > 0) {
        qsort(entries, (size_t)count, sizeof(*entries), compare_places);
    }
    size_t covered = 0;
    for (int64_t i = 0; i < count; i++) {
        size_t begin = (size_t)((const unsigned char *)entries[i].data - data);
        if (begin != covered) {
            return FAIL(err, STATUS_FORMAT,
                        "%s: tensor %s starts at byte %zu of the data, the one before it %s", path,
                        entries[i].name, begin, begin < covered ? "overlaps it" : "leaves a gap");
        }
        covered = begin + entries[i].len_bytes;
    }
    if (covered != data_bytes) {
        return FAIL(err, STATUS_FORMAT, "%s: the tensors end at byte %zu of %zu bytes of data",
                    path, covered, data_bytes);
    }
    return STATUS_OK;
}

/* Appends the tensors of a parsed header to file->entries. */
static enum status append_entries(struct safetensors *file, const cJSON *header, const char *path,
                                  const unsigned char *data, size_t data_bytes, struct error *err)
{
    int more = cJSON_GetArraySize(header);
    size_t capacity = (size_t)file->entry_count + (size_t)more;
    struct safetensors_entry *grown = mem_realloc(file->entries, capacity, sizeof(*grown));
    if (grown == NULL) {
        return mem_fail(err, capacity * sizeof(*grown), "the list of tensors");
    }
    file->entries = grown;
    int64_t first = file->entry_count;
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, header) {
        if (strcmp(item->string, "__metadata__") == 0) {
            continue;
        }
        struct safetensors_entry *entry = &file->entries[file->entry_count];
        memset(entry, 0, sizeof(*entry));
        TRY(read_entry(item, path, data, data_bytes, entry, err));
        file->entry_count++;
    }
    return check_coverage(file->entries + first, file->entry_count - first, path, data, data_bytes,
                          err);
}

static enum status read_header(struct safetensors *file, const struct mapped_file *mapped,
                               struct error *err)
{
    const struct file_map *map = &mapped->map;
    uint64_t header_bytes = 0;
    if (map->len_bytes < LENGTH_BYTES) {
        return FAIL(err, STATUS_FORMAT, "%s: %zu bytes are too few for a safetensors file",
                    mapped->path, map->len_bytes);
    }
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) {
        header_bytes = header_bytes << 8 | map->data[i];
    }
    if (header_bytes > map->len_bytes - LENGTH_BYTES || header_bytes > HEADER_MAX_BYTES) {
        return FAIL(err, STATUS_FORMAT,
                    "%s: header of %llu bytes in a file of %zu (allowed are %d): cut, or no "
                    "safetensors file",
                    mapped->path, (unsigned long long)header_bytes, map->len_bytes,
                    HEADER_MAX_BYTES);
    }
    cJSON *header = NULL;
    const char *text = (const char *)map->data + LENGTH_BYTES;
    TRY(json_parse(text, (size_t)header_bytes, mapped->path, &header, err));
    enum status status = STATUS_OK;
    if (!cJSON_IsObject(header)) {
        status = FAIL(err, STATUS_FORMAT, "%s: the header is not a JSON object", mapped->path);
    } else {
        status = append_entries(file, header, mapped->path, map->data + LENGTH_BYTES + header_bytes,
                                map->len_bytes - LENGTH_BYTES - (size_t)header_bytes, err);
    }
    cJSON_Delete(header);
    return status;
}

/* ---- files
 * ---------------------------------------------------------------------------------------------------
 */

static enum status add_file(struct safetensors *file, const char *path, struct error *err)
{
    size_t count = (size_t)file->file_count + 1;
    struct mapped_file *grown = mem_realloc(file->files, count, sizeof(*grown));
    if (grown == NULL) {
        return mem_fail(err, count * sizeof(*grown), "the list of shards");
    }
    file->files = grown;
    struct mapped_file *mapped = &grown[file->file_count];
    memset(mapped, 0, sizeof(*mapped));
    mapped->path = mem_strdup(path);
    if (mapped->path == NULL) {
        return mem_fail(err, strlen(path), "a path");
    }
    file->file_count++;
    TRY(file_map_open(path, &mapped->map, err));
    return read_header(file, mapped, err);
}

/* Sorts all entries by name, for safetensors_find, and refuses a name that comes twice. */
static enum status sort_entries(struct safetensors *file, struct error *err)
{
    if (file->entry_count > 0) {
        qsort(file->entries, (size_t)file->entry_count, sizeof(*file->entries), compare_names);
    }
    for (int64_t i = 1; i < file->entry_count; i++) {
        const struct safetensors_entry *entry = &file->entries[i];
        if (strcmp(entry[-1].name, entry->name) == 0) {
            return FAIL(err, STATUS_FORMAT, "%s: tensor %s is there twice%s%s", entry->file,
                        entry->name, entry[-1].file != entry->file ? ", also in " : "",
                        entry[-1].file != entry->file ? entry[-1].file : "");
        }
    }
    return STATUS_OK;
}

enum status safetensors_open_file(const char *path, struct safetensors **out, struct error *err)
{
    struct safetensors *file = mem_calloc(1, sizeof(*file));
    if (file == NULL) {
        return mem_fail(err, sizeof(*file), "a safetensors file");
    }
    enum status status = add_file(file, path, err);
    if (status == STATUS_OK) {
        status = sort_entries(file, err);
    }
    if (status != STATUS_OK) {
        safetensors_close(file);
        return status;
    }
    *out = file;
    return STATUS_OK;
}

/* ---- shards
 * --------------------------------------------------------------------------------------------------
 */

static bool has_file(const struct safetensors *file, const char *path)
{
    for (int64_t i = 0; i < file->file_count; i++) {
        if (strcmp(file->files[i].path, path) == 0) {
            return true;
        }
    }
    return false;
}

/* Path of a shard. It has to be a plain name: the index must not lead out of its folder. */
static enum status shard_path(const char *folder, const char *index_path, const cJSON *item,
                              char out[FILE_PATH_BYTES], struct error *err)
{
    const char *name = cJSON_IsString(item) ? item->valuestring : "";
    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL) {
        return FAIL(err, STATUS_FORMAT,
                    "%s: tensor %.80s is in \"%.80s\", allowed is the name of a file "
                    "in the same folder",
                    index_path, item->string, name);
    }
    return file_join(folder, name, out, err);
}

static enum status add_shards(struct safetensors *file, const char *folder, const char *index_path,
                              const cJSON *weight_map, struct error *err)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, weight_map) {
        char path[FILE_PATH_BYTES];
        TRY(shard_path(folder, index_path, item, path, err));
        if (has_file(file, path)) {
            continue;
        }
        if (file->file_count == SHARDS_MAX) {
            return FAIL(err, STATUS_LIMIT, "%s: more than %d shards", index_path, SHARDS_MAX);
        }
        TRY(add_file(file, path, err));
    }
    return sort_entries(file, err);
}

/* Each tensor of the index has to be in its shard, and no shard may hold another. */
static enum status check_index(const struct safetensors *file, const char *folder,
                               const char *index_path, const cJSON *weight_map, struct error *err)
{
    int64_t listed = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, weight_map) {
        char path[FILE_PATH_BYTES];
        TRY(shard_path(folder, index_path, item, path, err));
        const struct safetensors_entry *entry = safetensors_find(file, item->string);
        if (entry == NULL || strcmp(entry->file, path) != 0) {
            return FAIL(err, STATUS_FORMAT, "%s: tensor %.100s is not in its shard %s", index_path,
                        item->string, path);
        }
        listed++;
    }
    if (listed != file->entry_count) {
        return FAIL(err, STATUS_FORMAT, "%s: lists %lld tensors, the shards hold %lld", index_path,
                    (long long)listed, (long long)file->entry_count);
    }
    return STATUS_OK;
}

static enum status open_index(const char *folder, const char *index_path, struct safetensors *file,
                              struct error *err)
{
    cJSON *json = NULL;
    TRY(json_parse_file(index_path, INDEX_MAX_BYTES, &json, err));
    const cJSON *weight_map = cJSON_GetObjectItemCaseSensitive(json, "weight_map");
    enum status status = STATUS_OK;
    if (!cJSON_IsObject(weight_map)) {
        status = FAIL(err, STATUS_FORMAT, "%s: no object \"weight_map\"", index_path);
    } else {
        status = add_shards(file, folder, index_path, weight_map, err);
    }
    if (status == STATUS_OK) {
        status = check_index(file, folder, index_path, weight_map, err);
    }
    cJSON_Delete(json);
    return status;
}

enum status safetensors_open_folder(const char *folder, struct safetensors **out, struct error *err)
{
    char path[FILE_PATH_BYTES];
    TRY(file_join(folder, "model.safetensors", path, err));
    if (file_exists(path)) {
        return safetensors_open_file(path, out, err);
    }
    TRY(file_join(folder, "model.safetensors.index.json", path, err));
    if (!file_exists(path)) {
        return FAIL(err, STATUS_NOT_FOUND,
                    "%s: neither model.safetensors nor model.safetensors.index.json is there",
                    folder);
    }
    struct safetensors *file = mem_calloc(1, sizeof(*file));
    if (file == NULL) {
        return mem_fail(err, sizeof(*file), "a safetensors file");
    }
    enum status status = open_index(folder, path, file, err);
    if (status != STATUS_OK) {
        safetensors_close(file);
        return status;
    }
    *out = file;
    return STATUS_OK;
}

void safetensors_close(struct safetensors *file)
{
    if (file == NULL) {
        return;
    }
    for (int64_t i = 0; i < file->file_count; i++) {
        file_map_close(&file->files[i].map);
        free(file->files[i].path);
    }
    free(file->files);
    free(file->entries);
    free(file);
}

int64_t safetensors_count(const struct safetensors *file)
{
    return file->entry_count;
}

const struct safetensors_entry *safetensors_at(const struct safetensors *file, int64_t index)
{
    return &file->entries[index];
}

static int compare_key(const void *key, const void *entry)
{
    return strcmp(key, ((const struct safetensors_entry *)entry)->name);
}

const struct safetensors_entry *safetensors_find(const struct safetensors *file, const char *name)
{
    if (file->entry_count == 0) {
        return NULL;
    }
    return bsearch(name, file->entries, (size_t)file->entry_count, sizeof(*file->entries),
                   compare_key);
}
