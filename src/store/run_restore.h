/* What the two halves of the way back share: rows to a search. Not for other files. */
#ifndef STORE_RUN_RESTORE_H
#define STORE_RUN_RESTORE_H

#include "store/run_image.h"

/* What goes on while rows are read in order. */
struct restorer {
    const struct run_image *image;
    const char *path;
    struct search *search;
    int64_t next[RUN_TABLE_COUNT]; /* row to read next */
    struct error *err;
};

/* STATUS_CORRUPT that names file, table and row. */
#define CORRUPT(err, path, table, row, what)                                                       \
    restorer_corrupt((err), (path), (table), (row), __FILE__, __LINE__, (what))
enum status restorer_corrupt(struct error *err, const char *path, enum run_table table, int64_t row,
                             const char *file, int line, const char *what);

/* Copies that the search keeps. The second is for texts that are not there from the beginning:
 * empty stands for not set yet, and gives NULL. */
enum status restorer_copy(struct restorer *from, const char *text, char **out);
enum status restorer_copy_late(struct restorer *from, const char *text, char **out);

/* Whether a number can be an amount of something; its limit keeps sums finite. */
bool restorer_is_amount(double value);
bool restorer_is_amount_or_unknown(double value);

/* run_restore_agents.c: what the agents asked, found and learned, once the tree is there and what
 * has ended is counted. */
enum status restore_agents(struct restorer *from);

#endif
