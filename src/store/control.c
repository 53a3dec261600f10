#include "store/control.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "store/folder.h"

enum { CONTROL_MAX_BYTES = 16 << 10 };

static const char *const halt_names[] = {"none", "now", "after round", "at", NULL};

void store_control_init(struct store_control *out)
{
    memset(out, 0, sizeof(*out));
    for (int i = 0; i < SEARCH_LIMIT_COUNT; i++) {
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

static void check_id(const struct store_control *control, struct json_problems *problems)
{
    if (control->halt != STORE_HALT_NONE && !search_halt_id_fits(control->halt_id)) {
        json_problems_add(problems, "/halt_id",
                          "allowed are %d to %d small letters and digits, a new id each wish",
                          SEARCH_HALT_ID_MIN_BYTES, SEARCH_HALT_ID_BYTES - 1);
    }
}

static void read_limits(const cJSON *object, struct json_problems *problems,
                        struct store_control *out)
{
    struct json_reader reader;
    json_reader_init(&reader, object, "/limits", problems);
    for (int id = 0; id < SEARCH_LIMIT_COUNT; id++) {
        out->limits[id] = search_limit_read(&reader, (enum search_limit_id)id, NAN);
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
    for (int i = 0; i < SEARCH_LIMIT_COUNT; i++) {
        if (!isnan(control->limits[i])) {
            cJSON_AddNumberToObject(limits, search_limits[i].name, control->limits[i]);
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
