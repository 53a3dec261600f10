/* The last norm, the product with the vocabulary and the loss, for the wanted rows alone and a
 * chunk at a time: no N x V logits. */
#include "model/transformer_parts.h"

/* The last norm of rows first..first+count-1 of the wanted, into head.norm. */
static void norm_forward(struct transformer *transformer, const struct network *network,
                         int64_t first, int64_t count)
{
    struct device *device = transformer->device;
    const struct head_room *head = &transformer->head;
    struct tensor in = tensor_rows(head->in, 0, count);
    device->ops->gather_rows(device, in, tensor_rows(transformer->last, 0, transformer->tokens),
                             transformer->batch.rows + first);
    device->ops->rmsnorm_forward(device, tensor_rows(head->norm, 0, count), head->rstd, in, NULL,
                                 network_final_norm(network).weight,
                                 (float)network->config->norm_epsilon);
}

static struct tensor logits_forward(struct transformer *transformer, const struct network *network,
                                    enum dtype dtype, int64_t first, int64_t count)
{
    norm_forward(transformer, network, first, count);
    struct tensor logits =
        tensor_matrix(transformer->head.logits, dtype, count, network->config->vocab_size);
    transformer->device->ops->matmul(transformer->device, logits,
                                     tensor_rows(transformer->head.norm, 0, count), false,
                                     network_head(network), true, 1.0f, 0.0f);
    return logits;
}

static int64_t min_count(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

void head_score(struct transformer *transformer, const struct network *network)
{
    struct device *device = transformer->device;
    int64_t rows = transformer->head.rows_f32;
    for (int64_t first = 0; first < transformer->wanted; first += rows) {
        int64_t count = min_count(rows, transformer->wanted - first);
        struct tensor logits = logits_forward(transformer, network, DTYPE_F32, first, count);
        device->ops->cross_entropy(device, transformer->head.losses + first, logits,
                                   transformer->batch.targets + first, 1.0f, false);
    }
}

void head_logits(struct transformer *transformer, const struct network *network, float *logits)
{
    struct device *device = transformer->device;
    int64_t rows = transformer->head.rows_f32;
    for (int64_t first = 0; first < transformer->wanted; first += rows) {
        int64_t count = min_count(rows, transformer->wanted - first);
        struct tensor chunk = logits_forward(transformer, network, DTYPE_F32, first, count);
        device->ops->download(device, logits + first * chunk.cols, chunk.data, tensor_bytes(chunk));
    }
}

/* Gradients of one chunk: d_logits is in the place of the logits; that of the chunk's inputs goes
 * to d_in. */
static void chunk_backward(struct transformer *transformer, const struct network *network,
                           struct tensor d_logits, float *gradients, struct tensor d_in)
{
    struct device *device = transformer->device;
    const struct ops *ops = device->ops;
    struct tensor norm = tensor_rows(transformer->head.norm, 0, d_logits.rows);
    struct tensor weight = network_head(network);
    int64_t offset = network_head_offset(network);
    if (offset >= 0) {
        struct tensor d_weight =
            tensor_matrix(gradients + offset, DTYPE_F32, weight.rows, weight.cols);
        ops->matmul(device, d_weight, d_logits, true, norm, false, 1.0f, 1.0f);
    }
    ops->matmul(device, norm, d_logits, false, weight, false, 1.0f, 0.0f);
    struct norm_view final = network_final_norm(network);
    ops->fill(device, d_in, 0.0f);
    ops->rmsnorm_backward(device, d_in, final.offset >= 0 ? gradients + final.offset : NULL, norm,
                          tensor_rows(transformer->head.in, 0, d_logits.rows), final.weight,
                          transformer->head.rstd);
}

void head_train(struct transformer *transformer, const struct network *network, float factor,
                float *gradients)
{
    struct device *device = transformer->device;
    int64_t rows = transformer->head.rows;
    struct tensor d_wanted = tensor_rows(transformer->scratch.norm, 0, transformer->wanted);
    for (int64_t first = 0; first < transformer->wanted; first += rows) {
        int64_t count = min_count(rows, transformer->wanted - first);
        struct tensor logits =
            logits_forward(transformer, network, transformer->options.compute, first, count);
        device->ops->cross_entropy(device, transformer->head.losses + first, logits,
                                   transformer->batch.targets + first, factor, true);
        chunk_backward(transformer, network, logits, gradients,
                       tensor_rows(d_wanted, first, count));
    }
    /* Back to the places of the rows; the gradient of rows without a target is zero. */
    device->ops->gather_rows(device,
                             tensor_rows(transformer->scratch.d_residual, 0, transformer->tokens),
                             d_wanted, transformer->batch.inverse);
}
