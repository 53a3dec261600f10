#include <math.h>

#include "train/config.h"

/* The warm-up ends on its peak at step `peak`, the decay on final_ratio at the last step: no step
 * is spent at 0. */
double train_learning_rate(const struct train_config *config, int64_t step, int64_t total_steps)
{
    const double pi = 3.14159265358979323846;
    if (step > total_steps) {
        step = total_steps;
    }
    double warmup = floor(config->warmup_ratio * (double)total_steps + 0.5);
    double peak = fmax(warmup, 1.0);
    if ((double)step <= peak) {
        return config->learning_rate * (double)step / peak;
    }
    double done = ((double)step - peak) / ((double)total_steps - peak);
    double left = 1.0; /* of the way down from the peak to the end: 1..0 */
    switch (config->schedule) {
    case TRAIN_CONSTANT:
        return config->learning_rate;
    case TRAIN_LINEAR:
        left = 1.0 - done;
        break;
    case TRAIN_COSINE:
        left = 0.5 * (1.0 + cos(pi * done));
        break;
    }
    return config->learning_rate * (config->final_ratio + (1.0 - config->final_ratio) * left);
}
