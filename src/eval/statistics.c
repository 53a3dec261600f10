#include "eval/statistics.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/rng.h"

void statistics_mean(const double *values, int64_t count, double *mean, double *standard_error)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += values[i];
    }
    double average = sum / (double)count;
    double squares = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double distance = values[i] - average;
        squares += distance * distance;
    }
    *mean = average;
    *standard_error = count > 1 ? sqrt(squares / (double)(count - 1) / (double)count) : 0.0;
}

enum status statistics_bootstrap(int64_t count, uint64_t seed, statistics_figure figure,
                                 void *context, double *standard_error, struct error *err)
{
    enum status status = STATUS_OK;
    double figures[STATISTICS_RESAMPLES];
    int64_t *picked = mem_calloc((size_t)count, sizeof(*picked));
    if (picked == NULL) {
        return mem_fail(err, (size_t)count * sizeof(*picked), "resampled rows");
    }
    for (int sample = 0; sample < STATISTICS_RESAMPLES; sample++) {
        struct rng rng;
        rng_init(&rng, seed, (uint64_t)sample);
        for (int64_t i = 0; i < count; i++) {
            picked[i] = (int64_t)rng_below(&rng, (uint64_t)count);
        }
        TRY_CLEANUP(figure(context, picked, count, &figures[sample], err));
    }
    double mean = 0.0;
    double error_of_mean = 0.0;
    statistics_mean(figures, STATISTICS_RESAMPLES, &mean, &error_of_mean);
    *standard_error = error_of_mean * sqrt(STATISTICS_RESAMPLES);
cleanup:
    free(picked);
    return status;
}
