/* A finished round in words and figures. */
#ifndef AGENTS_DIAGNOSIS_H
#define AGENTS_DIAGNOSIS_H

#include "agents/evidence.h"
#include "agents/researcher.h"
#include "base/buffer.h"

/* "train loss fell from 2.10 to 1.21, validation loss from 1.92 to 1.31 in 864 steps and was still
 * falling." */
void diagnosis_append_curve(const struct curve_reading *curve, struct buffer *out);

/* The round against its parent and the baseline, its training, its errors, what failed, what to
 * try. All candidates of the node are finished or failed. */
void diagnosis_append(const struct search *search, const struct evidence_index *index,
                      const struct researcher_facts *facts, int32_t node, struct buffer *out);

/* Short statements that hold beyond this node: array of {text, nodes}; NULL without memory. */
cJSON *diagnosis_insights(const struct search *search, const struct evidence_index *index,
                          int32_t node);

#endif
