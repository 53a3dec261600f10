/* What goes to disk: a checkpoint of 512 MB of f32 arrays against a raw write with sync of the same
 * bytes (interleaved, medians), reading it back, and a run of 10,000 nodes saved, loaded and
 * copied. Lines of JSON.
 *
 *   bench_store [FOLDER]      where to write, default "."; 2 GB are needed for a moment */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "store/store.h"

enum {
    REPEATS = 5,
    ARRAYS = 16,
    ROWS = 2048,
    COLS = 4096,
    NODES = 10000,
    CURVE_POINTS = 20,
    WRITE_BYTES = 8 << 20
};

static _Noreturn void stop(const char *what, const struct error *err)
{
    fprintf(stderr, "%s: %s\n", what, err->message);
    exit(1);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), compare);
    return values[count / 2];
}

/* ---- checkpoint ---- */

static const size_t array_bytes = (size_t)ROWS * COLS * sizeof(float);

static enum status give(void *context, int64_t index, void *to, struct error *err)
{
    (void)index;
    (void)err;
    memcpy(to, context, array_bytes);
    return STATUS_OK;
}

/* The best that a program without checksums, names or atomicity could do: the same copy to the
 * host, write, fsync. */
static double write_raw(const char *path, const float *values, float *host)
{
    double begun_s = clock_monotonic_s();
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0) {
        perror(path);
        exit(1);
    }
    for (int i = 0; i < ARRAYS; i++) {
        memcpy(host, values, array_bytes);
        for (size_t at = 0; at < array_bytes; at += WRITE_BYTES) {
            if (write(fd, (const char *)host + at, WRITE_BYTES) != WRITE_BYTES) {
                perror(path);
                exit(1);
            }
        }
    }
    if (fsync(fd) != 0) {
        perror(path);
        exit(1);
    }
    close(fd);
    return clock_monotonic_s() - begun_s;
}

static double write_store(const char *path, float *values)
{
    static struct store_array arrays[ARRAYS];
    struct error err;
    for (int i = 0; i < ARRAYS; i++) {
        snprintf(arrays[i].name, sizeof(arrays[i].name), "model.layers.%d.weight", i);
        arrays[i].rows = ROWS;
        arrays[i].cols = COLS;
    }
    double begun_s = clock_monotonic_s();
    if (store_arrays_write(path, "weights", arrays, ARRAYS, NULL, 0, give, values, &err) !=
        STATUS_OK) {
        stop("checkpoint", &err);
    }
    return clock_monotonic_s() - begun_s;
}

static double read_store(const char *path, float *host)
{
    struct store_file *file = NULL;
    struct error err;
    double begun_s = clock_monotonic_s();
    if (store_arrays_open(path, "weights", &file, &err) != STATUS_OK) {
        stop("checkpoint", &err);
    }
    for (int64_t i = 0; i < store_arrays_count(file); i++) {
        if (store_arrays_read(file, i, host, &err) != STATUS_OK) {
            stop("checkpoint", &err);
        }
    }
    store_arrays_close(file);
    return clock_monotonic_s() - begun_s;
}

static void bench_checkpoint(const char *folder)
{
    char raw_path[FILE_PATH_BYTES];
    char path[FILE_PATH_BYTES];
    double raw[REPEATS];
    double store[REPEATS];
    double ratio[REPEATS];
    double reading[REPEATS];
    float *values = mem_aligned((size_t)ROWS * COLS, sizeof(*values));
    float *host = mem_aligned((size_t)ROWS * COLS, sizeof(*host));
    struct error err;
    if (values == NULL || host == NULL ||
        file_join(folder, "bench.raw", raw_path, &err) != STATUS_OK ||
        file_join(folder, "bench.h5", path, &err) != STATUS_OK) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++) {
        values[i] = (float)i;
    }
    for (int i = 0; i < REPEATS; i++) {
        unlink(raw_path);
        unlink(path);
        sync(); /* the side before must not leave its work to this one */
        raw[i] = write_raw(raw_path, values, host);
        sync();
        store[i] = write_store(path, values);
        ratio[i] = raw[i] / store[i];
        reading[i] = read_store(path, host);
    }
    double megabytes = (double)ARRAYS * (double)array_bytes / 1e6;
    double raw_s = median(raw, REPEATS);
    double store_s = median(store, REPEATS);
    printf("{\"bench\": \"store\", \"case\": \"checkpoint\", \"megabytes\": %.0f, \"raw_seconds\": "
           "%.3f, "
           "\"store_seconds\": %.3f, \"ratio\": %.3f, \"ratio_of_pairs\": %.3f, \"read_seconds\": "
           "%.3f}\n",
           megabytes, raw_s, store_s, raw_s / store_s, median(ratio, REPEATS),
           median(reading, REPEATS));
    unlink(raw_path);
    unlink(path);
    free(values);
    free(host);
}

/* ---- run file ---- */

static void set_text(char **to, const char *text)
{
    *to = mem_strdup(text);
    if (*to == NULL) {
        exit(1);
    }
}

/* A node with 1.2 KB of text and three candidates with a curve and failed cases, as the rules
 * researcher leaves it. */
static void fill_node(struct search *search, int32_t id)
{
    static char words[400];
    struct search_node *node = &search->nodes[id];
    memset(words, 'w', sizeof(words) - 1);
    set_text(&node->strategy, "refine data");
    set_text(&node->goal, "find out whether more epochs help");
    set_text(&node->rationale, words);
    set_text(&node->recipe, words);
    set_text(&node->diagnosis, words);
    node->candidate_count = 3;
    node->best = 0;
    for (int c = 0; c < 3; c++) {
        struct candidate *candidate = &node->candidates[c];
        set_text(
            &candidate->config,
            "{\"method\":\"full\",\"learning_rate\":0.003,\"epochs\":4,\"batch_tokens\":4096}");
        candidate->state = CANDIDATE_FINISHED;
        candidate->validation = (struct search_score){
            .present = true, .value = 0.5, .standard_error = 0.01, .rows = 872};
        candidate->curve = mem_calloc(CURVE_POINTS, sizeof(*candidate->curve));
        candidate->cases = mem_calloc(2, sizeof(*candidate->cases));
        if (candidate->curve == NULL || candidate->cases == NULL) {
            exit(1);
        }
        candidate->curve_count = CURVE_POINTS;
        candidate->case_count = 2;
        for (int i = 0; i < 2; i++) {
            set_text(&candidate->cases[i].prompt,
                     "a film that is worth seeing twice, if only for its last ten minutes");
            set_text(&candidate->cases[i].answer, "positive");
            set_text(&candidate->cases[i].output, "negative");
        }
    }
}

static void make_search(struct search *search)
{
    struct error err;
    search_init(search);
    search->last_sequence = 1;
    search->nodes = mem_calloc(NODES, sizeof(*search->nodes));
    search->node_capacity = NODES;
    for (int32_t i = 0; i < NODES; i++) {
        int32_t id = 0;
        if (search->nodes == NULL ||
            tree_add(&search->tree, i == 0 ? -1 : (i - 1) / 4, &id, &err) != STATUS_OK) {
            stop("tree", &err);
        }
        fill_node(search, id);
        tree_close(&search->tree, id, 0.5);
    }
}

static void bench_run(const char *folder)
{
    char path[FILE_PATH_BYTES];
    char previous[FILE_PATH_BYTES];
    double save[REPEATS];
    double load[REPEATS];
    struct search search;
    struct error err;
    int64_t bytes = 0;
    if (file_join(folder, "run.h5", path, &err) != STATUS_OK ||
        file_join(folder, "run.prev.h5", previous, &err) != STATUS_OK) {
        stop(folder, &err);
    }
    make_search(&search);
    for (int i = 0; i < REPEATS; i++) {
        struct search other;
        double begun_s = clock_monotonic_s();
        if (store_run_save(folder, &search, &err) != STATUS_OK) {
            stop("save", &err);
        }
        save[i] = clock_monotonic_s() - begun_s;
        begun_s = clock_monotonic_s();
        if (store_run_read(path, &other, &err) != STATUS_OK) {
            stop("read", &err);
        }
        load[i] = clock_monotonic_s() - begun_s;
        search_fini(&other);
        bytes = file_size_bytes(path);
    }
    printf("{\"bench\": \"store\", \"case\": \"run\", \"nodes\": %d, \"megabytes\": %.1f, "
           "\"save_seconds\": %.3f, \"load_seconds\": %.3f}\n",
           NODES, (double)bytes / 1e6, median(save, REPEATS), median(load, REPEATS));
    unlink(path);
    unlink(previous);
    search_fini(&search);
}

/* ---- journal ---- */

/* Events one after the other, each waited for, and events in bulk: what group commit gains, and
 * what asking the folder's lock costs. */
static void bench_journal(const char *folder, const struct store_lock *lock)
{
    enum { SINGLE = 100, BULK = 20000 };
    struct journal *journal = NULL;
    struct error err;
    char path[FILE_PATH_BYTES];
    if (file_join(folder, "journal.jsonl", path, &err) != STATUS_OK ||
        journal_open(folder, lock, 0, &journal, &err) != STATUS_OK) {
        stop("journal", &err);
    }
    double begun_s = clock_monotonic_s();
    double append_s = 0.0;
    double single_s = 0.0;
    for (int64_t i = 1; i <= SINGLE + BULK; i++) {
        cJSON *event = cJSON_CreateObject();
        cJSON_AddNumberToObject(event, "sequence", (double)i);
        cJSON_AddStringToObject(event, "event", "candidate_started");
        double before_s = clock_monotonic_s();
        if (journal_append(journal, event, &err) != STATUS_OK) {
            stop("journal", &err);
        }
        append_s += clock_monotonic_s() - before_s;
        if (i <= SINGLE && journal_flush(journal, &err) != STATUS_OK) {
            stop("journal", &err);
        }
        single_s = i == SINGLE ? clock_monotonic_s() - begun_s : single_s;
    }
    journal_flush(journal, &err);
    double bulk_s = clock_monotonic_s() - begun_s - single_s;
    printf("{\"bench\": \"store\", \"case\": \"journal\", \"locked\": %s, "
           "\"append_micros\": %.2f, "
           "\"synced_one_by_one_per_second\": %.0f, "
           "\"synced_in_bulk_per_second\": %.0f}\n",
           lock != NULL ? "true" : "false", 1e6 * append_s / (SINGLE + BULK), SINGLE / single_s,
           BULK / bulk_s);
    journal_close(journal);
    unlink(path);
}

int main(int argc, char **argv)
{
    enum { CHECKS = 10000 };
    const char *folder = argc > 1 ? argv[1] : ".";
    struct store_lock *lock = NULL;
    struct error err = {0};
    bench_checkpoint(folder);
    bench_run(folder);
    bench_journal(folder, NULL);
    if (store_folder_lock(folder, &lock, &err) != STATUS_OK) {
        stop("lock", &err);
    }
    double begun_s = clock_monotonic_s();
    for (int i = 0; i < CHECKS; i++) {
        if (store_lock_check(lock, &err) != STATUS_OK) {
            stop("lock", &err);
        }
    }
    printf("{\"bench\": \"store\", \"case\": \"lock\", \"check_micros\": %.2f}\n",
           1e6 * (clock_monotonic_s() - begun_s) / CHECKS);
    bench_journal(folder, lock);
    store_folder_unlock(lock);
    return 0;
}
