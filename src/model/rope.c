/* The rotary table: angle of position p and pair i is p * theta^(-2i/D), with the scalings that
 * stretch a model to longer texts. Source: arXiv 2104.09864; llama3 scaling as in the released code
 * of Llama 3.1. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "model/network.h"

#define TWO_PI 6.283185307179586

/* Low frequencies are divided by the factor, high ones kept, those between blended. */
static double scale_llama3(const struct model_config *config, double frequency)
{
    double low = config->rope_low_frequency_factor;
    double high = config->rope_high_frequency_factor;
    double turns = (double)config->rope_original_positions * frequency / TWO_PI;
    if (turns < low) {
        return frequency / config->rope_factor;
    }
    if (turns > high) {
        return frequency;
    }
    double smooth = (turns - low) / (high - low);
    return (1.0 - smooth) * frequency / config->rope_factor + smooth * frequency;
}

/* Frequency of pair i, 0..D/2-1. */
static double pair_frequency(const struct model_config *config, int64_t pair)
{
    double frequency = pow(config->rope_theta, -2.0 * (double)pair / (double)config->head_dim);
    switch (config->rope_scaling) {
    case ROPE_SCALING_LINEAR:
        return frequency / config->rope_factor;
    case ROPE_SCALING_LLAMA3:
        return scale_llama3(config, frequency);
    case ROPE_SCALING_NONE:
        break;
    }
    return frequency;
}

enum status rope_table_upload(const struct model_config *config, struct device *device,
                              struct tensor cos_sin, struct error *err)
{
    int64_t half = config->head_dim / 2;
    float *row = mem_calloc((size_t)config->head_dim, sizeof(*row));
    double *frequency = mem_calloc((size_t)half, sizeof(*frequency));
    enum status status = STATUS_OK;
    if (row == NULL || frequency == NULL) {
        status = mem_fail(err, (size_t)config->head_dim * sizeof(*row), "the rotary table");
        goto cleanup;
    }
    for (int64_t i = 0; i < half; i++) {
        frequency[i] = pair_frequency(config, i);
    }
    for (int64_t position = 0; position < cos_sin.rows; position++) {
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)position * frequency[i];
            row[i] = (float)cos(angle);
            row[half + i] = (float)sin(angle);
        }
        struct tensor to = tensor_rows(cos_sin, position, 1);
        device->ops->upload(device, to.data, row, (size_t)config->head_dim * sizeof(*row));
    }

cleanup:
    free(row);
    free(frequency);
    return status;
}
