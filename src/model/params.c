#include "model/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/family.h"
#include "model/number.h"

enum {
    ALIGN_ELEMENTS = 32, /* 64 bytes of bf16: a cache line, and an AVX-512 register */
    BLOCK_ELEMENTS = 4096,
    FIRST_CAPACITY = 64,
};

enum status param_table_append(struct param_table *table, const struct param *param, bool joined,
                               struct error *err)
{
    /* The capacity is a power of two at least FIRST_CAPACITY, so the count alone says when it is
     * full. */
    bool full = table->count == 0 ||
                (table->count >= FIRST_CAPACITY && (table->count & (table->count - 1)) == 0);
    if (full) {
        size_t capacity = table->count == 0 ? FIRST_CAPACITY : (size_t)table->count * 2;
        struct param *items = mem_realloc(table->items, capacity, sizeof(*items));
        if (items == NULL) {
            return mem_fail(err, capacity * sizeof(*items), "the table of parameters");
        }
        table->items = items;
    }
    struct param *item = &table->items[table->count];
    *item = *param;
    int64_t aligned = (table->elements + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
    item->offset = joined ? table->elements : aligned;
    table->elements = item->offset + item->rows * item->cols;
    table->count++;
    return STATUS_OK;
}

void param_table_fini(struct param_table *table)
{
    free(table->items);
    memset(table, 0, sizeof(*table));
}

int64_t param_table_find(const struct param_table *table, const char *name)
{
    for (int64_t i = 0; i < table->count; i++) {
        if (strcmp(table->items[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

void param_shape(const struct model_config *config, enum param_role role, int64_t *rows,
                 int64_t *cols)
{
    int64_t width = config->hidden_size;
    int64_t query = config->heads * config->head_dim;
    int64_t key = config->kv_heads * config->head_dim;
    const int64_t shapes[PARAM_ROLE_COUNT][2] = {
        [PARAM_EMBEDDING] = {config->vocab_size, width},
        [PARAM_FINAL_NORM] = {1, width},
        [PARAM_HEAD] = {config->vocab_size, width},
        [PARAM_ATTENTION_NORM] = {1, width},
        [PARAM_QUERY] = {query, width},
        [PARAM_KEY] = {key, width},
        [PARAM_VALUE] = {key, width},
        [PARAM_QUERY_NORM] = {1, config->head_dim},
        [PARAM_KEY_NORM] = {1, config->head_dim},
        [PARAM_OUTPUT] = {width, query},
        [PARAM_MLP_NORM] = {1, width},
        [PARAM_GATE] = {config->intermediate_size, width},
        [PARAM_UP] = {config->intermediate_size, width},
        [PARAM_DOWN] = {width, config->intermediate_size},
    };
    *rows = shapes[role][0];
    *cols = shapes[role][1];
}

static bool role_exists(const struct model_config *config, enum param_role role)
{
    if (role == PARAM_QUERY_NORM || role == PARAM_KEY_NORM) {
        return config->qk_norm;
    }
    return role != PARAM_HEAD || !config->tied_embeddings;
}

/* Parameters of the roles `first` to `end` (not included) that exist. */
static int64_t count_roles(const struct model_config *config, enum param_role first,
                           enum param_role end)
{
    int64_t count = 0;
    for (enum param_role role = first; role < end; role++) {
        count += role_exists(config, role);
    }
    return count;
}

/* The array holds the embedding, the layers from first to last, the final norm, the head. */
int64_t param_index(const struct model_config *config, enum param_role role, int64_t layer)
{
    if (!role_exists(config, role)) {
        return -1;
    }
    int64_t per_layer = count_roles(config, PARAM_LAYER_FIRST, PARAM_ROLE_COUNT);
    if (role == PARAM_EMBEDDING) {
        return 0;
    }
    if (role < PARAM_LAYER_FIRST) {
        return 1 + config->layers * per_layer + (role == PARAM_HEAD);
    }
    return 1 + layer * per_layer + count_roles(config, PARAM_LAYER_FIRST, role);
}

static bool is_norm(enum param_role role)
{
    return role == PARAM_FINAL_NORM || role == PARAM_ATTENTION_NORM || role == PARAM_MLP_NORM ||
           role == PARAM_QUERY_NORM || role == PARAM_KEY_NORM;
}

/* Without an entry for a role that does not exist. */
static enum status append_role(const struct model_config *config, enum param_role role,
                               int64_t layer, struct param_table *table, struct error *err)
{
    if (!role_exists(config, role)) {
        return STATUS_OK;
    }
    struct param param;
    memset(&param, 0, sizeof(param));
    const char *name = config->family->names[role];
    if (role >= PARAM_LAYER_FIRST) {
        snprintf(param.name, sizeof(param.name), "%s%lld.%s", config->family->layer_prefix,
                 (long long)layer, name);
    } else {
        snprintf(param.name, sizeof(param.name), "%s", name);
    }
    param_shape(config, role, &param.rows, &param.cols);
    param.vector = is_norm(role);
    param.decay = !param.vector;
    return param_table_append(table, &param,
                              role == PARAM_KEY || role == PARAM_VALUE || role == PARAM_UP, err);
}

static enum status append_all(const struct model_config *config, struct param_table *table,
                              struct error *err)
{
    TRY(append_role(config, PARAM_EMBEDDING, 0, table, err));
    for (int64_t layer = 0; layer < config->layers; layer++) {
        for (enum param_role role = PARAM_LAYER_FIRST; role < PARAM_ROLE_COUNT; role++) {
            TRY(append_role(config, role, layer, table, err));
        }
    }
    TRY(append_role(config, PARAM_FINAL_NORM, 0, table, err));
    return append_role(config, PARAM_HEAD, 0, table, err);
}

enum status param_table_build(const struct model_config *config, struct param_table *out,
                              struct error *err)
{
    struct param_table table = {NULL, 0, 0};
    enum status status = append_all(config, &table, err);
    if (status != STATUS_OK) {
        param_table_fini(&table);
        return status;
    }
    *out = table;
    return STATUS_OK;
}

enum status weights_create(struct device *device, const struct param_table *table, enum dtype dtype,
                           struct weights *out, struct error *err)
{
    void *data = NULL;
    size_t bytes = (size_t)table->elements * dtype_bytes(dtype);
    TRY(device->ops->alloc(device, bytes, "weights", &data, err));
    device->ops->fill(device, tensor_matrix(data, dtype, 1, table->elements), 0.0f);
    *out = (struct weights){.device = device, .table = table, .dtype = dtype, .data = data};
    return STATUS_OK;
}

void weights_fini(struct weights *weights)
{
    if (weights->device != NULL) {
        weights->device->ops->free(weights->device, weights->data);
    }
    memset(weights, 0, sizeof(*weights));
}

static void *element_at(const struct weights *weights, int64_t offset)
{
    return (char *)weights->data + (size_t)offset * dtype_bytes(weights->dtype);
}

struct tensor weights_tensor(const struct weights *weights, int64_t index)
{
    const struct param *param = &weights->table->items[index];
    return tensor_matrix(element_at(weights, param->offset), weights->dtype, param->rows,
                         param->cols);
}

void weights_get(const struct weights *weights, int64_t index, float *host)
{
    const struct param *param = &weights->table->items[index];
    const struct ops *ops = weights->device->ops;
    int64_t count = param->rows * param->cols;
    if (weights->dtype == DTYPE_F32) {
        ops->download(weights->device, host, element_at(weights, param->offset),
                      (size_t)count * sizeof(float));
        return;
    }
    uint16_t block[BLOCK_ELEMENTS];
    for (int64_t done = 0; done < count; done += BLOCK_ELEMENTS) {
        int64_t part = count - done < BLOCK_ELEMENTS ? count - done : BLOCK_ELEMENTS;
        ops->download(weights->device, block, element_at(weights, param->offset + done),
                      (size_t)part * sizeof(block[0]));
        for (int64_t i = 0; i < part; i++) {
            host[done + i] = number_from_bf16(block[i]);
        }
    }
}

void weights_set_range(const struct weights *weights, int64_t offset, const float *host,
                       int64_t count)
{
    const struct ops *ops = weights->device->ops;
    if (weights->dtype == DTYPE_F32) {
        ops->upload(weights->device, element_at(weights, offset), host,
                    (size_t)count * sizeof(float));
        return;
    }
    uint16_t block[BLOCK_ELEMENTS];
    for (int64_t done = 0; done < count; done += BLOCK_ELEMENTS) {
        int64_t part = count - done < BLOCK_ELEMENTS ? count - done : BLOCK_ELEMENTS;
        for (int64_t i = 0; i < part; i++) {
            block[i] = number_to_bf16(host[done + i]);
        }
        ops->upload(weights->device, element_at(weights, offset + done), block,
                    (size_t)part * sizeof(block[0]));
    }
}

void weights_set(const struct weights *weights, int64_t index, const float *host)
{
    const struct param *param = &weights->table->items[index];
    weights_set_range(weights, param->offset, host, param->rows * param->cols);
}
