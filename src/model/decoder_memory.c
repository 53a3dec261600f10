/* The decoder's memory: one block on the device, a few arrays on the host. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/decoder_parts.h"

enum {
    LOGITS_BYTES = 64 * 1024 * 1024, /* at most, unless one row has more */
    SLOTS_MAX = 1 << 16,
    POSITIONS_MAX = 1 << 28,
    PREFILL_MAX = 1 << 24,
};

static int64_t max_of(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void lay_out_rows(struct carver *carver, struct decoder *decoder,
                         const struct network *network)
{
    const struct model_config *config = network->config;
    struct inner_widths inner = network_inner_widths(network);
    int64_t widest = max_of(max_of(inner.qkv, inner.output), max_of(inner.gate_up, inner.down));
    struct row_room *room = &decoder->room;
    enum dtype compute = decoder->compute;
    int64_t rows = decoder->rows;
    room->residual[0] = carve_matrix(carver, compute, rows, config->hidden_size);
    room->residual[1] = carve_matrix(carver, compute, rows, config->hidden_size);
    room->norm = carve_matrix(carver, compute, rows, config->hidden_size);
    room->qkv = carve_matrix(carver, compute, rows, network_qkv_width(config));
    room->qk_rstd =
        config->qk_norm ? carve_bytes(carver, rows, (config->heads + config->kv_heads) * 4) : NULL;
    room->attention = carve_matrix(carver, compute, rows, config->heads * config->head_dim);
    room->gate_up = carve_matrix(carver, compute, rows, 2 * config->intermediate_size);
    room->act = carve_matrix(carver, compute, rows, config->intermediate_size);
    room->u = carve_matrix(carver, compute, rows, widest);
}

static void lay_out_sample(struct carver *carver, struct decoder *decoder,
                           const struct network *network)
{
    const struct model_config *config = network->config;
    struct sample_room *sample = &decoder->sample;
    int64_t slots = decoder->options.slots;
    int64_t fitting = max_of(LOGITS_BYTES / (config->vocab_size * 4), 1);
    sample->rows = fitting < slots ? fitting : slots;
    sample->in = carve_matrix(carver, decoder->compute, sample->rows, config->hidden_size);
    sample->norm = carve_matrix(carver, decoder->compute, sample->rows, config->hidden_size);
    sample->logits = carve_matrix(carver, DTYPE_F32, sample->rows, config->vocab_size);
    sample->token = carve_bytes(carver, slots, sizeof(int32_t));
}

/* Of the largest pass: R rows, B pieces that are all packed and sampled. */
static int64_t numbers_count(const struct decoder *decoder)
{
    struct pass pass = {
        .rows = decoder->rows, .packed = decoder->options.slots, .sampled = decoder->options.slots};
    return pass_lay_out(NULL, &pass).count;
}

void decoder_lay_out(struct decoder *decoder, const struct network *network, void *block)
{
    const struct model_config *config = network->config;
    const struct decoder_options *options = &decoder->options;
    struct carver carver = {block, 0};
    decoder->rows = max_of(options->slots, options->prefill_tokens);
    decoder->layers = config->layers;
    decoder->cos_sin = carve_matrix(&carver, DTYPE_F32, options->capacity, config->head_dim);
    for (int64_t layer = 0; layer < config->layers; layer++) {
        int64_t rows = options->slots * options->capacity;
        struct kv_cache cache = {.capacity = options->capacity};
        cache.key =
            carve_matrix(&carver, decoder->compute, rows, config->kv_heads * config->head_dim);
        cache.value =
            carve_matrix(&carver, decoder->compute, rows, config->kv_heads * config->head_dim);
        if (decoder->caches != NULL) {
            decoder->caches[layer] = cache;
        }
    }
    lay_out_rows(&carver, decoder, network);
    lay_out_sample(&carver, decoder, network);
    decoder->numbers = carve_bytes(&carver, numbers_count(decoder), sizeof(int32_t));
    decoder->bytes = carver.used_bytes;
}

int64_t decoder_bytes(const struct network *network, const struct decoder_options *options)
{
    struct decoder decoder;
    memset(&decoder, 0, sizeof(decoder));
    decoder.options = *options;
    decoder.compute = network->weights->dtype;
    decoder_lay_out(&decoder, network, NULL);
    return decoder.bytes;
}

static enum status check_options(const struct network *network,
                                 const struct decoder_options *options, struct error *err)
{
    int64_t most = network->config->max_positions < POSITIONS_MAX ? network->config->max_positions
                                                                  : POSITIONS_MAX;
    if (options->slots < 1 || options->slots > SLOTS_MAX) {
        return FAIL(err, STATUS_RANGE, "%lld sequences at a time, allowed are 1 to %d",
                    (long long)options->slots, SLOTS_MAX);
    }
    if (options->capacity < 1 || options->capacity > most) {
        return FAIL(err, STATUS_RANGE, "room for %lld positions, the model has 1 to %lld",
                    (long long)options->capacity, (long long)most);
    }
    if (options->prefill_tokens < 1 || options->prefill_tokens > PREFILL_MAX) {
        return FAIL(err, STATUS_RANGE, "%lld prompt tokens in one pass, allowed are 1 to %d",
                    (long long)options->prefill_tokens, PREFILL_MAX);
    }
    return STATUS_OK;
}

static enum status allocate(struct decoder *decoder, const struct network *network,
                            struct error *err)
{
    size_t slots = (size_t)decoder->options.slots;
    decoder_lay_out(decoder, network, NULL);
    size_t numbers = (size_t)numbers_count(decoder);
    decoder->caches = mem_calloc((size_t)network->config->layers, sizeof(*decoder->caches));
    decoder->staging = mem_calloc(numbers, sizeof(*decoder->staging));
    decoder->length = mem_calloc(slots, sizeof(*decoder->length));
    decoder->taken = mem_calloc(slots, sizeof(*decoder->taken));
    decoder->steps = mem_calloc(slots, sizeof(*decoder->steps));
    if (decoder->caches == NULL || decoder->staging == NULL || decoder->length == NULL ||
        decoder->taken == NULL || decoder->steps == NULL) {
        return mem_fail(err, numbers * sizeof(*decoder->staging), "a decoder");
    }
    if (decoder->bytes == INT64_MAX) {
        return FAIL(err, STATUS_NO_MEMORY,
                    "%zu sequences of %lld positions need more bytes than can be counted", slots,
                    (long long)decoder->options.capacity);
    }
    TRY(decoder->device->ops->alloc(decoder->device, (size_t)decoder->bytes, "generation",
                                    &decoder->block, err));
    decoder_lay_out(decoder, network, decoder->block);
    return rope_table_upload(network->config, decoder->device, decoder->cos_sin, err);
}

enum status decoder_create(struct device *device, const struct network *network,
                           const struct decoder_options *options, struct decoder **out,
                           struct error *err)
{
    TRY(check_options(network, options, err));
    struct decoder *decoder = mem_calloc(1, sizeof(*decoder));
    if (decoder == NULL) {
        return mem_fail(err, sizeof(*decoder), "a decoder");
    }
    decoder->device = device;
    decoder->options = *options;
    decoder->compute = network->weights->dtype;
    enum status status = allocate(decoder, network, err);
    if (status != STATUS_OK) {
        decoder_destroy(decoder);
        return status;
    }
    *out = decoder;
    return STATUS_OK;
}

void decoder_destroy(struct decoder *decoder)
{
    if (decoder == NULL) {
        return;
    }
    if (decoder->steps != NULL) {
        decoder_drop_recordings(decoder);
    }
    decoder->device->ops->free(decoder->device, decoder->block);
    free(decoder->caches);
    free(decoder->staging);
    free(decoder->length);
    free(decoder->taken);
    free(decoder->steps);
    free(decoder);
}
