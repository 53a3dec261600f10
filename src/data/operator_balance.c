/* As many rows of one class as of another. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "data/hash_index.h"
#include "data/operators.h"
#include "data/text.h"

enum { CLASSES_MAX = 10000, REPEAT_MAX = 1000, REPEAT_DEFAULT = 10 };

enum balance_mode { MODE_DOWN, MODE_UP };
static const char *const mode_names[] = {"down", "up", NULL};

struct balance_args {
    const char *field;
    enum balance_mode mode;
    const cJSON *counts; /* {"class": rows}; instead of a mode */
    int64_t max_repeat;
};

static struct balance_args read_args(struct json_reader *args)
{
    struct balance_args out;
    out.field = json_read_string(args, "field", "answer");
    out.mode = (enum balance_mode)json_read_choice(args, "mode", mode_names, MODE_DOWN);
    out.counts = json_read_object(args, "counts");
    out.max_repeat = json_read_int(args, "max_repeat", REPEAT_DEFAULT, 1, REPEAT_MAX);
    return out;
}

void operator_balance_check(struct json_reader *args)
{
    struct balance_args balance = read_args(args);
    char pointer[JSON_POINTER_BYTES];
    json_reader_pointer(args, "counts", pointer);
    if (balance.counts != NULL && cJSON_GetObjectItemCaseSensitive(args->object, "mode") != NULL) {
        json_problems_add(args->problems, pointer,
                          "found both mode and counts, allowed is one of them");
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, balance.counts) {
        double count = cJSON_IsNumber(item) ? item->valuedouble : -1;
        if (!(count >= 0 && count <= ROW_LIST_MAX && count == (double)(int64_t)count)) {
            json_problems_add(args->problems, pointer,
                              "rows of \"%.60s\" must be a whole number from 0 to %d", item->string,
                              ROW_LIST_MAX);
        }
    }
}

struct class_rows {
    char *name;
    struct row_list rows; /* in their order */
    int64_t target;
};

struct class_table {
    struct class_rows *classes; /* (CLASSES_MAX), in order of their first row */
    int64_t count;
    struct hash_index index;
};

static void class_table_fini(struct class_table *table)
{
    for (int64_t i = 0; i < table->count; i++) {
        free(table->classes[i].name);
        row_list_fini(&table->classes[i].rows);
    }
    free(table->classes);
    hash_index_fini(&table->index);
}

static enum status find_class(struct class_table *table, const char *field, const char *name,
                              struct class_rows **out, struct error *err)
{
    uint64_t hash = hash_index_hash(name, strlen(name));
    int64_t cursor = 0;
    for (int64_t *at; (at = hash_index_next(&table->index, hash, &cursor)) != NULL;) {
        if (strcmp(table->classes[*at].name, name) == 0) {
            *out = &table->classes[*at];
            return STATUS_OK;
        }
    }
    if (table->count == CLASSES_MAX) {
        return FAIL(err, STATUS_LIMIT,
                    "field \"%s\" has more than %d different values: not classes to balance", field,
                    CLASSES_MAX);
    }
    struct class_rows *added = &table->classes[table->count];
    added->name = mem_strdup(name);
    if (added->name == NULL) {
        return mem_fail(err, strlen(name), "the name of a class");
    }
    TRY(hash_index_add(&table->index, hash, table->count++, err));
    *out = added;
    return STATUS_OK;
}

static enum status sort_into_classes(struct operator_run *run, const char *field,
                                     const struct row_list *rows, struct class_table *table,
                                     struct error *err)
{
    table->classes = mem_calloc(CLASSES_MAX, sizeof(*table->classes));
    if (table->classes == NULL) {
        return mem_fail(err, CLASSES_MAX * sizeof(*table->classes), "classes");
    }
    struct buffer name;
    buffer_init(&name, TEXT_MAX_BYTES);
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < rows->count && status == STATUS_OK; i++) {
        bool found = false;
        struct class_rows *class_rows = NULL;
        buffer_clear(&name);
        status = operator_append_text(run, rows->rows[i], field, &name, &found, err);
        if (status == STATUS_OK && !found) {
            status = text_fail_missing(rows->rows[i]->row.object, field, err);
            operator_row_context(err, rows->rows[i]);
        }
        if (status == STATUS_OK) {
            status = find_class(table, field, buffer_text(&name), &class_rows, err);
        }
        if (status == STATUS_OK) {
            status = row_list_share(&class_rows->rows, rows->rows[i], err);
        }
    }
    buffer_fini(&name);
    return status;
}

static void set_targets(const struct balance_args *balance, struct class_table *table)
{
    int64_t smallest = INT64_MAX;
    int64_t largest = 0;
    for (int64_t i = 0; i < table->count; i++) {
        int64_t count = table->classes[i].rows.count;
        smallest = count < smallest ? count : smallest;
        largest = count > largest ? count : largest;
    }
    for (int64_t i = 0; i < table->count; i++) {
        struct class_rows *class_rows = &table->classes[i];
        class_rows->target = balance->mode == MODE_DOWN ? smallest : largest;
        if (balance->counts != NULL) {
            const cJSON *count =
                cJSON_GetObjectItemCaseSensitive(balance->counts, class_rows->name);
            class_rows->target =
                count != NULL ? (int64_t)count->valuedouble : class_rows->rows.count;
        }
        int64_t most = class_rows->rows.count * balance->max_repeat;
        class_rows->target = class_rows->target < most ? class_rows->target : most;
    }
}

/* What is kept of each class in its order, then the repetitions. */
static enum status gather(struct operator_run *run, struct class_table *table, struct row_list *out,
                          struct error *err)
{
    for (int64_t i = 0; i < table->count; i++) {
        struct class_rows *class_rows = &table->classes[i];
        TRY(row_list_sample(&class_rows->rows, class_rows->target, &run->rng, err));
        TRY(row_list_reserve(out, out->count + class_rows->target, err));
        for (int64_t k = 0; k < class_rows->rows.count; k++) {
            TRY(row_list_share(out, class_rows->rows.rows[k], err));
        }
        TRY(row_list_draw(out, &class_rows->rows, class_rows->target - class_rows->rows.count,
                          &run->rng, err));
    }
    row_list_shuffle(out, &run->rng); /* else the classes would follow each other */
    return STATUS_OK;
}

static void write_note(struct operator_run *run, const struct class_table *table)
{
    char text[160];
    size_t used = 0;
    text[0] = '\0';
    for (int64_t i = 0; i < table->count && used + 1 < sizeof(text); i++) {
        int more = snprintf(text + used, sizeof(text) - used, "%s%.24s %lld", i > 0 ? ", " : "",
                            table->classes[i].name, (long long)table->classes[i].target);
        used += more > 0 ? (size_t)more : 0;
    }
    operator_note(run, "%lld classes: %s", (long long)table->count, text);
}

enum status operator_balance_run(struct operator_run *run, struct json_reader *args,
                                 struct row_list *rows, struct error *err)
{
    struct balance_args balance = read_args(args);
    struct class_table table = {0};
    struct row_list balanced;
    row_list_init(&balanced);
    enum status status = STATUS_OK;
    TRY_CLEANUP(sort_into_classes(run, balance.field, rows, &table, err));
    set_targets(&balance, &table);
    TRY_CLEANUP(gather(run, &table, &balanced, err));
    write_note(run, &table);
    row_list_fini(rows);
    *rows = balanced;
    row_list_init(&balanced);
cleanup:
    row_list_fini(&balanced);
    class_table_fini(&table);
    return status;
}
