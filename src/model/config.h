/* The shape of a model, from a Hugging Face config.json, checked. */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/status.h"
#include "kernels/tensor.h"

enum { MODEL_EOS_MAX = 8 };

enum rope_scaling { ROPE_SCALING_NONE, ROPE_SCALING_LINEAR, ROPE_SCALING_LLAMA3 };

struct model_family; /* model/family.h: one file and one row each */

struct model_config {
    const struct model_family *family;
    int64_t hidden_size;       /* C */
    int64_t intermediate_size; /* F */
    int64_t layers;            /* L */
    int64_t heads;             /* H */
    int64_t kv_heads;          /* K */
    int64_t head_dim;          /* D */
    int64_t vocab_size;        /* V */
    int64_t max_positions;
    double norm_epsilon;
    double rope_theta;
    enum rope_scaling rope_scaling;
    double rope_factor;
    double rope_low_frequency_factor;  /* llama3 */
    double rope_high_frequency_factor; /* llama3 */
    int64_t rope_original_positions;   /* llama3 */
    bool tied_embeddings;
    bool qk_norm;
    int32_t
        eos[MODEL_EOS_MAX]; /* ids that end generation: config.json and generation_config.json */
    int eos_count;
    enum dtype stored_dtype; /* of the tensors on disk */
};

/* Reads and checks <folder>/config.json (and generation_config.json). STATUS_UNSUPPORTED for other
 * architectures and for features without code here (biases, sliding windows in use, other
 * activations), each by its key. */
enum status model_config_load(const char *folder, struct model_config *out, struct error *err);

int64_t model_config_parameters(
    const struct model_config *config); /* number of parameters, tied ones once */

/* Floating-point operations of one training step per token at sequence length T: forward and
 * backward; frozen weights (LoRA) have no weight gradient. Source: 6N + 6LCT, less 2N for frozen
 * weights. */
double model_config_flops_per_token(const struct model_config *config, int64_t sequence_length,
                                    bool frozen);

#endif
