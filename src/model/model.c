#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/model_tensors.h"

enum { CONFIG_MAX_BYTES = 4 * 1024 * 1024, RANDOM_BLOCK = 4096 };

void model_destroy(struct model *model)
{
    if (model == NULL) {
        return;
    }
    weights_fini(&model->weights);
    param_table_fini(&model->table);
    tokenizer_destroy(model->tokenizer);
    free(model);
}

/* A template that is not known is no reason to refuse the weights: a job can say which format to
 * use. */
static enum status detect_chat(struct model *model, struct error *err)
{
    struct error reason;
    enum status status = chat_format_detect(model->folder, &model->chat, &reason);
    model->chat_known = status == STATUS_OK;
    if (status == STATUS_UNSUPPORTED) {
        model->chat = CHAT_PLAIN;
        return STATUS_OK;
    }
    if (status != STATUS_OK && err != NULL) {
        *err = reason;
    }
    return status;
}

/* An embedding may have more rows than the tokenizer has ids (they are padded), never fewer. */
static enum status check_vocabulary(const struct model *model, struct error *err)
{
    int64_t ids = tokenizer_vocab_size(model->tokenizer);
    if (ids > model->config.vocab_size) {
        return FAIL(err, STATUS_INVALID,
                    "%s: the tokenizer has ids up to %lld, config.json a vocab_size of %lld",
                    model->folder, (long long)ids - 1, (long long)model->config.vocab_size);
    }
    return STATUS_OK;
}

static enum status hash_model(struct model *model, const struct safetensors *file, bool data,
                              const struct progress *progress, struct error *err)
{
    char path[FILE_PATH_BYTES];
    TRY(file_join(model->folder, "config.json", path, err));
    struct buffer config;
    buffer_init(&config, CONFIG_MAX_BYTES);
    struct hash_state *state = hash_create();
    enum status status = file_read(path, &config, err);
    if (status == STATUS_OK && state == NULL) {
        status = mem_fail(err, 0, "a hash");
    }
    if (status == STATUS_OK) {
        hash_update(state, buffer_text(&config), config.len_bytes);
        status = model_tensors_hash(file, &model->table, data, progress, state, err);
    }
    if (status == STATUS_OK) {
        hash_digest(state, model->hash);
    }
    hash_destroy(state);
    buffer_fini(&config);
    return status;
}

/* All but the weights. *file is open on success. */
static enum status open_model(const char *folder, struct model *model, struct safetensors **file,
                              struct error *err)
{
    TRY(file_join("", folder, model->folder, err));
    TRY(model_config_load(folder, &model->config, err));
    TRY(param_table_build(&model->config, &model->table, err));
    TRY(safetensors_open_folder(folder, file, err));
    TRY(model_tensors_check(*file, &model->config, &model->table, folder, err));
    TRY(tokenizer_load(folder, &model->tokenizer, err));
    TRY(check_vocabulary(model, err));
    return detect_chat(model, err);
}

/* device NULL: without weights. */
static enum status read_model(const char *folder, struct device *device, enum dtype dtype,
                              const struct progress *progress, struct model **out,
                              struct error *err)
{
    struct model *model = mem_calloc(1, sizeof(*model));
    if (model == NULL) {
        return mem_fail(err, sizeof(*model), "a model");
    }
    struct safetensors *file = NULL;
    enum status status = open_model(folder, model, &file, err);
    if (status == STATUS_OK) {
        status = hash_model(model, file, device != NULL, progress, err);
    }
    if (status == STATUS_OK && device != NULL) {
        status = weights_create(device, &model->table, dtype, &model->weights, err);
    }
    if (status == STATUS_OK && device != NULL) {
        status = model_tensors_load(file, &model->weights, progress, err);
    }
    safetensors_close(file);
    if (status != STATUS_OK) {
        model_destroy(model);
        return status;
    }
    *out = model;
    return STATUS_OK;
}

enum status model_load(const char *folder, struct device *device, enum dtype dtype,
                       struct model **out, struct error *err)
{
    return read_model(folder, device, dtype, NULL, out, err);
}

enum status model_load_watched(const char *folder, struct device *device, enum dtype dtype,
                               const struct progress *progress, struct model **out,
                               struct error *err)
{
    return read_model(folder, device, dtype, progress, out, err);
}

enum status model_inspect(const char *folder, struct model **out, struct error *err)
{
    return read_model(folder, NULL, DTYPE_F32, NULL, out, err);
}

/* Two normal numbers from two uniform ones (Box and Muller). */
static void normal_pair(uint32_t first, uint32_t second, float scale, float out[2])
{
    float uniform = ((float)(first >> 8) + 1.0f) * 0x1p-24f; /* in (0, 1] */
    float angle = (float)(second >> 8) * (6.2831853f * 0x1p-24f);
    float radius = scale * sqrtf(-2.0f * logf(uniform));
    out[0] = radius * cosf(angle);
    out[1] = radius * sinf(angle);
}

void model_init_random(const struct weights *weights, uint64_t seed)
{
    const float deviation = 0.02f;
    float block[RANDOM_BLOCK];
    for (int64_t index = 0; index < weights->table->count; index++) {
        const struct param *param = &weights->table->items[index];
        int64_t count = param->rows * param->cols;
        for (int64_t done = 0; done < count; done += RANDOM_BLOCK) {
            for (int64_t i = 0; i < RANDOM_BLOCK; i += 4) {
                uint32_t bits[4];
                rng_block(seed, (uint64_t)index, (uint64_t)(done + i) / 4, bits);
                normal_pair(bits[0], bits[1], deviation, &block[i]);
                normal_pair(bits[2], bits[3], deviation, &block[i + 2]);
            }
            for (int64_t i = 0; param->vector && i < RANDOM_BLOCK; i++) {
                block[i] = 1.0f;
            }
            weights_set_range(weights, param->offset + done, block,
                              count - done < RANDOM_BLOCK ? count - done : RANDOM_BLOCK);
        }
    }
}
