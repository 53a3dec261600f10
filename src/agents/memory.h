/* What the next plan may know of the search: the path from the root, the siblings, the key nodes of
 * the whole tree and the insights, within a budget of characters. Source: TREX (arXiv 2604.14116),
 * memory P(v), S(v), C(T). */
#ifndef AGENTS_MEMORY_H
#define AGENTS_MEMORY_H

#include "base/buffer.h"
#include "tree/search.h"

enum { MEMORY_KEY_NODES_MAX = 8 };

struct memory {
    int32_t path[64]; /* root first, the node to refine last; of deeper ones root and last 63 */
    int32_t path_count;
    int32_t siblings[64]; /* closed children of the node to refine: earlier attempts from there */
    int32_t sibling_count;
    int32_t key[MEMORY_KEY_NODES_MAX]; /* large gains over the parent, then notable failures;
                                          none of those above */
    int32_t key_count;
};

void memory_select(const struct search *search, int32_t node, struct memory *out);

/* The same in words, for a language model or a person, at most max_bytes: the rules of what is cut
 * first stand at the top of memory.c. */
enum status memory_render(const struct search *search, const struct memory *memory,
                          size_t max_bytes, struct buffer *out, struct error *err);

#endif
