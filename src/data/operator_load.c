/* Adds the rows of another file. */
#include <math.h>

#include "data/operators.h"

#define WEIGHT_MAX 100.0

struct load_args {
    const char *path;
    double weight;
    int64_t limit;
};

static struct load_args read_args(struct json_reader *args)
{
    struct load_args out;
    json_require(args, "path", "the path of a .jsonl file");
    out.path = json_read_string(args, "path", "");
    out.weight = json_read_number(args, "weight", 1.0, 0.0, WEIGHT_MAX);
    out.limit = json_read_int(args, "limit", 0, 0, ROW_LIST_MAX);
    return out;
}

void operator_load_check(struct json_reader *args)
{
    read_args(args);
}

enum status operator_load_run(struct operator_run *run, struct json_reader *args,
                              struct row_list *rows, struct error *err)
{
    struct load_args load = read_args(args);
    struct row_list loaded;
    row_list_init(&loaded);
    enum status status = operator_read_file(run, load.path, &loaded, err);
    int64_t read = loaded.count;
    if (status == STATUS_OK && load.limit > 0) {
        status = row_list_sample(&loaded, load.limit, &run->rng, err);
    }
    int64_t wanted = llround(load.weight * (double)loaded.count);
    if (status == STATUS_OK && wanted == loaded.count) {
        status = row_list_reserve(rows, rows->count + wanted, err);
        for (int64_t i = 0; i < loaded.count && status == STATUS_OK; i++) {
            status = row_list_share(rows, loaded.rows[i], err); /* in the file's order */
        }
    } else if (status == STATUS_OK) {
        status = row_list_draw(rows, &loaded, wanted, &run->rng, err);
    }
    if (status == STATUS_OK) {
        operator_note(run, "read %lld rows, added %lld", (long long)read, (long long)wanted);
    }
    row_list_fini(&loaded);
    return status;
}
