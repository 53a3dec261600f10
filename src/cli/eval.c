#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "eval/scorer.h"
#include "run/candidate.h"

static const char *const split_choices[] = {"validation", "test", NULL};

static enum status evaluate(struct cli_job *opened, const char *weights, enum task_split split,
                            bool json, struct error *err)
{
    const struct progress progress = cli_progress();
    const struct candidate_order order = {.name = "trex eval", .weights_path = weights};
    cJSON *score = NULL;
    TRY(candidate_score(&opened->workspace, &order, split, &progress, &score, err));
    if (json) {
        char *text = cJSON_Print(score);
        puts(text != NULL ? text : "{}");
        cJSON_free(text);
    } else {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(score, "value");
        const cJSON *error = cJSON_GetObjectItemCaseSensitive(score, "standard_error");
        const cJSON *rows = cJSON_GetObjectItemCaseSensitive(score, "rows");
        printf("%s %s %.4f ± %.4f on %.0f rows\n", task_split_names[split], opened->job.task.metric,
               cJSON_GetNumberValue(value), cJSON_GetNumberValue(error),
               cJSON_GetNumberValue(rows));
    }
    cJSON_Delete(score);
    return STATUS_OK;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    const char *weights = NULL;
    const char *split = "validation";
    bool json = false;
    bool metrics = false;
    const struct cli_option options[] = {
        {"weights", CLI_TEXT, &weights}, {"split", CLI_TEXT, &split}, {"json", CLI_FLAG, &json},
        {"metrics", CLI_FLAG, &metrics}, {NULL, CLI_FLAG, NULL},
    };
    char **arguments = NULL;
    int exit_code = 0;
    if (!cli_parse(command, argc, argv, options, 0, 1, &arguments, &exit_code)) {
        return exit_code;
    }
    if (metrics) {
        for (const struct scorer *const *s = scorer_list(); *s != NULL; s++) {
            printf("%-12s %s\n", (*s)->name, (*s)->summary);
        }
        return CLI_DONE;
    }
    bool test = strcmp(split, split_choices[1]) == 0;
    if (arguments == argv + argc || (!test && strcmp(split, split_choices[0]) != 0)) {
        fprintf(stderr, "trex eval: a job file is needed, and --split validation or test\n\n%s",
                command->usage);
        return CLI_WRONG_INPUT;
    }
    struct error err = {0};
    struct cli_job opened;
    enum status status = cli_job_open(arguments[0], NULL, &opened, &err);
    if (status == STATUS_OK) {
        status = evaluate(&opened, weights, test ? TASK_TEST : TASK_VALIDATION, json, &err);
    }
    exit_code = status == STATUS_OK ? CLI_DONE : cli_fail(&err, &opened.problems);
    cli_job_close(&opened);
    return exit_code;
}

const struct cli_command cli_eval = {
    .name = "eval",
    .summary = "score the base model or trained weights on a split",
    .usage =
        "usage: trex eval JOB [--weights FILE] [--split validation|test] [--json]\n"
        "       trex eval --metrics\n\n"
        "Scores the job's base model, or the weights in an HDF5 file, with the job's metric.\n\n"
        "  --weights FILE   runs/my/weights/n0003-c1.h5, or weights.h5 of trex train\n"
        "  --split SPLIT    validation (default) or test\n"
        "  --json           all figures as JSON\n"
        "  --metrics        lists the metrics\n\n"
        "example: trex eval jobs/my.json --weights runs/my/weights/n0003-c1.h5\n",
    .run = run,
};
