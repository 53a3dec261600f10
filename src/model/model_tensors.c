#include "model/model_tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/mem.h"
#include "model/family.h"
#include "model/number.h"

enum { PROBLEMS_MAX_BYTES = 64 * 1024, SHAPE_BYTES = 128, BLOCK_ELEMENTS = 64 * 1024 };

/* ---- check
 * ---------------------------------------------------------------------------------------------------
 */

struct problems {
    struct buffer text; /* "; " between them */
    int64_t count;
};

static bool dtype_is_read(enum safetensors_dtype dtype)
{
    return dtype == SAFETENSORS_F32 || dtype == SAFETENSORS_BF16 || dtype == SAFETENSORS_F16;
}

static bool shape_matches(const struct safetensors_entry *entry, const struct param *param)
{
    if (param->vector) {
        return entry->dimensions == 1 && entry->shape[0] == param->cols;
    }
    return entry->dimensions == 2 && entry->shape[0] == param->rows &&
           entry->shape[1] == param->cols;
}

static void expected_shape(const struct param *param, char out[SHAPE_BYTES])
{
    if (param->vector) {
        snprintf(out, SHAPE_BYTES, "[%lld]", (long long)param->cols);
    } else {
        snprintf(out, SHAPE_BYTES, "[%lld, %lld]", (long long)param->rows, (long long)param->cols);
    }
}

static const char *separator(struct problems *problems)
{
    return problems->count++ > 0 ? "; " : "";
}

static void check_param(const struct safetensors *file, const struct param *param,
                        struct problems *problems)
{
    char expected[SHAPE_BYTES];
    expected_shape(param, expected);
    const struct safetensors_entry *entry = safetensors_find(file, param->name);
    if (entry == NULL) {
        buffer_printf(&problems->text, "%s%s is missing, expected %s", separator(problems),
                      param->name, expected);
        return;
    }
    if (!dtype_is_read(entry->dtype)) {
        buffer_printf(&problems->text, "%s%s: %s has dtype %s, allowed are F32, BF16, F16",
                      separator(problems), entry->file, entry->name,
                      safetensors_dtype_name(entry->dtype));
    }
    if (!shape_matches(entry, param)) {
        char found[SHAPE_BYTES];
        safetensors_shape_text(entry, found, sizeof(found));
        buffer_printf(&problems->text, "%s%s: %s has shape %s, expected %s", separator(problems),
                      entry->file, entry->name, found, expected);
    }
}

/* Some files of tied models hold the head besides the embedding. That is fine if it is the same. */
static bool is_tied_copy(const struct safetensors *file, const struct model_config *config,
                         const struct safetensors_entry *entry)
{
    if (!config->tied_embeddings || strcmp(entry->name, config->family->names[PARAM_HEAD]) != 0) {
        return false;
    }
    const struct safetensors_entry *embedding =
        safetensors_find(file, config->family->names[PARAM_EMBEDDING]);
    return embedding != NULL && embedding->dtype == entry->dtype &&
           embedding->len_bytes == entry->len_bytes &&
           memcmp(embedding->data, entry->data, entry->len_bytes) == 0;
}

static int compare_texts(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* Reports the tensors that the model has no parameter for. */
static enum status check_extra(const struct safetensors *file, const struct model_config *config,
                               const struct param_table *table, struct problems *problems,
                               struct error *err)
{
    const char **names = mem_calloc((size_t)table->count, sizeof(*names));
    if (names == NULL) {
        return mem_fail(err, (size_t)table->count * sizeof(*names), "names of tensors");
    }
    for (int64_t i = 0; i < table->count; i++) {
        names[i] = table->items[i].name;
    }
    qsort(names, (size_t)table->count, sizeof(*names), compare_texts);
    for (int64_t i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_entry *entry = safetensors_at(file, i);
        const char *name = entry->name;
        if (bsearch(&name, names, (size_t)table->count, sizeof(*names), compare_texts) == NULL &&
            !model_family_ignores(config->family, name) && !is_tied_copy(file, config, entry)) {
            char found[SHAPE_BYTES];
            safetensors_shape_text(entry, found, sizeof(found));
            buffer_printf(&problems->text, "%s%s: %s of shape %s is not part of %s",
                          separator(problems), entry->file, name, found,
                          config->family->architecture);
        }
    }
    free(names);
    return STATUS_OK;
}

enum status model_tensors_check(const struct safetensors *file, const struct model_config *config,
                                const struct param_table *table, const char *folder,
                                struct error *err)
{
    struct problems problems = {.count = 0};
    buffer_init(&problems.text, PROBLEMS_MAX_BYTES);
    for (int64_t i = 0; i < table->count; i++) {
        check_param(file, &table->items[i], &problems);
    }
    enum status status = check_extra(file, config, table, &problems, err);
    if (status == STATUS_OK && problems.count > 0) {
        status = FAIL(err, STATUS_INVALID, "%s: %lld of its tensors do not fit config.json: %.700s",
                      folder, (long long)problems.count, buffer_text(&problems.text));
    }
    buffer_fini(&problems.text);
    return status;
}

/* ---- identity
 * ------------------------------------------------------------------------------------------------
 */

enum status model_tensors_hash(const struct safetensors *file, const struct param_table *table,
                               bool data, const struct progress *progress, struct hash_state *state,
                               struct error *err)
{
    for (int64_t i = 0; i < table->count; i++) {
        const struct safetensors_entry *entry = safetensors_find(file, table->items[i].name);
        char shape[SHAPE_BYTES];
        char line[512];
        safetensors_shape_text(entry, shape, sizeof(shape));
        int length = snprintf(line, sizeof(line), "%s %s %s\n", entry->name,
                              safetensors_dtype_name(entry->dtype), shape);
        hash_update(state, line, (size_t)length);
        if (data) {
            TRY(progress_tick(progress, "load", i, 2 * table->count, err));
            hash_update(state, entry->data, entry->len_bytes);
        }
    }
    return STATUS_OK;
}

/* ---- load
 * ----------------------------------------------------------------------------------------------------
 */

/* `count` elements from the element at `first` of an entry, as f32. The data may lie at any
 * alignment. */
static void widen(const struct safetensors_entry *entry, int64_t first, int64_t count, float *out)
{
    size_t size = safetensors_dtype_bytes(entry->dtype);
    const unsigned char *from = (const unsigned char *)entry->data + (size_t)first * size;
    if (entry->dtype == SAFETENSORS_F32) {
        memcpy(out, from, (size_t)count * size);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, from + (size_t)i * size, sizeof(bits));
        out[i] = entry->dtype == SAFETENSORS_BF16 ? number_from_bf16(bits) : number_from_f16(bits);
    }
}

static void load_param(const struct safetensors_entry *entry, const struct weights *weights,
                       int64_t index, float *block)
{
    bool same = (entry->dtype == SAFETENSORS_F32 && weights->dtype == DTYPE_F32) ||
                (entry->dtype == SAFETENSORS_BF16 && weights->dtype == DTYPE_BF16);
    if (same) {
        weights->device->ops->upload(weights->device, weights_tensor(weights, index).data,
                                     entry->data, entry->len_bytes);
        return;
    }
    const struct param *param = &weights->table->items[index];
    int64_t count = param->rows * param->cols;
    for (int64_t done = 0; done < count; done += BLOCK_ELEMENTS) {
        int64_t part = count - done < BLOCK_ELEMENTS ? count - done : BLOCK_ELEMENTS;
        widen(entry, done, part, block);
        weights_set_range(weights, param->offset + done, block, part);
    }
}

enum status model_tensors_load(const struct safetensors *file, const struct weights *weights,
                               const struct progress *progress, struct error *err)
{
    enum status status = STATUS_OK;
    const struct param_table *table = weights->table;
    float *block = mem_aligned(BLOCK_ELEMENTS, sizeof(*block));
    if (block == NULL) {
        return mem_fail(err, BLOCK_ELEMENTS * sizeof(*block), "reading tensors");
    }
    for (int64_t i = 0; i < table->count; i++) { /* the first half was their hash */
        TRY_CLEANUP(progress_tick(progress, "load", table->count + i, 2 * table->count, err));
        load_param(safetensors_find(file, table->items[i].name), weights, i, block);
    }
    status = weights->device->ops->check(weights->device, err);
cleanup:
    free(block);
    return status;
}
