/* The parts of the `rules` researcher.
 *
 *   rules_start.c       from sizes and costs: the first recipe and configuration, what fits in time
 *   rules_directions.c  from evidence: what could be done next, each direction with its urgency
 *   rules_draft.c       a plan while it is being made
 *   rules_history.c     what was tried in this search, and with what success
 *   researcher_rules.c  chooses a direction that was not taken, makes a plan that was not tried */
#ifndef AGENTS_RULES_H
#define AGENTS_RULES_H

#include "agents/evidence.h"
#include "agents/plan.h"
#include "agents/researcher.h"
#include "base/buffer.h"
#include "base/rng.h"

/* ---- rules_start.c ---- */

/* Rows that a training can use: without duplicates, at most max_samples. */
int64_t rules_usable_rows(const struct researcher_facts *facts);

/* Tokens of a mean row, prompt and answer, at least 1. */
double rules_row_tokens(const struct researcher_facts *facts);

/* A learning rate that usually works for this method and size of model: interpolated on logarithms.
 */
double rules_learning_rate(enum train_method method, int64_t parameters);

enum train_method rules_first_method(const struct researcher_facts *facts);

/* The configuration to start from, and the recipe (a new JSON array, NULL without memory); `why`
 * gets a sentence for each choice that the sizes led to (NULL: not wanted). */
struct train_config rules_first_config(const struct researcher_facts *facts,
                                       enum train_method method, struct buffer *why);
cJSON *rules_first_recipe(const struct researcher_facts *facts, struct buffer *why);

/* Most epochs that fit in candidate_seconds at this speed (0: unknown) on so many rows; infinity if
 * there is no limit. */
double rules_epochs_fit(const struct researcher_facts *facts, double tokens_per_second,
                        int64_t rows);

/* Sets micro-batch and accumulation so that a step has about so many tokens. */
void rules_set_step_tokens(const struct researcher_facts *facts, double tokens,
                           struct train_config *config);

/* ---- rules_history.c ---- */

enum { RULES_DIRECTIONS_MAX = 32 };

/* What the search and the plans that were handed out say of the directions, brought up to date with
 * what is new, whatever the size of the search. */
struct rules_history {
    struct evidence_index evidence;
    struct plan_set tried; /* fingerprints of what the search tried and of what was planned here */
    struct plan_set taken; /* a direction with the parent, or the base, that it was taken from */
    int32_t seen_nodes;    /* of the search, whose plans are in the sets */
    int64_t seen_settled;  /* of the search's list of what has ended */
    struct {
        double balance, count; /* closed rounds: better than their parents less others; all */
    } records[RULES_DIRECTIONS_MAX];
};
void rules_history_init(struct rules_history *history);
void rules_history_fini(struct rules_history *history);
enum status rules_history_update(struct rules_history *history, const struct search *search,
                                 struct error *err);

/* A plan with this goal goes out, and may not be in the search yet. */
enum status rules_history_note(struct rules_history *history, const char *goal, int32_t parent,
                               struct error *err);

struct rules_direction;

/* Taken by a child of the same parent, or from the same base elsewhere; in the search or on the way
 * there. */
bool rules_history_is_taken(const struct rules_history *history,
                            const struct rules_direction *direction, int32_t parent,
                            const char *base_name);

/* What the direction brought so far in this search, in -1..1: rounds that bettered their parents
 * less those that did not, over all and one more. */
double rules_history_record(const struct rules_history *history,
                            const struct rules_direction *direction);

/* ---- rules_draft.c ---- */

/* What stands for a base where nothing was trained yet. */
#define RULES_USUAL_SETTINGS "the usual settings"

/* A plan while it is being made. */
struct rules_draft {
    const struct researcher_facts *facts;
    const struct search *search;
    const struct rules_history *history;
    int32_t parent, number;   /* of the request */
    struct evidence evidence; /* of the base's node; of the root where nothing was trained yet */
    struct train_config base; /* what is varied */
    char base_name[64];       /* "n0001-c2", or RULES_USUAL_SETTINGS */
    double epochs_max;        /* that fit in the time */
    cJSON *recipe;            /* owned; starts as the base's */
    struct train_config configs[SEARCH_CANDIDATES_MAX];
    int config_count;   /* may be less than wanted: the rest are random near the base */
    struct buffer goal; /* begins with the direction's title and ": " */
    struct buffer rationale;
    struct rng rng;
};

/* Factors and new values; 0: as it was. */
struct rules_variation {
    double rate, epochs, step_tokens, rank; /* factors */
    double warmup, decay, clip, beta2;      /* values */
    int schedule;                           /* enum train_schedule + 1 */
    bool to_zero;                           /* the learning rate ends at 0 */
    int64_t patience;
    uint64_t seeds; /* added to the seed */
};

/* The base with a variation. */
struct train_config rules_draft_vary(const struct rules_draft *draft,
                                     const struct rules_variation *variation);

/* Adds a configuration (its numbers rounded, its epochs cut to what fits) if there is room. */
void rules_draft_add(struct rules_draft *draft, struct train_config config);

/* Adds the base with learning rate, epochs, batch, decay and warm-up shaken at random. */
void rules_draft_add_random(struct rules_draft *draft, double spread);

/* First step of a recipe with this operator, or NULL. Removing takes out all of them. Appending
 * gives the new step, or NULL without memory: the recipe is then as it was, which is still a
 * recipe. */
cJSON *rules_find_step(const cJSON *recipe, const char *op);
void rules_remove_steps(cJSON *recipe, const char *op);
cJSON *rules_append_step(cJSON *recipe, const char *op);

/* ---- rules_directions.c ---- */

struct rules_direction {
    const char *title; /* the goal begins with it: that is how a later plan sees what was tried */
    const char *strategy;
    /* How urgent it is: 0 it does not apply, 100 most. */
    double (*weigh)(const struct rules_draft *draft);
    /* Writes goal and rationale; may change recipe and base. */
    void (*explain)(struct rules_draft *draft);
    const struct rules_variation
        *variations; /* most telling first: as many are run as a round has places */
    int variation_count;
};

/* Title NULL at the end. The last one always applies. */
const struct rules_direction *rules_directions(void);

/* Fills goal, rationale, recipe and configurations of the draft. */
void rules_direction_build(const struct rules_direction *direction, struct rules_draft *draft);

#endif
