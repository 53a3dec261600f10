/* A base model as it comes from a Hugging Face folder: shape, weights, tokenizer, chat format.
 * Loaded once a process and shared by all candidates; never written to. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "base/file.h"
#include "base/hash.h"
#include "base/progress.h"
#include "kernels/ops.h"
#include "model/chat.h"
#include "model/config.h"
#include "model/params.h"
#include "model/tokenizer.h"

struct model {
    struct model_config config;
    struct param_table table;
    struct weights weights; /* on the device, in the dtype asked for */
    struct tokenizer *tokenizer;
    enum chat_format chat; /* CHAT_PLAIN if chat_known is false */
    bool chat_known; /* false: the folder's chat template is none that is known; a job has to set
                        task.chat */
    char folder[FILE_PATH_BYTES];
    char hash[HASH_TEXT_BYTES]; /* of config.json and all tensor bytes: the model's identity */
};

/* Loads everything. Checks every tensor's name, dtype and shape before any is read, and reports all
 * that is wrong at once; extra tensors are errors too, but for those a family says to ignore
 * (rotary tables) and a tied head that equals the embedding. f32, bf16 and f16 on disk; dtype: that
 * of the weights on the device. */
enum status model_load(const char *folder, struct device *device, enum dtype dtype,
                       struct model **out, struct error *err);

/* The same, telling progress of each tensor (phase "load"), where it can be stopped. */
enum status model_load_watched(const char *folder, struct device *device, enum dtype dtype,
                               const struct progress *progress, struct model **out,
                               struct error *err);
void model_destroy(struct model *model);

/* Config, tokenizer, chat format and a check of the tensors' names, dtypes, shapes and file sizes
 * alone: for `trex check`. Leaves weights empty; hash is that of config.json and the headers. */
enum status model_inspect(const char *folder, struct model **out, struct error *err);

/* Writes a Hugging Face folder that transformers loads: weights (the table's names, `dtype` on
 * disk, shards of at most 5 GB), and config.json, tokenizer and template files copied from
 * base_folder. Files are written aside and renamed; model.safetensors(.index.json) comes last.
 * config.json says the dtype that was written. base_folder NULL: the tensors alone, into a folder
 * that has the other files. */
enum status model_export(const struct weights *weights, enum dtype dtype, const char *base_folder,
                         const char *out_folder, struct error *err);

/* The same with another size of shards, for tests. */
enum status model_export_sharded(const struct weights *weights, enum dtype dtype,
                                 int64_t shard_bytes, const char *base_folder,
                                 const char *out_folder, struct error *err);

/* Writes a PEFT adapter folder: adapter_config.json and adapter_model.safetensors. */
struct lora_config;
enum status model_export_adapter(const struct weights *adapter, const struct lora_config *lora,
                                 const char *base_folder, const char *out_folder,
                                 struct error *err);

/* Fills the weights of a table with small random numbers (normal, sd 0.02 as in GPT-2; norms 1)
 * from Philox(seed): for tests, benchmarks and the quickstart's own base model. */
void model_init_random(const struct weights *weights, uint64_t seed);

#endif
