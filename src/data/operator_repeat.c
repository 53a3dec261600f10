/* The same rows several times over. */
#include "data/operators.h"

enum { TIMES_MAX = 100 };

static int64_t read_args(struct json_reader *args)
{
    json_require(args, "times", "how often each row shall be there");
    return json_read_int(args, "times", 1, 1, TIMES_MAX);
}

void operator_repeat_check(struct json_reader *args)
{
    read_args(args);
}

enum status operator_repeat_run(struct operator_run *run, struct json_reader *args,
                                struct row_list *rows, struct error *err)
{
    (void)run;
    int64_t times = read_args(args);
    int64_t count = rows->count;
    TRY(row_list_reserve(rows, count * times, err));
    for (int64_t i = count; i < count * times; i++) {
        TRY(row_list_share(rows, rows->rows[i - count], err));
    }
    return STATUS_OK;
}
