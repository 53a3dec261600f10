#include <math.h>
#include <stdio.h>
#include <string.h>

#include "agents/executor.h"
#include "cli/check.h"
#include "cli/cli.h"
#include "run/asking.h"
#include "run/candidate.h"
#include "run/facts.h"
#include "run/launch.h"
#include "run/machine.h"
#include "run/speed.h"
#include "train/trainer.h"

struct checked {
    struct cli_job *opened;
    struct model *model;
    struct model *speaker; /* the agents' local model; NULL: there is none */
    struct machine machine;
    int64_t own_bytes; /* of the device's memory, that its backend works in */
    struct researcher_facts facts;
    struct researcher *researcher;
    struct plan plan;
};

static const char *precision_name(const struct checked *checked)
{
    return train_precision_names[checked->facts.precision];
}

static void print_job(const struct checked *checked)
{
    const struct job *job = &checked->opened->job;
    const struct researcher_facts *facts = &checked->facts;
    const struct model_config *config = &checked->model->config;
    char device[256];
    struct device *opened = checked->opened->workspace.device;
    opened->ops->describe(opened, device, sizeof(device));
    printf("job         %s\n", job->name);
    printf("model       %s: %.4g M parameters, %lld layers, width %lld, %lld positions\n",
           job->model, (double)facts->model_parameters / 1e6, (long long)config->layers,
           (long long)config->hidden_size, (long long)config->max_positions);
    printf("task        %s: %lld training and %lld validation rows, metric %s\n", job->task.name,
           (long long)facts->train_rows, (long long)facts->validation_rows, job->task.metric);
    printf("lengths     prompt %.0f tokens on average (95%%: %.0f), answer %.1f (95%%: %.0f), "
           "longest %lld of %lld\n",
           facts->prompt_tokens_mean, facts->prompt_tokens_p95, facts->answer_tokens_mean,
           facts->answer_tokens_p95, (long long)facts->sequence_tokens_max,
           (long long)facts->sequence_length);
    if (facts->label_count > 0) {
        printf("labels      %d, the most frequent one is %.1f%% of the training rows\n",
               facts->label_count, 100.0 * facts->majority_share);
    }
    if (facts->train_duplicates > 0) {
        printf("duplicates  %lld training rows stand there more than once\n",
               (long long)facts->train_duplicates);
    }
    printf("device      %s, precision %s (%s)\n", device, precision_name(checked), opened->choice);
}

static void print_search(const struct checked *checked)
{
    const struct job *job = &checked->opened->job;
    printf("search      %s, %lld rounds of %d configurations\n", job->policy->name,
           (long long)job->rounds, job->configurations);
    printf("limits      %lld samples a round", (long long)job->max_samples);
    if (job->core_hours > 0.0) {
        printf(", %g core-hours", job->core_hours);
    }
    if (job->gpu_hours > 0.0) {
        printf(", %g GPU-hours", job->gpu_hours);
    }
    printf("\n");
    check_print_researcher(job, checked->speaker);
    printf("output      %s\n", job->output);
}

/* Tokens that one configuration of the first plan trains on. */
static double tokens_of(const struct researcher_facts *facts, const struct train_config *config)
{
    double rows =
        (double)(facts->train_rows < facts->max_samples ? facts->train_rows : facts->max_samples);
    double tokens = rows * (facts->prompt_tokens_mean + facts->answer_tokens_mean) * config->epochs;
    if (config->max_steps > 0) {
        double cap =
            (double)config->max_steps * (double)(config->batch_tokens * config->accumulation);
        tokens = tokens < cap ? tokens : cap;
    }
    return tokens;
}

/* What stands beside any training: the base model's weights, and what the backend works in. */
static int64_t standing_bytes(const struct checked *checked)
{
    int64_t per_weight = checked->facts.precision == TRAIN_BF16 ? 2 : 4;
    return checked->model->table.elements * per_weight + checked->own_bytes;
}

/* Answering and training take turns on a worker, so the larger one counts. */
static void print_memory(const struct checked *checked, int64_t training_bytes)
{
    const struct job *job = &checked->opened->job;
    int64_t memory = machine_worker_memory(job, &checked->machine, 1);
    int64_t standing = standing_bytes(checked);
    int64_t needed = training_bytes + standing;
    printf(
        "\nmemory      %.2f GB for the largest training and the base model, %.1f GB are there%s\n",
        (double)needed / 1e9, (double)memory / 1e9,
        needed > memory ? ": too little, such a candidate will fail" : "");
    if (checked->speaker == NULL) {
        return;
    }
    enum dtype dtype = checked->facts.precision == TRAIN_BF16 ? DTYPE_BF16 : DTYPE_F32;
    needed = asking_answer_bytes(job, checked->speaker, dtype) + standing;
    printf(
        "            %.2f GB to answer the agents in place of a training, and the base model%s\n",
        (double)needed / 1e9, needed > memory ? ": too little, no question will be answered" : "");
}

static enum status print_plan(struct checked *checked, struct error *err)
{
    const struct job *job = &checked->opened->job;
    double flops = checked->machine.flops_per_s;
    const struct model_config *model = &checked->model->config;
    double all_s = 0.0;
    int64_t largest = 0;
    char *recipe = json_print_line(checked->plan.recipe);
    printf("\nfirst round: %s\n  %s\n  recipe %s\n", checked->plan.strategy, checked->plan.goal,
           recipe != NULL ? recipe : "?");
    cJSON_free(recipe);
    for (int i = 0; i < checked->plan.config_count; i++) {
        struct train_config config;
        TRY(candidate_config(&checked->opened->workspace, checked->plan.configs[i], &config, err));
        int64_t bytes = trainer_bytes(model, &config);
        double tokens = tokens_of(&checked->facts, &config);
        double seconds = tokens / speed_tokens_per_second(model, &checked->facts,
                                                          config.method == TRAIN_LORA, flops);
        all_s += seconds;
        largest = bytes > largest ? bytes : largest;
        printf(
            "  c%d  %s, learning rate %g, %g epochs, %lld tokens a step: %.2f GB, about %.1f min\n",
            i, train_method_names[config.method], config.learning_rate, config.epochs,
            (long long)(config.batch_tokens * config.accumulation), (double)bytes / 1e9,
            seconds / 60.0);
    }
    print_memory(checked, largest);
    printf("time        about %.1f min for a round on one worker, %.1f h for %lld rounds; "
           "divide by the workers\n",
           all_s / 60.0, all_s * (double)job->rounds / 3600.0, (long long)job->rounds);
    printf("cost        about %.2f core-hours for all rounds\n",
           all_s * (double)job->rounds / 3600.0 * checked->opened->workspace.threads);
    return STATUS_OK;
}

/* Brings a search to the point where its first round is planned, as if the baseline had scored the
 * worst value. */
static enum status assume_baseline(const struct checked *checked, struct search *search,
                                   struct error *err)
{
    static const char *const events[] = {
        "{\"event\":\"started\",\"job\":\"{}\",\"model_hash\":\"\",\"task_hash\":\"\","
        "\"metric\":\"\",\"larger_is_better\":true,\"version\":\"\",\"seed\":0}",
        "{\"event\":\"node_planned\",\"node\":0,\"parent\":-1,\"strategy\":\"baseline\","
        "\"goal\":\"\",\"rationale\":\"\",\"recipe\":[],\"configs\":[{}],\"researcher\":\"\"}",
        "{\"event\":\"candidate_started\",\"node\":0,\"candidate\":0,\"rank\":0}",
        "{\"event\":\"candidate_finished\",\"node\":0,\"candidate\":0,\"weights_kept\":false,"
        "\"result\":{\"curve\":[],\"cases\":[],\"confusions\":[],\"steps_done\":0,\"samples\":0,"
        "\"tokens\":0,\"end\":\"finished\",\"rank_seconds\":0,\"recipe_report\":[]}}",
        "{\"event\":\"node_closed\",\"node\":0,\"diagnosis\":\"\",\"insights\":[]}",
    };
    const struct search_score worst = {
        .present = true,
        .value = checked->facts.metric_worst,
        .standard_error = 0.0,
        .loss = NAN,
        .rows = checked->facts.validation_rows,
    };
    for (int64_t i = 0; i < (int64_t)(sizeof(events) / sizeof(events[0])); i++) {
        cJSON *event = cJSON_Parse(events[i]);
        cJSON_AddNumberToObject(event, "sequence", (double)(i + 1));
        cJSON_AddNumberToObject(event, "time_s", 0.0);
        cJSON *result = cJSON_GetObjectItemCaseSensitive(event, "result");
        if (result != NULL) {
            cJSON_AddItemToObject(result, "validation", search_score_to_json(&worst));
        }
        enum status status = search_apply(search, event, err);
        cJSON_Delete(event);
        TRY(status);
    }
    return STATUS_OK;
}

/* The plan that a search would begin with, after the Executor's checks. */
static enum status make_first_plan(struct checked *checked, struct error *err)
{
    const struct job *job = &checked->opened->job;
    struct search search;
    search_init(&search);
    const struct executor_limits limits = {
        .model = &checked->model->config,
        .memory_bytes = machine_worker_memory(job, &checked->machine, 1),
        .training_bytes = trainer_bytes,
    };
    struct buffer changes;
    struct plan_set tried; /* nothing yet */
    buffer_init(&changes, 1 << 16);
    plan_set_init(&tried);
    enum status status = STATUS_OK;
    TRY_CLEANUP(assume_baseline(checked, &search, err));
    /* Whoever plans, the first plan of the rules is what can be said without asking anybody. */
    const struct researcher_options asked = {.provider = "rules", .facts = &checked->facts};
    TRY_CLEANUP(researcher_open(&asked, &checked->researcher, err));
    TRY_CLEANUP(researcher_request(checked->researcher, &search, 0, 1, err));
    if (!researcher_poll(checked->researcher, &checked->plan) || checked->plan.config_count == 0) {
        status = FAIL(err, STATUS_INVALID, "the researcher has no first plan for this job");
        goto cleanup;
    }
    TRY_CLEANUP(executor_check(&checked->plan, &tried, &checked->facts, &limits, &changes, err));
cleanup:
    plan_set_fini(&tried);
    buffer_fini(&changes);
    search_fini(&search);
    return status;
}

static enum status check(struct checked *checked, struct error *err)
{
    struct workspace *workspace = &checked->opened->workspace;
    const struct dataset *test = NULL;
    struct device_memory memory = {0};
    TRY(machine_measure(workspace, true, &checked->machine, err));
    workspace->device->ops->memory(workspace->device, &memory);
    checked->own_bytes = memory.used_bytes;
    TRY(model_inspect(checked->opened->job.model, &checked->model, err));
    TRY(asking_inspect(&checked->opened->job, &checked->speaker, err));
    TRY(workspace_check_chat(&checked->opened->job, checked->model, err));
    TRY(facts_gather(workspace, checked->model, checked->machine.precision,
                     machine_worker_memory(&checked->opened->job, &checked->machine, 1),
                     &checked->facts, err));
    TRY(workspace_split(workspace, TASK_TEST, &test, err));
    print_job(checked);
    print_search(checked);
    TRY(make_first_plan(checked, err));
    TRY(print_plan(checked, err));
    puts("\nno mistakes found");
    return STATUS_OK;
}

/* For scripts, which must not read job files their own way; opens no data, model or device. */
static int print_output_folder(const char *job_path, const char *out_folder)
{
    struct job job;
    struct error err = {0};
    struct json_problems problems;
    json_problems_init(&problems);
    int exit_code = CLI_DONE;
    if (job_read(job_path, out_folder, &problems, &job, &err) == STATUS_OK) {
        puts(job.output);
        job_fini(&job);
    } else {
        exit_code = cli_fail(&err, &problems);
    }
    json_problems_fini(&problems);
    return exit_code;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    const char *out_folder = NULL;
    bool output_folder = false;
    const struct cli_option options[] = {
        {"out", CLI_TEXT, &out_folder},
        {"output-folder", CLI_FLAG, &output_folder},
        {NULL, CLI_FLAG, NULL},
    };
    char **arguments = NULL;
    int exit_code = 0;
    if (!cli_parse(command, argc, argv, options, 1, 1, &arguments, &exit_code)) {
        return exit_code;
    }
    if (output_folder) {
        return print_output_folder(arguments[0], out_folder);
    }
    struct error err = {0};
    struct cli_job opened;
    struct checked checked;
    memset(&checked, 0, sizeof(checked));
    checked.opened = &opened;
    enum status status = cli_job_open(arguments[0], out_folder, &opened, &err);
    if (status == STATUS_OK) {
        status = check(&checked, &err);
    }
    exit_code = status == STATUS_OK ? CLI_DONE : cli_fail(&err, &opened.problems);
    plan_fini(&checked.plan);
    researcher_close(checked.researcher);
    facts_fini(&checked.facts);
    model_destroy(checked.speaker);
    model_destroy(checked.model);
    cli_job_close(&opened);
    return exit_code;
}

const struct cli_command cli_check = {
    .name = "check",
    .summary = "read a job file: every mistake at once, memory, time, what would run",
    .usage = "usage: trex check JOB [--out DIR] [--output-folder]\n\n"
             "Reads the job, its data and its model's headers, measures the machine for a moment,\n"
             "and prints what a search would begin with. Nothing is written.\n\n"
             "  --out DIR        run folder instead of the job's \"output\"\n"
             "  --output-folder  only read the job file, and print where its run folder is\n\n"
             "example: trex check jobs/my.json\n",
    .run = run,
};
