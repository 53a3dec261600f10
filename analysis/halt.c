/* trex-tree halt: asks a running search to stop, and to be able to go on later. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "analysis/analysis.h"
#include "base/clock.h"

static const char usage[] =
    "usage: trex-tree halt RUN [--after-round | --at TIME | --cancel]\n\n"
    "Asks the search in folder RUN to stop, wherever it runs: at once, if no option says "
    "otherwise. Candidates save their\n"
    "state at the next training step, nothing is lost, and its batch job ends without a requeue. "
    "The same sbatch (or\n"
    "mpirun) later goes on. A search that does not run obeys when it next starts, once.\n\n"
    "  --after-round   no new rounds; those that are open end before it stops\n"
    "  --at TIME       all is safe on disk at TIME, as far as can be foreseen: 2026-11-23T08:00 or "
    "23:30 (local\n"
    "                  time, the next such), or +30m, +2h, +1d from now\n"
    "  --cancel        takes the wish back, as long as it has not been obeyed\n\n"
    "example: trex-tree halt runs/sst2 --at 18:00\n";

/* ---- times ---- */

enum { DAY_S = 86400, YEAR_S = 366 * DAY_S };

static bool digits_then(const char *text, const char *units, double *value, char *unit)
{
    char *end = NULL;
    errno = 0;
    *value = text[0] >= '0' && text[0] <= '9' ? strtod(text, &end) : -1.0;
    if (end == NULL || errno != 0 || end[0] == '\0' || end[1] != '\0' ||
        strspn(text, "0123456789.") != (size_t)(end - text)) {
        return false;
    }
    *unit = end[0];
    return strchr(units, *unit) != NULL;
}

/* "+2h": from now. */
static bool parse_span(const char *text, double now_s, double *at_s)
{
    double value = 0.0;
    char unit = 's';
    if (text[0] != '+' || !digits_then(text + 1, "smhd", &value, &unit)) {
        return false;
    }
    double unit_s = unit == 'd' ? DAY_S : unit == 'h' ? 3600.0 : unit == 'm' ? 60.0 : 1.0;
    *at_s = now_s + value * unit_s;
    return true;
}

/* Local time that exists: mktime makes March 3rd of February 31st, and another hour of one that
 * the clocks pass over. */
static bool local_time(struct tm parts, double *at_s)
{
    struct tm found = parts;
    found.tm_isdst = -1;
    time_t seconds = mktime(&found);
    *at_s = (double)seconds;
    return seconds != (time_t)-1 && found.tm_mday == parts.tm_mday &&
           found.tm_mon == parts.tm_mon && found.tm_hour == parts.tm_hour &&
           found.tm_min == parts.tm_min;
}

/* "2026-11-23T08:00" or "...:30"; a space instead of the T as well. */
static bool parse_date(const char *text, double *at_s)
{
    static const char *const forms[] = {"%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M",
                                        "%Y-%m-%d %H:%M:%S"};
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        struct tm parts = {0};
        const char *end = strptime(text, forms[i], &parts);
        if (end != NULL && *end == '\0') {
            return local_time(parts, at_s);
        }
    }
    return false;
}

/* "23:30": today, or tomorrow if that has passed. */
static bool parse_clock(const char *text, double now_s, double *at_s)
{
    time_t now = (time_t)now_s;
    struct tm parts;
    struct tm hour = {0};
    const char *end = strptime(text, "%H:%M", &hour);
    if (end == NULL || *end != '\0' || localtime_r(&now, &parts) == NULL) {
        return false;
    }
    parts.tm_hour = hour.tm_hour;
    parts.tm_min = hour.tm_min;
    parts.tm_sec = 0;
    if (!local_time(parts, at_s)) {
        return false;
    }
    if (*at_s <= now_s) {
        parts.tm_mday++;
        parts.tm_isdst = -1;
        *at_s = (double)mktime(&parts);
    }
    return true;
}

static enum status parse_time(const char *text, double *at_s, struct error *err)
{
    double now_s = clock_wall_s();
    if (!parse_span(text, now_s, at_s) && !parse_clock(text, now_s, at_s) &&
        !parse_date(text, at_s)) {
        return FAIL(err, STATUS_INVALID,
                    "\"%.40s\" is no time; allowed are a local time (2026-11-23T08:00, 23:30) and "
                    "a span from now (+30m, +2h, +1d)",
                    text);
    }
    if (!(*at_s >= now_s - 1.0 && *at_s <= now_s + YEAR_S)) {
        return FAIL(err, STATUS_RANGE, "\"%.40s\" is %s; allowed is a time within the next year",
                    text, *at_s < now_s ? "in the past" : "more than a year ahead");
    }
    return STATUS_OK;
}

static void print_time(double at_s)
{
    char text[64] = "?";
    char left[PAINT_TIME_BYTES];
    time_t seconds = (time_t)at_s;
    struct tm parts;
    if (localtime_r(&seconds, &parts) != NULL) {
        strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S %Z", &parts);
    }
    paint_duration(fmax(0.0, at_s - clock_wall_s()), left);
    printf("%s (in %s)", text, left);
}

/* ---- the command ---- */

static enum status new_id(char out[17], struct error *err)
{
    unsigned char bytes[8];
    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes)) {
        return FAIL_ERRNO(err, "no random bytes");
    }
    for (size_t i = 0; i < sizeof(bytes); i++) {
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    }
    return STATUS_OK;
}

static void print_wish(const struct view *view)
{
    struct view_counts counts;
    view_count(view, &counts);
    printf("%s: ", view->folder);
    switch (view->control.halt) {
    case STORE_HALT_NOW:
        printf("asked to halt now; candidates save their state at the next training step.\n");
        break;
    case STORE_HALT_ROUND:
        printf("asked to halt after this round: no new rounds, the %d open one%s end%s first.\n",
               counts.open, counts.open == 1 ? "" : "s", counts.open == 1 ? "s" : "");
        break;
    default:
        printf("asked to halt at ");
        print_time(view->control.halt_at_s);
        printf("; candidates save their state before that.\n");
        break;
    }
    steer_print_when(view);
    printf("The same sbatch or mpirun goes on afterwards; trex-tree halt %s --cancel takes the "
           "wish back.\n",
           view->folder);
}

static enum status cancel(struct view *view, struct error *err)
{
    bool wanted = view_halt_wanted(view);
    if (!wanted) {
        printf("%s: no halt is wanted%s.\n", view->folder,
               view->control.halt != STORE_HALT_NONE ? " (the last one was obeyed)" : "");
        return STATUS_OK;
    }
    view->control.halt = STORE_HALT_NONE;
    TRY(steer_write(view, err));
    printf("%s: the wish to halt is taken back. A search that has begun to stop stops "
           "nevertheless.\n",
           view->folder);
    return STATUS_OK;
}

static enum status ask(struct view *view, enum store_halt halt, double at_s, struct error *err)
{
    view->control.halt = halt;
    view->control.halt_at_s = at_s;
    TRY(new_id(view->control.halt_id, err));
    TRY(steer_write(view, err));
    print_wish(view);
    return STATUS_OK;
}

static int run(const struct command *command, int argc, char **argv)
{
    bool after_round = false;
    bool cancelled = false;
    const char *at = NULL;
    double at_s = 0.0;
    const struct command_option options[] = {{"after-round", &after_round, NULL},
                                             {"at", NULL, &at},
                                             {"cancel", &cancelled, NULL},
                                             {NULL, NULL, NULL}};
    char **arguments = NULL;
    int count = 0;
    int exit_code = EXIT_DONE;
    if (!options_parse(command, argc, argv, options, 1, 1, &arguments, &count, &exit_code)) {
        return exit_code;
    }
    if (after_round + cancelled + (at != NULL) > 1) {
        fprintf(stderr, "trex-tree halt: --after-round, --at and --cancel exclude each other\n");
        return EXIT_WRONG_INPUT;
    }
    struct view view;
    struct error err;
    if ((at != NULL && parse_time(at, &at_s, &err) != STATUS_OK) ||
        steer_open(arguments[0], &view, &err) != STATUS_OK) {
        return options_fail(&err);
    }
    enum store_halt halt = after_round  ? STORE_HALT_ROUND
                           : at != NULL ? STORE_HALT_AT
                                        : STORE_HALT_NOW;
    enum status status = cancelled ? cancel(&view, &err) : ask(&view, halt, at_s, &err);
    view_close(&view);
    return status == STATUS_OK ? EXIT_DONE : options_fail(&err);
}

const struct command command_halt = {"halt", "stop a running search so that it can go on later",
                                     usage, run};
