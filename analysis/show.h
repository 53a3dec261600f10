#ifndef ANALYSIS_SHOW_H
#define ANALYSIS_SHOW_H

#include "analysis/analysis.h"

/* Prints a node whole. */
void show_node(const struct view *view, int32_t id);

#endif
