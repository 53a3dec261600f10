/* The rows a recipe works on. Selecting, repeating and reordering move pointers; a row is copied
 * only when an operator changes one that somebody else still holds.
 *
 *   list a: [r1] [r2] [r2]        list b (the training split): [r1] ...
 *             \    \   /                                        /
 *              {object, source, line, holders}  <--------------
 */
#ifndef DATA_ROW_LIST_H
#define DATA_ROW_LIST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rng.h"
#include "data/dataset.h"

/* Most rows at any step of a recipe, so that no recipe can exhaust memory by repetition. */
#define ROW_LIST_MAX 10000000

struct shared_row {
    struct data_row row; /* .source is not used; see source */
    const char *source;  /* path; lives as long as the recipe runs */
    int64_t holders;     /* list entries that point here */
    bool borrowed;       /* the object belongs to somebody else: never changed, never freed */
};

struct row_list {
    struct shared_row **rows;
    int64_t count;
    int64_t capacity;
};

void row_list_init(struct row_list *list);
void row_list_fini(struct row_list *list); /* lets go of its rows */

/* Appends a new row. Takes the object (also on failure) unless it is borrowed. */
enum status row_list_add(struct row_list *list, cJSON *object, bool borrowed, const char *source,
                         int64_t line, struct error *err);

/* Appends one more entry of a row that is in this or another list. */
enum status row_list_share(struct row_list *list, struct shared_row *row, struct error *err);

/* STATUS_LIMIT if the list would exceed ROW_LIST_MAX rows. */
enum status row_list_reserve(struct row_list *list, int64_t count, struct error *err);

/* Keeps the entries whose mark is not 0, in order; lets go of the others. Returns how many were
 * removed. */
int64_t row_list_keep(struct row_list *list, const uint8_t *marks);

/* Keeps `count` of the entries, drawn without replacement, in their order. No-op if there are no
 * more than that. */
enum status row_list_sample(struct row_list *list, int64_t count, struct rng *rng,
                            struct error *err);

/* Puts the entries into a random order. */
void row_list_shuffle(struct row_list *list, struct rng *rng);

/* Appends `count` entries of `from` (which may not be `list`): whole shuffled passes, then a sample
 * of one. */
enum status row_list_draw(struct row_list *list, const struct row_list *from, int64_t count,
                          struct rng *rng, struct error *err);

/* An object of entry i that may be changed: its own, or a copy put in its place. NULL without
 * memory. */
cJSON *row_list_own(struct row_list *list, int64_t i, struct error *err);

#endif
