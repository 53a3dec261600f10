/* trex-tree: reads run folders, live or dead, without a lock, without MPI and without a network.
 *
 *   main.c        the commands           options.c     arguments, failures, exit codes
 *   view.c        a run that was read    paint.c       colours, bars, text made safe for a terminal
 *   status.c show.c show_node.c best.c export.c verify.c     one command each
 *
 * A new command is one file and one row in main.c. Only this room and src/cli print. */
#ifndef ANALYSIS_ANALYSIS_H
#define ANALYSIS_ANALYSIS_H

#include <stdbool.h>
#include <stdio.h>

#include "base/json.h"
#include "store/store.h"
#include "tree/search.h"

/* Exit codes: 0 done, 1 failed or damaged, 2 the command line or what it names is wrong. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_WRONG_INPUT = 2 };

/* ---- commands ---- */

struct command {
    const char *name;
    const char *summary;
    const char *usage; /* text of --help: synopsis, what it does, options, an example */
    int (*run)(const struct command *command, int argc, char **argv);
};

extern const struct command command_status, command_show, command_best, command_export,
    command_verify;

/* ---- options.c ---- */

struct command_option {
    const char *name;
    bool *flag;        /* for an option without a value, else NULL */
    const char **text; /* for one with a value; left alone if the option is not given */
};

/* Parses options (ending with a NULL name) and from min to max other arguments, in any order.
 * Returns true and the arguments; else *exit_code says how to end (--help prints the usage and ends
 * with 0). */
bool options_parse(const struct command *command, int argc, char **argv,
                   const struct command_option *options, int min, int max, char ***arguments,
                   int *count, int *exit_code);

/* Prints a failure with what to do next; returns the exit code. */
int options_fail(const struct error *err);

/* Prints a JSON object, indented, with a newline; frees it. NULL (no memory) is a failure. */
int options_print_json(cJSON *object);

/* ---- view.c: a run folder that was read ---- */

struct view {
    const char *folder;
    struct search search;
    char note[1024]; /* what was wrong with the files, "" if nothing */
    cJSON *job;      /* {} if it is no JSON */
    bool held;       /* somebody locked the folder and did not unlock it */
    struct store_holder holder;
    double age_s; /* since the last write */
    /* Winner, or while the search goes on the best so far; best_node -1: no candidate has finished.
     */
    int32_t best_node, best_candidate;
};

enum status view_open(const char *folder, struct view *out, struct error *err);
void view_close(struct view *view);

/* The base model as it was, n0000-c0; NULL until it has finished. */
const struct candidate *view_baseline(const struct view *view);
const struct candidate *view_best(const struct view *view); /* NULL if there is none */

/* String or number of the job file under "<section>"/"<key>" (section NULL: at the root); fallbacks
 * "" and 0. */
const char *view_job_text(const struct view *view, const char *section, const char *key);
double view_job_number(const struct view *view, const char *section, const char *key);

/* "finished", "running", "stopped", "killed" and the like: what is known of the process. */
const char *view_condition(const struct view *view);

struct view_counts {
    int closed, failed, open;              /* rounds, the baseline not counted */
    int candidates[CANDIDATE_STATE_COUNT]; /* by state */
};
void view_count(const struct view *view, struct view_counts *out);

/* {"value", "standard_error", "rows", ...}, or null. */
cJSON *view_score_json(const struct search_score *score);

/* ---- history.c: what the search has cost, where it ran, what happened to it ---- */

/* The lines of status: hours, the last allocation and how it ended, the last incidents. */
void history_print(const struct view *view);

/* Adds the same to an object, but all of it: core_hours, gpu_hours, allocation_list, incidents,
 * incidents_seen. */
void history_add_json(const struct view *view, cJSON *object);

/* Sums over the candidates of a node. */
void history_node_cost(const struct search_node *node, double *core_seconds, double *gpu_seconds);

/* "1.25 core-hours, 0.31 GPU-hours", the latter only if there are any; the same as JSON. */
void history_print_cost(double core_seconds, double gpu_seconds);
void history_add_cost(cJSON *object, double core_seconds, double gpu_seconds);

/* ---- paint.c ---- */

enum paint { PAINT_PLAIN, PAINT_BOLD, PAINT_FAINT, PAINT_GOOD, PAINT_BAD, PAINT_BUSY };

/* Escape codes, or "" unless stdout is a terminal and NO_COLOR is not set. PAINT_PLAIN ends a
 * colour. */
const char *paint(enum paint paint);

/* "0.6200 ± 0.0164", or "-" if there is none. */
enum { PAINT_SCORE_BYTES = 64 };
void paint_score(const struct search_score *score, char out[PAINT_SCORE_BYTES]);

/* "3 s", "12 min", "4.2 h". */
enum { PAINT_TIME_BYTES = 32 };
void paint_duration(double seconds, char out[PAINT_TIME_BYTES]);

/* Seconds as a number of hours: "0.0042", "3.21", "1234". */
void paint_hours(double seconds, char out[PAINT_TIME_BYTES]);

/* What begins a line of status: "  rounds      ". */
void paint_label(const char *text);

/* Characters that a text takes on a terminal (code points; wide ones are not told apart). */
int paint_width(const char *text);

/* Prints at most `width` characters of a text on one line: control characters (a model may have
 * written them) become visible, "..." stands for the rest. */
void paint_line(const char *text, int width);

/* Prints a whole text, wrapped at `width`, each line after `indent` spaces; controls made visible.
 */
void paint_block(const char *text, int indent, int width);

/* Columns of the terminal, or 100. */
int paint_columns(void);

#endif
