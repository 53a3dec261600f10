/* Wishes for a search that runs elsewhere: read, changed, written. */
#include <math.h>
#include <pwd.h>
#include <string.h>
#include <unistd.h>

#include "analysis/analysis.h"
#include "base/clock.h"

enum status steer_open(const char *folder, struct view *out, struct error *err)
{
    TRY(view_open(folder, out, err));
    enum status status = STATUS_OK;
    if (out->search.end == SEARCH_FINISHED) {
        status = FAIL(err, STATUS_INVALID, "the search in %s has finished (%s): nothing to steer",
                      folder, search_text(out->search.end_reason));
    } else {
        status = store_control_read(folder, &out->control, err);
        if (status == STATUS_NOT_FOUND) {
            status = STATUS_OK;
        } else if (status != STATUS_OK) {
            error_context(err, "remove this file to begin anew (limits that were set are lost)");
        }
    }
    if (status != STATUS_OK) {
        view_close(out);
    }
    return status;
}

/* user@host in printable ASCII. */
static void name_self(char *out, size_t out_bytes)
{
    const struct passwd *entry = getpwuid(geteuid());
    char host[65] = "";
    gethostname(host, sizeof(host) - 1);
    if (entry != NULL) {
        snprintf(out, out_bytes, "%.48s@%s", entry->pw_name, host);
    } else {
        snprintf(out, out_bytes, "user %ld@%s", (long)geteuid(), host);
    }
    for (char *c = out; *c != '\0'; c++) {
        *c = *c >= ' ' && *c <= '~' ? *c : '?';
    }
}

enum status steer_write(struct view *view, struct error *err)
{
    struct store_control *control = &view->control;
    name_self(control->by, sizeof(control->by));
    control->written_s = clock_wall_s();
    enum status status = store_control_write(view->folder, control, err);
    if (status == STATUS_NOT_FOUND) { /* a search that starts sweeps up files written aside */
        status = store_control_write(view->folder, control, err);
    }
    return status;
}

void steer_print_when(const struct view *view)
{
    const struct store_holder *holder = &view->holder;
    if (view->held && holder->alive == STORE_ALIVE_YES) {
        printf("The search runs: it will obey within seconds.\n");
    } else if (view->held && holder->alive == STORE_ALIVE_UNKNOWN) {
        printf("If the search runs (process %lld on %s%s%s) it will obey within seconds, else when "
               "it next starts.\n",
               (long long)holder->pid, holder->host, holder->job[0] != '\0' ? ", Slurm job " : "",
               holder->job);
    } else {
        printf("The search does not run now: it will obey when it next starts.\n");
    }
}

/* ---- for status ---- */

/* A line of those that are set, or of those that wait to be obeyed; none if there are none. */
static void print_limits(const struct view *view, const double limits[SEARCH_LIMIT_COUNT],
                         bool waiting, const char *label, const char *begin)
{
    bool any = false;
    for (int i = 0; i < SEARCH_LIMIT_COUNT; i++) {
        bool shown = waiting ? view_limit_waits(view, (enum search_limit_id)i) : !isnan(limits[i]);
        if (!shown) {
            continue;
        }
        if (!any) {
            paint_label(label);
        }
        printf("%s%s ", any ? ", " : begin, search_limits[i].name);
        printf(isnan(limits[i]) ? "as in the job file" : "%.10g", limits[i]);
        any = true;
    }
    if (any) {
        putchar('\n');
    }
}

void steer_print_wishes(const struct view *view)
{
    const struct store_control *control = &view->control;
    const char *by = control->by[0] != '\0' ? control->by : "somebody";
    if (view_halt_wanted(view) && control->halt == STORE_HALT_AT) {
        char left[PAINT_TIME_BYTES];
        paint_duration(fmax(0.0, control->halt_at_s - clock_wall_s()), left);
        paint_label("halt");
        printf("wanted in %s by %s\n", left, by);
    } else if (view_halt_wanted(view)) {
        paint_label("halt");
        printf("wanted %s by %s\n",
               control->halt == STORE_HALT_NOW ? "now" : "after the open rounds", by);
    }
    print_limits(view, view->search.limits, false, "set", "");
    char wanted[sizeof(control->by) + 32];
    snprintf(wanted, sizeof(wanted), "wanted by %s: ", by);
    print_limits(view, control->limits, true, "limits", wanted);
}

cJSON *steer_limits_json(const struct view *view)
{
    cJSON *object = cJSON_CreateObject();
    for (int id = 0; id < SEARCH_LIMIT_COUNT; id++) {
        double value = view_limit(view, (enum search_limit_id)id);
        cJSON_AddItemToObject(object, search_limits[id].name,
                              isnan(value) ? cJSON_CreateNull() : cJSON_CreateNumber(value));
    }
    return object;
}

cJSON *steer_wishes_json(const struct view *view)
{
    static const char *const halts[] = {"none", "now", "after round", "at"};
    const struct store_control *control = &view->control;
    enum store_halt halt = view_halt_wanted(view) ? control->halt : STORE_HALT_NONE;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "halt", halts[halt]);
    if (halt == STORE_HALT_AT) {
        cJSON_AddNumberToObject(object, "halt_at_s", control->halt_at_s);
    }
    cJSON *limits = cJSON_AddObjectToObject(object, "limits");
    for (int id = 0; id < SEARCH_LIMIT_COUNT; id++) {
        if (!isnan(control->limits[id])) {
            cJSON_AddNumberToObject(limits, search_limits[id].name, control->limits[id]);
        }
    }
    cJSON_AddStringToObject(object, "by", control->by);
    return object;
}
