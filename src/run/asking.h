/* What a job lets its agents ask of the world outside, in the words of those who ask. */
#ifndef RUN_ASKING_H
#define RUN_ASKING_H

#include "agents/call_transport.h"
#include "base/file.h"
#include "model/model.h"
#include "run/job.h"

struct asking {
    struct call_direct_options options; /* endpoints, patience, sources */
    struct call_relay_caps caps;
    double relay_s; /* a relay's reply may take so long: all tries with their pauses */
    char cache[FILE_PATH_BYTES], downloads[FILE_PATH_BYTES]; /* below the run folder */
};

/* Borrows from the job; *out must stay where it is while its options are used. A "local" model is
 * no endpoint. Network "off": sources answer from their cache and local folders alone. */
enum status asking_options(const struct job *job, struct log *log, struct asking *out,
                           struct error *err);

/* The caps that hold now in a run folder: what was set there (trex-tree set), else the job's. An
 * error (of store_control_read) leaves them as they were. */
enum status asking_read_caps(const struct job *job, struct call_relay_caps *caps,
                             struct error *err);

/* The model that answers on a rank of the job itself (provider "local"), inspected; NULL where
 * there is none. The error of a folder that is no model names what is wrong in it. */
enum status asking_inspect(const struct job *job, struct model **speaker, struct error *err);

/* Of a prompt, as lm_estimate_tokens counts: the job's prompt_tokens; fewer where a local model's
 * positions would leave no room to reply. speaker may be NULL. */
int64_t asking_prompt_tokens(const struct job *job, const struct model *speaker);

/* Bytes that a local model takes on a worker while it answers, beside the base model: its weights,
 * where it is another one, and what generation needs. None of it stands beside a training. */
int64_t asking_answer_bytes(const struct job *job, const struct model *speaker, enum dtype dtype);

#endif
