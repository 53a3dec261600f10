/* trex-tree: reads run folders, live or dead, without a lock, without MPI and without a network.
 *
 *   main.c        the commands           options.c     arguments, failures, exit codes
 *   view.c        a run that was read    paint.c       colours, bars, text made safe for a terminal
 *   status.c show.c show_node.c show_agents.c best.c export.c verify.c halt.c set.c   the commands
 *   history.c ledger.c       of status and show: what work and what agents have cost
 *   steer.c       what halt and set share: the one file that is written, control.json
 *   watch.c accounting.c     of status: again and again; what Slurm has counted
 *
 * A new command is one file and one row in main.c. Only this room and src/cli print. */
#ifndef ANALYSIS_ANALYSIS_H
#define ANALYSIS_ANALYSIS_H

#include <stdbool.h>
#include <stdio.h>

#include "base/json.h"
#include "store/control.h"
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
    command_verify, command_halt, command_set;

/* ---- options.c ---- */

struct command_option {
    const char *name;
    bool *flag;        /* for an option without a value, else NULL */
    const char **text; /* for one with a value; left alone if the option is not given */
    /* Both: the value, a number, may be absent. */
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

/* Which file it was, to see whether another one is there now. */
struct view_stamp {
    uint64_t inode;
    int64_t bytes, seconds, nanoseconds; /* size; time of the last write */
};

enum { VIEW_FILES = 4 };

struct view {
    const char *folder;
    struct view_stamp stamps[VIEW_FILES]; /* of the files that the search writes, before reading */
    struct search search;
    struct store_control control; /* what was asked for; what holds if it cannot be read */
    char note[1024];              /* what was wrong with the files, "" if nothing */
    cJSON *job;                   /* {} if it is no JSON */
    bool held;                    /* somebody locked the folder and did not unlock it */
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

/* A limit of the job file; the one in force: what the search knows to be set, else the job file's;
 * and the one that is wanted, which is in force once the search has seen it. */
double view_job_limit(const struct view *view, enum search_limit_id id);
double view_limit(const struct view *view, enum search_limit_id id);
double view_wanted_limit(const struct view *view, enum search_limit_id id);

/* Whether somebody wants another limit than the one that the search goes by. */
bool view_limit_waits(const struct view *view, enum search_limit_id id);

/* A wish to halt that the search has not obeyed yet. */
bool view_halt_wanted(const struct view *view);

/* "finished", "halted", "running", "stopped", "killed" and the like: what is known of the process.
 */
const char *view_condition(const struct view *view);

/* Looks again at a run that goes on; reads only what has changed. On failure it is closed. */
enum status view_refresh(struct view *view, struct error *err);

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

/* The incidents that are about a node or one of its candidates. */
void history_print_of_node(const struct search *search, int32_t node);

/* Sums over the candidates of a node. */
void history_node_cost(const struct search_node *node, double *core_seconds, double *gpu_seconds);

/* "1.25 core-hours, 0.31 GPU-hours", the latter only if there are any; the same as JSON. */
void history_print_cost(double core_seconds, double gpu_seconds);
void history_add_cost(cJSON *object, double core_seconds, double gpu_seconds);

/* ---- ledger.c: what the agents have asked, and what it has cost ---- */

struct ledger {
    int64_t calls, open, failed, lost; /* the last three are among the first */
    int64_t tokens, reserved_tokens;   /* spent; reserved by calls that are open or were lost */
    double usd, reserved_usd;          /* likewise; calls without a price count 0 */
    int64_t unpriced;                  /* calls with tokens, but without a price */
    double seconds;                    /* waited for answers, those at the same time added up */
};

enum { LEDGER_ALL = -2, LEDGER_WHOLE_SEARCH = -1 /* calls about no node */ };

void ledger_add_call(struct ledger *ledger, const struct search_call *call);
void ledger_sum(const struct search *search, int32_t node, struct ledger *out);

/* Of each node, on the heap; NULL without memory. */
struct ledger *ledger_of_nodes(const struct search *search);

/* "3 calls (1 failed), 1234 tokens, 0.0123 USD"; the line of status, with the limits in force, or
 * nothing of a search that asks nobody. */
void ledger_print(const struct ledger *ledger);
void ledger_print_status(const struct view *view);

cJSON *ledger_json(const struct ledger *ledger);
cJSON *ledger_status_json(const struct view *view);

/* ---- steer.c: what halt and set share ---- */

/* Reads the run folder and what was asked for before. STATUS_INVALID if the search has finished. */
enum status steer_open(const char *folder, struct view *out, struct error *err);

/* Writes view->control with the name of whoever asks. */
enum status steer_write(struct view *view, struct error *err);

/* When it will be obeyed, in words: "within seconds", or when the search next runs. */
void steer_print_when(const struct view *view);

/* What was set and what is wanted of a search, for status: nothing, or lines. As objects: all
 * limits in force; what is wanted. */
void steer_print_wishes(const struct view *view);
cJSON *steer_limits_json(const struct view *view);
cJSON *steer_wishes_json(const struct view *view);

/* ---- watch.c ---- */

/* Prints a run again and again until it has ended, on a terminal always at the same place. Ends
 * with an exit code; Ctrl-C ends it too. */
int watch_run(struct view *view, double interval_s, int (*print)(struct view *view, void *context),
              void *context);

/* ---- accounting.c ---- */

/* What Slurm has counted for the jobs of a search, or in words why there are no figures: a line of
 * status, an object. Asks sacct, which may take seconds. */
void accounting_print(const struct view *view);
cJSON *accounting_json(const struct view *view);

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
