#include "run/stop.h"

#include <signal.h>
#include <string.h>

/* The signal flag: the one mutable global of the program. */
static volatile sig_atomic_t requested_signal;

static void on_signal(int number)
{
    requested_signal = number;
}

void stop_install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    action.sa_flags = (int)SA_RESETHAND;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN;
    action.sa_flags = 0;
    sigaction(SIGPIPE, &action, NULL);
}

bool stop_requested(void)
{
    return requested_signal != 0;
}

int stop_signal(void)
{
    return (int)requested_signal;
}
