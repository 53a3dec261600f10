/* What a researcher implements; researcher.c has the registry. */
#ifndef AGENTS_RESEARCHER_PROVIDER_H
#define AGENTS_RESEARCHER_PROVIDER_H

#include "agents/researcher.h"

struct researcher_provider {
    const char *name;
    /* *state is the provider's own, handed to the others. */
    enum status (*open)(const struct researcher_options *options, void **state, struct error *err);
    void (*close)(void *state);
    /* The rest as in researcher.h. */
    enum status (*request)(void *state, const struct search *search, int32_t parent, int32_t number,
                           struct error *err);
    bool (*poll)(void *state, struct plan *out);
    int (*pending)(const void *state);
    enum status (*diagnose)(void *state, const struct search *search, int32_t node,
                            char **diagnosis, cJSON **insights, struct error *err);
    /* These may be NULL: there is nothing to do. */
    enum status (*turn)(void *state, const struct search *search, struct error *err);
    bool (*is_prepared)(const void *state, const struct search *search);
    enum status (*revise)(void *state, const struct search *search, struct plan *plan,
                          const char *problem, struct error *err);
    void (*forget)(void *state, int32_t number);
    bool (*take_event)(void *state, cJSON **event);
};

extern const struct researcher_provider researcher_rules, researcher_model;

#endif
