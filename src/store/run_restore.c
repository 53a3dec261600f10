/* The way back: rows to a search. The rows have passed their checksums; what is checked here is
 * that they make sense together, so that a file from a broken or hostile program is an error and
 * not a crash. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "store/run_restore.h"

enum status restorer_corrupt(struct error *err, const char *path, enum run_table table, int64_t row,
                             const char *file, int line, const char *what)
{
    return error_set(err, STATUS_CORRUPT, file, line, "%s: /%s row %" PRId64 ": %s", path,
                     run_tables[table].name, row, what);
}

enum status restorer_copy(struct restorer *from, const char *text, char **out)
{
    *out = arena_strdup(&from->search->arena, text);
    return *out != NULL ? STATUS_OK : mem_fail(from->err, strlen(text) + 1, "a text of a run file");
}

enum status restorer_copy_late(struct restorer *from, const char *text, char **out)
{
    *out = NULL;
    return text[0] == '\0' ? STATUS_OK : restorer_copy(from, text, out);
}

static enum status restore_identity(struct restorer *from)
{
    const struct identity_row *row = from->image->rows[RUN_IDENTITY];
    struct search_identity *to = &from->search->identity;
    TRY(restorer_copy(from, row->job, &to->job));
    TRY(restorer_copy(from, row->model_hash, &to->model_hash));
    TRY(restorer_copy(from, row->task_hash, &to->task_hash));
    TRY(restorer_copy(from, row->metric, &to->metric));
    TRY(restorer_copy(from, row->version, &to->version));
    to->larger_is_better = row->larger_is_better;
    to->seed = row->seed;
    return STATUS_OK;
}

bool restorer_is_amount(double value)
{
    return value >= 0.0 && value <= 1e300;
}

bool restorer_is_amount_or_unknown(double value)
{
    return isnan(value) || restorer_is_amount(value);
}

/* What somebody set, and the halt that was obeyed: files before version 2 know of neither. */
static enum status restore_steering(struct restorer *from)
{
    const struct search_row *row = from->image->rows[RUN_SEARCH];
    struct search *to = from->search;
    if (from->image->schema < 2) {
        return STATUS_OK; /* as search_init has it */
    }
    for (int i = 0; i < SEARCH_LIMIT_COUNT; i++) {
        enum search_limit_id id = (enum search_limit_id)i;
        if (!isnan(row->limits[i]) && !search_limit_fits(id, row->limits[i])) {
            return CORRUPT(from->err, from->path, RUN_SEARCH, 0, "a limit is out of range");
        }
        to->limits[i] = row->limits[i];
    }
    if (row->halt_id[0] != '\0' && !search_halt_id_fits(row->halt_id)) {
        return CORRUPT(from->err, from->path, RUN_SEARCH, 0, "the id of a halt is none");
    }
    snprintf(to->halt_id, sizeof(to->halt_id), "%s", row->halt_id);
    return STATUS_OK;
}

static enum status restore_totals(struct restorer *from)
{
    const struct search_row *row = from->image->rows[RUN_SEARCH];
    struct search *to = from->search;
    bool old = from->image->schema < 2;
    if (row->last_sequence < 0 || row->allocations < 0 || row->incidents < 0 ||
        !restorer_is_amount(row->rank_seconds) || !restorer_is_amount(row->allocation_seconds) ||
        !restorer_is_amount(row->earlier_seconds) || !restorer_is_amount(row->core_seconds) ||
        !restorer_is_amount(row->gpu_seconds)) {
        return CORRUPT(from->err, from->path, RUN_SEARCH, 0, "a count or a time is out of range");
    }
    to->last_sequence = row->last_sequence;
    to->rank_seconds = row->rank_seconds;
    to->allocation_seconds = row->allocation_seconds;
    to->earlier_seconds = row->earlier_seconds;
    to->core_seconds = old ? row->rank_seconds : row->core_seconds;
    to->gpu_seconds = row->gpu_seconds;
    to->incidents_seen = row->incidents;
    to->end = (enum search_end)row->end;
    to->winner_node = row->winner_node;
    to->winner_candidate = row->winner_candidate;
    return restorer_copy_late(from, row->end_reason, &to->end_reason);
}

/* Parents, states and rewards: all that the tree's statistics are made of. */
static enum status restore_tree(struct restorer *from)
{
    const struct node_row *rows = from->image->rows[RUN_NODES];
    int64_t count = from->image->counts[RUN_NODES];
    struct tree *tree = &from->search->tree;
    if (count > TREE_NODES_MAX) {
        return CORRUPT(from->err, from->path, RUN_NODES, count, "more nodes than a tree may have");
    }
    tree->nodes = mem_calloc((size_t)count, sizeof(*tree->nodes));
    from->search->nodes = mem_calloc((size_t)count, sizeof(*from->search->nodes));
    if (tree->nodes == NULL || from->search->nodes == NULL) {
        return mem_fail(from->err, (size_t)count * sizeof(*from->search->nodes),
                        "nodes of a run file");
    }
    tree->count = (int32_t)count;
    tree->capacity = (int32_t)count;
    from->search->node_capacity = (int32_t)count;
    for (int64_t i = 0; i < count; i++) {
        if (rows[i].node != i) {
            return CORRUPT(from->err, from->path, RUN_NODES, i, "the nodes are not in order");
        }
        tree->nodes[i].parent = rows[i].parent;
        tree->nodes[i].state = (enum tree_node_state)rows[i].state;
        tree->nodes[i].reward = rows[i].reward;
    }
    enum status status = tree_rebuild(tree, from->err);
    if (status != STATUS_OK) {
        error_context(from->err, "%s", from->path);
    }
    return status;
}

static enum status check_statistics(struct restorer *from, int32_t id)
{
    const struct node_row *row = (const struct node_row *)from->image->rows[RUN_NODES] + id;
    const struct tree_node *node = &from->search->tree.nodes[id];
    if (row->depth != node->depth || row->visits != node->visits ||
        row->successes != node->successes ||
        fabs(row->reward_sum - node->reward_sum) > 1e-9 * (1.0 + fabs(node->reward_sum))) {
        return CORRUPT(from->err, from->path, RUN_NODES, id, "its statistics do not fit the tree");
    }
    return STATUS_OK;
}

static enum status restore_error(struct restorer *from, const struct candidate_row *row,
                                 struct candidate *to)
{
    enum status code = STATUS_OK;
    while (code < STATUS_COUNT && strcmp(status_name(code), row->error_status) != 0) {
        code = (enum status)(code + 1);
    }
    if (code == STATUS_COUNT) {
        return CORRUPT(from->err, from->path, RUN_CANDIDATES, from->next[RUN_CANDIDATES],
                       "its error is of no known kind");
    }
    if (to->state != CANDIDATE_FAILED) {
        return STATUS_OK;
    }
    to->error = arena_alloc(&from->search->arena, 1, sizeof(*to->error));
    if (to->error == NULL) {
        return mem_fail(from->err, sizeof(*to->error), "an error of a run file");
    }
    to->error->code = code;
    to->error->rank = row->error_rank;
    to->error->line = row->error_line;
    snprintf(to->error->message, sizeof(to->error->message), "%s", row->error_message);
    snprintf(to->error->file, sizeof(to->error->file), "%s", row->error_file);
    return STATUS_OK;
}

static struct search_score restore_score(const struct score_columns *columns)
{
    return (struct search_score){
        .present = columns->present,
        .value = columns->value,
        .standard_error = columns->standard_error,
        .loss = columns->loss,
        .rows = columns->rows,
        .truncated = columns->truncated,
        .unfinished = columns->unfinished,
        .format_failures = columns->format_failures,
        .seconds = columns->seconds,
    };
}

static bool score_is_right(const struct score_columns *score)
{
    bool figures = isfinite(score->value) && restorer_is_amount(score->standard_error) &&
                   restorer_is_amount(score->seconds);
    return !score->present || (figures && score->rows >= 0 && score->truncated >= 0 &&
                               score->unfinished >= 0 && score->format_failures >= 0);
}

static enum status restore_candidate(struct restorer *from, const struct candidate_row *row,
                                     struct candidate *to)
{
    if (row->attempts < 0 || row->steps_done < 0 || row->samples < 0 || row->tokens < 0 ||
        row->kills < 0 || !restorer_is_amount(row->rank_seconds) ||
        !restorer_is_amount(row->core_seconds) || !restorer_is_amount(row->gpu_seconds) ||
        !score_is_right(&row->validation) || !score_is_right(&row->test) ||
        (row->state == CANDIDATE_FINISHED && !row->validation.present)) {
        return CORRUPT(from->err, from->path, RUN_CANDIDATES, from->next[RUN_CANDIDATES],
                       "a count, a time or a score is out of range");
    }
    to->state = (enum candidate_state)row->state;
    to->attempts = row->attempts;
    to->steps_done = row->steps_done;
    to->samples = row->samples;
    to->tokens = row->tokens;
    to->kills = row->kills;
    to->rank_seconds = row->rank_seconds;
    to->core_seconds = from->image->schema < 2 ? row->rank_seconds : row->core_seconds;
    to->gpu_seconds = row->gpu_seconds;
    to->weights_kept = row->weights_kept;
    to->validation = restore_score(&row->validation);
    to->test = restore_score(&row->test);
    TRY(restore_error(from, row, to));
    TRY(restorer_copy(from, row->config, &to->config));
    TRY(restorer_copy_late(from, row->end, &to->end));
    return restorer_copy_late(from, row->log_tail, &to->log_tail);
}

/* Number of the next rows of a list table that belong to this candidate. All list rows begin or end
 * with different fields, so the owner is found through `owner`. */
static int64_t count_owned(const struct restorer *from, enum run_table table, int32_t node,
                           int32_t candidate)
{
    int64_t count = 0;
    for (int64_t i = from->next[table]; i < from->image->counts[table]; i++, count++) {
        const unsigned char *row = (const unsigned char *)from->image->rows[table] +
                                   (size_t)i * run_tables[table].row_bytes;
        int32_t owner[2];
        /* The first two columns of every list are node and candidate. */
        memcpy(&owner[0], row + run_tables[table].columns[0].offset, sizeof(owner[0]));
        memcpy(&owner[1], row + run_tables[table].columns[1].offset, sizeof(owner[1]));
        if (owner[0] != node || owner[1] != candidate) {
            break;
        }
    }
    return count;
}

/* Array for a candidate's rows of a list; *count is 0 and the array NULL if it has none. */
static enum status make_list(struct restorer *from, enum run_table table, int32_t node,
                             int32_t candidate, int64_t max, size_t item_bytes, void **items,
                             int32_t *count)
{
    int64_t found = count_owned(from, table, node, candidate);
    if (found > max) {
        return CORRUPT(from->err, from->path, table, from->next[table],
                       "more rows than a candidate may have");
    }
    *items = NULL;
    *count = 0;
    if (found > 0) {
        *items = arena_alloc(&from->search->arena, (size_t)found, item_bytes);
        if (*items == NULL) {
            return mem_fail(from->err, (size_t)found * item_bytes, run_tables[table].name);
        }
        *count = (int32_t)found;
    }
    return STATUS_OK;
}

static enum status restore_curve(struct restorer *from, int32_t node, int32_t candidate,
                                 struct candidate *to)
{
    void *items = NULL;
    TRY(make_list(from, RUN_CURVES, node, candidate, SEARCH_CURVE_MAX, sizeof(*to->curve), &items,
                  &to->curve_count));
    to->curve = items;
    const struct curve_row *rows =
        (const struct curve_row *)from->image->rows[RUN_CURVES] + from->next[RUN_CURVES];
    for (int32_t i = 0; i < to->curve_count; i++) {
        to->curve[i] = (struct search_curve_point){rows[i].step,          rows[i].tokens,
                                                   rows[i].train_loss,    rows[i].validation_loss,
                                                   rows[i].gradient_norm, rows[i].learning_rate,
                                                   rows[i].seconds};
    }
    from->next[RUN_CURVES] += to->curve_count;
    return STATUS_OK;
}

static enum status restore_cases(struct restorer *from, int32_t node, int32_t candidate,
                                 struct candidate *to)
{
    void *items = NULL;
    TRY(make_list(from, RUN_CASES, node, candidate, SEARCH_CASES_MAX, sizeof(*to->cases), &items,
                  &to->case_count));
    to->cases = items;
    const struct case_row *rows =
        (const struct case_row *)from->image->rows[RUN_CASES] + from->next[RUN_CASES];
    for (int32_t i = 0; i < to->case_count; i++) {
        to->cases[i].row = rows[i].row;
        to->cases[i].score = rows[i].score;
        TRY(restorer_copy(from, rows[i].prompt, &to->cases[i].prompt));
        TRY(restorer_copy(from, rows[i].answer, &to->cases[i].answer));
        TRY(restorer_copy(from, rows[i].output, &to->cases[i].output));
    }
    from->next[RUN_CASES] += to->case_count;
    return STATUS_OK;
}

static enum status restore_confusions(struct restorer *from, int32_t node, int32_t candidate,
                                      struct candidate *to)
{
    void *items = NULL;
    TRY(make_list(from, RUN_CONFUSIONS, node, candidate, SEARCH_CONFUSIONS_MAX,
                  sizeof(*to->confusions), &items, &to->confusion_count));
    to->confusions = items;
    const struct confusion_row *rows =
        (const struct confusion_row *)from->image->rows[RUN_CONFUSIONS] +
        from->next[RUN_CONFUSIONS];
    for (int32_t i = 0; i < to->confusion_count; i++) {
        to->confusions[i].count = rows[i].count;
        TRY(restorer_copy(from, rows[i].expected, &to->confusions[i].expected));
        TRY(restorer_copy(from, rows[i].found, &to->confusions[i].found));
    }
    from->next[RUN_CONFUSIONS] += to->confusion_count;
    return STATUS_OK;
}

static enum status restore_candidates(struct restorer *from, int32_t id, struct search_node *to)
{
    const struct candidate_row *rows = from->image->rows[RUN_CANDIDATES];
    for (int32_t c = 0; c < to->candidate_count; c++) {
        int64_t at = from->next[RUN_CANDIDATES];
        if (at >= from->image->counts[RUN_CANDIDATES] || rows[at].node != id ||
            rows[at].candidate != c) {
            return CORRUPT(from->err, from->path, RUN_CANDIDATES, at,
                           "the candidates are not in order");
        }
        TRY(restore_candidate(from, &rows[at], &to->candidates[c]));
        from->next[RUN_CANDIDATES]++;
        TRY(restore_curve(from, id, c, &to->candidates[c]));
        TRY(restore_cases(from, id, c, &to->candidates[c]));
        TRY(restore_confusions(from, id, c, &to->candidates[c]));
    }
    if (to->best >= 0 && to->candidates[to->best].state != CANDIDATE_FINISHED) {
        return CORRUPT(from->err, from->path, RUN_NODES, id, "its best candidate has not finished");
    }
    return STATUS_OK;
}

static enum status restore_node(struct restorer *from, int32_t id)
{
    const struct node_row *row = (const struct node_row *)from->image->rows[RUN_NODES] + id;
    struct search_node *to = &from->search->nodes[id];
    TRY(check_statistics(from, id));
    if (row->candidates < 0 || row->candidates > SEARCH_CANDIDATES_MAX || row->best < -1 ||
        row->best >= row->candidates || !isfinite(row->planned_at_s) ||
        !isfinite(row->closed_at_s)) {
        return CORRUPT(from->err, from->path, RUN_NODES, id, "a count or a time is out of range");
    }
    to->candidate_count = row->candidates;
    to->best = row->best;
    to->planned_at_s = row->planned_at_s;
    to->closed_at_s = row->closed_at_s;
    TRY(restorer_copy(from, row->strategy, &to->strategy));
    TRY(restorer_copy(from, row->goal, &to->goal));
    TRY(restorer_copy(from, row->rationale, &to->rationale));
    TRY(restorer_copy(from, row->recipe, &to->recipe));
    TRY(restorer_copy(from, row->researcher, &to->researcher));
    TRY(restorer_copy_late(from, row->diagnosis, &to->diagnosis));
    TRY(restorer_copy_late(from, row->causes, &to->causes));
    TRY(restorer_copy_late(from, row->recipe_report, &to->recipe_report));
    return restore_candidates(from, id, to);
}

/* Files before version 2 know the number of allocations, and how long the last one lasted. */
static enum status restore_unrecorded(struct restorer *from)
{
    struct search *to = from->search;
    for (int32_t i = 0; i < to->allocation_count; i++) {
        struct search_allocation *allocation = &to->allocations[i];
        *allocation = (struct search_allocation){.ranks = 1, .threads = 1};
        allocation->predicted_s = NAN;
        allocation->safe_s = NAN;
        TRY(restorer_copy(from, "", &allocation->job));
        TRY(restorer_copy(from, "", &allocation->host));
        TRY(restorer_copy(from, "not recorded", &allocation->end));
    }
    if (to->allocation_count > 0) {
        to->allocations[to->allocation_count - 1].seconds =
            fmax(0.0, to->allocation_seconds - to->earlier_seconds);
    }
    return STATUS_OK;
}

static enum status restore_allocation(struct restorer *from, const struct allocation_row *row,
                                      struct search_allocation *to)
{
    if (!restorer_is_amount(row->started_s) || !restorer_is_amount(row->seconds) ||
        row->ranks < 1 || row->workers < 0 || row->nodes < 0 || row->threads < 0 || row->gpus < 0 ||
        row->restarts < 0 || !restorer_is_amount_or_unknown(row->predicted_s) ||
        !restorer_is_amount_or_unknown(row->safe_s)) {
        return CORRUPT(from->err, from->path, RUN_ALLOCATIONS, row->allocation,
                       "a count or a time is out of range");
    }
    to->started_s = row->started_s;
    to->seconds = row->seconds;
    to->ranks = row->ranks;
    to->workers = row->workers;
    to->nodes = row->nodes;
    to->threads = row->threads;
    to->gpus = row->gpus;
    to->restarts = row->restarts;
    to->predicted_s = row->predicted_s;
    to->safe_s = row->safe_s;
    TRY(restorer_copy(from, row->job, &to->job));
    TRY(restorer_copy(from, row->host, &to->host));
    return restorer_copy(from, row->end, &to->end);
}

static enum status restore_allocations(struct restorer *from)
{
    const struct search_row *totals = from->image->rows[RUN_SEARCH];
    const struct allocation_row *rows = from->image->rows[RUN_ALLOCATIONS];
    struct search *to = from->search;
    bool old = from->image->schema < 2;
    int64_t count = old ? totals->allocations : from->image->counts[RUN_ALLOCATIONS];
    if (count != totals->allocations || count > SEARCH_ALLOCATIONS_MAX) {
        return CORRUPT(from->err, from->path, RUN_ALLOCATIONS, count,
                       "another number of allocations than /search says, or too many");
    }
    if (count == 0) {
        return STATUS_OK;
    }
    to->allocations = mem_calloc((size_t)count, sizeof(*to->allocations));
    if (to->allocations == NULL) {
        return mem_fail(from->err, (size_t)count * sizeof(*to->allocations),
                        "allocations of a run file");
    }
    to->allocation_count = (int32_t)count;
    to->allocation_capacity = (int32_t)count;
    if (old) {
        return restore_unrecorded(from);
    }
    for (int32_t i = 0; i < count; i++) {
        if (rows[i].allocation != i) {
            return CORRUPT(from->err, from->path, RUN_ALLOCATIONS, i,
                           "the allocations are not in order");
        }
        TRY(restore_allocation(from, &rows[i], &to->allocations[i]));
    }
    return STATUS_OK;
}

static bool is_subject(const struct search *search, int32_t node, int32_t candidate)
{
    bool in_tree = node >= -1 && node < search->tree.count;
    int32_t candidates = in_tree && node >= 0 ? search->nodes[node].candidate_count : 0;
    return in_tree && candidate >= -1 && candidate < candidates;
}

static enum status restore_incident(struct restorer *from, const struct incident_row *row,
                                    struct search_incident *to)
{
    if (!restorer_is_amount(row->time_s) || !restorer_is_amount_or_unknown(row->lost_s) ||
        row->allocation < -1 || row->allocation >= from->search->allocation_count ||
        !is_subject(from->search, row->node, row->candidate)) {
        return CORRUPT(from->err, from->path, RUN_INCIDENTS, row->incident,
                       "a time is out of range, or it is about nothing that is there");
    }
    to->time_s = row->time_s;
    to->lost_s = row->lost_s;
    to->allocation = row->allocation;
    to->node = row->node;
    to->candidate = row->candidate;
    TRY(restorer_copy(from, row->kind, &to->kind));
    return restorer_copy(from, row->message, &to->message);
}

static enum status restore_incidents(struct restorer *from)
{
    const struct incident_row *rows = from->image->rows[RUN_INCIDENTS];
    int64_t count = from->image->counts[RUN_INCIDENTS];
    struct search *to = from->search;
    bool all = count == to->incidents_seen && count <= SEARCH_INCIDENTS_MAX;
    bool first = count == SEARCH_INCIDENTS_MAX && to->incidents_seen > count;
    if (!all && !first) {
        return CORRUPT(from->err, from->path, RUN_INCIDENTS, count,
                       "another number of incidents than /search says");
    }
    if (count == 0) {
        return STATUS_OK;
    }
    to->incidents = mem_calloc((size_t)count, sizeof(*to->incidents));
    if (to->incidents == NULL) {
        return mem_fail(from->err, (size_t)count * sizeof(*to->incidents),
                        "incidents of a run file");
    }
    to->incident_count = (int32_t)count;
    to->incident_capacity = (int32_t)count;
    for (int32_t i = 0; i < count; i++) {
        if (rows[i].incident != i) {
            return CORRUPT(from->err, from->path, RUN_INCIDENTS, i,
                           "the incidents are not in order");
        }
        TRY(restore_incident(from, &rows[i], &to->incidents[i]));
    }
    return STATUS_OK;
}

/* Every row was used, and the winner is there. */
static enum status check_whole(struct restorer *from)
{
    for (int table = RUN_CANDIDATES; table <= RUN_CONFUSIONS; table++) {
        if (from->next[table] != from->image->counts[table]) {
            return CORRUPT(from->err, from->path, (enum run_table)table, from->next[table],
                           "it belongs to no candidate, or is not in order");
        }
    }
    const struct search *search = from->search;
    bool none = search->winner_node == -1 && search->winner_candidate == -1;
    bool there = search->winner_node >= 0 && search->winner_node < search->tree.count &&
                 search->winner_candidate >= 0 &&
                 search->winner_candidate < search->nodes[search->winner_node].candidate_count;
    if (!none && !there) {
        return CORRUPT(from->err, from->path, RUN_SEARCH, 0, "the winner is not in the tree");
    }
    return STATUS_OK;
}

static enum status restore(struct restorer *from)
{
    TRY(restore_identity(from));
    TRY(restore_totals(from));
    TRY(restore_steering(from));
    TRY(restore_tree(from));
    for (int32_t id = 0; id < from->search->tree.count; id++) {
        TRY(restore_node(from, id));
    }
    TRY(restore_allocations(from));
    TRY(restore_incidents(from));
    TRY(check_whole(from));
    TRY(search_settle_all(from->search, from->err));
    return restore_agents(from);
}

enum status run_image_restore(const struct run_image *image, const char *path, struct search *out,
                              struct error *err)
{
    if (image->counts[RUN_IDENTITY] != 1 || image->counts[RUN_SEARCH] != 1) {
        return FAIL(err, STATUS_CORRUPT, "%s: /identity and /search must have one row each", path);
    }
    struct search search;
    search_init(&search);
    struct restorer from = {image, path, &search, {0}, err};
    enum status status = restore(&from);
    if (status != STATUS_OK) {
        search_fini(&search);
        return status;
    }
    *out = search;
    return STATUS_OK;
}
