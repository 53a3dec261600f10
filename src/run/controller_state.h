/* The controller's inside, shared by controller*.c alone.
 *
 *   controller.c           create, turn
 *   controller_open.c      begins a search, or goes on from what the folder holds
 *   controller_message.c   what workers say
 *   controller_events.c    event -> journal -> search_apply -> what follows from it
 *   controller_plan.c      select, ask for plans, close a round
 *   controller_agents.c    the turn of calls and researcher; planning ahead
 *   controller_replay.c    the plans and the order of another search
 *   controller_trial.c     a plan from its arrival until it is a node: checks, dry run, repair
 *   controller_calls.c     calls that a worker answers: dry runs, questions to a local model
 *   controller_dispatch.c  orders to workers
 *   controller_workers.c   which rank is which worker; who is free, busy
 *   controller_stop.c      from the wish to stop to the end
 *   controller_watch.c     ranks that died or hang, answers that never come: incidents
 *   controller_weights.c   the best candidates' weights stay, the others go
 *   controller_finish.c    winner, test split, end
 *   controller_report.c    progress for people */
#ifndef RUN_CONTROLLER_STATE_H
#define RUN_CONTROLLER_STATE_H

#include <sys/types.h>
#include <time.h>

#include "agents/calls.h"
#include "agents/executor.h"
#include "base/clock.h"
#include "run/ahead.h"
#include "run/asking.h"
#include "run/controller.h"
#include "run/limit.h"
#include "run/requests.h"
#include "store/control.h"
#include "store/store.h"
#include "tree/search.h"

/* WORK_DRY, WORK_ASK: a call that this worker answers (controller_calls.c). */
enum work { WORK_NONE, WORK_TRAIN, WORK_TEST, WORK_DRY, WORK_ASK };

struct controller_worker {
    int rank;
    bool present; /* it has said HELLO */
    enum work work;
    int32_t node, candidate; /* of its work; the id of a call, and -1 */
    int32_t phase;
    int64_t done, total;
    struct limit_worker times; /* as PROGRESS told them */
    double heard_s;            /* when its last message came, or its order left */
    double quiet_s;            /* longest time between two messages while it had work */
    char host[64];
    bool lost;   /* it died or hangs: nothing is expected of it any more */
    bool guilty; /* and its candidate has to answer for it */
    /* Of its order: */
    double ordered_s;
    double trains_s, trained_s; /* when its first and its last step were told of; 0: not yet */
    bool trainable;             /* it is a training, which can be cut and saved */
    enum train_method method;
    double tokens; /* that its training takes, judged by its configuration */
    double step_s; /* of its training, as foreseen; 0: it trains nothing; negative: not known */
};

/* An event that is written but not yet known to be on disk. */
struct pending_event {
    int64_t sequence;
    double written_s;
    bool outcome;
    struct pending_event *next;
};

struct rank_call;
struct trial;
struct held_event;

struct candidate_id {
    int32_t node, candidate;
};

/* What is known of control.json. */
struct controller_control {
    double looked_s; /* monotonic */
    int failure;     /* errno of the last look; then what it saw */
    ino_t inode;
    off_t size;
    struct timespec written;
    struct store_control wish; /* the last that could be read */
    int64_t limits_sequence;   /* of the last limits_set */
    char reason[256];
};

struct controller {
    struct controller_options options;
    struct search search;
    struct journal *journal;
    struct snapshot *snapshot;
    struct researcher *researcher;
    struct calls *calls; /* NULL: nobody asks anything (rules) */
    struct asking asking;
    struct model *speaker;        /* of provider "local", inspected; NULL: there is none */
    struct call_transport replay; /* of options.replay_folder; calls owns it */
    struct search recorded;       /* likewise */
    struct rank_call *rank_calls; /* in the order in which they were asked */
    struct trial *trials;         /* likewise */
    struct ahead ahead;
    bool setting_ahead; /* an ahead_set event is under way */
    bool silenced;      /* it was told that the local model is asked no more */
    struct researcher_facts facts;
    char checksum[HASH_TEXT_BYTES]; /* of the base model's weights, "": not known yet */
    struct executor_limits limits;
    struct plan_set tried; /* configurations that the search holds, or that are being recorded */

    struct controller_worker *workers;
    int *index_of_rank; /* of the worker at a rank, -1: none is there */
    int rank_count;
    int *free_workers; /* those that are present and have no work: last in, first out */
    int free_count, busy_count;
    struct pending_event *first_pending, *last_pending;
    int64_t next_sequence;
    int64_t pending_outcomes;
    int32_t closing;    /* node_closed events under way */
    int32_t planning;   /* node_planned events under way */
    int32_t requesting; /* plan_requested events under way */

    struct candidate_id *ready; /* first in, first out, from ready_first to ready_count */
    int64_t ready_first, ready_count, ready_capacity;
    int64_t
        unfinished; /* candidates of open nodes that have neither finished nor failed, on disk */
    int32_t open_count; /* nodes */
    int32_t *settled;   /* open nodes whose candidates are all back */
    int32_t settled_count, settled_capacity;

    struct candidate_id *kept; /* candidates whose weights are on disk */
    int64_t kept_count, kept_capacity;
    bool dropping; /* a weights_dropped event is under way */

    int plans_pending; /* requested from the researcher or being recorded */
    struct requests requests;
    bool astray;             /* a replay that does not go the recorded search's way any more */
    struct held_event *held; /* events of a replay that wait for their turn, in order */
    bool dry;                /* the researcher has nothing more to propose */
    const char *end_reason;  /* decided, not yet recorded; NULL: going on */
    bool test_root_sent, test_winner_sent, finish_recorded;
    int32_t winner_node, winner_candidate;

    struct controller_control control;
    const char *halt;        /* somebody wants it to stop: when and who, in words; NULL: nobody */
    struct deadline halt_by; /* all should be safe by then; never: nobody wants that */
    bool no_new_rounds;      /* open ones end */

    /* Time (controller_stop.c, controller_dispatch.c). */
    struct limit_speed speed;
    double drain_s, drain_at_s; /* what controller_drain_s said last, and when */
    double journal_s;           /* longest time from an event to the disk */
    char load_note[1024];       /* what was wrong with the files when the folder was opened */
    int32_t earlier;            /* allocations before this one */
    bool fresh;                 /* nothing was started in this allocation yet */
    bool refused;               /* nothing that waits can start in the time that is left ... */
    double refused_s;           /* ... as it was then */

    bool stopping;
    bool done;
    enum status outcome;
    struct error failure;  /* why it stops, if that is a failure */
    char stop_reason[512]; /* for the record */
    double predicted_s;    /* from stop_asked_s until all is safe */
    double patience_s;     /* likewise, at the most */
    double term_s; /* when SIGTERM was seen, and all that had come by then was read; 0: no */
    double watched_s, wall_offset_s;
    bool disk_told; /* the incident of a snapshot that failed; until one succeeds */
    double started_s, stop_asked_s, snapshot_at_s, reported_at_s, recorded_time_s;
    int64_t snapshot_sequence;
    double thread_begun_s; /* its thread's own time at the start */
    struct controller_times times;
};

/* ---- controller_open.c ---- */
enum status controller_open(struct controller *c, struct error *err);

/* A worker has read the base model's weights: their checksum is recorded, once. */
enum status controller_record_checksum(struct controller *c, const char *checksum,
                                       struct error *err);

/* ---- controller_message.c ---- */
enum status controller_read_messages(struct controller *c, struct error *err);

/* ---- controller_stop.c ---- */
/* Whether the search should stop: a signal, or c->halt. */
enum status controller_check_stop(struct controller *c, struct error *err);
/* Whether it has ended, or has stopped. */
enum status controller_check_end(struct controller *c, struct error *err);
/* Workers are told to stop; the reason is what the allocation's end says. failure: what the search
 * ends with when all is safe, NULL: it can simply be resumed. Nothing if it stops already. */
enum status controller_begin_stop(struct controller *c, const struct error *failure,
                                  struct error *err, const char *format, ...) BASE_PRINTF(4, 5);
/* How long a stop would take if it began now, at the most. */
double controller_drain_s(const struct controller *c);
/* Until the time limit or a halt that somebody wants; infinite without either. */
double controller_left_s(const struct controller *c);

/* ---- controller_watch.c ---- */
/* Hung ranks, agents that never answer, jumps of the clock; once a second. */
enum status controller_watch(struct controller *c, struct error *err);
/* While it stops after SIGTERM: launchers send that when a rank has died, and the rank that says
 * nothing is the one. Seconds later they kill rank 0 too: it blames as soon as it can be sure. */
enum status controller_find_dead_rank(struct controller *c, struct error *err);
/* A worker has lost its device: the others save their work, and the search ends with the failure.
 */
enum status controller_lose_device(struct controller *c, int index, const struct error *failure,
                                   struct error *err);
/* Something that a reader of the run should know; also logged. */
enum status controller_incident(struct controller *c, const char *kind, struct error *err,
                                const char *format, ...) BASE_PRINTF(4, 5);
/* Seconds from the last save of a candidate's state to a moment; NaN if there is none. */
double controller_saved_before_s(const struct controller *c, int32_t node, int32_t candidate,
                                 double wall_s);

/* ---- controller_events.c ---- */
/* A new event object of a kind, with node and candidate unless they are negative. */
cJSON *controller_event(const char *kind, int32_t node, int32_t candidate);
/* A member that is a text for people: what is no UTF-8, as a message that was cut in the middle of
 * a character, is replaced. */
void controller_add_text(cJSON *event, const char *key, const char *text);
/* A candidate_failed event. log_tail may be "". */
cJSON *controller_failure(int32_t node, int32_t candidate, const struct error *failure,
                          const char *log_tail, double rank_seconds);
/* Numbers it, hands it to the journal, keeps it until it is on disk. Takes it. */
enum status controller_emit(struct controller *c, cJSON *event, struct error *err);
/* The same at once, whatever the turn. */
enum status controller_write(struct controller *c, cJSON *event, struct error *err);
/* Applies what has reached the disk. */
enum status controller_apply_durable(struct controller *c, struct error *err);
/* Writes down how long this allocation has lasted. */
enum status controller_record_time(struct controller *c, struct error *err);
/* The last words of an allocation: how long it lasted and why it ended. Spans NaN: none. */
enum status controller_record_end(struct controller *c, const char *reason, double predicted_s,
                                  double safe_s, struct error *err);
/* Starts a snapshot now and then. One that fails is told of and tried again later: the journal has
 * everything. */
enum status controller_snapshot(struct controller *c, struct error *err);
/* The one at the end; waits. */
enum status controller_last_snapshot(struct controller *c, struct error *err);

/* ---- controller_plan.c ---- */
enum status controller_close_rounds(struct controller *c, struct error *err);
enum status controller_plan(struct controller *c, struct error *err);
enum status controller_collect_plans(struct controller *c, struct error *err);
/* No plan comes of a request: it cannot run (refused), or nobody wants it any more. */
enum status controller_drop_plan(struct controller *c, int32_t number, const char *why,
                                 bool refused, struct error *err);
/* A request has ended, on disk. */
void controller_end_request(struct controller *c, int32_t parent);
/* Whether another plan may be asked for now. */
bool controller_may_plan(const struct controller *c);
/* How many were, those that are on their way to the disk too. */
int32_t controller_requests(const struct controller *c);
enum status controller_request_plan(struct controller *c, int32_t parent, struct error *err);
/* The plans that were on their way when the job before ended are asked for again. */
enum status controller_recover_plans(struct controller *c, struct error *err);
/* A candidate of an open node has ended, or the node was found open: it may be ready to close. */
enum status controller_look_at_round(struct controller *c, int32_t node, struct error *err);

/* A plan that may run becomes a node; asked_s: when it was asked for. */
enum status controller_record_plan(struct controller *c, const struct plan *plan,
                                   const char *changes, double asked_s, struct error *err);

/* ---- controller_trial.c ---- */
/* What the researcher proposed: checked, run dry where that is due, recorded or sent back. Leaves
 * what is left of the plan to the caller. */
enum status controller_take_plan(struct controller *c, struct plan *plan, double asked_s,
                                 struct error *err);
/* Goes on with those whose dry run has ended. */
enum status controller_check_trials(struct controller *c, struct error *err);
int controller_count_trials(const struct controller *c);
/* Drops the one that came last; there must be one. */
enum status controller_drop_trial(struct controller *c, const char *why, struct error *err);
void controller_close_trials(struct controller *c);

/* ---- controller_agents.c ---- */
enum status controller_open_agents(struct controller *c, struct error *err);
/* Calls that were under way when the job before ended. */
enum status controller_recover_agents(struct controller *c, struct error *err);
enum status controller_turn_agents(struct controller *c, struct error *err);
/* The answers of a replay that are due before anything else. */
enum status controller_replay_answers(struct controller *c, struct error *err);
/* What the researcher makes of an outcome that was just applied. */
enum status controller_turn_researcher(struct controller *c, struct error *err);
/* The search ends: nobody waits for an answer any more. */
enum status controller_end_agents(struct controller *c, struct error *err);
void controller_close_agents(struct controller *c);
/* Whether all that was to be prefetched is on disk, or nothing more comes. */
bool controller_is_prefetched(const struct controller *c);
/* How an allocation that only prefetched ends in the record. What it left open cost nothing. */
#define CONTROLLER_PREFETCHED "prefetched"
#define CONTROLLER_PREFETCHED_IN_PART "prefetched in part"
/* A plan of which nothing was heard for so long does not come; 0 or less: it may always. */
double controller_agents_patience_s(const struct controller *c);
/* Candidates that are planned ahead of the free workers. */
int64_t controller_ahead(const struct controller *c);
/* Records another number where what was measured asks for it. */
enum status controller_set_ahead(struct controller *c, struct error *err);
void controller_learn_ahead(struct controller *c, int32_t node, const struct candidate *candidate);

/* ---- controller_replay.c ---- */
/* Outcomes of the search when all its events are on disk. A replay does what the recorded search
 * did when it has as many. */
int64_t controller_outcomes(const struct controller *c);
/* Whether plans are those of a recorded search, which asked for them and dropped them then. */
bool controller_follows_plans(const struct controller *c);
enum status controller_plan_as_recorded(struct controller *c, struct error *err);
/* Whether it is not the event's turn; keeping it until it is (takes it); letting go of all whose
 * turn it is. */
bool controller_must_hold(const struct controller *c, const cJSON *event);
enum status controller_hold(struct controller *c, cJSON *event, struct error *err);
enum status controller_release(struct controller *c, struct error *err);
/* It does not follow the recorded search any more. */
enum status controller_go_astray(struct controller *c, struct error *err);
void controller_close_replay(struct controller *c);

/* ---- controller_calls.c ---- */
bool controller_works_on_call(const struct controller_worker *worker);
/* Hands calls to free workers. */
enum status controller_dispatch_calls(struct controller *c, struct error *err);
/* A worker's answer: payload, or failure. */
enum status controller_answer_call(struct controller *c, int32_t id, const cJSON *payload,
                                   const struct error *failure, struct error *err);
/* A worker left off: another one may take it. */
void controller_put_call_back(struct controller *c, int32_t id);
/* Nobody waits for them. */
void controller_drop_calls(struct controller *c);
void controller_close_calls(struct controller *c);
/* How call_local.c reaches the workers. */
void controller_local_calls(struct controller *c, struct call_local_options *out);
/* Dry runs stay here, whatever else goes by the transport, which is taken and replaced. */
enum status controller_front_transport(struct controller *c, struct call_transport *transport,
                                       struct error *err);

/* ---- controller_dispatch.c ---- */
enum status controller_push_ready(struct controller *c, int32_t node, int32_t candidate,
                                  struct error *err);
enum status controller_dispatch(struct controller *c, struct error *err);
/* What a finished candidate shows of the time that others will take. */
void controller_learn(struct controller *c, const struct candidate *candidate);
/* Whether there is time to score a candidate on the test split, which cannot be saved half done. */
bool controller_admits_test(struct controller *c, int32_t node, int32_t candidate);
enum status controller_drop_ready(struct controller *c, const char *reason, struct error *err);
/* To the worker that controller_free_worker names: there must be one. */
enum status controller_send_order(struct controller *c, enum work work, int32_t node,
                                  int32_t candidate, struct error *err);
/* The same for a call; takes its body. */
enum status controller_send_call(struct controller *c, enum work work, int32_t id, cJSON *body,
                                 struct error *err);
enum status controller_send_all(struct controller *c, enum message_kind kind, struct error *err);

/* ---- controller_workers.c ---- */
/* All changes of `present` and `work` go through here, so that nobody has to count workers. */
enum status controller_open_workers(struct controller *c, struct error *err);
void controller_close_workers(struct controller *c);
/* Index of the worker at a rank, -1 if none is there. */
int controller_find_worker(const struct controller *c, int rank);
/* It has said HELLO. */
void controller_welcome_worker(struct controller *c, int index);
/* One that is present and has no work, -1 if there is none. */
int controller_free_worker(const struct controller *c);
/* Gives work to the one that controller_free_worker named. */
void controller_begin_work(struct controller *c, enum work work, int32_t node, int32_t candidate);
void controller_end_work(struct controller *c, int index);

/* ---- controller_weights.c ---- */
/* Called when a candidate has finished, when its weights were dropped, and once when a search is
 * opened. */
enum status controller_keep_weights(struct controller *c, int32_t node, int32_t candidate,
                                    struct error *err);
enum status controller_drop_weights(struct controller *c, int32_t node, int32_t candidate,
                                    struct error *err);
enum status controller_find_kept_weights(struct controller *c, struct error *err);

/* ---- controller_finish.c ---- */
/* Why the search should end now, NULL if it should not. */
const char *controller_budget_spent(const struct controller *c);
/* Nothing is open, under way or waiting for the disk. */
bool controller_idle(const struct controller *c);
enum status controller_finish(struct controller *c, struct error *err);

/* ---- controller_control.c ---- */
/* For a search that was loaded. */
void controller_open_control(struct controller *c);
/* The limit in force: what was set and is recorded, else the job's. */
double controller_limit(const struct controller *c, enum search_limit_id id);
/* False while other limits are on their way to the disk: nothing that a limit decides is decided.
 */
bool controller_knows_limits(const struct controller *c);
/* The limits in force have changed. */
void controller_limits_set(struct controller *c);
/* Looks at control.json every few seconds; records other limits, sets halt, halt_by and
 * no_new_rounds. */
enum status controller_check_control(struct controller *c, struct error *err);
/* Nothing more fits into the time that is left: sets halt if it is somebody's wish that ends it,
 * and not the allocation. */
enum status controller_halt_early(struct controller *c, struct error *err);

/* ---- controller_report.c ---- */
void controller_report(struct controller *c, bool now);
void controller_report_candidate(struct controller *c, int32_t node, int32_t candidate);
void controller_report_end(struct controller *c);
/* What a prefetch has brought: an error that names what is missing, and what is there. */
enum status controller_judge_prefetch(const struct controller *c, struct error *err);

#endif
