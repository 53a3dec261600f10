/* Everything a search knows: the tree, and for each node its plan, its candidates and what was
 * learned.
 *
 *   event -> journal (synced) -> search_apply -> struct search
 *
 * A search is the fold of its events: search_apply is the only function that changes it. Resuming
 * is reading the last snapshot and applying the events that came after it. Events are JSON objects,
 * checked as if hostile. */
#ifndef TREE_SEARCH_H
#define TREE_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/arena.h"
#include "base/status.h"
#include "tree/search_limit.h"
#include "tree/tree.h"

enum {
    SEARCH_CANDIDATES_MAX = 5,
    SEARCH_CASES_MAX = 32,
    SEARCH_CONFUSIONS_MAX = 16,
    SEARCH_CURVE_MAX = 1024
};

/* A candidate is set aside after it was running this many times when its job died and nobody saw
 * why, or after it was seen to end its rank so many times. */
enum { SEARCH_ATTEMPTS_MAX = 3, SEARCH_KILLS_MAX = 2 };

/* Longest texts of an event; one that is longer is refused. */
enum { SEARCH_TEXT_MAX_BYTES = 256 * 1024, SEARCH_JOB_MAX_BYTES = 4 * 1024 * 1024 };
enum { SEARCH_LINE_MAX_BYTES = 4096 /* of allocations and incidents; one that is longer is cut */ };
enum { SEARCH_INSIGHT_NODES_MAX = 8, SEARCH_INSIGHTS_MAX = 64 /* of one node */ };

struct search_score {
    bool present;
    double value; /* of the task's metric */
    double standard_error;
    double loss; /* nats per answer token; NaN if not measured */
    int64_t rows;
    int64_t truncated;       /* prompts cut to fit */
    int64_t unfinished;      /* outputs that ran into the length limit */
    int64_t format_failures; /* outputs that are no possible answer */
    double seconds;
};

struct search_curve_point {
    int64_t step, tokens;
    double train_loss, validation_loss; /* validation NaN where not measured */
    double gradient_norm, learning_rate, seconds;
};

struct search_case {
    int64_t row;
    double score;
    char *prompt, *answer, *output;
};

struct search_confusion {
    char *expected, *found;
    int64_t count;
};

enum candidate_state {
    CANDIDATE_PLANNED,
    CANDIDATE_RUNNING,   /* a worker has it, or had it when the job died */
    CANDIDATE_SUSPENDED, /* its training state is in inflight/ */
    CANDIDATE_FINISHED,
    CANDIDATE_FAILED,
    CANDIDATE_STATE_COUNT
};

/* One configuration of a round: a training and its result. Named n0007-c2. */
struct candidate {
    enum candidate_state state;
    char *config;     /* JSON of train/config.h; "{}" for the baseline */
    int32_t attempts; /* times it was started and has not come back */
    int32_t kills;    /* incidents that blame it: its rank died, hung or lost its device with it */
    int64_t steps_done; /* when suspended or finished */
    int64_t samples;    /* rows trained on */
    int64_t tokens;     /* trained on */
    char *end;          /* "finished", "stopped early" */
    struct search_score validation;
    struct search_score test; /* root and winner only, once */
    struct search_curve_point *curve;
    int32_t curve_count;
    struct search_case *cases; /* failed rows of validation, a sample */
    int32_t case_count;
    struct search_confusion *confusions;
    int32_t confusion_count;
    double rank_seconds; /* cost: seconds times ranks */
    double core_seconds; /* the same times the cores of a rank, as they were in each allocation */
    double gpu_seconds;  /* likewise */
    bool weights_kept;   /* weights/n0007-c2.h5 is there */
    struct error *error; /* NULL unless failed */
    char *log_tail;      /* when failed: what its rank said last */
};

struct search_node {
    char *strategy;   /* "baseline", "first recipe", "refine data", "more data", ... */
    char *goal;       /* one line: what this round is to find out */
    char *rationale;  /* why, in words */
    char *recipe;     /* JSON of data/recipe.h */
    char *researcher; /* who planned it: "rules", or provider and model */
    char *diagnosis;  /* set when closed, and again when an agent has looked closer */
    char *causes;     /* JSON: why cases failed, as an agent sees it; NULL: none has looked */
    struct candidate candidates[SEARCH_CANDIDATES_MAX];
    int32_t candidate_count;
    int32_t best;        /* candidate with the best validation score, -1 if none */
    double planned_at_s; /* wall time */
    double closed_at_s;
    char *recipe_report; /* JSON: what each step of the recipe did; NULL before the first result */
};

/* From a start of the ranks to their end; Slurm may start a search several times in one of its own
 * allocations. */
struct search_allocation {
    double started_s; /* wall time */
    double seconds;   /* that it lasted, as far as was written down */
    int32_t ranks, workers, nodes;
    int32_t threads;  /* of a rank */
    int32_t gpus;     /* of a rank that trains: 0 or 1 */
    char *job;        /* Slurm's number; "" without Slurm */
    int32_t restarts; /* how often Slurm had requeued that job */
    char *host;       /* of rank 0 */
    /* Why it ended: "finished", "stopped: ...", "halted: ...", "failed: ..."; "" while it goes
     * on, and for ever if it died. */
    char *end;
    /* From the wish to stop until all was safe, foreseen and measured; NaN: none. */
    double predicted_s, safe_s;
};

/* Something that went wrong, or that somebody changed: what a reader should know of the run. */
struct search_incident {
    double time_s;      /* wall time */
    int32_t allocation; /* index, -1: before the first */
    /* "killed", "rank lost", "rank hung", "device lost", "disk", "damaged file", "taken over",
     * "limits", "clock", ... */
    char *kind;
    char *message;           /* one line for people */
    int32_t node, candidate; /* that it is about, -1: none */
    double lost_s;           /* rank-seconds of work that have to be done again; NaN: unknown */
};

enum { SEARCH_INCIDENTS_MAX = 10000 /* later ones are counted, not kept */ };
enum { SEARCH_ALLOCATIONS_MAX = 100000 /* the last one stands for all later ones */ };

/* What has ended for good: a candidate, or a whole round. Whoever keeps figures of the search reads
 * on from where it stopped, and need not look through all nodes again. */
struct search_settled {
    int32_t node, candidate; /* -1: the round was closed */
};

/* The id of a wish to halt: small letters and digits, another one each time. */
enum { SEARCH_HALT_ID_BYTES = 40, SEARCH_HALT_ID_MIN_BYTES = 8 };
bool search_halt_id_fits(const char *id);

struct search_insight {
    char *text;
    int32_t nodes[SEARCH_INSIGHT_NODES_MAX]; /* that support it */
    int32_t node_count;
    bool retired; /* later evidence contradicts it, or it was merged into a later one */
};

/* Something that the agents asked of a language model or a source (agents/calls.h). */
enum { SEARCH_CALL_KEY_BYTES = 96 };
enum {
    SEARCH_CALL_TEXT_MAX_BYTES = 1 << 20 /* prompt and reply each */,
    SEARCH_CALLS_MAX = 1000000,
    SEARCH_CALL_ATTEMPTS_MAX = 1000000
};
/* Tokens of one call, and USD; a million of them still add up. */
#define SEARCH_CALL_TOKENS_MAX (INT64_C(1) << 40)
#define SEARCH_CALL_USD_MAX 1e9
struct search_call {
    char *key;     /* what it is known by: "n0003.2/plan/1" */
    char *purpose; /* "brief", "plan", "diagnose", "source", ... */
    char *kind;    /* "chat", "source", "dry" */
    int32_t node;  /* that it is about, -1: the whole search */
    char *body;    /* JSON: messages and schema, or the question to a source */
    bool ended;
    bool lost;   /* ended too: its job did before its answer came; what it reserved is spent */
    char *reply; /* NULL unless it was answered */
    char *provider, *model, *host; /* that answered, or failed last */
    char *error;                   /* why there is no reply; NULL if there is one */
    int64_t tokens_in, tokens_out; /* once ended */
    int64_t reserved_tokens;       /* upper bound, which counts while it is open or was lost */
    double cost_usd, reserved_usd; /* likewise; NaN: no price is known */
    double started_s, seconds;     /* wall time of its event; from the asking to the answer */
    double rank_seconds;           /* that ranks of the job worked on it */
    int32_t attempts;
    int64_t outcomes; /* search->outcomes before it ended: a replay answers it there */
};

/* A paper or a data set that the Researcher found and kept. */
enum { SEARCH_DOCUMENTS_MAX = 256 };
struct search_document {
    char *kind;   /* "literature", "data" */
    char *source; /* "arxiv", ... */
    char *id, *title, *url, *licence;
    char *text;   /* abstract or card, cut */
    char *note;   /* what the Researcher takes from it */
    char *path;   /* of downloaded rows, relative to the run folder; NULL: none */
    int64_t rows; /* of it */
};

/* A prompt that the search uses, as it stands in agents/prompts. */
enum { SEARCH_PROMPTS_MAX = 64 };
struct search_prompt {
    char *name, *hash, *text;
};

/* A plan that was asked for below a node: open until it is a node, or was dropped. Known by its
 * number: its place in search->requests, from 1. */
enum { SEARCH_REQUESTS_MAX = 10000000 };
struct search_request {
    int32_t parent;
    int32_t node;     /* that it became, -1: none */
    char *dropped;    /* why no node will come of it; NULL: one came, or may come yet */
    bool refused;     /* dropped because it cannot run, and not because nobody wants it any more */
    int64_t outcomes; /* search->outcomes when it was asked for: a replay asks for it then */
    int64_t dropped_outcomes; /* likewise */
};

bool search_request_is_open(const struct search_request *request);

/* How far ahead was planned from then on. */
enum { SEARCH_AHEADS_MAX = 100000 };
struct search_ahead {
    int64_t outcomes; /* search->outcomes before it was set: a replay sets it there */
    int64_t candidates;
};

/* What an outcome was: a replay has them in the same order. */
enum search_outcome_kind {
    SEARCH_OUTCOME_NONE, /* or not known: in a file of a version before 4 */
    SEARCH_OUTCOME_PLANNED,
    SEARCH_OUTCOME_DROPPED,
    SEARCH_OUTCOME_FINISHED,
    SEARCH_OUTCOME_FAILED,
    SEARCH_OUTCOME_CLOSED,
    SEARCH_OUTCOME_DIAGNOSED,
    SEARCH_OUTCOME_BRIEF,
    SEARCH_OUTCOME_DOCUMENTS,
    SEARCH_OUTCOME_AHEAD,
    SEARCH_OUTCOME_CALL,
    SEARCH_OUTCOME_COUNT
};
struct search_outcome {
    int32_t id;       /* node; number of a plan that was dropped; call; else -1 */
    int8_t candidate; /* -1: none */
    uint8_t kind;
};

/* What the search is of, fixed by its first event. Resuming with another identity is refused. */
struct search_identity {
    char *job;        /* the job file as it was read, JSON, without secrets */
    char *model_hash; /* of the base model */
    char *task_hash;  /* of validation and test split and metric */
    char *metric;
    bool larger_is_better;
    char *version; /* of the program that began it */
    uint64_t seed;
};

enum search_end { SEARCH_RUNNING, SEARCH_FINISHED };

struct search {
    struct search_identity identity;
    struct tree tree;          /* ids match nodes */
    struct search_node *nodes; /* tree.count */
    int32_t node_capacity;
    struct search_insight *insights;
    int32_t insight_count, insight_capacity;
    char *brief;               /* JSON: what the task wants, hypotheses; NULL: none was written */
    struct search_call *calls; /* in the order in which they were asked */
    int32_t call_count, call_capacity;
    int32_t *call_slots; /* of search_find_call: a hash table of indices plus 1, 0 where empty */
    int32_t call_slot_count;
    struct search_document *documents;
    int32_t document_count, document_capacity;
    struct search_prompt *prompts;
    int32_t prompt_count, prompt_capacity;
    struct search_request *requests; /* in the order in which they were asked for */
    int32_t request_count, request_capacity;
    int32_t refusals;     /* plans that were dropped as refused since the last one became a node */
    int64_t agent_tokens; /* of all calls: spent, and reserved by those that are open or lost */
    double agent_usd;     /* likewise; calls without a price count 0 */
    int64_t outcomes; /* events that a decision can rest on: plans and dropped ones, results, closed
                         and diagnosed rounds, brief, documents, ahead_set, calls that ended and
                         were not lost; the same for an interrupted and a whole search */
    int64_t ahead; /* candidates that are planned ahead of the free workers, so that none waits for
                      an agent: the last of aheads */
    struct search_ahead *aheads; /* in order */
    int32_t ahead_count, ahead_capacity;
    struct search_outcome *order; /* the last order_count of all outcomes */
    int32_t order_count, order_capacity;
    struct search_settled *settled; /* in the order in which it happened; after a load, of nodes */
    int64_t settled_count, settled_capacity;
    int32_t best_node;                /* with the best candidate of all, -1: none has finished */
    int64_t last_sequence;            /* number of the last event applied; 0: none */
    double rank_seconds;              /* spent by candidates, failed ones included, and on calls */
    double allocation_seconds;        /* wall time of all allocations up to the last event */
    double earlier_seconds;           /* of it, before the allocation that is running */
    double core_seconds, gpu_seconds; /* likewise */
    struct search_allocation *allocations; /* in order */
    int32_t allocation_count, allocation_capacity;
    struct search_incident *incidents; /* in order, at most SEARCH_INCIDENTS_MAX */
    int32_t incident_count, incident_capacity;
    int64_t incidents_seen;            /* also those that are not kept */
    double limits[SEARCH_LIMIT_COUNT]; /* that somebody set, in force since; NaN: the job file's */
    /* The last wish to halt that it has obeyed, "" if none. One is enough: there is one wish at a
     * time, in control.json, and a newer one has another id; so a wish that is not this one is one
     * to obey. (Who brings an old control.json back by hand wants it to be obeyed.) */
    char halt_id[SEARCH_HALT_ID_BYTES];
    enum search_end end;
    char *end_reason;                      /* "rounds", "budget", "goal", ... */
    int32_t winner_node, winner_candidate; /* -1 until finished */
    struct arena arena; /* holds every text, and every list that does not grow: nothing of a search
                           is freed before it is, and kept apart it does not scatter the heap */
};

/* Strings of a search are NULL where nothing set them yet: readers go through search_text. */
void search_init(struct search *search);
void search_fini(struct search *search);

/* Text, or "" for NULL. */
const char *search_text(const char *text);

/* The model hash of a search whose workers only sleep begins so: it has no model, and whatever
 * compares hashes keeps it apart from real ones. */
#define SEARCH_SIMULATED "simulated "
bool search_is_simulated(const struct search *search);

/* Events: {"sequence": 12, "time_s": wall, "event": "<kind>", ...}; sequence is last_sequence + 1.
 *
 *   started              job, model_hash, task_hash, metric, larger_is_better, version, seed
 *   job_resolved         job                       as before, with what was left open decided:
 *                        compute.precision; _model_checksum, of the base model's weights
 *   allocation_started   ranks, host [, workers, nodes, threads, gpus, job, restarts]
 *   allocation_progress  seconds                   wall seconds of this allocation so far
 *   allocation_ended     reason [, predicted_s, safe_s]
 *   incident             kind, message [, node, candidate, lost_s, blames]
 *   limits_set           limits{rounds, core_hours, ...: number or null}, what, by
 *   halted               id, how, by               it stops, because of the wish with this id
 *   plan_requested       number, parent [, outcomes]   a plan below it is wanted; how many outcomes
 *                        were known then, as others may have come before it on the disk
 *   plan_dropped         number, why, refused      none will come: it cannot run, or is not wanted
 *   node_planned         node, parent, strategy, goal, rationale, recipe[], configs[{}], researcher
 *                        [, number]                of the request that it answers
 *   candidate_started    node, candidate, rank
 *   candidate_suspended  node, candidate, steps_done, rank_seconds
 *   candidate_finished   node, candidate, result{...}, weights_kept
 *   candidate_failed     node, candidate, error{code, message, file, line, rank}, log_tail,
 *                        rank_seconds
 *   node_closed          node, diagnosis, insights[{text, nodes[]}]
 *   weights_dropped      node, candidate           its weights file was removed
 *   test_scored          node, candidate, score{...}
 *   finished             reason, winner_node, winner_candidate   (-1, -1: no candidate finished)
 *
 *   call_started         call, key, purpose, kind, node, body{}, reserved_tokens, reserved_usd|null
 *   call_ended           call, seconds, reply or error [, lost, provider, model, host, tokens_in,
 *                        tokens_out, cost_usd, attempts, rank_seconds]     lost: with an error;
 * allowed after the end, like the next and node_diagnosed prompts              prompts[{name, hash,
 * text}]         those of the same name are replaced brief                brief{...} replaces an
 * earlier one documents            documents[{kind, source, id, title [, url, licence, text, note,
 * path, rows]}]                    same kind, source and id: it is replaced node_diagnosed node,
 * diagnosis, causes[] [, insights[{text, nodes[]}], retired[indices of insights that were there
 * before]]    of a closed node, as often as wanted ahead_set            candidates
 *
 * What stands in brackets may be absent or null: one thread, no GPU, spans unknown. With `blames`
 * true the candidate's kills go up by one. limits_set says all limits that hold from then on, and
 * not only those that change: what is null or absent is the job file's. It and halted are incidents
 * too, "limits" and "halted", with the message "<what or how>, by <by>".
 *
 * job is an object or a text; a code is a name ("STATUS_DIVERGED") or a number. rank_seconds (also
 * in results) are those since the candidate was started this time: they add up. Keys that are not
 * listed are ignored. STATUS_INVALID, STATUS_LIMIT or STATUS_NO_MEMORY (the search is then
 * unchanged) names the key or the state that does not fit. */
enum status search_apply(struct search *search, const cJSON *event, struct error *err);

/* What an event is among search->outcomes; SEARCH_OUTCOME_NONE: it does not count there. */
struct search_outcome search_read_outcome(const cJSON *event);
/* The outcome that came after `before` others. */
struct search_outcome search_outcome_after(const struct search *search, int64_t before);

/* Result object of candidate_finished, shared by worker and search: keys validation{value,
 * standard_error, loss, rows, truncated, unfinished, format_failures, seconds}, curve[[step,
 * tokens, train_loss, validation_loss|null, gradient_norm, learning_rate, seconds]...], cases[{row,
 * score, prompt, answer, output}], confusions[{expected, found, count}], steps_done, samples,
 * tokens, end, rank_seconds, recipe_report[]. */
/* Whether a result, or a score, is one that an event may carry: for whoever writes the event.
 * STATUS_INVALID lists the mistakes. */
enum status search_result_check(const cJSON *result, struct error *err);
enum status search_score_check(const cJSON *score, struct error *err);

cJSON *search_score_to_json(const struct search_score *score);

/* Name "n0007-c2", and back: false if the text is no such name. */
enum { SEARCH_NAME_BYTES = 32 };
void search_candidate_name(int32_t node, int32_t candidate, char out[SEARCH_NAME_BYTES]);
/* Strict: only texts that search_candidate_name can give. Outputs are unchanged on false. */
bool search_candidate_parse(const char *name, int32_t *node, int32_t *candidate);

/* The newest call of a key that was not lost, open or ended; NULL if there is none. Borrowed until
 * the next search_apply. */
const struct search_call *search_find_call(const struct search *search, const char *key);

/* Whether a text can be the key of a call: printable ASCII without spaces. */
bool search_call_key_fits(const char *key);

/* What a call counts against the limits: what it has cost, or reserved while it is open or when it
 * was lost. Money without a price is 0. */
int64_t search_call_tokens(const struct search_call *call);
double search_call_usd(const struct search_call *call);

/* Whether a path is relative and has no ".." in it: search_document.path. */
bool search_path_stays_inside(const char *path);

/* Lets search_find_call find them, for a search that did not come from events. STATUS_INVALID if
 * two calls that were not lost have one key. */
enum status search_index_calls(struct search *search, struct error *err);

/* Lists what has ended and finds the best, for a search that did not come from events. */
enum status search_settle_all(struct search *search, struct error *err);

/* Best finished candidate by validation score; ties go to the earlier. False if there is none. */
bool search_best(const struct search *search, int32_t *node, int32_t *candidate);

/* Whether the difference of two scores is above `errors` standard errors of the difference. */
bool search_score_above(const struct search_score *a, const struct search_score *b, double errors,
                        bool larger_is_better);

/* Rank of state for people: "planned", "running", "suspended", "finished", "failed". */
const char *candidate_state_name(enum candidate_state state);

#endif
