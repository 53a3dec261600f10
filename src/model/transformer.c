#include "model/transformer.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/transformer_parts.h"

enum { TOKENS_MAX = 1 << 27 };

int64_t transformer_bytes(const struct network *network, const struct transformer_options *options)
{
    struct transformer transformer;
    memset(&transformer, 0, sizeof(transformer));
    transformer.options = *options;
    transformer_lay_out(&transformer, network, NULL);
    return transformer.bytes;
}

static enum status allocate(struct transformer *transformer, const struct network *network,
                            struct error *err)
{
    const struct ops *ops = transformer->device->ops;
    size_t tokens = (size_t)transformer->options.max_tokens;
    size_t layers = (size_t)network->config->layers;
    transformer->rooms = mem_calloc(layers, sizeof(*transformer->rooms));
    transformer->staging = mem_calloc(6 * tokens + 1, sizeof(*transformer->staging));
    transformer->host_losses = mem_calloc(tokens, sizeof(*transformer->host_losses));
    if (transformer->rooms == NULL || transformer->staging == NULL ||
        transformer->host_losses == NULL) {
        return mem_fail(err, layers * sizeof(*transformer->rooms) + 28 * tokens, "a transformer");
    }
    transformer_lay_out(transformer, network, NULL);
    if (transformer->bytes == INT64_MAX) {
        return FAIL(err, STATUS_NO_MEMORY, "%zu tokens a batch need more bytes than can be counted",
                    tokens);
    }
    TRY(ops->alloc(transformer->device, (size_t)transformer->bytes, "activations",
                   &transformer->block, err));
    transformer_lay_out(transformer, network, transformer->block);
    return rope_table_upload(network->config, transformer->device, transformer->cos_sin, err);
}

enum status transformer_create(struct device *device, const struct network *network,
                               const struct transformer_options *options, struct transformer **out,
                               struct error *err)
{
    if (options->max_tokens < 1 || options->max_tokens > TOKENS_MAX) {
        return FAIL(err, STATUS_RANGE, "%lld tokens a batch, allowed are 1 to %d",
                    (long long)options->max_tokens, TOKENS_MAX);
    }
    if (options->compute != network->weights->dtype) {
        return FAIL(err, STATUS_INVALID, "activations and weights differ in their dtype");
    }
    struct transformer *transformer = mem_calloc(1, sizeof(*transformer));
    if (transformer == NULL) {
        return mem_fail(err, sizeof(*transformer), "a transformer");
    }
    transformer->device = device;
    transformer->options = *options;
    enum status status = allocate(transformer, network, err);
    if (status != STATUS_OK) {
        transformer_destroy(transformer);
        return status;
    }
    *out = transformer;
    return STATUS_OK;
}

void transformer_destroy(struct transformer *transformer)
{
    if (transformer == NULL) {
        return;
    }
    transformer->device->ops->free(transformer->device, transformer->block);
    free(transformer->rooms);
    free(transformer->staging);
    free(transformer->host_losses);
    free(transformer);
}

/* ---- the batch
 * -----------------------------------------------------------------------------------------------
 */

static enum status check_sequences(const struct batch *batch, struct error *err)
{
    bool right = batch->sequences >= 1 && batch->sequences <= batch->tokens &&
                 batch->starts[0] == 0 && batch->starts[batch->sequences] == batch->tokens;
    for (int64_t s = 0; right && s < batch->sequences; s++) {
        right = batch->starts[s] < batch->starts[s + 1];
    }
    if (!right) {
        return FAIL(err, STATUS_RANGE,
                    "the starts of %lld sequences do not rise from 0 to %lld tokens",
                    (long long)batch->sequences, (long long)batch->tokens);
    }
    return STATUS_OK;
}

static enum status check_batch(const struct transformer *transformer, const struct network *network,
                               const struct batch *batch, struct error *err)
{
    int64_t vocab = network->config->vocab_size;
    if (batch->tokens < 1 || batch->tokens > transformer->options.max_tokens) {
        return FAIL(err, STATUS_RANGE, "a batch of %lld tokens, allowed are 1 to %lld",
                    (long long)batch->tokens, (long long)transformer->options.max_tokens);
    }
    TRY(check_sequences(batch, err));
    for (int64_t i = 0; i < batch->tokens; i++) {
        if (batch->ids[i] < 0 || batch->ids[i] >= vocab) {
            return FAIL(err, STATUS_RANGE, "token %lld has id %d, allowed are 0 to %lld",
                        (long long)i, batch->ids[i], (long long)vocab - 1);
        }
        if (batch->targets[i] < -1 || batch->targets[i] >= vocab) {
            return FAIL(err, STATUS_RANGE, "token %lld has target %d, allowed are -1 to %lld",
                        (long long)i, batch->targets[i], (long long)vocab - 1);
        }
        if (batch->positions[i] < 0 || batch->positions[i] >= transformer->positions) {
            return FAIL(err, STATUS_RANGE, "token %lld is at position %d, allowed are 0 to %lld",
                        (long long)i, batch->positions[i], (long long)transformer->positions - 1);
        }
    }
    return STATUS_OK;
}

/* Next `count` numbers of the staging area, and their place on the device. */
static int32_t *stage(struct transformer *transformer, int64_t *used, int64_t count,
                      int32_t **on_device)
{
    int32_t *host = transformer->staging + *used;
    *on_device = transformer->batch.data + *used;
    *used += count;
    return host;
}

/* Checks the batch and brings it to the device in one upload. Wanted are the given rows or, with
 * rows NULL, those that have a target. */
static enum status load_batch(struct transformer *transformer, const struct network *network,
                              const struct batch *batch, const int32_t *rows, int64_t row_count,
                              struct error *err)
{
    TRY(check_batch(transformer, network, batch, err));
    int64_t n = batch->tokens;
    int64_t used = 0;
    struct batch_room *room = &transformer->batch;
    memcpy(stage(transformer, &used, n, &room->ids), batch->ids, (size_t)n * sizeof(int32_t));
    memcpy(stage(transformer, &used, n, &room->positions), batch->positions,
           (size_t)n * sizeof(int32_t));
    memcpy(stage(transformer, &used, batch->sequences + 1, &room->starts), batch->starts,
           (size_t)(batch->sequences + 1) * sizeof(int32_t));
    int32_t *wanted = stage(transformer, &used, n, &room->rows);
    int32_t *targets = stage(transformer, &used, n, &room->targets);
    int32_t *inverse = stage(transformer, &used, n, &room->inverse);
    int64_t count = 0;
    for (int64_t i = 0; rows == NULL && i < n; i++) {
        inverse[i] = -1;
        if (batch->targets[i] >= 0) {
            inverse[i] = (int32_t)count;
            wanted[count] = (int32_t)i;
            targets[count++] = batch->targets[i];
        }
    }
    for (; count < row_count; count++) {
        if (rows[count] < 0 || rows[count] >= n) {
            return FAIL(err, STATUS_RANGE, "row %d of a batch of %lld tokens", rows[count],
                        (long long)n);
        }
        wanted[count] = rows[count];
    }
    transformer->tokens = n;
    transformer->sequences = batch->sequences;
    transformer->wanted = count;
    transformer->device->ops->upload(transformer->device, room->data, transformer->staging,
                                     (size_t)used * sizeof(int32_t));
    return STATUS_OK;
}

/* Waits for the device, and brings the losses of the wanted rows to host_losses. */
static enum status fetch_losses(struct transformer *transformer, struct error *err)
{
    const struct ops *ops = transformer->device->ops;
    ops->download(transformer->device, transformer->host_losses, transformer->head.losses,
                  (size_t)transformer->wanted * sizeof(float));
    return ops->check(transformer->device, err);
}

/* ---- what is called
 * ------------------------------------------------------------------------------------------ */

enum status transformer_train(struct transformer *transformer, const struct network *network,
                              const struct batch *batch, float factor, float *gradients,
                              double *loss_total, const struct gradient_watch *watch,
                              struct error *err)
{
    if (!transformer->options.training) {
        return FAIL(err, STATUS_INTERNAL, "this transformer was made without room for training");
    }
    TRY(load_batch(transformer, network, batch, NULL, 0, err));
    if (transformer->wanted > 0) {
        transformer_forward(transformer, network);
        head_train(transformer, network, factor, gradients);
        transformer->device->ops->accumulate(transformer->device, loss_total,
                                             transformer->head.losses, transformer->wanted);
        transformer_backward(transformer, network, gradients, watch);
    } else if (watch != NULL) {
        watch->final_from(watch->context, 0);
    }
    return STATUS_OK;
}

enum status transformer_score(struct transformer *transformer, const struct network *network,
                              const struct batch *batch, float *losses, struct error *err)
{
    TRY(load_batch(transformer, network, batch, NULL, 0, err));
    if (transformer->wanted > 0) {
        transformer_forward(transformer, network);
        head_score(transformer, network);
        TRY(fetch_losses(transformer, err));
    }
    int64_t next = 0;
    for (int64_t i = 0; i < batch->tokens; i++) {
        losses[i] = batch->targets[i] >= 0 ? transformer->host_losses[next++] : 0.0f;
    }
    return STATUS_OK;
}

enum status transformer_score_sum(struct transformer *transformer, const struct network *network,
                                  const struct batch *batch, double *loss_total, struct error *err)
{
    TRY(load_batch(transformer, network, batch, NULL, 0, err));
    if (transformer->wanted > 0) {
        transformer_forward(transformer, network);
        head_score(transformer, network);
        transformer->device->ops->accumulate(transformer->device, loss_total,
                                             transformer->head.losses, transformer->wanted);
    }
    return STATUS_OK;
}

enum status transformer_logits(struct transformer *transformer, const struct network *network,
                               const struct batch *batch, const int32_t *rows, int64_t count,
                               float *logits, struct error *err)
{
    if (count < 0 || count > batch->tokens) {
        return FAIL(err, STATUS_RANGE, "%lld rows of a batch of %lld tokens", (long long)count,
                    (long long)batch->tokens);
    }
    if (count == 0) {
        return STATUS_OK;
    }
    TRY(load_batch(transformer, network, batch, rows, count, err));
    transformer_forward(transformer, network);
    head_logits(transformer, network, logits);
    return transformer->device->ops->check(transformer->device, err);
}
