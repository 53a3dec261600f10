/* Some of the rows, drawn without replacement. */
#include <math.h>

#include "data/operators.h"

struct sample_args {
    int64_t count; /* 0: by fraction */
    double fraction;
};

static struct sample_args read_args(struct json_reader *args)
{
    struct sample_args out;
    out.count = json_read_int(args, "count", 0, 1, ROW_LIST_MAX);
    out.fraction = json_read_number(args, "fraction", 0.0, 0.0, 1.0);
    return out;
}

void operator_sample_check(struct json_reader *args)
{
    read_args(args);
    bool by_count = cJSON_GetObjectItemCaseSensitive(args->object, "count") != NULL;
    bool by_fraction = cJSON_GetObjectItemCaseSensitive(args->object, "fraction") != NULL;
    if (by_count == by_fraction) {
        json_problems_add(args->problems, args->pointer,
                          "found %s, needed is either count or fraction",
                          by_count ? "both count and fraction" : "neither count nor fraction");
    }
}

enum status operator_sample_run(struct operator_run *run, struct json_reader *args,
                                struct row_list *rows, struct error *err)
{
    struct sample_args sample = read_args(args);
    int64_t count =
        sample.count > 0 ? sample.count : llround(sample.fraction * (double)rows->count);
    if (count >= rows->count) {
        operator_note(run, "there are no more than %lld rows", (long long)count);
    }
    return row_list_sample(rows, count, &run->rng, err);
}
