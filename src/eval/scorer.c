#include "eval/scorer.h"

#include <string.h>

#include "eval/scorers.h"

static const struct scorer *const registry[] = {
    &scorer_accuracy,
    &scorer_exact_match,
    &scorer_macro_f1,
    &scorer_rouge1,
    &scorer_rouge_l,
    &scorer_command,
    NULL,
};

const struct scorer *const *scorer_list(void)
{
    return registry;
}

const struct scorer *scorer_find(const char *name)
{
    for (const struct scorer *const *scorer = registry; *scorer != NULL; scorer++) {
        if (strcmp((*scorer)->name, name) == 0) {
            return *scorer;
        }
    }
    return NULL;
}

double scorer_mean(const double *row_score, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += row_score[i];
    }
    return count > 0 ? sum / (double)count : 0.0;
}

const char *scorer_text(const char *text)
{
    return text != NULL ? text : "";
}
