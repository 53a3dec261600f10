#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/cli.h"
#include "data/recipe.h"
#include "model/lora.h"
#include "run/candidate.h"
#include "run/weights_file.h"

/* What is written to --out. */
struct train_paths {
    char weights[FILE_PATH_BYTES];
    char state[FILE_PATH_BYTES];
    char data[FILE_PATH_BYTES];
    char result[FILE_PATH_BYTES];
};

static enum status make_paths(const char *folder, struct train_paths *out, struct error *err)
{
    TRY(file_join(folder, "weights.h5", out->weights, err));
    TRY(file_join(folder, "training.h5", out->state, err));
    TRY(file_join(folder, "data", out->data, err));
    TRY(file_join(folder, "result.json", out->result, err));
    return file_make_folders(out->data, err);
}

static enum status check_plan(struct cli_job *opened, const cJSON *recipe, const cJSON *config,
                              struct error *err)
{
    struct train_config ignored = train_config_default();
    recipe_check(recipe, "/recipe", &opened->problems);
    train_config_read(config, "/config", &opened->problems, &ignored);
    return json_problems_check(&opened->problems, "command line", err);
}

static void print_result(const cJSON *result)
{
    const cJSON *validation = cJSON_GetObjectItemCaseSensitive(result, "validation");
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(validation, "value");
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(validation, "standard_error");
    printf("validation %.4f ± %.4f\n", cJSON_IsNumber(value) ? value->valuedouble : 0.0,
           cJSON_IsNumber(error) ? error->valuedouble : 0.0);
}

/* The trained model as a Hugging Face folder, an adapter merged into its base. */
static enum status export_model(struct cli_job *opened, const char *weights_path,
                                const char *folder, struct error *err)
{
    enum dtype dtype = DTYPE_F32;
    const struct model *base = NULL;
    struct loaded_network loaded;
    TRY(weights_file_dtype(weights_path, &dtype, err));
    TRY(workspace_model(&opened->workspace, dtype, NULL, &base, err));
    TRY(weights_file_read(weights_path, base, NULL, &loaded, err));
    enum status status = STATUS_OK;
    if (loaded.is_adapter) {
        TRY_CLEANUP(lora_merge(&base->config, &loaded.lora, &loaded.weights, &base->weights, err));
    }
    const struct weights *whole = loaded.is_adapter ? &base->weights : &loaded.weights;
    TRY_CLEANUP(model_export(whole, dtype, base->folder, folder, err));
    printf("model   %s\n", folder);
cleanup:
    loaded_network_fini(&loaded);
    return status;
}

static enum status train(struct cli_job *opened, const cJSON *recipe, cJSON *config,
                         const char *out_folder, const char *export_folder, struct error *err)
{
    struct train_paths paths;
    TRY(check_plan(opened, recipe, config, err));
    TRY(make_paths(out_folder, &paths, err));
    if (cJSON_GetArraySize(config) == 0) { /* an empty configuration would mean "do not train" */
        struct train_config defaults;
        TRY(candidate_config(&opened->workspace, config, &defaults, err));
        cJSON_AddNumberToObject(config, "learning_rate", defaults.learning_rate);
    }
    const struct progress progress = cli_progress();
    const struct candidate_order order = {
        .name = "trex train",
        .recipe = recipe,
        .config = config,
        .weights_path = paths.weights,
        .state_path = paths.state,
        .data_folder = paths.data,
    };
    cJSON *result = NULL;
    TRY(candidate_train(&opened->workspace, &order, NULL, &progress, &result, err));
    char *text = cJSON_Print(result);
    enum status status = text != NULL ? file_write(paths.result, text, strlen(text), err)
                                      : FAIL(err, STATUS_NO_MEMORY, "no memory for the result");
    if (status == STATUS_OK) {
        print_result(result);
        printf("weights %s\nresult  %s\n", paths.weights, paths.result);
        status = file_remove(paths.state, err);
    }
    if (status == STATUS_OK && export_folder != NULL) {
        status = export_model(opened, paths.weights, export_folder, err);
    }
    cJSON_free(text);
    cJSON_Delete(result);
    return status;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    const char *recipe_text = "[]";
    const char *config_text = "{}";
    const char *out_folder = NULL;
    const char *export_folder = NULL;
    bool keys = false;
    const struct cli_option options[] = {
        {"recipe", CLI_TEXT, &recipe_text},   {"config", CLI_TEXT, &config_text},
        {"out", CLI_TEXT, &out_folder},       {"keys", CLI_FLAG, &keys},
        {"export", CLI_TEXT, &export_folder}, {NULL, CLI_FLAG, NULL},
    };
    char **arguments = NULL;
    int exit_code = 0;
    if (!cli_parse(command, argc, argv, options, 0, 1, &arguments, &exit_code)) {
        return exit_code;
    }
    if (keys) {
        for (const struct train_config_key *key = train_config_keys(); key->name != NULL; key++) {
            printf("%-16s %s\n                 %s\n", key->name, key->meaning, key->allowed);
        }
        return CLI_DONE;
    }
    if (arguments == argv + argc || out_folder == NULL) {
        fprintf(stderr, "trex train: a job file and --out DIR are needed\n\n%s", command->usage);
        return CLI_WRONG_INPUT;
    }
    struct error err = {0};
    struct cli_job opened;
    cJSON *recipe = NULL;
    cJSON *config = NULL;
    enum status status = cli_job_open(arguments[0], out_folder, &opened, &err);
    if (status == STATUS_OK) {
        status = cli_json(recipe_text, &recipe, &err);
    }
    if (status == STATUS_OK) {
        status = cli_json(config_text, &config, &err);
    }
    if (status == STATUS_OK) {
        status = train(&opened, recipe, config, out_folder, export_folder, &err);
    }
    exit_code = status == STATUS_OK ? CLI_DONE : cli_fail(&err, &opened.problems);
    cJSON_Delete(recipe);
    cJSON_Delete(config);
    cli_job_close(&opened);
    return exit_code;
}

const struct cli_command cli_train = {
    .name = "train",
    .summary = "train one configuration by hand, and score it on validation",
    .usage =
        "usage: trex train JOB --out DIR [--config CONFIG] [--recipe RECIPE]\n"
        "       trex train --keys\n\n"
        "Trains the job's base model on its training split with one configuration. A signal\n"
        "saves the state; the same command goes on from it, to the same bits.\n\n"
        "  --out DIR         weights.h5, result.json, training.h5 (while it is not finished)\n"
        "  --config CONFIG   JSON text or a file; default {}\n"
        "  --recipe RECIPE   JSON text or a file; default [] (the split as it is)\n"
        "  --export DIR      also writes the model as a Hugging Face folder (adapters merged)\n"
        "  --keys            lists the configuration's keys\n\n"
        "example: trex train jobs/my.json --out runs/once --config '{\"learning_rate\": 1e-4}'\n",
    .run = run,
};
