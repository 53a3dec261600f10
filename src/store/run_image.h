/* A search as rows of the tables of run.h5, and back. */
#ifndef STORE_RUN_IMAGE_H
#define STORE_RUN_IMAGE_H

#include "store/run_tables.h"
#include "tree/search.h"

struct run_image {
    void *rows[RUN_TABLE_COUNT];
    int64_t counts[RUN_TABLE_COUNT];
    int64_t schema;     /* version of the file it was read from */
    struct arena texts; /* of an image that was read */
};

void run_image_fini(struct run_image *image);

/* Rows of a search; texts are borrowed from it. */
enum status run_image_take(const struct search *search, struct run_image *out, struct error *err);

/* A search from rows, every figure checked and the tree rebuilt. STATUS_CORRUPT names table and row
 * of `path`. The image stays the caller's. */
enum status run_image_restore(const struct run_image *image, const char *path, struct search *out,
                              struct error *err);

#endif
