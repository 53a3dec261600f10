/* Several sources in given shares. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "data/operators.h"

enum { SOURCES_MAX = 32, REPEAT_MAX = 1000, REPEAT_DEFAULT = 4 };
#define WEIGHT_MAX 1e6

struct mix_source {
    const char *path; /* a file, "train": the task's training split, "rows": the rows so far */
    double weight;
    struct row_list list;
    int64_t quota;
};

struct mix_args {
    int source_count;
    int64_t count; /* 0: as many as there are without repeating any row */
    int64_t max_repeat;
    struct mix_source sources[SOURCES_MAX];
};

static void read_args(struct json_reader *args, struct mix_args *out)
{
    memset(out, 0, sizeof(*out));
    char pointer[JSON_POINTER_BYTES];
    json_reader_pointer(args, "sources", pointer);
    json_require(args, "sources", "a list of {path, weight}");
    const cJSON *list = json_read_array(args, "sources");
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, list) {
        if (out->source_count == SOURCES_MAX) {
            json_problems_add(args->problems, pointer, "found more than %d sources", SOURCES_MAX);
            break;
        }
        char index[16];
        char inner[JSON_POINTER_BYTES];
        struct json_reader place = {.problems = args->problems};
        memcpy(place.pointer, pointer, sizeof(pointer));
        snprintf(index, sizeof(index), "%d", out->source_count);
        json_reader_pointer(&place, index, inner);
        struct json_reader reader;
        json_reader_init(&reader, item, inner, args->problems);
        struct mix_source *source = &out->sources[out->source_count++];
        json_require(&reader, "path", "a .jsonl file, \"train\" or \"rows\"");
        source->path = json_read_string(&reader, "path", "rows");
        source->weight = json_read_number(&reader, "weight", 1.0, 1e-6, WEIGHT_MAX);
        json_reader_finish(&reader);
    }
    out->count = json_read_int(args, "count", 0, 1, ROW_LIST_MAX);
    out->max_repeat = json_read_int(args, "max_repeat", REPEAT_DEFAULT, 1, REPEAT_MAX);
}

void operator_mix_check(struct json_reader *args)
{
    struct mix_args mix;
    read_args(args, &mix);
    if (mix.source_count == 0 &&
        cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(args->object, "sources"))) {
        json_problems_add(args->problems, args->pointer,
                          "found no sources, needed is at least one");
    }
}

static enum status read_source(struct operator_run *run, const struct row_list *rows,
                               struct mix_source *source, struct error *err)
{
    const struct row_list *from = strcmp(source->path, "train") == 0  ? run->train
                                  : strcmp(source->path, "rows") == 0 ? rows
                                                                      : NULL;
    if (from == NULL) {
        return operator_read_file(run, source->path, &source->list, err);
    }
    TRY(row_list_reserve(&source->list, from->count, err));
    for (int64_t i = 0; i < from->count; i++) {
        TRY(row_list_share(&source->list, from->rows[i], err));
    }
    return from->count > 0 ? STATUS_OK
                           : FAIL(err, STATUS_INVALID, "source \"%s\" has no rows", source->path);
}

/* Rows of each source: shares of the count, rounded so that they add up to it (largest remainder
 * first). */
static void set_quotas(struct mix_args *mix)
{
    double total = 0;
    for (int i = 0; i < mix->source_count; i++) {
        total += mix->sources[i].weight;
    }
    double count = (double)mix->count;
    if (mix->count == 0) {
        count = (double)ROW_LIST_MAX;
        for (int i = 0; i < mix->source_count; i++) {
            double fitting = (double)mix->sources[i].list.count * total / mix->sources[i].weight;
            count = fitting < count ? fitting : count;
        }
        count = floor(count + 1e-6); /* a whole number that rounding put just below */
    }
    int64_t left = (int64_t)count;
    double remainder[SOURCES_MAX];
    for (int i = 0; i < mix->source_count; i++) {
        double share = count * mix->sources[i].weight / total;
        mix->sources[i].quota = (int64_t)floor(share);
        remainder[i] = share - floor(share);
        left -= mix->sources[i].quota;
    }
    for (; left > 0; left--) {
        int largest = 0;
        for (int i = 1; i < mix->source_count; i++) {
            largest = remainder[i] > remainder[largest] ? i : largest;
        }
        mix->sources[largest].quota++;
        remainder[largest] -= 1.0;
    }
}

/* The quotas, no source repeated more than allowed. */
static enum status draw(struct operator_run *run, struct mix_args *mix, struct row_list *out,
                        struct error *err)
{
    int64_t wanted = 0;
    for (int i = 0; i < mix->source_count; i++) {
        struct mix_source *source = &mix->sources[i];
        int64_t most = source->list.count * mix->max_repeat;
        most = mix->count == 0 ? source->list.count : most;
        wanted += source->quota;
        TRY(row_list_draw(out, &source->list, source->quota < most ? source->quota : most,
                          &run->rng, err));
    }
    row_list_shuffle(out, &run->rng);
    if (out->count < wanted) {
        operator_note(
            run, "%lld rows fewer than asked for: a source is too small to be repeated that often",
            (long long)(wanted - out->count));
    } else {
        operator_note(run, "mixed %d sources", mix->source_count);
    }
    return STATUS_OK;
}

enum status operator_mix_run(struct operator_run *run, struct json_reader *args,
                             struct row_list *rows, struct error *err)
{
    struct mix_args mix;
    read_args(args, &mix);
    struct row_list mixed;
    row_list_init(&mixed);
    enum status status = STATUS_OK;
    for (int i = 0; i < mix.source_count; i++) {
        TRY_CLEANUP(read_source(run, rows, &mix.sources[i], err));
    }
    set_quotas(&mix);
    TRY_CLEANUP(draw(run, &mix, &mixed, err));
    row_list_fini(rows);
    *rows = mixed;
    row_list_init(&mixed);
cleanup:
    for (int i = 0; i < mix.source_count; i++) {
        row_list_fini(&mix.sources[i].list);
    }
    row_list_fini(&mixed);
    return status;
}
