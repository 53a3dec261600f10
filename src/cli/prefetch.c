#include <stdio.h>

#include "cli/cli.h"
#include "run/launch.h"

static int end_code(enum status status, enum launch_reached reached,
                    const struct json_problems *problems, const struct error *err)
{
    if (status == STATUS_OK) {
        return CLI_DONE;
    }
    if (status == STATUS_INTERRUPTED) {
        return LAUNCH_EXIT_RESUMABLE;
    }
    int code = cli_fail(err, problems);
    bool disk = launch_exit_code(status) == LAUNCH_EXIT_DISK && reached != LAUNCH_NOTHING;
    return disk ? LAUNCH_EXIT_DISK : code;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    struct launch_options launch = {0};
    const struct cli_option options[] = {
        {"out", CLI_TEXT, &launch.out_folder},
        {"quiet", CLI_FLAG, &launch.quiet},
        {"verbose", CLI_FLAG, &launch.verbose},
        {NULL, CLI_FLAG, NULL},
    };
    char **arguments = NULL;
    int exit_code = 0;
    if (!cli_parse(command, argc, argv, options, 1, 1, &arguments, &exit_code)) {
        return exit_code;
    }
    launch.job_path = arguments[0];
    struct secrets secrets;
    secrets_find(launch.job_path, &secrets);
    secrets_show(&secrets);
    launch.secrets = &secrets;
    struct error err = {0};
    struct json_problems problems;
    json_problems_init(&problems);
    enum launch_reached reached = LAUNCH_NOTHING;
    enum status status = launch_prefetch(&launch, &problems, &reached, &err);
    exit_code = end_code(status, reached, &problems, &err);
    json_problems_fini(&problems);
    return exit_code;
}

const struct cli_command cli_prefetch = {
    .name = "prefetch",
    .summary = "brief, papers and data sets of a job before it is queued, where there is a network",
    .usage =
        "usage: trex prefetch JOB [--out DIR] [--quiet] [--verbose]\n\n"
        "Begins the search of a job file without training anything: its language model writes the\n"
        "brief, papers and data sets are looked up, and all of it is kept in the run folder. The\n"
        "search itself (trex search, or sbatch) then goes on from there. Needs a network, no MPI\n"
        "and no GPU: run it on a login node, also for jobs with researcher.network \"relay\".\n"
        "What was prefetched is never asked again; SIGTERM or SIGINT stop it, and the same "
        "command\n"
        "goes on. Where nobody answers, a key is wrong, or a cap is too small, it ends with 1, "
        "says\n"
        "what is missing, and gives nothing up: the same command asks again, and so does the "
        "search.\n\n"
        "  --out DIR  run folder instead of the job's \"output\"\n"
        "  --quiet    only warnings and errors\n"
        "  --verbose  more\n\n"
        "exit codes: 0 done, 1 failed, or something is missing, 2 wrong input, 74 the disk is full "
        "or\n"
        "refuses, 75 the run folder is in use, 85 stopped and can be resumed\n\n"
        "example: trex prefetch jobs/my.json && sbatch slurm/search.sbatch jobs/my.json\n",
    .run = run,
};
