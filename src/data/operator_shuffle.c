/* A random order. */
#include "data/operators.h"

void operator_shuffle_check(struct json_reader *args)
{
    (void)args; /* no arguments */
}

enum status operator_shuffle_run(struct operator_run *run, struct json_reader *args,
                                 struct row_list *rows, struct error *err)
{
    (void)args;
    (void)err;
    row_list_shuffle(rows, &run->rng);
    return STATUS_OK;
}
