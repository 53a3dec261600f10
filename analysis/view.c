#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "analysis/analysis.h"
#include "base/clock.h"
#include "store/folder.h"

/* The files that a search writes, and control.json: the last one, no sign of its life. */
static const char *const file_names[VIEW_FILES] = {"journal.jsonl", "run.h5", "log.jsonl",
                                                   FOLDER_CONTROL};

static void take_stamps(const char *folder, struct view_stamp stamps[VIEW_FILES])
{
    memset(stamps, 0, VIEW_FILES * sizeof(*stamps));
    for (int i = 0; i < VIEW_FILES; i++) {
        char path[FILE_PATH_BYTES];
        struct stat info;
        if (file_join(folder, file_names[i], path, NULL) == STATUS_OK && stat(path, &info) == 0) {
            stamps[i].inode = (uint64_t)info.st_ino;
            stamps[i].bytes = (int64_t)info.st_size;
            stamps[i].seconds = (int64_t)info.st_mtim.tv_sec;
            stamps[i].nanoseconds = (int64_t)info.st_mtim.tv_nsec;
        }
    }
}

/* Seconds since the newest of the files that a search writes. */
static double newest_age_s(const struct view_stamp stamps[VIEW_FILES])
{
    double newest_s = 0.0;
    for (int i = 0; i < VIEW_FILES - 1; i++) {
        newest_s = fmax(newest_s, (double)stamps[i].seconds + 1e-9 * (double)stamps[i].nanoseconds);
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

static void look_at_holder(struct view *view)
{
    view->held = store_folder_holder(view->folder, &view->holder, NULL) == STATUS_OK;
    view->age_s = newest_age_s(view->stamps);
}

enum status view_open(const char *folder, struct view *out, struct error *err)
{
    memset(out, 0, sizeof(*out));
    out->folder = folder;
    take_stamps(folder, out->stamps);
    TRY(store_run_load(folder, &out->search, out->note, sizeof(out->note), err));
    out->job = parse_job(&out->search);
    store_control_init(&out->control);
    enum status wish = store_control_read(folder, &out->control, NULL);
    if (wish != STATUS_OK && wish != STATUS_NOT_FOUND) { /* steer.c and the search complain */
        memcpy(out->control.limits, out->search.limits, sizeof(out->search.limits));
    }
    look_at_holder(out);
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

enum status view_refresh(struct view *view, struct error *err)
{
    const char *folder = view->folder;
    struct view_stamp stamps[VIEW_FILES];
    take_stamps(folder, stamps);
    if (memcmp(stamps, view->stamps, sizeof(stamps)) == 0) {
        look_at_holder(view);
        return STATUS_OK;
    }
    view_close(view);
    return view_open(folder, view, err);
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

double view_job_limit(const struct view *view, enum search_limit_id id)
{
    const struct search_limit *limit = &search_limits[id];
    const cJSON *item = job_item(view, limit->section, limit->name);
    return cJSON_IsNumber(item) ? item->valuedouble : limit->fallback;
}

double view_limit(const struct view *view, enum search_limit_id id)
{
    double set = view->search.limits[id];
    return isnan(set) ? view_job_limit(view, id) : set;
}

double view_wanted_limit(const struct view *view, enum search_limit_id id)
{
    double wanted = view->control.limits[id];
    return isnan(wanted) ? view_job_limit(view, id) : wanted;
}

bool view_limit_waits(const struct view *view, enum search_limit_id id)
{
    return view->search.end != SEARCH_FINISHED &&
           !search_limit_same(view->control.limits[id], view->search.limits[id]);
}

bool view_halt_wanted(const struct view *view)
{
    return view->search.end != SEARCH_FINISHED && view->control.halt != STORE_HALT_NONE &&
           strcmp(view->search.halt_id, view->control.halt_id) != 0;
}

/* Whether its last allocation ended because somebody wanted it to. */
static bool was_halted(const struct search *search)
{
    static const char mark[] = "halted";
    int32_t last = search->allocation_count - 1;
    return last >= 0 &&
           strncmp(search_text(search->allocations[last].end), mark, sizeof(mark) - 1) == 0;
}

const char *view_condition(const struct view *view)
{
    if (view->search.end == SEARCH_FINISHED) {
        return "finished";
    }
    if (!view->held) {
        return was_halted(&view->search) ? "halted" : "stopped";
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
