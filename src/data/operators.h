/* The operators of a recipe: a registry of rows, each with a check and a run of its own file. */
#ifndef DATA_OPERATORS_H
#define DATA_OPERATORS_H

#include "base/arena.h"
#include "base/json.h"
#include "base/rng.h"
#include "data/recipe.h"
#include "data/row_list.h"

/* What an operator works with while it runs. */
struct operator_run {
    const struct recipe_context *context;
    struct rng rng;      /* of this step alone: seed of the recipe, stream = index of the step */
    struct arena *arena; /* lives as long as the recipe runs; paths of sources */
    const struct row_list *train; /* the training split as it was */
    int64_t *text_bytes;          /* that the recipe made so far (operator_count_text) */
    char *note;                   /* out: what happened, for people */
    size_t note_bytes;
};

/* The registry. X(name, version, arguments in words (defaults in brackets), what it does).
 * The version is raised when the same arguments begin to give other rows: prepared data is then
 * made anew. */
#define OPERATOR_LIST(X)                                                                           \
    X(load, 1, "path; weight (1; 2: each row twice, 0.5: half of them), limit (0: all)",           \
      "add the rows of another .jsonl file")                                                       \
    X(map, 1,                                                                                      \
      "rename {old: new}, set {field: template or any JSON}, drop [fields]; missing (error, "      \
      "empty, drop)",                                                                              \
      "rename fields, make new ones from templates, drop fields, in this order")                   \
    X(extract, 1,                                                                                  \
      "pattern, into; field (prompt), group (1), ignore_case (false), missing (empty, drop, "      \
      "error)",                                                                                    \
      "put what a regular expression finds in a field into another field")                         \
    X(filter, 1,                                                                                   \
      "field; include, exclude (regular expressions), ignore_case (false), equals, not_equals "    \
      "(values)",                                                                                  \
      "keep rows by a regular expression or by the value of a field")                              \
    X(length, 1, "min, max; field (prompt and answer), unit (characters, words)",                  \
      "keep rows whose text is neither too short nor too long")                                    \
    X(dedup, 1,                                                                                    \
      "fields (prompt and answer), fold (false; true: case and white space do not count)",         \
      "keep the first of rows that are the same")                                                  \
    X(sample, 1, "count, or fraction (0 to 1)", "keep a random part of the rows, in their order")  \
    X(balance, 1, "field (answer), mode (down, up) or counts {class: rows}, max_repeat (10)",      \
      "as many rows of each class: fewer of large ones, small ones repeated, or counts of your "   \
      "own")                                                                                       \
    X(mix, 1,                                                                                      \
      "sources [{path (a file, \"train\", or \"rows\": those so far), weight (1)}]; count, "       \
      "max_repeat (4)",                                                                            \
      "replace the rows by a mixture of sources in given shares")                                  \
    X(repeat, 1, "times (1 to 100)", "have each row several times")                                \
    X(shuffle, 1, "none", "put the rows into a random order")                                      \
    X(limit, 1, "count", "keep the first rows")                                                    \
    X(overlap, 1,                                                                                  \
      "ngram (0: only equal prompts; 13 is usual), field, against (both, validation, test), "      \
      "action (remove, report)",                                                                   \
      "remove or report rows that also stand in validation or test")                               \
    X(code, 1, "program (Python: rows as JSON Lines in, rows as JSON Lines out)",                  \
      "rows by a program, without network and other files; only where researcher.code allows it")

#define OPERATOR_DECLARE(name, version, arguments, summary)                                        \
    void operator_##name##_check(struct json_reader *args);                                        \
    enum status operator_##name##_run(struct operator_run *run, struct json_reader *args,          \
                                      struct row_list *rows, struct error *err);
OPERATOR_LIST(OPERATOR_DECLARE)
#undef OPERATOR_DECLARE

struct recipe_operator {
    const char *name;
    int version;

    /* Asks `args` for every key it knows and adds problems. Reads no data. */
    void (*check)(struct json_reader *args);

    /* Changes the rows in place. The arguments have passed check. On failure the rows may be in any
     * valid state. */
    enum status (*run)(struct operator_run *run, struct json_reader *args, struct row_list *rows,
                       struct error *err);
};

/* NULL if there is none of that name. */
const struct recipe_operator *operator_find(const char *name);

void operator_note(struct operator_run *run, const char *format, ...) BASE_PRINTF(2, 3);

/* Counts a text that a step made. STATUS_LIMIT beyond what a recipe may make: templates that repeat
 * a text over and over must not fill a worker's memory. */
enum status operator_count_text(struct operator_run *run, size_t bytes, struct error *err);

/* Adds a problem if a list or object under `key` names more than RECIPE_FIELDS_MAX fields: each of
 * them costs time in every row. */
void operator_check_fields(struct json_reader *args, const char *key, const cJSON *fields);

/* Puts "<source>:<line>" before the message: which row it was. */
void operator_row_context(struct error *err, const struct shared_row *row);

/* Marks for row_list_keep, all 0. NULL without memory. */
uint8_t *operator_marks(const struct row_list *rows, struct error *err);

/* Appends what a step compares or measures: a field as text, or (field NULL) what the model reads,
 * a newline, and what it should write. An absent field appends nothing, and *found (may be NULL) is
 * false. */
enum status operator_append_text(const struct operator_run *run, const struct shared_row *row,
                                 const char *field, struct buffer *out, bool *found,
                                 struct error *err);

/* Reads a file into a list. Relative paths are relative to the recipe's folder; the task's
 * validation and test files are refused. */
enum status operator_read_file(struct operator_run *run, const char *path, struct row_list *out,
                               struct error *err);

#endif
