#include "run/weights_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"

/* Arrays are read from the device one at a time, in the dtype they are computed with. */
struct writing {
    const struct weights *weights;
    const struct progress *progress;
};

static enum status read_parameter(void *context, int64_t index, void *to, struct error *err)
{
    const struct writing *writing = context;
    const struct weights *weights = writing->weights;
    TRY(progress_report(writing->progress, "save", index, weights->table->count, err));
    struct tensor view = weights_tensor(weights, index);
    weights->device->ops->download(weights->device, to, view.data, tensor_bytes(view));
    return weights->device->ops->check(weights->device, err);
}

static void format_lora(const struct lora_config *lora, char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "{\"rank\":%lld,\"alpha\":%.17g,\"targets\":%d}",
             (long long)lora->rank, lora->alpha, lora->targets);
}

enum status weights_file_write(const char *path, const struct model *base,
                               const struct network *network, const char *config, const char *name,
                               const struct progress *progress, struct error *err)
{
    bool adapter = network->adapter != NULL;
    struct writing writing = {.weights = adapter ? network->adapter : network->weights,
                              .progress = progress};
    const struct param_table *table = writing.weights->table;
    struct store_array *arrays = mem_calloc((size_t)table->count, sizeof(*arrays));
    if (arrays == NULL) {
        return mem_fail(err, (size_t)table->count * sizeof(*arrays), "a list of arrays");
    }
    for (int64_t i = 0; i < table->count; i++) {
        const struct param *param = &table->items[i];
        snprintf(arrays[i].name, sizeof(arrays[i].name), "%s", param->name);
        snprintf(arrays[i].meaning, sizeof(arrays[i].meaning), "%s",
                 param->vector ? "norm weights" : "matrix (out features, in features)");
        arrays[i].type = writing.weights->dtype == DTYPE_BF16 ? STORE_BF16 : STORE_F32;
        arrays[i].rows = param->rows;
        arrays[i].cols = param->cols;
        arrays[i].vector = param->vector;
    }
    char lora[160] = "";
    if (adapter) {
        format_lora(network->lora, lora, sizeof(lora));
    }
    const struct store_attribute attributes[] = {
        {"base_folder", base->folder},
        {"base_hash", base->hash},
        {"config", config},
        {"candidate", name},
        {"lora", lora},
    };
    enum status status =
        store_arrays_write(path, adapter ? "adapter" : "weights", arrays, table->count, attributes,
                           adapter ? 5 : 4, read_parameter, &writing, err);
    free(arrays);
    TRY(status);
    return progress_report(progress, "save", table->count, table->count, err);
}

/* Opens either kind. */
static enum status open_either(const char *path, struct store_file **out, bool *is_adapter,
                               struct error *err)
{
    *is_adapter = false;
    if (store_arrays_open(path, "weights", out, err) == STATUS_OK) {
        return STATUS_OK;
    }
    *is_adapter = true;
    return store_arrays_open(path, "adapter", out, err);
}

enum status weights_file_dtype(const char *path, enum dtype *out, struct error *err)
{
    struct store_file *file = NULL;
    bool is_adapter = false;
    TRY(open_either(path, &file, &is_adapter, err));
    enum status status = STATUS_OK;
    if (store_arrays_count(file) < 1) {
        status = FAIL(err, STATUS_CORRUPT, "%s: holds no arrays", path);
    } else {
        *out = store_arrays_at(file, 0)->type == STORE_BF16 ? DTYPE_BF16 : DTYPE_F32;
    }
    store_arrays_close(file);
    return status;
}

static enum status parse_lora(const char *text, const char *path, struct lora_config *out,
                              struct error *err)
{
    cJSON *object = NULL;
    if (text == NULL) {
        return FAIL(err, STATUS_CORRUPT, "%s: an adapter without its attribute lora", path);
    }
    TRY(json_parse(text, strlen(text), path, &object, err));
    struct json_problems problems;
    struct json_reader reader;
    json_problems_init(&problems);
    json_reader_init(&reader, object, "/lora", &problems);
    out->rank = json_read_int(&reader, "rank", 0, 1, 256);
    out->alpha = json_read_number(&reader, "alpha", 0.0, 0.0, 1e6);
    out->targets = (int)json_read_int(&reader, "targets", 0, 1, LORA_ALL);
    json_reader_finish(&reader);
    enum status status = json_problems_check(&problems, path, err);
    json_problems_fini(&problems);
    cJSON_Delete(object);
    return status;
}

/* Fills every parameter of `weights` from the file's array of the same name. */
static enum status read_parameters(struct store_file *file, const char *path,
                                   const struct weights *weights, const struct progress *progress,
                                   struct error *err)
{
    enum status status = STATUS_OK;
    void *host = NULL;
    for (int64_t i = 0; i < weights->table->count; i++) {
        const struct param *param = &weights->table->items[i];
        TRY(progress_tick(progress, "load", i, weights->table->count, err));
        int64_t index = store_arrays_find(file, param->name);
        if (index < 0) {
            return FAIL(err, STATUS_CORRUPT, "%s: has no array %s", path, param->name);
        }
        const struct store_array *array = store_arrays_at(file, index);
        enum store_type type = weights->dtype == DTYPE_BF16 ? STORE_BF16 : STORE_F32;
        if (array->rows != param->rows || array->cols != param->cols || array->type != type) {
            return FAIL(err, STATUS_CORRUPT, "%s: %s is %lld x %lld, the model's is %lld x %lld",
                        path, param->name, (long long)array->rows, (long long)array->cols,
                        (long long)param->rows, (long long)param->cols);
        }
        struct tensor view = weights_tensor(weights, i);
        host = mem_aligned((size_t)(param->rows * param->cols), dtype_bytes(weights->dtype));
        if (host == NULL) {
            return mem_fail(err, tensor_bytes(view), param->name);
        }
        status = store_arrays_read(file, index, host, err);
        if (status == STATUS_OK) {
            weights->device->ops->upload(weights->device, view.data, host, tensor_bytes(view));
            status = weights->device->ops->check(weights->device, err);
        }
        free(host);
        TRY(status);
    }
    return STATUS_OK;
}

enum status weights_file_read(const char *path, const struct model *base,
                              const struct progress *progress, struct loaded_network *out,
                              struct error *err)
{
    memset(out, 0, sizeof(*out));
    struct store_file *file = NULL;
    enum status status = STATUS_OK;
    const struct param_table *table = &base->table;
    TRY_CLEANUP(open_either(path, &file, &out->is_adapter, err));
    const char *hash = store_arrays_attribute(file, "base_hash");
    if (hash == NULL || strcmp(hash, base->hash) != 0) {
        status =
            FAIL(err, STATUS_INVALID,
                 "%s was trained from a base model with hash %s, but %s has %s; give the model "
                 "it was trained from",
                 path, hash != NULL ? hash : "(none)", base->folder, base->hash);
        goto cleanup;
    }
    if (out->is_adapter) {
        TRY_CLEANUP(parse_lora(store_arrays_attribute(file, "lora"), path, &out->lora, err));
        TRY_CLEANUP(lora_table_build(&base->config, &out->lora, &out->table, err));
        table = &out->table;
    }
    TRY_CLEANUP(
        weights_create(base->weights.device, table, base->weights.dtype, &out->weights, err));
    TRY_CLEANUP(read_parameters(file, path, &out->weights, progress, err));
    out->network.config = &base->config;
    out->network.weights = out->is_adapter ? &base->weights : &out->weights;
    out->network.adapter = out->is_adapter ? &out->weights : NULL;
    out->network.lora = out->is_adapter ? &out->lora : NULL;
cleanup:
    store_arrays_close(file);
    if (status != STATUS_OK) {
        loaded_network_fini(out);
    }
    return status;
}

void loaded_network_fini(struct loaded_network *loaded)
{
    if (loaded->weights.device != NULL) {
        weights_fini(&loaded->weights);
    }
    param_table_fini(&loaded->table);
    memset(loaded, 0, sizeof(*loaded));
}
