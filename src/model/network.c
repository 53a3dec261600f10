#include "model/network.h"

#include <math.h>
#include <string.h>

#include "model/family.h"

enum { CARVE_ALIGN_BYTES = 256 };

/* ---- memory
 * --------------------------------------------------------------------------------------------------
 */

void *carve_bytes(struct carver *carver, int64_t count, int64_t size)
{
    int64_t bytes = 0;
    int64_t padded = 0;
    int64_t end = 0;
    int64_t start = carver->used_bytes;
    if (__builtin_mul_overflow(count, size, &bytes) ||
        __builtin_add_overflow(bytes, CARVE_ALIGN_BYTES - 1, &padded) ||
        __builtin_add_overflow(start, padded / CARVE_ALIGN_BYTES * CARVE_ALIGN_BYTES, &end)) {
        carver->used_bytes = INT64_MAX;
        return NULL;
    }
    carver->used_bytes = end;
    return carver->base != NULL && bytes > 0 ? carver->base + start : NULL;
}

struct tensor carve_matrix(struct carver *carver, enum dtype dtype, int64_t rows, int64_t cols)
{
    int64_t row_bytes = cols * (int64_t)dtype_bytes(dtype);
    return tensor_matrix(carve_bytes(carver, rows, row_bytes), dtype, rows, cols);
}

/* ---- views
 * ---------------------------------------------------------------------------------------------------
 */

static const struct tensor no_tensor = {NULL, DTYPE_F32, 0, 0, 0};

struct attention_shape network_attention_shape(const struct model_config *config)
{
    struct attention_shape shape = {
        .heads = config->heads,
        .kv_heads = config->kv_heads,
        .head_dim = config->head_dim,
        .scale = (float)(1.0 / sqrt((double)config->head_dim)),
    };
    return shape;
}

int64_t network_qkv_width(const struct model_config *config)
{
    return (config->heads + 2 * config->kv_heads) * config->head_dim;
}

/* Gradients belong to the adapter where there is one; then the weights are frozen. */
static int64_t trained_offset(const struct network *network, int64_t index)
{
    return network->adapter != NULL ? -1 : network->weights->table->items[index].offset;
}

static struct norm_view norm_view_make(const struct network *network, enum param_role role,
                                       int64_t layer)
{
    int64_t index = param_index(network->config, role, layer);
    if (index < 0) {
        return (struct norm_view){no_tensor, -1};
    }
    return (struct norm_view){weights_tensor(network->weights, index),
                              trained_offset(network, index)};
}

/* Adds the adapters of targets first_target, first_target + 1, ... to the parts of a projection. */
static void add_adapters(const struct network *network, int64_t layer, int first_target,
                         struct projection *projection)
{
    const struct lora_config *lora = network->lora;
    int64_t inner = 0;
    for (int i = 0; i < projection->part_count; i++) {
        int64_t index_a = lora_index_a(lora, layer, first_target + i);
        if (index_a < 0) {
            continue;
        }
        if (projection->a.data == NULL) {
            projection->a = weights_tensor(network->adapter, index_a);
            projection->a_offset = network->adapter->table->items[index_a].offset;
        }
        int64_t index_b = lora_index_b(lora, layer, first_target + i);
        struct projection_part *part = &projection->parts[i];
        part->b = weights_tensor(network->adapter, index_b);
        part->b_offset = network->adapter->table->items[index_b].offset;
        part->first_inner = inner;
        inner += lora->rank;
    }
    projection->a.rows = inner;
    projection->scale = (float)(lora->alpha / (double)lora->rank);
}

/* The matrices of `count` roles from `first` on, which lie one under the other in the array. */
static struct projection projection_make(const struct network *network, int64_t layer,
                                         enum param_role first, int count, int first_target)
{
    int64_t index = param_index(network->config, first, layer);
    struct projection projection;
    memset(&projection, 0, sizeof(projection));
    projection.weight = weights_tensor(network->weights, index);
    projection.weight_offset = trained_offset(network, index);
    projection.part_count = count;
    projection.a_offset = -1;
    int64_t rows = 0;
    for (int i = 0; i < count; i++) {
        projection.parts[i].first = rows;
        projection.parts[i].count = network->weights->table->items[index + i].rows;
        projection.parts[i].b_offset = -1;
        rows += projection.parts[i].count;
    }
    projection.weight.rows = rows;
    if (network->adapter != NULL) {
        add_adapters(network, layer, first_target, &projection);
    }
    return projection;
}

struct layer_view layer_view_make(const struct network *network, int64_t layer)
{
    struct layer_view view = {
        .attention_norm = norm_view_make(network, PARAM_ATTENTION_NORM, layer),
        .qkv = projection_make(network, layer, PARAM_QUERY, 3, 0),
        .query_norm = norm_view_make(network, PARAM_QUERY_NORM, layer),
        .key_norm = norm_view_make(network, PARAM_KEY_NORM, layer),
        .output = projection_make(network, layer, PARAM_OUTPUT, 1, 3),
        .mlp_norm = norm_view_make(network, PARAM_MLP_NORM, layer),
        .gate_up = projection_make(network, layer, PARAM_GATE, 2, 4),
        .down = projection_make(network, layer, PARAM_DOWN, 1, 6),
    };
    return view;
}

struct norm_view network_final_norm(const struct network *network)
{
    return norm_view_make(network, PARAM_FINAL_NORM, 0);
}

struct tensor network_embedding(const struct network *network)
{
    return weights_tensor(network->weights, param_index(network->config, PARAM_EMBEDDING, 0));
}

static int64_t head_index(const struct network *network)
{
    enum param_role role = network->config->tied_embeddings ? PARAM_EMBEDDING : PARAM_HEAD;
    return param_index(network->config, role, 0);
}

struct tensor network_head(const struct network *network)
{
    return weights_tensor(network->weights, head_index(network));
}

int64_t network_head_offset(const struct network *network)
{
    return trained_offset(network, head_index(network));
}

struct inner_widths network_inner_widths(const struct network *network)
{
    struct inner_widths widths = {0, 0, 0, 0};
    if (network->lora == NULL) {
        return widths;
    }
    const struct lora_config *lora = network->lora;
    int64_t *const by_target[LORA_TARGET_COUNT] = {
        &widths.qkv,     &widths.qkv,     &widths.qkv,  &widths.output,
        &widths.gate_up, &widths.gate_up, &widths.down,
    };
    for (int target = 0; target < LORA_TARGET_COUNT; target++) {
        *by_target[target] += (lora->targets >> target & 1) != 0 ? lora->rank : 0;
    }
    return widths;
}

/* ---- products
 * ------------------------------------------------------------------------------------------------
 */

/* View of the gradient of a parameter: same shape, f32, at its offset in the trained array. */
static struct tensor gradient_of(struct tensor parameter, float *gradients, int64_t offset)
{
    return tensor_matrix(gradients + offset, DTYPE_F32, parameter.rows, parameter.cols);
}

void projection_forward(struct device *device, const struct projection *projection, struct tensor y,
                        struct tensor x, struct tensor u)
{
    const struct ops *ops = device->ops;
    ops->matmul(device, y, x, false, projection->weight, true, 1.0f, 0.0f);
    if (projection->a.data == NULL) {
        return;
    }
    ops->matmul(device, u, x, false, projection->a, true, 1.0f, 0.0f);
    struct low_rank_part adapted[PROJECTION_PARTS_MAX];
    int count = 0;
    for (int i = 0; i < projection->part_count; i++) {
        const struct projection_part *part = &projection->parts[i];
        if (part->b.data != NULL) {
            adapted[count++] = (struct low_rank_part){part->first, part->first_inner, part->b};
        }
    }
    ops->low_rank_add(device, y, u, adapted, count, projection->scale);
}

/* Gradients of the adapters, and d_u, that of x A^T. */
static void adapters_backward(struct device *device, const struct projection *projection,
                              float *gradients, struct tensor d_y, struct tensor x, struct tensor u,
                              struct tensor d_u)
{
    const struct ops *ops = device->ops;
    for (int i = 0; i < projection->part_count; i++) {
        const struct projection_part *part = &projection->parts[i];
        if (part->b.data == NULL) {
            continue;
        }
        struct tensor d_part = tensor_cols(d_y, part->first, part->count);
        ops->matmul(device, gradient_of(part->b, gradients, part->b_offset), d_part, true,
                    tensor_cols(u, part->first_inner, part->b.cols), false, projection->scale,
                    1.0f);
        ops->matmul(device, tensor_cols(d_u, part->first_inner, part->b.cols), d_part, false,
                    part->b, false, projection->scale, 0.0f);
    }
    ops->matmul(device, gradient_of(projection->a, gradients, projection->a_offset), d_u, true, x,
                false, 1.0f, 1.0f);
}

void projection_backward(struct device *device, const struct projection *projection,
                         float *gradients, struct tensor d_y, struct tensor x, struct tensor u,
                         struct tensor d_u, const struct tensor *d_x)
{
    const struct ops *ops = device->ops;
    if (projection->weight_offset >= 0) {
        ops->matmul(device, gradient_of(projection->weight, gradients, projection->weight_offset),
                    d_y, true, x, false, 1.0f, 1.0f);
    }
    if (projection->a.data != NULL) {
        adapters_backward(device, projection, gradients, d_y, x, u, d_u);
    }
    if (d_x == NULL) {
        return;
    }
    ops->matmul(device, *d_x, d_y, false, projection->weight, false, 1.0f, 0.0f);
    if (projection->a.data != NULL) {
        ops->matmul(device, *d_x, d_u, false, projection->a, false, 1.0f, 1.0f);
    }
}
