/* Weights of a candidate on disk: kind "weights" (arrays named as the model's parameters) or
 * "adapter" (named as PEFT does, with attribute "lora"). What is stored is what was evaluated, to
 * the bit. */
#ifndef RUN_WEIGHTS_FILE_H
#define RUN_WEIGHTS_FILE_H

#include "base/progress.h"
#include "model/model.h"
#include "model/transformer.h"
#include "store/store.h"

/* Writes the trained part of a network. `config` is the training configuration as JSON, name is
 * "n0007-c2"; progress is NULL, or told of each array (phase "save"). */
enum status weights_file_write(const char *path, const struct model *base,
                               const struct network *network, const char *config, const char *name,
                               const struct progress *progress, struct error *err);

/* A network read back: its own weights or an adapter over the base. */
struct loaded_network {
    struct network network;
    struct weights weights;   /* full weights, or the adapter's */
    struct param_table table; /* the adapter's */
    struct lora_config lora;
    bool is_adapter;
};

/* dtype the file was written in: which base model it goes with. */
enum status weights_file_dtype(const char *path, enum dtype *out, struct error *err);

/* Refuses a file whose base model is another (by hash), names, shapes or dtypes that do not fit.
 * `base` is borrowed. progress: NULL, or told of each array (phase "load"). */
enum status weights_file_read(const char *path, const struct model *base,
                              const struct progress *progress, struct loaded_network *out,
                              struct error *err);
void loaded_network_fini(struct loaded_network *loaded);

#endif
