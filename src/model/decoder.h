/* Generation with a KV cache: sequences in slots, each at its own position, so that finished ones
 * can be replaced while others go on (continuous batching). */
#ifndef MODEL_DECODER_H
#define MODEL_DECODER_H

#include "model/transformer.h"

struct decoder; /* opaque: cache and activations */

struct decoder_options {
    int64_t slots;          /* B: sequences at a time */
    int64_t capacity;       /* T: positions of each, at most the model's max_positions */
    int64_t prefill_tokens; /* most prompt tokens in one pass; longer prompts are fed in pieces */
};

enum status decoder_create(struct device *device, const struct network *network,
                           const struct decoder_options *options, struct decoder **out,
                           struct error *err);
void decoder_destroy(struct decoder *decoder);
int64_t decoder_bytes(const struct network *network, const struct decoder_options *options);

/* Feeds ids of several slots: for entry i, count[i] ids (one after the other in `ids`) are appended
 * to slot[i] at position[i] onwards (position 0 starts it anew), and the token that follows the
 * last of them is sampled into token[i]. One id an entry is a decoding step; more are a prefill;
 * both may be mixed. uniform[i] in [0,1) is the random number of entry i, unused when greedy. All
 * arrays on the host. Errors: STATUS_RANGE for a slot, position or id out of range. */
enum status decoder_feed(struct decoder *decoder, const struct network *network, const int32_t *ids,
                         const int32_t *slot, const int32_t *position, const int32_t *count,
                         int64_t entries, const struct sampling *sampling, const float *uniform,
                         int32_t *token, struct error *err);

#endif
