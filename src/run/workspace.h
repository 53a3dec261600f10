/* What one worker keeps between candidates: the device, the base model in each precision, the
 * task's splits. Loaded when first needed. */
#ifndef RUN_WORKSPACE_H
#define RUN_WORKSPACE_H

#include "base/log.h"
#include "base/progress.h"
#include "data/dataset.h"
#include "data/encode.h"
#include "kernels/ops.h"
#include "model/model.h"
#include "run/job.h"
#include "train/config.h"

struct workspace {
    const struct job *job;     /* borrowed */
    struct log *log;           /* borrowed */
    struct device *device;     /* NULL on a rank that only plans */
    const char *recipe_folder; /* relative paths of recipes; NULL: the working directory */
    int threads;
    char checksum[HASH_TEXT_BYTES]; /* that the base model must have (struct model's hash); "": any
                                     */
    bool has_precision;             /* `precision` holds, whatever the device would take */
    enum train_precision precision;
    struct model *models[DTYPE_COUNT]; /* by dtype of the weights; NULL until used */
    struct model *speaker; /* another model, that answers questions; NULL while none does */
    struct dataset splits[TASK_SPLIT_COUNT];
    bool split_loaded[TASK_SPLIT_COUNT];
};

/* Without a device: for planning, which needs the splits alone. */
void workspace_init(const struct job *job, int threads, struct log *log, struct workspace *out);

/* Opens the device the job names, tries it and says which it is. threads: CPU threads of this rank;
 * place: of this rank among those of its node that work. STATUS_DEVICE if it does not compute. */
enum status workspace_open(const struct job *job, int threads, int place, struct log *log,
                           struct workspace *out, struct error *err);
void workspace_close(struct workspace *workspace);

/* The precision that a configuration without a wish of its own gets: the job's, the one that was
 * set (a run keeps what it began with), or what is fast on this device. */
enum train_precision workspace_precision(const struct workspace *workspace);

/* The base model with its weights in `dtype`. Borrowed until weights were dropped and are asked for
 * again. progress: NULL, or told of each tensor that is loaded (phase "load"). */
enum status workspace_model(struct workspace *workspace, enum dtype dtype,
                            const struct progress *progress, const struct model **out,
                            struct error *err);

/* Frees the weights of the base model in `dtype`, which are read again when they are next asked
 * for; all else of the model stays. */
void workspace_drop_weights(struct workspace *workspace, enum dtype dtype);

/* The model in `folder` with its weights in `dtype`, for questions: the base model where that is
 * it, else one that stays until workspace_drop_speaker, or until another is wanted. Borrowed
 * likewise; progress likewise. */
enum status workspace_speaker(struct workspace *workspace, const char *folder, enum dtype dtype,
                              const struct progress *progress, const struct model **out,
                              struct error *err);

/* Frees it: trainings have the memory to themselves. */
void workspace_drop_speaker(struct workspace *workspace);

/* Whether a folder is the one of the job's base model. */
bool workspace_is_base(const struct job *job, const char *folder);

/* Rows of a split. Borrowed. */
enum status workspace_split(struct workspace *workspace, enum task_split split,
                            const struct dataset **out, struct error *err);

/* STATUS_UNSUPPORTED if the job leaves the chat format to the model, and the model's template is
 * none we know. */
enum status workspace_check_chat(const struct job *job, const struct model *model,
                                 struct error *err);

/* The job's chat format, "auto" resolved by the model. */
enum chat_format workspace_chat(const struct workspace *workspace, const struct model *model);

/* Identity of what scores depend on: validation and test rows, templates, metric, and the files of
 * an external scorer's command. */
enum status workspace_task_hash(struct workspace *workspace, char out[HASH_TEXT_BYTES],
                                struct error *err);

/* Longest sequence of a training with this configuration: the smallest of the configuration's, the
 * job's and the model's limit. */
int64_t workspace_sequence_length(const struct job *job, const struct model_config *model,
                                  const struct train_config *config);

#endif
