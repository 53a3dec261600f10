#include "train/divergence.h"

#include <math.h>

void divergence_init(struct divergence *divergence, int64_t vocab_size)
{
    *divergence = (struct divergence){.uniform = log((double)vocab_size)};
}

double divergence_average(const struct divergence *divergence)
{
    return divergence->weight > 0.0 ? divergence->average / divergence->weight : 0.0;
}

double divergence_ceiling(const struct divergence *divergence)
{
    return fmin(2.0 * divergence->start, fmax(divergence->start, divergence->uniform)) + 1.0;
}

bool divergence_update(struct divergence *divergence, double loss)
{
    const double keep = 1.0 - 1.0 / DIVERGENCE_MEMORY;
    divergence->steps++;
    if (divergence->steps <= DIVERGENCE_START) {
        divergence->start += (loss - divergence->start) / (double)divergence->steps;
    }
    divergence->average = keep * divergence->average + (1.0 - keep) * loss;
    divergence->weight = keep * divergence->weight + (1.0 - keep);
    bool above = divergence_average(divergence) > divergence_ceiling(divergence);
    divergence->above = above ? divergence->above + 1 : 0;
    return divergence->above >= DIVERGENCE_PATIENCE;
}
