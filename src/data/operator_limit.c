/* The first rows. */
#include <stdlib.h>
#include <string.h>

#include "data/operators.h"

static int64_t read_args(struct json_reader *args)
{
    json_require(args, "count", "how many rows to keep");
    return json_read_int(args, "count", 1, 1, ROW_LIST_MAX);
}

void operator_limit_check(struct json_reader *args)
{
    read_args(args);
}

enum status operator_limit_run(struct operator_run *run, struct json_reader *args,
                               struct row_list *rows, struct error *err)
{
    (void)run;
    int64_t count = read_args(args);
    if (count >= rows->count) {
        return STATUS_OK;
    }
    uint8_t *marks = operator_marks(rows, err);
    if (marks == NULL) {
        return STATUS_NO_MEMORY;
    }
    memset(marks, 1, (size_t)count);
    row_list_keep(rows, marks);
    free(marks);
    return STATUS_OK;
}
