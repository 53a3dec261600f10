#include "store/control.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "store/folder.h"
#include "tree/tree.h"

enum { CONTROL_MAX_BYTES = 16 << 10, ID_MIN_BYTES = 8 };

static const char *const halt_names[] = {"none", "now", "after round", "at", NULL};

const struct store_limit store_limits[STORE_LIMIT_COUNT] = {
    [STORE_LIMIT_ROUNDS] = {"rounds", "search", true, 20.0, 0.0, TREE_NODES_MAX - 1},
    [STORE_LIMIT_CORE_HOURS] = {"core_hours", "limits", false, 0.0, 0.0, 1e9},
    [STORE_LIMIT_GPU_HOURS] = {"gpu_hours", "limits", false, 0.0, 0.0, 1e9},
    [STORE_LIMIT_GOAL_SCORE] = {"goal_score", "search", false, NAN, -1e300, 1e300},
    [STORE_LIMIT_AGENT_TOKENS] = {"agent_tokens", "limits", true, 0.0, 0.0, 0x1p50},
    [STORE_LIMIT_AGENT_MONEY] = {"agent_money_usd", "limits", false, 0.0, 0.0, 1e9},
};

double store_limit_read(struct json_reader *reader, enum store_limit_id id, double fallback)
{
    const struct store_limit *limit = &store_limits[id];
    if (!limit->whole) {
        return json_read_number(reader, limit->name, fallback, limit->min, limit->max);
    }
    int64_t value =
        json_read_int(reader, limit->name, -1, (int64_t)limit->min, (int64_t)limit->max);
    return value >= 0 ? (double)value : fallback;
}

void store_control_init(struct store_control *out)
{
    memset(out, 0, sizeof(*out));
    for (int i = 0; i < STORE_LIMIT_COUNT; i++) {
        out->limits[i] = NAN;
    }
}

/* ---- reading ---- */

/* A short text of printable ASCII: it goes to terminals, logs and the record of the search. */
static void read_text(struct json_reader *reader, const char *key, char *out, size_t out_bytes)
{
    const char *text = json_read_string(reader, key, "");
    bool plain = strlen(text) < out_bytes;
    for (const char *c = text; plain && *c != '\0'; c++) {
        plain = *c >= ' ' && *c <= '~';
    }
    if (!plain) {
        char pointer[JSON_POINTER_BYTES];
        json_reader_pointer(reader, key, pointer);
        json_problems_add(reader->problems, pointer,
                          "allowed is a text of at most %zu printable ASCII characters",
                          out_bytes - 1);
        return;
    }
    snprintf(out, out_bytes, "%s", text);
}

/* Letters and digits alone: the search looks for it in what it has recorded. */
static void check_id(const struct store_control *control, struct json_problems *problems)
{
    static const char allowed[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    size_t length = strlen(control->halt_id);
    bool fits = length == strspn(control->halt_id, allowed) && length >= ID_MIN_BYTES;
    if (control->halt != STORE_HALT_NONE && !fits) {
        json_problems_add(problems, "/halt_id",
                          "allowed are %d to %zu small letters and digits, a new id each wish",
                          ID_MIN_BYTES, sizeof(control->halt_id) - 1);
    }
}

static void read_limits(const cJSON *object, struct json_problems *problems,
                        struct store_control *out)
{
    struct json_reader reader;
    json_reader_init(&reader, object, "/limits", problems);
    for (int id = 0; id < STORE_LIMIT_COUNT; id++) {
        out->limits[id] = store_limit_read(&reader, (enum store_limit_id)id, NAN);
    }
    json_reader_finish(&reader);
}

static void read_root(const cJSON *root, struct json_problems *problems, struct store_control *out)
{
    struct json_reader reader;
    json_reader_init(&reader, root, "", problems);
    out->halt = (enum store_halt)json_read_choice(&reader, "halt", halt_names, STORE_HALT_NONE);
    out->halt_at_s = json_read_number(&reader, "halt_at_s", 0.0, 0.0, STORE_CONTROL_TIME_MAX_S);
    out->written_s = json_read_number(&reader, "written_s", 0.0, 0.0, STORE_CONTROL_TIME_MAX_S);
    read_text(&reader, "halt_id", out->halt_id, sizeof(out->halt_id));
    read_text(&reader, "by", out->by, sizeof(out->by));
    check_id(out, problems);
    if (out->halt == STORE_HALT_AT) {
        json_require(&reader, "halt_at_s", "the time, in seconds since 1970");
    }
    read_limits(json_read_object(&reader, "limits"), problems, out);
    json_reader_finish(&reader);
}

enum status store_control_read(const char *folder, struct store_control *out, struct error *err)
{
    char path[FILE_PATH_BYTES];
    cJSON *root = NULL;
    struct json_problems problems;
    struct store_control control;
    TRY(file_join(folder, FOLDER_CONTROL, path, err));
    TRY(json_parse_file(path, CONTROL_MAX_BYTES, &root, err));
    json_problems_init(&problems);
    store_control_init(&control);
    read_root(root, &problems, &control);
    enum status status = json_problems_check(&problems, path, err);
    if (status == STATUS_OK) {
        *out = control;
    }
    json_problems_fini(&problems);
    cJSON_Delete(root);
    return status;
}

/* ---- writing ---- */

static cJSON *to_json(const struct store_control *control)
{
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "halt", halt_names[control->halt]);
    if (control->halt != STORE_HALT_NONE) {
        cJSON_AddStringToObject(root, "halt_id", control->halt_id);
    }
    if (control->halt == STORE_HALT_AT) {
        cJSON_AddNumberToObject(root, "halt_at_s", control->halt_at_s);
    }
    cJSON *limits = cJSON_AddObjectToObject(root, "limits");
    for (int i = 0; i < STORE_LIMIT_COUNT; i++) {
        if (!isnan(control->limits[i])) {
            cJSON_AddNumberToObject(limits, store_limits[i].name, control->limits[i]);
        }
    }
    cJSON_AddStringToObject(root, "by", control->by);
    cJSON_AddNumberToObject(root, "written_s", control->written_s);
    return root;
}

enum status store_control_write(const char *folder, const struct store_control *control,
                                struct error *err)
{
    char path[FILE_PATH_BYTES];
    struct json_problems problems;
    struct store_control checked;
    TRY(file_join(folder, FOLDER_CONTROL, path, err));
    cJSON *root = to_json(control);
    char *text = json_print_line(root);
    /* What could not be read again is not written. */
    json_problems_init(&problems);
    store_control_init(&checked);
    read_root(root, &problems, &checked);
    enum status status = json_problems_check(&problems, path, err);
    if (status == STATUS_OK) {
        status = text != NULL ? file_write(path, text, strlen(text), err)
                              : mem_fail(err, CONTROL_MAX_BYTES, "control.json");
    }
    json_problems_fini(&problems);
    free(text);
    cJSON_Delete(root);
    return status;
}

/* ---- what a search has recorded ---- */

bool store_control_obeyed(const struct search *search, const char *id)
{
    for (int32_t i = search->allocation_count - 1; i >= 0; i--) {
        if (strstr(search_text(search->allocations[i].end), id) != NULL) {
            return true;
        }
    }
    for (int32_t i = search->incident_count - 1; i >= 0; i--) {
        const struct search_incident *incident = &search->incidents[i];
        if (strcmp(search_text(incident->kind), "halted") == 0 &&
            strstr(search_text(incident->message), id) != NULL) {
            return true;
        }
    }
    return false;
}
