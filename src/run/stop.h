/* Signals. The handler sets a flag and nothing else; what to do is decided where the flag is read.
 */
#ifndef RUN_STOP_H
#define RUN_STOP_H

#include <stdbool.h>

/* How long a rank that trains goes on after SIGTERM without being told anything by rank 0, and rank
 * 0 waits then for the first word of such a rank. Longer than a training step, shorter than what
 * launchers leave before SIGKILL (Slurm's KillWait: 30 s). */
enum { STOP_GRACE_S = 10 };

/* Installs the handler for SIGTERM, SIGINT, SIGUSR1; SIGPIPE is ignored. A second SIGINT or SIGTERM
 * ends the process the hard way. System calls that wait end with EINTR. */
void stop_install(void);

/* The same for a rank of an MPI job, where system calls go on: MPI's own do not expect EINTR. On
 * ranks other than 0, SIGTERM comes from a launcher that ends all ranks, be it that somebody wants
 * it so (then rank 0 lives and tells them to stop) or that a rank has died: it ends the rank after
 * STOP_GRACE_S, unless stop_heard is called before. */
void stop_install_rank(int rank);

/* Rank 0 has told this rank to stop: it lives, and SIGTERM means nothing more here. On rank 0 this
 * does nothing. */
void stop_heard(void);

/* For rank 0: ends this process by SIGALRM, unless it is called again within so many seconds. 0 or
 * less: never. */
void stop_watch(double seconds);

bool stop_requested(void);
int stop_signal(void); /* its number, 0: none */

/* Longest wait for workers to put their state on disk after a stop, in seconds: some minutes, or
 * several times what was predicted, but not past the time limit where it is known. left_s: until
 * that limit, infinite: unknown. */
double stop_patience_s(double left_s, double predicted_s);

#endif
