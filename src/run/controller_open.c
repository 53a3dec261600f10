/* Opens a run folder: begins a search, or goes on from what the folder holds. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
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

static const char checksum_key[] = "_model_checksum"; /* a comment, as far as jobs go */

/* Says in a job what its precision "auto" means: the training states of a run are of one precision,
 * on whatever machines it goes on later. A machine that only prefetches decides nothing. */
static void resolve_precision(const struct controller *c, cJSON *job)
{
    cJSON *compute = cJSON_GetObjectItemCaseSensitive(job, "compute");
    if (c->options.prefetch && c->options.job->precision == JOB_PRECISION_AUTO) {
        return;
    }
    if (compute == NULL) {
        compute = cJSON_AddObjectToObject(job, "compute");
    }
    cJSON_DeleteItemFromObjectCaseSensitive(compute, "precision");
    cJSON_AddStringToObject(compute, "precision", train_precision_names[c->facts.precision]);
}

/* The job for the record. */
static char *job_text(const struct controller *c)
{
    cJSON *job = cJSON_Duplicate(c->options.job->json, true);
    resolve_precision(c, job);
    char *text = json_print_line(job);
    cJSON_Delete(job);
    return text;
}

static cJSON *recorded_job(const struct search *search)
{
    return search->identity.job != NULL ? cJSON_Parse(search->identity.job) : NULL;
}

/* The precision that a search began with; false if that is not decided yet. */
static bool recorded_precision(const struct search *search, enum train_precision *out)
{
    cJSON *job = recorded_job(search);
    const cJSON *compute = cJSON_GetObjectItemCaseSensitive(job, "compute");
    const cJSON *precision = cJSON_GetObjectItemCaseSensitive(compute, "precision");
    const char *name = cJSON_IsString(precision) ? precision->valuestring : "";
    bool found = false;
    for (int i = TRAIN_F32; i <= TRAIN_BF16; i++) {
        if (strcmp(name, train_precision_names[i]) == 0) {
            *out = (enum train_precision)i;
            found = true;
        }
    }
    cJSON_Delete(job);
    return found;
}

static void read_checksum(struct controller *c)
{
    cJSON *job = recorded_job(&c->search);
    const cJSON *checksum = cJSON_GetObjectItemCaseSensitive(job, checksum_key);
    if (cJSON_IsString(checksum) && strlen(checksum->valuestring) < sizeof(c->checksum)) {
        snprintf(c->checksum, sizeof(c->checksum), "%s", checksum->valuestring);
    }
    cJSON_Delete(job);
}

/* What the job left open is decided now. */
static enum status record_job(struct controller *c, struct error *err)
{
    cJSON *job = recorded_job(&c->search);
    resolve_precision(c, job);
    if (c->checksum[0] != '\0') {
        cJSON_DeleteItemFromObjectCaseSensitive(job, checksum_key);
        cJSON_AddStringToObject(job, checksum_key, c->checksum);
    }
    cJSON *event = controller_event("job_resolved", -1, -1);
    cJSON_AddItemToObject(event, "job", job);
    return controller_emit(c, event, err);
}

enum status controller_record_checksum(struct controller *c, const char *checksum,
                                       struct error *err)
{
    if (c->checksum[0] != '\0' || strlen(checksum) != HASH_TEXT_BYTES - 1) {
        return STATUS_OK;
    }
    snprintf(c->checksum, sizeof(c->checksum), "%s", checksum);
    return record_job(c, err);
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
    return controller_emit(c, event, err);
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

/* How the ranks of this allocation ended before, in the batch script's words; "" if they did not.
 */
static const char *previous_end(void)
{
    const char *words = getenv("TREX_PREVIOUS");
    return words != NULL && strlen(words) < 200 && json_utf8_valid(words, strlen(words)) ? words
                                                                                         : "";
}

/* Then the record may not have taken in what it died of. */
static bool disk_was_full(void)
{
    return strncmp(previous_end(), "code 74", strlen("code 74")) == 0;
}

/* Who left the folder locked; "" if nobody did. */
static const char *previous_owner(const struct controller *c)
{
    return c->options.lock != NULL ? store_lock_taken_from(c->options.lock) : "";
}

/* The last allocation has no end: says what is known of its death, and what it cost. */
static enum status tell_death(struct controller *c, struct error *err)
{
    char running[512] = "";
    double lost_s = NAN;
    size_t used = 0;
    for (int32_t node = 0; node < c->search.tree.count; node++) {
        const struct search_node *planned = &c->search.nodes[node];
        for (int32_t k = 0; k < planned->candidate_count; k++) {
            if (planned->candidates[k].state != CANDIDATE_RUNNING) {
                continue;
            }
            double since_s = controller_saved_before_s(c, node, k, c->options.died_s);
            if (isfinite(since_s)) {
                lost_s =
                    (isfinite(lost_s) ? lost_s : 0.0) + since_s * c->options.ranks_per_candidate;
            }
            if (used < sizeof(running) - 64) {
                char name[SEARCH_NAME_BYTES];
                search_candidate_name(node, k, name);
                used += (size_t)snprintf(running + used, sizeof(running) - used, "%s%s%s",
                                         used > 0 ? ", " : "", name,
                                         isfinite(since_s) ? "" : " (nothing saved)");
            }
        }
    }
    const char *owner = previous_owner(c);
    const char *how = previous_end();
    char message[1024];
    snprintf(message, sizeof(message), "the search died%s%s%s%s%s; running: %s",
             how[0] != '\0' ? " with " : "", how, owner[0] != '\0' ? " (" : "", owner,
             owner[0] != '\0' ? ")" : "", used > 0 ? running : "nothing");
    const char *kind = disk_was_full() ? "disk" : "killed";
    log_write(c->options.log, LOG_WARNING, "run", "%s: %s", kind, message);
    cJSON *event = controller_event("incident", -1, -1);
    cJSON_AddStringToObject(event, "kind", kind);
    cJSON_AddStringToObject(event, "message", message);
    if (isfinite(lost_s)) {
        cJSON_AddNumberToObject(event, "lost_s", lost_s);
    }
    return controller_emit(c, event, err);
}

/* What happened to the folder since it was last in order. */
static enum status tell_incidents(struct controller *c, struct error *err)
{
    const struct search *search = &c->search;
    const char *owner = previous_owner(c);
    if (c->load_note[0] != '\0') {
        c->snapshot_at_s = -INFINITY; /* a whole run.h5 soon */
        TRY(controller_incident(c, "damaged file", err, "%s", c->load_note));
    }
    bool died = search->allocation_count > 0 &&
                search_text(search->allocations[search->allocation_count - 1].end)[0] == '\0';
    if (died) {
        return tell_death(c, err);
    }
    return owner[0] == '\0' ? STATUS_OK
                            : controller_incident(c, "taken over", err,
                                                  "the folder was left locked by %s", owner);
}

static enum status suspend_again(struct controller *c, int32_t node, int32_t index,
                                 int64_t steps_done, struct error *err)
{
    cJSON *event = controller_event("candidate_suspended", node, index);
    cJSON_AddNumberToObject(event, "steps_done", (double)steps_done);
    cJSON_AddNumberToObject(event, "rank_seconds", 0.0);
    TRY(controller_emit(c, event, err));
    return controller_push_ready(c, node, index, err);
}

static enum status set_aside(struct controller *c, int32_t node, int32_t index, struct error *err)
{
    const struct candidate *candidate = &c->search.nodes[node].candidates[index];
    struct error failure;
    if (candidate->kills >= SEARCH_KILLS_MAX) {
        FAIL(&failure, STATUS_INTERNAL, "it ended its rank %d times; it is set aside",
             (int)candidate->kills);
    } else {
        FAIL(&failure, STATUS_INTERNAL,
             "its job died %d times while it was running and got no further; it is set aside",
             SEARCH_ATTEMPTS_MAX);
    }
    return controller_emit(c, controller_failure(node, index, &failure, "", 0.0), err);
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
    if (candidate->kills >= SEARCH_KILLS_MAX) {
        return set_aside(c, node, index, err);
    }
    char path[FILE_PATH_BYTES];
    TRY(store_inflight_path(c->options.job->output, node, index, path, err));
    int64_t steps_done = training_file_steps(path);
    bool running = candidate->state == CANDIDATE_RUNNING;
    if (running && (steps_done != candidate->steps_done || disk_was_full())) {
        /* It got further, or its state was damaged and what it does is counted anew, or the disk
         * was full: it is not what kills the job. */
        return suspend_again(c, node, index, steps_done, err);
    }
    return candidate->attempts < SEARCH_ATTEMPTS_MAX ? controller_push_ready(c, node, index, err)
                                                     : set_aside(c, node, index, err);
}

static bool is_over(const void *context, int32_t node, int32_t candidate)
{
    const struct search *search = context;
    if (node >= search->tree.count || candidate >= search->nodes[node].candidate_count) {
        return false;
    }
    enum candidate_state state = search->nodes[node].candidates[candidate].state;
    return state == CANDIDATE_FINISHED || state == CANDIDATE_FAILED;
}

static int32_t count_unfinished(const struct search_node *node)
{
    int32_t count = 0;
    for (int32_t k = 0; k < node->candidate_count; k++) {
        enum candidate_state state = node->candidates[k].state;
        count += state != CANDIDATE_FINISHED && state != CANDIDATE_FAILED;
    }
    return count;
}

static enum status requeue_open_nodes(struct controller *c, struct error *err)
{
    store_inflight_sweep(c->options.job->output, is_over, &c->search);
    for (int32_t node = 0; node < c->search.tree.count; node++) {
        if (c->search.tree.nodes[node].state != TREE_NODE_OPEN) {
            continue;
        }
        c->open_count++;
        c->unfinished += count_unfinished(&c->search.nodes[node]);
        TRY(controller_look_at_round(c, node, err));
        for (int32_t k = 0; k < c->search.nodes[node].candidate_count; k++) {
            TRY(requeue_candidate(c, node, k, err));
        }
    }
    return STATUS_OK;
}

/* A text of the environment for the record; "" if there is none that can be kept. */
static const char *environment(const char *name)
{
    const char *text = getenv(name);
    bool fits = text != NULL && strlen(text) < 64 && json_utf8_valid(text, strlen(text));
    return fits ? text : "";
}

static enum status begin_allocation(struct controller *c, struct error *err)
{
    const struct controller_options *options = &c->options;
    const struct search *search = &c->search;
    char host[65] = "";
    gethostname(host, sizeof(host) - 1);
    const char *job = environment("SLURM_JOB_ID");
    char *end = NULL;
    const char *restarts_text = environment("SLURM_RESTART_COUNT");
    long restarts = strtol(restarts_text, &end, 10);
    restarts = restarts > 0 && restarts < INT32_MAX && *end == '\0' ? restarts : 0;
    const struct search_allocation *last =
        search->allocation_count > 0 ? &search->allocations[search->allocation_count - 1] : NULL;
    bool same = last != NULL && job[0] != '\0' && strcmp(search_text(last->job), job) == 0 &&
                last->restarts == restarts;
    c->fresh = !same;
    cJSON *event = controller_event("allocation_started", -1, -1);
    cJSON_AddNumberToObject(event, "ranks", options->ranks);
    cJSON_AddNumberToObject(event, "workers", options->leader_count);
    cJSON_AddNumberToObject(event, "nodes", options->nodes);
    cJSON_AddNumberToObject(event, "threads", options->threads);
    cJSON_AddNumberToObject(event, "gpus", options->machine.memory_bytes > 0.0 ? 1 : 0);
    cJSON_AddStringToObject(event, "job", job);
    cJSON_AddNumberToObject(event, "restarts", (double)restarts);
    cJSON_AddStringToObject(event, "host", host);
    return controller_emit(c, event, err);
}

/* Reads what the folder holds; an empty search if it holds none. */
static enum status load_search(struct controller *c, struct error *err)
{
    enum status loaded =
        store_run_load(c->options.job->output, &c->search, c->load_note, sizeof(c->load_note), err);
    if (loaded != STATUS_OK && loaded != STATUS_NOT_FOUND) {
        return loaded;
    }
    if (loaded == STATUS_NOT_FOUND) {
        search_init(&c->search);
    }
    c->earlier = c->search.allocation_count;
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
        TRY(tell_incidents(c, err));
        TRY(requeue_open_nodes(c, err));
        TRY(controller_find_kept_weights(c, err));
        TRY(controller_recover_agents(c, err));
        TRY(c->options.prefetch ? STATUS_OK : controller_recover_plans(c, err));
        enum train_precision decided = TRAIN_F32;
        if (!recorded_precision(&c->search, &decided) && !c->options.prefetch) {
            TRY(record_job(c, err));
        }
    }
    return begin_allocation(c, err);
}

static enum status gather_facts(struct controller *c, struct error *err)
{
    const struct job *job = c->options.job;
    const struct machine *machine = &c->options.machine;
    enum train_precision precision = machine->precision;
    if (job->precision == JOB_PRECISION_AUTO) {
        (void)recorded_precision(&c->search, &precision);
    }
    TRY(facts_gather(c->options.workspace, c->options.model, precision, c->limits.memory_bytes,
                     &c->facts, err));
    if (machine->flops_per_s > 0.0) {
        c->facts.tokens_per_second = speed_tokens_per_second(
            &c->options.model->config, &c->facts, c->facts.lora_only, machine->flops_per_s);
    }
    return STATUS_OK;
}

/* What finished candidates tell of the time that others take. */
static void learn_speed(struct controller *c)
{
    for (int32_t node = 0; node < c->search.tree.count; node++) {
        const struct search_node *planned = &c->search.nodes[node];
        for (int32_t k = 0; k < planned->candidate_count; k++) {
            const struct candidate *candidate = &planned->candidates[k];
            if (candidate->state == CANDIDATE_FINISHED) {
                controller_learn(c, candidate);
                controller_learn_ahead(c, node, candidate);
            }
        }
    }
}

enum status controller_open(struct controller *c, struct error *err)
{
    TRY(load_search(c, err));
    TRY(tree_rank(&c->search.tree, c->options.job->max_children, err));
    controller_open_control(c);
    read_checksum(c);
    TRY(gather_facts(c, err));
    TRY(controller_open_agents(c, err));
    learn_speed(c);
    return open_search(c, err);
}
