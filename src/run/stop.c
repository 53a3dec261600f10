#include "run/stop.h"

#include <math.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static const double patience_max_s = 600.0;
static const double patience_min_s = 25.0; /* from SIGTERM at the time limit to SIGKILL: 30 s */
static const double end_s = 15.0;          /* for rank 0's own files, and all ranks' end */

/* The signal flag: the one mutable global of the program. */
static volatile sig_atomic_t requested_signal;

static void on_signal(int number)
{
    requested_signal = number;
}

static void on_launchers_term(int number)
{
    (void)number;
    alarm(STOP_GRACE_S); /* SIGALRM ends the process, wherever it waits */
}

static void install(int flags)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);
    action.sa_flags = flags;
    sigaction(SIGUSR1, &action, NULL);
    action.sa_flags = flags | (int)SA_RESETHAND;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN;
    action.sa_flags = 0;
    sigaction(SIGPIPE, &action, NULL);
}

void stop_install(void)
{
    install(0);
}

void stop_install_rank(int rank)
{
    install(SA_RESTART);
    if (rank > 0) {
        struct sigaction action;
        memset(&action, 0, sizeof(action));
        action.sa_handler = on_launchers_term;
        sigemptyset(&action.sa_mask);
        action.sa_flags = SA_RESTART;
        sigaction(SIGTERM, &action, NULL);
    }
}

void stop_heard(void)
{
    struct sigaction action;
    if (sigaction(SIGTERM, NULL, &action) == 0 && action.sa_handler == on_launchers_term) {
        signal(SIGTERM, SIG_IGN); /* first, so that none sets the alarm again */
        alarm(0);
    }
}

void stop_watch(double seconds)
{
    alarm(seconds > 0.0 ? (unsigned)ceil(fmin(seconds, 1e9)) : 0);
}

bool stop_requested(void)
{
    return requested_signal != 0;
}

int stop_signal(void)
{
    return (int)requested_signal;
}

double stop_patience_s(double left_s, double predicted_s)
{
    double most_s = patience_max_s > 4.0 * predicted_s ? patience_max_s : 4.0 * predicted_s;
    double wait_s = left_s - end_s;
    wait_s = wait_s > patience_min_s ? wait_s : patience_min_s;
    return wait_s < most_s ? wait_s : most_s;
}
