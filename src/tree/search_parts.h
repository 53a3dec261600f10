/* What the files of the search share and nobody else needs. */
#ifndef TREE_SEARCH_PARTS_H
#define TREE_SEARCH_PARTS_H

#include "base/json.h"
#include "tree/search.h"

/* Longest span or time of an event, thirty million years: sums and products of such stay finite. */
#define SEARCH_SECONDS_MAX 1e15
enum { SEARCH_THREADS_MAX = 1 << 16 /* or GPUs, of a rank */ };

bool candidate_is_over(const struct candidate *candidate);

/* Makes room for one more search_settle: the candidate (-1: the whole round) has ended. */
enum status search_reserve_settled(struct search *search, struct error *err);
void search_settle(struct search *search, int32_t node, int32_t candidate);

/* Counts the time of ranks. Cores and GPUs, *core_seconds and *gpu_seconds of it, are as the
 * running allocation has them: one core and no GPU a rank where it does not say. */
void search_add_cost(struct search *search, double rank_seconds, double *core_seconds,
                     double *gpu_seconds);

/* Whether value a of the metric is better than b. */
bool search_value_better(double a, double b, bool larger_is_better);

/* Copy of a string member in the arena, of at most max_bytes; "" if it is absent and not
 * `required`. A mistake goes to the reader's problems and gives NULL in *out; STATUS_NO_MEMORY
 * otherwise. */
enum status search_read_text(struct json_reader *reader, const char *key, bool required,
                             size_t max_bytes, struct arena *arena, char **out, struct error *err);

/* One line of JSON of an array (of an object) member; the same rules. */
enum status search_read_json(struct json_reader *reader, const char *key, bool array,
                             size_t max_bytes, struct arena *arena, char **out, struct error *err);

/* Reads a score object under `pointer`; mistakes go to the problems. */
void search_score_read(const cJSON *object, const char *pointer, struct json_problems *problems,
                       struct search_score *out);

/* Reads the result object of candidate_finished into the measured members of an empty *out, and the
 * recipe report (NULL if there is none). Mistakes go to the problems. */
enum status search_result_read(const cJSON *object, const char *pointer,
                               struct json_problems *problems, struct arena *arena,
                               struct candidate *out, char **recipe_report, struct error *err);

#endif
