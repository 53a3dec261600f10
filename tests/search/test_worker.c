/* A worker on one rank, told what to do by messages: it stops at the step that it is told, and says
 * how long its work takes. The candidates are simulated. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "run/simulated.h"
#include "run/worker.h"

static const double order_s = 0.4; /* of a whole candidate */

struct world {
    char folder[64];
    char metric[16];
    struct job job;
    struct log log;
    struct mailbox *mailbox;
    struct worker *worker;
};

static void world_init(struct world *w)
{
    struct error err = {0};
    memset(w, 0, sizeof(*w));
    strcpy(w->folder, "/tmp/trex-test-worker-XXXXXX");
    strcpy(w->metric, "accuracy");
    assert_non_null(mkdtemp(w->folder));
    char path[FILE_PATH_BYTES];
    assert_int_equal(file_join(w->folder, "inflight", path, &err), STATUS_OK);
    assert_int_equal(file_make_folders(path, &err), STATUS_OK);
    w->job = (struct job){.seed = 3, .checkpoint_seconds = 100.0, .task = {.metric = w->metric}};
    w->job.output = w->folder;
    log_init(&w->log, NULL, 0, LOG_ERROR);
    assert_int_equal(mailbox_create(MPI_COMM_SELF, &w->mailbox, &err), STATUS_OK);
    const struct worker_options options = {
        .job = &w->job, .mailbox = w->mailbox, .log = &w->log, .threads = 1, .simulate_s = order_s};
    assert_int_equal(worker_create(&options, &w->worker, &err), STATUS_OK);
}

static void world_fini(struct world *w)
{
    char command[128];
    worker_destroy(w->worker);
    mailbox_destroy(w->mailbox, 1.0);
    log_close(&w->log);
    snprintf(command, sizeof(command), "rm -r %s", w->folder);
    assert_int_equal(system(command), 0);
}

static void tell(struct world *w, enum message_kind kind, int64_t done, const char *payload)
{
    struct error err = {0};
    struct message message = {
        .header = {.kind = (uint32_t)kind, .node = 2, .candidate = 1, .done = done},
        .payload = payload != NULL ? cJSON_Parse(payload) : NULL,
    };
    assert_int_equal(mailbox_send(w->mailbox, 0, MESSAGE_TO_WORKER, &message, &err), STATUS_OK);
}

static const char train_order[] =
    "{\"work\": \"train\", \"recipe\": [], \"config\": {\"learning_rate\": 0.001}}";

/* What came back: the last PROGRESS, and the answer. */
struct heard {
    int64_t messages;
    struct message_header progress;
    enum message_kind answer;
    int64_t steps_done; /* of the answer; -1: it does not say */
};

static struct heard listen(struct world *w)
{
    struct heard heard = {.answer = MESSAGE_KIND_COUNT, .steps_done = -1};
    struct error err = {0};
    struct deadline deadline = deadline_after(30.0);
    while (heard.answer == MESSAGE_KIND_COUNT && !deadline_passed(deadline)) {
        bool came = false;
        struct message message;
        assert_int_equal(mailbox_receive(w->mailbox, MESSAGE_TO_CONTROLLER, &came, &message, &err),
                         STATUS_OK);
        if (!came) {
            continue;
        }
        heard.messages++;
        if (message.header.kind == MESSAGE_PROGRESS) {
            heard.progress = message.header;
        } else {
            const cJSON *steps = cJSON_GetObjectItemCaseSensitive(message.payload, "steps_done");
            heard.answer = (enum message_kind)message.header.kind;
            heard.steps_done = steps != NULL ? (int64_t)steps->valuedouble : -1;
        }
        message_fini(&message);
    }
    return heard;
}

/* One order, and a stop that waits for it: at `step`, and then, if not -1, at `again`. */
static struct heard stop_at(struct world *w, int64_t step, int64_t again)
{
    bool done = true;
    struct error err = {0};
    tell(w, MESSAGE_ORDER, 0, train_order);
    tell(w, MESSAGE_STOP, step, NULL);
    if (again >= 0) {
        tell(w, MESSAGE_STOP, again, NULL);
    }
    assert_int_equal(worker_step(w->worker, &done, &err), STATUS_OK);
    assert_false(done);
    return listen(w);
}

static void test_it_stops_at_the_step_it_is_told(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct heard heard = stop_at(&w, 7, -1);
    assert_int_equal(heard.answer, MESSAGE_SUSPENDED);
    assert_int_equal(heard.steps_done, 7);
    assert_true(heard.messages < 7); /* it says that it heard, and not at every step */

    heard = stop_at(&w, 3, -1); /* passed already: at once, where it was */
    assert_int_equal(heard.answer, MESSAGE_SUSPENDED);
    assert_int_equal(heard.steps_done, 7);

    heard = stop_at(&w, 30, 12); /* the last word counts */
    assert_int_equal(heard.answer, MESSAGE_SUSPENDED);
    assert_int_equal(heard.steps_done, 12);

    heard = stop_at(&w, 0, -1);
    assert_int_equal(heard.answer, MESSAGE_SUSPENDED);
    assert_int_equal(heard.steps_done, 12);

    heard = stop_at(&w, 1000000, -1); /* behind its end: it finishes, unless it is evaluating */
    assert_true(heard.answer == MESSAGE_SUSPENDED || heard.answer == MESSAGE_RESULT);
    assert_int_equal(heard.steps_done, SIMULATED_STEPS);
    world_fini(&w);
}

static void test_it_tells_its_pace(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    bool done = false;
    struct error err = {0};
    w.job.checkpoint_seconds = 0.05; /* so that it saves now and then */
    tell(&w, MESSAGE_ORDER, 0, train_order);
    assert_int_equal(worker_step(w.worker, &done, &err), STATUS_OK);
    struct heard heard = listen(&w);
    assert_int_equal(heard.answer, MESSAGE_RESULT);
    assert_true(heard.progress.step_s > 0.0 && heard.progress.step_s < 30.0);
    assert_true(heard.progress.gap_s >= heard.progress.step_s * 0.9);
    assert_true(heard.progress.gap_s < 30.0);
    world_fini(&w);
}

static void test_quit_ends_it(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    bool done = false;
    struct error err = {0};
    tell(&w, MESSAGE_ORDER, 0, train_order);
    tell(&w, MESSAGE_QUIT, 0, NULL);
    assert_int_equal(worker_step(w.worker, &done, &err), STATUS_OK);
    assert_false(done);
    assert_int_equal(listen(&w).answer, MESSAGE_SUSPENDED);
    assert_int_equal(worker_step(w.worker, &done, &err), STATUS_OK);
    assert_true(done);
    world_fini(&w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_stops_at_the_step_it_is_told),
        cmocka_unit_test(test_it_tells_its_pace),
        cmocka_unit_test(test_quit_ends_it),
    };
    MPI_Init(&argc, &argv);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    MPI_Finalize();
    return failed;
}
