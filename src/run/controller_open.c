/* Opens a run folder: begins a search, or goes on from what the folder holds. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "eval/scorer.h"
#include "run/controller_state.h"
#include "run/facts.h"
#include "run/speed.h"
#include "run/training_file.h"
#include "train/trainer.h"

enum { BASE_IDENTITY_BYTES = HASH_TEXT_BYTES + sizeof(SEARCH_SIMULATED) };

/* The job for the record. What its precision "auto" means is written down: the training states of a
 * run are of one precision, on whatever machines it goes on later. */
static char *job_text(const struct controller *c)
{
    cJSON *job = cJSON_Duplicate(c->options.job->json, true);
    cJSON *compute = cJSON_GetObjectItemCaseSensitive(job, "compute");
    if (compute == NULL) {
        compute = cJSON_AddObjectToObject(job, "compute");
    }
    cJSON_DeleteItemFromObjectCaseSensitive(compute, "precision");
    cJSON_AddStringToObject(compute, "precision", train_precision_names[c->facts.precision]);
    char *text = json_print_line(job);
    cJSON_Delete(job);
    return text;
}

/* The precision that a search began with; `otherwise` if it does not say. */
static enum train_precision recorded_precision(const struct search *search,
                                               enum train_precision otherwise)
{
    cJSON *job = search->identity.job != NULL ? cJSON_Parse(search->identity.job) : NULL;
    const cJSON *compute = cJSON_GetObjectItemCaseSensitive(job, "compute");
    const cJSON *precision = cJSON_GetObjectItemCaseSensitive(compute, "precision");
    const char *name = cJSON_IsString(precision) ? precision->valuestring : "";
    for (int i = TRAIN_F32; i <= TRAIN_BF16; i++) {
        otherwise =
            strcmp(name, train_precision_names[i]) == 0 ? (enum train_precision)i : otherwise;
    }
    cJSON_Delete(job);
    return otherwise;
}

/* What the search is said to begin with: a simulated one has no real model, so the two never mix.
 */
static void base_identity(const struct controller *c, char out[BASE_IDENTITY_BYTES])
{
    snprintf(out, BASE_IDENTITY_BYTES, "%s%s", c->options.simulated ? SEARCH_SIMULATED : "",
             c->options.model->hash);
}

static enum status begin_search(struct controller *c, const char *task_hash, struct error *err)
{
    char model_hash[BASE_IDENTITY_BYTES];
    base_identity(c, model_hash);
    const struct job *job = c->options.job;
    const struct scorer *scorer = scorer_find(job->task.metric);
    cJSON *event = controller_event("started", -1, -1);
    char *text = job_text(c);
    cJSON_AddStringToObject(event, "job", text != NULL ? text : "{}");
    cJSON_free(text);
    cJSON_AddStringToObject(event, "model_hash", model_hash);
    cJSON_AddStringToObject(event, "task_hash", task_hash);
    cJSON_AddStringToObject(event, "metric", job->task.metric);
    cJSON_AddBoolToObject(event, "larger_is_better", scorer->best > scorer->worst);
    cJSON_AddStringToObject(event, "version", TREX_VERSION);
    cJSON_AddNumberToObject(event, "seed", (double)job->seed);
    return controller_emit(c, event, -1, err);
}

/* A folder may be resumed with other budgets, but not with another model, task or seed. */
static enum status check_identity(const struct controller *c, const char *task_hash,
                                  struct error *err)
{
    const struct job *job = c->options.job;
    const struct search_identity *identity = &c->search.identity;
    const char *other = NULL;
    char model_hash[BASE_IDENTITY_BYTES];
    base_identity(c, model_hash);
    if (search_is_simulated(&c->search) != c->options.simulated) {
        return FAIL(err, STATUS_INVALID,
                    "%s holds a %s search, and this one is %s; the two never mix: give another "
                    "folder with --out, or start it %s --simulate",
                    job->output, c->options.simulated ? "real" : "simulated",
                    c->options.simulated ? "simulated" : "real",
                    c->options.simulated ? "without" : "with");
    }
    if (strcmp(identity->model_hash, model_hash) != 0) {
        other = "base model";
    } else if (strcmp(identity->task_hash, task_hash) != 0) {
        other = "validation or test split, prompt template or metric";
    } else if (identity->seed != job->seed) {
        other = "seed";
    }
    if (other != NULL) {
        return FAIL(err, STATUS_INVALID,
                    "%s holds a search with another %s; give another folder with --out, or the "
                    "old job",
                    job->output, other);
    }
    return STATUS_OK;
}

/* A candidate that was running when the job died starts again, unless it seems to have killed it.
 */
static enum status requeue_candidate(struct controller *c, int32_t node, int32_t index,
                                     struct error *err)
{
    const struct candidate *candidate = &c->search.nodes[node].candidates[index];
    if (candidate->state == CANDIDATE_FINISHED || candidate->state == CANDIDATE_FAILED) {
        return STATUS_OK;
    }
    char path[FILE_PATH_BYTES];
    TRY(store_inflight_path(c->options.job->output, node, index, path, err));
    int64_t steps_done = training_file_steps(path);
    if (steps_done > candidate->steps_done && candidate->state == CANDIDATE_RUNNING) {
        /* It got further than ever before: it is not what kills the job. */
        cJSON *progress = controller_event("candidate_suspended", node, index);
        cJSON_AddNumberToObject(progress, "steps_done", (double)steps_done);
        cJSON_AddNumberToObject(progress, "rank_seconds", 0.0);
        TRY(controller_emit(c, progress, -1, err));
        return controller_push_ready(c, node, index, err);
    }
    if (candidate->attempts < SEARCH_ATTEMPTS_MAX) {
        return controller_push_ready(c, node, index, err);
    }
    struct error failure;
    FAIL(&failure, STATUS_INTERNAL,
         "its job died %d times while it was running and got no further; it is set aside",
         SEARCH_ATTEMPTS_MAX);
    cJSON *event = controller_failure(node, index, &failure, "", 0.0);
    return controller_emit(c, event, -1, err);
}

static enum status requeue_open_nodes(struct controller *c, struct error *err)
{
    for (int32_t node = 0; node < c->search.tree.count; node++) {
        if (c->search.tree.nodes[node].state != TREE_NODE_OPEN) {
            continue;
        }
        TRY(controller_add_open(c, node, err));
        for (int32_t k = 0; k < c->search.nodes[node].candidate_count; k++) {
            TRY(requeue_candidate(c, node, k, err));
        }
    }
    return STATUS_OK;
}

static enum status begin_allocation(struct controller *c, struct error *err)
{
    char host[65] = "";
    gethostname(host, sizeof(host) - 1);
    cJSON *event = controller_event("allocation_started", -1, -1);
    cJSON_AddNumberToObject(event, "ranks", c->options.leader_count);
    cJSON_AddStringToObject(event, "host", host);
    return controller_emit(c, event, -1, err);
}

/* Reads what the folder holds; an empty search if it holds none. */
static enum status load_search(struct controller *c, struct error *err)
{
    char note[1024] = "";
    enum status loaded =
        store_run_load(c->options.job->output, &c->search, note, sizeof(note), err);
    if (loaded != STATUS_OK && loaded != STATUS_NOT_FOUND) {
        return loaded;
    }
    if (note[0] != '\0') {
        log_write(c->options.log, LOG_WARNING, "run", "%s", note);
    }
    if (loaded == STATUS_NOT_FOUND) {
        search_init(&c->search);
    }
    return STATUS_OK;
}

/* Goes on from what the folder held. */
static enum status open_search(struct controller *c, struct error *err)
{
    const char *folder = c->options.job->output;
    char task_hash[HASH_TEXT_BYTES];
    TRY(workspace_task_hash(c->options.workspace, task_hash, err));
    TRY(journal_open(folder, c->options.lock, c->search.last_sequence, &c->journal, err));
    TRY(snapshot_create(folder, c->journal, &c->snapshot, err));
    c->next_sequence = c->search.last_sequence + 1;
    c->snapshot_sequence = -1;
    if (c->options.simulated) {
        log_write(c->options.log, LOG_WARNING, "run",
                  "SIMULATED: workers sleep instead of training, and all scores are made up");
    }
    if (c->search.last_sequence == 0) {
        TRY(begin_search(c, task_hash, err));
    } else {
        TRY(check_identity(c, task_hash, err));
        if (c->search.end == SEARCH_FINISHED) {
            c->finish_recorded = true;
            c->snapshot_sequence = c->search.last_sequence; /* nothing new to write */
            return STATUS_OK;
        }
        log_write(c->options.log, LOG_INFO, "run", "resuming %s: %d nodes so far", folder,
                  c->search.tree.count);
        TRY(plan_set_add_search(&c->tried, &c->search, 0, err));
        TRY(requeue_open_nodes(c, err));
        TRY(controller_find_kept_weights(c, err));
    }
    return begin_allocation(c, err);
}

static enum status gather_facts(struct controller *c, struct error *err)
{
    const struct job *job = c->options.job;
    const struct machine *machine = &c->options.machine;
    enum train_precision precision = machine->precision;
    if (job->precision == JOB_PRECISION_AUTO) {
        precision = recorded_precision(&c->search, precision);
    }
    TRY(facts_gather(c->options.workspace, c->options.model, precision, c->limits.memory_bytes,
                     &c->facts, err));
    if (machine->flops_per_s > 0.0) {
        c->facts.tokens_per_second = speed_tokens_per_second(
            &c->options.model->config, &c->facts, c->facts.lora_only, machine->flops_per_s);
    }
    return STATUS_OK;
}

enum status controller_open(struct controller *c, struct error *err)
{
    TRY(load_search(c, err));
    controller_open_control(c);
    TRY(gather_facts(c, err));
    TRY(researcher_open(c->options.job->researcher, &c->facts, c->options.log, &c->researcher,
                        err));
    return open_search(c, err);
}
