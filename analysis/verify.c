/* trex-tree verify: checks every file of a run folder. */
#include "analysis/analysis.h"

static const char usage[] = "usage: trex-tree verify RUN\n\n"
                            "Checks every file of the run folder RUN: both generations of the run "
                            "file, the journal, the tree's statistics,\n"
                            "and the checksum of every array of weights, training states and "
                            "prepared data. One line a finding; ends with 1 if\n"
                            "anything is damaged or missing, and says what to do.\n\n"
                            "example: trex-tree verify runs/sst2\n";

struct tally {
    int findings, failures;
};

static void print_finding(void *context, const char *path, enum status status, const char *message)
{
    struct tally *tally = context;
    tally->findings++;
    if (status == STATUS_OK) {
        printf("%sok%s       %s: %s\n", paint(PAINT_GOOD), paint(PAINT_PLAIN), path, message);
        return;
    }
    tally->failures++;
    printf("%sDAMAGED%s  %s\n         %s: %s\n", paint(PAINT_BAD), paint(PAINT_PLAIN), message,
           status_name(status), status_text(status));
}

/* What a reader can do: the search itself decides it, then single files. */
static void print_advice(const char *folder)
{
    struct search search;
    struct error err;
    char note[1024];
    if (store_run_load(folder, &search, note, sizeof(note), &err) != STATUS_OK) {
        printf("\nThe search cannot be read. Restore run.h5, run.prev.h5 and journal.jsonl from a "
               "copy, or start\n"
               "again in another folder. Do as the message says if it names lines to remove.\n");
        return;
    }
    search_fini(&search);
    printf("\nThe search itself can be read and goes on when it is started again%s%s.\n"
           "Of the files above: a damaged run file is replaced by the next snapshot; a damaged "
           "training state or\n"
           "prepared data can be removed, the work is then done again; damaged or missing weights "
           "cannot be\n"
           "exported any more, their scores stay in the tree; a recipe cannot read downloaded rows "
           "that are missing;\n"
           "without control.json the limits of the job file hold.\n",
           note[0] != '\0' ? ": " : "", note);
}

static int run(const struct command *command, int argc, char **argv)
{
    const struct command_option options[] = {{NULL, NULL, NULL}};
    char **arguments = NULL;
    int count = 0;
    int exit_code = EXIT_DONE;
    if (!options_parse(command, argc, argv, options, 1, 1, &arguments, &count, &exit_code)) {
        return exit_code;
    }
    struct tally tally = {0, 0};
    struct error err;
    enum status status = store_verify(arguments[0], print_finding, &tally, &err);
    if (status == STATUS_OK) {
        printf("%d findings, nothing is damaged\n", tally.findings);
        return EXIT_DONE;
    }
    if (tally.failures == 0) {
        return options_fail(&err); /* nothing could be checked */
    }
    printf("%d findings, %d damaged or missing\n", tally.findings, tally.failures);
    print_advice(arguments[0]);
    return EXIT_FAILED;
}

const struct command command_verify = {"verify", "check every file of a run folder", usage, run};
