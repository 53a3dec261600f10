#include "run/launch.h"

#include <limits.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "run/controller.h"
#include "run/group.h"
#include "run/stop.h"
#include "run/worker.h"
#include "store/store.h"

static const double idle_nap_min_s = 5e-5;
static const double idle_nap_max_s = 2e-3;
static const double farewell_s = 5.0;
static const double heed_s = 1.0; /* for rank 0 to write down what it was told last */

/* Everything one rank holds while the search runs. */
struct launch {
    struct job job;
    double simulate_s; /* 0: candidates are trained */
    const char *replay_folder;
    bool prefetch;
    struct log log;
    struct log worker_log; /* to the file alone: people read the controller's reports */
    struct group_layout layout;
    int threads;
    struct mailbox *mailbox;
    struct deadline deadline;      /* of the allocation: of the wall clock, read once */
    double died_s;                 /* rank 0: last sign of life of the folder's last owner */
    struct store_lock *lock;       /* rank 0 */
    struct machine machine;        /* of the workers */
    struct workspace workspace;    /* rank 0: for the splits */
    struct model *model;           /* rank 0: inspected */
    int *leaders;                  /* rank 0 */
    struct controller *controller; /* rank 0 */
    double turned_s, longest_s;    /* rank 0: its last turn, the longest time without one */
    struct worker *worker;         /* ranks that work */
};

/* ---- what the launcher says ---- */

/* The count that an environment variable begins with ("4", "4,2"), 0 if there is none. */
static int count_from_environment(const char *name)
{
    const char *text = getenv(name);
    char *end = NULL;
    long count = text != NULL ? strtol(text, &end, 10) : 0;
    bool fits = count > 0 && count <= INT_MAX && (*end == '\0' || *end == ',');
    return fits ? (int)count : 0;
}

int launch_threads(const struct job *job, int node_workers)
{
    if (job->threads > 0) {
        return job->threads;
    }
    cpu_set_t set;
    CPU_ZERO(&set);
    int allowed = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
    int online = (int)sysconf(_SC_NPROCESSORS_ONLN);
    int threads = count_from_environment("OMP_NUM_THREADS");
    threads = threads > 0 ? threads : count_from_environment("SLURM_CPUS_PER_TASK");
    threads = threads > 0 ? threads : online / (node_workers > 0 ? node_workers : 1);
    threads = threads < allowed ? threads : allowed;
    return threads > 0 ? threads : 1;
}

enum status launch_check_size(int size, struct error *err)
{
    /* The nearest launcher comes first: mpirun's own ranks may stand in a step of Slurm. */
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};
    int started = 0;
    size_t i = 0;
    while (i < sizeof(names) / sizeof(names[0]) &&
           (started = count_from_environment(names[i])) == 0) {
        i++;
    }
    if (size > 1 || started <= 1) {
        return STATUS_OK;
    }
    return FAIL(err, STATUS_INVALID,
                "MPI knows of %d rank, but %d were started (%s): launcher and MPI do not fit, and "
                "every rank would be a search of its own in the same folder; try srun --mpi=pmix "
                "(srun --mpi=list names what there is), or the mpirun of the MPI that trex was "
                "built with (trex version)",
                size, started, names[i]);
}

struct deadline launch_deadline(const char *text, double wall_s)
{
    const double wrong_s = 3600.0;
    char *end = NULL;
    double end_s = text != NULL ? strtod(text, &end) : 0.0;
    bool fits = isfinite(end_s) && end_s > 0.0 && *end == '\0';
    bool believable =
        end_s - wall_s > -wrong_s; /* else the clock is wrong: Slurm would have acted */
    return fits && believable ? deadline_after(end_s - wall_s) : deadline_never();
}

/* ---- rank 0 ---- */

/* When a file of the run folder was last written that its owner keeps writing; 0: never. */
static double last_sign_of_life(const char *folder)
{
    static const char *const names[] = {"lock", "journal.jsonl", "log.jsonl"};
    double latest_s = 0.0;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[FILE_PATH_BYTES];
        struct error ignored;
        struct stat info;
        if (file_join(folder, names[i], path, &ignored) == STATUS_OK && stat(path, &info) == 0) {
            latest_s = fmax(latest_s, (double)info.st_mtim.tv_sec);
        }
    }
    return latest_s;
}

static enum status open_folder(struct launch *launch, struct error *err)
{
    char path[FILE_PATH_BYTES];
    launch->died_s = last_sign_of_life(launch->job.output);
    TRY(store_folder_lock(launch->job.output, &launch->lock, err));
    TRY(file_join(launch->job.output, "log.jsonl", path, err));
    TRY(log_open(&launch->log, path, err));
    if (launch->layout.size == 1) {
        launch->worker_log.fd = dup(launch->log.fd);
    }
    return STATUS_OK;
}

static enum status open_controller(struct launch *launch, struct error *err)
{
    const struct job *job = &launch->job;
    int groups = launch->layout.groups;
    launch->leaders = mem_calloc((size_t)groups + 1, sizeof(*launch->leaders));
    if (launch->leaders == NULL) {
        return mem_fail(err, (size_t)groups * sizeof(int), "ranks");
    }
    for (int i = 0; i < groups; i++) {
        launch->leaders[i] = group_leader(launch->layout.size, job->ranks_per_candidate, i);
    }
    TRY(model_inspect(job->model, &launch->model, err));
    TRY(workspace_check_chat(job, launch->model, err));
    workspace_init(job, launch->threads, &launch->log, &launch->workspace);
    const struct controller_options options = {
        .job = job,
        .mailbox = launch->mailbox,
        .log = &launch->log,
        .lock = launch->lock,
        .leaders = launch->leaders,
        .leader_count = groups,
        .ranks_per_candidate = job->ranks_per_candidate,
        .threads = launch->threads,
        .node_workers = launch->layout.node_workers,
        .ranks = launch->layout.size,
        .nodes = launch->layout.nodes,
        .deadline = launch->deadline,
        .died_s = launch->died_s,
        .workspace = &launch->workspace,
        .machine = launch->machine,
        .simulated = launch->simulate_s > 0.0,
        .model = launch->model,
        .replay_folder = launch->replay_folder,
        .prefetch = launch->prefetch,
    };
    return controller_create(&options, &launch->controller, err);
}

/* ---- every rank ---- */

/* Hundreds of ranks may share a node while rank 0 opens a large run: they nap the longer, the
 * longer they have waited. */
static enum status wait_asleep(MPI_Request *request, struct error *err)
{
    const double first_nap_s = 1e-5;
    const double longest_nap_s = 2e-2;
    double nap_s = first_nap_s;
    for (;;) {
        int done = 0;
        TRY_MPI(MPI_Test(request, &done, MPI_STATUS_IGNORE));
        if (done) {
            return STATUS_OK;
        }
        clock_sleep_s(nap_s);
        nap_s = nap_s * 1.5 < longest_nap_s ? nap_s * 1.5 : longest_nap_s;
    }
}

/* All ranks go on only if all can. A rank that cannot returns its own error, the others that of
 * rank 0. */
static enum status agree(int rank, enum status mine, struct error *err)
{
    int own = (int)mine;
    int worst = own;
    MPI_Request request;
    TRY_MPI(MPI_Iallreduce(&own, &worst, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD, &request));
    TRY(wait_asleep(&request, err));
    if (worst == (int)STATUS_OK || mine != STATUS_OK) {
        return mine;
    }
    return rank == 0 ? FAIL(err, (enum status)worst,
                            "a worker could not start (%s); see the "
                            "messages of the other ranks",
                            status_text((enum status)worst))
                     : (enum status)worst;
}

/* A rank that works opens its device; rank 0, unless it is alone, takes none. */
static enum status open_worker(struct launch *launch, struct error *err)
{
    const struct worker_options options = {
        .job = &launch->job,
        .mailbox = launch->mailbox,
        .log = &launch->worker_log,
        .threads = launch->threads,
        .place = launch->layout.node_place,
        .workers = launch->layout.size / launch->job.ranks_per_candidate,
        .peers = launch->layout.peers,
        .simulate_s = launch->simulate_s,
    };
    return launch->layout.group >= 0 ? worker_create(&options, &launch->worker, err) : STATUS_OK;
}

/* Rank 0 makes the folder; the others then write to the same log. */
static enum status open_log(struct launch *launch, struct error *err)
{
    char path[FILE_PATH_BYTES];
    TRY(file_join(launch->job.output, "log.jsonl", path, err));
    return log_open(&launch->worker_log, path, err);
}

/* The first worker's machine speaks for all. It is measured only where a limit of time needs it:
 * plans then depend on it. Collective. */
static enum status share_machine(struct launch *launch, struct error *err)
{
    int first = group_leader(launch->layout.size, launch->job.ranks_per_candidate, 0);
    enum status status = STATUS_OK;
    if (launch->layout.rank == first) {
        bool speed = launch->job.candidate_seconds > 0.0;
        status = worker_machine(launch->worker, speed, &launch->machine, err);
    }
    TRY(agree(launch->layout.rank, status, err));
    return machine_share(MPI_COMM_WORLD, first, &launch->machine, err);
}

/* One turn of rank 0. Who watches the others is watched itself: where turns no longer come, an
 * alarm ends the process, and with it the job, to be started again. */
static enum status turn(struct launch *launch, bool *done, struct error *err)
{
    const double often_s = 1.0;
    const double gaps_allowed = 5.0;
    double now_s = clock_monotonic_s();
    if (launch->turned_s == 0.0 || now_s - launch->turned_s >= often_s) {
        double gap_s = launch->turned_s > 0.0 ? now_s - launch->turned_s : 0.0;
        launch->longest_s = fmax(launch->longest_s, gap_s);
        launch->turned_s = now_s;
        if (launch->job.watchdog_seconds > 0.0) {
            stop_watch(2.0 * often_s +
                       fmax(launch->job.watchdog_seconds, gaps_allowed * launch->longest_s));
        }
    }
    return controller_turn(launch->controller, done, err);
}

/* The same, called from the worker's steps when one rank is both. */
static enum status take_turn(void *context, struct error *err)
{
    bool done = false;
    return turn(context, &done, err);
}

static enum status run_alone(struct launch *launch, struct error *err)
{
    worker_set_turn(launch->worker, take_turn, launch);
    TRY(worker_hello(launch->worker, err));
    bool done = false;
    while (!done) {
        bool quit = false;
        TRY(turn(launch, &done, err));
        enum status status = worker_step(launch->worker, &quit, err);
        while (status == STATUS_DEVICE && !done) { /* it has told of that, and ends what it began */
            TRY(turn(launch, &done, err));
        }
        TRY(status);
        clock_sleep_s(idle_nap_min_s);
    }
    return controller_outcome(launch->controller);
}

static enum status run_controller(struct launch *launch, struct error *err)
{
    double nap_s = idle_nap_min_s;
    bool done = false;
    while (!done) {
        int64_t before = controller_search(launch->controller)->last_sequence;
        TRY(turn(launch, &done, err));
        bool moved = controller_search(launch->controller)->last_sequence != before;
        nap_s = moved ? idle_nap_min_s : nap_s * 1.5;
        nap_s = nap_s > idle_nap_max_s ? idle_nap_max_s : nap_s;
        clock_sleep_s(nap_s);
    }
    return controller_outcome(launch->controller);
}

/* A controller that fails sends its workers home before it says why. */
static void dismiss_workers(struct launch *launch)
{
    for (int i = 0; i < launch->layout.groups && launch->leaders != NULL; i++) {
        struct message message = {.header = {.kind = MESSAGE_QUIT}};
        struct error ignored = {0};
        mailbox_send(launch->mailbox, launch->leaders[i], MESSAGE_TO_WORKER, &message, &ignored);
    }
}

static enum status run_rank(struct launch *launch, struct error *err)
{
    if (launch->layout.size == 1) {
        return run_alone(launch, err);
    }
    if (launch->layout.rank > 0) {
        return worker_run(launch->worker, err);
    }
    enum status status = run_controller(launch, err);
    if (status != STATUS_OK && status != STATUS_INTERRUPTED) {
        dismiss_workers(launch);
    }
    return status;
}

/* ---- beginning and end ---- */

static enum status check_layout(const struct launch *launch, struct error *err)
{
    int workers = launch->layout.size > 1 ? launch->layout.size - 1 : 1;
    if (launch->job.ranks_per_candidate > workers) {
        return FAIL(err, STATUS_INVALID,
                    "%s: /compute/ranks_per_candidate is %d, but the job has %d ranks that train; "
                    "start %d ranks or more",
                    launch->job.path, launch->job.ranks_per_candidate, workers,
                    launch->job.ranks_per_candidate + 1);
    }
    return STATUS_OK;
}

/* The other ranks of a group may wait for this one's device in theirs, where no message reaches
 * them: the job ends, and the batch script starts it again. The controller has been told why. */
static void abort_group(struct launch *launch, const struct error *err)
{
    log_write(&launch->worker_log, LOG_ERROR, "run", "%s", err->message);
    mailbox_destroy(launch->mailbox, farewell_s);
    clock_sleep_s(heed_s);
    MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
}

/* Workers that were not waited for would be at MPI's end: they are dead, hang, or the time limit is
 * near. Everything is on disk. */
static void leave_workers(struct launch *launch, enum status status)
{
    log_write(
        &launch->log, LOG_WARNING, "run",
        "not all workers saved their state; those candidates go on from their last checkpoint");
    store_folder_unlock(launch->lock); /* it is left in order */
    launch->lock = NULL;
    MPI_Abort(MPI_COMM_WORLD, launch_exit_code(status));
}

int launch_exit_code(enum status status)
{
    switch (status) {
    case STATUS_OK:
        return EXIT_SUCCESS;
    case STATUS_INTERRUPTED:
        return LAUNCH_EXIT_RESUMABLE;
    case STATUS_NO_SPACE:
    case STATUS_IO:
    case STATUS_PERMISSION:
        return LAUNCH_EXIT_DISK;
    default:
        return EXIT_FAILURE;
    }
}

static void close_launch(struct launch *launch)
{
    /* Ranks that have been sent home may never come to MPI's end. */
    stop_watch(launch->job.watchdog_seconds);
    controller_destroy(launch->controller);
    worker_destroy(launch->worker);
    mailbox_destroy(launch->mailbox, farewell_s);
    model_destroy(launch->model);
    if (launch->workspace.job != NULL) {
        workspace_close(&launch->workspace);
    }
    store_folder_unlock(launch->lock);
    group_fini(&launch->layout);
    log_close(&launch->log);
    log_close(&launch->worker_log);
    free(launch->leaders);
    job_fini(&launch->job);
}

/* Rank 0's clients have read them. */
static void forget_keys(struct launch *launch, struct secrets *secrets)
{
    if (secrets_known(secrets)) {
        log_write(&launch->log, LOG_DEBUG, "run", "rank 0 knows a key: it writes no core dump");
        secrets_forget(secrets, false);
    }
}

/* Reads the job on every rank; only rank 0 tells of its mistakes. */
static enum status open_job(struct launch *launch, const struct launch_options *options,
                            struct json_problems *problems, int rank, struct error *err)
{
    enum log_level level = options->verbose ? LOG_DEBUG : options->quiet ? LOG_WARNING : LOG_INFO;
    log_init(&launch->log, rank == 0 ? stderr : NULL, rank, level);
    log_init(&launch->worker_log, NULL, rank, level);
    return job_read(options->job_path, options->out_folder, problems, &launch->job, err);
}

/* Devices first, so that a job that cannot run leaves no folder behind. Collective. */
static enum status open_all(struct launch *launch, struct error *err)
{
    int rank = launch->layout.rank;
    TRY(agree(rank, open_worker(launch, err), err));
    TRY(agree(rank, rank == 0 ? open_folder(launch, err) : STATUS_OK, err));
    TRY(agree(rank, rank > 0 ? open_log(launch, err) : STATUS_OK, err));
    if (launch->worker != NULL) {
        TRY(worker_connect(launch->worker, err));
    }
    TRY(share_machine(launch, err));
    return agree(rank, rank == 0 ? open_controller(launch, err) : STATUS_OK, err);
}

enum status launch_search(const struct launch_options *options, struct json_problems *problems,
                          enum launch_reached *reached, struct error *err)
{
    *reached = LAUNCH_NOTHING;
    struct launch launch;
    memset(&launch, 0, sizeof(launch));
    launch.log.fd = -1;
    launch.simulate_s = options->simulate_s;
    launch.replay_folder = options->replay_folder;
    launch.deadline = launch_deadline(getenv("TREX_DEADLINE"), clock_wall_s());
    int rank = 0;
    TRY_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    int size = 1;
    TRY_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &rank));
    TRY_MPI(MPI_Comm_size(MPI_COMM_WORLD, &size));
    TRY(launch_check_size(size, err));
    enum status status = open_job(&launch, options, problems, rank, err);
    TRY_CLEANUP(agree(rank, status, err));
    TRY_CLEANUP(group_create(launch.job.ranks_per_candidate, &launch.layout, err));
    TRY_CLEANUP(check_layout(&launch, err));
    launch.threads = launch_threads(&launch.job, launch.layout.node_workers);
    TRY_CLEANUP(mailbox_create(MPI_COMM_WORLD, &launch.mailbox, err));
    stop_install_rank(rank);
    TRY_CLEANUP(open_all(&launch, err));
    forget_keys(&launch, options->secrets);
    *reached = LAUNCH_SEARCH;
    status = run_rank(&launch, err);
    if ((status == STATUS_DEVICE || status == STATUS_MPI) && launch.layout.peers != NULL) {
        abort_group(&launch, err);
    }
    if (rank == 0 && size > 1 && controller_leaves_workers(launch.controller)) {
        leave_workers(&launch, status);
    }
cleanup:
    if (*reached == LAUNCH_NOTHING && launch.lock != NULL) {
        *reached = LAUNCH_FOLDER;
    }
    close_launch(&launch);
    return status;
}

/* ---- without workers ---- */

static enum status check_prefetch(const struct job *job, struct error *err)
{
    const struct job_researcher *asked = &job->researcher;
    const char *why = NULL;
    if (asked->endpoint_count == 0) {
        why = "its researcher (rules) asks nobody";
    } else if (strcmp(asked->endpoints[0].provider, "local") == 0) {
        why = "its local model is run by the job's own ranks";
    } else if (asked->network == JOB_NETWORK_OFF) {
        why = "its researcher.network is \"off\"";
    }
    return why == NULL ? STATUS_OK
                       : FAIL(err, STATUS_UNSUPPORTED, "%s: there is nothing to prefetch: %s",
                              job->path, why);
}

static enum status prefetch(struct launch *launch, struct error *err)
{
    launch->threads = 1;
    launch->layout.size = 1;
    launch->layout.nodes = 1;
    launch->layout.node_workers = 1;
    launch->machine.precision = TRAIN_F32;
    TRY(check_prefetch(&launch->job, err));
    TRY(open_folder(launch, err));
    return open_controller(launch, err);
}

enum status launch_prefetch(const struct launch_options *options, struct json_problems *problems,
                            enum launch_reached *reached, struct error *err)
{
    *reached = LAUNCH_NOTHING;
    struct launch launch;
    memset(&launch, 0, sizeof(launch));
    launch.log.fd = -1;
    launch.prefetch = true;
    launch.deadline = launch_deadline(getenv("TREX_DEADLINE"), clock_wall_s());
    enum status status = open_job(&launch, options, problems, 0, err);
    TRY_CLEANUP(status);
    stop_install_rank(0);
    TRY_CLEANUP(prefetch(&launch, err));
    forget_keys(&launch, options->secrets);
    *reached = LAUNCH_SEARCH;
    status = run_controller(&launch, err);
cleanup:
    if (*reached == LAUNCH_NOTHING && launch.lock != NULL) {
        *reached = LAUNCH_FOLDER;
    }
    close_launch(&launch);
    return status;
}
