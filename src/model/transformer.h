/* Forward and backward pass of a decoder-only transformer over packed sequences (Llama and
 * relatives).
 *
 *   ids -> embedding -> [ norm -> qkv -> (qk norm) rope -> attention -> out -> + -> norm -> gate,up
 * -> swiglu
 *                        -> down -> + ] x L -> norm -> head (rows with a target only, in chunks) ->
 * loss
 *
 * The head never makes N x V logits, attention never T x T scores. */
#ifndef MODEL_TRANSFORMER_H
#define MODEL_TRANSFORMER_H

#include "model/batch.h"
#include "model/lora.h"
#include "model/params.h"

/* What computes: the weights that are read, and the adapter if there is one. All borrowed, same
 * device. The functions that only count bytes read config and lora alone. */
struct network {
    const struct model_config *config;
    const struct weights *weights;  /* in the compute dtype */
    const struct weights *adapter;  /* NULL: none; same dtype as weights */
    const struct lora_config *lora; /* with adapter, else NULL */
};

struct transformer_options {
    int64_t max_tokens; /* largest N of a batch */
    enum dtype compute; /* of activations and residual stream: that of the weights */
    bool training;      /* room for the backward pass */
    bool
        recompute; /* keep only each layer's input and run its forward again in the backward pass */
    int64_t head_rows; /* rows of logits at a time; 0: 256, but so that a chunk has 16 to 64 MB */
};

/* With bf16, the logits of training are bf16 (as in PyTorch); those of scoring are f32. */
struct transformer; /* opaque: activations and scratch for batches up to max_tokens */

enum status transformer_create(struct device *device, const struct network *network,
                               const struct transformer_options *options, struct transformer **out,
                               struct error *err);
void transformer_destroy(struct transformer *transformer);

/* Device bytes that transformer_create would allocate. */
int64_t transformer_bytes(const struct network *network, const struct transformer_options *options);

/* Is told, while a backward pass is being called, which gradients are done: those of all elements
 * from `first` to the end of the array. The array is finished from its end to its beginning, the
 * embedding last, so `first` falls, to 0 in the end. NULL: nobody wants to know. */
struct gradient_watch {
    void (*final_from)(void *context, int64_t first);
    void *context;
};

/* One micro-batch of training: into `gradients` (device, f32, layout of the trained table: the
 * adapter's if there is one, else the weights') += factor * d loss_sum, and *loss_total (f64 on the
 * device) += the sum of the losses (nats) of all targets. Padding elements of the layout stay 0.
 * Nothing is waited for: failures of the device show in its next check. STATUS_RANGE for ids or
 * targets outside the vocabulary or more tokens than max_tokens; STATUS_DIVERGED is the trainer's
 * to find: where the loss is not finite, the gradients are not either. */
enum status transformer_train(struct transformer *transformer, const struct network *network,
                              const struct batch *batch, float factor, float *gradients,
                              double *loss_total, const struct gradient_watch *watch,
                              struct error *err);

/* No gradient: the loss of each token's target into losses (host, N; 0 where the target is -1). */
enum status transformer_score(struct transformer *transformer, const struct network *network,
                              const struct batch *batch, float *losses, struct error *err);

/* The same where only the sum is wanted: *loss_total (f64 on the device) += all losses (nats).
 * Nothing is waited for. */
enum status transformer_score_sum(struct transformer *transformer, const struct network *network,
                                  const struct batch *batch, double *loss_total, struct error *err);

/* Logits (host, f32, (count,V)) of the given rows of a batch: for tests and golden files. */
enum status transformer_logits(struct transformer *transformer, const struct network *network,
                               const struct batch *batch, const int32_t *rows, int64_t count,
                               float *logits, struct error *err);

#endif
