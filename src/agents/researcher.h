/* The Researcher: reads what the search knows and writes the next plan; reads a finished round and
 * says what it means.
 *
 * Asynchronous by contract, so that a researcher that waits for a network never holds up the
 * controller: request, then poll from the controller's loop. `rules` answers at once. A new
 * researcher is one file and one row in the registry. */
#ifndef AGENTS_RESEARCHER_H
#define AGENTS_RESEARCHER_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/log.h"
#include "base/status.h"
#include "data/task.h"
#include "train/config.h"
#include "tree/search.h"

enum {
    RESEARCHER_SAMPLES_MAX = 8,
    RESEARCHER_SAMPLE_BYTES = 2048 /* of a prompt or an answer; cut */
};
struct researcher_sample {
    char *prompt, *answer;
};

/* What is known before the first training: sizes, limits, costs. No row of the test split, ever. */
struct researcher_facts {
    const struct task *task;
    const char *goal; /* the user's words */
    double metric_worst, metric_best;
    int64_t train_rows, validation_rows;
    int64_t train_duplicates; /* rows with an identical prompt and answer */
    double prompt_tokens_mean, prompt_tokens_p95, answer_tokens_mean, answer_tokens_p95;
    double characters_per_token; /* of prompts and answers; 0: unknown */
    int64_t sequence_tokens_max; /* longest prompt with answer */
    int label_count;             /* distinct answers if few (<= 64), else 0 */
    double majority_share;       /* of the most frequent answer among the training rows */
    int64_t model_parameters;
    int64_t model_layers, model_hidden, model_max_positions;
    bool chat_model;                /* the model has a chat template */
    enum train_precision precision; /* that the job or the device wants */
    int64_t max_samples;            /* a round may train on */
    int64_t max_steps;              /* of one candidate; 0: none */
    int64_t sequence_length;        /* limit of the job */
    int64_t batch_tokens;           /* what memory allows for a micro-batch */
    double tokens_per_second;       /* training speed, measured or estimated; 0: unknown */
    double candidate_seconds;       /* what the budget allows for one candidate; 0: no limit */
    int configurations;             /* of one round, 1..SEARCH_CANDIDATES_MAX */
    int64_t rounds;                 /* in all */
    bool lora_only;                 /* full fine-tuning does not fit in memory */
    uint64_t seed;
    struct researcher_sample
        samples[RESEARCHER_SAMPLES_MAX]; /* rows of train, as the model sees them; owned */
    int sample_count;
    int64_t *test_twins; /* rows of validation whose prompt stands in test too, in order: how they
                            failed is shown to no language model; owned */
    int64_t test_twin_count;
};

/* A plan: what becomes a node. All owned. */
struct plan {
    int32_t parent;
    int32_t number; /* of the request that it answers */
    char *strategy; /* from the list in researcher.c */
    char *goal;
    char *rationale;
    cJSON *recipe;                         /* array */
    cJSON *configs[SEARCH_CANDIDATES_MAX]; /* objects of train/config.h: all fields */
    int config_count;
    char *researcher; /* who made it: "rules", or provider and model */
    char *subject;    /* what it is known by in calls: "n0003.17" for plan 17, wanted below n0003;
                         NULL: no call was made for it */
    int revision;     /* how often it was repaired */
    bool by_model;    /* a language model wrote it: it is run dry before it becomes a node */
};
void plan_fini(struct plan *plan);

struct researcher; /* opaque */

struct calls;

struct researcher_options {
    const char *provider;                 /* a name of researcher_providers() */
    const struct researcher_facts *facts; /* all borrowed until close */
    struct log *log;
    struct calls *calls; /* NULL: none (rules) */
    const char *run_folder;
    int repairs;           /* of one reply or plan, at most; then the rules plan, and say so */
    int64_t prompt_tokens; /* of one prompt, at most */
    int64_t reply_tokens;
    double temperature;
    bool literature, data; /* whether to look for papers, for data sets */
    bool code;             /* recipes may use the operator `code` */
};

enum status researcher_open(const struct researcher_options *options, struct researcher **out,
                            struct error *err);
void researcher_close(struct researcher *researcher);
const char *const *researcher_providers(void); /* NULL at the end */

/* Begins a plan that refines `parent`, as the number-th of the search (1 and up; 0: the baseline,
 * parent -1). `search` is read during the call only, and is always the same one, grown. Several may
 * be under way. The same search, number and answers give the same plan, so that one that was under
 * way when its job ended is asked for again with its number, and nothing is asked or paid twice. */
enum status researcher_request(struct researcher *researcher, const struct search *search,
                               int32_t parent, int32_t number, struct error *err);

/* True and a plan in *out when one is ready. A request that failed for good gives a plan with
 * config_count 0 and the reason in rationale: nothing more can be proposed below that parent. */
bool researcher_poll(struct researcher *researcher, struct plan *out);
int researcher_pending(const struct researcher *researcher);

/* Moves everything that waits on, after events were applied; each turn. */
enum status researcher_turn(struct researcher *researcher, const struct search *search,
                            struct error *err);

/* Work before the first plan: brief, literature, data. True when all that was wanted is in the
 * search, or was given up; `rules` wants none. */
bool researcher_is_prepared(const struct researcher *researcher, const struct search *search);

/* A plan that cannot run comes back with the reason: another one of the same number will be there
 * to poll, repaired, or, where that was tried too often, the rules' one. Takes the plan.
 * STATUS_UNSUPPORTED (`rules`): drop it. */
enum status researcher_revise(struct researcher *researcher, const struct search *search,
                              struct plan *plan, const char *problem, struct error *err);

/* The plan of this number is not wanted any more. */
void researcher_forget(struct researcher *researcher, int32_t number);

/* True and an event for the journal in *event, owned by the caller: brief, documents,
 * node_diagnosed, prompts. (Calls have their own: calls_take_event.) */
bool researcher_take_event(struct researcher *researcher, cJSON **event);

/* What a closed round means: text for the node, and insights to remember (JSON array of {text,
 * nodes}). Both owned by the caller. All candidates of the node are finished or failed. */
enum status researcher_diagnose(struct researcher *researcher, const struct search *search,
                                int32_t node, char **diagnosis, cJSON **insights,
                                struct error *err);

#endif
