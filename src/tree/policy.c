#include "tree/policy.h"

#include <stddef.h>
#include <string.h>

static const struct tree_policy *const policies[] = {
    &tree_policy_uct, &tree_policy_greedy, &tree_policy_sequential, &tree_policy_random, NULL,
};

const struct tree_policy *const *tree_policy_list(void)
{
    return policies;
}

const struct tree_policy *tree_policy_find(const char *name)
{
    for (size_t i = 0; policies[i] != NULL; i++) {
        if (name != NULL && strcmp(policies[i]->name, name) == 0) {
            return policies[i];
        }
    }
    return NULL;
}
