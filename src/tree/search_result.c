/* The result of a candidate, from JSON: everything that a worker measured. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tree/search_parts.h"

static const int64_t COUNT_MAX = INT64_C(1) << 53; /* beyond it JSON numbers are not exact */

/* ---- strings ---- */

enum status search_read_text(struct json_reader *reader, const char *key, bool required,
                             size_t max_bytes, struct arena *arena, char **out, struct error *err)
{
    int mistakes = reader->problems->count;
    const char *text = json_read_string(reader, key, "");
    *out = NULL;
    if (required) {
        json_require(reader, key, "a string");
    }
    if (reader->problems->count > mistakes) {
        return STATUS_OK;
    }
    size_t length = strlen(text);
    if (length > max_bytes) {
        char pointer[JSON_POINTER_BYTES];
        json_reader_pointer(reader, key, pointer);
        json_problems_add(reader->problems, pointer, "found %zu bytes, allowed are %zu", length,
                          max_bytes);
        return STATUS_OK;
    }
    *out = arena_strndup(arena, text, length);
    return *out != NULL ? STATUS_OK : mem_fail(err, length, key);
}

enum status search_read_json(struct json_reader *reader, const char *key, bool array,
                             size_t max_bytes, struct arena *arena, char **out, struct error *err)
{
    int mistakes = reader->problems->count;
    const cJSON *value = array ? json_read_array(reader, key) : json_read_object(reader, key);
    *out = NULL;
    if (reader->problems->count > mistakes ||
        !json_require(reader, key, array ? "an array" : "an object")) {
        return STATUS_OK;
    }
    char *line = json_print_line(value);
    if (line == NULL) {
        return mem_fail(err, 0, key);
    }
    size_t length = strlen(line);
    if (length > max_bytes) {
        char pointer[JSON_POINTER_BYTES];
        json_reader_pointer(reader, key, pointer);
        json_problems_add(reader->problems, pointer, "found %zu bytes of JSON, allowed are %zu",
                          length, max_bytes);
    } else {
        *out = arena_strndup(arena, line, length);
    }
    cJSON_free(line);
    return *out != NULL || length > max_bytes ? STATUS_OK : mem_fail(err, length, key);
}

/* ---- numbers ---- */

static int64_t read_count(struct json_reader *reader, const char *key)
{
    return json_read_int(reader, key, 0, 0, COUNT_MAX);
}

/* A measurement that may be missing: JSON has no NaN, so null stands for it. */
static double read_measure(struct json_reader *reader, const char *key)
{
    return json_read_number(reader, key, NAN, -DBL_MAX, DBL_MAX);
}

void search_score_read(const cJSON *object, const char *pointer, struct json_problems *problems,
                       struct search_score *out)
{
    struct json_reader reader;
    json_reader_init(&reader, object, pointer, problems);
    memset(out, 0, sizeof(*out));
    out->present = true;
    json_require(&reader, "value", "a number");
    out->value = json_read_number(&reader, "value", 0.0, -DBL_MAX, DBL_MAX);
    out->standard_error = json_read_number(&reader, "standard_error", 0.0, 0.0, DBL_MAX);
    out->loss = read_measure(&reader, "loss");
    out->rows = read_count(&reader, "rows");
    out->truncated = read_count(&reader, "truncated");
    out->unfinished = read_count(&reader, "unfinished");
    out->format_failures = read_count(&reader, "format_failures");
    out->seconds = json_read_number(&reader, "seconds", 0.0, 0.0, DBL_MAX);
}

/* ---- lists ---- */

/* Number of items of a list, or -1 with a problem if there are too many; 0 if there is no list. */
static int32_t list_count(struct json_reader *reader, const char *key, int max, const cJSON **items)
{
    *items = json_read_array(reader, key);
    int count = *items != NULL ? cJSON_GetArraySize(*items) : 0;
    if (count > max) {
        char pointer[JSON_POINTER_BYTES];
        json_reader_pointer(reader, key, pointer);
        json_problems_add(reader->problems, pointer, "found %d items, allowed are %d", count, max);
        return -1;
    }
    return count;
}

static void item_pointer(const struct json_reader *reader, const char *key, int index,
                         char out[JSON_POINTER_BYTES])
{
    char list[JSON_POINTER_BYTES];
    json_reader_pointer(reader, key, list);
    snprintf(out, JSON_POINTER_BYTES, "%.*s/%d", JSON_POINTER_BYTES - 16, list, index);
}

enum { CURVE_COLUMNS = 7 };

static void read_curve_point(const cJSON *row, const char *pointer, struct json_problems *problems,
                             struct search_curve_point *out)
{
    double values[CURVE_COLUMNS];
    int count = 0;
    bool fits = cJSON_IsArray(row);
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, row) {
        if (count >= CURVE_COLUMNS || !(cJSON_IsNumber(item) || cJSON_IsNull(item))) {
            fits = false;
            break;
        }
        bool known = cJSON_IsNumber(item) && isfinite(item->valuedouble);
        values[count++] = known ? item->valuedouble : NAN;
    }
    if (!fits || count != CURVE_COLUMNS || !(values[0] >= 0.0 && values[0] <= 0x1p53) ||
        !(values[1] >= 0.0 && values[1] <= 0x1p53)) {
        json_problems_add(problems, pointer,
                          "allowed is [step, tokens, train_loss, validation_loss, gradient_norm, "
                          "learning_rate, seconds], numbers or null");
        return;
    }
    *out = (struct search_curve_point){(int64_t)values[0], (int64_t)values[1], values[2], values[3],
                                       values[4],          values[5],          values[6]};
}

static enum status read_curve(struct json_reader *reader, struct arena *arena,
                              struct candidate *out, struct error *err)
{
    const cJSON *items = NULL;
    int32_t count = list_count(reader, "curve", SEARCH_CURVE_MAX, &items);
    if (count <= 0) {
        return STATUS_OK;
    }
    out->curve = arena_alloc(arena, (size_t)count, sizeof(*out->curve));
    if (out->curve == NULL) {
        return mem_fail(err, (size_t)count * sizeof(*out->curve), "a curve");
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, items) {
        char pointer[JSON_POINTER_BYTES];
        item_pointer(reader, "curve", out->curve_count, pointer);
        read_curve_point(item, pointer, reader->problems, &out->curve[out->curve_count++]);
    }
    return STATUS_OK;
}

static enum status read_cases(struct json_reader *reader, struct arena *arena,
                              struct candidate *out, struct error *err)
{
    const cJSON *items = NULL;
    int32_t count = list_count(reader, "cases", SEARCH_CASES_MAX, &items);
    if (count <= 0) {
        return STATUS_OK;
    }
    out->cases = arena_alloc(arena, (size_t)count, sizeof(*out->cases));
    if (out->cases == NULL) {
        return mem_fail(err, (size_t)count * sizeof(*out->cases), "failed cases");
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, items) {
        char pointer[JSON_POINTER_BYTES];
        struct json_reader one;
        item_pointer(reader, "cases", out->case_count, pointer);
        json_reader_init(&one, item, pointer, reader->problems);
        struct search_case *to = &out->cases[out->case_count++];
        to->row = read_count(&one, "row");
        to->score = json_read_number(&one, "score", 0.0, -DBL_MAX, DBL_MAX);
        TRY(search_read_text(&one, "prompt", false, SEARCH_TEXT_MAX_BYTES, arena, &to->prompt,
                             err));
        TRY(search_read_text(&one, "answer", false, SEARCH_TEXT_MAX_BYTES, arena, &to->answer,
                             err));
        TRY(search_read_text(&one, "output", false, SEARCH_TEXT_MAX_BYTES, arena, &to->output,
                             err));
    }
    return STATUS_OK;
}

static enum status read_confusions(struct json_reader *reader, struct arena *arena,
                                   struct candidate *out, struct error *err)
{
    const cJSON *items = NULL;
    int32_t count = list_count(reader, "confusions", SEARCH_CONFUSIONS_MAX, &items);
    if (count <= 0) {
        return STATUS_OK;
    }
    out->confusions = arena_alloc(arena, (size_t)count, sizeof(*out->confusions));
    if (out->confusions == NULL) {
        return mem_fail(err, (size_t)count * sizeof(*out->confusions), "confusions");
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, items) {
        char pointer[JSON_POINTER_BYTES];
        struct json_reader one;
        item_pointer(reader, "confusions", out->confusion_count, pointer);
        json_reader_init(&one, item, pointer, reader->problems);
        struct search_confusion *to = &out->confusions[out->confusion_count++];
        to->count = read_count(&one, "count");
        TRY(search_read_text(&one, "expected", true, SEARCH_TEXT_MAX_BYTES, arena, &to->expected,
                             err));
        TRY(search_read_text(&one, "found", true, SEARCH_TEXT_MAX_BYTES, arena, &to->found, err));
    }
    return STATUS_OK;
}

/* ---- the whole ---- */

enum status search_result_read(const cJSON *object, const char *pointer,
                               struct json_problems *problems, struct arena *arena,
                               struct candidate *out, char **recipe_report, struct error *err)
{
    struct json_reader reader;
    json_reader_init(&reader, object, pointer, problems);
    json_require(&reader, "validation", "a score object");
    char score_pointer[JSON_POINTER_BYTES];
    json_reader_pointer(&reader, "validation", score_pointer);
    search_score_read(json_read_any(&reader, "validation"), score_pointer, problems,
                      &out->validation);
    out->steps_done = read_count(&reader, "steps_done");
    out->samples = read_count(&reader, "samples");
    out->tokens = read_count(&reader, "tokens");
    out->rank_seconds = json_read_number(&reader, "rank_seconds", 0.0, 0.0, SEARCH_SECONDS_MAX);
    TRY(read_curve(&reader, arena, out, err));
    TRY(read_cases(&reader, arena, out, err));
    TRY(read_confusions(&reader, arena, out, err));
    TRY(search_read_text(&reader, "end", false, SEARCH_TEXT_MAX_BYTES, arena, &out->end, err));
    if (cJSON_GetArraySize(json_read_array(&reader, "recipe_report")) == 0) {
        *recipe_report = NULL;
        return STATUS_OK;
    }
    return search_read_json(&reader, "recipe_report", true, SEARCH_TEXT_MAX_BYTES, arena,
                            recipe_report, err);
}

cJSON *search_score_to_json(const struct search_score *score)
{
    cJSON *object = cJSON_CreateObject();
    bool whole = cJSON_AddNumberToObject(object, "value", score->value) != NULL &&
                 cJSON_AddNumberToObject(object, "standard_error", score->standard_error) != NULL &&
                 (isfinite(score->loss) ? cJSON_AddNumberToObject(object, "loss", score->loss)
                                        : cJSON_AddNullToObject(object, "loss")) != NULL &&
                 cJSON_AddNumberToObject(object, "rows", (double)score->rows) != NULL &&
                 cJSON_AddNumberToObject(object, "truncated", (double)score->truncated) != NULL &&
                 cJSON_AddNumberToObject(object, "unfinished", (double)score->unfinished) != NULL &&
                 cJSON_AddNumberToObject(object, "format_failures",
                                         (double)score->format_failures) != NULL &&
                 cJSON_AddNumberToObject(object, "seconds", score->seconds) != NULL;
    if (!whole) {
        cJSON_Delete(object);
        return NULL;
    }
    return object;
}

enum status search_result_check(const cJSON *result, struct error *err)
{
    struct arena arena;
    struct candidate candidate = {0};
    struct json_problems problems;
    char *report = NULL;
    arena_init(&arena, SIZE_MAX);
    json_problems_init(&problems);
    enum status status =
        search_result_read(result, "/result", &problems, &arena, &candidate, &report, err);
    if (status == STATUS_OK) {
        status = json_problems_check(&problems, "result", err);
    }
    arena_fini(&arena);
    json_problems_fini(&problems);
    return status;
}

enum status search_score_check(const cJSON *score, struct error *err)
{
    struct search_score ignored;
    struct json_problems problems;
    json_problems_init(&problems);
    search_score_read(score, "/score", &problems, &ignored);
    enum status status = json_problems_check(&problems, "score", err);
    json_problems_fini(&problems);
    return status;
}
