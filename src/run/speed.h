/* How fast a training will be on this machine, before it has run: from a short measurement. */
#ifndef RUN_SPEED_H
#define RUN_SPEED_H

#include "agents/researcher.h"
#include "kernels/ops.h"
#include "model/config.h"

/* FLOP/s of matrix products in `dtype` on this device, large enough to keep it busy; measured for
 * about a third of a second. */
enum status speed_measure(struct device *device, enum dtype dtype, double *flops_per_s,
                          struct error *err);

/* Tokens per second of a training step, given that measurement. `frozen`: LoRA. */
double speed_tokens_per_second(const struct model_config *model,
                               const struct researcher_facts *facts, bool frozen,
                               double flops_per_s);

#endif
