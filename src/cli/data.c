#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "run/prepare.h"

static void print_operators(void)
{
    for (const struct recipe_operator_info *info = recipe_operators(); info->name != NULL; info++) {
        printf("%-10s %s\n           %s\n", info->name, info->summary, info->arguments);
    }
}

static enum status make_rows(struct cli_job *opened, const cJSON *recipe, const char *out_path,
                             struct error *err)
{
    struct dataset rows;
    struct recipe_report report;
    memset(&report, 0, sizeof(report));
    dataset_init(&rows);
    struct json_problems *problems = &opened->problems;
    recipe_check(recipe, "", problems);
    TRY(json_problems_check(problems, "recipe", err));
    enum status status = prepare_rows(&opened->workspace, recipe, &rows, &report, err);
    for (int i = 0; i < report.step_count; i++) {
        fprintf(stderr, "%-10s %8lld -> %8lld rows  %s\n", report.steps[i].op,
                (long long)report.steps[i].rows_in, (long long)report.steps[i].rows_out,
                report.steps[i].note);
    }
    if (status == STATUS_OK) {
        status = dataset_write(&rows, out_path, true, err);
    }
    if (status == STATUS_OK) {
        fprintf(stderr, "%lld rows in %s\n", (long long)rows.count, out_path);
    }
    dataset_fini(&rows);
    return status;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    const char *recipe_text = "[]";
    const char *out_path = NULL;
    bool operators = false;
    const struct cli_option options[] = {
        {"recipe", CLI_TEXT, &recipe_text},
        {"out", CLI_TEXT, &out_path},
        {"operators", CLI_FLAG, &operators},
        {NULL, CLI_FLAG, NULL},
    };
    char **arguments = NULL;
    int exit_code = 0;
    if (!cli_parse(command, argc, argv, options, 0, 1, &arguments, &exit_code)) {
        return exit_code;
    }
    if (operators) {
        print_operators();
        return CLI_DONE;
    }
    if (argc - (int)(arguments - argv) < 1 || out_path == NULL) {
        fprintf(stderr, "trex data: a job file and --out FILE are needed\n\n%s", command->usage);
        return CLI_WRONG_INPUT;
    }
    struct error err = {0};
    struct cli_job opened;
    cJSON *recipe = NULL;
    enum status status = cli_job_open(arguments[0], NULL, &opened, &err);
    if (status == STATUS_OK) {
        status = cli_json(recipe_text, &recipe, &err);
    }
    if (status == STATUS_OK) {
        status = make_rows(&opened, recipe, out_path, &err);
    }
    exit_code = status == STATUS_OK ? CLI_DONE : cli_fail(&err, &opened.problems);
    cJSON_Delete(recipe);
    cli_job_close(&opened);
    return exit_code;
}

const struct cli_command cli_data = {
    .name = "data",
    .summary = "run a data recipe and write the rows",
    .usage = "usage: trex data JOB --out FILE [--recipe RECIPE]\n"
             "       trex data --operators\n\n"
             "Runs a recipe over the job's training split and writes the rows as JSON Lines, each\n"
             "with the file and line it came from. Rows that also stand in validation or test are\n"
             "left out.\n\n"
             "  --recipe RECIPE   JSON text, or a file with it; default [] (the split as it is)\n"
             "  --out FILE        where the rows go\n"
             "  --operators       lists the operators\n\n"
             "example: trex data jobs/my.json --recipe '[{\"op\": \"dedup\"}]' --out rows.jsonl\n",
    .run = run,
};
