#include "run/job.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/file.h"
#include "base/mem.h"
#include "eval/scorer.h"
#include "store/control.h"

enum { JOB_MAX_BYTES = 4 << 20, JOB_TEXT_MAX_BYTES = 64 << 10 };

static const char *const backend_names[] = {"auto", "cpu", "cuda", NULL};
static const char *const precision_names[] = {"auto", "f32", "bf16", NULL};

enum status job_expand(const char *text, char **out, struct error *err)
{
    struct buffer expanded;
    buffer_init(&expanded, FILE_PATH_BYTES);
    enum status status = STATUS_OK;
    while (*text != '\0') {
        const char *end = strncmp(text, "${", 2) == 0 ? strchr(text, '}') : NULL;
        if (end == NULL) {
            buffer_append_char(&expanded, *text++);
            continue;
        }
        char name[128];
        snprintf(name, sizeof(name), "%.*s", (int)(end - text - 2), text + 2);
        const char *value = getenv(name);
        if (value == NULL) {
            status = FAIL(err, STATUS_NOT_FOUND,
                          "the environment has no %s; set it, e.g. export %s=/path", name, name);
            goto cleanup;
        }
        buffer_append_text(&expanded, value);
        text = end + 1;
    }
    TRY_CLEANUP(buffer_check(&expanded, "a path", err));
    *out = buffer_take(&expanded);
    if (*out == NULL) {
        status = mem_fail(err, FILE_PATH_BYTES, "a path");
    }
cleanup:
    buffer_fini(&expanded);
    return status;
}

/* Expands the string at object[key] in place; problems are noted under its pointer. */
static void expand_key(cJSON *object, const char *key, const char *pointer,
                       struct json_problems *problems)
{
    cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsString(value)) {
        return;
    }
    char *expanded = NULL;
    struct error err = {0};
    if (job_expand(value->valuestring, &expanded, &err) != STATUS_OK) {
        char place[JSON_POINTER_BYTES];
        snprintf(place, sizeof(place), "%s/%s", pointer, key);
        json_problems_add(problems, place, "%s", err.message);
    } else if (cJSON_SetValuestring(value, expanded) == NULL) {
        json_problems_add(problems, pointer, "no memory for %s", key);
    }
    free(expanded);
}

static void expand_paths(cJSON *root, struct json_problems *problems)
{
    expand_key(root, "model", "", problems);
    expand_key(root, "output", "", problems);
    expand_key(cJSON_GetObjectItemCaseSensitive(root, "researcher"), "model", "/researcher",
               problems); /* of "local" it is a folder */
    cJSON *task = cJSON_GetObjectItemCaseSensitive(root, "task");
    for (int split = 0; split < TASK_SPLIT_COUNT; split++) {
        expand_key(task, task_split_names[split], "/task", problems);
    }
}

/* Heap copy of a string key; "" on a mistake, so that reading goes on to find the others. */
static char *read_text(struct json_reader *reader, const char *key, const char *fallback)
{
    const char *text = json_read_string(reader, key, fallback);
    if (strlen(text) > JOB_TEXT_MAX_BYTES) {
        char pointer[JSON_POINTER_BYTES];
        json_reader_pointer(reader, key, pointer);
        json_problems_add(reader->problems, pointer, "longer than %d bytes", JOB_TEXT_MAX_BYTES);
        text = "";
    }
    return mem_strdup(text);
}

/* A limit that can also be set for a search that has begun (trex-tree set). */
static double read_limit(struct json_reader *reader, enum search_limit_id id)
{
    return search_limit_read(reader, id, search_limits[id].fallback);
}

static void read_search(const cJSON *object, struct json_problems *problems, struct job *job)
{
    struct json_reader reader;
    json_reader_init(&reader, object, "/search", problems);
    const char *policy = json_read_string(&reader, "policy", "uct");
    job->policy = tree_policy_find(policy);
    if (job->policy == NULL) {
        struct buffer names;
        buffer_init(&names, 1024);
        for (const struct tree_policy *const *p = tree_policy_list(); *p != NULL; p++) {
            buffer_printf(&names, " \"%s\"", (*p)->name);
        }
        json_problems_add(problems, "/search/policy", "found \"%.40s\", allowed is one of%s",
                          policy, buffer_text(&names));
        buffer_fini(&names);
    }
    job->rounds = (int64_t)read_limit(&reader, SEARCH_LIMIT_ROUNDS);
    job->configurations =
        (int)json_read_int(&reader, "configurations", 3, 1, SEARCH_CANDIDATES_MAX);
    job->exploration = json_read_number(&reader, "exploration", 0.25, 0.0, 100.0);
    job->max_children = (int32_t)json_read_int(&reader, "max_children", 4, 1, 1000);
    job->parallel_nodes = json_read_int(&reader, "parallel_nodes", 0, 0, 100000);
    job->seed = (uint64_t)json_read_int(&reader, "seed", 1, 0, INT64_C(1) << 53);
    job->goal_score = read_limit(&reader, SEARCH_LIMIT_GOAL_SCORE);
    json_reader_finish(&reader);
}

static void read_limits(const cJSON *object, struct json_problems *problems, struct job *job)
{
    struct json_reader reader;
    json_reader_init(&reader, object, "/limits", problems);
    job->max_samples = json_read_int(&reader, "samples", 50000, 1, INT64_C(100000000));
    job->max_steps = json_read_int(&reader, "steps", 0, 0, INT64_C(1) << 40);
    job->sequence_length = json_read_int(&reader, "sequence_length", 0, 0, 1 << 20);
    job->candidate_seconds = json_read_number(&reader, "candidate_seconds", 0.0, 0.0, 1e9);
    job->core_hours = read_limit(&reader, SEARCH_LIMIT_CORE_HOURS);
    job->gpu_hours = read_limit(&reader, SEARCH_LIMIT_GPU_HOURS);
    job->memory_bytes = 1e9 * json_read_number(&reader, "memory_gb", 0.0, 0.0, 1e6);
    job->agent_tokens = (int64_t)read_limit(&reader, SEARCH_LIMIT_AGENT_TOKENS);
    job->agent_money_usd = read_limit(&reader, SEARCH_LIMIT_AGENT_MONEY);
    json_reader_finish(&reader);
}

static void read_compute(const cJSON *object, struct json_problems *problems, struct job *job)
{
    struct json_reader reader;
    json_reader_init(&reader, object, "/compute", problems);
    job->backend =
        mem_strdup(backend_names[json_read_choice(&reader, "backend", backend_names, 0)]);
    job->precision = (enum job_precision)json_read_choice(&reader, "precision", precision_names, 0);
    job->ranks_per_candidate = (int)json_read_int(&reader, "ranks_per_candidate", 1, 1, 4096);
    job->threads = (int)json_read_int(&reader, "threads", 0, 0, 1024);
    job->batch_tokens = json_read_int(&reader, "batch_tokens", 0, 0, 1 << 24);
    job->checkpoint_seconds = json_read_number(&reader, "checkpoint_seconds", 300.0, 1.0, 1e6);
    job->watchdog_seconds = json_read_number(&reader, "watchdog_seconds", 600.0, 0.0, 1e6);
    json_reader_finish(&reader);
}

static enum status resolve_folder(const char *job_folder, const char *given, char **out,
                                  struct error *err)
{
    char joined[FILE_PATH_BYTES];
    TRY(file_join(job_folder, given, joined, err));
    char *resolved = realpath(joined, NULL); /* absolute where it exists, for the record */
    *out = resolved != NULL ? resolved : mem_strdup(joined);
    return *out != NULL ? STATUS_OK : mem_fail(err, strlen(joined), "a path");
}

/* The run folder: --out, else the job's, else runs/<name> with characters that are safe in a path.
 */
static enum status read_output(struct json_reader *reader, const char *out_folder, struct job *job,
                               struct error *err)
{
    const char *output = json_read_string(reader, "output", "");
    if (out_folder != NULL || output[0] != '\0') {
        job->output = mem_strdup(out_folder != NULL ? out_folder : output);
        return job->output != NULL ? STATUS_OK : mem_fail(err, FILE_PATH_BYTES, "a path");
    }
    struct buffer path;
    buffer_init(&path, FILE_PATH_BYTES);
    buffer_append_text(&path, "runs/");
    for (const char *c = job->name != NULL ? job->name : ""; *c != '\0'; c++) {
        buffer_append_char(&path, isalnum((unsigned char)*c) || *c == '_' ? *c : '-');
    }
    job->output = buffer_take(&path);
    return job->output != NULL ? STATUS_OK : mem_fail(err, FILE_PATH_BYTES, "a path");
}

/* The checks that need more than one key. */
static void check_together(const struct job *job, struct json_problems *problems)
{
    if (job->task.metric != NULL && scorer_find(job->task.metric) == NULL) {
        struct buffer names;
        buffer_init(&names, 1024);
        for (const struct scorer *const *s = scorer_list(); *s != NULL; s++) {
            buffer_printf(&names, " \"%s\"", (*s)->name);
        }
        json_problems_add(problems, "/task/metric", "found \"%.40s\", allowed is one of%s",
                          job->task.metric, buffer_text(&names));
        buffer_fini(&names);
    }
    for (int a = 0; a < TASK_SPLIT_COUNT; a++) {
        for (int b = a + 1; b < TASK_SPLIT_COUNT; b++) {
            if (job->task.path[a] != NULL && job->task.path[b] != NULL &&
                strcmp(job->task.path[a], job->task.path[b]) == 0) {
                json_problems_add(
                    problems, "/task",
                    "%s and %s are the same file %s; scores on rows that were trained "
                    "on or chosen by mean nothing",
                    task_split_names[a], task_split_names[b], job->task.path[a]);
            }
        }
    }
}

static enum status read_root(cJSON *root, const char *folder, const char *out_folder,
                             struct json_problems *problems, struct job *job, struct error *err)
{
    struct json_reader reader;
    json_reader_init(&reader, root, "", problems);
    json_require(&reader, "model", "the folder of the base model");
    json_require(&reader, "task", "an object that describes the task, see jobs/README.md");
    job->name = read_text(&reader, "name", "search");
    job->goal = read_text(&reader, "goal", "");
    job->keep_weights = (int)json_read_int(&reader, "keep_weights", 3, 1, 10000);
    TRY(resolve_folder(folder, json_read_string(&reader, "model", ""), &job->model, err));
    TRY(read_output(&reader, out_folder, job, err));
    TRY(job_researcher_read(json_read_object(&reader, "researcher"), folder, problems,
                            &job->researcher, err));
    read_search(json_read_object(&reader, "search"), problems, job);
    read_limits(json_read_object(&reader, "limits"), problems, job);
    read_compute(json_read_object(&reader, "compute"), problems, job);
    TRY(task_read(json_read_object(&reader, "task"), "/task", folder, problems, &job->task, err));
    json_reader_finish(&reader);
    check_together(job, problems);
    job_researcher_check(&job->researcher, job->agent_tokens, job->agent_money_usd, problems);
    if (job->output == NULL || job->name == NULL || job->goal == NULL || job->backend == NULL) {
        return mem_fail(err, JOB_TEXT_MAX_BYTES, "the job");
    }
    cJSON_DeleteItemFromObjectCaseSensitive(root, "model");
    cJSON_AddStringToObject(root, "model", job->model);
    return STATUS_OK;
}

enum status job_read(const char *path, const char *out_folder, struct json_problems *problems,
                     struct job *out, struct error *err)
{
    memset(out, 0, sizeof(*out));
    char folder[FILE_PATH_BYTES];
    enum status status = STATUS_OK;
    TRY_CLEANUP(file_folder_of(path, folder, err));
    TRY_CLEANUP(json_parse_file(path, JOB_MAX_BYTES, &out->json, err));
    out->path = mem_strdup(path);
    expand_paths(out->json, problems);
    TRY_CLEANUP(read_root(out->json, folder, out_folder, problems, out, err));
    TRY_CLEANUP(json_problems_check(problems, path, err));
cleanup:
    if (status != STATUS_OK) {
        job_fini(out);
    }
    return status;
}

void job_fini(struct job *job)
{
    free(job->path);
    free(job->name);
    free(job->goal);
    free(job->model);
    free(job->output);
    job_researcher_fini(&job->researcher);
    free(job->backend);
    task_fini(&job->task);
    cJSON_Delete(job->json);
    memset(job, 0, sizeof(*job));
}
