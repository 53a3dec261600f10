#include "model/decoder.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/network.h"

enum {
    LOGITS_BYTES = 64 * 1024 * 1024, /* at most, unless one row has more */
    SLOTS_MAX = 1 << 16,
    POSITIONS_MAX = 1 << 28,
    PREFILL_MAX = 1 << 24,
    NUMBERS_PER_ROW = 4, /* id, position, slot, and the row that is sampled */
};

/* All on the device; R rows at a time. */
struct row_room {
    struct tensor residual[2]; /* (R,C): they take turns */
    struct tensor norm;        /* (R,C) */
    struct tensor qkv;         /* (R,(H+2K)*D) */
    float *qk_rstd;            /* (R,H+K) with qk_norm */
    struct tensor attention;   /* (R,H*D) */
    struct tensor gate_up;     /* (R,2F) */
    struct tensor act;         /* (R,F) */
    struct tensor u;           /* (R, widest u of the adapters) */
};

struct head_room {
    int64_t rows;         /* of logits at a time */
    struct tensor in;     /* (rows,C) */
    struct tensor norm;   /* (rows,C) */
    struct tensor logits; /* (rows,V) f32 */
    int32_t *token;       /* (rows) */
    float *uniform;       /* (rows) */
};

struct decoder {
    struct device *device;
    struct decoder_options options;
    enum dtype compute;
    int64_t rows; /* R */
    int64_t layers;
    int64_t bytes;
    void *block;
    struct tensor cos_sin;   /* (T,D) f32 */
    struct kv_cache *caches; /* (L) */
    struct row_room room;
    struct head_room head;
    int32_t *numbers;  /* device: ids, positions, slots, sampled rows, of one pass */
    int32_t *staging;  /* host: the same */
    int64_t *length;   /* (B) positions that each slot has */
    int64_t *entry_of; /* (R) entry that a sampled row of this pass belongs to */
    bool *taken;       /* (B) scratch: slots of this call */
};

/* One pass: the rows that are computed together. */
struct pass {
    int64_t rows;
    int64_t sampled;
    const int32_t *ids; /* device */
    const int32_t *positions;
    const int32_t *slots;
    const int32_t *wanted; /* (sampled) rows that end an entry */
};

/* ---- memory
 * --------------------------------------------------------------------------------------------------
 */

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

static void lay_out_head(struct carver *carver, struct decoder *decoder,
                         const struct network *network)
{
    const struct model_config *config = network->config;
    struct head_room *head = &decoder->head;
    int64_t fitting = max_of(LOGITS_BYTES / (config->vocab_size * 4), 1);
    head->rows = fitting < decoder->options.slots ? fitting : decoder->options.slots;
    head->in = carve_matrix(carver, decoder->compute, head->rows, config->hidden_size);
    head->norm = carve_matrix(carver, decoder->compute, head->rows, config->hidden_size);
    head->logits = carve_matrix(carver, DTYPE_F32, head->rows, config->vocab_size);
    head->token = carve_bytes(carver, head->rows, sizeof(int32_t));
    head->uniform = carve_bytes(carver, head->rows, sizeof(float));
}

/* With block NULL only the size is computed. */
static void lay_out(struct decoder *decoder, const struct network *network, void *block)
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
    lay_out_head(&carver, decoder, network);
    decoder->numbers = carve_bytes(&carver, decoder->rows, NUMBERS_PER_ROW * sizeof(int32_t));
    decoder->bytes = carver.used_bytes;
}

int64_t decoder_bytes(const struct network *network, const struct decoder_options *options)
{
    struct decoder decoder;
    memset(&decoder, 0, sizeof(decoder));
    decoder.options = *options;
    decoder.compute = network->weights->dtype;
    lay_out(&decoder, network, NULL);
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
    lay_out(decoder, network, NULL);
    size_t rows = (size_t)decoder->rows;
    decoder->caches = mem_calloc((size_t)network->config->layers, sizeof(*decoder->caches));
    decoder->staging = mem_calloc(rows, NUMBERS_PER_ROW * sizeof(*decoder->staging));
    decoder->entry_of = mem_calloc(rows, sizeof(*decoder->entry_of));
    decoder->length = mem_calloc(slots, sizeof(*decoder->length));
    decoder->taken = mem_calloc(slots, sizeof(*decoder->taken));
    if (decoder->caches == NULL || decoder->staging == NULL || decoder->entry_of == NULL ||
        decoder->length == NULL || decoder->taken == NULL) {
        return mem_fail(err, rows * 24, "a decoder");
    }
    if (decoder->bytes == INT64_MAX) {
        return FAIL(err, STATUS_NO_MEMORY,
                    "%zu sequences of %lld positions need more bytes than can be counted", slots,
                    (long long)decoder->options.capacity);
    }
    TRY(decoder->device->ops->alloc(decoder->device, (size_t)decoder->bytes, "generation",
                                    &decoder->block, err));
    lay_out(decoder, network, decoder->block);
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
    decoder->device->ops->free(decoder->device, decoder->block);
    free(decoder->caches);
    free(decoder->staging);
    free(decoder->entry_of);
    free(decoder->length);
    free(decoder->taken);
    free(decoder);
}

/* ---- one pass
 * ------------------------------------------------------------------------------------------------
 */

/* First `rows` rows of scratch for u, as wide as a projection's adapters. */
static struct tensor u_of(const struct decoder *decoder, const struct projection *projection,
                          int64_t rows)
{
    return tensor_matrix(decoder->room.u.data, decoder->compute, rows, projection->a.rows);
}

static void attention_forward(struct decoder *decoder, const struct network *network, int64_t layer,
                              const struct layer_view *view, const struct pass *pass)
{
    struct device *device = decoder->device;
    const struct ops *ops = device->ops;
    struct attention_shape shape = network_attention_shape(network->config);
    struct tensor qkv = tensor_rows(decoder->room.qkv, 0, pass->rows);
    const struct kv_cache *cache = &decoder->caches[layer];
    const struct tensor *query_norm = network->config->qk_norm ? &view->query_norm.weight : NULL;
    const struct tensor *key_norm = network->config->qk_norm ? &view->key_norm.weight : NULL;
    projection_forward(device, &view->qkv, qkv, tensor_rows(decoder->room.norm, 0, pass->rows),
                       u_of(decoder, &view->qkv, pass->rows));
    ops->qk_norm_rope_forward(device, qkv, decoder->room.qk_rstd, qkv, &shape, query_norm, key_norm,
                              (float)network->config->norm_epsilon, decoder->cos_sin,
                              pass->positions);
    /* All rows are in the cache before any attends: so a pass may hold many tokens of one sequence.
     */
    ops->kv_append(device, cache, qkv, &shape, pass->slots, pass->positions);
    ops->attention_decode(device, tensor_rows(decoder->room.attention, 0, pass->rows), qkv, cache,
                          &shape, pass->slots, pass->positions);
}

/* The residual stream changes its buffer with each addition, as in transformer_layer.c. *residual
 * is what the next norm has to add. */
static void layer_forward(struct decoder *decoder, const struct network *network, int64_t layer,
                          const struct pass *pass, const struct tensor *residual)
{
    struct device *device = decoder->device;
    const struct ops *ops = device->ops;
    struct layer_view view = layer_view_make(network, layer);
    float epsilon = (float)network->config->norm_epsilon;
    struct tensor in = tensor_rows(decoder->room.residual[0], 0, pass->rows);
    struct tensor middle = tensor_rows(decoder->room.residual[1], 0, pass->rows);
    struct tensor norm = tensor_rows(decoder->room.norm, 0, pass->rows);
    struct tensor attention = tensor_rows(decoder->room.attention, 0, pass->rows);
    struct tensor gate_up = tensor_rows(decoder->room.gate_up, 0, pass->rows);
    struct tensor act = tensor_rows(decoder->room.act, 0, pass->rows);
    ops->rmsnorm_forward(device, norm, NULL, in, residual, view.attention_norm.weight, epsilon);
    attention_forward(decoder, network, layer, &view, pass);
    projection_forward(device, &view.output, middle, attention,
                       u_of(decoder, &view.output, pass->rows));
    ops->rmsnorm_forward(device, norm, NULL, middle, &in, view.mlp_norm.weight, epsilon);
    projection_forward(device, &view.gate_up, gate_up, norm,
                       u_of(decoder, &view.gate_up, pass->rows));
    ops->swiglu_forward(device, act, gate_up);
    projection_forward(device, &view.down, in, act, u_of(decoder, &view.down, pass->rows));
}

/* Samples the tokens after the rows that end an entry. */
static void sample_pass(struct decoder *decoder, const struct network *network,
                        const struct pass *pass, const struct sampling *sampling,
                        const float *uniform, int32_t *token)
{
    struct device *device = decoder->device;
    const struct ops *ops = device->ops;
    const struct head_room *head = &decoder->head;
    float *uniforms = (float *)(void *)decoder->staging; /* free again: the pass is on the device */
    for (int64_t first = 0; first < pass->sampled; first += head->rows) {
        int64_t count = pass->sampled - first < head->rows ? pass->sampled - first : head->rows;
        struct tensor in = tensor_rows(head->in, 0, count);
        struct tensor norm = tensor_rows(head->norm, 0, count);
        struct tensor logits = tensor_rows(head->logits, 0, count);
        ops->gather_rows(device, in, tensor_rows(decoder->room.residual[0], 0, pass->rows),
                         pass->wanted + first);
        ops->rmsnorm_forward(device, norm, NULL, in, NULL, network_final_norm(network).weight,
                             (float)network->config->norm_epsilon);
        ops->matmul(device, logits, norm, false, network_head(network), true, 1.0f, 0.0f);
        for (int64_t i = 0; i < count && uniform != NULL; i++) {
            uniforms[i] = uniform[decoder->entry_of[first + i]];
        }
        if (uniform != NULL) {
            ops->upload(device, head->uniform, uniforms, (size_t)count * sizeof(float));
        }
        ops->sample(device, head->token, logits, sampling, head->uniform);
        ops->download(device, decoder->staging, head->token, (size_t)count * sizeof(int32_t));
        for (int64_t i = 0; i < count; i++) {
            token[decoder->entry_of[first + i]] = decoder->staging[i];
        }
    }
}

static void run_pass(struct decoder *decoder, const struct network *network,
                     const struct pass *pass)
{
    struct device *device = decoder->device;
    struct tensor in = tensor_rows(decoder->room.residual[0], 0, pass->rows);
    struct tensor middle = tensor_rows(decoder->room.residual[1], 0, pass->rows);
    device->ops->gather_rows(device, in, network_embedding(network), pass->ids);
    for (int64_t layer = 0; layer < decoder->layers; layer++) {
        layer_forward(decoder, network, layer, pass, layer > 0 ? &middle : NULL);
    }
    device->ops->add(device, in, middle);
}

/* ---- entries
 * -------------------------------------------------------------------------------------------------
 */

static enum status check_entry(const struct decoder *decoder, int64_t entry, int32_t slot,
                               int32_t position, int32_t count, struct error *err)
{
    if (slot < 0 || slot >= decoder->options.slots || decoder->taken[slot]) {
        return FAIL(err, STATUS_RANGE, "entry %lld has slot %d, allowed are 0 to %lld, each once",
                    (long long)entry, slot, (long long)decoder->options.slots - 1);
    }
    if (position < 0 || position > decoder->length[slot]) {
        return FAIL(err, STATUS_RANGE,
                    "entry %lld starts at position %d, slot %d has %lld positions",
                    (long long)entry, position, slot, (long long)decoder->length[slot]);
    }
    if (count < 1 || count > decoder->options.capacity - position) {
        return FAIL(err, STATUS_RANGE,
                    "entry %lld has %d ids from position %d on, there is room for %lld",
                    (long long)entry, count, position, (long long)decoder->options.capacity);
    }
    return STATUS_OK;
}

static enum status check_feed(struct decoder *decoder, const struct network *network,
                              const int32_t *ids, const int32_t *slot, const int32_t *position,
                              const int32_t *count, int64_t entries, struct error *err)
{
    if (entries < 1 || entries > decoder->options.slots) {
        return FAIL(err, STATUS_RANGE, "%lld entries, allowed are 1 to %lld", (long long)entries,
                    (long long)decoder->options.slots);
    }
    memset(decoder->taken, 0, (size_t)decoder->options.slots * sizeof(*decoder->taken));
    int64_t next = 0;
    for (int64_t entry = 0; entry < entries; entry++) {
        TRY(check_entry(decoder, entry, slot[entry], position[entry], count[entry], err));
        decoder->taken[slot[entry]] = true;
        for (int64_t i = next; i < next + count[entry]; i++) {
            if (ids[i] < 0 || ids[i] >= network->config->vocab_size) {
                return FAIL(err, STATUS_RANGE, "entry %lld has id %d, allowed are 0 to %lld",
                            (long long)entry, ids[i], (long long)network->config->vocab_size - 1);
            }
        }
        next += count[entry];
    }
    return STATUS_OK;
}

/* Where the packing of entries into passes stands. */
struct cursor {
    int64_t entry; /* the one at hand */
    int32_t done;  /* of its ids */
    int64_t next;  /* in ids */
};

/* Fills the next pass with up to R ids and uploads its numbers. */
static struct pass next_pass(struct decoder *decoder, const int32_t *ids, const int32_t *slot,
                             const int32_t *position, const int32_t *count, int64_t entries,
                             struct cursor *cursor)
{
    int32_t *host_ids = decoder->staging;
    int32_t *host_positions = host_ids + decoder->rows;
    int32_t *host_slots = host_positions + decoder->rows;
    int32_t *host_wanted = host_slots + decoder->rows;
    struct pass pass = {0,
                        0,
                        decoder->numbers,
                        decoder->numbers + decoder->rows,
                        decoder->numbers + 2 * decoder->rows,
                        decoder->numbers + 3 * decoder->rows};
    while (pass.rows < decoder->rows && cursor->entry < entries) {
        host_ids[pass.rows] = ids[cursor->next++];
        host_positions[pass.rows] = position[cursor->entry] + cursor->done++;
        host_slots[pass.rows] = slot[cursor->entry];
        if (cursor->done == count[cursor->entry]) {
            host_wanted[pass.sampled] = (int32_t)pass.rows;
            decoder->entry_of[pass.sampled++] = cursor->entry++;
            cursor->done = 0;
        }
        pass.rows++;
    }
    decoder->device->ops->upload(decoder->device, decoder->numbers, decoder->staging,
                                 (size_t)decoder->rows * NUMBERS_PER_ROW * sizeof(int32_t));
    return pass;
}

enum status decoder_feed(struct decoder *decoder, const struct network *network, const int32_t *ids,
                         const int32_t *slot, const int32_t *position, const int32_t *count,
                         int64_t entries, const struct sampling *sampling, const float *uniform,
                         int32_t *token, struct error *err)
{
    TRY(check_feed(decoder, network, ids, slot, position, count, entries, err));
    struct cursor cursor = {0, 0, 0};
    while (cursor.entry < entries) {
        struct pass pass = next_pass(decoder, ids, slot, position, count, entries, &cursor);
        run_pass(decoder, network, &pass);
        sample_pass(decoder, network, &pass, sampling, uniform, token);
    }
    TRY(decoder->device->ops->check(decoder->device, err));
    for (int64_t entry = 0; entry < entries; entry++) {
        decoder->length[slot[entry]] = position[entry] + count[entry];
    }
    return STATUS_OK;
}
