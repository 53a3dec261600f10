/* What a researcher implements; researcher.c has the registry. */
#ifndef AGENTS_RESEARCHER_PROVIDER_H
#define AGENTS_RESEARCHER_PROVIDER_H

#include "agents/researcher.h"

struct researcher_provider {
    const char *name;
    /* *state is the provider's own, handed to the others. `facts` and `log` are borrowed until
     * close. */
    enum status (*open)(const struct researcher_facts *facts, struct log *log, void **state,
                        struct error *err);
    void (*close)(void *state);
    /* The rest as in researcher.h. */
    enum status (*request)(void *state, const struct search *search, int32_t parent,
                           struct error *err);
    bool (*poll)(void *state, struct plan *out);
    int (*pending)(const void *state);
    enum status (*diagnose)(void *state, const struct search *search, int32_t node,
                            char **diagnosis, cJSON **insights, struct error *err);
};

extern const struct researcher_provider researcher_rules;

#endif
