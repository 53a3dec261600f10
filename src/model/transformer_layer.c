/* The layers of the transformer, forward and backward.
 *
 * The residual stream is never copied: a projection writes its output to a buffer of its own, and
 * the norm after it adds the stream to that buffer before it normalises. So the buffer becomes the
 * stream, and the old one stays as it was, for the backward pass. */
#include "model/family.h"
#include "model/transformer_parts.h"

/* First n rows. */
static struct tensor rows_of(struct tensor whole, int64_t n)
{
    return whole.data != NULL ? tensor_rows(whole, 0, n) : whole;
}

static struct layer_room room_rows(const struct layer_room *room, int64_t n)
{
    struct layer_room view = *room;
    view.attention_in = rows_of(room->attention_in, n);
    view.qkv = rows_of(room->qkv, n);
    view.attention = rows_of(room->attention, n);
    view.mlp_in = rows_of(room->mlp_in, n);
    view.gate_up = rows_of(room->gate_up, n);
    view.u_qkv = rows_of(room->u_qkv, n);
    view.u_output = rows_of(room->u_output, n);
    view.u_gate_up = rows_of(room->u_gate_up, n);
    view.u_down = rows_of(room->u_down, n);
    return view;
}

static struct scratch scratch_rows(const struct scratch *scratch, int64_t n)
{
    struct scratch view = *scratch;
    view.norm = rows_of(scratch->norm, n);
    view.d_residual = rows_of(scratch->d_residual, n);
    view.d_u = rows_of(scratch->d_u, n);
    view.attention.d_out = rows_of(scratch->attention.d_out, n);
    view.attention.d_qkv = rows_of(scratch->attention.d_qkv, n);
    view.attention.qkv = rows_of(scratch->attention.qkv, n);
    view.mlp.act = rows_of(scratch->mlp.act, n);
    return view;
}

/* Scratch for the gradient of u, of u's width. */
static struct tensor d_u_of(const struct scratch *scratch, struct tensor u)
{
    return u.data != NULL ? tensor_matrix(scratch->d_u.data, u.dtype, u.rows, u.cols) : u;
}

static const struct tensor *norm_weight(const struct norm_view *norm)
{
    return norm->weight.data != NULL ? &norm->weight : NULL;
}

static float *norm_gradient(const struct norm_view *norm, float *gradients)
{
    return norm->offset >= 0 ? gradients + norm->offset : NULL;
}

/* One layer's work: what all of its steps read. */
struct step {
    struct device *device;
    const struct ops *ops;
    const struct transformer *transformer;
    float epsilon;
    struct attention_shape shape;
    struct layer_view view;
    struct layer_room room;
    struct scratch scratch;
    bool qk_norm;
};

static struct step step_make(const struct transformer *transformer, const struct network *network,
                             int64_t layer)
{
    struct step step = {
        .device = transformer->device,
        .ops = transformer->device->ops,
        .transformer = transformer,
        .epsilon = (float)network->config->norm_epsilon,
        .shape = network_attention_shape(network->config),
        .view = layer_view_make(network, layer),
        .room = room_rows(&transformer->rooms[layer], transformer->tokens),
        .scratch = scratch_rows(&transformer->scratch, transformer->tokens),
        .qk_norm = network->config->qk_norm,
    };
    return step;
}

/* ---- forward
 * -------------------------------------------------------------------------------------------------
 */

/* Query and key after norm and rope: in their own room, or in scratch where the room keeps them as
 * they were before the norm. */
static struct tensor turn(const struct step *step)
{
    struct tensor to = step->qk_norm ? step->scratch.attention.qkv : step->room.qkv;
    step->ops->qk_norm_rope_forward(step->device, to, step->room.qk_rstd, step->room.qkv,
                                    &step->shape, norm_weight(&step->view.query_norm),
                                    norm_weight(&step->view.key_norm), step->epsilon,
                                    step->transformer->cos_sin, step->transformer->batch.positions);
    return to;
}

/* residual: what is still to be added to the layer's input, or NULL. */
static void attention_forward(const struct step *step, const struct tensor *residual)
{
    const struct layer_room *room = &step->room;
    step->ops->rmsnorm_forward(step->device, step->scratch.norm, room->attention_rstd,
                               room->attention_in, residual, step->view.attention_norm.weight,
                               step->epsilon);
    projection_forward(step->device, &step->view.qkv, room->qkv, step->scratch.norm, room->u_qkv);
    struct tensor qkv = turn(step);
    step->ops->attention_forward(step->device, room->attention, room->log_sum_exp, qkv,
                                 &step->shape, step->transformer->batch.starts,
                                 step->transformer->sequences);
    projection_forward(step->device, &step->view.output, room->mlp_in, room->attention,
                       room->u_output);
    step->ops->rmsnorm_forward(step->device, step->scratch.norm, room->mlp_rstd, room->mlp_in,
                               &room->attention_in, step->view.mlp_norm.weight, step->epsilon);
}

/* scratch.norm holds the normalised input. */
static void gate_up_forward(const struct step *step)
{
    projection_forward(step->device, &step->view.gate_up, step->room.gate_up, step->scratch.norm,
                       step->room.u_gate_up);
}

static void down_forward(const struct step *step, struct tensor out)
{
    step->ops->swiglu_forward(step->device, step->scratch.mlp.act, step->room.gate_up);
    projection_forward(step->device, &step->view.down, out, step->scratch.mlp.act,
                       step->room.u_down);
}

void transformer_forward(struct transformer *transformer, const struct network *network)
{
    const struct ops *ops = transformer->device->ops;
    int64_t n = transformer->tokens;
    struct tensor first = tensor_rows(transformer->rooms[0].attention_in, 0, n);
    ops->gather_rows(transformer->device, first, network_embedding(network),
                     transformer->batch.ids);
    struct tensor residual = first; /* what the next norm has to add; nothing at first */
    for (int64_t layer = 0; layer < transformer->layers; layer++) {
        struct step step = step_make(transformer, network, layer);
        attention_forward(&step, layer > 0 ? &residual : NULL);
        gate_up_forward(&step);
        bool last = layer + 1 == transformer->layers;
        struct tensor next = last ? transformer->last : transformer->rooms[layer + 1].attention_in;
        down_forward(&step, tensor_rows(next, 0, n));
        residual = step.room.mlp_in;
    }
    ops->add(transformer->device, tensor_rows(transformer->last, 0, n), residual);
}

/* ---- backward
 * ------------------------------------------------------------------------------------------------
 */

static bool reads_input(const struct projection *projection)
{
    return projection->weight_offset >= 0 || projection->a.data != NULL;
}

static void norm_again(const struct step *step, struct tensor in, const struct norm_view *norm)
{
    step->ops->rmsnorm_forward(step->device, step->scratch.norm, NULL, in, NULL, norm->weight,
                               step->epsilon);
}

/* d_residual += the gradient of `in` through a norm whose output has the gradient scratch.norm. */
static void norm_backward(const struct step *step, struct tensor in, const float *rstd,
                          const struct norm_view *norm, float *gradients)
{
    step->ops->rmsnorm_backward(step->device, step->scratch.d_residual,
                                norm_gradient(norm, gradients), step->scratch.norm, in,
                                norm->weight, rstd);
}

/* gate_up's room becomes its own gradient; act's scratch becomes the gradient of act. */
static void down_backward(const struct step *step, float *gradients, bool more)
{
    const struct scratch *scratch = &step->scratch;
    if (reads_input(&step->view.down)) {
        step->ops->swiglu_forward(step->device, scratch->mlp.act, step->room.gate_up);
    }
    projection_backward(step->device, &step->view.down, gradients, scratch->d_residual,
                        scratch->mlp.act, step->room.u_down, d_u_of(scratch, step->room.u_down),
                        more ? &scratch->mlp.act : NULL);
    if (more) {
        step->ops->swiglu_backward(step->device, step->room.gate_up, scratch->mlp.act,
                                   step->room.gate_up);
    }
}

static void gate_up_backward(const struct step *step, float *gradients, bool more)
{
    const struct scratch *scratch = &step->scratch;
    if (reads_input(&step->view.gate_up)) {
        norm_again(step, step->room.mlp_in, &step->view.mlp_norm);
    }
    projection_backward(step->device, &step->view.gate_up, gradients, step->room.gate_up,
                        scratch->norm, step->room.u_gate_up, d_u_of(scratch, step->room.u_gate_up),
                        more ? &scratch->norm : NULL);
    if (more) {
        norm_backward(step, step->room.mlp_in, step->room.mlp_rstd, &step->view.mlp_norm,
                      gradients);
    }
}

static void output_backward(const struct step *step, float *gradients, bool more)
{
    projection_backward(step->device, &step->view.output, gradients, step->scratch.d_residual,
                        step->room.attention, step->room.u_output,
                        d_u_of(&step->scratch, step->room.u_output),
                        more ? &step->scratch.attention.d_out : NULL);
}

static void attention_backward(const struct step *step, float *gradients)
{
    const struct scratch *scratch = &step->scratch;
    const struct layer_room *room = &step->room;
    const struct layer_view *view = &step->view;
    struct tensor qkv = step->qk_norm ? turn(step) : room->qkv;
    step->ops->attention_backward(step->device, scratch->attention.d_qkv, scratch->attention.d_out,
                                  qkv, room->attention, room->log_sum_exp, &step->shape,
                                  step->transformer->batch.starts, step->transformer->sequences);
    step->ops->qk_norm_rope_backward(
        step->device, scratch->attention.d_qkv, norm_gradient(&view->query_norm, gradients),
        norm_gradient(&view->key_norm, gradients), room->qkv, room->qk_rstd, &step->shape,
        norm_weight(&view->query_norm), norm_weight(&view->key_norm), step->transformer->cos_sin,
        step->transformer->batch.positions);
}

static void qkv_backward(const struct step *step, float *gradients, bool more)
{
    const struct scratch *scratch = &step->scratch;
    if (reads_input(&step->view.qkv)) {
        norm_again(step, step->room.attention_in, &step->view.attention_norm);
    }
    projection_backward(step->device, &step->view.qkv, gradients, scratch->attention.d_qkv,
                        scratch->norm, step->room.u_qkv, d_u_of(scratch, step->room.u_qkv),
                        more ? &scratch->norm : NULL);
    if (more) {
        norm_backward(step, step->room.attention_in, step->room.attention_rstd,
                      &step->view.attention_norm, gradients);
    }
}

/* below: something under this layer is trained. Each part is left out if nothing at or under it is.
 */
static void layer_backward(const struct step *step, float *gradients, bool below)
{
    bool into_qkv = below || reads_input(&step->view.qkv);
    bool into_output = into_qkv || reads_input(&step->view.output);
    bool into_gate_up = into_output || reads_input(&step->view.gate_up);
    down_backward(step, gradients, into_gate_up);
    if (into_gate_up) {
        gate_up_backward(step, gradients, into_output);
    }
    if (into_output) {
        output_backward(step, gradients, into_qkv);
    }
    if (into_qkv) {
        attention_backward(step, gradients);
        qkv_backward(step, gradients, below);
    }
}

/* Where the trained parameters of a layer begin in the array of gradients. */
static int64_t layer_offset(const struct network *network, int64_t layer)
{
    if (network->adapter != NULL) {
        const struct param_table *table = network->adapter->table;
        return table->items[layer * (table->count / network->config->layers)].offset;
    }
    const struct param_table *table = network->weights->table;
    return table->items[param_index(network->config, PARAM_LAYER_FIRST, layer)].offset;
}

static void tell(const struct gradient_watch *watch, int64_t first)
{
    if (watch != NULL) {
        watch->final_from(watch->context, first);
    }
}

void transformer_backward(struct transformer *transformer, const struct network *network,
                          float *gradients, const struct gradient_watch *watch)
{
    struct device *device = transformer->device;
    bool full = network->adapter == NULL;
    for (int64_t layer = transformer->layers - 1; layer >= 0; layer--) {
        struct step step = step_make(transformer, network, layer);
        if (transformer->options.recompute) {
            attention_forward(&step, NULL);
            gate_up_forward(&step);
            if (step.room.u_down.data != NULL) {
                /* The adapter of `down` needs its inner values; the output, that of the next layer,
                 * is not. */
                step.ops->swiglu_forward(device, step.scratch.mlp.act, step.room.gate_up);
                device->ops->matmul(device, step.room.u_down, step.scratch.mlp.act, false,
                                    step.view.down.a, true, 1.0f, 0.0f);
            }
        }
        layer_backward(&step, gradients, full || layer > 0);
        tell(watch, layer_offset(network, layer));
    }
    if (full) {
        int64_t index = param_index(network->config, PARAM_EMBEDDING, 0);
        struct tensor table = weights_tensor(network->weights, index);
        float *gradient = gradients + network->weights->table->items[index].offset;
        device->ops->scatter_add_rows(
            device, tensor_matrix(gradient, DTYPE_F32, table.rows, table.cols),
            tensor_rows(transformer->scratch.d_residual, 0, transformer->tokens),
            transformer->batch.ids);
        tell(watch, 0);
    }
}
