/* A question to a language model that a worker's own engine runs: the `local` provider. */
#ifndef RUN_ANSWER_H
#define RUN_ANSWER_H

#include <cjson/cJSON.h>

#include "base/progress.h"
#include "run/workspace.h"

/* body: a chat call's {messages, schema, schema_name, max_tokens, temperature, seed}. model_folder:
 * of the model that answers, which is loaded beside the base model and let go again. *answer, owned
 * by the caller: {"text", "cut", "tokens_in", "tokens_out"}. progress: phases "load" and "evaluate";
 * what it returns ends the work. */
enum status answer_question(struct workspace *workspace, const char *model_folder,
                            const cJSON *body, const struct progress *progress, cJSON **answer,
                            struct error *err);

#endif
