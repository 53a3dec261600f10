/* The controller's own time per event, as the tree grows: a whole controller with its journal and
 * snapshots, whose workers are made up and answer at once.
 *
 *   bench_controller JOB FOLDER [--nodes N] [--workers N] [--configurations N] [--policy NAME]
 *
 * Messages are packed and parsed as always, but do not travel: this program stands in for
 * run/mailbox.c. One line of JSON a window of nodes: microseconds of the controller's own thread
 * per event, in all and by part of its turn. FOLDER is made anew. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "run/controller.h"
#include "run/simulated.h"
#include "store/store.h"

static _Noreturn void stop(const struct error *err)
{
    fprintf(stderr, "bench_controller: %s\n", err->message);
    exit(1);
}

#define MUST(call)                                                                                 \
    do {                                                                                           \
        struct error err = {0};                                                                    \
        if ((call) != STATUS_OK) {                                                                 \
            stop(&err);                                                                            \
        }                                                                                          \
    } while (0)

/* ---- the mailbox: two queues of packed messages ---- */

struct letter {
    char *bytes;
    size_t len_bytes;
    int rank; /* of the worker, whichever way it goes */
    struct letter *next;
};

struct queue {
    struct letter *first, *last;
};

struct mailbox {
    struct queue to_workers, to_controller;
};

static void push(struct queue *queue, struct letter *letter)
{
    letter->next = NULL;
    if (queue->first == NULL) {
        queue->first = letter;
    } else {
        queue->last->next = letter;
    }
    queue->last = letter;
}

static struct letter *pop(struct queue *queue)
{
    struct letter *letter = queue->first;
    if (letter != NULL) {
        queue->first = letter->next;
    }
    return letter;
}

enum status mailbox_send(struct mailbox *mailbox, int rank, enum message_tag tag,
                         struct message *message, struct error *err)
{
    struct letter *letter = mem_calloc(1, sizeof(*letter));
    enum status status = message_pack(message, letter != NULL ? &letter->bytes : NULL,
                                      letter != NULL ? &letter->len_bytes : NULL, err);
    if (status != STATUS_OK) {
        free(letter);
        return status;
    }
    letter->rank = rank;
    push(tag == MESSAGE_TO_WORKER ? &mailbox->to_workers : &mailbox->to_controller, letter);
    return STATUS_OK;
}

enum status mailbox_receive(struct mailbox *mailbox, enum message_tag tag, bool *came,
                            struct message *out, struct error *err)
{
    struct letter *letter =
        pop(tag == MESSAGE_TO_WORKER ? &mailbox->to_workers : &mailbox->to_controller);
    *came = letter != NULL;
    if (letter == NULL) {
        return STATUS_OK;
    }
    enum status status = message_parse(letter->bytes, letter->len_bytes, out, err);
    if (status == STATUS_OK) {
        out->rank = letter->rank;
    }
    free(letter->bytes);
    free(letter);
    return status;
}

/* ---- the workers ---- */

static void say_hello(struct mailbox *mailbox, int rank)
{
    struct message hello = {.header = {.kind = MESSAGE_HELLO}, .payload = cJSON_CreateObject()};
    cJSON_AddStringToObject(hello.payload, "host", "nowhere");
    cJSON_AddStringToObject(hello.payload, "device", "none");
    MUST(mailbox_send(mailbox, rank, MESSAGE_TO_CONTROLLER, &hello, &err));
}

static cJSON *carry_out(const struct job *job, const struct message *message)
{
    char name[SEARCH_NAME_BYTES];
    const double no_time_s = 1e-9;
    cJSON *result = NULL;
    search_candidate_name(message->header.node, message->header.candidate, name);
    const struct candidate_order order = {
        .name = name,
        .config = cJSON_GetObjectItemCaseSensitive(message->payload, "config"),
    };
    const cJSON *work = cJSON_GetObjectItemCaseSensitive(message->payload, "work");
    if (strcmp(work->valuestring, "test") == 0) {
        MUST(simulated_score(job, no_time_s, &order, NULL, &result, &err));
    } else {
        MUST(simulated_train(job, no_time_s, &order, NULL, NULL, &result, &err));
    }
    return result;
}

/* Answers all orders. */
static void serve(struct mailbox *mailbox, const struct job *job)
{
    for (;;) {
        bool came = false;
        struct message order = {0};
        MUST(mailbox_receive(mailbox, MESSAGE_TO_WORKER, &came, &order, &err));
        if (!came) {
            return;
        }
        if (order.header.kind == MESSAGE_ORDER) {
            struct message answer = {
                .header = {.kind = MESSAGE_RESULT,
                           .node = order.header.node,
                           .candidate = order.header.candidate},
                .payload = carry_out(job, &order),
            };
            MUST(mailbox_send(mailbox, order.rank, MESSAGE_TO_CONTROLLER, &answer, &err));
        }
        message_fini(&order);
    }
}

/* ---- windows of nodes over which is measured ---- */

enum { WINDOW_LEAST_NODES = 200 };

struct window {
    int32_t first, last; /* nodes */
    struct controller_times begun;
    double wall_s;
    bool open;
};

static double mean_us(double seconds, int64_t events)
{
    return events > 0 ? 1e6 * seconds / (double)events : 0.0;
}

static void print_window(const struct window *window, const struct controller_times *now,
                         const struct job *job, int workers)
{
    struct rusage usage;
    int64_t events = now->events - window->begun.events;
    double all_s = 0.0;
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "bench", "controller");
    cJSON_AddStringToObject(line, "policy", job->policy->name);
    cJSON_AddNumberToObject(line, "workers", workers);
    cJSON_AddNumberToObject(line, "nodes", window->first);
    cJSON_AddNumberToObject(line, "to_nodes", window->last);
    cJSON_AddNumberToObject(line, "events", (double)events);
    for (int part = 0; part < CONTROLLER_PART_COUNT; part++) {
        all_s += now->seconds[part] - window->begun.seconds[part];
    }
    cJSON_AddNumberToObject(line, "us_per_event", mean_us(all_s, events));
    cJSON *parts = cJSON_AddObjectToObject(line, "parts_us");
    for (int part = 0; part < CONTROLLER_PART_COUNT; part++) {
        double seconds = now->seconds[part] - window->begun.seconds[part];
        cJSON_AddNumberToObject(parts, controller_part_names[part], mean_us(seconds, events));
    }
    double elapsed_s = clock_monotonic_s() - window->wall_s;
    cJSON_AddNumberToObject(line, "events_per_s", (double)events / elapsed_s);
    cJSON_AddNumberToObject(line, "snapshot_s", now->snapshot_s);
    getrusage(RUSAGE_SELF, &usage);
    cJSON_AddNumberToObject(line, "peak_mib", (double)usage.ru_maxrss / 1024.0);
    char *text = json_print_line(line);
    puts(text);
    fflush(stdout);
    cJSON_free(text);
    cJSON_Delete(line);
}

/* Windows of a tenth of the nodes behind 100, 1000, ... up to the limit. */
static int plan_windows(int32_t nodes, struct window out[8])
{
    int count = 0;
    for (int32_t first = 100; first <= nodes && count < 8; first *= 10) {
        int32_t width = first / 10 > WINDOW_LEAST_NODES ? first / 10 : WINDOW_LEAST_NODES;
        out[count++] = (struct window){.first = first, .last = first + width};
    }
    return count;
}

static void run_search(struct controller *controller, struct mailbox *mailbox,
                       const struct job *job, int workers, int32_t nodes)
{
    struct window windows[8];
    int count = plan_windows(nodes, windows);
    int at = 0;
    bool done = false;
    while (!done) {
        struct controller_times now;
        MUST(controller_turn(controller, &done, &err));
        serve(mailbox, job);
        int32_t reached = controller_search(controller)->tree.count;
        if (at == count) {
            continue;
        }
        struct window *window = &windows[at];
        controller_get_times(controller, &now);
        if (!window->open && reached >= window->first) {
            window->open = true;
            window->begun = now;
            window->wall_s = clock_monotonic_s();
        } else if (window->open && reached >= window->last) {
            print_window(window, &now, job, workers);
            at++;
        }
        if (mailbox->to_controller.first == NULL) {
            clock_sleep_s(2e-5); /* the journal's turn */
        }
    }
}

static void print_end(const char *folder, double seconds)
{
    char path[FILE_PATH_BYTES];
    MUST(file_join(folder, "run.h5", path, &err));
    printf("{\"bench\":\"controller\",\"seconds\":%.1f,\"run_h5_mib\":%.1f}\n", seconds,
           (double)file_size_bytes(path) / 1048576.0);
}

/* ---- command line ---- */

struct choices {
    const char *job, *folder;
    const char *policy;
    int nodes, workers, configurations;
};

static bool read_choices(int argc, char **argv, struct choices *out)
{
    *out = (struct choices){.policy = "uct", .nodes = 10000, .workers = 64, .configurations = 1};
    int given = 0;
    for (int i = 1; i < argc; i++) {
        bool value = i + 1 < argc;
        if (strcmp(argv[i], "--nodes") == 0 && value) {
            out->nodes = atoi(argv[++i]);
        } else if (strcmp(argv[i], "--workers") == 0 && value) {
            out->workers = atoi(argv[++i]);
        } else if (strcmp(argv[i], "--configurations") == 0 && value) {
            out->configurations = atoi(argv[++i]);
        } else if (strcmp(argv[i], "--policy") == 0 && value) {
            out->policy = argv[++i];
        } else if (argv[i][0] != '-' && given < 2) {
            *(given++ == 0 ? &out->job : &out->folder) = argv[i];
        } else {
            return false;
        }
    }
    return given == 2 && out->nodes > 0 && out->workers > 0 && out->configurations > 0 &&
           out->configurations <= SEARCH_CANDIDATES_MAX && tree_policy_find(out->policy) != NULL;
}

int main(int argc, char **argv)
{
    struct choices choices;
    if (!read_choices(argc, argv, &choices)) {
        fputs("usage: bench_controller JOB FOLDER [--nodes N] [--workers N] [--configurations N] "
              "[--policy NAME]\n",
              stderr);
        return 2;
    }
    struct job job;
    struct json_problems problems;
    json_problems_init(&problems);
    MUST(job_read(choices.job, choices.folder, &problems, &job, &err));
    struct window windows[8];
    int count = plan_windows(choices.nodes, windows);
    job.policy = tree_policy_find(choices.policy);
    job.configurations = choices.configurations;
    job.rounds = count > 0 ? windows[count - 1].last : choices.nodes;
    struct log log;
    struct model *model = NULL;
    struct workspace workspace;
    struct store_lock *lock = NULL;
    struct controller *controller = NULL;
    struct mailbox mailbox = {0};
    int *leaders = mem_calloc((size_t)choices.workers, sizeof(*leaders));
    char log_path[FILE_PATH_BYTES];
    log_init(&log, NULL, 0, LOG_INFO);
    MUST(model_inspect(job.model, &model, &err));
    MUST(store_folder_lock(job.output, &lock, &err));
    MUST(file_join(job.output, "log.jsonl", log_path, &err));
    MUST(log_open(&log, log_path, &err));
    workspace_init(&job, 1, &log, &workspace);
    for (int i = 0; i < choices.workers; i++) {
        leaders[i] = i + 1;
        say_hello(&mailbox, i + 1);
    }
    const struct controller_options options = {
        .job = &job,
        .mailbox = &mailbox,
        .log = &log,
        .leaders = leaders,
        .leader_count = choices.workers,
        .ranks_per_candidate = 1,
        .threads = 1,
        .node_workers = choices.workers,
        .ranks = choices.workers + 1,
        .nodes = 1,
        .deadline = deadline_never(),
        .workspace = &workspace,
        .simulated = true,
        .measure = true,
        .model = model,
    };
    double begun_s = clock_monotonic_s();
    MUST(controller_create(&options, &controller, &err));
    run_search(controller, &mailbox, &job, choices.workers, choices.nodes);
    double seconds = clock_monotonic_s() - begun_s;
    print_end(job.output, seconds);
    serve(&mailbox, &job);
    controller_destroy(controller);
    store_folder_unlock(lock);
    workspace_close(&workspace);
    model_destroy(model);
    log_close(&log);
    free(leaders);
    job_fini(&job);
    json_problems_fini(&problems);
    return 0;
}
