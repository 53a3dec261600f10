/* The policies, one file each; policy.c lists them. */
#ifndef TREE_POLICY_H
#define TREE_POLICY_H

#include "tree/tree.h"

extern const struct tree_policy tree_policy_uct;
extern const struct tree_policy tree_policy_greedy;
extern const struct tree_policy tree_policy_sequential;
extern const struct tree_policy tree_policy_random;

#endif
