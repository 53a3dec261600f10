/* Where everything of a transformer lies in its one block of device memory. */
#include <string.h>

#include "model/transformer_parts.h"

/* A chunk of logits has 256 rows, with which the products run near their best, but with small
 * vocabularies more and with large ones fewer. */
enum {
    HEAD_ROWS = 256,
    HEAD_LEAST_BYTES = 16 * 1024 * 1024,
    HEAD_MOST_BYTES = 64 * 1024 * 1024,
};

static int64_t max_of(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void lay_out_inputs(struct carver *carver, const struct transformer *transformer,
                           struct layer_room *room, int64_t width)
{
    room->attention_in =
        carve_matrix(carver, transformer->options.compute, transformer->options.max_tokens, width);
}

/* All but the input, which lives longer with recompute. */
static void lay_out_room(struct carver *carver, const struct transformer *transformer,
                         const struct network *network, struct layer_room *room)
{
    const struct model_config *config = network->config;
    enum dtype compute = transformer->options.compute;
    int64_t n = transformer->options.max_tokens;
    bool training = transformer->options.training;
    struct inner_widths inner = network_inner_widths(network);
    room->attention_rstd = training ? carve_bytes(carver, n, sizeof(float)) : NULL;
    room->qkv = carve_matrix(carver, compute, n, network_qkv_width(config));
    room->qk_rstd =
        config->qk_norm ? carve_bytes(carver, n, (config->heads + config->kv_heads) * 4) : NULL;
    room->attention = carve_matrix(carver, compute, n, config->heads * config->head_dim);
    room->log_sum_exp = training ? carve_bytes(carver, n, config->heads * 4) : NULL;
    room->mlp_in = carve_matrix(carver, compute, n, config->hidden_size);
    room->mlp_rstd = training ? carve_bytes(carver, n, sizeof(float)) : NULL;
    room->gate_up = carve_matrix(carver, compute, n, 2 * config->intermediate_size);
    room->u_qkv = carve_matrix(carver, compute, n, inner.qkv);
    room->u_output = carve_matrix(carver, compute, n, inner.output);
    room->u_gate_up = carve_matrix(carver, compute, n, inner.gate_up);
    room->u_down = carve_matrix(carver, compute, n, inner.down);
}

/* Rooms that layers share are laid out once and copied. With transformer->rooms NULL the places are
 * only counted. */
static void lay_out_layers(struct carver *carver, struct transformer *transformer,
                           const struct network *network)
{
    const struct transformer_options *options = &transformer->options;
    bool own_input = options->training;
    bool own_room = options->training && !options->recompute;
    int64_t width = network->config->hidden_size;
    struct layer_room room;
    memset(&room, 0, sizeof(room));
    for (int64_t layer = 0; layer < transformer->layers; layer++) {
        if (layer == 0 || own_input) {
            lay_out_inputs(carver, transformer, &room, width);
        }
        if (layer == 0 || own_room) {
            lay_out_room(carver, transformer, network, &room);
        }
        if (transformer->rooms != NULL) {
            transformer->rooms[layer] = room;
        }
    }
    transformer->last = own_input
                            ? carve_matrix(carver, options->compute, options->max_tokens, width)
                            : room.attention_in;
}

static void lay_out_scratch(struct carver *carver, struct transformer *transformer,
                            const struct network *network)
{
    const struct model_config *config = network->config;
    struct scratch *scratch = &transformer->scratch;
    enum dtype compute = transformer->options.compute;
    int64_t n = transformer->options.max_tokens;
    bool training = transformer->options.training;
    struct inner_widths inner = network_inner_widths(network);
    int64_t widest = max_of(max_of(inner.qkv, inner.output), max_of(inner.gate_up, inner.down));
    int64_t qkv = network_qkv_width(config);
    scratch->norm = carve_matrix(carver, compute, n, config->hidden_size);
    scratch->d_residual = carve_matrix(carver, compute, training ? n : 0, config->hidden_size);
    scratch->d_u = carve_matrix(carver, compute, training ? n : 0, widest);
    struct carver attention = *carver;
    scratch->attention.d_out =
        carve_matrix(&attention, compute, training ? n : 0, config->heads * config->head_dim);
    scratch->attention.d_qkv = carve_matrix(&attention, compute, training ? n : 0, qkv);
    scratch->attention.qkv = carve_matrix(&attention, compute, config->qk_norm ? n : 0, qkv);
    struct carver mlp = *carver;
    scratch->mlp.act = carve_matrix(&mlp, compute, n, config->intermediate_size);
    carver->used_bytes = max_of(attention.used_bytes, mlp.used_bytes);
}

static int64_t choose_head_rows(int64_t row_bytes)
{
    int64_t most = max_of(HEAD_MOST_BYTES / row_bytes, 1);
    int64_t rows = HEAD_ROWS < most ? HEAD_ROWS : most;
    return max_of(rows, HEAD_LEAST_BYTES / row_bytes);
}

static void lay_out_head(struct carver *carver, struct transformer *transformer,
                         const struct network *network)
{
    const struct model_config *config = network->config;
    struct head_room *head = &transformer->head;
    const struct transformer_options *options = &transformer->options;
    /* Gradients are in the compute dtype, and so are the logits whose place they take; scores are
     * in f32. */
    int64_t row_bytes =
        config->vocab_size * (int64_t)dtype_bytes(options->training ? options->compute : DTYPE_F32);
    int64_t rows = options->head_rows > 0 ? options->head_rows : choose_head_rows(row_bytes);
    head->rows = rows < options->max_tokens ? rows : options->max_tokens;
    head->rows_f32 = max_of(head->rows * row_bytes / (config->vocab_size * 4), 1);
    int64_t most = max_of(head->rows, head->rows_f32);
    head->in = carve_matrix(carver, options->compute, most, config->hidden_size);
    head->norm = carve_matrix(carver, options->compute, most, config->hidden_size);
    head->rstd = carve_bytes(carver, most, sizeof(float));
    head->logits = carve_bytes(carver, 1, max_of(head->rows * row_bytes, config->vocab_size * 4));
    head->losses = carve_bytes(carver, options->max_tokens, sizeof(float));
}

void transformer_lay_out(struct transformer *transformer, const struct network *network,
                         void *block)
{
    struct carver carver = {block, 0};
    const struct model_config *config = network->config;
    int64_t n = transformer->options.max_tokens;
    transformer->layers = config->layers;
    /* Positions count from the start of a sequence, so a batch has none beyond its tokens. */
    transformer->positions = n < config->max_positions ? n : config->max_positions;
    transformer->cos_sin =
        carve_matrix(&carver, DTYPE_F32, transformer->positions, config->head_dim);
    lay_out_layers(&carver, transformer, network);
    lay_out_scratch(&carver, transformer, network);
    lay_out_head(&carver, transformer, network);
    transformer->batch.data = carve_bytes(&carver, 6 * n + 1, sizeof(int32_t));
    transformer->bytes = carver.used_bytes;
}
