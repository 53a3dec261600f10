/* One pass of the decoder: from ids to tokens, all on the device.
 *
 * A step of all sequences reads the weights once and the caches of each: its floor is those bytes.
 * Its operations, some ten a layer, are short, so on a device they are recorded and started
 * together. */
#include <string.h>

#include "model/decoder_parts.h"

enum {
    RECORD_AFTER = 2, /* passes: a recording costs some of them, and row counts come and go */
};

/* ---- layers ---- */

/* First `rows` rows of scratch for u, as wide as a projection's adapters. */
static struct tensor u_of(const struct decoder *decoder, const struct projection *projection,
                          int64_t rows)
{
    return tensor_matrix(decoder->room.u.data, decoder->compute, rows, projection->a.rows);
}

/* All rows are in the cache before any looks there: so a pass may hold many tokens of one sequence.
 */
static void attend(const struct pass *pass, struct tensor qkv, struct tensor attention,
                   int64_t layer)
{
    const struct decoder *decoder = pass->decoder;
    struct device *device = decoder->device;
    const struct ops *ops = device->ops;
    const struct pass_numbers *numbers = &pass->device;
    const struct kv_cache *cache = &decoder->caches[layer];
    struct attention_shape shape = network_attention_shape(pass->feed->network->config);
    ops->kv_append(device, cache, qkv, &shape, numbers->slots, numbers->positions);
    if (pass->looking > 0) {
        ops->attention_decode(device, tensor_rows(attention, 0, pass->looking),
                              tensor_rows(qkv, 0, pass->looking), cache, &shape, numbers->slots,
                              numbers->positions);
    }
    if (pass->packed > 0) {
        int64_t rows = pass->rows - pass->looking;
        ops->attention_forward(device, tensor_rows(attention, pass->looking, rows), NULL,
                               tensor_rows(qkv, pass->looking, rows), &shape, numbers->starts,
                               pass->packed);
    }
}

static void attention_forward(const struct pass *pass, const struct layer_view *view, int64_t layer)
{
    const struct decoder *decoder = pass->decoder;
    const struct model_config *config = pass->feed->network->config;
    struct device *device = decoder->device;
    struct attention_shape shape = network_attention_shape(config);
    struct tensor qkv = tensor_rows(decoder->room.qkv, 0, pass->rows);
    const struct tensor *query_norm = config->qk_norm ? &view->query_norm.weight : NULL;
    const struct tensor *key_norm = config->qk_norm ? &view->key_norm.weight : NULL;
    projection_forward(device, &view->qkv, qkv, tensor_rows(decoder->room.norm, 0, pass->rows),
                       u_of(decoder, &view->qkv, pass->rows));
    device->ops->qk_norm_rope_forward(device, qkv, decoder->room.qk_rstd, qkv, &shape, query_norm,
                                      key_norm, (float)config->norm_epsilon, decoder->cos_sin,
                                      pass->device.positions);
    attend(pass, qkv, tensor_rows(decoder->room.attention, 0, pass->rows), layer);
}

/* The residual stream changes its buffer with each addition, as in transformer_layer.c. *residual
 * is what the next norm has to add. */
static void layer_forward(const struct pass *pass, int64_t layer, const struct tensor *residual)
{
    const struct decoder *decoder = pass->decoder;
    struct device *device = decoder->device;
    const struct ops *ops = device->ops;
    struct layer_view view = layer_view_make(pass->feed->network, layer);
    float epsilon = (float)pass->feed->network->config->norm_epsilon;
    struct tensor in = tensor_rows(decoder->room.residual[0], 0, pass->rows);
    struct tensor middle = tensor_rows(decoder->room.residual[1], 0, pass->rows);
    struct tensor norm = tensor_rows(decoder->room.norm, 0, pass->rows);
    struct tensor attention = tensor_rows(decoder->room.attention, 0, pass->rows);
    struct tensor gate_up = tensor_rows(decoder->room.gate_up, 0, pass->rows);
    struct tensor act = tensor_rows(decoder->room.act, 0, pass->rows);
    ops->rmsnorm_forward(device, norm, NULL, in, residual, view.attention_norm.weight, epsilon);
    attention_forward(pass, &view, layer);
    projection_forward(device, &view.output, middle, attention,
                       u_of(decoder, &view.output, pass->rows));
    ops->rmsnorm_forward(device, norm, NULL, middle, &in, view.mlp_norm.weight, epsilon);
    projection_forward(device, &view.gate_up, gate_up, norm,
                       u_of(decoder, &view.gate_up, pass->rows));
    ops->swiglu_forward(device, act, gate_up);
    projection_forward(device, &view.down, in, act, u_of(decoder, &view.down, pass->rows));
}

/* The tokens after the rows that end an entry. */
static void sample(const struct pass *pass)
{
    const struct decoder *decoder = pass->decoder;
    const struct network *network = pass->feed->network;
    struct device *device = decoder->device;
    const struct ops *ops = device->ops;
    const struct sample_room *room = &decoder->sample;
    struct tensor last = tensor_rows(decoder->room.residual[0], 0, pass->rows);
    for (int64_t first = 0; first < pass->sampled; first += room->rows) {
        int64_t left = pass->sampled - first;
        int64_t count = left < room->rows ? left : room->rows;
        struct tensor in = tensor_rows(room->in, 0, count);
        struct tensor norm = tensor_rows(room->norm, 0, count);
        struct tensor logits = tensor_rows(room->logits, 0, count);
        ops->gather_rows(device, in, last, pass->device.wanted + first);
        ops->rmsnorm_forward(device, norm, NULL, in, NULL, network_final_norm(network).weight,
                             (float)network->config->norm_epsilon);
        ops->matmul(device, logits, norm, false, network_head(network), true, 1.0f, 0.0f);
        ops->sample(device, room->token + pass->entry + first, logits, pass->feed->sampling,
                    pass->device.uniform + first);
    }
}

/* Calls operations alone, with arguments that are a function of the pass: see ops->run_recorded. */
static void enqueue(void *context)
{
    const struct pass *pass = context;
    const struct decoder *decoder = pass->decoder;
    struct tensor in = tensor_rows(decoder->room.residual[0], 0, pass->rows);
    struct tensor middle = tensor_rows(decoder->room.residual[1], 0, pass->rows);
    const struct ops *ops = decoder->device->ops;
    ops->gather_rows(decoder->device, in, network_embedding(pass->feed->network), pass->device.ids);
    for (int64_t layer = 0; layer < decoder->layers; layer++) {
        layer_forward(pass, layer, layer > 0 ? &middle : NULL);
    }
    ops->add(decoder->device, in, middle);
    sample(pass);
}

/* ---- recordings ---- */

void decoder_drop_recordings(struct decoder *decoder)
{
    for (int64_t i = 0; i < decoder->options.slots; i++) {
        decoder->device->ops->recording_free(decoder->device, decoder->steps[i].recording);
        decoder->steps[i] = (struct step_recording){NULL, 0};
    }
}

static struct recorded_for recorded_for_make(const struct feed *feed)
{
    const struct network *network = feed->network;
    struct recorded_for made = {.sampling = *feed->sampling,
                                .config = network->config,
                                .table = network->weights->table,
                                .weights = network->weights->data};
    if (network->adapter != NULL) {
        made.lora = *network->lora;
        made.adapter_table = network->adapter->table;
        made.adapter = network->adapter->data;
    }
    return made;
}

static bool same_sampling(const struct sampling *a, const struct sampling *b)
{
    return a->temperature == b->temperature && a->top_k == b->top_k && a->top_p == b->top_p;
}

static bool recorded_for_same(const struct recorded_for *a, const struct recorded_for *b)
{
    return same_sampling(&a->sampling, &b->sampling) && a->lora.rank == b->lora.rank &&
           a->lora.alpha == b->lora.alpha && a->lora.targets == b->lora.targets &&
           a->config == b->config && a->table == b->table && a->adapter_table == b->adapter_table &&
           a->weights == b->weights && a->adapter == b->adapter;
}

/* A step of each entry of a call: then the pass is the same as every other of so many rows. */
static bool is_step(const struct pass *pass)
{
    return pass->entry == 0 && pass->rows == pass->pieces && pass->sampled == pass->rows &&
           pass->packed == 0;
}

void decoder_run_pass(struct pass *pass)
{
    struct decoder *decoder = pass->decoder;
    struct recorded_for wanted = recorded_for_make(pass->feed);
    if (!recorded_for_same(&decoder->recorded_for, &wanted)) {
        decoder_drop_recordings(decoder);
        decoder->recorded_for = wanted;
    }
    if (!is_step(pass)) {
        enqueue(pass);
        return;
    }
    struct step_recording *step = &decoder->steps[pass->rows - 1];
    if (step->passes < RECORD_AFTER) {
        step->passes++;
        enqueue(pass);
        return;
    }
    decoder->device->ops->run_recorded(decoder->device, &step->recording, enqueue, pass);
}
