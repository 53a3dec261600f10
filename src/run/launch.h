/* One search on all ranks of an MPI job: the same program everywhere, roles by rank. */
#ifndef RUN_LAUNCH_H
#define RUN_LAUNCH_H

#include <stdbool.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "run/job.h"
#include "run/secrets.h"
#include "run/workspace.h"

/* Exit code of a search that stopped on request and can be resumed; batch scripts requeue on it. */
enum { LAUNCH_EXIT_RESUMABLE = 85 };

/* Exit code of a search whose disk is full or refuses (EX_IOERR of sysexits.h): batch scripts wait,
 * and try again. */
enum { LAUNCH_EXIT_DISK = 74 };

/* How far it came: a failure is the job's only before the search has begun, and the disk's fault
 * only once the run folder was opened. */
enum launch_reached { LAUNCH_NOTHING, LAUNCH_FOLDER, LAUNCH_SEARCH };

struct launch_options {
    const char *job_path;
    const char *out_folder;    /* NULL: the job's */
    const char *replay_folder; /* the agents' calls are answered as in this run folder; NULL: not */
    double simulate_s; /* candidates sleep about so long instead of training; 0: they train */
    struct secrets *secrets; /* of the job: forgotten when rank 0's clients have read them */
    bool quiet;
    bool verbose;
};

/* Runs the search; collective over MPI_COMM_WORLD, between MPI_Init and MPI_Finalize. Every rank
 * returns: rank 0 with the search's outcome (STATUS_OK, STATUS_INTERRUPTED or the failure, in words
 * in *err and the job's mistakes in *problems), the others with STATUS_OK unless they failed
 * themselves. */
enum status launch_search(const struct launch_options *options, struct json_problems *problems,
                          enum launch_reached *reached, struct error *err);

/* Begins the search without any worker, and without MPI: requirement analysis, literature and data
 * research, on a machine that has a network; whoever runs the search goes on from there. Returns as
 * launch_search does; STATUS_UNSUPPORTED for a job whose agents ask for nothing there. */
enum status launch_prefetch(const struct launch_options *options, struct json_problems *problems,
                            enum launch_reached *reached, struct error *err);

/* What a search that has begun ends with. */
int launch_exit_code(enum status status);

/* CPU threads of one rank: the job's wish; else what OMP_NUM_THREADS or SLURM_CPUS_PER_TASK says,
 * or what the node has over its workers, within this process's affinity. */
int launch_threads(const struct job *job, int node_workers);

/* When the allocation ends, as TREX_DEADLINE says it (seconds of the wall clock; NULL: unset). From
 * here on it is a span of time: a clock that is set later changes nothing. Never, if it says
 * nothing that can be. */
struct deadline launch_deadline(const char *text, double wall_s);

/* STATUS_INVALID if MPI has one rank but the launcher's environment tells of more. */
enum status launch_check_size(int size, struct error *err);

#endif
