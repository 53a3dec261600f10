/* What a researcher is told before the first training: measured from the job, the model's shape and
 * the splits. Of the test split nothing is told: it is read to leave out what stands in it too. */
#ifndef RUN_FACTS_H
#define RUN_FACTS_H

#include "agents/researcher.h"
#include "model/model.h"
#include "run/job.h"
#include "run/workspace.h"

/* `model` may come from model_inspect. memory_bytes: of one worker. tokens_per_second is left at 0
 * (run/speed.h). Borrows strings of the job. */
enum status facts_gather(struct workspace *workspace, const struct model *model,
                         enum train_precision precision, int64_t memory_bytes,
                         struct researcher_facts *out, struct error *err);
void facts_fini(struct researcher_facts *facts);

/* Takes out of a result's list of failed cases (NULL allowed) those of rows that test has too. */
void facts_hide_twins(const struct researcher_facts *facts, cJSON *cases);

#endif
