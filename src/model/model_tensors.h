/* From the tensors of a folder to the parameters of a model. Private to this room. */
#ifndef MODEL_MODEL_TENSORS_H
#define MODEL_MODEL_TENSORS_H

#include "base/hash.h"
#include "base/progress.h"
#include "model/params.h"
#include "model/safetensors.h"

/* Compares all tensors with the table: names, dtypes, shapes. STATUS_INVALID with every difference
 * that fits. */
enum status model_tensors_check(const struct safetensors *file, const struct model_config *config,
                                const struct param_table *table, const char *folder,
                                struct error *err);

/* Adds name, dtype and shape of each parameter to a hash and, with `data`, its bytes. Independent
 * of shards. progress may be NULL. */
enum status model_tensors_hash(const struct safetensors *file, const struct param_table *table,
                               bool data, const struct progress *progress, struct hash_state *state,
                               struct error *err);

/* Copies checked tensors into weights, converting where the dtypes differ. progress may be NULL. */
enum status model_tensors_load(const struct safetensors *file, const struct weights *weights,
                               const struct progress *progress, struct error *err);

#endif
