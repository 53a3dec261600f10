/* How far a score can be trusted. */
#ifndef EVAL_STATISTICS_H
#define EVAL_STATISTICS_H

#include <stdint.h>

#include "base/status.h"

enum { STATISTICS_RESAMPLES = 1000 };

/* Mean of values (count > 0) and its standard error sd / sqrt(count), sd with count - 1. One value
 * says nothing about its spread: its error is then 0. */
void statistics_mean(const double *values, int64_t count, double *mean, double *standard_error);

/* A figure of the rows picked[0 .. count), which may name a row more than once. */
typedef enum status (*statistics_figure)(void *context, const int64_t *picked, int64_t count,
                                         double *figure, struct error *err);

/* Bootstrap: standard deviation of the figure over STATISTICS_RESAMPLES draws of `count` rows with
 * replacement, from Philox(seed). Same seed, same bits. Source: Efron, "Bootstrap methods: another
 * look at the jackknife", 1979. */
enum status statistics_bootstrap(int64_t count, uint64_t seed, statistics_figure figure,
                                 void *context, double *standard_error, struct error *err);

#endif
