/* The steps of a recipe: which are right, and which read only what a plan may read. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/executor_repair.h"
#include "base/file.h"
#include "base/mem.h"
#include "data/recipe.h"

/* ---- files ---- */

/* Whether a file that exists lies below a folder, links followed. */
static bool is_below(const char *file, const char *folder)
{
    char real[PATH_MAX];
    if (realpath(folder, real) == NULL) {
        return false;
    }
    size_t length = strlen(real);
    return strncmp(file, real, length) == 0 && file[length] == '/';
}

static bool file_is_allowed(const struct executor_limits *limits, const char *path)
{
    char joined[FILE_PATH_BYTES];
    char sources[FILE_PATH_BYTES];
    char real[PATH_MAX];
    if (file_join(limits->run_folder, path, joined, NULL) != STATUS_OK ||
        file_join(limits->run_folder, "sources", sources, NULL) != STATUS_OK ||
        realpath(joined, real) == NULL) {
        return false;
    }
    bool allowed = is_below(real, sources);
    for (int i = 0; !allowed && limits->folders != NULL && limits->folders[i] != NULL; i++) {
        allowed = is_below(real, limits->folders[i]);
    }
    return allowed;
}

/* The first file below `value` that may not be read, NULL if there is none. */
static const char *find_forbidden(const struct executor_limits *limits, const cJSON *value)
{
    const cJSON *child = NULL;
    cJSON_ArrayForEach (child, value) {
        const char *text = cJSON_GetStringValue(child);
        bool path = child->string != NULL && strcmp(child->string, "path") == 0 && text != NULL;
        bool keyword = path && (strcmp(text, "train") == 0 || strcmp(text, "rows") == 0);
        const char *found = path && !keyword && !file_is_allowed(limits, text)
                                ? text
                                : find_forbidden(limits, child);
        if (found != NULL) {
            return found;
        }
    }
    return NULL;
}

static bool step_is_allowed(const struct executor_limits *limits, const cJSON *step, char *why,
                            size_t why_bytes)
{
    const char *op = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(step, "op"));
    if (limits->run_folder == NULL) {
        return true;
    }
    if (op != NULL && strcmp(op, "code") == 0 && !limits->code) {
        snprintf(why, why_bytes, "code is off in this job");
        return false;
    }
    const char *file = find_forbidden(limits, step);
    if (file != NULL) {
        snprintf(why, why_bytes,
                 "found file \"%.80s\", allowed are those that were found or that the job lists",
                 file);
    }
    return file == NULL;
}

/* ---- the recipe ---- */

/* Whether a recipe of this step alone passes; the first problem in `why`. */
static bool step_is_good(const cJSON *step, char *why, size_t why_bytes)
{
    struct json_problems problems;
    json_problems_init(&problems);
    cJSON *alone = cJSON_CreateArray();
    cJSON *copy = cJSON_Duplicate(step, true);
    if (copy == NULL || !cJSON_AddItemToArray(alone, copy)) {
        cJSON_Delete(copy);
        json_problems_add(&problems, "", "no memory");
    } else {
        recipe_check(alone, "", &problems);
    }
    cJSON_Delete(alone);
    bool good = problems.count == 0;
    snprintf(why, why_bytes, "%.*s", (int)strcspn(buffer_text(&problems.text), "\n"),
             buffer_text(&problems.text));
    json_problems_fini(&problems);
    return good;
}

enum status repair_recipe(const struct repair *repair, struct plan *plan, struct error *err)
{
    if (!cJSON_IsArray(plan->recipe)) {
        cJSON *empty = cJSON_CreateArray();
        if (empty == NULL) {
            return mem_fail(err, 64, "a recipe");
        }
        if (plan->recipe != NULL) {
            repair_say(repair, "recipe: it was no list of steps and is now empty");
        }
        cJSON_Delete(plan->recipe);
        plan->recipe = empty;
    }
    int index = 0;
    cJSON *step = plan->recipe->child;
    while (step != NULL) {
        char why[256];
        cJSON *next = step->next;
        bool room = index < RECIPE_STEPS_MAX - 2; /* each recipe ends with two steps of its own */
        snprintf(why, sizeof(why), "there are more than a recipe holds");
        if (!room || !step_is_good(step, why, sizeof(why)) ||
            !step_is_allowed(repair->limits, step, why, sizeof(why))) {
            repair_say(repair, "recipe: step %d removed: %s", index, why);
            cJSON_Delete(cJSON_DetachItemViaPointer(plan->recipe, step));
        }
        index++;
        step = next;
    }
    return STATUS_OK;
}
