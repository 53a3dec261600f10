/* The parts of the `model` researcher: a language model plans, `rules` is the floor.
 *
 *   researcher_model.c   what researcher.h asks for: requests, plans that are ready, events
 *   model_ask.c          a question until a reply fits, with repairs, all of it found again by key
 *   model_prepare.c      before the first plan: brief, papers, data sets
 *   model_plan.c         direction, plan, revision
 *   model_diagnosis.c    why a round failed, and what it teaches
 *   model_cases.c        failed rows in groups, sampled
 *   model_context.c      what is said of task, data, model and limits
 *   model_tree.c         what is said of rounds, directions and insights
 *
 * Nothing waits, and nothing is remembered that does not follow from the search: each turn walks
 * through what is wanted, finds the answers by their keys, and asks the first that is missing.
 * Whoever is interrupted walks the same way again. */
#ifndef AGENTS_MODEL_PARTS_H
#define AGENTS_MODEL_PARTS_H

#include "agents/calls.h"
#include "agents/plan.h"
#include "agents/prompt.h"
#include "agents/researcher_provider.h"
#include "agents/rules.h"

enum {
    MODEL_VALUES_MAX = 24,
    MODEL_TEXT_MAX_BYTES = 96 * 1024, /* of one value of a prompt */
    MODEL_WHY_BYTES = 1500,
    MODEL_SUBJECT_BYTES = 32,
    MODEL_NOTES_MAX = 24, /* incidents of one process */
    MODEL_RECORDS_MAX = 32,
    MODEL_WANTED_MAX = 64,  /* rounds that are looked at at once: what plans wait for */
    MODEL_LOOKS_MAX = 2,    /* and others, where there are fewer than this */
    MODEL_LOOKS_BACK = 8,   /* of so many newest */
    MODEL_OTHERS_BACK = 128 /* newest nodes among which open ones are looked for */
};

/* ---- values of a prompt ---- */

struct model_values {
    struct prompt_value items[MODEL_VALUES_MAX];
    char *owned[MODEL_VALUES_MAX];
    int count;
    int32_t memory_node; /* {{memory}} is of it, in what is left of the budget; -1: none */
    bool failed;         /* without memory */
};
enum { MODEL_OURS = 0, MODEL_QUOTED = 1 };
/* Takes what is in the buffer, and empties it. `trim` as in prompt.h. */
void model_add_value(struct model_values *values, const char *name, struct buffer *text, int quoted,
                     int trim);
void model_add_text(struct model_values *values, const char *name, const char *text, int quoted,
                    int trim);
void model_values_fini(struct model_values *values);

/* ---- the state ---- */

enum model_look { LOOK_NONE, LOOK_WANTED, LOOK_SENT, LOOK_OVER };

/* How far a request has come. */
struct model_walk {
    bool over;
    struct plan plan; /* owned, once over; empty where there is a `why` */
    char
        why[MODEL_WHY_BYTES]; /* nothing came of it, and the floor is wanted; "": there is a plan */
    int64_t outcomes;         /* of the search before the answer that ended it */
};

/* A plan that was asked for. */
struct model_request {
    int32_t parent, number;
    char subject[MODEL_SUBJECT_BYTES];
    int attempt;     /* of plan and repairs, from which to walk on */
    char *complaint; /* about the attempt before, when it came back; NULL: none */
    char waits_for[SEARCH_CALL_KEY_BYTES]; /* "": for nothing yet */
    struct model_walk walk;
};

/* What a direction, by the title that goals begin with, brought in this search. */
struct model_record {
    char title[64];
    int32_t rounds, better;
};

struct model {
    struct researcher_options options; /* strings borrowed */
    const struct researcher_facts *facts;
    void *rules; /* state of researcher_rules */
    struct rules_history history;
    struct model_record records[MODEL_RECORDS_MAX];
    int record_count;
    int64_t records_read; /* of search->settled */

    struct model_request *requests; /* in the order in which they were asked */
    int request_count, request_capacity;
    struct plan *ready;
    int ready_count, ready_capacity;
    cJSON **events;
    int event_count, event_capacity;
    int notes; /* incidents so far */

    unsigned char *looks; /* enum model_look of each node */
    int32_t look_capacity;
    int32_t wanted[MODEL_WANTED_MAX]; /* nodes with LOOK_WANTED, in the order of wanting */
    int wanted_count;
    bool brief_over, literature_over, data_over; /* there, given up, or not wanted */
    bool brief_sent, literature_sent,
        data_sent; /* an event is on its way to the search, or there */
    bool prompts_sent;
    int64_t seen; /* last_sequence of the last turn that looked; -1: look again */
};

/* Takes the event. STATUS_NO_MEMORY. */
enum status model_push_event(struct model *model, cJSON *event, struct error *err);

/* A line for log and tree: what was given up, and why. */
void model_note(struct model *model, int32_t node, const char *format, ...) BASE_PRINTF(3, 4);

/* A member that is a text, "" if it is none. */
const char *model_text(const cJSON *object, const char *key);

/* The first bytes of a text, whole characters, each run of white space one space. */
void model_append_line(struct buffer *out, const char *text, size_t max_bytes);

/* ---- model_ask.c ---- */

struct model_question {
    const char *key;    /* "<key>/1" is asked first */
    const char *repair; /* then "<repair>/1", "<repair>/2", ... */
    const char *prompt, *purpose;
    int32_t node;
    void (*fill)(struct model *model, const struct search *search, void *context,
                 struct model_values *values);
    /* What a schema cannot say; NULL: nothing. */
    void (*check)(struct model *model, const struct search *search, void *context,
                  const cJSON *reply, struct json_problems *problems);
    void *context;
    int attempt;           /* to begin with; 0 but for revisions */
    const char *complaint; /* about the one before that */
};

enum model_state { MODEL_WAITS, MODEL_READY, MODEL_FAILED };
struct model_reply {
    enum model_state state;
    cJSON *json;                           /* owned, when ready */
    const struct search_call *call;        /* that gave it; borrowed */
    int attempt;                           /* repairs that it took */
    char waits_for[SEARCH_CALL_KEY_BYTES]; /* when it waits */
    bool answered;                         /* there was some reply, if none that fits */
    char why[MODEL_WHY_BYTES];             /* when failed */
};
struct model_reply model_ask(struct model *model, const struct search *search,
                             const struct model_question *question);
void model_reply_fini(struct model_reply *reply);

/* A question to a source; the same states. *answer: owned JSON. */
enum model_state model_ask_source(struct model *model, const struct search *search,
                                  const cJSON *question, cJSON **answer, char why[MODEL_WHY_BYTES]);

/* Reads what a language model replied: the reply against the schema of a prompt. NULL if it does
 * not fit. */
cJSON *model_read_reply(const char *prompt, const char *text);

/* ---- model_prepare.c, model_plan.c, model_diagnosis.c ---- */

enum status model_prepare(struct model *model, const struct search *search, struct error *err);
bool model_is_prepared(const struct model *model, const struct search *search);

/* What a plan starts from: the parent's best, else the best above it, else the usual settings. */
struct model_base {
    char name[64]; /* "n0001-c2" or RULES_USUAL_SETTINGS */
    struct train_config config;
    cJSON *recipe; /* owned */
};
enum status model_read_base(struct model *model, const struct search *search, int32_t parent,
                            struct model_base *out, struct error *err);

/* Walks a request on: to what it waits for, or to the end in request->walk. */
void model_walk_plan(struct model *model, const struct search *search,
                     struct model_request *request);

/* Walks through the rounds that are to be looked at; those of `requests` first. */
enum status model_diagnose(struct model *model, const struct search *search, struct error *err);
enum model_look model_look_of(const struct model *model, int32_t node);

/* ---- model_cases.c ---- */

/* Failed rows of a candidate, grouped (empty, no possible answer, each confusion, too long, too
 * short, other), a few of each group in turn, each group with its share; in at most max_bytes.
 * `before` (may be NULL): the parent's best, for rows that failed there too. */
void model_append_cases(const struct candidate *candidate, const struct candidate *before,
                        size_t max_bytes, struct buffer *out);

/* ---- model_context.c ---- */

/* goal, task, facts: what every prompt has. */
void model_add_job(struct model *model, const struct search *search, struct model_values *values);
void model_add_samples(struct model *model, struct model_values *values, int trim);
void model_add_brief(const struct search *search, struct model_values *values, int trim);
void model_add_sources(struct model_values *values, int kind);
double model_rounds_left(const struct model *model, const struct search *search);
void model_add_budget(struct model *model, const struct search *search,
                      struct model_values *values);
void model_add_documents(const struct search *search, struct model_values *values, int trim);
/* Files that a recipe may read, and which these are. */
void model_add_files(const struct search *search, struct model_values *values);
const char *model_document_file(const struct search_document *document);
void model_add_operators(const struct model *model, struct model_values *values, int trim);
void model_add_keys(struct model_values *values, int trim);

/* ---- model_tree.c ---- */

enum status model_records_update(struct model *model, const struct search *search,
                                 struct error *err);
void model_add_record(struct model *model, struct model_values *values, int trim);
/* Open rounds, and plans on the way before `request`. */
void model_add_under_way(struct model *model, const struct search *search,
                         const struct model_request *request, struct model_values *values,
                         int trim);
void model_add_round(struct model *model, const struct search *search, int32_t node,
                     struct model_values *values, int trim);
void model_add_compared(struct model *model, const struct search *search, int32_t node,
                        struct model_values *values, int trim);
void model_add_insights(const struct search *search, struct model_values *values, int trim);

#endif
