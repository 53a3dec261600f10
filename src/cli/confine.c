#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/confine.h"
#include "cli/cli.h"

enum { READABLE_MAX = 8 };

/* The list of a colon-separated text, in place. */
static void split_list(char *text, const char *list[READABLE_MAX + 1])
{
    int count = 0;
    for (char *item = strtok_r(text, ":", &text); item != NULL && count < READABLE_MAX;
         item = strtok_r(NULL, ":", &text)) {
        list[count++] = item;
    }
    list[count] = NULL;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    const char *folder = NULL;
    const char *read_text = "";
    double seconds = 600.0;
    int64_t memory_mb = 4096;
    int64_t file_mb = 1024;
    const struct cli_option options[] = {
        {"folder", CLI_TEXT, &folder},      {"read", CLI_TEXT, &read_text},
        {"seconds", CLI_NUMBER, &seconds},  {"memory-mb", CLI_INTEGER, &memory_mb},
        {"file-mb", CLI_INTEGER, &file_mb}, {NULL, CLI_FLAG, NULL},
    };
    char **arguments = NULL;
    int exit_code = 0;
    if (!cli_parse(command, argc, argv, options, 1, INT32_MAX, &arguments, &exit_code)) {
        return exit_code;
    }
    if (folder == NULL || folder[0] != '/' || !(seconds > 0.0) || memory_mb < 1 || file_mb < 0 ||
        memory_mb > 1 << 30 || file_mb > 1 << 30) {
        fprintf(stderr, "trex confine: --folder (absolute), --seconds and --memory-mb above 0, "
                        "--file-mb from 0\n");
        return CLI_WRONG_INPUT;
    }
    char text[4096];
    const char *readable[READABLE_MAX + 1];
    snprintf(text, sizeof(text), "%s", read_text);
    split_list(text, readable);
    const struct confine_options limits = {
        .folder = folder,
        .readable = readable,
        .seconds = seconds,
        .memory_bytes = memory_mb << 20,
        .file_bytes = file_mb << 20,
    };
    struct error err = {0};
    if (confine_self(&limits, &err) != STATUS_OK) {
        return cli_fail(&err, NULL);
    }
    execvp(arguments[0], arguments);
    fprintf(stderr, "trex confine: cannot run %s: %s\n", arguments[0], strerror(errno));
    return CLI_FAILED;
}

const struct cli_command cli_confine = {
    .name = "confine",
    .summary = "run a program without network, shut into a folder",
    .usage =
        "usage: trex confine --folder DIR [options] -- PROGRAM [ARGUMENTS]\n\n"
        "Runs a program that is not trusted: no network, no files but those in DIR and (to read)\n"
        "the system's programs, no signals to other processes. Operators that a language model\n"
        "writes (\"code\") are run so.\n\n"
        "  --folder DIR     its working directory, where it can write; absolute\n"
        "  --read A:B       folders it may also read\n"
        "  --seconds S      of processor time (600)\n"
        "  --memory-mb M    of each process (4096)\n"
        "  --file-mb M      of each file it writes (1024)\n\n"
        "example: trex confine --folder /tmp/box -- python3 -I clean.py < rows.jsonl\n",
    .run = run,
};
