/* A plan tried out on a worker before it becomes a node: its recipe over a few hundred rows, their
 * encoding, and one step of one micro-batch with each configuration. Nothing is written. */
#ifndef RUN_DRY_RUN_H
#define RUN_DRY_RUN_H

#include "base/progress.h"
#include "run/workspace.h"

/* recipe: array; configs: array of train/config.h's objects. *result, owned by the caller: {"rows",
 * "recipe_report": [...], "losses": [number or null...]}. What fails says where: in the recipe, or
 * in which configuration. STATUS_INTERRUPTED from progress. */
enum status dry_run(struct workspace *workspace, const cJSON *recipe, const cJSON *configs,
                    const struct progress *progress, cJSON **result, struct error *err);

#endif
