/* Between the two files of Hugging Face data sets. */
#ifndef NET_SOURCE_HF_H
#define NET_SOURCE_HF_H

#include "net/source_service.h"

struct source_hf_split {
    char config[128], split[128];
};

/* The first step of a card and of a download, and what comes back: the document of it. */
void source_hf_set_path(const struct source_work *work, struct source_step *next);
enum status source_hf_read_set(struct source_work *work, const char *body, size_t len_bytes,
                               cJSON **document, struct error *err);

/* Splits with their rows, put into the document; *out is the one that the question names, or the
 * best to train on; its names are "" if there is none. */
void source_hf_size_path(const struct source_work *work, struct source_step *next);
enum status source_hf_read_size(const struct source_work *work, const char *body, size_t len_bytes,
                                cJSON *document, struct source_hf_split *out, struct error *err);

enum status source_hf_rows_path(const struct source_work *work, const struct source_hf_split *split,
                                int64_t offset, int64_t length, struct source_step *next,
                                struct error *err);

/* The steps of a download. */
enum status source_hf_advance_download(struct source_work *work, const char *body, size_t len_bytes,
                                       struct source_step *next, struct error *err);

#endif
