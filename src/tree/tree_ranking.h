/* How tree.c keeps the ranking, and policies read it. */
#ifndef TREE_TREE_RANKING_H
#define TREE_TREE_RANKING_H

#include "tree/tree.h"

/* Makes room for so many nodes. */
enum status tree_reserve_ranking(struct tree_ranking *ranking, int32_t capacity, struct error *err);

/* The newest node that has room, -1: none has. */
int32_t tree_newest_with_room(const struct tree_ranking *ranking);

/* Takes up what has changed of one node, or of all. Nothing to do without a ranking. */
void tree_rank_node(struct tree *tree, int32_t id);
void tree_rank_all(struct tree *tree);

#endif
