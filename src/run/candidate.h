/* One candidate's life on a worker: prepare the data, train, evaluate on the validation split, keep
 * the weights. The same way is taken by `trex train`, without a search around it. */
#ifndef RUN_CANDIDATE_H
#define RUN_CANDIDATE_H

#include "base/progress.h"
#include "run/pace.h"
#include "run/workspace.h"
#include "train/trainer.h"

struct candidate_order {
    const char *name;    /* "n0007-c2" */
    const cJSON *recipe; /* array */
    const cJSON *config; /* train/config.h; NULL or {}: the base model as it is */
    const char
        *weights_path; /* where the weights go (training) or come from (test; NULL: the base) */
    const char *state_path;  /* training state: resumed from if it is there; NULL: none is kept */
    const char *data_folder; /* cache of prepared data; NULL: none */
    struct pace *pace;       /* is told of saves; NULL: nobody asks */
};

/* The configuration that an order's JSON means here: defaults, the device's precision, the job's
 * limits. */
enum status candidate_config(const struct workspace *workspace, const cJSON *json,
                             struct train_config *out, struct error *err);

/* Trains and validates. *result: the result object of tree/search.h (owned by the caller).
 * STATUS_INTERRUPTED (from progress): the state after the last step is at state_path. Collective in
 * the group; all but rank 0 get no result. */
enum status candidate_train(struct workspace *workspace, const struct candidate_order *order,
                            const struct train_group *group, const struct progress *progress,
                            cJSON **result, struct error *err);

/* Scores the weights (or the base model) on a split. *score: search_score_to_json's object. */
enum status candidate_score(struct workspace *workspace, const struct candidate_order *order,
                            enum task_split split, const struct progress *progress, cJSON **score,
                            struct error *err);

#endif
