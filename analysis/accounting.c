/* What Slurm has counted for the jobs of a search, by sacct. Its figures are of whole allocations:
 * also what ranks waited for, and the time before the first training step. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/analysis.h"
#include "base/mem.h"
#include "base/process.h"

static const double sacct_timeout_s = 10.0;

struct accounting {
    int jobs, allocations;
    double core_hours, gpu_hours;
    double energy_kwh; /* NaN: not measured */
};

enum {
    ID_BYTES = 24,
    JOBS_MAX = 10000,
    JOBS_A_CALL = 500,   /* of one command line */
    LINES_MAX = 1000000, /* of one answer */
    LINE_MAX_BYTES = 4096,
    FIELDS = 5,
};

/* ---- the jobs of a search ---- */

struct job_id {
    char text[ID_BYTES];
};

static int compare_ids(const void *a, const void *b)
{
    return strcmp(((const struct job_id *)a)->text, ((const struct job_id *)b)->text);
}

/* Slurm's numbers as they stand in the tree, each once. Anything else is passed over: they become
 * arguments of a program. */
static enum status list_jobs(const struct search *search, struct job_id **out, int *count,
                             struct error *err)
{
    int32_t last = search->allocation_count;
    struct job_id *ids = mem_calloc((size_t)last + 1, sizeof(*ids));
    int found = 0;
    if (ids == NULL) {
        return mem_fail(err, (size_t)last * sizeof(*ids), "Slurm's job numbers");
    }
    for (int32_t i = 0; i < last; i++) {
        const char *job = search_text(search->allocations[i].job);
        size_t length = strlen(job);
        if (length > 0 && length < ID_BYTES && strspn(job, "0123456789") == length) {
            memcpy(ids[found++].text, job, length);
        }
    }
    qsort(ids, (size_t)found, sizeof(*ids), compare_ids);
    int kept = 0;
    for (int i = 0; i < found; i++) {
        if (i == 0 || strcmp(ids[i].text, ids[kept - 1].text) != 0) {
            ids[kept++] = ids[i];
        }
    }
    *out = ids;
    *count = kept;
    if (kept == 0 || kept > JOBS_MAX) {
        free(ids);
        return kept == 0
                   ? FAIL(err, STATUS_NOT_FOUND, "the search ran in no Slurm job")
                   : FAIL(err, STATUS_LIMIT, "%d Slurm jobs are more than %d", kept, JOBS_MAX);
    }
    return STATUS_OK;
}

/* ---- what sacct says ---- */

struct answer {
    struct accounting sum;
    int64_t lines;
    bool energy;
};

static enum status no_input(void *context, const char **data, size_t *len_bytes, struct error *err)
{
    (void)context;
    (void)err;
    *data = "";
    *len_bytes = 0;
    return STATUS_OK;
}

/* A count; *known false for an empty field or what stands for "unknown". */
static bool read_count(const char *text, double *value, bool *known)
{
    char *end = NULL;
    *known = text[0] != '\0';
    *value = strtod(text, &end);
    if (*end != '\0' || strspn(text, "0123456789.") != strlen(text)) {
        return false;
    }
    *known = *known && *value < 1e18;
    *value = *known ? *value : 0.0;
    return true;
}

/* GPUs of "billing=8,cpu=8,gres/gpu:a100=2,gres/gpu=2,node=1": the sum over types, if it is there.
 */
static double read_gpus(char *resources)
{
    static const char all[] = "gres/gpu=";
    static const char typed[] = "gres/gpu:";
    double sum = 0.0;
    char *rest = NULL;
    for (char *part = strtok_r(resources, ",", &rest); part != NULL;
         part = strtok_r(NULL, ",", &rest)) {
        const char *equals = strchr(part, '=');
        double value = equals != NULL ? strtod(equals + 1, NULL) : 0.0;
        value = value >= 0.0 && value < 1e6 ? value : 0.0;
        if (strncmp(part, all, strlen(all)) == 0) {
            return value;
        }
        sum += strncmp(part, typed, strlen(typed)) == 0 ? value : 0.0;
    }
    return sum;
}

/* JobIDRaw|ElapsedRaw|CPUTimeRAW|ConsumedEnergyRaw|AllocTRES */
static enum status take_line(void *context, const char *text, size_t len_bytes, struct error *err)
{
    struct answer *answer = context;
    char line[LINE_MAX_BYTES];
    char *fields[FIELDS] = {NULL};
    double elapsed_s = 0.0;
    double core_s = 0.0;
    double energy_j = 0.0;
    bool known = false;
    bool energy_known = false;
    int count = 0;
    if (++answer->lines > LINES_MAX) {
        return FAIL(err, STATUS_LIMIT, "sacct printed more than %d lines", LINES_MAX);
    }
    if (len_bytes < sizeof(line) && strlen(text) == len_bytes) {
        memcpy(line, text, len_bytes + 1);
        for (char *at = line; at != NULL && count < FIELDS; count++) {
            fields[count] = at;
            at = count < FIELDS - 1 ? strchr(at, '|') : NULL;
            if (at != NULL) {
                *at++ = '\0';
            }
        }
    }
    if (count < FIELDS || strchr(fields[FIELDS - 1], '|') != NULL ||
        !read_count(fields[1], &elapsed_s, &known) || !read_count(fields[2], &core_s, &known) ||
        !read_count(fields[3], &energy_j, &energy_known)) {
        return FAIL(err, STATUS_FORMAT, "sacct printed what is no figure: \"%.60s\"", text);
    }
    answer->sum.allocations++;
    answer->sum.core_hours += core_s / 3600.0;
    answer->sum.gpu_hours += read_gpus(fields[4]) * elapsed_s / 3600.0;
    if (energy_known && energy_j > 0.0) {
        answer->energy = true;
        answer->sum.energy_kwh += energy_j / 3.6e6;
    }
    return STATUS_OK;
}

static enum status ask(const struct job_id *ids, int count, struct answer *answer,
                       struct error *err)
{
    struct buffer list;
    struct process_io io = {no_input, take_line, answer};
    buffer_init(&list, (size_t)JOBS_A_CALL * ID_BYTES);
    for (int i = 0; i < count; i++) {
        buffer_printf(&list, "%s%s", i > 0 ? "," : "", ids[i].text);
    }
    char *jobs = buffer_take(&list);
    if (jobs == NULL) {
        return mem_fail(err, (size_t)JOBS_A_CALL * ID_BYTES, "Slurm's job numbers");
    }
    char format[] = "--format=JobIDRaw,ElapsedRaw,CPUTimeRAW,ConsumedEnergyRaw,AllocTRES";
    /* Allocations alone, no steps; each of a job that was requeued. */
    char *arguments[] = {"sacct", "-X", "-D", "-P", "-n", "-j", jobs, format, NULL};
    enum status status = process_run(arguments, sacct_timeout_s, &io, err);
    free(jobs);
    return status;
}

static enum status read_accounting(const struct search *search, struct accounting *out,
                                   struct error *err)
{
    struct job_id *ids = NULL;
    int count = 0;
    struct answer answer = {0};
    TRY(list_jobs(search, &ids, &count, err));
    enum status status = STATUS_OK;
    for (int first = 0; first < count && status == STATUS_OK; first += JOBS_A_CALL) {
        int part = count - first < JOBS_A_CALL ? count - first : JOBS_A_CALL;
        status = ask(ids + first, part, &answer, err);
    }
    free(ids);
    TRY(status);
    if (answer.sum.allocations == 0) {
        return FAIL(err, STATUS_NOT_FOUND, "sacct knows none of the search's %d Slurm job%s", count,
                    count == 1 ? "" : "s");
    }
    *out = answer.sum;
    out->jobs = count;
    out->energy_kwh = answer.energy ? answer.sum.energy_kwh : NAN;
    return STATUS_OK;
}

/* ---- for status ---- */

void accounting_print(const struct view *view)
{
    struct accounting sum;
    struct error err;
    paint_label("Slurm");
    if (read_accounting(&view->search, &sum, &err) != STATUS_OK) {
        printf("no figures: ");
        paint_line(err.message, (int)sizeof(err.message));
        putchar('\n');
        return;
    }
    printf("%.2f core-hours, %.2f GPU-hours, ", sum.core_hours, sum.gpu_hours);
    if (isnan(sum.energy_kwh)) {
        printf("energy not measured");
    } else {
        printf("%.3f kWh", sum.energy_kwh);
    }
    printf(" in %d allocation%s of %d job%s (sacct)\n", sum.allocations,
           sum.allocations == 1 ? "" : "s", sum.jobs, sum.jobs == 1 ? "" : "s");
}

cJSON *accounting_json(const struct view *view)
{
    struct accounting sum;
    struct error err;
    cJSON *object = cJSON_CreateObject();
    if (read_accounting(&view->search, &sum, &err) != STATUS_OK) {
        cJSON_AddStringToObject(object, "missing", err.message);
        return object;
    }
    cJSON_AddNumberToObject(object, "jobs", sum.jobs);
    cJSON_AddNumberToObject(object, "allocations", sum.allocations);
    cJSON_AddNumberToObject(object, "core_hours", sum.core_hours);
    cJSON_AddNumberToObject(object, "gpu_hours", sum.gpu_hours);
    cJSON_AddNumberToObject(object, "energy_kwh", sum.energy_kwh); /* NaN: cJSON writes null */
    return object;
}
