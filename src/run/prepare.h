/* Training data of a candidate: recipe, encoding, and a cache by content in data/<hash>.h5. */
#ifndef RUN_PREPARE_H
#define RUN_PREPARE_H

#include "data/encode.h"
#include "data/recipe.h"
#include "run/workspace.h"

struct prepared_data {
    struct encoded_dataset encoded;
    cJSON *report; /* what each step of the recipe did: [{op, rows_in, rows_out, note}...] */
};

/* Runs the recipe over the task's training split, or reads the result from the cache. data_folder:
 * where the cache is; NULL: none. max_length: tokens of a sequence. A damaged cache file is made
 * anew, with a line in the log. */
enum status prepare_data(struct workspace *workspace, const struct model *model,
                         const cJSON *recipe, int64_t max_length, const char *data_folder,
                         const struct progress *progress, struct prepared_data *out,
                         struct error *err);
void prepared_data_fini(struct prepared_data *data);

/* The same of about `rows` rows, spread over the training split; of all of them where the recipe
 * leaves none of so few. Nothing is cached. */
enum status prepare_sample(struct workspace *workspace, const struct model *model,
                           const cJSON *recipe, int64_t rows, int64_t max_length,
                           const struct progress *progress, struct prepared_data *out,
                           struct error *err);

/* The recipe's rows themselves, not encoded: for `trex data`. */
enum status prepare_rows(struct workspace *workspace, const cJSON *recipe, struct dataset *out,
                         struct recipe_report *report, struct error *err);

#endif
