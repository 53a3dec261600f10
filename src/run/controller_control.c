/* What somebody at a login node wants of this search: control.json, looked at every few seconds. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "run/controller_state.h"
#include "store/folder.h"

static const double look_interval_s = 2.0;

/* ---- limits ---- */

static double job_limit(const struct job *job, int id)
{
    const double limits[SEARCH_LIMIT_COUNT] = {
        [SEARCH_LIMIT_ROUNDS] = (double)job->rounds,
        [SEARCH_LIMIT_CORE_HOURS] = job->core_hours,
        [SEARCH_LIMIT_GPU_HOURS] = job->gpu_hours,
        [SEARCH_LIMIT_GOAL_SCORE] = job->goal_score,
        [SEARCH_LIMIT_AGENT_TOKENS] = (double)job->agent_tokens,
        [SEARCH_LIMIT_AGENT_MONEY] = job->agent_money_usd,
    };
    return limits[id];
}

double controller_limit(const struct controller *c, enum search_limit_id id)
{
    double set = c->search.limits[id];
    return isnan(set) ? job_limit(c->options.job, id) : set;
}

bool controller_knows_limits(const struct controller *c)
{
    return c->search.last_sequence >= c->control.limits_sequence;
}

/* Enough digits to read the very number again. */
static void format_limit(double value, char out[32])
{
    if (isnan(value)) {
        snprintf(out, 32, "none");
        return;
    }
    snprintf(out, 32, "%.15g", value);
    if (strtod(out, NULL) != value) {
        snprintf(out, 32, "%.17g", value);
    }
}

/* "<before> -> <now>" of a limit that changes. */
static int format_change(const struct controller *c, enum search_limit_id id, double wanted,
                         char *out, size_t out_bytes)
{
    char before[32];
    char now[32];
    double job = job_limit(c->options.job, id);
    bool none = isnan(c->search.limits[id]) && search_limits[id].fallback == 0.0 && job == 0.0;
    format_limit(none ? NAN : controller_limit(c, id), before);
    format_limit(isnan(wanted) ? job : wanted, now);
    return snprintf(out, out_bytes, "%s %s -> %s%s", search_limits[id].name, before,
                    isnan(wanted) ? "the job file's " : "", now);
}

/* Makes the limits of the wish those of the search, unless they are, or are on their way. */
static enum status follow_limits(struct controller *c, struct error *err)
{
    struct controller_control *control = &c->control;
    const struct store_control *wish = &control->wish;
    char what[1024];
    size_t used = 0;
    if (!controller_knows_limits(c)) {
        return STATUS_OK;
    }
    for (int i = 0; i < SEARCH_LIMIT_COUNT; i++) {
        if (!search_limit_same(wish->limits[i], c->search.limits[i])) {
            used += (size_t)snprintf(what + used, sizeof(what) - used, "%s", used > 0 ? ", " : "");
            used += (size_t)format_change(c, (enum search_limit_id)i, wish->limits[i], what + used,
                                          sizeof(what) - used);
        }
    }
    if (used == 0) {
        return STATUS_OK;
    }
    log_write(c->options.log, LOG_INFO, "run", "limits: %s, by %s", what, wish->by);
    cJSON *event = controller_event("limits_set", -1, -1);
    cJSON *limits = cJSON_AddObjectToObject(event, "limits");
    for (int id = 0; id < SEARCH_LIMIT_COUNT; id++) {
        if (!isnan(wish->limits[id])) {
            cJSON_AddNumberToObject(limits, search_limits[id].name, wish->limits[id]);
        }
    }
    cJSON_AddStringToObject(event, "what", what);
    cJSON_AddStringToObject(event, "by", wish->by);
    control->limits_sequence = c->next_sequence;
    return controller_emit(c, event, err);
}

void controller_limits_set(struct controller *c)
{
    if (!c->test_root_sent && !c->test_winner_sent && !c->finish_recorded) {
        c->end_reason = NULL; /* it was going to end by the old limits: decide anew */
    }
}

/* ---- halts ---- */

static void take_halt(struct controller *c, const struct store_control *wish)
{
    struct controller_control *control = &c->control;
    if (wish->halt == STORE_HALT_NONE &&
        (c->no_new_rounds || isfinite(deadline_left_s(c->halt_by)))) {
        log_write(c->options.log, LOG_INFO, "run", "%s wants no halt any more", wish->by);
    }
    c->no_new_rounds = false;
    c->halt_by = deadline_never();
    if (wish->halt == STORE_HALT_NONE || strcmp(c->search.halt_id, wish->halt_id) == 0) {
        control->wish.halt = STORE_HALT_NONE;
        return;
    }
    if (wish->halt == STORE_HALT_ROUND) {
        c->no_new_rounds = true;
        log_write(c->options.log, LOG_INFO, "run", "%s wants a halt after the open rounds",
                  wish->by);
    } else if (wish->halt == STORE_HALT_AT) {
        /* From here on it is a span of time: a jump of the wall clock changes nothing. */
        c->halt_by = deadline_after(wish->halt_at_s - clock_wall_s());
        log_write(c->options.log, LOG_INFO, "run", "%s wants a halt in %.0f s", wish->by,
                  fmax(0.0, deadline_left_s(c->halt_by)));
    }
}

/* Whether the time has come; says how in words. */
static const char *halt_due(const struct controller *c)
{
    switch (c->control.wish.halt) {
    case STORE_HALT_NOW:
        return "at once";
    case STORE_HALT_ROUND: /* unless the search is about to end anyway */
        return c->end_reason == NULL && controller_idle(c) ? "after a round" : NULL;
    case STORE_HALT_AT:
        return deadline_left_s(c->halt_by) <= controller_drain_s(c) ? "at the time asked for"
                                                                    : NULL;
    default:
        return NULL;
    }
}

static enum status begin_halt(struct controller *c, const char *how, struct error *err)
{
    struct controller_control *control = &c->control;
    snprintf(control->reason, sizeof(control->reason), "%s, by %s", how, control->wish.by);
    c->halt = control->reason;
    cJSON *event = controller_event("halted", -1, -1);
    cJSON_AddStringToObject(event, "id", control->wish.halt_id);
    cJSON_AddStringToObject(event, "how", how);
    cJSON_AddStringToObject(event, "by", control->wish.by);
    return controller_emit(c, event, err);
}

static enum status check_halt(struct controller *c, struct error *err)
{
    const char *how = c->halt == NULL && !c->stopping ? halt_due(c) : NULL;
    return how != NULL ? begin_halt(c, how, err) : STATUS_OK;
}

enum status controller_halt_early(struct controller *c, struct error *err)
{
    bool nearer = deadline_left_s(c->halt_by) < deadline_left_s(c->options.deadline);
    if (c->halt != NULL || !nearer) {
        return STATUS_OK;
    }
    return begin_halt(c, "ahead of the time asked for, before which nothing more could be done",
                      err);
}

/* ---- looking ---- */

/* Whether the file is another one than at the last look. It is opened, because file systems of
 * clusters show what another node wrote only then. False too where it cannot be told. */
static bool has_changed(struct controller *c, const char *path)
{
    struct controller_control *control = &c->control;
    struct stat info;
    memset(&info, 0, sizeof(info));
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int failure = fd < 0 ? errno : 0;
    if (fd >= 0) {
        failure = fstat(fd, &info) != 0 ? errno : 0;
        close(fd);
    }
    if (failure == ESTALE || failure == EINTR) {
        return false; /* it is being replaced: at the next look */
    }
    bool same = failure == control->failure && info.st_ino == control->inode &&
                info.st_size == control->size && info.st_mtim.tv_sec == control->written.tv_sec &&
                info.st_mtim.tv_nsec == control->written.tv_nsec;
    control->failure = failure;
    control->inode = info.st_ino;
    control->size = info.st_size;
    control->written = info.st_mtim;
    return !same;
}

static enum status look(struct controller *c, struct error *err)
{
    char path[FILE_PATH_BYTES];
    const char *folder = c->options.job->output;
    struct error refused = {0};
    struct store_control wish;
    TRY(file_join(folder, FOLDER_CONTROL, path, err));
    c->control.looked_s = clock_monotonic_s();
    if (!has_changed(c, path)) {
        return STATUS_OK;
    }
    store_control_init(&wish);
    enum status status = store_control_read(folder, &wish, &refused);
    if (status == STATUS_NOT_FOUND) {
        snprintf(wish.by, sizeof(wish.by), "whoever removed %s", FOLDER_CONTROL);
    } else if (status != STATUS_OK) {
        log_write(c->options.log, LOG_WARNING, "run",
                  "what trex-tree left for this search cannot be read and changes nothing: %s",
                  refused.message);
        return STATUS_OK;
    }
    if (wish.by[0] == '\0') {
        snprintf(wish.by, sizeof(wish.by), "somebody");
    }
    c->control.wish = wish;
    take_halt(c, &wish);
    return STATUS_OK;
}

void controller_open_control(struct controller *c)
{
    c->control.looked_s = -INFINITY;
    c->control.failure = -1; /* unlike anything: the first look reads */
    c->halt_by = deadline_never();
    store_control_init(&c->control.wish);
    /* They hold if the file cannot be read. */
    memcpy(c->control.wish.limits, c->search.limits, sizeof(c->search.limits));
    c->control.limits_sequence = 0;
}

enum status controller_check_control(struct controller *c, struct error *err)
{
    if (c->finish_recorded) {
        return STATUS_OK;
    }
    if (clock_monotonic_s() - c->control.looked_s >= look_interval_s) {
        TRY(look(c, err));
    }
    TRY(follow_limits(c, err));
    return check_halt(c, err);
}
