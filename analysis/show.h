#ifndef ANALYSIS_SHOW_H
#define ANALYSIS_SHOW_H

#include "analysis/analysis.h"

/* Prints a node whole. */
void show_node(const struct view *view, int32_t id);

/* The whole tree as one JSON object: metric, finished, nodes with their candidates, insights. */
cJSON *show_json(const struct view *view);

/* JSON text of the run file as JSON; null if it is none. */
cJSON *show_parsed(const char *text);

/* show_agents.c. The calls about a node (-1: all) as a table; each with its messages and its reply.
 * What the agents work with: brief, documents, insights, prompts. */
void show_calls(const struct view *view, int32_t node);
void show_prompts(const struct view *view, int32_t node);
void show_brief(const struct view *view);
cJSON *show_calls_json(const struct view *view, int32_t node, bool texts);
void show_add_brief_json(const struct search *search, cJSON *object);

#endif
