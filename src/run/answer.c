#include "run/answer.h"

enum status answer_question(struct workspace *workspace, const char *model_folder,
                            const cJSON *body, const struct progress *progress, cJSON **answer,
                            struct error *err)
{
    (void)workspace;
    (void)body;
    (void)progress;
    *answer = NULL;
    return FAIL(err, STATUS_UNSUPPORTED, "%s: this program answers no questions by itself yet",
                model_folder);
}
