#ifndef ANALYSIS_SHOW_H
#define ANALYSIS_SHOW_H

#include "analysis/analysis.h"

/* Prints a node whole. */
void show_node(const struct view *view, int32_t id);

/* The whole tree as one JSON object: metric, finished, nodes with their candidates, insights. */
cJSON *show_json(const struct view *view);

#endif
