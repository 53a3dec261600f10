#include "tree/search.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tree/search_parts.h"

static const char *const state_names[CANDIDATE_STATE_COUNT] = {
    [CANDIDATE_PLANNED] = "planned",     [CANDIDATE_RUNNING] = "running",
    [CANDIDATE_SUSPENDED] = "suspended", [CANDIDATE_FINISHED] = "finished",
    [CANDIDATE_FAILED] = "failed",
};

const char *candidate_state_name(enum candidate_state state)
{
    return (int)state >= 0 && state < CANDIDATE_STATE_COUNT ? state_names[state] : "unknown";
}

const char *search_text(const char *text)
{
    return text != NULL ? text : "";
}

bool search_is_simulated(const struct search *search)
{
    return strncmp(search_text(search->identity.model_hash), SEARCH_SIMULATED,
                   sizeof(SEARCH_SIMULATED) - 1) == 0;
}

/* ---- lifetime ---- */

void search_init(struct search *search)
{
    memset(search, 0, sizeof(*search));
    tree_init(&search->tree);
    arena_init(&search->arena, SIZE_MAX);
    search->best_node = -1;
    search->winner_node = -1;
    search->winner_candidate = -1;
    for (int id = 0; id < SEARCH_LIMIT_COUNT; id++) {
        search->limits[id] = NAN;
    }
}

bool candidate_is_over(const struct candidate *candidate)
{
    return candidate->state == CANDIDATE_FINISHED || candidate->state == CANDIDATE_FAILED;
}

void search_fini(struct search *search)
{
    free(search->nodes);
    free(search->insights);
    free(search->settled);
    free(search->allocations);
    free(search->incidents);
    free(search->calls);
    free(search->call_slots);
    free(search->documents);
    free(search->prompts);
    free(search->requests);
    free(search->order);
    free(search->aheads);
    tree_fini(&search->tree);
    arena_fini(&search->arena);
    search_init(search);
}

/* ---- names ---- */

void search_candidate_name(int32_t node, int32_t candidate, char out[SEARCH_NAME_BYTES])
{
    snprintf(out, SEARCH_NAME_BYTES, "n%04d-c%d", (int)node, (int)candidate);
}

bool search_candidate_parse(const char *name, int32_t *node, int32_t *candidate)
{
    int64_t number = 0;
    size_t at = 1;
    if (name[0] != 'n') {
        return false;
    }
    for (; name[at] >= '0' && name[at] <= '9' && number < TREE_NODES_MAX; at++) {
        number = number * 10 + (name[at] - '0');
    }
    bool tail_fits = name[at] == '-' && name[at + 1] == 'c' && name[at + 2] >= '0' &&
                     name[at + 2] < '0' + SEARCH_CANDIDATES_MAX && name[at + 3] == '\0';
    if (number >= TREE_NODES_MAX || !tail_fits) {
        return false;
    }
    /* One name a candidate: "n7-c0" and "n00007-c0" are not names. */
    char canonical[SEARCH_NAME_BYTES];
    int32_t last = name[at + 2] - '0';
    search_candidate_name((int32_t)number, last, canonical);
    if (strcmp(name, canonical) != 0) {
        return false;
    }
    *node = (int32_t)number;
    *candidate = last;
    return true;
}

/* ---- scores ---- */

bool search_value_better(double a, double b, bool larger_is_better)
{
    return larger_is_better ? a > b : a < b;
}

bool search_score_above(const struct search_score *a, const struct search_score *b, double errors,
                        bool larger_is_better)
{
    if (!a->present || !b->present) {
        return false;
    }
    double gain = larger_is_better ? a->value - b->value : b->value - a->value;
    return gain > errors * hypot(a->standard_error, b->standard_error);
}
