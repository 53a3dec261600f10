#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run/launch.h"
#include "run/stop.h"

enum { OPTIONS_MAX = 24, JSON_FILE_MAX_BYTES = 16 << 20 };

static bool store_value(const struct cli_option *option, const char *text)
{
    char *end = NULL;
    errno = 0;
    switch (option->kind) {
    case CLI_FLAG:
        *(bool *)option->value = true;
        return true;
    case CLI_TEXT:
        *(const char **)option->value = text;
        return true;
    case CLI_INTEGER:
        *(int64_t *)option->value = strtoll(text, &end, 10);
        break;
    case CLI_NUMBER:
        *(double *)option->value = strtod(text, &end);
        break;
    }
    bool finite = option->kind != CLI_NUMBER || isfinite(*(double *)option->value);
    return end != text && *end == '\0' && errno == 0 && finite;
}

static void fill_options(const struct cli_option *options, struct option *out)
{
    int count = 0;
    out[count++] = (struct option){"help", no_argument, NULL, 'h'};
    for (int i = 0; options[i].name != NULL && count < OPTIONS_MAX - 1; i++) {
        int argument = options[i].kind == CLI_FLAG ? no_argument : required_argument;
        out[count++] = (struct option){options[i].name, argument, NULL, 256 + i};
    }
    out[count] = (struct option){NULL, 0, NULL, 0};
}

bool cli_parse(const struct cli_command *command, int argc, char **argv,
               const struct cli_option *options, int min, int max, char ***arguments,
               int *exit_code)
{
    struct option table[OPTIONS_MAX];
    fill_options(options, table);
    *exit_code = CLI_WRONG_INPUT;
    int code = 0;
    optind = 1;
    while ((code = getopt_long(argc, argv, "h", table, NULL)) != -1) {
        if (code == 'h') {
            fputs(command->usage, stdout);
            *exit_code = CLI_DONE;
            return false;
        }
        if (code < 256) { /* getopt_long has said what is wrong */
            fprintf(stderr, "trex %s --help lists the options\n", command->name);
            return false;
        }
        if (!store_value(&options[code - 256], optarg)) {
            fprintf(stderr, "trex %s: --%s: \"%s\" is not a number\n", command->name,
                    options[code - 256].name, optarg);
            return false;
        }
    }
    int given = argc - optind;
    if (given < min || given > max) {
        fprintf(stderr, "trex %s: %d argument%s given, %d needed\n\n%s", command->name, given,
                given == 1 ? "" : "s", given < min ? min : max, command->usage);
        return false;
    }
    *arguments = argv + optind;
    return true;
}

int cli_fail(const struct error *err, const struct json_problems *problems)
{
    if (problems != NULL && problems->count > 0) {
        fprintf(stderr, "trex: %d mistake%s:\n%s", problems->count, problems->count == 1 ? "" : "s",
                buffer_text(&problems->text));
    } else {
        fprintf(stderr, "trex: %s\n  %s: %s\n", err->message, status_name(err->code),
                status_advice(err->code));
    }
    switch (err->code) {
    case STATUS_INTERRUPTED:
        return LAUNCH_EXIT_RESUMABLE;
    case STATUS_BUSY:
        return CLI_IN_USE;
    case STATUS_INVALID:
    case STATUS_NOT_FOUND:
    case STATUS_FORMAT:
    case STATUS_RANGE:
    case STATUS_UNSUPPORTED:
        return CLI_WRONG_INPUT;
    default:
        return CLI_FAILED;
    }
}

enum status cli_json(const char *text_or_path, cJSON **out, struct error *err)
{
    if (text_or_path[0] == '{' || text_or_path[0] == '[') {
        return json_parse(text_or_path, strlen(text_or_path), "command line", out, err);
    }
    return json_parse_file(text_or_path, JSON_FILE_MAX_BYTES, out, err);
}

enum status cli_job_open(const char *path, const char *out_folder, struct cli_job *out,
                         struct error *err)
{
    memset(out, 0, sizeof(*out));
    json_problems_init(&out->problems);
    log_init(&out->log, stderr, -1, LOG_INFO);
    stop_install();
    TRY(job_read(path, out_folder, &out->problems, &out->job, err));
    return workspace_open(&out->job, launch_threads(&out->job, 1), 0, &out->log, &out->workspace,
                          err);
}

void cli_job_close(struct cli_job *opened)
{
    if (opened->workspace.job != NULL) {
        workspace_close(&opened->workspace);
    }
    log_close(&opened->log);
    job_fini(&opened->job);
    json_problems_fini(&opened->problems);
}

static enum status show_progress(void *context, const char *phase, int64_t done, int64_t total,
                                 struct error *err)
{
    (void)context;
    if (isatty(STDERR_FILENO)) {
        fprintf(stderr, "\r%s %lld of %lld\033[K%s", phase, (long long)done, (long long)total,
                done >= total ? "\n" : "");
    }
    if (stop_requested()) {
        return FAIL(err, STATUS_INTERRUPTED, "stopped by signal %d", stop_signal());
    }
    return STATUS_OK;
}

struct progress cli_progress(void)
{
    return (struct progress){.tick = show_progress};
}
