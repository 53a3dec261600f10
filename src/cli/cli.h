/* What the subcommands share: options, messages, exit codes. Only this room prints for people, and
 * only main exits. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/log.h"
#include "base/status.h"
#include "run/workspace.h"

/* Exit codes: 0 done, 1 failed, 2 the command line or an input file is wrong, 75 (EX_TEMPFAIL of
 * sysexits.h) the run folder is in use, 85 stopped and can be resumed. */
enum { CLI_DONE = 0, CLI_FAILED = 1, CLI_WRONG_INPUT = 2, CLI_IN_USE = 75 };

struct cli_command {
    const char *name;
    const char *summary;
    const char *usage; /* text of --help: synopsis, what it does, options, an example */
    int (*run)(const struct cli_command *command, int argc, char **argv);
};

/* One file each: src/cli/<name>.c. */
extern const struct cli_command cli_check, cli_prefetch, cli_init, cli_search, cli_train, cli_eval,
    cli_generate, cli_data, cli_tokenize, cli_sources, cli_confine, cli_relay, cli_version;

enum cli_kind { CLI_FLAG, CLI_TEXT, CLI_INTEGER, CLI_NUMBER };
struct cli_option {
    const char *name;
    enum cli_kind kind;
    void *value; /* bool *, const char **, int64_t *, double *; left alone if the option is not
                    given */
};

/* Parses options (ending with a NULL name) and from min to max other arguments, in any order.
 * Returns true and the arguments in *arguments; else *exit_code says how to end (--help prints the
 * usage and ends with 0). */
bool cli_parse(const struct cli_command *command, int argc, char **argv,
               const struct cli_option *options, int min, int max, char ***arguments,
               int *exit_code);

/* Prints a failure with what to do next; returns the exit code. problems may be NULL. */
int cli_fail(const struct error *err, const struct json_problems *problems);

/* JSON from a text that starts with { or [, else from the file of that name. */
enum status cli_json(const char *text_or_path, cJSON **out, struct error *err);

/* A job opened for work on this machine without MPI. */
struct cli_job {
    struct job job;
    struct log log;
    struct workspace workspace;
    struct json_problems problems;
};
enum status cli_job_open(const char *path, const char *out_folder, struct cli_job *out,
                         struct error *err);
void cli_job_close(struct cli_job *opened);

/* A struct progress that keeps one line on stderr up to date (if it is a terminal) and stops on a
 * signal. */
struct progress cli_progress(void);

#endif
