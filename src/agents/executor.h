/* The Executor: turns a plan into one that can run. Checks recipe, configurations, limits and
 * memory; repairs what it can; says what it changed. */
#ifndef AGENTS_EXECUTOR_H
#define AGENTS_EXECUTOR_H

#include "agents/plan.h"
#include "model/config.h"

struct executor_limits {
    const struct model_config *model;
    int64_t memory_bytes; /* of one worker; 0: unknown */
    /* Bytes that a configuration needs (train/trainer.h's trainer_bytes). */
    int64_t (*training_bytes)(const struct model_config *model, const struct train_config *config);
    /* Files that a recipe may read, beside the task's training split: below run_folder/sources
     * (named relative to the run folder), or below one of `folders` (NULL at the end). run_folder
     * NULL: files are not looked at. */
    const char *run_folder;
    const char *const *folders;
    bool code; /* the operator `code` may be used */
};

/* Repairs `plan` in place: values out of range are clamped, batch_tokens is lowered until it fits
 * in memory (down to the sequence length, then LoRA instead of full), sequence lengths are cut to
 * the model's, configurations that equal one of `tried` (what the search holds, and what passed
 * before) or of the plan are dropped; what is left is added to `tried`. `changes` says each in a
 * line. STATUS_INVALID if nothing that can run is left. */
enum status executor_check(struct plan *plan, struct plan_set *tried,
                           const struct researcher_facts *facts,
                           const struct executor_limits *limits, struct buffer *changes,
                           struct error *err);

#endif
