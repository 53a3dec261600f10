/* A recipe: a JSON list of operators that turns the task's training split (and other files) into
 * training rows.
 *
 *   [{"op": "load", "path": "more.jsonl"}, {"op": "dedup"}, {"op": "sample", "count": 5000}]
 *
 * It starts from the task's training split. Same recipe, inputs and seed: same rows in the same
 * order. */
#ifndef DATA_RECIPE_H
#define DATA_RECIPE_H

#include "base/json.h"
#include "base/log.h"
#include "base/progress.h"
#include "data/dataset.h"
#include "data/task.h"

enum { RECIPE_STEPS_MAX = 64, RECIPE_FIELDS_MAX = 64 /* that one step may name */ };
#define RECIPE_TEXT_MAX_BYTES ((int64_t)4 << 30) /* that all steps of a recipe may make */

struct recipe_context {
    const struct task *task;
    const struct dataset *train;      /* borrowed, never changed */
    const struct dataset *validation; /* for the overlap check; may be NULL */
    const struct dataset *test;       /* likewise */
    const char *folder;               /* relative paths of "load" are relative to it */
    const char
        *confine; /* the program whose `confine` runs code (trex itself); NULL: code is off */
    uint64_t seed;
    int64_t max_samples;    /* most rows of the result; 0: no limit. More are sampled down to it */
    int64_t text_max_bytes; /* of the texts that steps make; 0: RECIPE_TEXT_MAX_BYTES */
    struct log *log;
    const struct progress *progress; /* NULL, or told of each step (phase "data") */
};

/* What each step did: for the tree and for people. */
struct recipe_report {
    struct {
        char op[32];
        int64_t rows_in;
        int64_t rows_out;
        char note[192]; /* "removed 12 duplicates", or why nothing changed */
    } steps[RECIPE_STEPS_MAX];
    int step_count;
};

/* Checks operators and arguments, reading no data; mistakes go to the problems under `pointer`. */
void recipe_check(const cJSON *recipe, const char *pointer, struct json_problems *problems);

/* Runs it. STATUS_INVALID if no row is left, STATUS_LIMIT if it makes too many rows or too much
 * text; the message names the step. Overlap with validation or test (same rendered prompt, case and
 * white space ignored) is always removed at the end, whatever the recipe says. */
enum status recipe_run(const cJSON *recipe, const struct recipe_context *context,
                       struct dataset *out, struct recipe_report *report, struct error *err);

/* Identity of the result before it is made: hash of recipe, inputs, seed, limits and operator
 * versions. */
void recipe_hash(const cJSON *recipe, const struct recipe_context *context, char out[33]);

/* The registry, for --help and for agents: name, arguments in words, one line of what it does. NULL
 * at the end. */
struct recipe_operator_info {
    const char *name;
    const char *arguments;
    const char *summary;
};
const struct recipe_operator_info *recipe_operators(void);

#endif
