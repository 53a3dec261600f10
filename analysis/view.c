#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "analysis/analysis.h"
#include "base/clock.h"

/* Seconds since the newest of the files that a search writes. */
static double newest_age_s(const char *folder)
{
    static const char *const names[] = {"journal.jsonl", "run.h5", "log.jsonl"};
    double newest_s = 0.0;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[FILE_PATH_BYTES];
        struct stat info;
        if (file_join(folder, names[i], path, NULL) == STATUS_OK && stat(path, &info) == 0) {
            newest_s =
                fmax(newest_s, (double)info.st_mtim.tv_sec + 1e-9 * (double)info.st_mtim.tv_nsec);
        }
    }
    return newest_s > 0.0 ? fmax(0.0, clock_wall_s() - newest_s) : 0.0;
}

static cJSON *parse_job(const struct search *search)
{
    cJSON *job = NULL;
    const char *text = search_text(search->identity.job);
    if (json_parse(text, strlen(text), "job", &job, NULL) != STATUS_OK || !cJSON_IsObject(job)) {
        cJSON_Delete(job);
        job = cJSON_CreateObject();
    }
    return job;
}

enum status view_open(const char *folder, struct view *out, struct error *err)
{
    memset(out, 0, sizeof(*out));
    out->folder = folder;
    TRY(store_run_load(folder, &out->search, out->note, sizeof(out->note), err));
    out->job = parse_job(&out->search);
    out->held = store_folder_holder(folder, &out->holder, NULL) == STATUS_OK;
    out->age_s = newest_age_s(folder);
    out->best_node = out->search.winner_node;
    out->best_candidate = out->search.winner_candidate;
    if (out->best_node < 0 && !search_best(&out->search, &out->best_node, &out->best_candidate)) {
        out->best_node = -1;
    }
    return STATUS_OK;
}

void view_close(struct view *view)
{
    search_fini(&view->search);
    cJSON_Delete(view->job);
}

const struct candidate *view_baseline(const struct view *view)
{
    if (view->search.tree.count == 0 || view->search.nodes[0].candidate_count == 0) {
        return NULL;
    }
    const struct candidate *baseline = &view->search.nodes[0].candidates[0];
    return baseline->validation.present ? baseline : NULL;
}

const struct candidate *view_best(const struct view *view)
{
    return view->best_node < 0
               ? NULL
               : &view->search.nodes[view->best_node].candidates[view->best_candidate];
}

static const cJSON *job_item(const struct view *view, const char *section, const char *key)
{
    const cJSON *object = view->job;
    if (section != NULL) {
        object = cJSON_GetObjectItemCaseSensitive(object, section);
    }
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

const char *view_job_text(const struct view *view, const char *section, const char *key)
{
    const char *text = cJSON_GetStringValue(job_item(view, section, key));
    return text != NULL ? text : "";
}

double view_job_number(const struct view *view, const char *section, const char *key)
{
    const cJSON *item = job_item(view, section, key);
    return cJSON_IsNumber(item) ? item->valuedouble : 0.0;
}

const char *view_condition(const struct view *view)
{
    if (view->search.end == SEARCH_FINISHED) {
        return "finished";
    }
    if (!view->held) {
        return "stopped";
    }
    switch (view->holder.alive) {
    case STORE_ALIVE_YES:
        return "running";
    case STORE_ALIVE_NO:
        return "killed";
    default:
        return "running or killed";
    }
}

void view_count(const struct view *view, struct view_counts *out)
{
    memset(out, 0, sizeof(*out));
    for (int32_t n = 0; n < view->search.tree.count; n++) {
        const struct search_node *node = &view->search.nodes[n];
        enum tree_node_state state = view->search.tree.nodes[n].state;
        if (n > 0) {
            out->closed += state == TREE_NODE_CLOSED;
            out->failed += state == TREE_NODE_FAILED;
            out->open += state == TREE_NODE_OPEN;
        }
        for (int32_t c = 0; c < node->candidate_count; c++) {
            out->candidates[node->candidates[c].state]++;
        }
    }
}

cJSON *view_score_json(const struct search_score *score)
{
    return score->present ? search_score_to_json(score) : cJSON_CreateNull();
}
