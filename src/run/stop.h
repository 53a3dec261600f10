/* Signals. The handler sets a flag and nothing else; what to do is decided where the flag is read.
 */
#ifndef RUN_STOP_H
#define RUN_STOP_H

#include <stdbool.h>

/* Installs the handler for SIGTERM, SIGINT, SIGUSR1; SIGPIPE is ignored. A second SIGINT or SIGTERM
 * ends the process the hard way. */
void stop_install(void);

bool stop_requested(void);
int stop_signal(void); /* its number, 0: none */

#endif
