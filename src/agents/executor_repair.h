/* The executor's inside, shared by executor*.c alone. */
#ifndef AGENTS_EXECUTOR_REPAIR_H
#define AGENTS_EXECUTOR_REPAIR_H

#include "agents/executor.h"

struct repair {
    const struct researcher_facts *facts;
    const struct executor_limits *limits;
    struct buffer *changes;
    int number; /* of the configuration that is being repaired, as in names of candidates; -1: of
                   none */
};

/* A line of what was changed. */
void repair_say(const struct repair *repair, const char *format, ...) BASE_PRINTF(2, 3);

/* executor_recipe.c: takes out the steps that no recipe may have. */
enum status repair_recipe(const struct repair *repair, struct plan *plan, struct error *err);

#endif
