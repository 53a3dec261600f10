/* Models and adapters out to Hugging Face and PEFT folders. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/lora.h"
#include "model/model.h"
#include "model/number.h"
#include "model/safetensors.h"

enum { COPIED_MAX_BYTES = 256 * 1024 * 1024 };
static const int64_t shard_max_bytes = 5000000000;

/* ---- tensors
 * -------------------------------------------------------------------------------------------------
 */

/* What the reading of tensors for safetensors_write needs. */
struct source {
    const struct weights *weights;
    int64_t first; /* parameter that is entry 0 */
    enum dtype dtype;
    float *block; /* as large as the largest parameter */
};

static enum status read_param(void *context, int64_t index, void *to, struct error *err)
{
    const struct source *source = context;
    int64_t param_index = source->first + index;
    const struct param *param = &source->weights->table->items[param_index];
    int64_t count = param->rows * param->cols;
    if (source->dtype == DTYPE_F32) {
        weights_get(source->weights, param_index, to);
    } else {
        weights_get(source->weights, param_index, source->block);
        for (int64_t i = 0; i < count; i++) {
            ((uint16_t *)to)[i] = number_to_bf16(source->block[i]);
        }
    }
    return source->weights->device->ops->check(source->weights->device, err);
}

static void fill_entry(const struct param *param, enum dtype dtype, struct safetensors_entry *entry)
{
    snprintf(entry->name, sizeof(entry->name), "%s", param->name);
    entry->dtype = dtype == DTYPE_BF16 ? SAFETENSORS_BF16 : SAFETENSORS_F32;
    entry->dimensions = param->vector ? 1 : 2;
    entry->shape[0] = param->vector ? param->cols : param->rows;
    entry->shape[1] = param->vector ? 0 : param->cols;
}

/* Writes `count` parameters from `first` on to one file. */
static enum status write_params(const struct weights *weights, int64_t first, int64_t count,
                                enum dtype dtype, const char *path, struct error *err)
{
    enum status status = STATUS_OK;
    int64_t largest = 0;
    struct source source = {.weights = weights, .first = first, .dtype = dtype};
    struct safetensors_entry *entries = mem_calloc((size_t)count, sizeof(*entries));
    for (int64_t i = 0; entries != NULL && i < count; i++) {
        const struct param *param = &weights->table->items[first + i];
        fill_entry(param, dtype, &entries[i]);
        largest = param->rows * param->cols > largest ? param->rows * param->cols : largest;
    }
    source.block = mem_aligned(dtype == DTYPE_F32 ? 0 : (size_t)largest, sizeof(float));
    if (entries == NULL || source.block == NULL) {
        status = mem_fail(err, (size_t)largest * sizeof(float), "writing tensors");
    } else {
        status = safetensors_write(path, entries, count, read_param, &source, err);
    }
    free(entries);
    free(source.block);
    return status;
}

/* ---- shards
 * --------------------------------------------------------------------------------------------------
 */

static int64_t param_bytes(const struct param *param, enum dtype dtype)
{
    return param->rows * param->cols * (int64_t)dtype_bytes(dtype);
}

/* Parameters from `first` on that fit in one shard; at least one. */
static int64_t shard_count(const struct param_table *table, int64_t first, enum dtype dtype,
                           int64_t shard_bytes)
{
    int64_t bytes = 0;
    int64_t count = 0;
    while (first + count < table->count) {
        bytes += param_bytes(&table->items[first + count], dtype);
        if (count > 0 && bytes > shard_bytes) {
            break;
        }
        count++;
    }
    return count;
}

/* Adds the names of a shard's parameters to the index; false without memory. */
static bool index_shard(cJSON *weight_map, const struct param_table *table, int64_t first,
                        int64_t count, const char *file_name)
{
    for (int64_t i = first; i < first + count; i++) {
        if (cJSON_AddStringToObject(weight_map, table->items[i].name, file_name) == NULL) {
            return false;
        }
    }
    return true;
}

static enum status write_json(const cJSON *json, const char *folder, const char *name,
                              struct error *err)
{
    char path[FILE_PATH_BYTES];
    TRY(file_join(folder, name, path, err));
    char *text = cJSON_Print(json);
    if (text == NULL) {
        return mem_fail(err, 0, path);
    }
    enum status status = file_write(path, text, strlen(text), err);
    cJSON_free(text);
    return status;
}

static enum status write_shards(const struct weights *weights, enum dtype dtype,
                                int64_t shard_bytes, const char *folder, cJSON *weight_map,
                                struct error *err)
{
    const struct param_table *table = weights->table;
    int shards = 0;
    for (int64_t first = 0; first < table->count;) {
        first += shard_count(table, first, dtype, shard_bytes);
        shards++;
    }
    int64_t first = 0;
    for (int shard = 1; shard <= shards; shard++) {
        int64_t count = shard_count(table, first, dtype, shard_bytes);
        char name[64];
        char path[FILE_PATH_BYTES];
        snprintf(name, sizeof(name), "model-%05d-of-%05d.safetensors", shard, shards);
        TRY(file_join(folder, name, path, err));
        TRY(write_params(weights, first, count, dtype, path, err));
        if (!index_shard(weight_map, table, first, count, name)) {
            return mem_fail(err, 0, "the index of shards");
        }
        first += count;
    }
    return STATUS_OK;
}

static enum status write_sharded(const struct weights *weights, enum dtype dtype,
                                 int64_t shard_bytes, const char *folder, double total_bytes,
                                 struct error *err)
{
    cJSON *index = cJSON_CreateObject();
    cJSON *metadata = cJSON_AddObjectToObject(index, "metadata");
    cJSON *weight_map = cJSON_AddObjectToObject(index, "weight_map");
    enum status status = STATUS_OK;
    if (weight_map == NULL ||
        cJSON_AddNumberToObject(metadata, "total_size", total_bytes) == NULL) {
        status = mem_fail(err, 0, "the index of shards");
        goto cleanup;
    }
    /* A single file of an earlier export would win over the index, so it goes first. */
    char single[FILE_PATH_BYTES];
    TRY_CLEANUP(file_join(folder, "model.safetensors", single, err));
    TRY_CLEANUP(write_shards(weights, dtype, shard_bytes, folder, weight_map, err));
    TRY_CLEANUP(file_remove(single, err));
    status = write_json(index, folder, "model.safetensors.index.json", err);

cleanup:
    cJSON_Delete(index);
    return status;
}

static enum status write_weights(const struct weights *weights, enum dtype dtype,
                                 int64_t shard_bytes, const char *folder, struct error *err)
{
    int64_t total = 0;
    for (int64_t i = 0; i < weights->table->count; i++) {
        total += param_bytes(&weights->table->items[i], dtype);
    }
    if (total > shard_bytes) {
        return write_sharded(weights, dtype, shard_bytes, folder, (double)total, err);
    }
    char path[FILE_PATH_BYTES];
    TRY(file_join(folder, "model.safetensors", path, err));
    TRY(write_params(weights, 0, weights->table->count, dtype, path, err));
    TRY(file_join(folder, "model.safetensors.index.json", path, err));
    return file_remove(path, err);
}

/* ---- the files beside them
 * ----------------------------------------------------------------------------------- */

static enum status copy_file(const char *from_folder, const char *to_folder, const char *name,
                             struct error *err)
{
    char from[FILE_PATH_BYTES];
    char to[FILE_PATH_BYTES];
    TRY(file_join(from_folder, name, from, err));
    TRY(file_join(to_folder, name, to, err));
    if (!file_exists(from)) {
        return STATUS_OK;
    }
    struct buffer contents;
    buffer_init(&contents, COPIED_MAX_BYTES);
    enum status status = file_read(from, &contents, err);
    if (status == STATUS_OK) {
        status = file_write(to, buffer_text(&contents), contents.len_bytes, err);
    }
    buffer_fini(&contents);
    return status;
}

static enum status copy_texts(const char *from_folder, const char *to_folder, struct error *err)
{
    static const char *const names[] = {
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "tokenizer.model",
        "chat_template.jinja",
        "LICENSE",
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        TRY(copy_file(from_folder, to_folder, names[i], err));
    }
    return STATUS_OK;
}

/* config.json of the base with the dtype that the weights now have, under the key that it uses. */
static enum status write_config(const char *from_folder, const char *to_folder, enum dtype dtype,
                                struct error *err)
{
    char path[FILE_PATH_BYTES];
    TRY(file_join(from_folder, "config.json", path, err));
    cJSON *json = NULL;
    TRY(json_parse_file(path, COPIED_MAX_BYTES, &json, err));
    const char *text = dtype == DTYPE_BF16 ? "bfloat16" : "float32";
    const char *key =
        cJSON_GetObjectItemCaseSensitive(json, "dtype") != NULL ? "dtype" : "torch_dtype";
    cJSON_DeleteItemFromObjectCaseSensitive(json, "dtype");
    cJSON_DeleteItemFromObjectCaseSensitive(json, "torch_dtype");
    enum status status = cJSON_AddStringToObject(json, key, text) != NULL
                             ? write_json(json, to_folder, "config.json", err)
                             : mem_fail(err, 0, "config.json");
    cJSON_Delete(json);
    return status;
}

static enum status check_folders(const char *base_folder, const char *out_folder, struct error *err)
{
    char base[FILE_PATH_BYTES];
    char out[FILE_PATH_BYTES];
    TRY(file_make_folders(out_folder, err));
    if (realpath(base_folder, base) == NULL) {
        return FAIL_ERRNO(err, "cannot find the base model %s", base_folder);
    }
    if (realpath(out_folder, out) != NULL && strcmp(base, out) == 0) {
        return FAIL(err, STATUS_INVALID, "%s is the base model itself; name another folder",
                    out_folder);
    }
    return STATUS_OK;
}

enum status model_export_sharded(const struct weights *weights, enum dtype dtype,
                                 int64_t shard_bytes, const char *base_folder,
                                 const char *out_folder, struct error *err)
{
    if (base_folder != NULL) {
        TRY(check_folders(base_folder, out_folder, err));
        TRY(write_config(base_folder, out_folder, dtype, err));
        TRY(copy_texts(base_folder, out_folder, err));
    }
    TRY(fault_point("model.export.before_weights", err));
    return write_weights(weights, dtype, shard_bytes, out_folder, err);
}

enum status model_export(const struct weights *weights, enum dtype dtype, const char *base_folder,
                         const char *out_folder, struct error *err)
{
    return model_export_sharded(weights, dtype, shard_max_bytes, base_folder, out_folder, err);
}

/* ---- adapters
 * ------------------------------------------------------------------------------------------------
 */

/* NULL without memory. */
static cJSON *adapter_config(const struct lora_config *lora, const char *base_folder)
{
    cJSON *json = cJSON_CreateObject();
    bool right = cJSON_AddStringToObject(json, "peft_type", "LORA") != NULL &&
                 cJSON_AddStringToObject(json, "task_type", "CAUSAL_LM") != NULL &&
                 cJSON_AddStringToObject(json, "base_model_name_or_path", base_folder) != NULL &&
                 cJSON_AddNumberToObject(json, "r", (double)lora->rank) != NULL &&
                 cJSON_AddNumberToObject(json, "lora_alpha", lora->alpha) != NULL &&
                 cJSON_AddNumberToObject(json, "lora_dropout", 0.0) != NULL &&
                 cJSON_AddStringToObject(json, "bias", "none") != NULL &&
                 cJSON_AddFalseToObject(json, "fan_in_fan_out") != NULL &&
                 cJSON_AddTrueToObject(json, "inference_mode") != NULL;
    cJSON *modules = cJSON_AddArrayToObject(json, "target_modules");
    right = right && modules != NULL;
    for (int target = 0; right && target < LORA_TARGET_COUNT; target++) {
        if ((lora->targets >> target & 1) != 0) {
            right = cJSON_AddItemToArray(modules, cJSON_CreateString(lora_target_name(target)));
        }
    }
    if (!right) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

enum status model_export_adapter(const struct weights *adapter, const struct lora_config *lora,
                                 const char *base_folder, const char *out_folder, struct error *err)
{
    char path[FILE_PATH_BYTES];
    TRY(check_folders(base_folder, out_folder, err));
    TRY(file_join(out_folder, "adapter_model.safetensors", path, err));
    cJSON *config = adapter_config(lora, base_folder);
    if (config == NULL) {
        return mem_fail(err, 0, "adapter_config.json");
    }
    enum status status = write_json(config, out_folder, "adapter_config.json", err);
    cJSON_Delete(config);
    TRY(status);
    return write_params(adapter, 0, adapter->table->count, adapter->dtype, path, err);
}
