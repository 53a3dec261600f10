/* The job file: what a search is to do. Schema: jobs/job.schema.json. Every mistake is reported in
 * one go. */
#ifndef RUN_JOB_H
#define RUN_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/status.h"
#include "data/task.h"
#include "net/lm.h"
#include "train/config.h"
#include "tree/tree.h"

enum job_precision { JOB_PRECISION_AUTO, JOB_PRECISION_F32, JOB_PRECISION_BF16 };

enum job_network { JOB_NETWORK_DIRECT, JOB_NETWORK_RELAY, JOB_NETWORK_OFF };

/* One language model; the first is asked first, the others if it does not answer. */
struct job_endpoint {
    char *provider; /* "openai" (any compatible endpoint), "anthropic", "gemini", "azure"; "local":
                       model is a folder */
    char *model;
    char *url;                    /* base URL; "" for the provider's own */
    char *key_env;                /* NAME of the environment variable with the key; never the key */
    bool structured;              /* the endpoint is asked for JSON of a schema in its own way */
    double input_usd, output_usd; /* of a million tokens; NaN: the built-in table's */
};

enum { JOB_LIST_MAX = 16 };

/* Who plans, and what it may ask of the world. */
struct job_researcher {
    char *provider; /* "rules" or "model" in the researchers' registry */
    struct job_endpoint endpoints[LM_ENDPOINTS_MAX];
    int endpoint_count; /* 0 with rules */
    enum job_network network;
    int64_t prompt_tokens, reply_tokens; /* of one call, at most */
    double temperature;
    double connect_s, stall_s, timeout_s; /* of one try */
    int tries, concurrency;
    int repairs;                      /* of one reply or plan */
    bool literature, data;            /* looked for before the first plan */
    char *folders[JOB_LIST_MAX + 1];  /* local data with cards; NULL at the end */
    char *licences[JOB_LIST_MAX + 1]; /* of data that may be downloaded; NULL at the end */
    int64_t download_rows;
    bool ahead;   /* plan ahead so that no worker waits */
    bool dry_run; /* before a language model's plan becomes a node */
    bool code;    /* operators that a language model writes may run */
};

/* job_researcher.c. The object may be NULL. `folder`: of the job file. */
enum status job_researcher_read(const cJSON *object, const char *folder,
                                struct json_problems *problems, struct job_researcher *out,
                                struct error *err);
void job_researcher_fini(struct job_researcher *researcher);

/* Whether the limits allow what was asked for: a language model needs a cap above 0. */
void job_researcher_check(const struct job_researcher *researcher, int64_t agent_tokens,
                          double agent_money_usd, struct json_problems *problems);

struct job {
    char *path; /* of the job file, as given */
    char *name;
    char *goal;   /* in words, for the researcher */
    char *model;  /* folder of the base model */
    char *output; /* run folder */
    struct task task;

    struct job_researcher researcher;

    const struct tree_policy *policy;
    int64_t rounds;         /* nodes beside the baseline */
    int configurations;     /* of one round */
    double exploration;     /* of UCT */
    int32_t max_children;   /* of a node */
    int64_t parallel_nodes; /* rounds open at once; 0: as many as keep the workers busy */
    uint64_t seed;
    double goal_score; /* stop when the best validation score reaches it; NaN: never */

    int64_t max_samples;      /* rows a round trains on */
    int64_t max_steps;        /* of a candidate; 0: none */
    int64_t sequence_length;  /* longest sequence; 0: the model's */
    double candidate_seconds; /* a candidate's training should take at most this; 0: no limit */
    double core_hours;        /* of all candidates together; 0: no limit */
    double gpu_hours;
    double memory_bytes;    /* of one worker; 0: what the machine has, shared among its ranks */
    int64_t agent_tokens;   /* of a language-model researcher; 0: none may be spent */
    double agent_money_usd; /* likewise */

    char *backend; /* "auto", "cpu", "cuda" */
    enum job_precision precision;
    int ranks_per_candidate;
    int threads;               /* of a rank; 0: the node's cores over its ranks */
    int64_t batch_tokens;      /* of a micro-batch; 0: chosen */
    double checkpoint_seconds; /* between saves of a training's state */
    double watchdog_seconds;   /* a worker that says nothing for so long hangs; 0: none does */
    int keep_weights;          /* best candidates whose weights stay on disk */

    cJSON *json; /* the job with its paths resolved: what the run file keeps */
};

/* Reads and checks a job file; `out_folder`, if not NULL, overrides its "output". Paths: ${NAME} is
 * taken from the environment, relative ones are relative to the job file ("output": to the working
 * directory). Every mistake goes to `problems` (initialised by the caller); STATUS_INVALID if there
 * is one. */
enum status job_read(const char *path, const char *out_folder, struct json_problems *problems,
                     struct job *out, struct error *err);
void job_fini(struct job *job);

/* Replaces each ${NAME} by the environment's value into heap text. STATUS_NOT_FOUND names an unset
 * variable. */
enum status job_expand(const char *text, char **out, struct error *err);

#endif
