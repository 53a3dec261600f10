/* Looks at a run again and again. Ctrl-C is waited for, not handled: no flag, no function that a
 * signal interrupts. */
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "analysis/analysis.h"
#include "base/mem.h"

enum { FRAME_BYTES = 1 << 16 };

static const char draw_from_top[] = "\033[H\033[2J\033[?25l"; /* home, clear, no cursor */
static const char show_cursor[] = "\033[?25h";

static bool has_ended(const struct view *view)
{
    const char *condition = view_condition(view);
    return strcmp(condition, "finished") == 0 || strcmp(condition, "halted") == 0;
}

/* Waits; gives the signal that ended the wait, 0 if none did. */
static int wait_for_signal(const sigset_t *signals, double seconds)
{
    struct timespec span = {.tv_sec = (time_t)seconds};
    span.tv_nsec = (long)((seconds - (double)span.tv_sec) * 1e9);
    int number = sigtimedwait(signals, NULL, &span);
    return number > 0 ? number : 0;
}

int watch_run(struct view *view, double interval_s, int (*print)(struct view *view, void *context),
              void *context)
{
    bool terminal = isatty(STDOUT_FILENO);
    sigset_t signals;
    struct error err;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    /* A frame goes to the terminal in one piece: no flicker. stdout keeps the memory to its end. */
    setvbuf(stdout, mem_calloc(FRAME_BYTES, 1), _IOFBF, FRAME_BYTES);
    int exit_code = EXIT_DONE;
    int signal_number = 0;
    for (bool first = true; exit_code == EXIT_DONE; first = false) {
        fputs(terminal ? draw_from_top : first ? "" : "\n", stdout);
        exit_code = print(view, context);
        if (fflush(stdout) != 0 || has_ended(view) ||
            (signal_number = wait_for_signal(&signals, interval_s)) != 0) {
            break;
        }
        if (view_refresh(view, &err) != STATUS_OK) {
            memset(view, 0, sizeof(*view));
            exit_code = options_fail(&err);
        }
    }
    fputs(terminal ? show_cursor : "", stdout);
    fflush(stdout);
    sigprocmask(SIG_UNBLOCK, &signals, NULL);
    return exit_code;
}
