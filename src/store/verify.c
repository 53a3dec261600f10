/* Checks everything in a run folder, and goes on after each finding. */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/arrays.h"
#include "store/control.h"
#include "store/folder.h"
#include "store/journal_file.h"
#include "store/run_file.h"

struct verifier {
    const char *folder;
    void (*report)(void *context, const char *path, enum status status, const char *message);
    void *context;
    struct error first; /* failure; code STATUS_OK: none */
};

static void report_failure(struct verifier *verifier, const char *path, const struct error *failure)
{
    if (verifier->first.code == STATUS_OK) {
        verifier->first = *failure;
    }
    verifier->report(verifier->context, path, failure->code, failure->message);
}

static void report_fine(struct verifier *verifier, const char *path, const char *message)
{
    verifier->report(verifier->context, path, STATUS_OK, message);
}

/* ---- run files and journal ---- */

static void check_generation(struct verifier *verifier, const char *path)
{
    struct error failure = {0};
    struct search search;
    char message[96];
    enum status status = store_run_read(path, &search, &failure);
    if (status != STATUS_OK) {
        report_failure(verifier, path, &failure);
        return;
    }
    snprintf(message, sizeof(message), "%d nodes, up to event %" PRId64, (int)search.tree.count,
             search.last_sequence);
    report_fine(verifier, path, message);
    search_fini(&search);
}

/* A young search has no run file yet, a search after its first snapshot has one. */
static enum status check_generations(struct verifier *verifier, struct error *err)
{
    char path[FILE_PATH_BYTES];
    char previous[FILE_PATH_BYTES];
    TRY(run_file_path(verifier->folder, path, err));
    TRY(run_file_previous_path(verifier->folder, previous, err));
    bool has_previous = file_exists(previous);
    if (file_exists(path) || has_previous) {
        check_generation(verifier, path);
    }
    if (has_previous) {
        check_generation(verifier, previous);
    }
    return STATUS_OK;
}

static enum status check_journal(struct verifier *verifier, struct error *err)
{
    char path[FILE_PATH_BYTES];
    char message[160];
    struct journal_scan scan;
    struct error failure = {0};
    TRY(journal_path(verifier->folder, path, err));
    if (!file_exists(path)) {
        return STATUS_OK;
    }
    if (journal_scan_file(path, 0, NULL, NULL, &scan, &failure) != STATUS_OK) {
        report_failure(verifier, path, &failure);
        return STATUS_OK;
    }
    if (scan.first_sequence == 0) {
        snprintf(message, sizeof(message), "no event");
    } else {
        snprintf(message, sizeof(message), "events %" PRId64 " to %" PRId64, scan.first_sequence,
                 scan.last_sequence);
    }
    if (scan.cut_bytes > 0) {
        size_t used = strlen(message);
        snprintf(message + used, sizeof(message) - used,
                 "; a cut line of %zu bytes at the end does not count", scan.cut_bytes);
    }
    report_fine(verifier, path, message);
    return STATUS_OK;
}

/* ---- array files ---- */

static enum status check_arrays(const char *path, const char *kind, char *message,
                                size_t message_bytes, struct error *err)
{
    struct store_file *file = NULL;
    TRY(store_arrays_open(path, kind, &file, err));
    enum status status = STATUS_OK;
    int64_t count = store_arrays_count(file);
    for (int64_t i = 0; i < count && status == STATUS_OK; i++) {
        status = arrays_verify(file, i, err);
    }
    snprintf(message, message_bytes, "%" PRId64 " arrays", count);
    store_arrays_close(file);
    return status;
}

static void check_array_file(struct verifier *verifier, const char *path, const char *kind,
                             const char *remark)
{
    struct error failure = {0};
    char message[256];
    if (check_arrays(path, kind, message, sizeof(message), &failure) != STATUS_OK) {
        if (file_exists(path)) { /* else the search, which is running, has just removed it */
            report_failure(verifier, path, &failure);
        }
        return;
    }
    size_t used = strlen(message);
    snprintf(message + used, sizeof(message) - used, "%s%s", remark[0] != '\0' ? "; " : "", remark);
    report_fine(verifier, path, message);
}

static bool has_weights(const struct candidate *candidate)
{
    return candidate->weights_kept;
}

/* One that was stopped before its first step has none. */
static bool has_state(const struct candidate *candidate)
{
    return candidate->state == CANDIDATE_SUSPENDED && candidate->steps_done > 0;
}

/* Whether the tree, as it is on disk now, still says so: a search that is running removes a file
 * once it has written down that it will. */
static bool says_still(const struct verifier *verifier, int32_t node, int32_t number,
                       bool (*has_file)(const struct candidate *candidate))
{
    struct search search;
    char note[1024];
    if (store_run_load(verifier->folder, &search, note, sizeof(note), NULL) != STATUS_OK) {
        return true;
    }
    bool still = node >= search.tree.count || number >= search.nodes[node].candidate_count ||
                 has_file(&search.nodes[node].candidates[number]);
    search_fini(&search);
    return still;
}

static void report_missing(struct verifier *verifier, const char *path, const char *what)
{
    struct error failure = {0};
    FAIL(&failure, STATUS_NOT_FOUND,
         "%s: the tree says that these %s are there, but the file is missing", path, what);
    report_failure(verifier, path, &failure);
}

/* What the tree says of a file, by its name. */
static const char *remark_of(const struct search *search, const char *name, bool weights)
{
    char stem[SEARCH_NAME_BYTES] = "";
    int32_t node = 0;
    int32_t number = 0;
    size_t length = strlen(name) - strlen(".h5");
    if (length < sizeof(stem)) {
        memcpy(stem, name, length);
    }
    if (!search_candidate_parse(stem, &node, &number)) {
        return "not a candidate's name: not of this search";
    }
    if (node >= search->tree.count || number >= search->nodes[node].candidate_count) {
        return "of no candidate of the tree: can be removed";
    }
    const struct candidate *candidate = &search->nodes[node].candidates[number];
    bool unfinished =
        candidate->state == CANDIDATE_SUSPENDED || candidate->state == CANDIDATE_RUNNING;
    if (weights ? !candidate->weights_kept : !unfinished) {
        return "the tree does not need it: can be removed";
    }
    return "";
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text);
    size_t end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

enum area { AREA_WEIGHTS, AREA_INFLIGHT, AREA_DATA };

static void check_entry(struct verifier *verifier, const char *path, const char *name,
                        enum area area, const struct search *search)
{
    static const char *const kinds[] = {NULL /* weights or adapter */, "training", "data"};
    if (ends_with(name, ".tmp")) {
        report_fine(verifier, path, "left by a write that was interrupted: can be removed");
    } else if (ends_with(name, ".h5")) {
        const char *remark = area == AREA_DATA ? "" : remark_of(search, name, area == AREA_WEIGHTS);
        check_array_file(verifier, path, kinds[area], remark);
    } else if (name[0] != '.') {
        report_fine(verifier, path, "not a file of trex: left alone");
    }
}

static enum status check_area(struct verifier *verifier, const char *subfolder, enum area area,
                              const struct search *search, struct error *err)
{
    char folder[FILE_PATH_BYTES];
    char path[FILE_PATH_BYTES];
    struct dirent **entries = NULL;
    TRY(file_join(verifier->folder, subfolder, folder, err));
    int count = scandir(folder, &entries, NULL, alphasort);
    enum status status = STATUS_OK;
    for (int i = 0; i < count; i++) {
        if (status == STATUS_OK) {
            status = file_join(folder, entries[i]->d_name, path, err);
        }
        if (status == STATUS_OK && !file_is_folder(path)) {
            check_entry(verifier, path, entries[i]->d_name, area, search);
        }
        free(entries[i]);
    }
    free(entries);
    return status;
}

static enum status check_candidates(struct verifier *verifier, const struct search *search,
                                    struct error *err)
{
    char path[FILE_PATH_BYTES];
    for (int32_t n = 0; n < search->tree.count; n++) {
        for (int32_t c = 0; c < search->nodes[n].candidate_count; c++) {
            const struct candidate *candidate = &search->nodes[n].candidates[c];
            if (has_weights(candidate)) {
                TRY(store_weights_path(verifier->folder, n, c, path, err));
                if (!file_exists(path) && says_still(verifier, n, c, has_weights)) {
                    report_missing(verifier, path, "weights");
                }
            }
            if (has_state(candidate)) {
                TRY(store_inflight_path(verifier->folder, n, c, path, err));
                if (!file_exists(path) && says_still(verifier, n, c, has_state)) {
                    report_missing(verifier, path, "training states");
                }
            }
        }
    }
    return STATUS_OK;
}

/* Rows that were downloaded: recipes read them. */
static enum status check_documents(struct verifier *verifier, const struct search *search,
                                   struct error *err)
{
    char path[FILE_PATH_BYTES];
    for (int32_t i = 0; i < search->document_count; i++) {
        if (search->documents[i].path != NULL) {
            TRY(file_join(verifier->folder, search->documents[i].path, path, err));
            if (!file_exists(path)) {
                report_missing(verifier, path, "downloaded rows");
            }
        }
    }
    return STATUS_OK;
}

/* ---- the whole ---- */

/* control.json, where there is one: it is no part of the search, but whoever steers relies on it.
 */
static enum status check_control(struct verifier *verifier, struct error *err)
{
    char path[FILE_PATH_BYTES];
    struct store_control control;
    struct error failure = {0};
    TRY(file_join(verifier->folder, FOLDER_CONTROL, path, err));
    enum status status = store_control_read(verifier->folder, &control, &failure);
    if (status == STATUS_OK) {
        report_fine(verifier, path, "what was asked for by trex-tree halt and set");
    } else if (status != STATUS_NOT_FOUND) {
        report_failure(verifier, path, &failure);
    }
    return STATUS_OK;
}

static enum status check_all(struct verifier *verifier, const struct search *search,
                             struct error *err)
{
    TRY(check_control(verifier, err));
    TRY(check_candidates(verifier, search, err));
    TRY(check_documents(verifier, search, err));
    TRY(check_area(verifier, FOLDER_WEIGHTS, AREA_WEIGHTS, search, err));
    TRY(check_area(verifier, FOLDER_INFLIGHT, AREA_INFLIGHT, search, err));
    return check_area(verifier, FOLDER_DATA, AREA_DATA, search, err);
}

enum status store_verify(const char *folder,
                         void (*report)(void *context, const char *path, enum status status,
                                        const char *message),
                         void *context, struct error *err)
{
    struct verifier verifier = {folder, report, context, {0}};
    struct error failure = {0};
    struct search search;
    char note[1024];
    if (!file_is_folder(folder)) {
        return FAIL(err, STATUS_NOT_FOUND, "there is no run folder %s", folder);
    }
    TRY(check_generations(&verifier, err));
    TRY(check_journal(&verifier, err));
    enum status status = store_run_load(folder, &search, note, sizeof(note), &failure);
    if (status == STATUS_OK) {
        status = tree_check(&search.tree, &failure);
        if (status != STATUS_OK) {
            report_failure(&verifier, folder, &failure);
        } else {
            report_fine(&verifier, folder, note[0] != '\0' ? note : "the search is whole");
        }
    } else {
        report_failure(&verifier, folder, &failure);
        search_init(&search);
    }
    status = check_all(&verifier, &search, err);
    search_fini(&search);
    if (status == STATUS_OK && verifier.first.code != STATUS_OK) {
        status = verifier.first.code;
        if (err != NULL) {
            *err = verifier.first;
        }
    }
    return status;
}
