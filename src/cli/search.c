#include <math.h>
#include <stdio.h>

#include <mpi.h>

#include "cli/cli.h"
#include "run/launch.h"

static const double simulate_max_s = 1e6;

/* Rank 0 speaks for all; another rank only of what happened to it alone. */
static int end_code(int rank, enum status status, enum launch_reached reached,
                    const struct json_problems *problems, const struct error *err)
{
    if (status == STATUS_OK || (rank != 0 && err->message[0] == '\0')) {
        return CLI_DONE;
    }
    if (rank == 0 && status == STATUS_INTERRUPTED) {
        return LAUNCH_EXIT_RESUMABLE;
    }
    int code = cli_fail(err, rank == 0 ? problems : NULL);
    bool disk = launch_exit_code(status) == LAUNCH_EXIT_DISK;
    if (disk && (reached != LAUNCH_NOTHING || status == STATUS_NO_SPACE)) {
        return LAUNCH_EXIT_DISK;
    }
    /* Batch scripts never try again what is wrong input. */
    return reached == LAUNCH_SEARCH && code == CLI_WRONG_INPUT ? CLI_FAILED : code;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    struct launch_options launch = {0};
    double simulate_s = NAN;
    const struct cli_option options[] = {
        {"out", CLI_TEXT, &launch.out_folder},       {"simulate", CLI_NUMBER, &simulate_s},
        {"replay", CLI_TEXT, &launch.replay_folder}, {"quiet", CLI_FLAG, &launch.quiet},
        {"verbose", CLI_FLAG, &launch.verbose},      {NULL, CLI_FLAG, NULL},
    };
    char **arguments = NULL;
    int exit_code = 0;
    if (!cli_parse(command, argc, argv, options, 1, 1, &arguments, &exit_code)) {
        return exit_code;
    }
    launch.job_path = arguments[0];
    if (!isnan(simulate_s) && !(simulate_s > 0.0 && simulate_s <= simulate_max_s)) {
        fprintf(stderr, "trex search: --simulate %g: allowed are seconds above 0, at most %.0f\n",
                simulate_s, simulate_max_s);
        return CLI_WRONG_INPUT;
    }
    launch.simulate_s = isnan(simulate_s) ? 0.0 : simulate_s;
    struct secrets secrets;
    secrets_find(launch.job_path, &secrets);
    secrets_hide(&secrets);
    launch.secrets = &secrets;
    int provided = 0;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        fputs("trex: MPI_Init failed\n", stderr);
        return CLI_FAILED;
    }
    struct error err = {0};
    struct json_problems problems;
    json_problems_init(&problems);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == 0) {
        secrets_show(&secrets);
    } else {
        secrets_forget(&secrets, true);
    }
    enum launch_reached reached = LAUNCH_NOTHING;
    enum status status = launch_search(&launch, &problems, &reached, &err);
    exit_code = end_code(rank, status, reached, &problems, &err);
    json_problems_fini(&problems);
    MPI_Finalize();
    return exit_code;
}

const struct cli_command cli_search = {
    .name = "search",
    .summary = "run or resume the search of a job file (under mpirun or srun)",
    .usage =
        "usage: [mpirun -n RANKS | srun] trex search JOB [--out DIR] [--simulate SECONDS]\n"
        "       [--replay RUN] [--quiet] [--verbose]\n\n"
        "Runs the search that the job file describes; if the run folder holds it already, goes on\n"
        "with it. Rank 0 plans, the other ranks train; with one rank it does both.\n"
        "SIGTERM, SIGINT or SIGUSR1 stop it cleanly: the same command resumes.\n\n"
        "  --out DIR           run folder instead of the job's \"output\"\n"
        "  --simulate SECONDS  a candidate sleeps about so long and its score is made up: to try\n"
        "                      batch scripts, queue settings and scale, with no device and no\n"
        "                      training. Such a run is marked and never mixed with a real one\n"
        "  --replay RUN        the researcher's questions are answered as they were in another "
        "run\n"
        "                      folder, with no network; with one worker the tree is the same, also\n"
        "                      where that search was interrupted (with the same job file)\n"
        "  --quiet             only warnings and errors\n"
        "  --verbose           more\n\n"
        "exit codes: 0 finished or halted, 1 failed, 2 wrong input, 74 the disk is full or "
        "refuses,\n"
        "75 the run folder is in use, 85 stopped and can be resumed\n\n"
        "example: mpirun -n 3 trex search jobs/ftbench/sst2.json --out runs/sst2\n",
    .run = run,
};
