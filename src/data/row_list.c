#include "data/row_list.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { FIRST_CAPACITY = 64 };

void row_list_init(struct row_list *list)
{
    memset(list, 0, sizeof(*list));
}

static void let_go(struct shared_row *row)
{
    if (--row->holders == 0) {
        if (!row->borrowed) {
            cJSON_Delete(row->row.object);
        }
        free(row);
    }
}

void row_list_fini(struct row_list *list)
{
    for (int64_t i = 0; i < list->count; i++) {
        let_go(list->rows[i]);
    }
    free(list->rows);
    row_list_init(list);
}

enum status row_list_reserve(struct row_list *list, int64_t count, struct error *err)
{
    if (count > ROW_LIST_MAX) {
        return FAIL(err, STATUS_LIMIT,
                    "%lld rows, allowed in a recipe are %d; sample or limit them first",
                    (long long)count, ROW_LIST_MAX);
    }
    if (count <= list->capacity) {
        return STATUS_OK;
    }
    int64_t capacity = list->capacity > 0 ? list->capacity : FIRST_CAPACITY;
    while (capacity < count) {
        capacity *= 2;
    }
    struct shared_row **rows =
        mem_realloc(list->rows, (size_t)capacity, sizeof(struct shared_row *));
    if (rows == NULL) {
        return mem_fail(err, (size_t)capacity * sizeof(struct shared_row *), "rows of a recipe");
    }
    list->rows = rows;
    list->capacity = capacity;
    return STATUS_OK;
}

enum status row_list_add(struct row_list *list, cJSON *object, bool borrowed, const char *source,
                         int64_t line, struct error *err)
{
    enum status status = row_list_reserve(list, list->count + 1, err);
    struct shared_row *row = status == STATUS_OK ? mem_calloc(1, sizeof(*row)) : NULL;
    if (row == NULL) {
        if (!borrowed) {
            cJSON_Delete(object);
        }
        return status != STATUS_OK ? status : mem_fail(err, sizeof(*row), "a row of a recipe");
    }
    row->row.object = object;
    row->row.line = line;
    row->source = source;
    row->holders = 1;
    row->borrowed = borrowed;
    list->rows[list->count++] = row;
    return STATUS_OK;
}

enum status row_list_share(struct row_list *list, struct shared_row *row, struct error *err)
{
    TRY(row_list_reserve(list, list->count + 1, err));
    row->holders++;
    list->rows[list->count++] = row;
    return STATUS_OK;
}

int64_t row_list_keep(struct row_list *list, const uint8_t *marks)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < list->count; i++) {
        if (marks[i] != 0) {
            list->rows[kept++] = list->rows[i];
        } else {
            let_go(list->rows[i]);
        }
    }
    int64_t removed = list->count - kept;
    list->count = kept;
    return removed;
}

/* A random order of 0..count-1, on the heap; NULL without memory. */
static int64_t *random_order(int64_t count, struct rng *rng, struct error *err)
{
    int64_t *order = mem_calloc((size_t)count, sizeof(*order));
    if (order == NULL) {
        mem_fail(err, (size_t)count * sizeof(*order), "a random order");
        return NULL;
    }
    for (int64_t i = 0; i < count; i++) {
        order[i] = i;
    }
    rng_shuffle(rng, order, count);
    return order;
}

enum status row_list_sample(struct row_list *list, int64_t count, struct rng *rng,
                            struct error *err)
{
    if (count >= list->count) {
        return STATUS_OK;
    }
    int64_t *order = random_order(list->count, rng, err);
    uint8_t *marks = order != NULL ? mem_calloc((size_t)list->count, 1) : NULL;
    enum status status = STATUS_OK;
    if (marks == NULL) {
        status = mem_fail(err, (size_t)list->count, "marks of a sample");
    } else {
        for (int64_t i = 0; i < count; i++) {
            marks[order[i]] = 1;
        }
        row_list_keep(list, marks);
    }
    free(marks);
    free(order);
    return status;
}

void row_list_shuffle(struct row_list *list, struct rng *rng)
{
    for (int64_t i = list->count - 1; i > 0; i--) {
        int64_t k = (int64_t)rng_below(rng, (uint64_t)i + 1);
        struct shared_row *swapped = list->rows[i];
        list->rows[i] = list->rows[k];
        list->rows[k] = swapped;
    }
}

enum status row_list_draw(struct row_list *list, const struct row_list *from, int64_t count,
                          struct rng *rng, struct error *err)
{
    if (count < 0 || count > ROW_LIST_MAX || from->count == 0) {
        return count == 0 ? STATUS_OK
                          : FAIL(err, STATUS_LIMIT,
                                 "cannot draw %lld rows from %lld; allowed in a recipe are %d",
                                 (long long)count, (long long)from->count, ROW_LIST_MAX);
    }
    TRY(row_list_reserve(list, list->count + count, err));
    enum status status = STATUS_OK;
    for (int64_t drawn = 0; drawn < count && status == STATUS_OK;) {
        int64_t *order = random_order(from->count, rng, err);
        if (order == NULL) {
            return STATUS_NO_MEMORY;
        }
        for (int64_t i = 0; i < from->count && drawn < count && status == STATUS_OK; i++, drawn++) {
            status = row_list_share(list, from->rows[order[i]], err);
        }
        free(order);
    }
    return status;
}

cJSON *row_list_own(struct row_list *list, int64_t i, struct error *err)
{
    struct shared_row *row = list->rows[i];
    if (row->holders == 1 && !row->borrowed) {
        return row->row.object;
    }
    struct shared_row *copy = mem_calloc(1, sizeof(*copy));
    cJSON *object = copy != NULL ? cJSON_Duplicate(row->row.object, true) : NULL;
    if (object == NULL) {
        free(copy);
        mem_fail(err, sizeof(*copy), "a copy of a row");
        return NULL;
    }
    *copy = *row;
    copy->row.object = object;
    copy->holders = 1;
    copy->borrowed = false;
    list->rows[i] = copy;
    let_go(row);
    return object;
}
