/* Questions of the agents that a worker answers with a model of the cluster's file system (the
 * `local` provider). */
#ifndef RUN_ANSWER_H
#define RUN_ANSWER_H

#include <cjson/cJSON.h>

#include "base/progress.h"
#include "run/workspace.h"

/* Answers the body of a chat call {messages [{role, content}], max_tokens, temperature, seed} by
 * the model in `model_folder`: *answer is {"text", "cut", "tokens_in", "tokens_out", "model"},
 * owned by the caller. The same question gives the same answer. A schema in the body is the
 * prompt's business: nothing here forces the model. The base model is used as it lies in the
 * workspace; another model stays there until the next work that is no question
 * (workspace_speaker). Progress: phases "load" and "evaluate". Errors: STATUS_INVALID for a body
 * that is none; STATUS_RANGE for a prompt that leaves no room to answer; STATUS_TIMEOUT after
 * researcher.timeout_seconds of the job. */
enum status answer_question(struct workspace *workspace, const char *model_folder,
                            const cJSON *body, const struct progress *progress, cJSON **answer,
                            struct error *err);

/* Tokens that such a question takes at most, of a model that was inspected: its prompt's, counted
 * as the worker will, and those of the longest answer. Errors as above, but for time and room. */
enum status answer_bound(const struct model *model, const cJSON *body, int64_t *tokens,
                         struct error *err);

#endif
